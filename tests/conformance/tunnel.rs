//! Another protocol on the same connection (RFC 9110 §7.8, RFC 6455), where a site offers it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's verdict")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use meridian_config::edge::Edge;
use meridian_config::units::HumanDuration;
use meridian_tests::client::Client;
use meridian_tests::cluster::address;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::ScriptedOrigin;
use meridian_tests::process::Signal;
use meridian_tests::wait::{PATIENCE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
                   Sec-WebSocket-Key: abc\r\n\r\n";

/// An origin that answers each request with `answer`, tells its head, and then gives back what it
/// gets with a mark in front.
async fn echoing(answer: &'static str) -> (SocketAddr, mpsc::Receiver<String>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, heard) = mpsc::channel(16);
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let heads = heads.clone();
            open.spawn(async move {
                let mut head = Vec::new();
                while !String::from_utf8_lossy(&head).contains("\r\n\r\n")
                    && stream.read_buf(&mut head).await.unwrap() > 0
                {}
                heads.send(String::from_utf8(head).unwrap()).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                let mut part = [0; 1024];
                while let Ok(n @ 1..) = stream.read(&mut part).await {
                    let echo = [b">", part.get(..n).unwrap()].concat();
                    if stream.write_all(&echo).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, heard, serving)
}

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                        Upgrade: websocket\r\nSec-WebSocket-Accept: xyz\r\n\r\n";

async fn edge(origin: SocketAddr, change: impl FnOnce(&mut Edge)) -> EdgeProcess {
    let unused = ScriptedOrigin::start().await;
    EdgeProcess::start(&unused, |edge| {
        edge.peers.insert("origin-1".parse().unwrap(), origin.to_string().parse().unwrap());
        edge.site[0].upgrade = vec!["websocket".parse().unwrap()];
        change(edge);
    })
    .await
}

/// Reads until the bytes end with `end`.
async fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !read.ends_with(end.as_bytes()) {
            let n = stream.read_buf(&mut read).await.unwrap();
            assert!(n > 0, "it ended before {end:?}: {}", String::from_utf8_lossy(&read));
        }
    };
    timeout(PATIENCE, reading).await.expect("it comes in time");
    String::from_utf8(read).unwrap()
}

async fn open(edge: &EdgeProcess) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address(edge.url())).await.unwrap();
    stream.write_all(ASK.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    let reading = async {
        // A refusal has a body behind its head.
        while !String::from_utf8_lossy(&head).contains("\r\n\r\n") {
            assert!(stream.read_buf(&mut head).await.unwrap() > 0, "it ended before its head");
        }
    };
    timeout(PATIENCE, reading).await.expect("it comes in time");
    (stream, String::from_utf8(head).unwrap())
}

async fn ends(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the tunnel ends");
}

#[tokio::test]
async fn a_protocol_that_a_site_offers_is_carried_both_ways() {
    let (origin, mut heard, _serving) = echoing(SWITCHED).await;
    let edge = edge(origin, |edge| edge.accept.idle_timeout = HumanDuration::millis(500)).await;
    let (mut stream, head) = open(&edge).await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-accept: xyz"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    let told = heard.recv().await.unwrap();
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: abc"] {
        assert!(told.contains(&format!("\r\n{line}\r\n")), "{line}: {told}");
    }
    for message in ["one", "two\r\n\r\n", "GET /other HTTP/1.1\r\nHost: h\r\n\r\n"] {
        stream.write_all(message.as_bytes()).await.unwrap();
        assert_eq!(read_to(&mut stream, message).await, format!(">{message}"));
    }
    assert_eq!(edge.metric("edge_tunnels").await, 1.0);
    // It is not idle as a connection without a request is.
    timeout(Duration::from_millis(1500), stream.read_u8()).await.unwrap_err();
    stream.write_all(b"three").await.unwrap();
    assert_eq!(read_to(&mut stream, "three").await, ">three");
    stream.shutdown().await.unwrap();
    ends(&mut stream).await;
    eventually("its place is free", PATIENCE, async || {
        (edge.metric("edge_tunnels").await == 0.0).then_some(())
    })
    .await;
    let said = "one".len() + "two\r\n\r\n".len() + "three".len();
    let said = said + "GET /other HTTP/1.1\r\nHost: h\r\n\r\n".len();
    assert_eq!(edge.metric("edge_tunnel_bytes_total").await, (2 * said + 4) as f64);
    assert_eq!(edge.metric("edge_upstream_in_flight").await, 0.0);
}

#[tokio::test]
async fn what_no_site_offers_goes_on_as_http() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nhttp";
    let (origin, mut heard, _serving) = echoing(answer).await;
    let edge = edge(origin, |edge| edge.accept.max_tunnels = 1.try_into().unwrap()).await;
    let rows = [
        (ASK.replace(": WebSocket", ": h2c"), false),
        (ASK.replace("Connection: Upgrade\r\n", ""), false),
        (ASK.replace("HTTP/1.1", "HTTP/1.0"), false),
        (ASK.replace("GET", "PUT"), false),
        (ASK.replace("Sec-", "Content-Length: 1\r\nSec-").replace("\r\n\r\n", "\r\n\r\nx"), false),
        (ASK.replace(": WebSocket", ": other, websocket"), true),
        (ASK.to_owned(), true), // the origin declines: an answer as any
    ];
    for (ask, goes_on) in rows {
        let ask = ask.replace("GET /chat", &format!("GET /{}", ask.len()));
        let mut stream = TcpStream::connect(address(edge.url())).await.unwrap();
        stream.write_all(ask.as_bytes()).await.unwrap();
        let text = read_to(&mut stream, "http").await;
        assert!(text.contains(" 200 OK\r\n"), "{ask}: {text}");
        assert!(!text.contains("upgrade"), "{ask}: {text}");
        let told = heard.recv().await.unwrap();
        assert_eq!(told.contains("\r\nupgrade: websocket\r\n"), goes_on, "{ask}: {told}");
    }
}

#[tokio::test]
async fn a_switch_to_what_was_not_asked_for_is_an_error_of_the_origin() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let (origin, _heard, _serving) = echoing(answer).await;
        let edge = edge(origin, |_| {}).await;
        let mut stream = TcpStream::connect(address(edge.url())).await.unwrap();
        stream.write_all(ASK.as_bytes()).await.unwrap();
        let text = read_to(&mut stream, "}").await;
        assert!(text.starts_with("HTTP/1.1 502 "), "{text}");
        assert!(text.contains("error=http_protocol_error"), "{text}");
        assert_eq!(edge.metric("edge_tunnels").await, 0.0);
    }
}

#[tokio::test]
async fn tunnels_are_bounded_in_number_and_in_idleness() {
    let (origin, _heard, _serving) = echoing(SWITCHED).await;
    let edge = edge(origin, |edge| {
        edge.accept.max_tunnels = 1.try_into().unwrap();
        edge.accept.tunnel_idle_timeout = HumanDuration::millis(400);
    })
    .await;
    let (mut first, head) = open(&edge).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let (_second, head) = open(&edge).await;
    assert!(head.starts_with("HTTP/1.1 503 "), "one past the limit: {head}");
    ends(&mut first).await;
    let third = eventually("there is a place again", PATIENCE, async || {
        let (stream, head) = open(&edge).await;
        head.starts_with("HTTP/1.1 101 ").then_some(stream)
    })
    .await;
    drop(third);
}

#[tokio::test]
async fn a_drain_ends_tunnels_and_does_not_wait_for_them() {
    let (origin, _heard, _serving) = echoing(SWITCHED).await;
    let mut edge = edge(origin, |edge| {
        edge.accept.drain_timeout = HumanDuration::secs(3_600);
    })
    .await;
    let (mut stream, _head) = open(&edge).await;
    edge.process().signal(Signal::TERM);
    ends(&mut stream).await;
    assert_eq!(edge.process().end().await.status.code(), Some(0));
}

#[tokio::test]
async fn connect_is_refused_over_both_versions() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let mut stream = TcpStream::connect(address(edge.url())).await.unwrap();
    stream.write_all(b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n").await.unwrap();
    let text = read_to(&mut stream, "}").await;
    assert!(text.starts_with("HTTP/1.1 501 "), "{text}");
    let mut client = Client::http2(edge.url()).await.unwrap();
    let request = Request::builder().method(Method::CONNECT).uri("/").body(Bytes::new()).unwrap();
    let reply = client.send(request).await;
    assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status == 501));
    assert_eq!(edge.get("/a").await.status, 404, "the edge goes on");
}
