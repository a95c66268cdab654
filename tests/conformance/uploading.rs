//! Clients that are slow to send a body: what they cost others, and what they do not.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

use meridian_config::edge::Edge;
use meridian_config::units::{ByteSize, HumanDuration, Ratio};
use meridian_tests::cluster::address;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, ok};
use meridian_tests::wait::{PATIENCE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SHED: &str = "upstream_connection_limit_reached";

async fn origin() -> ScriptedOrigin {
    let origin = ScriptedOrigin::start().await;
    origin.script("/read", ok("read").header("cache-control", "no-store"));
    origin.script("/write", ok("written"));
    origin
}

/// An edge with four places at its origin and little patience in the queue.
async fn edge(origin: &ScriptedOrigin, change: impl FnOnce(&mut Edge)) -> EdgeProcess {
    EdgeProcess::start(origin, |edge| {
        edge.origin[0].max_requests = 4.try_into().unwrap();
        edge.origin[0].max_queue = 4.try_into().unwrap();
        edge.origin[0].queue_timeout = HumanDuration::millis(50);
        change(edge);
    })
    .await
}

/// A client that has sent this much of a body of that length.
async fn slow(edge: &EdgeProcess, length: usize, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address(edge.url())).await.unwrap();
    let head = format!(
        "POST /write HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; sent]).await.unwrap();
    stream
}

async fn answer(mut client: TcpStream, rest: usize) -> String {
    client.write_all(&vec![b'x'; rest]).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn reaches(edge: &EdgeProcess, metric: &str, value: f64) {
    eventually(metric, PATIENCE, async || (edge.metric(metric).await == value).then_some(())).await;
}

#[tokio::test]
async fn a_body_that_fits_into_memory_takes_no_place_until_it_is_whole() {
    let origin = origin().await;
    let edge = edge(&origin, |_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(slow(&edge, 1_000, 10).await);
    }
    reaches(&edge, "edge_request_bodies_bytes", 20_000.0).await;
    assert_eq!(edge.metric("edge_upstream_in_flight").await, 0.0);
    assert_eq!(edge.get("/read").await.text(), "read");
    assert_eq!(origin.count("/write"), 0, "nobody is asked for half a body");
    drop(clients.split_off(1));
    let written = answer(clients.remove(0), 990).await;
    assert!(written.starts_with("HTTP/1.1 200") && written.ends_with("written"), "{written}");
    assert_eq!(origin.requests("/write")[0].body.len(), 1_000);
    reaches(&edge, "edge_request_bodies_bytes", 0.0).await;
    assert_eq!(origin.count("/write"), 1, "who left half-way has asked for nothing");
}

#[tokio::test]
async fn slow_uploads_hold_up_other_uploads_only() {
    let large = 100_000; // more than is held in memory
    let origin = origin().await;
    let edge = edge(&origin, |_| {}).await;
    let mut clients = Vec::new();
    for n in [1.0, 2.0] {
        clients.push(slow(&edge, large, 10).await);
        reaches(&edge, "edge_upstream_in_flight", n).await;
    }
    let shed = answer(slow(&edge, large, 10).await, 0).await;
    assert!(shed.starts_with("HTTP/1.1 503") && shed.contains(SHED), "{shed}");
    assert!(shed.contains("retry-after: 1"), "{shed}");
    for _ in 0..20 {
        assert_eq!(edge.get("/read").await.text(), "read");
    }
    let written = answer(clients.remove(0), large - 10).await;
    assert!(written.ends_with("written"), "{written}");
}

#[tokio::test]
async fn what_finds_no_memory_goes_on_as_it_comes() {
    let origin = origin().await;
    let edge = edge(&origin, |edge| edge.accept.body_memory = ByteSize::bytes(1_500)).await;
    let first = slow(&edge, 1_000, 10).await;
    reaches(&edge, "edge_request_bodies_bytes", 1_000.0).await;
    let second = slow(&edge, 1_000, 10).await;
    reaches(&edge, "edge_upstream_in_flight", 1.0).await;
    assert_eq!(edge.metric("edge_request_bodies_bytes").await, 1_000.0);
    for client in [second, first] {
        let written = answer(client, 990).await;
        assert!(written.ends_with("written"), "{written}");
    }
}

/// The tests above see what they claim to see.
#[tokio::test]
async fn without_both_bounds_slow_uploads_take_every_place() {
    let origin = origin().await;
    let edge = edge(&origin, |edge| {
        edge.origin[0].retry_buffer = ByteSize::bytes(0);
        edge.origin[0].upload_share = Ratio::new(1.0);
    })
    .await;
    let mut clients = Vec::new();
    for n in [1.0, 2.0, 3.0, 4.0] {
        clients.push(slow(&edge, 1_000, 10).await);
        reaches(&edge, "edge_upstream_in_flight", n).await;
    }
    assert_eq!(edge.get("/read").await.code(), SHED);
}
