//! Who waits for an origin, for how long, and what stands in: for each client, whatever it asks by and
//! whoever it waited with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use meridian_config::edge::Upstream;
use meridian_config::edge::resilience::FirstByte;
use meridian_config::units::HumanDuration;
use meridian_tests::client::{Client, Reply, get};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, ok, status};
use meridian_tests::raw_origin::{RawOrigin, close};
use meridian_tests::wait::{PATIENCE, eventually, pause};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const STALE: &str = "max-age=0";

async fn head(edge: &EdgeProcess, path: &str) -> Reply {
    let url = format!("{}{path}", edge.url());
    Client::request(Method::HEAD, &url, &[], String::new().into()).await
}

#[tokio::test]
async fn who_asks_by_head_gets_what_is_stored_when_the_origin_fails_hangs_or_is_gone() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site[0].stale_patience = Some(HumanDuration::millis(50));
    })
    .await;
    let kept = |extra: &str| ok("kept").header("cache-control", &format!("{STALE}{extra}"));
    let gate = Gate::closed();
    for path in ["/fails", "/hangs", "/gone", "/strict"] {
        let extra = if path == "/strict" { ", must-revalidate" } else { "" };
        origin.script(path, kept(extra).header("etag", "\"1\""));
        assert_eq!(edge.get(path).await.text(), "kept");
    }
    origin.script("/fails", status(503));
    origin.script("/strict", status(503));
    origin.script("/hangs", ok("late").behind(&gate));
    for (path, detail) in [("/fails", "fwd-status=503"), ("/hangs", "detail=slow-upstream")] {
        let reply = head(&edge, path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        let told = reply.cache_status();
        assert!(told.starts_with("fra-1; fwd=stale") && told.contains(detail), "{path}: {told}");
    }
    assert_eq!(head(&edge, "/strict").await.status, 503, "must-revalidate");
    gate.open();
    drop(origin);
    let reply = head(&edge, "/gone").await;
    let told = reply.cache_status();
    assert_eq!((reply.status.as_u16(), reply.text()), (200, ""));
    assert!(told.contains("detail=connection_refused"), "{told}");
    assert_eq!(head(&edge, "/strict").await.status, 502);
}

#[tokio::test]
async fn what_may_not_stand_in_saves_no_retry() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for (path, extra, retried) in [("/may", "", false), ("/may-not", ", must-revalidate", true)] {
        let field = format!("{STALE}{extra}");
        origin.script(path, ok("old").header("cache-control", &field));
        assert_eq!(edge.get(path).await.text(), "old");
        let asked = AtomicUsize::new(0);
        origin.script_fn(path, move |_| match asked.fetch_add(1, Ordering::SeqCst) {
            0 => status(503),
            _ => ok("new"),
        });
        let reply = edge.get(path).await;
        assert_eq!(
            (reply.status.as_u16(), reply.text()),
            (200, if retried { "new" } else { "old" })
        );
        assert_eq!(origin.count(path), if retried { 3 } else { 2 }, "{path}");
    }
}

#[tokio::test]
async fn a_fetch_that_nobody_waits_for_gives_its_place_to_who_waits_for_one() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    for path in ["/1", "/2", "/3"] {
        origin.script(path, ok("late").header("cache-control", "max-age=60").behind(&gate));
    }
    origin.script("/other", ok("other"));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.origin[0].max_requests = 1.try_into().unwrap();
        edge.origin[0].queue_timeout = HumanDuration::secs(30);
    })
    .await;
    // One in flight, two in the queue: their clients leave.
    let mut leaving = Vec::new();
    for (path, queued) in [("/1", 0.0), ("/2", 1.0), ("/3", 2.0)] {
        let mut client = Client::http1(edge.url()).await.unwrap();
        let mut asking = JoinSet::new();
        asking.spawn(async move { client.send(get(path)).await });
        leaving.push(asking);
        eventually("it is taken in", PATIENCE, async || {
            let has_place = edge.metric("edge_upstream_in_flight").await == 1.0;
            (has_place && edge.metric("edge_upstream_queue").await == queued).then_some(())
        })
        .await;
    }
    drop(leaving.remove(1));
    eventually("who waits for a place for nobody leaves the queue", PATIENCE, async || {
        (edge.metric("edge_upstream_queue").await == 1.0).then_some(())
    })
    .await;
    drop(leaving.remove(0));
    eventually("the place goes to the one who is left", PATIENCE, async || {
        (origin.count("/3") == 1).then_some(())
    })
    .await;
    assert_eq!(origin.count("/2"), 0);
    drop(leaving);
    let url = format!("{}/other", edge.url());
    let other = tokio::time::timeout(Duration::from_secs(10), Client::get(&url)).await.unwrap();
    assert_eq!(other.text(), "other");
    assert_eq!(edge.metric("edge_breaker_changes_total").await, 0.0, "no origin has failed");
    gate.open();
    assert_eq!(edge.get("/2").await.text(), "late", "who comes later begins anew");
}

#[tokio::test]
async fn who_has_waited_for_others_in_vain_waits_no_longer_than_alone() {
    let total = Duration::from_secs(3);
    let origin = ScriptedOrigin::start().await;
    let (first, never) = (Gate::closed(), Gate::closed());
    let (opened, hangs) = (first.clone(), never.clone());
    let asked = Arc::new(AtomicUsize::new(0));
    origin.script_fn("/a", move |_| {
        let mine = ok("mine").header("cache-control", "private");
        mine.behind(if asked.fetch_add(1, Ordering::SeqCst) == 0 { &opened } else { &hangs })
    });
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.origin[0].connect_timeout = HumanDuration::secs(3);
        edge.origin[0].first_byte_timeout = FirstByte::Fixed(HumanDuration::secs(3));
        edge.origin[0].total_timeout = HumanDuration::secs(3);
    })
    .await;
    let url = format!("{}/a", edge.url());
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for _ in 0..2 {
        let url = url.clone();
        clients.spawn(async move { (Client::get(&url).await, began.elapsed()) });
    }
    eventually("both wait for one answer", PATIENCE, async || {
        (edge.metric("edge_requests_in_flight").await == 2.0).then_some(())
    })
    .await;
    pause(Duration::from_secs(2)).await;
    first.open();
    let mut ended = clients.join_all().await;
    ended.sort_by_key(|(_, took)| *took);
    assert_eq!(ended[0].0.text(), "mine");
    let (late, took) = &ended[1];
    assert_eq!((late.status.as_u16(), origin.count("/a")), (504, 2), "{late:?}");
    assert!(*took < total + Duration::from_millis(1_500), "{took:?}");
    never.open();
}

#[tokio::test]
async fn who_leaves_takes_along_what_nobody_else_wants() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    origin.script("/a", ok("late").behind(&gate));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.origin[0].max_requests = 2.try_into().unwrap();
    })
    .await;
    let url = format!("{}/a", edge.url());
    let mut clients = JoinSet::new();
    for (in_flight, queued) in [(1.0, 0.0), (2.0, 0.0), (2.0, 1.0)] {
        let url = url.clone();
        clients.spawn(async move { Client::request(Method::POST, &url, &[], "x".into()).await });
        eventually("it is taken in", PATIENCE, async || {
            let taken = edge.metric("edge_upstream_in_flight").await == in_flight
                && edge.metric("edge_upstream_queue").await == queued;
            taken.then_some(())
        })
        .await;
    }
    clients.shutdown().await;
    // Long before any deadline: connections, places, the queue, the bodies that were held.
    let names = [
        "edge_upstream_in_flight",
        "edge_upstream_queue",
        "edge_requests_in_flight",
        "edge_request_bodies_bytes",
    ];
    for name in names {
        eventually(name, Duration::from_secs(5), async || {
            (edge.metric(name).await == 0.0).then_some(())
        })
        .await;
    }
    assert_eq!(edge.metric("edge_fetch_errors_total").await, 0.0, "the origin has not failed");
    gate.open();
}

#[tokio::test]
async fn a_post_goes_to_the_next_origin_only_where_the_one_before_saw_nothing_of_it() {
    // It takes the request, and ends the connection without a word.
    let mute = RawOrigin::start(|_| close("")).await;
    let next = ScriptedOrigin::start().await;
    next.script("/a", ok("next"));
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let key: &[_] = &[("idempotency-key", "\"k\"")];
    // Where the first is, the fields, what the client gets, and how often the first saw it.
    let rows = [(gone, &[][..], 200), (mute.address(), &[], 502), (mute.address(), key, 200)];
    for (row, (first, fields, want)) in rows.into_iter().enumerate() {
        let before = (mute.requests().len(), next.count("/a"));
        let edge = EdgeProcess::start(&next, |edge| {
            let second = edge.peers.insert("origin-1".parse().unwrap(), first.parse().unwrap());
            edge.peers.insert("origin-2".parse().unwrap(), second.unwrap());
            let origin = edge.origin[0].clone();
            edge.origin.push(Upstream { name: "origin-2".parse().unwrap(), ..origin });
            edge.site[0].origins.push("origin-2".parse().unwrap());
        })
        .await;
        let url = format!("{}/a", edge.url());
        let reply = Client::request(Method::POST, &url, fields, "an order".into()).await;
        assert_eq!(reply.status, want, "row {row}: {reply:?}");
        let seen = mute.requests().len() - before.0;
        assert_eq!(seen, usize::from(row > 0), "row {row}");
        let passed_on = next.requests("/a").split_off(before.1);
        assert_eq!(passed_on.len(), usize::from(want == 200), "row {row}");
        assert!(passed_on.iter().all(|seen| seen.body == "an order"), "row {row}: all of it");
    }
}
