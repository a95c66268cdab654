//! However `up` ends, nothing of it is left.

use std::time::Duration;

use meridian_tests::client::{Client, get};
use meridian_tests::cluster::Cluster;
use meridian_tests::process::{Process, Signal};
use meridian_tests::site::Site;
use meridian_tests::wait::{PATIENCE, eventually};

#[tokio::test]
async fn ctrl_c_leaves_no_process_and_no_port() {
    let ended = Cluster::start(&[]).await.stop(Signal::INT).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    for node in ["iad-1", "fra-1", "nrt-1", "origin-1", "control-1"] {
        assert!(ended.stdout.contains(node), "{node} is not in the table: {}", ended.stdout);
    }
}

#[tokio::test]
async fn sigterm_leaves_no_process_and_no_port() {
    let ended = Cluster::start(&[]).await.stop(Signal::TERM).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[tokio::test]
async fn children_end_by_themselves_when_up_is_killed() {
    Cluster::start(&["--edges", "2"]).await.orphan().await;
}

#[tokio::test]
async fn a_request_in_flight_is_finished_before_the_end() {
    let site = Site::of([("/slow.txt", b"slow and whole".to_vec())]);
    let cluster = Cluster::start(&[site.argument(), "--regions", "fra"]).await;
    let fault = serde_json::json!([{"path": "/slow.txt", "delay": "1s"}]);
    assert!(cluster.set_faults(fault).await.status.is_success());
    let mut client = Client::http1(&cluster.edge("fra").url).await.unwrap();
    let asking = async { client.send(get("/slow.txt")).await };
    let stopping = async {
        eventually("the request has reached the origin", PATIENCE, async || {
            (cluster.origin_requests(Some("/slow.txt")).await == 1).then_some(())
        })
        .await;
        cluster.stop(Signal::TERM).await
    };
    let (reply, ended) = tokio::join!(asking, stopping);
    assert_eq!(reply.unwrap().text(), "slow and whole");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[tokio::test]
async fn an_idle_client_does_not_keep_a_cluster_from_ending() {
    let cluster = Cluster::start(&["--regions", "fra"]).await;
    let mut idle = Client::http1(&cluster.edge("fra").url).await.unwrap();
    assert_eq!(idle.path("/").await.status, 200);
    let began = std::time::Instant::now();
    cluster.stop(Signal::TERM).await;
    assert!(began.elapsed() < Duration::from_secs(5), "an idle connection was waited for");
}

#[tokio::test]
async fn two_clusters_live_side_by_side_and_one_folder_holds_one() {
    let one = Cluster::start(&["--regions", "fra"]).await;
    let two = Cluster::start(&["--regions", "fra"]).await;
    let (a, b) = (one.file().addresses(), two.file().addresses());
    assert!(a.iter().all(|address| !b.contains(address)), "{a:?} {b:?}");

    let dir = one.dir().to_str().unwrap();
    let third = Process::run(&["up", "--port", "0", "--regions", "fra", "--dir", dir]).await;
    assert_eq!(third.status.code(), Some(1), "{third:?}");
    assert!(third.stderr.contains(dir), "{}", third.stderr);
    assert_eq!(Client::get(&format!("{}/", one.edge("fra").url)).await.status, 200);
}
