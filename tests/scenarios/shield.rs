//! A region as the shield of the others, in a whole cluster.

use std::time::Duration;

use meridian_tests::client::{Client, Reply};
use meridian_tests::cluster::{Cluster, Node};
use meridian_tests::control::Control;
use meridian_tests::origin::{ScriptedOrigin, ok};
use meridian_tests::process::Process;
use meridian_tests::wait::PATIENCE;
use serde_json::json;

async fn get(edge: &Node, path: &str) -> Reply {
    Client::get(&format!("{}{path}", edge.url)).await
}

fn statuses(reply: &Reply) -> String {
    let lines = reply.headers.get_all("cache-status").iter();
    lines.map(|line| line.to_str().unwrap()).collect::<Vec<_>>().join(", ")
}

async fn net(cluster: &Cluster, words: &[&str]) {
    let dir = cluster.dir().to_str().unwrap();
    let ended = Process::run(&[&["net"], words, &["--dir", dir]].concat()).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

fn publish(origin: &ScriptedOrigin, version: &str) {
    let page = ok(version.to_owned()).header("cache-control", "max-age=600");
    origin.script("/page", page.header("surrogate-key", "page"));
}

#[tokio::test]
async fn the_edges_of_other_regions_ask_the_shield_and_a_purge_holds_through_it() {
    let origin = ScriptedOrigin::start().await;
    publish(&origin, "old");
    let words = ["--regions", "iad,fra,nrt", "--shield", "iad"];
    let cluster = Cluster::start(&[&[origin.url().as_str()], &words[..]].concat()).await;
    let [shield, fra, nrt] = ["iad", "fra", "nrt"].map(|region| cluster.edge(region));
    let first = statuses(&get(&fra, "/page").await);
    assert!(first.starts_with("iad-1; fwd=uri-miss") && first.contains("fra-1; fwd=uri-miss"));
    let second = statuses(&get(&nrt, "/page").await);
    assert!(second.starts_with("iad-1; hit") && second.contains("nrt-1; fwd=uri-miss"), "{second}");
    assert_eq!(origin.count("/page"), 1);

    // The shield does not hear of a purge; the others do, and ask past what it has.
    let control = Control::of(&cluster);
    net(&cluster, &["cut", "iad-1", "control"]).await;
    publish(&origin, "new");
    let order = json!({"tag": "page"});
    let receipt = control.purge(&order, "ack=region:fra&timeout=20s").await;
    let reply = get(&fra, "/page").await;
    assert_eq!(reply.text(), "new", "{}", statuses(&reply));
    assert!(statuses(&reply).contains("detail=purges-behind"), "{}", statuses(&reply));
    assert_eq!(get(&shield, "/page").await.text(), "old", "it cannot know of the purge");
    net(&cluster, &["heal"]).await;
    control.applied_everywhere(receipt["id"].as_str().unwrap(), PATIENCE).await;
    for edge in [&shield, &fra, &nrt] {
        assert_eq!(get(edge, "/page").await.text(), "new", "{}", edge.name);
    }
}

#[tokio::test]
async fn cut_off_from_the_shield_an_edge_asks_the_origin() {
    let origin = ScriptedOrigin::start().await;
    publish(&origin, "page");
    let words = ["--regions", "iad,fra", "--shield", "iad"];
    let cluster = Cluster::start(&[&[origin.url().as_str()], &words[..]].concat()).await;
    let edge = cluster.edge("fra");
    net(&cluster, &["cut", "fra-1", "iad-1", "--one-way"]).await;
    let began = std::time::Instant::now();
    let reply = get(&edge, "/page").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "page"), "{reply:?}");
    assert!(!statuses(&reply).contains("iad-1"), "{}", statuses(&reply));
    assert!(began.elapsed() < Duration::from_secs(10), "it waited {:?}", began.elapsed());
}

#[tokio::test]
async fn a_shield_that_is_no_region_of_the_cluster_is_refused() {
    let ended =
        Process::run(&["up", "--port", "0", "--regions", "iad,fra", "--shield", "sin"]).await;
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(ended.stderr.contains("none of the regions with edges: iad, fra"), "{}", ended.stderr);
}
