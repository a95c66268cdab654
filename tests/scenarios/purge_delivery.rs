//! What becomes of purges when edges are cut off, orders come twice and the control node dies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use meridian_tests::client::{Client, Reply, metric};
use meridian_tests::cluster::{Cluster, Node};
use meridian_tests::control::Control;
use meridian_tests::origin::{ScriptedOrigin, ok};
use meridian_tests::process::{Process, Signal, freeze, send};
use meridian_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

async fn get(edge: &Node, path: &str) -> Reply {
    Client::get(&format!("{}{path}", edge.url)).await
}

fn is_hit(reply: &Reply) -> bool {
    reply.cache_status().contains("; hit")
}

/// A page of its own tag, fresh for long.
fn script(origin: &ScriptedOrigin, path: &str, tag: &str) {
    let page = ok(format!("{path} of old"));
    origin.script(path, page.header("cache-control", "max-age=600").header("surrogate-key", tag));
}

async fn warm(edge: &Node, path: &str) {
    get(edge, path).await;
    let reply = get(edge, path).await;
    assert!(is_hit(&reply), "{path} at {}: {reply:?}", edge.name);
}

/// Changes the links of a cluster.
async fn net(cluster: &Cluster, words: &[&str]) {
    let dir = cluster.dir().to_str().unwrap();
    let ended = Process::run(&[&["net"], words, &["--dir", dir]].concat()).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

/// An edge that does not hear of purges: it stands still, or its link is cut and it goes on serving.
#[tokio::test]
async fn an_edge_that_is_cut_off_is_named_and_catches_up_when_it_is_back() {
    let origin = ScriptedOrigin::start().await;
    script(&origin, "/page", "page");
    let cluster = Cluster::start(&[&origin.url(), "--regions", "fra,iad,nrt"]).await;
    let away = cluster.edge("nrt");
    for stands_still in [true, false] {
        warm(&away, "/page").await;
        let frozen = stands_still.then(|| freeze(away.pid.unwrap()));
        if !stands_still {
            net(&cluster, &["cut", &away.name, "control"]).await;
        }
        let id = purge_without(&cluster, &away).await;
        if !stands_still {
            assert!(is_hit(&get(&away, "/page").await), "it cannot know of the purge");
            net(&cluster, &["heal"]).await;
        }
        drop(frozen);
        Control::of(&cluster).applied_everywhere(&id, PATIENCE).await;
        assert!(!is_hit(&get(&away, "/page").await), "a purged page was a hit afterwards");
        assert!(is_hit(&get(&away, "/page").await));
    }
}

/// Purges while one edge of three is away, by the API and by the command; the id of a purge.
async fn purge_without(cluster: &Cluster, away: &Node) -> String {
    let control = Control::of(cluster);
    let began = Instant::now();
    let receipt = control.purge(&json!({"tag": "page"}), "ack=effective&timeout=500ms").await;
    assert!(began.elapsed() >= Duration::from_millis(500), "it gave up early: {receipt}");
    let edges = &receipt["edges"];
    assert_eq!((&edges["total"], &edges["acked"]), (&json!(3), &json!(2)), "{receipt}");
    assert_eq!(edges["pending"], json!([away.name]), "{receipt}");

    let dir = cluster.dir().to_str().unwrap();
    let command = ["purge", "--tag", "page", "--timeout", "300ms", "--dir", dir, "--wait"];
    for (wait, code) in [("quorum", 0), ("region:nrt", 1), ("region:iad", 0), ("effective", 1)] {
        let ended = Process::run(&[&command, [wait].as_slice()].concat()).await;
        assert_eq!(ended.status.code(), Some(code), "{wait}: {ended:?}");
        let named = ended.stderr.contains(&away.name);
        assert_eq!(named, code == 1, "{wait}: {ended:?}");
        assert!(ended.stdout.contains("pending      1  nrt-1"), "{wait}: {}", ended.stdout);
    }
    receipt["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_hundred_clients_with_one_key_make_one_purge() {
    let cluster = Cluster::start(&["--regions", "fra"]).await;
    let control = Control::of(&cluster);
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        let control = control.clone();
        clients.spawn(async move {
            control.try_purge(&json!({"tag": "a"}), "ack=none", Some("one-key")).await.unwrap()
        });
    }
    let replies = clients.join_all().await;
    let answers: Vec<Value> = replies.iter().map(Reply::json).collect();
    assert!(replies.iter().all(|reply| reply.status == 202), "{answers:?}");
    let first: Vec<_> = answers.iter().filter(|answer| answer["replayed"] == false).collect();
    assert_eq!(first.len(), 1, "{first:?}");
    for answer in &answers {
        assert_eq!((&answer["id"], &answer["position"]), (&first[0]["id"], &first[0]["position"]));
    }
    let history = control.history().await;
    assert_eq!(history.len(), 1, "{history:?}");

    // The key in its other form, quoted, is the same key; with another order it is refused.
    let quoted = control.try_purge(&json!({"tag": "a"}), "", Some("\"one-key\"")).await.unwrap();
    assert_eq!(quoted.json()["id"], first[0]["id"], "{quoted:?}");
    let other = control.try_purge(&json!({"tag": "b"}), "", Some("one-key")).await.unwrap();
    assert_eq!((other.status.as_u16(), other.code()), (422, "idempotency_mismatch".to_owned()));
    assert_eq!(control.history().await.len(), 1);
}

/// Writers that never give up, and a control node that dies again and again: each order is in the
/// history once, whatever answers were lost on the way.
#[tokio::test]
async fn no_purge_is_lost_or_doubled_while_the_control_node_is_killed_again_and_again() {
    LocalSet::new().run_until(writing_while_killing()).await;
}

async fn writing_while_killing() {
    const WRITERS: usize = 8;
    const DEATHS: usize = 10;
    let mut cluster = Cluster::start(&["--regions", "fra"]).await;
    let control = Control::of(&cluster);
    let enough = CancellationToken::new();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn_local(write(control.clone(), writer, enough.clone()));
    }
    for _ in 0..DEATHS {
        let before = control.history().await.len();
        let what = "purges are accepted";
        eventually(what, PATIENCE, async || {
            (control.history().await.len() > before + WRITERS).then_some(())
        })
        .await;
        let killed = cluster.kill("control-1");
        cluster.restarted(&killed).await;
    }
    enough.cancel();
    let accepted: Vec<(String, String)> = writers.join_all().await.into_iter().flatten().collect();

    let history = control.history().await;
    let mut tags: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for purge in &history {
        let tag = purge["selectors"][0]["tag"].as_str().unwrap();
        tags.entry(tag).or_default().push(purge["id"].as_str().unwrap());
    }
    assert_eq!(tags.len(), history.len(), "something was purged twice");
    assert_eq!(accepted.len(), history.len(), "every order was answered in the end");
    for (tag, id) in &accepted {
        assert_eq!(tags.get(tag.as_str()), Some(&vec![id.as_str()]), "{tag}");
    }
    let positions: Vec<_> = history.iter().map(|purge| purge["position"].as_str()).collect();
    assert!(positions.is_sorted() && accepted.len() > DEATHS * WRITERS, "{positions:?}");
    control.purge_everywhere(&json!({"tag": "last"})).await;
}

/// Orders one purge after the other, each with a key of its own and until it is accepted; tags
/// and ids.
async fn write(
    control: Control,
    writer: usize,
    enough: CancellationToken,
) -> Vec<(String, String)> {
    let mut accepted = Vec::new();
    while !enough.is_cancelled() {
        let tag = format!("{writer}-{}", accepted.len());
        let id = eventually(format!("{tag} is accepted"), PATIENCE, async || {
            let reply = control.try_purge(&json!({"tag": tag}), "", Some(&tag)).await.ok()?;
            match reply.status.as_u16() {
                202 => Some(reply.json()["id"].as_str().unwrap().to_owned()),
                503 | 504 => None, // it is ending, or does not know what became of it
                _ => panic!("{tag}: {reply:?}"),
            }
        })
        .await;
        accepted.push((tag, id));
    }
    accepted
}

/// What an edge missed it gets exactly: the purged half is gone, the other half is still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_missed_a_hundred_thousand_purges_catches_up_exactly() {
    const PAGES: usize = 100;
    const ALONE: usize = 10_000;
    const BATCHES: usize = 90;
    const BATCH: usize = 1_000;
    let origin = ScriptedOrigin::start().await;
    let cluster = Cluster::start(&[&origin.url(), "--regions", "fra,nrt"]).await;
    let control = Control::of(&cluster);
    let away = cluster.edge("nrt");
    let paths: Vec<String> = (0..PAGES).map(|at| format!("/page/{at}")).collect();
    for (at, path) in paths.iter().enumerate() {
        script(&origin, path, &format!("page-{at}"));
        warm(&away, path).await;
    }

    net(&cluster, &["cut", &away.name, "control"]).await;
    // Every other page: half of these alone, half of them in a batch.
    let mut alone: Vec<String> = (0..PAGES).step_by(4).map(|at| format!("page-{at}")).collect();
    alone.extend((alone.len()..ALONE).map(|at| format!("alone-{at}")));
    order_alone(&control, alone).await;
    let mut of_pages = (2..PAGES).step_by(4).map(|at| format!("page-{at}"));
    let batches = (0..BATCHES).map(|batch| {
        let others = (0..).map(|at| format!("batch-{batch}-{at}"));
        let tags = of_pages.next().into_iter().chain(others).take(BATCH);
        json!({"selectors": tags.map(|tag| json!({"tag": tag})).collect::<Vec<_>>()})
    });
    control.purge_in_turn(batches).await;
    let last = control.purge(&json!({"tag": "last"}), "ack=none").await;
    for path in &paths {
        assert!(is_hit(&get(&away, path).await), "{path}: it cannot know of any purge");
    }

    net(&cluster, &["heal"]).await;
    let began = Instant::now();
    control.applied_everywhere(last["id"].as_str().unwrap(), PATIENCE).await;
    eprintln!("caught up in {:?}", began.elapsed());
    for (at, path) in paths.iter().enumerate() {
        let reply = get(&away, path).await;
        assert_eq!(is_hit(&reply), at % 2 == 1, "{path}: {reply:?}");
    }
    let applied = metric(away.admin(), "edge_purge_operations_total").await;
    assert_eq!(applied, (ALONE + BATCHES + 1) as f64, "each once");
    assert_eq!(metric(away.admin(), "edge_purge_drops_total").await, 0.0);
}

/// Purges each tag by an order of its own, many at the same time.
async fn order_alone(control: &Control, tags: Vec<String>) {
    const WRITERS: usize = 32;
    let mut writers = JoinSet::new();
    for share in tags.chunks(tags.len().div_ceil(WRITERS)) {
        let (control, share) = (control.clone(), share.to_vec());
        writers.spawn(async move {
            control.purge_in_turn(share.into_iter().map(|tag| json!({"tag": tag}))).await;
        });
    }
    writers.join_all().await;
}

/// A control node that comes back as it was at an earlier time does not know what it has said since:
/// edges drop everything, once. One that comes back as it was changes nothing.
#[tokio::test]
async fn edges_drop_everything_once_when_the_control_node_is_restored_from_an_older_copy() {
    let origin = ScriptedOrigin::start().await;
    script(&origin, "/page", "page");
    let mut cluster = Cluster::start(&[&origin.url(), "--regions", "fra,iad"]).await;
    let control = Control::of(&cluster);
    let edges = cluster.file().edges;
    for edge in &edges {
        warm(edge, "/page").await;
    }
    control.purge_everywhere(&json!({"tag": "before-the-copy"})).await;
    let killed = cluster.kill("control-1");
    let control_node = cluster.restarted(&killed).await;
    control.purge_everywhere(&json!({"tag": "after-a-restart"})).await;
    for edge in &edges {
        assert!(is_hit(&get(edge, "/page").await), "a restart alone costs nothing");
    }

    let data = cluster.dir().join("data").join("control-1");
    let older = cluster.dir().join("older");
    let frozen = freeze(control_node.pid.unwrap());
    copy(&data, &older);
    drop(frozen);
    control.purge_everywhere(&json!({"tag": "after-the-copy"})).await;
    let frozen = freeze(control_node.pid.unwrap());
    std::fs::rename(&data, cluster.dir().join("newer")).unwrap();
    std::fs::rename(&older, &data).unwrap();
    send(control_node.pid.unwrap(), Signal::KILL);
    drop(frozen);
    cluster.restarted(&control_node).await;

    for edge in &edges {
        eventually("everything is dropped", PATIENCE, async || {
            (!is_hit(&get(edge, "/page").await)).then_some(())
        })
        .await;
    }
    control.purge_everywhere(&json!({"tag": "after-the-restore"})).await;
    for edge in &edges {
        assert!(is_hit(&get(edge, "/page").await), "it was dropped more than once");
    }
    assert_eq!(origin.count("/page"), 2 * edges.len());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    let entries = std::fs::read_dir(from).unwrap();
    let files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "{} is empty", from.display());
    for file in files {
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}
