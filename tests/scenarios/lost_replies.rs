//! A hundred clients order one thing with one key through three edges, while the origin does its
//! work and loses its replies: there is one order.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::process::Process;
use meridian_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

const CLIENTS: usize = 100;
const EDGES: usize = 3;
/// Until every client has its answer; breakers open and close meanwhile.
const ALL_PATIENCE: Duration = Duration::from_secs(90);
/// Between two sendings of a client.
const PACE: Duration = Duration::from_millis(50);

/// An origin with a book of orders, and how it is reached.
struct Shop {
    _process: Process,
    address: String,
    admin: String,
    _home: TempDir,
}

impl Shop {
    /// `duplicates`: what a second request gets while the first is at work.
    async fn open(duplicates: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let text = format!(
            "name = \"origin-1\"\nregion = \"iad\"\nlisten = \"127.0.0.1:0\"\n\
             admin = \"127.0.0.1:0\"\n[content]\nsample = true\n\
             [orders]\nfile = \"orders.redb\"\nwork = \"100ms\"\nduplicates = \"{duplicates}\"\n"
        );
        let file = home.path().join("origin.toml");
        std::fs::write(&file, text).unwrap();
        let process = Process::start(home.path(), &["origin", "--config", file.to_str().unwrap()]);
        let named = |text: &str, name: &str| {
            let rest = text.split_once(&format!(" {name}="))?.1;
            Some(rest.split_whitespace().next()?.to_owned())
        };
        let (address, admin) =
            eventually("the origin says where it listens", PATIENCE, async || {
                let said = process.stderr();
                let line = said.lines().find(|line| line.contains("the origin serves"))?.to_owned();
                Some((named(&line, "listen")?, format!("http://{}", named(&line, "admin")?)))
            })
            .await;
        Self { _process: process, address, admin, _home: home }
    }

    async fn faults(&self, faults: Value) {
        let body = json!({ "faults": faults }).to_string();
        let reply = Client::put_json(&format!("{}/v1/faults", self.admin), &body, None).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// How many orders are in the book, as the origin itself says.
    async fn orders(&self) -> u64 {
        let book = Client::get(&format!("http://{}/v1/orders", self.address)).await.json();
        book["count"].as_u64().unwrap()
    }
}

/// Sends one order until there is an answer that will not change; all answers on the way.
async fn order(url: String, key: Option<&'static str>) -> Vec<Reply> {
    let key = key.map(|key| ("idempotency-key", key));
    let fields: Vec<_> = [("content-type", "application/json")].into_iter().chain(key).collect();
    let url = format!("{url}/v1/orders");
    let mut replies = Vec::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let asking = async {
        loop {
            pace.tick().await; // the first comes at once
            let body = Bytes::from_static(b"{\"book\":\"RFC 9110\"}");
            let reply = Client::request(Method::POST, &url, &fields, body).await;
            let is_final = ![409, 502, 503, 504].contains(&reply.status.as_u16());
            replies.push(reply);
            if is_final {
                return;
            }
        }
    };
    timeout(ALL_PATIENCE, asking).await.expect("an answer that will not change");
    replies
}

/// Everybody orders through one edge after the other, all at once.
async fn all_order(edges: &[EdgeProcess], key: Option<&'static str>) -> Vec<Vec<Reply>> {
    let mut clients = JoinSet::new();
    for (_, edge) in (0..CLIENTS).zip(edges.iter().cycle()) {
        clients.spawn(order(edge.url().to_owned(), key));
    }
    clients.join_all().await
}

async fn edges(shop: &Shop) -> Vec<EdgeProcess> {
    let mut edges = Vec::new();
    for _ in 0..EDGES {
        edges.push(EdgeProcess::before(&shop.address, |_| {}).await);
    }
    edges
}

#[tokio::test]
async fn a_hundred_orders_with_one_key_through_three_edges_are_one_order() {
    for (duplicates, sees_conflicts) in [("wait", false), ("refuse", true)] {
        let shop = Shop::open(duplicates).await;
        let edges = edges(&shop).await;
        let lossy =
            json!({ "path": "/v1/orders", "method": "POST", "lose_reply": true, "first": 20 });
        shop.faults(json!([lossy])).await;

        let all = all_order(&edges, Some("\"one-key\"")).await;

        assert_eq!(shop.orders().await, 1, "{duplicates}");
        let last: Vec<&Reply> = all.iter().filter_map(|replies| replies.last()).collect();
        assert_eq!(last.len(), CLIENTS);
        assert!(last.iter().all(|reply| reply.status == 201), "{duplicates}: {last:?}");
        let mut ids: Vec<_> = last.iter().map(|reply| reply.json()["id"].to_string()).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "{duplicates}: all have the same order: {ids:?}");
        let conflicts: Vec<&Reply> =
            all.iter().flatten().filter(|reply| reply.status == 409).collect();
        assert_eq!(!conflicts.is_empty(), sees_conflicts, "{duplicates}: {conflicts:?}");
        for conflict in conflicts {
            assert_eq!(conflict.code(), "idempotency_in_flight");
            assert!(conflict.header("retry-after").is_some(), "{conflict:?}");
        }
        let mut retried = 0.0;
        for edge in &edges {
            retried += edge.metric("edge_upstream_retries_total").await;
        }
        assert!(retried >= 1.0, "{duplicates}: edges send again what has a key");
    }
}

/// The negative control: without a key the same losses make more orders than anybody wanted.
#[tokio::test]
async fn without_a_key_lost_replies_double_orders_and_no_edge_sends_one_twice() {
    let shop = Shop::open("wait").await;
    let edges = edges(&shop).await;
    let lost = 5;
    let lossy =
        json!({ "path": "/v1/orders", "method": "POST", "lose_reply": true, "first": lost });
    shop.faults(json!([lossy])).await;
    let all = all_order(&edges, None).await;
    assert!(all.iter().all(|replies| replies.last().is_some_and(|reply| reply.status == 201)));
    assert_eq!(shop.orders().await, CLIENTS as u64 + lost);
    for edge in &edges {
        assert_eq!(edge.metric("edge_upstream_retries_total").await, 0.0);
    }
}
