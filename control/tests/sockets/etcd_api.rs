//! How replicas use the interface of etcd. Tests of that, and no claim of how consistent the etcd
//! is that they run against.

use std::collections::BTreeSet;
use std::time::Duration;

use meridian_control_wire::frame::Frame;
use serde_json::json;
use tokio::task::JoinSet;

use crate::agreement::{Load, tags};
use crate::cable::Cable;
use crate::cluster::Cluster;
use crate::etcd_server::{EtcdServer, order_at};
use crate::kit::{FakeEdge, Replica, count, eventually, now};
use crate::listening::Listening;

/// What an answer within a second is, on a machine that is busy.
const PROMPT: Duration = Duration::from_millis(1_500);

/// Three replicas, and the etcd that orders for them.
async fn three() -> Option<(Cluster, EtcdServer)> {
    let server = EtcdServer::start().await?;
    let cluster = Cluster::start_with(3, |config| server.order_for(config)).await;
    Some((cluster, server))
}

#[tokio::test]
async fn each_replica_takes_changes_and_all_tell_one_order() {
    let Some((cluster, _server)) = three().await else { return };
    let mut ids = Vec::new();
    for n in 0..3 {
        let answer = cluster.purge(n, &format!("t{n}")).send().await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let said = answer.header("meridian-consistency").to_owned();
        assert!(said.starts_with("level=committed; basis=etcd; term="), "{said}");
        ids.push(answer.json()["id"].clone());
    }
    let history = cluster.agree().await;
    assert_eq!(history.iter().map(|p| p["id"].clone()).collect::<Vec<_>>(), ids);
    let mut leaders = BTreeSet::new();
    for n in 0..3 {
        let answer = cluster.get(n, "/v1/purges").send().await;
        let said = answer.header("meridian-consistency");
        assert!(said.starts_with("level=linearizable; basis=range; "), "{said}");
        assert!(said.ends_with("staleness=0s"), "{said}");
        let status = cluster.status(n).await.unwrap();
        leaders.insert(status["leader"].to_string());
        assert_eq!(status["peers"].as_array().unwrap().len(), 3, "{status}");
    }
    assert_eq!(leaders.len(), 1);
    let first = cluster.put(0, "a", &json!(1)).send().await;
    let tag = first.header("etag").to_owned();
    assert_eq!(cluster.get(2, "/v1/config/a").send().await.header("etag"), tag);
    let second = cluster.put(1, "a", &json!(2)).header("if-match", &tag).send().await;
    assert_eq!(second.status, 200);
    let late = cluster.put(2, "a", &json!(3)).header("if-match", &tag).send().await;
    assert_eq!((late.status, late.code().as_str()), (412, "rev_conflict"));
    for n in 0..3 {
        assert_eq!(cluster.get(n, "/v1/config/a").send().await.json()["value"], 2);
        for level in ["lease", "bounded=250ms"] {
            let asked = cluster.get(n, "/v1/config/a").header("consistency", level).send().await;
            assert_eq!((asked.status, asked.code().as_str()), (501, "not_offered"), "{level}");
        }
        let local = cluster.get(n, "/v1/config/a").header("consistency", "local").send().await;
        let said = local.header("meridian-consistency");
        assert!(said.starts_with("level=local; basis=this-replica;"), "{said}");
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn one_key_at_three_replicas_at_once_has_one_effect() {
    let Some((cluster, _server)) = three().await else { return };
    let mut clients = JoinSet::new();
    for n in 0..30 {
        let order = cluster.purge(n % 3, "a").header("idempotency-key", "deploy-17");
        clients.spawn(order.send());
    }
    let answers = clients.join_all().await;
    let ids: BTreeSet<String> = answers.iter().map(|a| a.json()["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    let first = answers.iter().filter(|answer| answer.json()["replayed"] == false);
    assert_eq!(first.count(), 1);
    assert_eq!(cluster.agree().await.len(), 1);
    let other = cluster.purge(1, "b").header("idempotency-key", "deploy-17").send().await;
    assert_eq!((other.status, other.code().as_str()), (422, "idempotency_mismatch"));
    cluster.stop_all().await;
}

#[tokio::test]
async fn who_hears_the_edges_is_killed_under_load_and_nothing_is_lost_or_done_twice() {
    let Some((cluster, _server)) = three().await else { return };
    let load = Load::start(&cluster);
    let first = cluster.leader().await;
    let some = async || (cluster.history(first).await.len() > 50).then_some(());
    eventually("writes are going on", some).await;
    let killed = now();
    cluster.kill(first).await;
    let other = (first + 1) % 3;
    let resumed = async || {
        let answer = cluster.purge(other, "after").try_send().await?;
        (answer.status == 202).then_some(())
    };
    eventually("writes resume", resumed).await;
    println!("writes resumed {:?} after the leader was killed", killed.elapsed());
    let second = cluster.leader_but(first).await;
    cluster.resume(first);
    let far = cluster.history(second).await.len();
    let more = async || (cluster.history(second).await.len() > far + 50).then_some(());
    eventually("writes go on", more).await;
    let acknowledged = load.end().await;
    let history = tags(&cluster.agree().await);
    for tag in &acknowledged {
        assert_eq!(history.get(tag), Some(&1), "{tag}");
    }
    assert!(history.iter().all(|(tag, times)| *times == 1 || tag == "after"), "{history:?}");
    cluster.stop_all().await;
}

#[tokio::test]
async fn without_etcd_changes_and_reads_are_refused_promptly_and_streams_go_on() {
    let Some(server) = EtcdServer::start().await else { return };
    let cable = Cable::to(server.address).await;
    let replica = Replica::start_with(|config| order_at(cable.address, config)).await;
    let edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let mut stream = Listening::open(replica.address, &edge, None).await;
    stream.until_bookmark().await;
    assert_eq!(replica.purge("/v1/purges", json!({"tag": "a"})).send().await.status, 202);
    let (_, cursor) = stream.purge().await;
    cable.set_cut(true);
    let purge = || replica.purge("/v1/purges", json!({"tag": "cut"}));
    // What was already on its way when the link was cut may be unknown; then it is certain.
    let certain = async || {
        let begun = now();
        let answer = purge().header("idempotency-key", "k").send().await;
        assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
        assert!(matches!(answer.status, 503 | 504), "{answer:?}");
        (answer.status == 503).then_some(answer)
    };
    let answer = eventually("it is known that etcd is away", certain).await;
    assert_eq!(answer.code(), "no_quorum");
    assert_eq!(answer.header("retry-after"), "1");
    let begun = now();
    let read = replica.get("/v1/purges").await;
    assert_eq!((read.status, read.code().as_str()), (503, "no_quorum"));
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    let local = crate::kit::ask(replica.address, "GET", "/v1/purges");
    let local = local.header("consistency", "local").send().await;
    assert_eq!(local.status, 200);
    let said = local.header("meridian-consistency");
    assert!(said.starts_with("level=local; basis=this-replica;"), "{said}");
    assert!(!said.ends_with("staleness=0s"), "{said}");
    assert_eq!(replica.get("/v1/edges").await.status, 200); // the front door goes on
    // What is known here is told on, from a cursor of this history too; another one is not judged.
    let mut again = Listening::open(replica.address, &edge, Some(&cursor)).await;
    let (frames, _) = again.until_bookmark().await;
    assert_eq!(frames, []);
    cable.set_cut(false);
    let done =
        async || (purge().header("idempotency-key", "k").send().await.status == 202).then_some(());
    eventually("etcd is back", done).await;
    let frame = again.news().await;
    assert!(matches!(frame, Frame::Op { .. }), "{frame:?}");
    let history = replica.history().await;
    assert_eq!(history.len(), 2, "{history:?}"); // once, however often it was asked for
    replica.stop().await;
}

#[tokio::test]
async fn answers_of_etcd_are_lost_and_no_effect_is_lost_or_done_twice() {
    let Some(server) = EtcdServer::start().await else { return };
    let mut cables = Vec::new();
    for _ in 0..3 {
        cables.push(Cable::to(server.address).await);
    }
    let addresses: Vec<_> = cables.iter().map(|cable| cable.address).collect();
    let cluster = Cluster::start_with(3, |config| {
        let n: usize = config.name.as_str().rsplit('-').next().unwrap().parse().unwrap();
        order_at(addresses[n - 1], config);
        config.etcd.quorum_timeout = crate::kit::ms(200);
    })
    .await;
    let load = Load::start(&cluster);
    for round in 0..9 {
        let cable = &cables[round % 3];
        let far = async || cluster.status(round % 3).await?["positions"]["applied"].as_u64();
        let before = eventually("it says how far it is", far).await;
        let more = async || (far().await? > before + 5).then_some(());
        eventually("entries are applied", more).await;
        cable.set_cut(true);
        let other = (round + 1) % 3;
        let done = async || {
            let answer = cluster.purge(other, &format!("cut-{round}"));
            let answer = answer.header("idempotency-key", &format!("cut-{round}"));
            (answer.try_send().await?.status == 202).then_some(())
        };
        eventually("the others go on", done).await;
        cable.set_cut(false);
    }
    let acknowledged = load.end().await;
    let history = tags(&cluster.agree().await);
    for tag in &acknowledged {
        assert_eq!(history.get(tag), Some(&1), "{tag}");
    }
    assert!(history.values().all(|times| *times == 1), "{history:?}");
    cluster.stop_all().await;
}

#[tokio::test]
async fn without_a_key_too_an_order_has_the_effect_that_its_answer_tells() {
    let Some(server) = EtcdServer::start().await else { return };
    let cable = Cable::to(server.address).await;
    let replica = Replica::start_with(|config| order_at(cable.address, config)).await;
    let mut told = Vec::new();
    for n in 0..80_u64 {
        // Cut at another moment of each order, and healed long before it is given up.
        let interrupted = async {
            let mut tick = tokio::time::interval(Duration::from_micros(250 * (1 + n % 16)));
            tick.tick().await;
            tick.tick().await;
            cable.set_cut(true);
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            tick.tick().await;
            tick.tick().await;
            cable.set_cut(false);
        };
        let tag = format!("t{n}");
        let order = replica.purge("/v1/purges", json!({ "tag": tag }));
        let (answer, ()) = tokio::join!(order.send(), interrupted);
        told.push((tag, answer.status));
    }
    let ready = async || (replica.get("/v1/purges").await.status == 200).then_some(());
    eventually("etcd is followed again", ready).await;
    let history = tags(&replica.history().await);
    for (tag, status) in &told {
        let times = history.get(tag).copied().unwrap_or(0);
        let right = match status {
            202 => times == 1,
            503 => times == 0,
            504 => times <= 1,
            _ => false,
        };
        assert!(right, "{tag}: {status}, and then {times} times in {history:?}");
    }
    let done = told.iter().filter(|(_, status)| *status == 202).count();
    assert!(done > 20, "{told:?}"); // else this tells nothing
    replica.stop().await;
}

#[tokio::test]
async fn who_was_away_longer_than_the_log_reaches_gets_a_snapshot() {
    let Some(server) = EtcdServer::start().await else { return };
    let cluster = Cluster::start_with(3, |config| {
        server.order_for(config);
        config.etcd.snapshot_every = count(20);
        config.etcd.keep_entries = count(3);
        config.etcd.request_size = meridian_config::units::ByteSize::kib(64);
    })
    .await;
    let heard = cluster.leader().await;
    let (away, other) = ((heard + 1) % 3, (heard + 2) % 3);
    let edge = FakeEdge::start(cluster.address(heard), "fra-1", "fra").await;
    let mut stream = Listening::open(cluster.address(heard), &edge, None).await;
    let (_, cursor) = stream.until_bookmark().await;
    let big = json!("x".repeat(60_000)); // a snapshot of several pieces
    for key in ["a", "b", "c"] {
        assert_eq!(cluster.put(other, key, &big).send().await.status, 200);
    }
    cluster.stop(away).await;
    for n in 0..60 {
        let order = cluster.purge(other, &format!("t{n}"));
        let answer = order.header("idempotency-key", &format!("k{n}")).send().await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let applied = async |n: usize| cluster.status(n).await?["positions"]["applied"].as_u64();
    let last = applied(heard).await.unwrap();
    // One that has nothing, not even a folder, and one that is behind the log's beginning.
    cluster.stop(other).await;
    std::fs::remove_dir_all(cluster.data(other)).unwrap();
    for n in [away, other] {
        cluster.resume(n);
        let there = async || (applied(n).await? >= last).then_some(());
        eventually("it has everything", there).await;
    }
    let history = cluster.agree().await;
    assert_eq!(history.len(), 60);
    for n in [away, other] {
        assert_eq!(cluster.get(n, "/v1/config/b").send().await.json()["value"], big);
        let again = cluster.purge(n, "t7").header("idempotency-key", "k7").send().await.json();
        assert_eq!((&again["replayed"], &again["id"]), (&json!(true), &history[7]["id"]));
        // A cursor from before all of this is of the same history still.
        let mut stream = Listening::open(cluster.address(n), &edge, Some(&cursor)).await;
        for purge in &history {
            assert_eq!(purge["id"], stream.purge().await.0);
        }
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn an_edge_rotates_and_everything_restarts_and_its_cursor_holds() {
    let Some((cluster, _server)) = three().await else { return };
    let edge = FakeEdge::start(cluster.address(0), "fra-1", "fra").await;
    let mut stream = Listening::open(cluster.address(1), &edge, None).await;
    stream.until_bookmark().await;
    assert_eq!(cluster.purge(2, "a").send().await.status, 202);
    let (id, cursor) = stream.purge().await;
    let acked = crate::listening::ack(cluster.address(1), &edge, &cursor).await;
    assert_eq!(acked.status, 204, "{acked:?}");
    let one = cluster.get(0, &format!("/v1/purges/{id}")).send().await.json();
    assert_eq!(one["edges"]["acked"], 1, "{one}");
    for n in 0..3 {
        if n == 0 {
            cluster.stop(n).await;
        } else {
            cluster.kill(n).await;
        }
    }
    for n in 0..3 {
        cluster.resume(n);
    }
    cluster.leader().await;
    let done = async || {
        let order = cluster.purge(1, "b").header("idempotency-key", "b");
        (order.try_send().await?.status == 202).then_some(())
    };
    eventually("writes resume", done).await;
    for n in 0..3 {
        let mut stream = Listening::open(cluster.address(n), &edge, Some(&cursor)).await;
        let (frames, _) = stream.until_bookmark().await;
        // Nothing but the purge that it misses: no snapshot, no purge of everything.
        assert!(matches!(&frames[..], [Frame::Op { .. }]), "{frames:?}");
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn another_history_in_etcd_is_not_followed() {
    let Some(mut server) = EtcdServer::start().await else { return };
    let replica = Replica::start_with(|config| server.order_for(config)).await;
    for n in 0..5 {
        let answer = replica.purge("/v1/purges", json!({ "tag": format!("t{n}") })).send().await;
        assert_eq!(answer.status, 202);
    }
    server.lose_everything().await;
    // As it would be without looking: entry one would be written a second time, and applied.
    let refused = async || {
        let answer = replica.get("/readyz").await;
        (answer.status == 503).then_some(())
    };
    eventually("it says that it is not ready", refused).await;
    let answer = replica.purge("/v1/purges", json!({"tag": "b"})).send().await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_quorum"));
    let read = replica.get("/v1/purges").await;
    assert_eq!((read.status, read.code().as_str()), (503, "no_quorum"));
    // Nor after a restart, nor when others have written the new history on beyond the old one.
    let fresh = Replica::start_with(|config| {
        server.order_for(config);
        config.name = "control-2".parse().unwrap();
        config.replicas = vec!["control-2".parse().unwrap()];
    })
    .await;
    let heard = async || (fresh.get("/v1/status").await.json()["role"] == "leader").then_some(());
    eventually("the other one has given up", heard).await;
    for n in 0..20 {
        let answer = fresh.purge("/v1/purges", json!({ "tag": format!("n{n}") })).send().await;
        assert_eq!(answer.status, 202);
    }
    let replica = replica.pause().await.resume().await;
    eventually("it still says so", async || {
        (replica.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(replica.get("/v1/purges").await.code(), "no_quorum");
    assert_eq!(fresh.history().await.len(), 20);
    replica.stop().await;
    fresh.stop().await;
}
