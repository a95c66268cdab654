//! What one client may cost, and the end of a node.

use std::time::Duration;

use meridian_config::units::ByteSize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::{EDGE, Replica, ask, count, eventually, ms, now, raw, registration};

#[tokio::test]
async fn both_protocols_are_spoken_on_one_port() {
    let replica = Replica::start().await;
    let post = || ask(replica.address, "POST", "/v1/edges").bearer(EDGE);
    assert_eq!(post().body(registration("a", "fra")).send().await.status, 201);
    assert_eq!(post().body(registration("b", "fra")).send_h2().await.status, 201);
    let edges = ask(replica.address, "GET", "/v1/edges").send_h2().await.json();
    assert_eq!(edges["edges"].as_array().unwrap().len(), 2);
    replica.stop().await;
}

#[tokio::test]
async fn a_body_is_taken_up_to_its_limit() {
    let replica =
        Replica::start_with(|config| config.limits.body_size = ByteSize::bytes(1_000)).await;
    let padded = |size: usize| {
        let body = registration("a", "fra").to_string();
        format!("{body}{}", " ".repeat(size - body.len()))
    };
    let post = async |size| {
        ask(replica.address, "POST", "/v1/edges").bearer(EDGE).body(padded(size)).send().await
    };
    assert_eq!(post(1_000).await.status, 201);
    let over = post(1_001).await;
    assert_eq!((over.status, over.code().as_str()), (413, "too_large"));
    replica.stop().await;
}

#[tokio::test]
async fn a_head_is_taken_up_to_its_limit() {
    let replica = Replica::start_with(|config| config.limits.head_size = ByteSize::kib(8)).await;
    let get = async |size: usize| {
        let line = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: ";
        let fill = "x".repeat(size - line.len() - 4);
        raw(replica.address, format!("{line}{fill}\r\n\r\n").as_bytes()).await
    };
    assert!(get(8 << 10).await.starts_with("HTTP/1.1 200 "));
    assert!(get((8 << 10) + 1).await.starts_with("HTTP/1.1 431 "));
    // The rest of such a head may be lost with the connection, and the answer with it.
    let megabyte = get(1 << 20).await;
    assert!(megabyte.is_empty() || megabyte.starts_with("HTTP/1.1 431 "), "{megabyte}");
    assert_eq!(replica.get("/healthz").await.status, 200);
    replica.stop().await;
}

#[tokio::test]
async fn clients_that_do_nothing_are_let_go() {
    let replica = Replica::start_with(|config| config.limits.head_timeout = ms(300)).await;
    let slow = [
        &b""[..],                                    // not a byte
        b"PRI * HTTP/2",                             // not enough to tell the protocol
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX:",   // half a head
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",         // HTTP/2, and silence
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", // a request, and silence
    ];
    for bytes in slow {
        let start = now();
        let got = raw(replica.address, bytes).await; // ends when the connection does
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(290), "{took:?} for {:?}: {got}", bytes.len());
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go() {
    let replica = Replica::start_with(|config| config.limits.head_timeout = ms(300)).await;
    let mut greedy = TcpStream::connect(replica.address).await.unwrap();
    let requests = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    // It asks on and on and reads nothing: first its answers get stuck, then the connection goes.
    let mut asked = 0.0;
    let gone = async || {
        let asking = greedy.write_all(&requests);
        match tokio::time::timeout(Duration::from_millis(100), asking).await {
            Ok(Ok(())) => asked += 100.0,
            Ok(Err(_gone)) => return Some(()),
            Err(_stuck) => {}
        }
        None
    };
    eventually("the connection is cut", gone).await;
    let answered = replica.metric(r#"control_requests_total{resource="metrics"}"#).await;
    assert!(answered > 100.0 && answered < asked, "{answered} of {asked} answered");
    replica.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let replica = Replica::start_with(|config| config.limits.call_timeout = ms(400)).await;
    let head = format!(
        "POST /v1/edges HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {EDGE}\r\n\
         Content-Length: 10\r\nConnection: close\r\n\r\n{{"
    );
    let got = raw(replica.address, head.as_bytes()).await;
    assert!(got.starts_with("HTTP/1.1 408 ") && got.contains("request_timeout"), "{got}");
    replica.stop().await;
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_its_turn() {
    let replica = Replica::start_with(|config| config.limits.max_connections = count(1)).await;
    let mut first = TcpStream::connect(replica.address).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut buffer = [0; 12];
    first.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"HTTP/1.1 200");
    // The first connection is open and idle: the second is in the backlog, unanswered.
    let mut second = TcpStream::connect(replica.address).await.unwrap();
    second.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(200), second.read_exact(&mut buffer));
    assert!(early.await.is_err(), "answered beyond the limit");
    drop(first);
    second.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"HTTP/1.1 200");
    replica.stop().await;
}

#[tokio::test]
async fn bytes_of_all_kinds_do_not_end_a_node() {
    let replica = Replica::start_with(|config| config.limits.head_timeout = ms(200)).await;
    let heads: [&[u8]; 10] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", // TLS
        b"\x00\x00\x00\x00\x00",
        b"GET /v1/edges/%00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/edges/..%2f HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/steer?from=%f0%9f HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/edges HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/edges HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"GET / HTTP/9.9\r\n\r\n",
    ];
    for head in heads {
        drop(raw(replica.address, head).await);
    }
    assert_eq!(replica.get("/readyz").await.status, 200);
    replica.stop().await;
}

#[tokio::test]
async fn what_is_in_flight_ends_before_the_node_does() {
    let replica = Replica::start().await;
    let address = replica.address;
    let body = registration("a", "fra").to_string();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/edges HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {EDGE}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let counted = r#"control_requests_total{resource="metrics"}"#;
    assert!(replica.metric(counted).await >= 0.0); // the head came first: it is being read by now

    let (took, answer) = tokio::join!(replica.stop(), async {
        let refused = async || TcpStream::connect(address).await.err();
        eventually("no new connection is taken", refused).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        got
    });
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn what_does_not_end_is_cut() {
    let replica = Replica::start_with(|config| {
        config.limits.drain_timeout = ms(200);
        config.limits.call_timeout = ms(60_000);
    })
    .await;
    let mut stuck = TcpStream::connect(replica.address).await.unwrap();
    let head = format!(
        "POST /v1/edges HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {EDGE}\r\n\
         Content-Length: 10\r\n\r\n"
    );
    stuck.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(replica.get("/v1/edges").await.json(), json!({ "edges": [] }));
    let took = replica.stop().await;
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(5), "{took:?}");
    let mut got = Vec::new();
    drop(stuck.read_to_end(&mut got).await);
    assert_eq!(got, b"", "cut, not answered");
}
