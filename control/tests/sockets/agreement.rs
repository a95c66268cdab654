//! Three replicas agree: on one order, over the death and the isolation of any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use meridian_control_wire::frame::Frame;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cluster::{Cluster, name};
use crate::kit::{FakeEdge, OPERATOR, ask, eventually, now};
use crate::listening::Listening;

/// What an answer within a second is, on a machine that is busy.
const PROMPT: Duration = Duration::from_millis(1_500);

#[tokio::test]
async fn each_replica_takes_changes_and_all_tell_one_order() {
    let cluster = Cluster::start(3).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let answer = cluster.purge(n, &format!("t{n}")).send().await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let said = answer.header("meridian-consistency").to_owned();
        assert!(said.starts_with("level=committed; basis=quorum; term="), "{said}");
        ids.push(answer.json()["id"].clone());
    }
    let history = cluster.agree().await;
    assert_eq!(history.iter().map(|p| p["id"].clone()).collect::<Vec<_>>(), ids);
    let mut leaders = BTreeSet::new();
    for n in 0..3 {
        let answer = cluster.get(n, "/v1/purges").send().await;
        let said = answer.header("meridian-consistency");
        assert!(said.starts_with("level=linearizable; basis=read-index; term="), "{said}");
        assert!(said.ends_with("staleness=0s"), "{said}");
        let status = cluster.status(n).await.unwrap();
        leaders.insert(status["leader"].to_string());
        assert_eq!(status["peers"].as_array().unwrap().len(), 3, "{status}");
    }
    assert_eq!(leaders.len(), 1);
    // A register is changed from the revision that was read, wherever it was read.
    let first = cluster.put(0, "a", &json!(1)).send().await;
    let tag = first.header("etag").to_owned();
    assert_eq!(cluster.get(2, "/v1/config/a").send().await.header("etag"), tag);
    let second = cluster.put(1, "a", &json!(2)).header("if-match", &tag).send().await;
    assert_eq!(second.status, 200);
    let late = cluster.put(2, "a", &json!(3)).header("if-match", &tag).send().await;
    assert_eq!((late.status, late.code().as_str()), (412, "rev_conflict"));
    for n in 0..3 {
        assert_eq!(cluster.get(n, "/v1/config/a").send().await.json()["value"], 2);
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn one_key_at_three_replicas_at_once_has_one_effect() {
    let cluster = Cluster::start(3).await;
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

/// Clients that order one purge after the other, each with a key, and repeat what was not answered.
pub(crate) struct Load {
    clients: JoinSet<Vec<String>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for client in 0..6 {
            let addresses: Vec<_> = (0..cluster.len()).map(|n| cluster.address(n)).collect();
            let stopped = Arc::clone(&stop);
            clients.spawn(async move {
                let mut done = Vec::new();
                let mut at = client;
                while !stopped.load(Ordering::Relaxed) {
                    let tag = format!("c{client}-{}", done.len());
                    loop {
                        let order = ask(addresses[at % addresses.len()], "POST", "/v1/purges")
                            .bearer(crate::kit::PURGER)
                            .header("idempotency-key", &tag)
                            .body(json!({ "tag": tag }));
                        let answer = order.try_send().await;
                        if answer.as_ref().is_some_and(|answer| answer.status == 202) {
                            break;
                        }
                        at += 1; // another replica
                        tokio::task::yield_now().await;
                    }
                    done.push(tag);
                }
                done
            });
        }
        Self { clients, stop }
    }

    /// What was acknowledged.
    pub(crate) async fn end(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

pub(crate) fn tags(history: &[Value]) -> BTreeMap<String, usize> {
    let mut tags = BTreeMap::new();
    for purge in history {
        let tag = purge["selectors"][0]["tag"].as_str().unwrap().to_owned();
        *tags.entry(tag).or_insert(0) += 1;
    }
    tags
}

#[tokio::test]
async fn the_leader_is_killed_under_load_and_nothing_is_lost_or_done_twice() {
    let cluster = Cluster::start(3).await;
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
async fn who_is_cut_off_refuses_promptly_and_the_others_go_on() {
    let cluster = Cluster::start_with(3, |config| config.raft.allow_local_reads = true).await;
    cluster.put(0, "a", &json!(1)).send().await;
    for n in 0..3 {
        assert_eq!(cluster.get(n, "/v1/config/a").send().await.status, 200);
    }
    let leader = cluster.leader().await;
    for alone in [(leader + 1) % 3, leader] {
        let others: Vec<usize> = (0..3).filter(|n| *n != alone).collect();
        cluster.isolate(alone, true);
        let refused = async |what: &str, asked: crate::kit::Ask| {
            let begun = now();
            let answer = asked.send().await;
            let took = begun.elapsed();
            assert!(took < PROMPT, "{what}: {took:?}");
            answer
        };
        // What was already on its way when the link was cut may be unknown; then it is certain.
        let certain = async || {
            let answer = refused("write", cluster.purge(alone, "cut")).await;
            assert!(matches!(answer.status, 503 | 504), "{answer:?}");
            (answer.status == 503).then_some(answer)
        };
        let answer = eventually("the minority knows", certain).await;
        assert_eq!(answer.code(), "no_quorum");
        assert_eq!(answer.header("retry-after"), "1");
        let read = refused("read", cluster.get(alone, "/v1/config/a")).await;
        assert_eq!((read.status, read.code().as_str()), (503, "no_quorum"));
        let said = read.header("meridian-consistency");
        assert!(said.contains("basis=none") && said.ends_with("staleness=unknown"), "{said}");
        let local = cluster.get(alone, "/v1/config/a").header("consistency", "local");
        let local = local.send().await;
        assert_eq!(local.status, 200);
        let said = local.header("meridian-consistency");
        assert!(said.starts_with("level=local; basis=this-replica;"), "{said}");
        assert!(!said.ends_with("staleness=0s"), "{said}");
        // The front door goes on with what this replica knows, and sees that it is no more.
        let edges = cluster.get(alone, "/v1/edges").send().await;
        assert_eq!(edges.status, 200);
        assert!(edges.header("meridian-consistency").ends_with("staleness=unknown"));
        cluster.leader_but(alone).await;
        for n in others {
            let done = async || {
                let answer = cluster.purge(n, &format!("on-{alone}-{n}")).send().await;
                (answer.status == 202).then_some(())
            };
            eventually("the majority goes on", done).await;
            assert_eq!(cluster.get(n, "/v1/config/a").send().await.status, 200);
        }
        cluster.isolate(alone, false);
        let history = tags(&cluster.agree().await);
        assert!(history.keys().filter(|tag| tag.starts_with("on-")).count() >= 2);
        assert!(!history.contains_key("cut") || history["cut"] <= 5, "{history:?}");
    }
    cluster.stop_all().await;
}

#[tokio::test]
async fn all_restart_and_everything_is_there() {
    let cluster = Cluster::start(3).await;
    for n in 0..9 {
        let order = cluster.purge(n % 3, &format!("t{n}"));
        assert_eq!(order.header("idempotency-key", &format!("k{n}")).send().await.status, 202);
    }
    cluster.put(1, "site/shop", &json!({"hosts": ["a"], "origins": ["o"]})).send().await;
    let before = cluster.agree().await;
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
    assert_eq!(cluster.agree().await, before);
    let again = cluster.purge(2, "t4").header("idempotency-key", "k4").send().await.json();
    assert_eq!((&again["replayed"], &again["id"]), (&json!(true), &before[4]["id"]));
    assert_eq!(cluster.get(0, "/v1/config/site/shop").send().await.status, 200);
    cluster.stop_all().await;
}

#[tokio::test]
async fn an_edge_is_known_everywhere_and_outlives_its_leader() {
    let cluster =
        Cluster::start_with(3, |config| config.health.edge_lapse = crate::kit::ms(1_500)).await;
    let leader = cluster.leader().await;
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut edge = FakeEdge::start(cluster.address(one), "fra-1", "fra").await;
    let state = async |n: usize| {
        let edges = cluster.get(n, "/v1/edges").try_send().await?.json();
        let edge = edges["edges"].as_array()?.first()?.clone();
        Some((edge["state"].as_str()?.to_owned(), edge["heard_ms_ago"].is_u64()))
    };
    for n in 0..3 {
        let healthy = async || (state(n).await? == ("healthy".to_owned(), true)).then_some(());
        eventually("its beats are known everywhere", healthy).await;
    }
    // Its purges come from whomever it follows, and each replica knows how far it is.
    let mut stream = Listening::open(cluster.address(other), &edge, None).await;
    let (_, cursor) = stream.until_bookmark().await;
    assert_eq!(cluster.purge(one, "a").send().await.status, 202);
    let (id, applied) = stream.purge().await;
    assert_ne!(cursor, applied);
    let acked = crate::listening::ack(cluster.address(other), &edge, &applied).await;
    assert_eq!(acked.status, 204, "{acked:?}");
    let one_purge = cluster.get(one, &format!("/v1/purges/{id}")).send().await.json();
    assert_eq!(one_purge["edges"]["acked"], 1, "{one_purge}");
    // The leader goes: nobody calls the edge dead while the next one has not heard it yet.
    edge.live(cluster.address(one), 1 << 32);
    cluster.kill(leader).await;
    let next = eventually("another one leads", async || {
        assert_ne!(state(one).await.map(|(state, _)| state).as_deref(), Some("unhealthy"));
        cluster.status(one).await?["leader"]
            .as_str()
            .filter(|l| **l != name(leader))
            .map(str::to_owned)
    })
    .await;
    let heard = async || {
        let (state, heard) = state(one).await?;
        assert_eq!(state, "healthy", "under {next}");
        heard.then_some(())
    };
    eventually("the next leader hears it", heard).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_replica_that_lags_takes_no_good_cursor_for_a_foreign_one() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let lagging = (leader + 1) % 3;
    let edge = FakeEdge::start(cluster.address(leader), "fra-1", "fra").await;
    let known = async || {
        let edges = cluster.get(lagging, "/v1/edges").send().await.json();
        (!edges["edges"].as_array().unwrap().is_empty()).then_some(())
    };
    eventually("the edge is known", known).await;
    cluster.isolate(lagging, true);
    let mut stream = Listening::open(cluster.address(leader), &edge, None).await;
    for n in 0..5 {
        let done = async || {
            let answer = cluster.purge(leader, &format!("t{n}")).send().await;
            (answer.status == 202).then_some(())
        };
        eventually("the majority goes on", done).await;
    }
    let mut cursor = String::new();
    for _ in 0..5 {
        cursor = stream.purge().await.1;
    }
    // It has never seen this cursor, and cannot ask: the edge is sent on, and drops nothing.
    let asked = cluster
        .get(lagging, "/v1/edge/fra-1/stream")
        .bearer(&edge.secret)
        .header("last-event-id", &cursor)
        .send()
        .await;
    assert_eq!((asked.status, asked.code().as_str()), (503, "no_quorum"));
    cluster.isolate(lagging, false);
    let back = async || {
        let answer = cluster.get(lagging, "/v1/purges").send().await;
        (answer.status == 200).then_some(())
    };
    eventually("it is back", back).await;
    let mut stream = Listening::open(cluster.address(lagging), &edge, Some(&cursor)).await;
    let last = cluster.purge(lagging, "last").send().await.json()["id"].clone();
    // Nothing but the purge that it misses: no snapshot, no purge of everything.
    let frame = stream.news().await;
    assert!(matches!(&frame, Frame::Op { operation, .. } if operation.id == last), "{frame:?}");
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_replica_that_lost_its_disk_takes_its_place_again() {
    let cluster = Cluster::start(3).await;
    for n in 0..5 {
        cluster.purge(0, &format!("t{n}")).send().await;
    }
    let before = cluster.agree().await;
    let lost = (cluster.leader().await + 1) % 3;
    cluster.kill(lost).await;
    std::fs::remove_dir_all(cluster.data(lost)).unwrap();
    cluster.resume(lost);
    let leader = cluster.leader_but(lost).await;
    // It is nobody: it neither founds a cluster nor answers from its empty disk.
    let up = async || cluster.status(lost).await;
    eventually("it runs", up).await;
    let empty = cluster.get(lost, "/v1/purges").send().await;
    assert_eq!((empty.status, empty.code().as_str()), (503, "no_quorum"));
    let replace = async || {
        let answer = cluster
            .ask(leader, "POST", "/v1/admin/members")
            .bearer(OPERATOR)
            .body(json!({"replace": name(lost)}))
            .send()
            .await;
        assert!(matches!(answer.status, 200 | 202 | 503), "{answer:?}");
        (answer.status == 200).then_some(answer)
    };
    let members = eventually("it is replaced", replace).await.json();
    let voters = members["members"].as_array().unwrap().iter();
    assert_eq!(voters.filter(|member| member["voter"] == true).count(), 3, "{members}");
    assert_eq!(cluster.agree().await, before);
    // It counts again: another one may go.
    let other = (0..3).find(|n| *n != lost && *n != leader).unwrap();
    cluster.kill(other).await;
    let done = async || (cluster.purge(lost, "x").send().await.status == 202).then_some(());
    eventually("two of three go on", done).await;
    cluster.stop_all().await;
}
