//! A breaker from trip to recovery, as clients, the command line, the log and the origin see it.

use std::time::{Duration, Instant};

use meridian_config::units::HumanDuration;
use meridian_tests::client::{Client, Reply};
use meridian_tests::cluster::Cluster;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, ok, status};
use meridian_tests::process::Process;
use meridian_tests::wait::{PATIENCE, eventually};
use serde_json::json;

/// The contract says 50 ms for 99 of 100 failures; a busy machine in a development build gets more.
const FAST: Duration = Duration::from_millis(500);

/// The parameters of `Cache-Status` behind the name of the edge.
fn parameters(reply: &Reply) -> Vec<&str> {
    reply.cache_status().split("; ").skip(1).collect()
}

fn has(reply: &Reply, parameter: &str) -> bool {
    parameters(reply).contains(&parameter)
}

#[tokio::test]
async fn in_an_outage_stored_paths_say_why_they_are_stale_and_the_rest_fails_fast() {
    let origin = ScriptedOrigin::start().await;
    let kept = ok("kept").header("cache-control", "max-age=0").header("etag", "\"1\"");
    origin.script("/kept", kept.clone());
    origin.script("/kept-too", kept);
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.origin[0].breaker.cool_down = HumanDuration::secs(60);
        edge.origin[0].breaker.cool_down_max = HumanDuration::secs(60);
    })
    .await;
    for path in ["/kept", "/kept-too"] {
        assert_eq!(edge.get(path).await.text(), "kept");
    }
    drop(origin);

    // It went forward, and nobody was there.
    let stale = edge.get("/kept").await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, "kept"));
    assert!(has(&stale, "fwd=stale") && has(&stale, "detail=connection_refused"), "{stale:?}");
    assert!(parameters(&stale).iter().any(|parameter| parameter.starts_with("ttl=-")), "{stale:?}");

    for n in 0..20 {
        let failed = edge.get(&format!("/{n}")).await;
        assert!([502, 503].contains(&failed.status.as_u16()), "{failed:?}");
    }
    // The breaker is open: nothing went forward, so it is a hit by RFC 9211, and says why as well.
    let stale = edge.get("/kept-too").await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, "kept"));
    assert!(has(&stale, "hit") && has(&stale, "detail=breaker-open"), "{stale:?}");

    let attempts = edge.metric("edge_upstream_requests_total").await;
    let mut took = Vec::new();
    let mut client = Client::http1(edge.url()).await.unwrap();
    for n in 0..300 {
        let began = Instant::now();
        let refused = client.path(&format!("/unstored/{n}")).await;
        took.push(began.elapsed());
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
    }
    took.sort_unstable();
    println!("failures with an open breaker: p50 {:?}, p99 {:?}", took[150], took[297]);
    assert!(took[297] < FAST, "{:?}", took[297]);
    assert_eq!(edge.metric("edge_upstream_requests_total").await, attempts, "nobody was asked");
}

/// The transitions that the log of a node tells, `from` to `to` and why, in their order.
fn transitions(log: &str) -> Vec<(String, String, String)> {
    let value = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!(" {name}="))?;
        Some(rest.split_whitespace().next()?.trim_matches('"').to_owned())
    };
    let events = log.lines().filter(|line| line.contains("a breaker changed"));
    events
        .filter_map(|line| Some((value(line, "from")?, value(line, "to")?, value(line, "reason")?)))
        .collect()
}

#[tokio::test]
async fn each_transition_is_logged_once_in_its_order_with_its_reason() {
    let origin = ScriptedOrigin::start().await;
    for n in 0..10 {
        origin.script(&format!("/{n}"), status(503));
    }
    let mut edge = EdgeProcess::start(&origin, |edge| {
        let origin = &mut edge.origin[0];
        origin.retry.enabled = Some(false);
        origin.breaker.cool_down = HumanDuration::millis(300);
        origin.breaker.ramp_up = HumanDuration::millis(300);
        origin.breaker.probes = 1.try_into().unwrap();
    })
    .await;
    for n in 0..10 {
        assert_eq!(edge.get(&format!("/{n}")).await.status, 503);
    }
    let probed = async || edge.metric("edge_breaker_probes_total").await;
    eventually("a probe has failed", PATIENCE, async || {
        edge.get("/0").await;
        (probed().await >= 1.0).then_some(())
    })
    .await;
    for n in 0..10 {
        origin.script(&format!("/{n}"), ok("back"));
    }
    eventually("it is closed for good", PATIENCE, async || {
        edge.get("/0").await;
        let told = Client::get(&format!("{}/metrics", edge.admin())).await;
        let closed = "edge_breaker_state{upstream=\"origin-1\",state=\"closed\"} 1";
        told.text().contains(closed).then_some(())
    })
    .await;
    let changes = edge.metric("edge_breaker_changes_total").await;
    let told = transitions(&edge.process().stderr());
    assert_eq!(told.len() as f64, changes, "{told:?}");
    let told: Vec<_> = told.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
    let tripped = ("closed", "open", "consecutive-failures");
    let (half, failed) =
        (("open", "half-open", "cooled-down"), ("half-open", "open", "probe-failed"));
    let good = ("half-open", "ramping-up", "probes-succeeded");
    let ends = [half, good, ("ramping-up", "closed", "ramped-up")];
    assert_eq!(told.first(), Some(&tripped), "{told:?}");
    assert!(told.ends_with(&ends), "{told:?}");
    let between = &told[1..told.len() - ends.len()];
    assert!(!between.is_empty() && between.len() % 2 == 0, "{told:?}");
    assert!(between.chunks(2).all(|pair| pair == [half, failed]), "{told:?}");
}

#[tokio::test]
async fn status_and_explain_show_the_breaker_and_what_a_miss_costs() {
    let cluster = Cluster::start(&["--regions", "fra"]).await;
    let (dir, edge) = (cluster.dir().to_str().unwrap().to_owned(), cluster.edge("fra"));
    let run = async |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--dir", &dir]);
        let ended = Process::run(&all).await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        ended.stdout
    };
    assert!(!run(&["explain", "/"]).await.contains("breaker"), "a closed one is no news");

    assert!(cluster.set_faults(json!([{ "status": 503 }])).await.status.is_success());
    let state = async || {
        let told = run(&["status", "--json"]).await;
        let status: serde_json::Value = serde_json::from_str(&told).unwrap();
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["name"] == "fra-1").unwrap()["origins"][0].clone()
    };
    let mut asked = 0;
    let view = eventually("its breaker opens", PATIENCE, async || {
        asked += 1;
        Client::get(&format!("{}/?unstored={asked}", edge.url)).await;
        let view = state().await;
        (view["breaker"] != "closed").then_some(view)
    })
    .await;
    let (attempts, misses) =
        (view["asked"].as_u64().unwrap(), view["amplification"].as_f64().unwrap());
    assert!(attempts >= 1 && misses > 1.0, "failures were asked for again: {view}");
    assert!(misses <= 2.0, "at most once each: {view}");

    let table = run(&["status"]).await;
    let head = table.lines().find(|line| line.contains("attempts per request"));
    assert!(head.is_some_and(|head| head.contains("breaker")), "{table}");
    let row = table.lines().find(|line| line.contains("origin-1") && line.starts_with("fra-1"));
    let shown =
        ["open", "half-open"].iter().any(|state| row.is_some_and(|row| row.contains(state)));
    assert!(shown, "{table}");
    assert!(row.is_some_and(|row| row.contains(&format!(" {misses:.2} "))), "{table}");

    // Held there by an operator, it says so.
    let url = format!("{}/v1/origins/origin-1/breaker", edge.admin());
    let token = cluster.token();
    let held = Client::put_json(&url, "{\"state\":\"open\"}", Some(&token)).await;
    assert_eq!(held.status, 200, "{held:?}");
    let told = run(&["explain", "/"]).await;
    assert!(told.contains("its breaker is held open"), "{told}");
}
