//! A node dies by `kill -9`: the others go on, and `up` starts it again under the same addresses.

use meridian_tests::client::Client;
use meridian_tests::cluster::{Cluster, Node};
use meridian_tests::site::Site;
use meridian_tests::wait::{PATIENCE, eventually};

async fn get(edge: &Node, path: &str) -> meridian_tests::client::Reply {
    Client::get(&format!("{}{path}", edge.url)).await
}

#[tokio::test]
async fn an_edge_that_dies_comes_back_and_the_others_serve_meanwhile() {
    let site = Site::small();
    let mut cluster = Cluster::start(&[site.argument(), "--regions", "fra,iad"]).await;
    let other = cluster.edge("iad");
    assert_eq!(get(&other, "/style.css").await.status, 200);

    let killed = cluster.kill("fra-1");
    let stored = get(&other, "/style.css").await;
    assert!(stored.cache_status().contains("; hit"), "{stored:?}");
    assert_eq!(get(&other, "/img/all.png").await.status, 200);

    let back = cluster.restarted(&killed).await;
    let empty = get(&back, "/style.css").await;
    assert_eq!(empty.status, 200);
    assert!(empty.cache_status().contains("fwd=uri-miss"), "{empty:?}");
    let front = format!("{}/style.css", cluster.file().front);
    eventually("the front door sends clients to it again", PATIENCE, async || {
        let reply = Client::get_with(&front, &[("meridian-from", "fra")]).await;
        (reply.header("location") == Some(format!("{}/style.css", back.url).as_str())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_the_control_plane_edges_and_front_door_go_on_with_what_they_know() {
    let site = Site::small();
    let mut cluster = Cluster::start(&[site.argument(), "--regions", "fra,iad"]).await;
    let edge = cluster.edge("fra");
    assert_eq!(get(&edge, "/style.css").await.status, 200);

    let killed = cluster.kill("control-1");
    assert!(get(&edge, "/style.css").await.cache_status().contains("; hit"));
    assert_eq!(get(&edge, "/img/all.png").await.status, 200, "misses need no control plane");
    let front = format!("{}/style.css", cluster.file().front);
    let sent = Client::get_with(&front, &[("meridian-from", "fra")]).await;
    assert_eq!(sent.header("location"), Some(format!("{}/style.css", edge.url).as_str()));

    let back = cluster.restarted(&killed).await;
    eventually("both edges have registered again", PATIENCE, async || {
        let edges = Client::get(&format!("{}/v1/edges", back.url)).await.json().to_string();
        (edges.contains("\"fra-1\"") && edges.contains("\"iad-1\"")).then_some(())
    })
    .await;
    let sent = Client::get_with(&front, &[("meridian-from", "iad")]).await;
    assert_eq!(sent.status, 307, "{sent:?}");
}

#[tokio::test]
async fn without_the_origin_edges_serve_what_they_have() {
    let site = Site::small();
    let mut cluster = Cluster::start(&[site.argument(), "--regions", "fra"]).await;
    let edge = cluster.edge("fra");
    let before = get(&edge, "/style.css").await;
    assert_eq!(before.status, 200);

    let killed = cluster.kill("origin-1");
    let stored = get(&edge, "/style.css").await;
    assert!(stored.cache_status().contains("; hit"), "{stored:?}");
    assert_eq!(stored.body, before.body);

    let back = cluster.restarted(&killed).await;
    assert_eq!(Client::get(&format!("{}/img/all.png", back.url)).await.status, 200);
    assert_eq!(get(&edge, "/img/all.png").await.status, 200);
}

#[tokio::test]
async fn the_front_door_comes_back_too() {
    let cluster = Cluster::start(&["--regions", "fra"]).await;
    let front = format!("{}/", cluster.file().front);
    let killed = cluster.kill_front();
    eventually("the front door answers again", PATIENCE, async || {
        let reply = Client::try_get(&front).await.ok()?;
        (reply.status == 307 && cluster.front_pid() != Some(killed)).then_some(())
    })
    .await;
}
