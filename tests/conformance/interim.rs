//! What comes before an answer: interim responses (RFC 9110 §15.2, RFC 8297), as many as there are.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's verdict")]

use std::net::SocketAddr;
use std::sync::Arc;

use meridian_tests::client::Client;
use meridian_tests::cluster::address;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::ScriptedOrigin;
use meridian_tests::wait::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Hop: 1\r\n\
                    Connection: x-hop\r\n\r\n";
const TOLD: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";

/// An origin that answers a request for `/large` with `large` bytes, and any other with `first`
/// and, when it is told to go on, an answer.
async fn hinting(first: String, large: usize) -> (SocketAddr, Arc<Notify>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let go_on = Arc::new(Notify::new());
    let mut serving = JoinSet::new();
    let told = Arc::clone(&go_on);
    serving.spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (told, first) = (Arc::clone(&told), first.clone());
            open.spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.is_ok_and(|n| n > 0) {
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let is_large = head.starts_with(b"GET /large ");
                    head.clear();
                    let body = if is_large { "l".repeat(large) } else { "final".to_owned() };
                    if !is_large {
                        stream.write_all(first.as_bytes()).await.unwrap();
                        told.notified().await;
                    }
                    let answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (address, go_on, serving)
}

async fn edge(origin: SocketAddr, passes: Option<bool>) -> EdgeProcess {
    let unused = ScriptedOrigin::start().await;
    EdgeProcess::start(&unused, |edge| {
        edge.peers.insert("origin-1".parse().unwrap(), origin.to_string().parse().unwrap());
        edge.site[0].interim_responses = passes;
    })
    .await
}

async fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !read.ends_with(end.as_bytes()) {
            let n = stream.read_buf(&mut read).await.unwrap();
            let shown = read.get(read.len().saturating_sub(500)..).unwrap();
            assert!(n > 0, "it ended before {end:?}: {}", String::from_utf8_lossy(shown));
        }
    };
    timeout(PATIENCE, reading).await.expect("it comes in time");
    String::from_utf8(read).unwrap()
}

async fn ask(edge: &EdgeProcess, requests: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address(edge.url())).await.unwrap();
    stream.write_all(requests.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn early_hints_reach_the_client_before_the_answer_where_a_site_says_so() {
    let (origin, go_on, _serving) = hinting(HINT.repeat(2), 0).await;
    let edge = edge(origin, Some(true)).await;
    let mut stream = ask(&edge, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n").await;
    // The origin has not answered: it waits to be told.
    assert_eq!(read_to(&mut stream, &TOLD.repeat(2)).await, TOLD.repeat(2));
    go_on.notify_one();
    let text = read_to(&mut stream, "final").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    // The next request on the same connection has its own.
    stream.write_all(b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    assert_eq!(read_to(&mut stream, &TOLD.repeat(2)).await, TOLD.repeat(2));
    go_on.notify_one();
    assert!(read_to(&mut stream, "final").await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test]
async fn an_interim_response_never_comes_into_the_middle_of_another_answer() {
    const LARGE: usize = 8 << 20;
    let (origin, go_on, _serving) = hinting(HINT.to_owned(), LARGE).await;
    let edge = edge(origin, Some(true)).await;
    // Nobody reads while the first answer is under way, so that it waits at every place it can.
    let requests = "GET /large HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()
        + "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let mut stream = ask(&edge, &requests).await;
    go_on.notify_one();
    let text = read_to(&mut stream, "final").await;
    let (head, rest) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let (large, rest) = rest.split_at(LARGE);
    assert!(large.bytes().all(|byte| byte == b'l'), "the first answer is whole");
    let rest = rest.strip_prefix(TOLD).unwrap_or(rest);
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"), "{rest}");
}

#[tokio::test]
async fn interim_responses_end_here_otherwise_however_many_there_are() {
    let many = "HTTP/1.1 102 Processing\r\n\r\n".repeat(5_000) + &HINT.repeat(100);
    let (origin, go_on, _serving) = hinting(many, 0).await;
    for (passes, version) in [(None, "1.1"), (Some(false), "1.1"), (Some(true), "1.0")] {
        let edge = edge(origin, passes).await;
        go_on.notify_one();
        let mut stream = ask(&edge, &format!("GET /a HTTP/{version}\r\nHost: h\r\n\r\n")).await;
        let text = read_to(&mut stream, "final").await;
        assert!(text.starts_with(&format!("HTTP/{version} 200 OK\r\n")), "{text}");
    }
    let edge = edge(origin, Some(true)).await;
    go_on.notify_one();
    let mut client = Client::http2(edge.url()).await.unwrap();
    assert_eq!(client.path("/a").await.text(), "final");
    // Passed on: the first few, and the answer all the same.
    go_on.notify_one();
    let mut stream = ask(&edge, "GET /b HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let text = read_to(&mut stream, "final").await;
    let passed = text.matches("HTTP/1.1 1").count();
    assert!((0..=16).contains(&passed), "{passed}");
    assert!(text.contains("HTTP/1.1 200 OK\r\n"), "{text}");
}
