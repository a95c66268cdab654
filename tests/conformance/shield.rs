//! An edge that asks another edge, its shield, instead of the origin: what each tells the other, that
//! nobody else is told it, and that a purge holds through both.

#![expect(clippy::unwrap_used, reason = "a panic is a test's verdict")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use meridian_config::edge::{Edge, RangeFill};
use meridian_tests::client::{Client, Reply, metric};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, Seen, ok, status};
use meridian_tests::process::Signal;
use meridian_tests::wait::{PATIENCE, eventually};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::file::{File, bytes};
use crate::replica::Replica;

const SECRET: &str = "a-secret-of-all-the-nodes";

/// A child, its shield and the origin; each edge hears of purges from a replica of its own, so that
/// the test says who hears what when.
pub(crate) struct Tiers {
    pub(crate) origin: ScriptedOrigin,
    pub(crate) shield: EdgeProcess,
    pub(crate) child: EdgeProcess,
    pub(crate) above: Replica,
    pub(crate) below: Replica,
    _home: TempDir,
}

pub(crate) async fn tiers(change: impl Fn(&mut Edge)) -> Tiers {
    let (origin, home) = (ScriptedOrigin::start().await, tempfile::tempdir().unwrap());
    let (above, below) = (Replica::start().await, Replica::start().await);
    let shield = node(&origin, &above, &home, None, &change).await;
    let at = shield.url().trim_start_matches("http://").to_owned();
    let child = node(&origin, &below, &home, Some(&at), &change).await;
    Tiers { origin, shield, child, above, below, _home: home }
}

/// The shield, or the child of the shield `at`.
async fn node(
    origin: &ScriptedOrigin,
    replica: &Replica,
    home: &TempDir,
    at: Option<&str>,
    change: &impl Fn(&mut Edge),
) -> EdgeProcess {
    let (secret, token) = (home.path().join("secret"), home.path().join("token"));
    std::fs::write(&secret, SECRET).unwrap();
    std::fs::write(&token, "a-token-of-scope-edge\n").unwrap();
    EdgeProcess::start(origin, |edge| {
        let control = format!("replicas = [\"control-1\"]\ntoken_file = {token:?}");
        edge.control = Some(toml::from_str(&control).unwrap());
        edge.peers.insert("control-1".parse().unwrap(), replica.address().parse().unwrap());
        let nodes = if at.is_some() { "nodes = [\"iad-1\"]" } else { "" };
        // Long enough for a test to see that it is waited, short enough to be waited for.
        let shield = format!("{nodes}\nsecret_file = {secret:?}\ncatch_up = \"300ms\"");
        edge.shield = Some(toml::from_str(&shield).unwrap());
        match at {
            Some(at) => {
                edge.peers.insert("iad-1".parse().unwrap(), at.parse().unwrap());
                edge.origin.push(toml::from_str("name = \"iad-1\"").unwrap());
            }
            None => edge.name = "iad-1".parse().unwrap(),
        }
        change(edge);
    })
    .await
}

/// Answers with the number of the version.
fn versioned(origin: &ScriptedOrigin, path: &str, tags: &'static str) -> Arc<AtomicUsize> {
    let version = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&version);
    origin.script_fn(path, move |seen: &Seen| {
        let etag = format!("\"{}\"", now.load(Ordering::SeqCst));
        let script = if seen.header("if-none-match") == Some(&etag) {
            status(304)
        } else {
            ok(now.load(Ordering::SeqCst).to_string())
        };
        let script = script.header("cache-control", "max-age=60").header("etag", &etag);
        script.header("surrogate-key", tags)
    });
    version
}

fn statuses(reply: &Reply) -> String {
    let lines = reply.headers.get_all("cache-status").iter();
    lines.map(|line| line.to_str().unwrap()).collect::<Vec<_>>().join(", ")
}

/// Asks a node as a client that says something only nodes may say.
async fn ask(edge: &EdgeProcess, path: &str, fields: &[(&str, &str)]) -> Reply {
    let url = format!("{}{path}", edge.url());
    Client::try_request(Method::GET, &url, fields, "".into()).await.unwrap()
}

async fn count(edge: &EdgeProcess, name: &str, label: &str) -> f64 {
    let text = Client::get(&format!("{}/metrics", edge.admin())).await;
    let lines = text.text().lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn what_one_edge_has_fetched_is_there_for_all_and_each_tier_says_what_it_did() {
    let tiers = tiers(|_| {}).await;
    versioned(&tiers.origin, "/a", "red");
    let first = tiers.child.get("/a").await;
    let told = statuses(&first);
    let (above, below) = told.split_once(", ").unwrap();
    assert!(above.starts_with("iad-1; fwd=uri-miss; fwd-status=200; stored"), "{told}");
    assert!(below.starts_with("fra-1; fwd=uri-miss; fwd-status=200; stored"), "{told}");
    assert_eq!(first.header("via"), Some("1.1 iad-1"), "{first:?}");
    assert_eq!(first.headers.get_all("via").iter().nth(1).unwrap(), "1.1 fra-1");
    assert!(statuses(&tiers.child.get("/a").await).contains("fra-1; hit"));
    assert!(statuses(&tiers.shield.get("/a").await).starts_with("iad-1; hit"));
    let seen = &tiers.origin.requests("/a")[..];
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].headers.get_all("via").iter().count(), 2);
    assert_eq!(seen[0].header("x-forwarded-for"), Some("127.0.0.1, 127.0.0.1"));
    assert_eq!(count(&tiers.child, "edge_shield_fetches_total", "current").await, 1.0);
    assert_eq!(count(&tiers.shield, "edge_shield_needs_total", "met").await, 1.0);
    let explained = format!("{}/v1/explain?url=/a", tiers.child.admin());
    let explained = Client::get(&explained).await.json();
    assert_eq!(explained["origins"][0]["name"], "iad-1", "{explained}");
    assert_eq!(explained["origins"][0]["shield"], true);
    assert_eq!(explained["stored"][0]["tags"][0], "red", "{explained}");
}

#[tokio::test]
async fn only_another_edge_is_told_what_is_for_edges() {
    let tiers = tiers(|_| {}).await;
    versioned(&tiers.origin, "/a", "red");
    let internal = |reply: &Reply| {
        let names = reply.headers.keys().map(|name| name.as_str().to_owned());
        let ours = |name: &String| name.starts_with("meridian-") || name == "surrogate-key";
        names.filter(ours).collect::<Vec<_>>()
    };
    let claims = [
        ("meridian-node", "fra-1"),
        ("meridian-site", "default"),
        ("meridian-need-cursor", "c0"),
        ("meridian-secret", "a-secret-of-all-the-node"),
    ];
    for edge in [&tiers.child, &tiers.shield] {
        for path in ["/a", "/a", "/missing", "/missing?2"] {
            let reply = ask(edge, path, &claims).await;
            assert_eq!(internal(&reply), [""; 0], "{path}: {reply:?}");
        }
    }
    for path in ["/a", "/missing", "/missing?2"] {
        for seen in tiers.origin.requests(path) {
            let names: Vec<_> = seen.headers.keys().map(|name| name.as_str()).collect();
            assert!(!names.iter().any(|name| name.starts_with("meridian-")), "{names:?}");
        }
    }
    // With the secret it is told everything, and nothing if what it needs is not known.
    let claims = [&claims[..3], &[("meridian-secret", SECRET)]].concat();
    let reply = ask(&tiers.shield, "/a", &claims).await;
    let want = ["meridian-fill-cursor", "meridian-lifetime", "meridian-node", "surrogate-key"];
    let mut told = internal(&reply);
    told.sort();
    assert_eq!(told, want, "{reply:?}");
    assert_eq!(reply.header("meridian-fill-cursor"), Some("c0"));
    assert_eq!(reply.header("meridian-lifetime"), Some("60"));
    assert!(reply.cache_status().starts_with("iad-1; hit"), "{reply:?}");
}

#[tokio::test]
async fn an_origin_cannot_say_what_only_edges_may() {
    let tiers = tiers(|_| {}).await;
    let script = ok("page").header("cache-control", "max-age=60");
    let script = script.header("meridian-lifetime", "0").header("meridian-fill-cursor", "c99");
    tiers.origin.script("/a", script.header("meridian-node", "iad-9"));
    let reply = tiers.child.get("/a").await;
    assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("meridian-")), "{reply:?}");
    assert!(statuses(&tiers.child.get("/a").await).contains("fra-1; hit"));
}

/// The child has heard of a purge, the shield has not: its store and its flights are not for the child.
#[tokio::test]
async fn a_shield_that_is_behind_is_asked_past_its_store_and_its_flights() {
    let tiers = tiers(|_| {}).await;
    let version = versioned(&tiers.origin, "/a", "red");
    tiers.child.get("/a").await;
    version.store(1, Ordering::SeqCst);
    tiers.below.purged("p", r#"{"tag":"red"}"#, false).await;
    let reply = tiers.child.get("/a").await;
    assert_eq!(reply.text(), "1", "{}", statuses(&reply));
    assert!(statuses(&reply).contains("iad-1; fwd=bypass; fwd-status=200; detail=purges-behind"));
    assert_eq!(tiers.shield.get("/a").await.text(), "0", "the shield knows of no purge");
    assert!(statuses(&tiers.child.get("/a").await).contains("fra-1; hit"), "it was stored");
    assert_eq!(count(&tiers.shield, "edge_shield_needs_total", "bypassed").await, 1.0);

    // As soon as it has heard of it, it is as good as ever.
    tiers.above.purged("p", r#"{"tag":"red"}"#, false).await;
    assert_eq!(tiers.shield.get("/a").await.text(), "1");
    let asked = tiers.origin.count("/a");
    for edge in [&tiers.below, &tiers.above] {
        edge.purged("q", r#"{"tag":"blue"}"#, false).await;
    }
    assert!(statuses(&tiers.child.get("/a").await).contains("fra-1; hit"));
    assert_eq!(tiers.origin.count("/a"), asked);
}

#[tokio::test]
async fn a_shield_that_is_about_to_hear_of_a_purge_is_waited_for() {
    let tiers = tiers(|edge| {
        if let Some(shield) = &mut edge.shield {
            shield.catch_up = "10s".parse().unwrap();
        }
    })
    .await;
    let version = versioned(&tiers.origin, "/a", "red");
    tiers.shield.get("/a").await;
    version.store(1, Ordering::SeqCst);
    tiers.below.purged("p", r#"{"tag":"red"}"#, false).await;
    let (reply, ()) = tokio::join!(tiers.child.get("/a"), async {
        eventually("the child's request waits", PATIENCE, async || {
            let waits = metric(tiers.shield.admin(), "edge_requests_in_flight").await;
            (waits > 0.0).then_some(())
        })
        .await;
        tiers.above.purged("p", r#"{"tag":"red"}"#, false).await;
    });
    assert_eq!(reply.text(), "1");
    assert!(statuses(&reply).contains("iad-1; fwd=uri-miss"), "{}", statuses(&reply));
    assert_eq!(count(&tiers.shield, "edge_shield_needs_total", "caught_up").await, 1.0);
}

/// A fetch of the shield that left before a purge does not answer a child that came after it.
#[tokio::test]
async fn a_fetch_in_flight_at_the_shield_is_not_for_who_came_after_the_purge() {
    let tiers = tiers(|_| {}).await;
    let (gate, version) = (Gate::closed(), Arc::new(AtomicUsize::new(0)));
    let (held, now) = (gate.clone(), Arc::clone(&version));
    tiers.origin.script_fn("/a", move |_| {
        let n = now.load(Ordering::SeqCst);
        let script = ok(n.to_string()).header("cache-control", "max-age=60");
        let script = script.header("surrogate-key", "red");
        if n == 0 { script.behind(&held) } else { script }
    });
    let url = format!("{}/a", tiers.shield.url());
    let mut early = JoinSet::new();
    early.spawn(async move { Client::get(&url).await });
    eventually("the shield fetches", PATIENCE, async || {
        (tiers.origin.count("/a") == 1).then_some(())
    })
    .await;
    version.store(1, Ordering::SeqCst);
    for replica in [&tiers.below, &tiers.above] {
        replica.purged("p", r#"{"tag":"red"}"#, false).await;
    }
    let url = format!("{}/a", tiers.child.url());
    let mut late = JoinSet::new();
    late.spawn(async move { Client::get(&url).await });
    // The tag is known only from the answer, so the child's request may wait for the early fetch.
    eventually("the child has asked", PATIENCE, async || {
        (metric(tiers.shield.admin(), "edge_requests_in_flight").await > 1.0).then_some(())
    })
    .await;
    gate.open();
    assert_eq!(early.join_next().await.unwrap().unwrap().text(), "0");
    assert_eq!(late.join_next().await.unwrap().unwrap().text(), "1");
    assert_eq!(tiers.child.get("/a").await.text(), "1");
    assert_eq!(tiers.shield.get("/a").await.text(), "1");
}

/// Stale by a soft purge at the shield is stale at the child, too, and a lifetime is not begun twice.
#[tokio::test]
async fn a_second_tier_makes_nothing_fresher_than_it_is() {
    let tiers = tiers(|_| {}).await;
    let page = |lifetime: &str| {
        ok("page").header("cache-control", lifetime).header("surrogate-key", "red")
    };
    tiers.origin.script("/aged", page("max-age=60").header("age", "20"));
    tiers.shield.get("/aged").await;
    let reply = tiers.child.get("/aged").await;
    let age: u64 = reply.header("age").unwrap().parse().unwrap();
    assert!((20..30).contains(&age), "{age}");
    let explain = async |path: &str| {
        let url = format!("{}/v1/explain?url={path}", tiers.child.admin());
        Client::get(&url).await.json()["stored"][0].clone()
    };
    let stored = explain("/aged").await;
    assert_eq!(stored["lifetime_seconds"], 60, "{stored}");
    assert!(stored["ttl_seconds"].as_i64().unwrap() <= 40, "{stored}");

    // The shield serves what a soft purge outdated while it asks for a new one, and says so.
    let gate = Gate::closed();
    tiers.origin.script("/soft", page("max-age=60, stale-while-revalidate=600"));
    tiers.shield.get("/soft").await;
    for replica in [&tiers.above, &tiers.below] {
        replica.purged("soft", r#"{"tag":"red"}"#, true).await;
    }
    tiers.origin.script("/soft", page("max-age=60").behind(&gate));
    let reply = tiers.child.get("/soft").await;
    assert_eq!(reply.text(), "page");
    assert!(statuses(&reply).contains("iad-1; hit; ttl=-"), "{}", statuses(&reply));
    let stored = explain("/soft").await;
    assert_eq!((&stored["fresh"], &stored["standing"]), (&false.into(), &"outdated".into()));
    assert_eq!(count(&tiers.child, "edge_shield_fetches_total", "older").await, 1.0);
    gate.open();
}

#[tokio::test]
async fn what_the_child_validates_the_shield_confirms() {
    let tiers = tiers(|_| {}).await;
    versioned(&tiers.origin, "/a", "red");
    tiers.child.get("/a").await;
    for replica in [&tiers.above, &tiers.below] {
        replica.purged("soft", r#"{"tag":"red"}"#, true).await;
    }
    let reply = tiers.child.get("/a").await;
    assert!(statuses(&reply).contains("fra-1; fwd=stale; fwd-status=304"), "{}", statuses(&reply));
    assert!(statuses(&tiers.child.get("/a").await).contains("fra-1; hit"), "it is current again");
    let conditional: Vec<_> =
        tiers.origin.requests("/a").iter().map(|s| s.header("if-none-match").is_some()).collect();
    assert_eq!(conditional, [false, true]);
}

#[tokio::test]
async fn ranges_slices_and_errors_pass_both_tiers() {
    for fill in [RangeFill::Whole, RangeFill::Slices, RangeFill::Pass] {
        let tiers = tiers(|edge| edge.site[0].range_fill = Some(fill)).await;
        let body = bytes(40_000, 1);
        File::at(&tiers.origin, "/file", body.clone(), "\"1\"");
        for _ in 0..2 {
            let reply = ask(&tiers.child, "/file", &[("range", "bytes=100-199")]).await;
            let part = body.slice(100..200);
            assert_eq!((reply.status.as_u16(), &reply.body), (206, &part), "{fill:?}");
        }
        assert_eq!(tiers.child.get("/file").await.body, body, "{fill:?}");
        assert!(statuses(&tiers.child.get("/file").await).contains("fra-1; hit"), "{fill:?}");
        tiers.origin.script("/gone", status(404));
        assert_eq!(tiers.child.get("/gone").await.status, 404);
        assert!(statuses(&tiers.child.get("/gone").await).contains("fra-1; hit"));
        tiers.origin.script("/broken", status(500));
        assert_eq!(tiers.child.get("/broken").await.status, 500);
    }
}

#[tokio::test]
async fn an_unsafe_request_invalidates_both_tiers() {
    let tiers = tiers(|_| {}).await;
    let version = versioned(&tiers.origin, "/a", "red");
    tiers.child.get("/a").await;
    version.store(1, Ordering::SeqCst);
    let url = format!("{}/a", tiers.child.url());
    let posted = Client::try_request(Method::POST, &url, &[], "x".into()).await.unwrap();
    assert_eq!(posted.status, 200);
    assert_eq!(tiers.child.get("/a").await.text(), "1");
    assert!(
        statuses(&tiers.child.get("/a").await).contains("fra-1; hit"),
        "it may be stored again"
    );
}

#[tokio::test]
async fn without_its_shield_an_edge_asks_the_origin() {
    let mut tiers = tiers(|_| {}).await;
    versioned(&tiers.origin, "/a", "red");
    versioned(&tiers.origin, "/b", "red");
    tiers.child.get("/a").await;
    tiers.shield.process().signal(Signal::KILL);
    tiers.shield.process().end().await;
    let reply = tiers.child.get("/b").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "0"));
    assert!(!statuses(&reply).contains("iad-1"), "{}", statuses(&reply));
    assert!(statuses(&tiers.child.get("/b").await).contains("fra-1; hit"));
}

/// Whoever does not prove to be a shield of this CDN has not heeded what was needed.
#[tokio::test]
async fn an_edge_that_does_not_take_this_one_for_its_own_is_no_shield() {
    let strangers: [fn(&mut Edge); 3] = [
        |edge| edge.shield = None,
        |edge| edge.site[0].name = "another".parse().unwrap(),
        |edge| {
            let shield = edge.shield.as_mut().unwrap();
            shield.nodes = vec!["origin-2".parse().unwrap()];
            edge.peers.insert("origin-2".parse().unwrap(), "127.0.0.1:9".parse().unwrap());
            edge.origin.push(toml::from_str("name = \"origin-2\"").unwrap());
        },
    ];
    for stranger in strangers {
        let tiers = tiers(|edge| {
            if edge.name.as_str() == "iad-1" {
                stranger(edge);
            }
        })
        .await;
        versioned(&tiers.origin, "/a", "red");
        let reply = tiers.child.get("/a").await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "0"), "{reply:?}");
        assert!(!statuses(&reply).contains("iad-1"), "{}", statuses(&reply));
        assert_eq!(count(&tiers.child, "edge_shield_fetches_total", "refused").await, 1.0);
    }
}

#[tokio::test]
async fn a_site_may_do_without_the_shield() {
    let tiers = tiers(|edge| edge.site[0].shielded = false).await;
    versioned(&tiers.origin, "/a", "red");
    assert!(!statuses(&tiers.child.get("/a").await).contains("iad-1"));
}

/// Nothing may make both tiers agree on what is not so: who asks for a purged page while the shield
/// starts anew, or knows another log, gets it from the origin.
#[tokio::test]
async fn places_that_the_shield_does_not_know_are_the_origins_business() {
    let tiers = tiers(|_| {}).await;
    let version = versioned(&tiers.origin, "/a", "red");
    tiers.child.get("/a").await;
    version.store(1, Ordering::SeqCst);
    // The child's log was restored: it drops everything, and goes on at a place of its own.
    tiers.below.answer_with(
        "event: snap-begin\ndata: {\"cursor\":\"other\",\"purge_all\":true}\n\n\
         event: snap-end\nid: other\ndata: {}\n\n",
    );
    tiers.below.cut();
    eventually("the child has dropped everything", PATIENCE, async || {
        (tiers.child.metric("edge_purge_snapshots_total").await > 0.0).then_some(())
    })
    .await;
    let reply = tiers.child.get("/a").await;
    assert_eq!(reply.text(), "1", "{}", statuses(&reply));
    assert!(statuses(&reply).contains("iad-1; fwd=bypass"), "{}", statuses(&reply));
}
