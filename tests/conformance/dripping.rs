//! Bodies that come too slowly from their origin: ended, told, not stored, and no longer a burden; and
//! that slow clients are not held against it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a verdict")]

use std::time::Duration;

use meridian_config::units::{ByteSize, HumanDuration};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Script, ScriptedOrigin, ok};
use meridian_tests::raw_client::{Next, RawClient};
use meridian_tests::wait::{PATIENCE, eventually, pause};
use tokio::time::timeout;

const EVERY: Duration = Duration::from_millis(100);
const ENDED: &str =
    "edge_fetch_errors_total{upstream=\"origin-1\",error=\"http_response_incomplete\"}";

/// 10 bytes in a second.
fn drip() -> Script {
    ok("new").header("cache-control", "max-age=600").then_drip(EVERY)
}

/// One place at the origin, which has to bring 100 bytes in a second, if any rate.
async fn edge(origin: &ScriptedOrigin, has_rate: bool) -> EdgeProcess {
    EdgeProcess::start(origin, |edge| {
        let origin = &mut edge.origin[0];
        origin.max_requests = 1.try_into().unwrap();
        origin.least_rate = ByteSize::bytes(if has_rate { 100 } else { 0 });
        origin.rate_grace = HumanDuration::millis(500);
        edge.accept.least_rate = ByteSize::bytes(0);
    })
    .await
}

async fn asks(edge: &EdgeProcess, path: &str) -> RawClient {
    let mut client = RawClient::connect(edge.url()).await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await;
    client
}

#[tokio::test]
async fn a_body_that_drips_is_ended_and_what_is_stored_stands_in_for_the_next() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("kept").header("cache-control", "max-age=0"));
    origin.script("/other", ok("other"));
    let edge = edge(&origin, true).await;
    assert_eq!(edge.get("/a").await.text(), "kept");
    for path in ["/a", "/b", "/unstored"] {
        origin.script(path, drip());
    }
    origin.script("/unstored", drip().header("cache-control", "no-store"));
    for (number, path) in ["/a", "/b", "/unstored"].into_iter().enumerate() {
        let Next::End(bytes) = asks(&edge, path).await.next().await else {
            panic!("{path}: taken for a whole answer");
        };
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("new"), "{path}: {text}");
        assert!(!text.ends_with("0\r\n\r\n"), "{path}: {text}");
        if path == "/a" {
            let next = edge.get(path).await;
            assert_eq!((next.status.as_u16(), next.text()), (200, "kept"));
            let told = next.cache_status();
            assert!(told.contains("detail=http_response_incomplete"), "{told}");
            assert_eq!(origin.count(path), 2, "the next was not asked for");
        }
        // The only place.
        assert_eq!(edge.get("/other").await.text(), "other", "{path}");
        eventually("the place is free", PATIENCE, async || {
            (edge.metric("edge_upstream_in_flight").await == 0.0).then_some(())
        })
        .await;
        assert_eq!(edge.metric(ENDED).await, (number + 1) as f64);
    }
    // Once that is forgotten the origin is asked anew, and nothing of the drip is stored.
    origin.script("/a", ok("whole"));
    origin.script("/b", ok("whole"));
    eventually("the origin is asked again", PATIENCE, async || {
        (edge.get("/a").await.text() == "whole").then_some(())
    })
    .await;
    assert_eq!(edge.get("/b").await.text(), "whole");
}

#[tokio::test]
async fn without_a_least_rate_and_for_events_the_same_drip_goes_on() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", drip());
    origin.script("/events", drip().header("content-type", "text/event-stream"));
    for (has_rate, path) in [(false, "/a"), (true, "/events")] {
        let edge = edge(&origin, has_rate).await;
        let mut client = asks(&edge, path).await;
        let early = timeout(Duration::from_secs(3), client.next()).await;
        assert!(early.is_err(), "{path}: {early:?}");
        assert_eq!(edge.metric(ENDED).await, 0.0, "{path}");
        assert_eq!(edge.metric("edge_upstream_in_flight").await, 1.0, "it holds the only place");
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_not_held_against_the_origin() {
    const LARGE: usize = 32 << 20;
    let origin = ScriptedOrigin::start().await;
    origin.script("/large", ok(vec![b'x'; LARGE]).header("cache-control", "no-store"));
    let edge = edge(&origin, true).await;
    let mut slow = asks(&edge, "/large").await;
    slow.begun().await;
    pause(Duration::from_secs(3)).await; // six times the grace without taking anything
    assert_eq!(edge.metric("edge_upstream_in_flight").await, 1.0, "not all of it fits in between");
    let Next::Answer(answer) = slow.next().await else { panic!("it was ended") };
    assert_eq!(answer.body.len(), LARGE);
    assert_eq!(edge.metric(ENDED).await, 0.0);
}
