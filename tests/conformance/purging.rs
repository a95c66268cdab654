//! Purges: what they take, what they leave, and that no fetch brings back what they took.

#![expect(clippy::unwrap_used, reason = "a panic is a test's verdict")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meridian_config::edge::Edge;
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, Seen, ok, status};
use meridian_tests::wait::{PATIENCE, eventually};
use tempfile::TempDir;

use crate::replica::Replica;

/// An edge that follows a replica, before an origin.
pub(crate) struct Followed {
    pub(crate) origin: ScriptedOrigin,
    pub(crate) replica: Replica,
    pub(crate) edge: EdgeProcess,
    pub(crate) home: TempDir,
}

pub(crate) async fn followed(change: impl FnOnce(&mut Edge)) -> Followed {
    followed_by(Replica::start().await, change).await
}

pub(crate) async fn followed_by(replica: Replica, change: impl FnOnce(&mut Edge)) -> Followed {
    let origin = ScriptedOrigin::start().await;
    let home = tempfile::tempdir().unwrap();
    let edge = EdgeProcess::start(&origin, |edge| {
        follow(edge, home.path(), &[&replica]);
        change(edge);
    })
    .await;
    Followed { origin, replica, edge, home }
}

/// Makes an edge follow `replicas`, and keep in `home` what it is told.
pub(crate) fn follow(edge: &mut Edge, home: &Path, replicas: &[&Replica]) {
    let token = home.join("token");
    std::fs::write(&token, "a-token-of-scope-edge\n").unwrap();
    let mut names = Vec::new();
    for (n, replica) in (1..).zip(replicas) {
        let name = format!("control-{n}");
        edge.peers.insert(name.parse().unwrap(), replica.address().parse().unwrap());
        names.push(name);
    }
    let state = home.join("state");
    let text = format!("replicas = {names:?}\ntoken_file = {token:?}\nstate = {state:?}");
    edge.control = Some(toml::from_str(&text).unwrap());
}

fn is_hit(reply: &Reply) -> bool {
    reply.cache_status().starts_with("fra-1; hit")
}

/// Answers with the number of the answer, and an entity tag of it.
fn counted(origin: &ScriptedOrigin, path: &str, tags: &'static str) -> Arc<AtomicUsize> {
    let version = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&version);
    origin.script_fn(path, move |seen: &Seen| {
        let etag = format!("\"{}\"", now.load(Ordering::SeqCst));
        let script = if seen.header("if-none-match") == Some(&etag) {
            status(304)
        } else {
            ok(now.load(Ordering::SeqCst).to_string())
        };
        script
            .header("cache-control", "max-age=60")
            .header("surrogate-key", tags)
            .header("etag", &etag)
    });
    version
}

#[tokio::test]
async fn each_selector_takes_what_it_names_and_leaves_the_rest() {
    let Followed { origin, replica, edge, .. } = followed(|_| {}).await;
    let paths = ["/img/a?x=1", "/img/b", "/c"];
    for (path, tags) in paths.into_iter().zip(["red blue", "blue", "green"]) {
        counted(&origin, path, tags);
    }
    let rows = [
        (r#"{"all":true}"#, [true, true, true]),
        (r#"{"host":"127.0.0.1:1234"}"#, [true, true, true]),
        (r#"{"url":"/img/a?x=1"}"#, [true, false, false]),
        (r#"{"url":"https://any.example/img/%61?x=1"}"#, [true, false, false]),
        (r#"{"url":"/img/a"}"#, [false, false, false]),
        (r#"{"prefix":"/im"}"#, [true, true, false]),
        (r#"{"prefix":"http://any.example/img/b"}"#, [false, true, false]),
        (r#"{"tag":"blue"}"#, [true, true, false]),
        (r#"{"tag":"green"}"#, [false, false, true]),
        (r#"{"tag":"gree"}"#, [false, false, false]),
    ];
    for (n, (selector, takes)) in rows.into_iter().enumerate() {
        for path in paths {
            edge.get(path).await;
            assert!(is_hit(&edge.get(path).await), "{path} is stored");
        }
        replica.purged(&format!("purge-{n}"), selector, false).await;
        for (path, takes) in paths.into_iter().zip(takes) {
            let reply = edge.get(path).await;
            assert_eq!(is_hit(&reply), !takes, "{selector}: {path}: {}", reply.cache_status());
        }
    }
    assert_eq!(edge.metric("edge_purge_operations_total").await, rows.len() as f64);
}

#[tokio::test]
async fn what_is_softly_purged_is_validated_and_stands_in_for_an_error() {
    let Followed { origin, replica, edge, .. } = followed(|_| {}).await;
    counted(&origin, "/a", "red");
    edge.get("/a").await;
    replica.purged("first", r#"{"tag":"red"}"#, true).await;
    let reply = edge.get("/a").await;
    assert!(reply.cache_status().contains("fwd=stale; fwd-status=304"), "{}", reply.cache_status());
    assert_eq!(origin.requests("/a")[1].header("if-none-match"), Some("\"0\""));
    assert!(is_hit(&edge.get("/a").await), "the 304 freshened it");

    replica.purged("second", r#"{"tag":"red"}"#, true).await;
    origin.script("/a", status(503));
    let reply = edge.get("/a").await;
    assert_eq!(reply.status, 200, "{}", reply.cache_status());
    assert_eq!(reply.text(), "0");
}

#[tokio::test]
async fn what_is_hard_purged_is_neither_validated_nor_served_in_place_of_an_error() {
    let Followed { origin, replica, edge, .. } = followed(|_| {}).await;
    counted(&origin, "/a", "red");
    edge.get("/a").await;
    replica.purged("first", r#"{"tag":"red"}"#, false).await;
    edge.get("/a").await;
    assert_eq!(origin.requests("/a")[1].header("if-none-match"), None);

    replica.purged("second", r#"{"tag":"red"}"#, false).await;
    origin.script("/a", status(503));
    assert_eq!(edge.get("/a").await.status, 503);
}

#[tokio::test]
async fn a_fetch_that_a_purge_overtakes_serves_nobody_who_came_after_it() {
    for selector in [r#"{"all":true}"#, r#"{"url":"/a"}"#, r#"{"prefix":"/"}"#, r#"{"tag":"red"}"#]
    {
        let Followed { origin, replica, edge, .. } = followed(|_| {}).await;
        let gate = Gate::closed();
        let answer = |body: &'static str| {
            ok(body).header("cache-control", "max-age=60").header("surrogate-key", "red")
        };
        origin.script("/a", answer("old").behind(&gate));
        let url = format!("{}/a", edge.url());
        let before = tokio::task::JoinSet::from_iter([async move { Client::get(&url).await }]);
        eventually("it is under way", PATIENCE, async || (origin.count("/a") == 1).then_some(()))
            .await;
        origin.script("/a", answer("new"));
        replica.purged("first", selector, false).await;
        let url = format!("{}/a", edge.url());
        let after = tokio::task::JoinSet::from_iter([async move { Client::get(&url).await }]);
        eventually("who came after is there", PATIENCE, async || {
            let arrived = edge.metric("edge_requests_in_flight").await >= 2.0;
            (arrived || origin.count("/a") == 2).then_some(())
        })
        .await;
        gate.open(); // the old one arrives now
        assert_eq!(before.join_all().await[0].text(), "old", "{selector}: it came before");
        assert_eq!(after.join_all().await[0].text(), "new", "{selector}");
        for _ in 0..3 {
            assert_eq!(edge.get("/a").await.text(), "new", "{selector}");
        }
    }
}

#[tokio::test]
async fn a_304_that_a_purge_overtakes_brings_nothing_back() {
    let Followed { origin, replica, edge, .. } = followed(|_| {}).await;
    let gate = Gate::closed();
    let fields = |script: meridian_tests::origin::Script| {
        script.header("cache-control", "max-age=60").header("etag", "\"0\"")
    };
    origin.script("/a", fields(ok("old")));
    edge.get("/a").await;
    replica.purged("soft", r#"{"url":"/a"}"#, true).await;
    origin.script("/a", fields(status(304)).behind(&gate));
    let url = format!("{}/a", edge.url());
    let before = tokio::task::JoinSet::from_iter([async move { Client::get(&url).await }]);
    eventually("it is being validated", PATIENCE, async || (origin.count("/a") == 2).then_some(()))
        .await;
    assert_eq!(origin.requests("/a")[1].header("if-none-match"), Some("\"0\""));
    replica.purged("hard", r#"{"url":"/a"}"#, false).await;
    gate.open();
    assert_eq!(before.join_all().await[0].text(), "old", "it came before");
    origin.script("/a", ok("new").header("cache-control", "max-age=60"));
    assert_eq!(edge.get("/a").await.text(), "new");
    assert_eq!(origin.requests("/a")[2].header("if-none-match"), None);
}

#[tokio::test]
async fn a_stream_that_breaks_goes_on_where_it_was_and_repeats_nothing() {
    let Followed { origin, replica, edge, .. } = followed(|_| {}).await;
    for path in ["/a", "/b", "/c"] {
        counted(&origin, path, "red");
        edge.get(path).await;
    }
    replica.purged("first", r#"{"url":"/a"}"#, false).await;
    edge.get("/a").await;
    replica.cut();
    replica.purge("second", r#"{"url":"/b"}"#, false);
    // The same operation again, as a log that was merged may tell it: it changes nothing.
    let last = replica.purge("first", r#"{"url":"/a"}"#, false);
    replica.acked(&last).await;
    assert_eq!(replica.opened()[..2], [None, Some("c1".to_owned())]);
    let hits: Vec<bool> = [edge.get("/a").await, edge.get("/b").await, edge.get("/c").await]
        .iter()
        .map(is_hit)
        .collect();
    assert_eq!(hits, [true, false, true]);
    assert_eq!(edge.metric("edge_purge_repeated_total").await, 1.0);
    eventually("the knowledge is fresh", PATIENCE, async || {
        (edge.metric("edge_control_staleness_seconds").await < 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_edge_that_missed_a_hundred_thousand_purges_catches_up_and_keeps_the_rest() {
    let Followed { origin, replica, edge, .. } = followed(|_| {}).await;
    for path in ["/a", "/b", "/c"] {
        counted(&origin, path, "red");
        edge.get(path).await;
    }
    replica.hold(true);
    replica.cut();
    for n in 0..99_998 {
        replica.purge(&format!("n{n}"), &format!(r#"{{"url":"/none/{n}"}}"#), false);
    }
    replica.purge("a", r#"{"url":"/a"}"#, false);
    let last = replica.purge("b", r#"{"tag":"blue"}"#, false);
    replica.hold(false);
    replica.acked(&last).await;
    assert_eq!(edge.metric("edge_purge_operations_total").await, 100_000.0);
    assert_eq!(edge.metric("edge_purge_folded_selectors_total").await, 0.0);
    let (a, b, c) = (edge.get("/a").await, edge.get("/b").await, edge.get("/c").await);
    assert_eq!([is_hit(&a), is_hit(&b), is_hit(&c)], [false, true, true]);
}

#[tokio::test]
async fn a_snapshot_is_applied_and_one_that_cannot_be_trusted_drops_everything() {
    let Followed { origin, replica, edge, .. } = followed(|_| {}).await;
    for path in ["/a", "/b"] {
        counted(&origin, path, "red");
        edge.get(path).await;
    }
    replica.answer_with(
        "event: snap-begin\ndata: {\"cursor\":\"c8\",\"purge_all\":false}\n\n\
         event: snap-item\ndata: {\"selectors\":[{\"url\":\"/a\"}],\"soft\":false}\n\n\
         event: snap-end\nid: c8\ndata: {}\n\n",
    );
    replica.cut();
    replica.acked("c8").await;
    assert!(!is_hit(&edge.get("/a").await) && is_hit(&edge.get("/b").await));
    replica.answer_with(
        "event: snap-begin\ndata: {\"cursor\":\"c9\",\"purge_all\":true}\n\n\
         event: snap-end\nid: c9\ndata: {}\n\n",
    );
    replica.cut();
    replica.acked("c9").await;
    assert!(!is_hit(&edge.get("/a").await) && !is_hit(&edge.get("/b").await));
    assert_eq!(edge.metric("edge_purge_snapshots_total").await, 2.0);
}

#[tokio::test]
async fn a_site_changes_at_run_time_and_a_bad_one_is_refused() {
    let Followed { origin, replica, edge, home } = followed(|_| {}).await;
    counted(&origin, "/a?utm_x=1", "red");
    counted(&origin, "/a", "red"); // what does not count is not asked for either
    edge.get("/a?utm_x=1").await;
    assert_eq!(edge.get("/a?utm_z=3").await.status, 404, "the query belongs to the key");
    let site = r#"{"default":true,"origins":["origin-1"],"query":{"drop":["utm_*"]}}"#;
    replica.acked(&replica.configure("site/default", site)).await;
    assert_eq!(edge.get("/a?utm_x=1").await.status, 200);
    let reply = edge.get("/a?utm_y=2").await;
    assert!(is_hit(&reply), "{}", reply.cache_status());
    let kept = std::fs::read_to_string(home.path().join("state/sites.json")).unwrap();
    assert!(kept.contains("utm_*"), "{kept}");

    let bad = r#"{"default":true,"origins":["nobody"]}"#;
    replica.acked(&replica.configure("site/default", bad)).await;
    assert!(is_hit(&edge.get("/a?utm_y=2").await), "the last good one stays");
    assert_eq!(edge.metric("edge_site_refusals_total").await, 1.0);
    replica.acked(&replica.configure("site/default", "null")).await;
    assert!(!is_hit(&edge.get("/a?utm_y=2").await), "the site of the file is back");
}

#[tokio::test]
async fn explain_names_the_purge() {
    let Followed { origin, replica, edge, .. } = followed(|_| {}).await;
    counted(&origin, "/a", "red blue");
    edge.get("/a").await;
    let explain = format!("{}/v1/explain?url=/a", edge.admin());
    let stored = &Client::get(&explain).await.json()["stored"][0];
    assert_eq!(stored["standing"], "current");
    let named: Vec<String> = stored["selectors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|matching| matching["selector"].to_string())
        .collect();
    let want = [
        r#"{"all":true}"#,
        r#"{"host":"default"}"#,
        r#"{"url":"/a"}"#,
        r#"{"tag":"red"}"#,
        r#"{"tag":"blue"}"#,
    ];
    assert_eq!(named, want, "what would purge it");
    replica.purged("the-one", r#"{"tag":"blue"}"#, false).await;
    let told = Client::get(&explain).await.json();
    let stored = &told["stored"][0];
    assert_eq!((&stored["standing"], &told["next"]["fwd"]), (&"purged".into(), &"uri-miss".into()));
    let blue = &stored["selectors"][4];
    assert_eq!(blue["hard"]["id"], "the-one");
    assert_eq!(blue["effect"], "purged");
    assert_eq!(stored["selectors"][3]["hard"], serde_json::Value::Null);
}

#[tokio::test]
async fn what_was_fetched_before_the_edge_knew_the_purges_is_dropped_once() {
    let replica = Replica::start().await;
    replica.hold(true);
    // It is ready in the end although no stream comes.
    let Followed { origin, replica, edge, .. } = followed_by(replica, |_| {}).await;
    counted(&origin, "/a", "red");
    edge.get("/a").await;
    assert!(is_hit(&edge.get("/a").await));
    replica.hold(false);
    replica.acked("c0").await;
    assert_eq!(edge.metric("edge_purge_drops_total").await, 1.0);
    assert!(!is_hit(&edge.get("/a").await), "it may have been purged, and nobody would have told");
    assert!(is_hit(&edge.get("/a").await));
}
