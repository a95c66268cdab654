//! What an edge does with what it stored while the control plane cannot be reached, or tells it
//! nothing: `control_loss` and `max_control_lag`, leases, and its own restart meanwhile.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's verdict")]

use meridian_config::edge::Edge;
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, Seen, ok, status};
use meridian_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::purging::{Followed, follow, followed};

/// The default site does so after this long.
fn on_loss(loss: &'static str, max_lag: &'static str) -> impl FnOnce(&mut Edge) {
    move |edge| {
        let text = format!("loss = \"{loss}\"");
        let table: toml::Table = toml::from_str(&text).unwrap();
        edge.site[0].control_loss = table["loss"].clone().try_into().unwrap();
        edge.site[0].max_control_lag = max_lag.parse().unwrap();
    }
}

async fn explained(edge: &EdgeProcess, path: &str) -> Value {
    Client::get(&format!("{}/v1/explain?url={path}", edge.admin())).await.json()
}

/// Waits until the route of `path` lags, or no longer does.
async fn lags(edge: &EdgeProcess, path: &str, wanted: bool) {
    eventually(format!("lagging={wanted}"), PATIENCE, async || {
        let told = explained(edge, path).await;
        (told["purges"]["control"]["lagging"] == wanted).then_some(())
    })
    .await;
}

/// Fresh for a minute, with a validator that the origin heeds.
fn script(origin: &ScriptedOrigin, path: &str, cache_control: &'static str) {
    origin.script_fn(path, move |seen: &Seen| {
        let is_same = seen.header("if-none-match") == Some("\"1\"");
        let script = if is_same { status(304) } else { ok("the page") };
        script.header("cache-control", cache_control).header("etag", "\"1\"")
    });
}

fn says_lag(reply: &Reply) -> bool {
    reply.cache_status().contains("; detail=\"control-lag=")
}

#[tokio::test]
async fn what_is_served_all_the_same_says_how_little_is_known() {
    let Followed { origin, replica, edge, home: _home } =
        followed(on_loss("serve_stale", "500ms")).await;
    script(&origin, "/a", "max-age=60");
    edge.get("/a").await;
    lags(&edge, "/a", false).await;
    assert!(!says_lag(&edge.get("/a").await));
    replica.down(true);
    lags(&edge, "/a", true).await;
    let reply = edge.get("/a").await;
    let told = reply.cache_status();
    assert!(told.starts_with("fra-1; hit; ttl=") && says_lag(&reply), "{told}");
    assert!(told.ends_with("s\""), "{told}");
    assert_eq!(origin.count("/a"), 1);
    assert_eq!(edge.metric("edge_control_lag_requests_total").await, 1.0);
    assert_eq!(edge.metric("edge_control_reachable").await, 0.0);
    let told = explained(&edge, "/a").await;
    assert_eq!(told["next"]["decision"], "hit");
    let control = &told["purges"]["control"];
    assert_eq!(
        (&control["loss"], &control["max_lag_seconds"]),
        (&json!("serve_stale"), &json!(0.5))
    );
    replica.down(false);
    lags(&edge, "/a", false).await;
    assert!(!says_lag(&edge.get("/a").await));
}

#[tokio::test]
async fn a_route_that_revalidates_asks_for_each_use_and_goes_by_stale_if_error() {
    let Followed { origin, replica, edge, home: _home } =
        followed(on_loss("revalidate", "500ms")).await;
    script(&origin, "/a", "max-age=60");
    script(&origin, "/strict", "max-age=60, must-revalidate");
    for path in ["/a", "/strict"] {
        edge.get(path).await;
        lags(&edge, path, false).await;
        assert!(edge.get(path).await.cache_status().starts_with("fra-1; hit"));
    }
    replica.down(true);
    lags(&edge, "/a", true).await;
    for n in 1..4 {
        let reply = edge.get("/a").await;
        let told = reply.cache_status();
        assert!(told.starts_with("fra-1; fwd=stale; fwd-status=304; stored"), "{told}");
        assert!(says_lag(&reply) && reply.text() == "the page", "{told}");
        assert_eq!(origin.count("/a"), 1 + n);
    }
    let next = &explained(&edge, "/a").await["next"];
    assert_eq!((&next["decision"], &next["validates"]), (&json!("forward"), &json!(true)));
    let part = Client::get_with(&format!("{}/a", edge.url()), &[("range", "bytes=4-7")]).await;
    assert_eq!((part.status.as_u16(), part.text()), (206, "page"));

    origin.script("/a", status(503));
    let reply = edge.get("/a").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "the page"), "one day by default");
    assert!(says_lag(&reply), "{}", reply.cache_status());
    origin.script("/strict", status(503));
    assert_eq!(edge.get("/strict").await.status, 503, "it must not be used without asking");

    script(&origin, "/a", "max-age=60");
    replica.down(false);
    lags(&edge, "/a", false).await;
    assert!(edge.get("/a").await.cache_status().starts_with("fra-1; hit"));
}

#[tokio::test]
async fn validations_are_shared_only_with_those_that_began_late_enough() {
    let Followed { origin, replica, edge, home: _home } =
        followed(on_loss("revalidate", "500ms")).await;
    script(&origin, "/a", "max-age=60");
    edge.get("/a").await;
    replica.down(true);
    lags(&edge, "/a", true).await;
    let gate = Gate::closed();
    origin.script("/a", ok("new").header("cache-control", "max-age=60").behind(&gate));
    let ask = || {
        let url = format!("{}/a", edge.url());
        async move { Client::get(&url).await }
    };
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        waiting.spawn(ask());
    }
    // Until the first fetch is too old for those who come, and one of them makes another.
    eventually("another fetch begins", PATIENCE, async || {
        waiting.spawn(ask());
        (origin.count("/a") >= 3).then_some(())
    })
    .await;
    let asked = origin.count("/a") - 1;
    gate.open();
    let replies = waiting.join_all().await;
    assert!(replies.iter().all(|reply| reply.text() == "new"), "{replies:?}");
    assert!(asked < replies.len(), "{asked} fetches for {}: none was shared", replies.len());
}

#[tokio::test]
async fn a_route_that_fails_closed_uses_nothing_stored_and_says_why() {
    let Followed { origin, replica, edge, home: _home } = followed(|edge| {
        on_loss("serve_stale", "500ms")(edge);
        let rule = "name = \"closed\"\ncontrol_loss = \"fail_closed\"\nwhen = { path = [\"/c*\"] }";
        edge.site[0].rule = vec![toml::from_str(rule).unwrap()];
    })
    .await;
    for path in ["/a", "/c"] {
        script(&origin, path, "max-age=60");
        edge.get(path).await;
        lags(&edge, path, false).await;
        assert!(edge.get(path).await.cache_status().starts_with("fra-1; hit"));
    }
    assert_eq!(replica.pinged().await["fail_closed"], "some");
    replica.down(true);
    lags(&edge, "/c", true).await;
    let reply = edge.get("/c").await;
    let told = reply.cache_status();
    assert!(told.starts_with("fra-1; fwd=bypass; fwd-status=200; detail=\"control-lag="), "{told}");
    assert_eq!((origin.count("/c"), origin.requests("/c")[1].header("if-none-match")), (2, None));
    assert!(edge.get("/a").await.cache_status().starts_with("fra-1; hit"), "the rest goes on");
    let told = explained(&edge, "/c").await;
    assert_eq!(told["purges"]["control"]["loss"], "fail_closed");
    assert_eq!(told["next"]["fwd"], "bypass");

    replica.down(false);
    lags(&edge, "/c", false).await;
    let reply = edge.get("/c").await;
    assert!(reply.cache_status().starts_with("fra-1; hit"), "it was stored all the while");

    replica.down(true);
    lags(&edge, "/c", true).await;
    drop(origin);
    let reply = eventually("the origin is gone", PATIENCE, async || {
        Some(edge.get("/c").await).filter(|reply| reply.status == 503)
    })
    .await;
    assert_eq!((reply.code(), reply.header("retry-after")), ("control_lost".to_owned(), Some("1")));
    assert!(says_lag(&reply) && reply.header("proxy-status").is_some(), "{reply:?}");
    assert!(edge.get("/a").await.cache_status().starts_with("fra-1; hit"));
}

#[tokio::test]
async fn a_lease_closes_a_route_before_its_own_limit_and_counts_only_with_what_is_applied() {
    let Followed { origin, replica, edge, home: _home } =
        followed(on_loss("fail_closed", "1h")).await;
    replica.grant(7, 800);
    script(&origin, "/a", "max-age=60");
    lags(&edge, "/a", false).await;
    edge.get("/a").await;
    assert!(edge.get("/a").await.cache_status().starts_with("fra-1; hit"));
    let ping = eventually("its pings name the grant", PATIENCE, async || {
        Some(replica.pinged().await).filter(|ping| ping["lease_by"] == 7)
    })
    .await;
    assert_eq!(ping["fail_closed"], "all");

    // Pings go on and are granted leases, and yet a purge is not there.
    replica.lag(true);
    let purge = replica.purge("first", r#"{"url":"/b"}"#, false);
    lags(&edge, "/a", true).await;
    replica.pinged().await;
    assert!(edge.get("/a").await.cache_status().starts_with("fra-1; fwd=bypass"));
    assert!(edge.metric("edge_control_lease_seconds").await <= 0.0);
    replica.lag(false);
    replica.acked(&purge).await;
    lags(&edge, "/a", false).await;
    assert!(edge.get("/a").await.cache_status().starts_with("fra-1; hit"));

    replica.refuse("/ping", Some((503, "no_quorum")));
    lags(&edge, "/a", true).await;
    assert!(edge.get("/a").await.cache_status().starts_with("fra-1; fwd=bypass"));
}

#[tokio::test]
async fn a_site_that_opens_stays_closed_until_the_control_plane_has_heard_of_it() {
    let Followed { origin, replica, edge, home: _home } =
        followed(on_loss("fail_closed", "500ms")).await;
    script(&origin, "/a", "max-age=60");
    lags(&edge, "/a", false).await;
    edge.get("/a").await;
    replica.refuse("/ping", Some((503, "no_quorum")));
    let site = r#"{"default":true,"origins":["origin-1"],"max_control_lag":"500ms"}"#;
    replica.acked(&replica.configure("site/default", site)).await;
    lags(&edge, "/a", true).await;
    let control = &explained(&edge, "/a").await["purges"]["control"];
    assert_eq!((&control["loss"], &control["held"]), (&json!("fail_closed"), &json!(true)));
    assert!(edge.get("/a").await.cache_status().starts_with("fra-1; fwd=bypass"));
    replica.refuse("/ping", None);
    assert_eq!(replica.pinged().await["fail_closed"], "none");
    eventually("it is open", PATIENCE, async || {
        let told = explained(&edge, "/a").await;
        let control = &told["purges"]["control"];
        (control["loss"] == "serve_stale" && control["held"] == false).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_edge_that_starts_without_the_control_plane_serves_what_it_was_told_last() {
    let Followed { origin, replica, edge, home } = followed(|_| {}).await;
    let site = r#"{"hosts":["shop.example"],"origins":["origin-1"]}"#;
    replica.acked(&replica.configure("site/shop", site)).await;
    replica.down(true);
    drop(edge);
    let mut edge = EdgeProcess::start(&origin, |edge| {
        follow(edge, home.path(), &[&replica]);
        edge.site.clear(); // only what the control plane named answers
    })
    .await; // it is ready
    script(&origin, "/a", "max-age=60");
    let ask =
        async || Client::get_with(&format!("{}/a", edge.url()), &[("host", "shop.example")]).await;
    assert_eq!(ask().await.text(), "the page");
    let reply = ask().await;
    let told = reply.cache_status();
    let metrics = ["edge_control_reachable", "edge_control_staleness_seconds"];
    let [reachable, staleness] = metrics.map(|name| edge.metric(name));
    assert_eq!((reachable.await, staleness.await), (0.0, f64::INFINITY));
    assert!(
        told.starts_with("fra-1; hit") && told.ends_with("detail=\"control-lag=unknown\""),
        "{told}"
    );
    eventually("the log says it", PATIENCE, async || {
        let said = edge.process().stderr();
        said.contains("no control replica answers: serving goes on").then_some(())
    })
    .await;

    let present = replica.purge("meanwhile", r#"{"url":"http://shop.example/a"}"#, false);
    replica.answer_with(&format!(
        "event: config\nid: c0\ndata: {{\"key\":\"site/shop\",\"value\":{site}}}\n\n\
         event: bookmark\nid: {present}\ndata: {{}}\n\n"
    ));
    replica.down(false);
    replica.acked(&present).await;
    let ask = || async {
        Client::get_with(&format!("{}/a", edge.url()), &[("host", "shop.example")]).await
    };
    eventually("it knows all again", PATIENCE, async || {
        let reply = ask().await;
        (!says_lag(&reply)).then_some(())
    })
    .await;
    assert_eq!(origin.count("/a"), 2, "what it fetched before it knew the purges is dropped once");
}
