//! Limits at them and beyond, the end of an origin, and HTTP/2.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use meridian_config::origin::Limits;
use meridian_config::units::HumanDuration;
use meridian_origin::synthetic::fill;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::running::{Running, config, sample};

async fn limited(change: impl FnOnce(&mut Limits)) -> Running {
    Running::start(|_| {
        let mut config = config(sample());
        change(&mut config.limits);
        config
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_clients_at_once_get_every_byte() {
    let origin = Running::trace("key,size\n1,70000\n").await;
    let mut want = vec![0; 70_000];
    fill("/o/1", 0, &mut want);
    let mut clients = JoinSet::new();
    for _ in 0..1_000 {
        let (address, want) = (origin.addresses.data, want.clone());
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..3 {
                assert!(client.get("/o/1").await.body == want);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(origin.metric("origin_requests_total{status=\"2xx\"}").await, 3_000.0);
}

#[tokio::test]
async fn http2_is_spoken_on_the_same_port() {
    let origin = Running::trace("key,size\n1,500000\n2,5\n").await;
    let stream = TcpStream::connect(origin.addresses.data).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { connection.await.unwrap() });
    for (target, size) in [("/o/1", 500_000), ("/o/2", 5), ("/o/1", 500_000)] {
        let uri = format!("http://test{target}");
        let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let mut want = vec![0; size];
        fill(target, 0, &mut want);
        assert!(body == want, "{target}");
    }
    origin.fault(r#"{"cut_after":10}"#).await;
    let request = Request::get("http://test/o/1").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let mut body = response.into_body();
    let mut got = 0;
    let ended = loop {
        match body.frame().await {
            Some(Ok(frame)) => got += frame.into_data().unwrap().len(),
            ended => break ended,
        }
    };
    assert_eq!(got, 10);
    assert!(ended.unwrap().is_err(), "a body that is cut does not end well");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_room() {
    let origin = limited(|limits| limits.max_connections = 1.try_into().unwrap()).await;
    let mut first = origin.client().await;
    assert_eq!(first.get("/").await.status, 200);
    let mut second = origin.client().await;
    second.ask("GET", "/", &[]).await;
    assert_eq!(first.get("/").await.status, 200);
    let counted = origin.admin("GET", "/v1/requests", "").await;
    assert!(counted.text().contains(r#""requests":2,"#), "{}", counted.text());
    drop(first);
    assert_eq!(second.answer("GET").await.status, 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_the_client_hears_it() {
    let origin = Running::sample().await;
    let mut client = origin.client().await;
    let head = format!("GET / HTTP/1.1\r\nHost: t\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    // The origin may close while this is written; what it said must still arrive.
    let sent = tokio::io::AsyncWriteExt::write_all(&mut client.stream, head.as_bytes()).await;
    assert_eq!(client.head().await.status, 431, "{sent:?}");
    let fits = format!("X: {}", "x".repeat(60 << 10));
    assert_eq!(origin.exchange("GET", "/", &[&fits]).await.status, 200);
    assert_eq!(origin.exchange("GET", "/", &["X: y"; 255]).await.status, 200); // and Host
    assert_eq!(origin.exchange("GET", "/", &["X: y"; 256]).await.status, 431);
}

#[tokio::test]
async fn a_head_in_drops_is_timed_from_its_first_byte_on_a_new_and_on_a_used_connection() {
    let origin = limited(|limits| limits.head_timeout = HumanDuration::millis(200)).await;
    for (used, begun) in [(false, "P"), (false, "GET / HTT"), (true, "GET / HTT")] {
        let mut client = origin.client().await;
        if used {
            assert_eq!(client.get("/").await.status, 200);
        }
        let began = Instant::now();
        client.send(begun).await;
        let (answer, _) = client.rest().await;
        assert!(answer.is_empty(), "{begun}");
        assert!(began.elapsed() >= Duration::from_millis(190), "{begun}: {:?}", began.elapsed());
    }
    assert_eq!(
        origin.metric("origin_connections_overdue_total{limit=\"head_timeout\"}").await,
        3.0
    );
}

#[tokio::test]
async fn an_idle_connection_outlives_the_head_timeout_and_ends_after_its_own() {
    let origin = limited(|limits| {
        limits.head_timeout = HumanDuration::millis(50);
        limits.idle_timeout = HumanDuration::millis(400);
    })
    .await;
    let (mut fresh, mut used) = (origin.client().await, origin.client().await);
    assert_eq!(used.get("/").await.status, 200);
    let began = Instant::now();
    for client in [&mut fresh, &mut used] {
        let (answer, ended) = client.rest().await;
        assert!(answer.is_empty());
        ended.unwrap();
    }
    assert!(began.elapsed() >= Duration::from_millis(350), "{:?}", began.elapsed());
    assert_eq!(
        origin.metric("origin_connections_overdue_total{limit=\"idle_timeout\"}").await,
        2.0
    );
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_one_that_is_held_by_a_fault_is_not() {
    let origin = Running::start(|dir| {
        std::fs::write(dir.join("trace.csv"), "key,size\n1,1000000000\n2,1\n").unwrap();
        let trace = Some(dir.join("trace.csv"));
        let mut config = config(meridian_config::origin::Content { trace, ..Default::default() });
        config.limits.send_timeout = HumanDuration::millis(100);
        config
    })
    .await;
    origin.fault(r#"{"path":"/o/2","delay":"500ms"}"#).await;
    let mut stalled = origin.client().await;
    stalled.ask("GET", "/o/1", &[]).await;
    assert_eq!(origin.get("/o/2").await.status, 200);
    origin.until("origin_connections_overdue_total{limit=\"send_timeout\"}", 1.0).await;
    let (got, _) = stalled.rest().await;
    assert!(got.len() < 1_000_000_000);
}

#[tokio::test]
async fn a_stop_finishes_what_is_under_way_and_takes_nothing_new() {
    let origin = Running::trace("key,size\n1,30000000\n").await;
    let (mut busy, mut idle) = (origin.client().await, origin.client().await);
    assert_eq!(idle.exchange("HEAD", "/o/1", &[]).await.status, 200);
    busy.ask("GET", "/o/1", &[]).await;
    let head = busy.head().await;
    origin.stop.cancel();
    assert!(idle.rest().await.0.is_empty());
    let not_ready = origin.admin("GET", "/readyz", "").await;
    assert_eq!((not_ready.status, not_ready.code()), (503, "not_ready".to_owned()));
    let (address, stopped) = (origin.addresses.data, origin.stopped());
    let (body, ()) = tokio::join!(busy.rest(), stopped);
    assert_eq!(head.field("content-length"), Some(&*body.0.len().to_string()));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_cuts_what_exceeds_the_drain_timeout() {
    let origin = Running::start(|dir| {
        std::fs::write(dir.join("trace.csv"), "key,size\n1,1000000000\n").unwrap();
        let trace = Some(dir.join("trace.csv"));
        let mut config = config(meridian_config::origin::Content { trace, ..Default::default() });
        config.limits.drain_timeout = HumanDuration::millis(200);
        config
    })
    .await;
    let mut stalled = origin.client().await;
    stalled.ask("GET", "/o/1", &[]).await;
    stalled.head().await;
    let began = Instant::now();
    origin.stopped().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(stalled.rest().await.0.len() < 1_000_000_000);
}
