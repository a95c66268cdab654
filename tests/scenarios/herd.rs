//! Many clients, one cold object: one fetch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian_tests::client::{Client, get};
use meridian_tests::cluster::Cluster;
use meridian_tests::site::Site;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

const CLIENTS: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_clients_of_one_cold_object_cost_one_origin_request() {
    let body: Vec<u8> =
        (0_u32..100_000).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let site = Site::of([("/herd.bin", body.clone())]);
    let cluster = Cluster::start(&[site.argument(), "--regions", "fra"]).await;
    let fault = serde_json::json!([{"path": "/herd.bin", "delay": "1s"}]);
    let reply = cluster.set_faults(fault).await;
    assert!(reply.status.is_success(), "{reply:?}");

    let edge = cluster.edge("fra").url;
    let together = Arc::new(Barrier::new(CLIENTS));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (edge, together) = (edge.clone(), Arc::clone(&together));
        clients.spawn(async move {
            let mut client = Client::http1(&edge).await.unwrap();
            together.wait().await; // all connected: now all ask
            client.send(get("/herd.bin")).await.unwrap()
        });
    }
    let began = Instant::now();
    let replies = clients.join_all().await;

    assert!(began.elapsed() >= Duration::from_secs(1), "the origin was not slow");
    let mut collapsed = 0;
    for reply in &replies {
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(reply.body == body, "a body of {} bytes is not the file", reply.body.len());
        collapsed += usize::from(reply.cache_status().contains("collapsed"));
    }
    assert_eq!(cluster.origin_requests(Some("/herd.bin")).await, 1);
    // A client whose request came after the last byte is a hit; nearly all waited.
    assert!((CLIENTS / 2..CLIENTS).contains(&collapsed), "{collapsed} collapsed");
}
