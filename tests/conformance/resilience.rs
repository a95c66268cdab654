//! An origin that is slow, failing, flapping or gone: what clients and the origin notice of it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use meridian_config::edge::resilience::FirstByte;
use meridian_config::edge::{Edge, Profile, Upstream};
use meridian_config::shared::{Scope, Token};
use meridian_config::units::{HumanDuration, Ratio};
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, ok, status};
use meridian_tests::wait::{PATIENCE, eventually};
use serde_json::json;

/// A breaker that trips quickly and comes back quickly.
fn quick(edge: &mut Edge) {
    let breaker = &mut edge.origin[0].breaker;
    breaker.consecutive_failures = 3;
    breaker.cool_down = HumanDuration::millis(200);
    breaker.cool_down_max = HumanDuration::millis(400);
    breaker.probes = 1.try_into().unwrap();
    breaker.ramp_up = HumanDuration::millis(0);
}

async fn breaker(edge: &EdgeProcess) -> String {
    let url = format!("{}/v1/origins/origin-1/breaker", edge.admin());
    Client::get(&url).await.json()["phase"].as_str().unwrap().to_owned()
}

async fn force(edge: &EdgeProcess, state: &str) -> Reply {
    let url = format!("{}/v1/origins/origin-1/breaker", edge.admin());
    Client::put_json(&url, &json!({ "state": state }).to_string(), None).await
}

/// An origin where everything that is not scripted otherwise is 503.
async fn failing(paths: usize) -> ScriptedOrigin {
    let origin = ScriptedOrigin::start().await;
    for n in 0..paths {
        origin.script(&format!("/{n}"), status(503));
    }
    origin
}

fn attempts(origin: &ScriptedOrigin, paths: usize) -> usize {
    (0..paths).map(|n| origin.count(&format!("/{n}"))).sum()
}

#[tokio::test]
async fn a_failing_origin_is_left_alone_and_asked_again_when_it_is_back() {
    let origin = failing(100).await;
    origin.script("/kept", ok("kept").header("cache-control", "max-age=0").header("etag", "\"1\""));
    let edge = EdgeProcess::start(&origin, |edge| {
        quick(edge);
        edge.origin[0].retry.enabled = Some(false);
        edge.origin[0].breaker.cool_down = HumanDuration::secs(600);
        edge.origin[0].breaker.cool_down_max = HumanDuration::secs(600);
    })
    .await;
    assert_eq!(edge.get("/kept").await.text(), "kept");
    for n in 0..3 {
        assert_eq!(edge.get(&format!("/{n}")).await.status, 503);
    }
    assert_eq!(breaker(&edge).await, "open");
    for n in 3..100 {
        let refused = edge.get(&format!("/{n}")).await;
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, OPEN));
        let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((440..=600).contains(&after), "{after}");
        let told = "fra-1; error=destination_unavailable; next-hop=origin-1; \
                    details=\"its breaker is open\"";
        assert_eq!(refused.header("proxy-status"), Some(told));
    }
    assert_eq!(attempts(&origin, 100), 3, "an open breaker does not touch the network");
    let stale = edge.get("/kept").await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, "kept"));
    let told = stale.cache_status();
    let ttl = told.strip_prefix("fra-1; hit; ttl=-").and_then(|rest| rest.split_once("; "));
    assert!(ttl.is_some_and(|(_, detail)| detail == "detail=breaker-open"), "{told}");
    assert_eq!(edge.metric("edge_breaker_refusals_total").await, 98.0);
    let explained = Client::get(&format!("{}/v1/explain?url=/kept", edge.admin())).await.json();
    assert_eq!(explained["origins"][0]["breaker"]["state"], "open", "{explained}");
}

const OPEN: &str = "upstream_destination_unavailable";

#[tokio::test]
async fn a_breaker_lets_probes_through_and_closes_when_the_origin_is_back() {
    let origin = failing(3).await;
    let edge = EdgeProcess::start(&origin, |edge| {
        quick(edge);
        edge.origin[0].retry.enabled = Some(false);
    })
    .await;
    for n in 0..3 {
        edge.get(&format!("/{n}")).await;
    }
    eventually("it has cooled down and failed its probe", PATIENCE, async || {
        edge.get("/0").await;
        (edge.metric("edge_breaker_probes_total").await >= 2.0).then_some(())
    })
    .await;
    let probes = edge.metric("edge_breaker_probes_total").await;
    assert!(attempts(&origin, 3) as f64 <= 3.0 + probes + 1.0, "only probes reached it");
    origin.script("/0", ok("back"));
    eventually("the origin is asked again", PATIENCE, async || {
        (edge.get("/0").await.text() == "back").then_some(())
    })
    .await;
    assert_eq!(breaker(&edge).await, "closed");
    for _ in 0..20 {
        assert_eq!(edge.get("/0").await.text(), "back");
    }
}

#[tokio::test]
async fn an_operator_holds_a_breaker_open_or_closed() {
    let origin = failing(10).await;
    origin.script("/ok", ok("ok"));
    let edge = EdgeProcess::start(&origin, |edge| {
        quick(edge);
        edge.origin[0].retry.enabled = Some(false);
        edge.site[0].profile = Profile::Rfc; // what an operator says holds for every profile
    })
    .await;
    assert_eq!(force(&edge, "open").await.status, 200);
    assert_eq!(edge.get("/ok").await.code(), OPEN);
    assert_eq!(origin.count("/ok"), 0);
    assert_eq!(force(&edge, "closed").await.status, 200);
    for n in 0..10 {
        assert_eq!(edge.get(&format!("/{n}")).await.status, 503);
    }
    assert_eq!(attempts(&origin, 10), 10);
    assert_eq!(edge.get("/ok").await.text(), "ok");
    assert_eq!(force(&edge, "auto").await.json()["phase"], "closed");
    for state in ["ajar", ""] {
        assert_eq!(force(&edge, state).await.status, 400, "{state:?}");
    }
    let nobody = format!("{}/v1/origins/nobody/breaker", edge.admin());
    assert_eq!(Client::get(&nobody).await.status, 404);
}

#[tokio::test]
async fn beyond_loopback_only_a_token_with_the_scope_operate_moves_a_breaker() {
    let home = tempfile::tempdir().unwrap();
    let token = |name: &str, secret: &str, scope| {
        let file = home.path().join(name);
        std::fs::write(&file, secret).unwrap();
        Token { name: name.to_owned(), scopes: vec![scope], file }
    };
    let (boss, purger) = ("0123456789abcdef", "fedcba9876543210");
    let tokens = vec![token("boss", boss, Scope::Operate), token("purger", purger, Scope::Purge)];
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.admin.set_ip("0.0.0.0".parse().unwrap());
        edge.token = tokens;
    })
    .await;
    let url = format!("{}/v1/origins/origin-1/breaker", edge.admin());
    let rows =
        [(None, 401), (Some("wrong-wrong-wrong"), 401), (Some(purger), 403), (Some(boss), 200)];
    for (secret, want) in rows {
        let reply = Client::put_json(&url, "{\"state\":\"open\"}", secret).await;
        assert_eq!(reply.status, want, "{secret:?}");
        assert_eq!(breaker(&edge).await, if want == 200 { "open" } else { "closed" });
    }
}

/// Attempts per client miss with everything failing.
async fn amplification(has_budget: bool) -> f64 {
    const MISSES: usize = 300;
    let origin = failing(MISSES).await;
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.origin[0].breaker.enabled = Some(false); // the budget alone
        edge.origin[0].retry.pause = HumanDuration::millis(0);
        edge.origin[0].retry.retries = 3;
        if !has_budget {
            edge.origin[0].retry.budget_floor = 1_000_000.0;
        }
    })
    .await;
    for n in 0..MISSES {
        assert_eq!(edge.get(&format!("/{n}")).await.status, 503);
    }
    let counted = edge.metric("edge_upstream_requests_total").await;
    assert_eq!(counted, attempts(&origin, MISSES) as f64, "the meter tells what the origin saw");
    assert_eq!(edge.metric("edge_upstream_asked_total").await, MISSES as f64);
    let repeated = edge.metric("edge_upstream_retries_total").await;
    assert_eq!(repeated, counted - MISSES as f64);
    counted / MISSES as f64
}

#[tokio::test]
async fn with_everything_failing_the_budget_bounds_the_attempts() {
    let (with, without) = (amplification(true).await, amplification(false).await);
    println!(
        "attempts per miss with everything failing: {with} with the budget, {without} without"
    );
    assert!(with <= 1.2, "{with}");
    assert_eq!(without, 4.0, "without a budget each failure is multiplied");
}

/// An origin that fails the first time under `/a` and `/b`.
fn fails_once(origin: &ScriptedOrigin, path: &str, retry_after: Option<&'static str>) {
    let asked = Arc::new(AtomicUsize::new(0));
    origin.script_fn(path, move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => retry_after.map_or(status(503), |time| status(503).header("retry-after", time)),
        _ => ok("ok"),
    });
}

#[tokio::test]
async fn a_request_that_may_be_sent_twice_is_retried_once() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.origin[0].retry.budget_floor = 100.0;
    })
    .await;
    let key: &[_] = &[("idempotency-key", "\"k\"")];
    let rows = [
        (Method::GET, false, None, 200),
        (Method::PUT, false, None, 200),
        (Method::DELETE, false, None, 200),
        (Method::POST, true, None, 200),
        (Method::POST, false, None, 503), // it may have been carried out
        (Method::PATCH, true, None, 200),
        (Method::PATCH, false, None, 503),
        (Method::GET, false, Some("1"), 200),
        (Method::GET, false, Some("2"), 503), // later than pause_max
        (Method::GET, false, Some("Sun, 06 Nov 1994 08:49:37 GMT"), 200),
    ];
    for (row, (method, is_keyed, retry_after, want)) in rows.into_iter().enumerate() {
        let path = format!("/{row}");
        fails_once(&origin, &path, retry_after);
        let fields = if is_keyed { key } else { &[] };
        let url = format!("{}{path}", edge.url());
        let body = if method == Method::GET { "" } else { "body" };
        let reply = Client::request(method.clone(), &url, fields, body.into()).await;
        assert_eq!(reply.status, want, "row {row}: {method} {is_keyed} {retry_after:?}");
        let seen = origin.requests(&path);
        assert_eq!(seen.len(), if want == 200 { 2 } else { 1 }, "row {row}");
        assert!(seen.iter().all(|seen| seen.body == body), "row {row}: the whole body each time");
    }
}

#[tokio::test]
async fn the_profile_rfc_neither_retries_nor_breaks_unless_it_is_told_to() {
    for (resilience, want) in [(None, 503), (Some(true), 200)] {
        let origin = failing(40).await;
        let edge = EdgeProcess::start(&origin, |edge| {
            quick(edge);
            edge.site[0].profile = Profile::Rfc;
            edge.site[0].resilience = resilience;
        })
        .await;
        fails_once(&origin, "/a", None);
        assert_eq!(edge.get("/a").await.status, want, "{resilience:?}");
        for n in 0..40 {
            edge.get(&format!("/{n}")).await;
        }
        let seen = attempts(&origin, 40);
        assert_eq!(seen >= 40, resilience.is_none(), "{resilience:?}: {seen}");
    }
}

#[tokio::test]
async fn a_hanging_origin_does_not_keep_a_client_from_what_is_stored() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site[0].stale_patience = Some(HumanDuration::millis(50));
    })
    .await;
    let old = ok("old").header("cache-control", "max-age=0").header("etag", "\"1\"");
    let strict = ok("old").header("cache-control", "max-age=0, must-revalidate");
    origin.script("/a", old);
    origin.script("/strict", strict);
    edge.get("/a").await;
    edge.get("/strict").await;
    let gate = Gate::closed();
    origin.script("/a", ok("new").header("cache-control", "max-age=60").behind(&gate));
    for _ in 0..5 {
        let stale = edge.get("/a").await;
        assert_eq!((stale.status.as_u16(), stale.text()), (200, "old"));
        let told = stale.cache_status();
        assert!(told.starts_with("fra-1; fwd=stale;") && told.contains("ttl=-"), "{told}");
        assert!(told.ends_with("detail=slow-upstream"), "{told}");
    }
    assert_eq!(origin.count("/a"), 2, "one fetch for all who did not wait for it");
    origin.script("/strict", ok("new").behind(&gate));
    let url = format!("{}/strict", edge.url());
    let mut strict = tokio::task::JoinSet::new();
    strict.spawn(async move { Client::get(&url).await });
    eventually("it is asked for", PATIENCE, async || (origin.count("/strict") == 2).then_some(()))
        .await;
    gate.open();
    assert_eq!(strict.join_next().await.unwrap().unwrap().text(), "new", "it had to wait");
    eventually("the fetch went on behind the clients' backs", PATIENCE, async || {
        (edge.get("/a").await.text() == "new").then_some(())
    })
    .await;
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn who_finds_no_place_in_time_gets_something_stale_or_is_shed() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    origin.script("/hangs", ok("late").behind(&gate));
    origin.script("/kept", ok("kept").header("cache-control", "max-age=0").header("etag", "\"1\""));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.origin[0].max_requests = 1.try_into().unwrap();
        edge.origin[0].queue_timeout = HumanDuration::millis(50);
    })
    .await;
    edge.get("/kept").await;
    let url = format!("{}/hangs", edge.url());
    let mut hanging = tokio::task::JoinSet::new();
    hanging.spawn(async move { Client::get(&url).await });
    eventually("it is asked for", PATIENCE, async || (origin.count("/hangs") == 1).then_some(()))
        .await;
    let shed = edge.get("/other").await;
    assert_eq!((shed.status.as_u16(), shed.code().as_str()), (503, FULL));
    assert_eq!(shed.header("retry-after"), Some("1"));
    let stale = edge.get("/kept").await;
    assert_eq!(stale.text(), "kept");
    assert!(stale.cache_status().contains("detail=connection_limit_reached"), "{stale:?}");
    gate.open();
    assert_eq!(hanging.join_next().await.unwrap().unwrap().text(), "late");
}

const FULL: &str = "upstream_connection_limit_reached";

#[tokio::test]
async fn a_background_refresh_leaves_the_last_places_to_clients() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    let stale = "max-age=0, stale-while-revalidate=600";
    for path in ["/1", "/2"] {
        origin.script(path, ok("old").header("cache-control", stale).header("etag", "\"1\""));
    }
    origin.script("/client", ok("for a client"));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.origin[0].max_requests = 2.try_into().unwrap();
        edge.origin[0].max_queue = 1.try_into().unwrap();
        edge.origin[0].queue_timeout = HumanDuration::millis(10);
        edge.origin[0].client_reserve = Ratio::new(0.5);
    })
    .await;
    edge.get("/1").await;
    edge.get("/2").await;
    origin.script("/1", ok("new").behind(&gate));
    origin.script("/2", ok("new").behind(&gate));
    for path in ["/1", "/2"] {
        assert_eq!(edge.get(path).await.text(), "old");
    }
    eventually("one refresh hangs", PATIENCE, async || {
        (origin.count("/1") + origin.count("/2") == 3).then_some(())
    })
    .await;
    for _ in 0..3 {
        assert_eq!(edge.get("/client").await.text(), "for a client");
        assert_eq!(edge.get("/2").await.text(), "old");
    }
    assert_eq!(origin.count("/1") + origin.count("/2"), 3, "the other has to wait for a place");
    gate.open();
}

#[tokio::test]
async fn the_first_byte_deadline_follows_what_was_measured() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    origin.script("/quick", ok("quick"));
    origin.script("/hangs", ok("late").behind(&gate));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.origin[0].first_byte_timeout = FirstByte::Adaptive;
        edge.origin[0].adaptive.min_samples = 20.try_into().unwrap();
        edge.origin[0].adaptive.ceiling = HumanDuration::secs(20);
        edge.origin[0].deadline_field = Some("request-timeout".to_owned());
    })
    .await;
    let deadline = "edge_upstream_first_byte_timeout_seconds";
    assert_eq!(edge.metric(deadline).await, 20.0, "without samples");
    for _ in 0..30 {
        edge.get("/quick").await;
    }
    let measured = edge.metric(deadline).await;
    assert!((0.25..5.0).contains(&measured), "{measured}");
    let late = edge.get("/hangs").await;
    assert_eq!((late.status.as_u16(), late.code().as_str()), (504, LATE));
    let told = |path: &str, n: usize| -> u64 {
        origin.requests(path)[n].header("request-timeout").unwrap().parse().unwrap()
    };
    assert!((19_000..=20_000).contains(&told("/quick", 0)), "the origin is told of it");
    assert!((250..5_000).contains(&told("/hangs", 0)), "and that it became shorter");
}

const LATE: &str = "upstream_http_response_timeout";

/// An edge before two origins, `origin-1` and `origin-2`.
async fn two(
    one: &ScriptedOrigin,
    two: &ScriptedOrigin,
    change: impl FnOnce(&mut Edge),
) -> EdgeProcess {
    let address = two.address().parse().unwrap();
    EdgeProcess::start(one, |edge| {
        edge.peers.insert("origin-2".parse().unwrap(), address);
        edge.origin.push(Upstream { name: "origin-2".parse().unwrap(), ..edge.origin[0].clone() });
        edge.site[0].origins.push("origin-2".parse().unwrap());
        change(edge);
    })
    .await
}

#[tokio::test]
async fn a_dead_origin_is_passed_over_and_soon_no_longer_asked_first() {
    for is_backup in [false, true] {
        let (first, second) = (ScriptedOrigin::start().await, ScriptedOrigin::start().await);
        for n in 0..20 {
            second.script(&format!("/{n}"), ok("second"));
        }
        let edge = two(&first, &second, |edge| {
            edge.origin[0].health.passive_failures = 3;
            if is_backup {
                edge.site[0].backup_origins = edge.site[0].origins.split_off(1);
            }
        })
        .await;
        drop(first);
        for n in 0..20 {
            assert_eq!(edge.get(&format!("/{n}")).await.text(), "second", "{n}");
        }
        assert_eq!(edge.metric("edge_upstream_up").await, 1.0, "one of the two");
        let failures = edge.metric("edge_fetch_errors_total").await;
        assert!(failures <= 4.0, "asked first no longer: {failures}");
    }
}

#[tokio::test]
async fn checks_find_a_sick_origin_before_clients_do_and_find_it_well_again() {
    let (first, second) = (ScriptedOrigin::start().await, ScriptedOrigin::start().await);
    for (origin, body) in [(&first, "first"), (&second, "second")] {
        origin.script("/healthz", ok("fine"));
        origin.script("/a", ok(body));
    }
    let edge = two(&first, &second, |edge| {
        for origin in &mut edge.origin {
            origin.health.path = Some("/healthz".to_owned());
            origin.health.interval = HumanDuration::millis(20);
        }
    })
    .await;
    assert_eq!(edge.get("/a").await.text(), "first");
    first.script("/healthz", status(500));
    eventually("the checks tell", PATIENCE, async || {
        (edge.get("/a").await.text() == "second").then_some(())
    })
    .await;
    assert!(edge.metric("edge_upstream_failed_checks_total").await >= 3.0);
    first.script("/healthz", ok("fine"));
    eventually("the checks tell", PATIENCE, async || {
        (edge.get("/a").await.text() == "first").then_some(())
    })
    .await;
    // When both look dead it is the looking that is at fault: they are asked as ever.
    first.script("/healthz", status(500));
    second.script("/healthz", status(500));
    eventually("both look dead", PATIENCE, async || {
        (edge.metric("edge_upstream_up").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(edge.get("/a").await.text(), "first");
}

#[tokio::test]
async fn a_site_that_spreads_uses_all_its_origins_and_the_less_loaded_more() {
    let (first, second) = (ScriptedOrigin::start().await, ScriptedOrigin::start().await);
    let gate = Gate::closed();
    for origin in [&first, &second] {
        origin.script("/hangs", ok("late").behind(&gate));
        for n in 0..40 {
            origin.script(&format!("/{n}"), ok("ok"));
        }
    }
    let edge = two(&first, &second, |edge| edge.site[0].spread = true).await;
    let mut hanging = tokio::task::JoinSet::new();
    let url = format!("{}/hangs", edge.url());
    hanging.spawn(async move { Client::get(&url).await });
    eventually("one of them is loaded", PATIENCE, async || {
        (first.count("/hangs") + second.count("/hangs") == 1).then_some(())
    })
    .await;
    let (loaded, other) = match first.count("/hangs") {
        0 => (&second, &first),
        _ => (&first, &second),
    };
    for n in 0..40 {
        assert_eq!(edge.get(&format!("/{n}")).await.text(), "ok");
    }
    let (loaded, other) = (attempts(loaded, 40), attempts(other, 40));
    assert_eq!(loaded + other, 40);
    assert!(other > loaded, "{other} at the idle one, {loaded} at the loaded one");
    gate.open();
    assert_eq!(hanging.join_next().await.unwrap().unwrap().text(), "late");
}

#[tokio::test]
async fn what_breaks_off_is_fetched_again_and_a_dead_origin_is_told_quickly() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, quick).await;
    origin.script("/cut", ok("half").header("cache-control", "max-age=60").then_cut());
    drop(Client::try_get(&format!("{}/cut", edge.url())).await);
    origin.script("/cut", ok("whole").header("cache-control", "max-age=60"));
    assert_eq!(edge.get("/cut").await.text(), "whole");
    drop(origin);
    let mut codes = Vec::new();
    for n in 0..20 {
        let reply = tokio::time::timeout(Duration::from_secs(5), edge.get(&format!("/{n}"))).await;
        codes.push(reply.unwrap().code());
    }
    assert_eq!(codes[0], "upstream_connection_refused");
    assert!(codes.contains(&OPEN.to_owned()), "{codes:?}");
    assert_eq!(edge.get("/cut").await.text(), "whole", "what is stored is served");
}
