//! An origin that is slow under load, which is worse than one that is dead.

use std::time::Duration;

use meridian_tests::client::{Client, Reply, metric};
use meridian_tests::cluster::Cluster;
use meridian_tests::origin::{Gate, ScriptedOrigin, ok};
use meridian_tests::process::Process;
use meridian_tests::wait::eventually;
use tokio::task::JoinSet;

/// Longer than any deadline of an edge: what takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(40);
const STORED: usize = 20;
const UNSTORED: usize = 300;

async fn all(url: &str, paths: impl Iterator<Item = String>) -> Vec<Reply> {
    let mut asking = JoinSet::new();
    for path in paths {
        let url = format!("{url}{path}");
        asking.spawn(async move {
            let reply = tokio::time::timeout(DEADLINE, Client::get(&url)).await;
            reply.expect("no client waits longer than its deadline")
        });
    }
    asking.join_all().await
}

fn stored() -> impl Iterator<Item = String> {
    (0..STORED).map(|n| format!("/stored/{n}"))
}

fn unstored() -> impl Iterator<Item = String> {
    (0..UNSTORED).map(|n| format!("/unstored/{n}"))
}

#[tokio::test]
async fn an_origin_that_hangs_under_load_costs_stored_paths_nothing_and_comes_back() {
    let origin = ScriptedOrigin::start().await;
    for path in stored() {
        let kept = ok("kept").header("cache-control", "max-age=0").header("etag", "\"1\"");
        origin.script(&path, kept);
    }
    let cluster = Cluster::start(&[&origin.url(), "--regions", "fra"]).await;
    let edge = cluster.edge("fra");
    let warm = all(&edge.url, stored()).await;
    assert!(warm.iter().all(|reply| reply.status == 200));

    let gate = Gate::closed();
    for path in stored().chain(unstored()) {
        origin.script(&path, ok("late").header("cache-control", "max-age=0").behind(&gate));
    }
    // All at once: what is stored goes out after the site's patience, stale.
    let (kept, lost) = tokio::join!(all(&edge.url, stored()), all(&edge.url, unstored()));
    assert!(kept.iter().all(|reply| reply.status == 200 && reply.text() == "kept"), "{kept:?}");
    assert!(lost.iter().all(|reply| [503, 504].contains(&reply.status.as_u16())), "{lost:?}");
    let seen = unstored().map(|path| origin.count(&path)).sum::<usize>();
    assert!(seen <= 256, "places are bounded: {seen}");

    // By now the breaker has seen how slow it is: at once, and without the network.
    let told = Process::run(&["status", "--json", "--dir", cluster.dir().to_str().unwrap()]).await;
    let status: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    let nodes = status["nodes"].as_array().unwrap();
    let view = nodes.iter().find(|node| node["name"] == "fra-1").unwrap();
    assert_ne!(view["origins"][0]["breaker"], "closed", "{view}");
    for reply in all(&edge.url, stored()).await {
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "kept"), "{reply:?}");
    }

    gate.open();
    eventually("the origin is asked again as ever", DEADLINE, async || {
        let replies = all(&edge.url, stored().chain(unstored().take(10))).await;
        let is_back = replies.iter().all(|reply| reply.status == 200 && reply.text() == "late");
        is_back.then_some(())
    })
    .await;
    let admin = edge.admin();
    for name in ["edge_upstream_in_flight", "edge_upstream_queue", "edge_fetches"] {
        eventually("nothing is left of it", DEADLINE, async || {
            (metric(admin, name).await == 0.0).then_some(())
        })
        .await;
    }
}
