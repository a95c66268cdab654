//! An open loop against servers that answer and servers that never do.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Arrivals, arrive, burst, unique_paths};
use crate::endpoint::Endpoint;
use crate::seen::{Board, Seen};

/// A server that answers every request with `answer`; with an empty one it never does.
async fn server(answer: &'static str) -> (Endpoint, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut bytes = [0; 2_048]; // one request comes in one piece over loopback
                while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (endpoint, tasks)
}

fn arrivals(server: Endpoint) -> Arrivals {
    Arrivals {
        servers: vec![server],
        stored: vec![PathAndQuery::from_static("/kept")],
        unique: PathAndQuery::from_static("/new"),
        unique_share: 0.25,
        rate: 200.0,
        most_in_flight: 8,
        timeout: Duration::from_millis(400),
        seed: 7,
    }
}

/// Half a second of arrivals.
async fn half_a_second(answer: &'static str) -> Seen {
    let (endpoint, _server) = server(answer).await;
    let (board, stop) = (Arc::new(Board::default()), CancellationToken::new());
    let asked = arrivals(endpoint);
    let timer = async {
        tokio::time::timeout(Duration::from_millis(500), std::future::pending::<()>()).await.ok();
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(arrive(&asked, &board, &stop), timer);
    outcome.unwrap();
    board.take()
}

#[tokio::test]
async fn requests_come_at_their_rate_and_in_their_shares() {
    let hit = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncache-status: e; hit; ttl=-1\r\n\r\n";
    let seen = half_a_second(hit).await;
    let all = seen.all();
    // A hundred are due; a busy machine may make some of them wait too long to be sent.
    assert!((20..=101).contains(&all.requests), "{seen:?}");
    assert_eq!((all.requests, all.requests), (all.hits, all.stale), "{seen:?}");
    assert_eq!((all.errors, all.broken), (0, 0), "{seen:?}");
    assert!(seen.unique.requests > 0 && seen.unique.requests < seen.stored.requests, "{seen:?}");
}

#[tokio::test]
async fn who_never_answers_holds_back_no_schedule_and_not_more_than_is_allowed() {
    let seen = half_a_second("").await;
    let all = seen.all();
    assert_eq!(all.broken, all.requests, "{seen:?}");
    assert!(all.requests <= 16, "eight at a time, each for 400 of 500 ms: {seen:?}");
    assert!(seen.unsent > 20, "{seen:?}");
    assert!(all.latency(0.0).unwrap() >= Duration::from_millis(399), "{seen:?}");
}

#[tokio::test]
async fn of_many_at_once_each_says_what_it_got() {
    let shared = "HTTP/1.1 503 X\r\ncontent-length: 0\r\n\
                  cache-status: e; fwd=uri-miss; collapsed\r\n\r\n";
    let (one, _first) = server(shared).await;
    let (two, _second) = server("").await;
    let paths = unique_paths(&PathAndQuery::from_static("/a?b"), 1, 4).unwrap();
    assert!(paths.iter().all(|path| path.as_str().starts_with("/a?unique=1-")), "{paths:?}");
    let asked =
        burst(&[one, two], &paths, 20, Duration::ZERO, Duration::from_millis(500)).await.unwrap();
    let answered: Vec<_> = asked.iter().filter(|asked| asked.status == Some(503)).collect();
    assert_eq!((answered.len(), asked.iter().filter(|asked| asked.is_late).count()), (10, 10));
    assert!(answered.iter().all(|asked| asked.is_collapsed), "{asked:?}");
}
