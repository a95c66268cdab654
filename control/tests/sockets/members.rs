//! Who belongs to the cluster, and who is listened to by its replicas.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, name};
use crate::kit::{Answer, FakeEdge, OPERATOR, PURGER, Replica, ask, eventually};

/// Asks the leader for a change of the members until it is made.
async fn changed(cluster: &Cluster, order: &Value) -> Value {
    eventually("the members change", async || {
        let answer = members(cluster, 0, order).await;
        assert!(matches!(answer.status, 200 | 202 | 503), "{answer:?}");
        (answer.status == 200).then(|| answer.json())
    })
    .await
}

async fn members(cluster: &Cluster, n: usize, order: &Value) -> Answer {
    cluster.ask(n, "POST", "/v1/admin/members").bearer(OPERATOR).body(order).send().await
}

fn voters(members: &Value) -> Vec<&str> {
    let all = members["members"].as_array().unwrap().iter();
    all.filter(|one| one["voter"] == true).map(|one| one["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_replica_joins_leads_and_leaves() {
    let cluster = Cluster::configured(4, |config| {
        if config.name.as_str() != "control-4" {
            config.replicas.truncate(3);
        }
    })
    .await;
    for n in 0..4 {
        cluster.resume(n);
    }
    cluster.leader().await;
    cluster.purge(0, "before").send().await;
    // It runs, and is nobody yet.
    let stranger = cluster.purge(3, "stranger").send().await;
    assert_eq!((stranger.status, stranger.code().as_str()), (503, "no_quorum"));
    let joined = changed(&cluster, &json!({"add": "control-4"})).await;
    assert_eq!(voters(&joined), ["control-1", "control-2", "control-3", "control-4"]);
    assert_eq!(cluster.agree().await.len(), 1);
    let twice = members(&cluster, 1, &json!({"add": "control-4"})).await;
    assert_eq!((twice.status, twice.code().as_str()), (400, "bad_request"));
    let transfer = || {
        let to = json!({"to": "control-4"});
        cluster.ask(2, "POST", "/v1/admin/transfer-leader").bearer(OPERATOR).body(to).send()
    };
    eventually("it leads", async || {
        let answer = transfer().await;
        assert!(matches!(answer.status, 202 | 503), "{answer:?}");
        (cluster.status(0).await?["leader"] == name(3)).then_some(())
    })
    .await;
    let done = async || (cluster.purge(1, "led").send().await.status == 202).then_some(());
    eventually("the new leader orders", done).await;
    let left = changed(&cluster, &json!({"remove": "control-4"})).await;
    assert_eq!(voters(&left), ["control-1", "control-2", "control-3"]);
    cluster.leader_but(3).await;
    for n in 0..3 {
        let done = async || (cluster.purge(n, "after").send().await.status == 202).then_some(());
        eventually("the three go on", done).await;
    }
    let gone = async || (cluster.get(3, "/v1/config/a").send().await.status == 503).then_some(());
    eventually("who has left answers no read", gone).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn what_makes_no_sense_changes_no_member() {
    let cluster = Cluster::start(3).await;
    let rows = [
        (json!({"remove": "control-9"}), 404, "not_found"),
        (json!({"replace": "control-9"}), 404, "not_found"),
        (json!({"replace": "control-2"}), 400, "bad_request"), // it has its disk
        (json!({"add": "control-9"}), 400, "bad_request"),     // nobody knows where it is
        (json!({"add": "control-2"}), 400, "bad_request"),
        (json!({"ad": "control-2"}), 400, "bad_request"),
    ];
    for (order, status, code) in rows {
        let answer = members(&cluster, 1, &order).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{order}");
    }
    let unsigned = cluster.ask(0, "POST", "/v1/admin/members").bearer(PURGER).body("{}");
    assert_eq!(unsigned.send().await.code(), "forbidden");
    let transfer = cluster.ask(0, "POST", "/v1/admin/transfer-leader").bearer(OPERATOR);
    let transfer = transfer.body(json!({"to": "control-9"})).send().await;
    assert_eq!((transfer.status, transfer.code().as_str()), (404, "not_found"));
    let alone = Replica::start().await;
    let answer = ask(alone.address, "POST", "/v1/admin/snapshot").bearer(OPERATOR).send().await;
    assert_eq!((answer.status, answer.code().as_str()), (501, "not_offered"));
    alone.stop().await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn only_a_replica_of_the_cluster_is_listened_to() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "among-replicas-0123\n").unwrap();
    let cluster = Cluster::start_with(3, |config| config.raft.secret = Some(secret.clone())).await;
    assert_eq!(cluster.purge(0, "a").send().await.status, 202);
    let status = cluster.status(0).await.unwrap();
    let node = |n: usize| {
        let mut peers = status["peers"].as_array().unwrap().iter();
        let peer = peers.find(|one| one["name"] == name(n)).unwrap();
        u64::from_str_radix(peer["node"].as_str().unwrap(), 16).unwrap().to_string()
    };
    let say = |bearer: &str, to: &str, group: &str| {
        let asked = cluster.ask(0, "POST", "/raft/identity").body("null").bearer(bearer);
        let asked = asked.header("meridian-from-node", "7").header("meridian-to-node", to);
        asked.header("meridian-cluster", group).send()
    };
    let (us, them) = (node(0), node(1));
    let other = "0".repeat(32);
    for (bearer, to, group, code) in [
        ("another-secret-0123", &us, "", "forbidden"),
        (OPERATOR, &us, "", "forbidden"),
        ("among-replicas-0123", &them, "", "misdirected"),
        ("among-replicas-0123", &us, &other, "misdirected"),
    ] {
        assert_eq!(say(bearer, to, group).await.code(), code);
    }
    let nobody = cluster.ask(0, "POST", "/raft/vote").body("{}").send().await;
    assert_eq!(nobody.code(), "unauthorized");
    for method in ["GET", "DELETE"] {
        let answer = cluster.ask(0, method, "/raft/other").send().await;
        assert_eq!(answer.code(), "not_found");
    }
    // Nonsense from a replica breaks nothing.
    for rpc in ["append", "vote", "prevote", "install", "transfer", "read-index", "snapshot"] {
        let asked = cluster.ask(0, "POST", &format!("/raft/{rpc}")).body("{\"x\":[]}");
        let asked = asked.bearer("among-replicas-0123").header("meridian-from-node", "7");
        let answer = asked.header("meridian-to-node", &us).send().await;
        assert_eq!(answer.code(), "bad_request", "{rpc}");
    }
    let patience = Duration::from_secs(5);
    let still = tokio::time::timeout(patience, cluster.purge(1, "b").send()).await.unwrap();
    assert_eq!(still.status, 202);
    cluster.stop_all().await;
}

#[tokio::test]
async fn who_was_away_for_longer_than_the_log_reaches_gets_a_snapshot() {
    let few = |n: u32| std::num::NonZeroU32::new(n).unwrap();
    let cluster = Cluster::start_with(3, |config| {
        config.raft.snapshot_every = few(20);
        config.raft.keep_entries = few(2);
        config.raft.message_size = meridian_config::units::ByteSize::kib(64);
    })
    .await;
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    let edge = FakeEdge::start(cluster.address(leader), "fra-1", "fra").await;
    cluster.purge(away, "seen").send().await;
    cluster.agree().await;
    cluster.isolate(away, true);
    // Larger than one message, so that the snapshot comes in pieces.
    let long = "x".repeat(1_000);
    for n in 0..150 {
        let order = cluster.purge(leader, &format!("{long}{n}"));
        let order = order.header("idempotency-key", &format!("k{n}"));
        let answer = order.send().await;
        assert!(matches!(answer.status, 202 | 503 | 504), "{answer:?}");
    }
    cluster.put(leader, "a", &json!(7)).send().await;
    cluster.isolate(away, false);
    let history = cluster.agree().await;
    assert!(history.len() > 100, "{}", history.len());
    let name = "control_raft_snapshots_total";
    assert!(crate::kit::metric(cluster.address(away), name).await >= 1.0, "no snapshot came");
    assert_eq!(cluster.get(away, "/v1/config/a").send().await.json()["value"], 7);
    // What came with it works: the edge, the keys, the order of what follows, a restart.
    let first = history[1]["id"].clone();
    let stream = crate::listening::Listening::open(cluster.address(away), &edge, None).await;
    drop(stream);
    let again = cluster.purge(away, &format!("{long}0")).header("idempotency-key", "k0");
    let again = again.send().await.json();
    assert_eq!((&again["replayed"], &again["id"]), (&json!(true), &first));
    cluster.kill(away).await;
    cluster.resume(away);
    cluster.kill(leader).await;
    let done = async || (cluster.purge(away, "x").send().await.status == 202).then_some(());
    eventually("the two go on", done).await;
    assert_eq!(cluster.agree().await[..history.len()], history[..]);
    cluster.stop_all().await;
}
