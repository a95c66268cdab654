//! The least rate of clients that are waited for, over both versions of HTTP, and that nobody else's
//! slowness is held against them.

use std::time::Duration;

use meridian_config::edge::resilience::FirstByte;
use meridian_config::units::{ByteSize, HumanDuration};
use meridian_tests::client::{Client, get};
use meridian_tests::cluster::address;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, ok};
use meridian_tests::raw_h2::{Outcome, RawH2};
use meridian_tests::wait::{PATIENCE, eventually, pause};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CUT: &str = "edge_connections_overdue_total{limit=\"least_rate\"}";
/// No stream may be sent a byte of a body (RFC 9113 §6.5.2).
const NO_WINDOW: [u8; 6] = [0, 4, 0, 0, 0, 0];
const LARGE: usize = 32 << 20;

async fn edge(origin: &ScriptedOrigin, least_rate: ByteSize) -> EdgeProcess {
    EdgeProcess::start(origin, |edge| {
        edge.accept.least_rate = least_rate;
        edge.accept.rate_grace = HumanDuration::millis(500);
    })
    .await
}

async fn cut(edge: &EdgeProcess, connections: f64) {
    eventually("the slow are cut", PATIENCE, async || {
        (edge.metric(CUT).await == connections).then_some(())
    })
    .await;
}

#[expect(clippy::unwrap_used, reason = "a failing helper fails its test")]
async fn says(edge: &EdgeProcess, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address(edge.url())).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

fn fields<'a>(method: &'a [u8], path: &'a [u8]) -> [(&'a [u8], &'a [u8]); 4] {
    [(b":method", method), (b":scheme", b"http"), (b":authority", b"h"), (b":path", path)]
}

#[tokio::test]
async fn who_takes_nothing_of_a_response_is_cut_and_who_waits_for_the_origin_is_not() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    origin.script("/slow", ok("first, ").then_behind(&gate, "last"));
    origin.script("/large", ok(vec![b'x'; LARGE]).header("cache-control", "no-store"));
    let edge = edge(&origin, ByteSize::kib(1)).await;
    let url = format!("{}/slow", edge.url());
    let mut patient = tokio::task::JoinSet::new();
    for mut client in [Client::http1(&url).await.unwrap(), Client::http2(&url).await.unwrap()] {
        patient.spawn(async move { client.send(get("/slow")).await.unwrap() });
    }
    eventually("both are under way", PATIENCE, async || {
        (edge.metric("edge_requests_in_flight").await == 2.0).then_some(())
    })
    .await;

    let stuck = says(&edge, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n").await;
    cut(&edge, 1.0).await;
    let mut held = RawH2::connect(edge.url(), &NO_WINDOW).await;
    held.open(1, &fields(b"GET", b"/large"), true).await;
    assert_eq!(held.outcome(1).await, Outcome::Ended);
    cut(&edge, 2.0).await;
    drop(stuck);
    eventually("their places are free again", PATIENCE, async || {
        (edge.metric("edge_requests_in_flight").await == 2.0).then_some(())
    })
    .await;

    gate.open();
    for reply in patient.join_all().await {
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "first, last"));
    }
    assert_eq!(edge.metric(CUT).await, 2.0, "who waited longer than both was not cut");
    assert_eq!(edge.get("/large").await.body.len(), LARGE, "nor is who takes what comes");
}

/// Pings until the connection is ended.
async fn pinging_until_the_end(client: &mut RawH2, id: u32) {
    let mut beat = tokio::time::interval(Duration::from_millis(5));
    eventually("it is cut", PATIENCE, async || {
        beat.tick().await;
        client.ping().await;
        let early = tokio::time::timeout(Duration::from_millis(1), client.outcome(id)).await;
        early.is_ok_and(|outcome| outcome == Outcome::Ended).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pings_are_no_sign_that_a_client_takes_what_it_asked_for() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/large", ok(vec![b'x'; LARGE]).header("cache-control", "no-store"));
    origin.script("/kept", ok("kept").header("cache-control", "max-age=600"));
    let edge = edge(&origin, ByteSize::kib(1)).await;
    // Each is answered: some 3 KiB in a second, all of them about the connection.
    let mut held = RawH2::connect(edge.url(), &NO_WINDOW).await;
    held.open(1, &fields(b"GET", b"/large"), true).await;
    pinging_until_the_end(&mut held, 1).await;
    cut(&edge, 1.0).await;

    // Also where any rate will do, and for what is stored, which holds nothing but a connection.
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.accept.least_rate = ByteSize::bytes(0);
        edge.accept.send_timeout = HumanDuration::millis(200);
        let origin = &mut edge.origin[0];
        origin.connect_timeout = HumanDuration::millis(200);
        origin.first_byte_timeout = FirstByte::Fixed(HumanDuration::millis(200));
        origin.between_bytes_timeout = HumanDuration::millis(200);
        origin.total_timeout = HumanDuration::millis(200);
    })
    .await;
    assert_eq!(edge.get("/kept").await.text(), "kept");
    for path in [b"/large".as_slice(), b"/kept"] {
        let mut held = RawH2::connect(edge.url(), &NO_WINDOW).await;
        held.open(1, &fields(b"GET", path), true).await;
        pinging_until_the_end(&mut held, 1).await;
    }
    let silent = "edge_connections_overdue_total{limit=\"silence\"}";
    assert_eq!(edge.metric(silent).await, 2.0);
    eventually("nothing is held any more", PATIENCE, async || {
        (edge.metric("edge_upstream_in_flight").await == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_gives_a_body_below_the_least_rate_is_cut_and_above_it_is_not() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("taken"));
    let edge = edge(&origin, ByteSize::kib(1)).await;
    let head = "POST /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 102400\r\n\r\n";
    let mut good = says(&edge, head).await;
    let mut slow = says(&edge, head).await;
    let none = says(&edge, head).await;
    let mut h2 = RawH2::connect(edge.url(), &[]).await;
    h2.open(1, &fields(b"POST", b"/a"), false).await;
    for _ in 0..100 {
        good.write_all(&[b'x'; 1024]).await.unwrap();
        drop(slow.write_all(b"x").await); // it is cut at some time
        h2.data(1, b"x", false).await;
        pause(Duration::from_millis(25)).await;
    }
    assert_eq!(h2.outcome(1).await, Outcome::Ended);
    cut(&edge, 3.0).await;
    let mut answer = String::new();
    good.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("taken"), "{answer}");
    drop((slow, none));
}

#[tokio::test]
async fn without_a_least_rate_nobody_is_cut_for_one() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("taken"));
    let edge = edge(&origin, ByteSize::bytes(0)).await;
    let head = "POST /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 40\r\n\r\n";
    let mut slow = says(&edge, head).await;
    for _ in 0..40 {
        slow.write_all(b"x").await.unwrap();
        pause(Duration::from_millis(50)).await;
    }
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("taken"), "{answer}");
    assert_eq!(edge.metric(CUT).await, 0.0);
}
