//! What one client may cost: heads, connections, time; and the end in good order.

use std::time::Duration;

use meridian_config::units::HumanDuration;
use meridian_tests::client::{Client, get};
use meridian_tests::cluster::address;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, ok};
use meridian_tests::process::Signal;
use meridian_tests::raw;
use meridian_tests::wait::{PATIENCE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn authority(edge: &EdgeProcess) -> &str {
    address(edge.url())
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused_and_the_edge_goes_on() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("a"));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let rows =
        [("one large field", format!("X: {}\r\n", "y".repeat(1 << 20))), ("too many fields", many)];
    for (what, fields) in rows {
        let request = format!("GET /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let text = raw::exchange(edge.url(), request.as_bytes(), raw::is_whole).await;
        assert_eq!(raw::status(&text), 431, "{what}: {text}");
        assert_eq!(edge.get("/a").await.status, 200);
    }
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn malformed_heads_are_refused_and_reach_no_origin() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("a"));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let rows: [&[u8]; 8] = [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET /a\r\n\r\n",
        b"GET /a HTTP/9.9\r\nHost: h\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: h\r\nX Y: z\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"GET /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
    ];
    for request in rows {
        let text = raw::exchange(edge.url(), request, raw::is_whole).await;
        let shown = String::from_utf8_lossy(request);
        assert!(text.is_empty() || raw::status(&text) == 400, "{shown:?}: {text}");
        assert_eq!(edge.get("/b").await.status, 404, "the edge goes on after {shown:?}");
    }
    assert_eq!(origin.count("/a"), 0);
}

#[tokio::test]
async fn clients_that_dawdle_over_a_head_are_cut_also_before_they_show_a_protocol() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("a"));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.accept.head_timeout = HumanDuration::millis(300);
        edge.accept.idle_timeout = HumanDuration::secs(60);
    })
    .await;
    let mut slow = Vec::new();
    for start in ["P", "PRI * HTTP/2.0\r\n", "GET /a HTTP/1.1\r\nHost: "] {
        let mut stream = TcpStream::connect(authority(&edge)).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let mut idle = TcpStream::connect(authority(&edge)).await.unwrap();
    for mut stream in slow {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the edge ends it");
    }
    idle.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200", "who said nothing yet was not cut");
    assert_eq!(edge.metric("edge_connections_overdue_total").await, 3.0);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_one_ends() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("a"));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.accept.max_connections = 2.try_into().unwrap();
    })
    .await;
    let mut first = Client::http1(edge.url()).await.unwrap();
    let mut second = Client::http1(edge.url()).await.unwrap();
    first.path("/a").await;
    second.path("/a").await;
    let mut third = Client::http1(edge.url()).await.unwrap();
    {
        let waiting = third.send(get("/a"));
        tokio::pin!(waiting);
        let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
        assert!(early.is_err(), "there is no place for a third");
        drop(first);
        assert_eq!(waiting.await.unwrap().status, 200);
    }
    assert_eq!(second.path("/a").await.status, 200);
}

#[tokio::test]
async fn requests_beyond_places_and_queue_of_an_origin_are_shed_at_once() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    for path in ["/1", "/2", "/3"] {
        origin.script(path, ok("a").behind(&gate));
    }
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.origin[0].max_requests = 1.try_into().unwrap();
        edge.origin[0].max_queue = 1.try_into().unwrap();
    })
    .await;
    let mut tasks = tokio::task::JoinSet::new();
    for (path, in_flight, queued) in [("/1", 1.0, 0.0), ("/2", 1.0, 1.0)] {
        let url = format!("{}{path}", edge.url());
        tasks.spawn(async move { Client::get(&url).await });
        eventually("it is taken in", PATIENCE, async || {
            let taken = edge.metric("edge_upstream_in_flight").await == in_flight
                && edge.metric("edge_upstream_queue").await == queued;
            taken.then_some(())
        })
        .await;
    }
    let shed = edge.get("/3").await;
    assert_eq!(shed.status, 503);
    assert_eq!(shed.code(), "upstream_connection_limit_reached");
    assert_eq!(shed.header("retry-after"), Some("1"));
    gate.open();
    assert!(tasks.join_all().await.iter().all(|reply| reply.status == 200));
}

#[tokio::test]
async fn an_edge_that_is_told_to_stop_ends_what_it_began() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    origin.script("/a", ok("whole").behind(&gate));
    let mut edge = EdgeProcess::start(&origin, |_| {}).await;
    let url = format!("{}/a", edge.url());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { Client::get(&url).await });
    eventually("it is under way", PATIENCE, async || (origin.count("/a") == 1).then_some(())).await;
    edge.process().signal(Signal::TERM);
    eventually("no new connections", PATIENCE, async || {
        TcpStream::connect(authority(&edge)).await.is_err().then_some(())
    })
    .await;
    gate.open();
    assert_eq!(tasks.join_all().await[0].text(), "whole");
    let ended = edge.process().end().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
}

#[tokio::test]
async fn each_request_has_one_line_in_the_access_log_where_it_is_asked_for() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a?secret=x", ok("body").header("cache-control", "max-age=60"));
    let mut edge = EdgeProcess::start(&origin, |edge| edge.log.access = true).await;
    edge.get("/a?secret=x").await;
    edge.get("/a?secret=x").await;
    let log = eventually("two lines", PATIENCE, async || {
        let log = edge.process().stderr();
        (log.matches(" access: ").count() == 2).then_some(log)
    })
    .await;
    for word in ["path=\"/a\"", "cache=\"uri-miss\"", "cache=\"hit\"", "status=200", "bytes=4"] {
        assert!(log.contains(word), "{word} in {log}");
    }
    assert!(!log.contains("secret"), "{log}");
}

#[tokio::test]
async fn a_connection_that_said_nothing_does_not_hold_up_the_end() {
    let origin = ScriptedOrigin::start().await;
    let mut edge = EdgeProcess::start(&origin, |edge| {
        edge.accept.drain_timeout = HumanDuration::secs(3_600);
    })
    .await;
    let silent = TcpStream::connect(authority(&edge)).await.unwrap();
    eventually("it is accepted", PATIENCE, async || {
        (edge.metric("edge_connections").await == 1.0).then_some(())
    })
    .await;
    edge.process().signal(Signal::TERM);
    assert_eq!(edge.process().end().await.status.code(), Some(0));
    drop(silent);
}

#[tokio::test]
async fn a_fetch_is_finished_for_readers_on_another_core() {
    // Which core gets a connection is the kernel's choice: one of the rounds has it both ways.
    for round in 1..=6 {
        let origin = ScriptedOrigin::start().await;
        let gate = Gate::closed();
        let answer = ok("first, ").header("cache-control", "max-age=60");
        origin.script("/a", answer.then_behind(&gate, "last"));
        let mut edge = EdgeProcess::start(&origin, |edge| {
            edge.cores = Some(2.try_into().unwrap());
        })
        .await;
        let url = format!("{}/a", edge.url());
        let in_flight = async |count: f64| {
            eventually("so many are in flight", PATIENCE, async || {
                (edge.metric("edge_requests_in_flight").await == count).then_some(())
            })
            .await;
        };
        let mut leader = Client::http1(&url).await.unwrap();
        let body = leader.open(get("/a")).await.unwrap();
        let mut follower = tokio::task::JoinSet::new();
        follower.spawn(async move { Client::get(&url).await });
        in_flight(2.0).await;
        drop((body, leader));
        in_flight(1.0).await;
        edge.process().signal(Signal::TERM);
        eventually("no new connections", PATIENCE, async || {
            TcpStream::connect(authority(&edge)).await.is_err().then_some(())
        })
        .await;
        gate.open();
        assert_eq!(follower.join_all().await[0].text(), "first, last", "round {round}");
        assert_eq!(edge.process().end().await.status.code(), Some(0));
        assert_eq!(origin.count("/a"), 1);
    }
}

#[tokio::test]
async fn an_idle_client_of_http2_is_told_before_its_connection_ends() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.accept.idle_timeout = HumanDuration::millis(300);
    })
    .await;
    let mut stream = TcpStream::connect(authority(&edge)).await.unwrap();
    // The preface, empty settings, and no word after that.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.unwrap().unwrap();
    let mut kinds = Vec::new();
    let mut rest = said.as_slice();
    while let Some((head, after)) = rest.split_at_checked(9) {
        kinds.push(head[3]);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        rest = after.get(usize::try_from(length).unwrap()..).unwrap_or_default();
    }
    assert!(kinds.contains(&7), "GOAWAY (RFC 9113 §6.8): {kinds:?}");
    assert_eq!(
        edge.metric("edge_connections_overdue_total").await,
        1.0,
        "it did not leave by itself"
    );
}
