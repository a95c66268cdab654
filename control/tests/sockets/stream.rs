//! The stream: exactly what an edge misses, in order, or what stands for it.

use std::path::Path;

use meridian_control_wire::frame::{ByeReason, Frame};
use serde_json::json;

use crate::kit::{FakeEdge, OPERATOR, Replica, ask, count, eventually, ms, ping};
use crate::listening::{Listening, ack};

async fn purge(replica: &Replica, tag: &str) -> String {
    let answer = replica.purge("/v1/purges", json!({ "tag": tag })).send().await;
    assert_eq!(answer.status, 202, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_edge_gets_what_it_misses_once_and_in_order() {
    let replica = Replica::start().await;
    let edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    purge(&replica, "before").await;
    let mut stream = Listening::open(replica.address, &edge, None).await;
    let (frames, present) = stream.until_bookmark().await;
    assert_eq!(frames, [], "an empty edge needs no past");
    let live = purge(&replica, "live").await;
    let (id, cursor) = stream.purge().await;
    assert_eq!(id, live);
    drop(stream);
    let mut missed = Vec::new();
    for n in 0..5 {
        missed.push(purge(&replica, &format!("t{n}")).await);
    }
    // Also over a restart: what was kept in memory only is gone.
    for replica_again in 0..2 {
        let mut stream = Listening::open(replica.address, &edge, Some(&cursor)).await;
        for want in &missed {
            assert_eq!(stream.purge().await.0, *want, "{replica_again}");
        }
    }
    let replica = replica.pause().await.resume().await;
    let mut stream = Listening::open(replica.address, &edge, Some(&present)).await;
    let mut want = vec![live];
    want.extend(missed);
    for want in want {
        assert_eq!(stream.purge().await.0, want);
    }
    let (frames, end) = stream.until_bookmark().await;
    assert_eq!(frames, []);
    // The pong of a ping is the cursor of everything that was acknowledged before it.
    let pong = ping(replica.address, "fra-1", &edge.secret, 1 << 40).send().await;
    assert_eq!((pong.status, pong.json()["cursor"].clone()), (200, json!(end)));
    replica.stop().await;
}

#[tokio::test]
async fn bookmarks_come_at_every_heartbeat_and_the_stream_says_good_bye() {
    let replica = Replica::start_with(|config| config.stream.heartbeat = ms(20)).await;
    let edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let mut first = Listening::open(replica.address, &edge, None).await;
    for _ in 0..5 {
        assert!(matches!(first.next().await, Some(Frame::Bookmark { .. })));
    }
    let said = async |stream: &mut Listening| match stream.news().await {
        Frame::Bye(bye) => bye.reason,
        other => panic!("{other:?}"),
    };
    let mut second = Listening::open(replica.address, &edge, None).await;
    assert_eq!(said(&mut first).await, ByeReason::Replaced);
    assert_eq!(first.next().await, None);
    let struck = ask(replica.address, "DELETE", "/v1/edges/fra-1").bearer(OPERATOR).send().await;
    assert_eq!(struck.status, 204);
    assert_eq!(said(&mut second).await, ByeReason::Unregistered);
    let edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let mut third = Listening::open(replica.address, &edge, None).await;
    let (reason, _) = tokio::join!(said(&mut third), replica.stop());
    assert_eq!(reason, ByeReason::Stopping);
}

#[tokio::test]
async fn only_the_edge_itself_may_follow_and_acknowledge() {
    let replica = Replica::start().await;
    let edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let other = FakeEdge::start(replica.address, "nrt-1", "nrt").await;
    let rows = [
        (Some(other.secret.as_str()), "fra-1", "forbidden"),
        (Some(OPERATOR), "fra-1", "forbidden"),
        (None, "fra-1", "unauthorized"),
        (Some(edge.secret.as_str()), "nobody", "unknown_edge"),
    ];
    for (secret, name, code) in rows {
        for (method, what) in [("GET", "stream"), ("POST", "ack")] {
            let mut asked = ask(replica.address, method, &format!("/v1/edge/{name}/{what}"));
            if let Some(secret) = secret {
                asked = asked.bearer(secret);
            }
            assert_eq!(asked.send().await.code(), code, "{name} {what}");
        }
    }
    for cursor in ["x", "a b", ""] {
        let answer = ack(replica.address, &edge, cursor).await;
        assert_eq!(answer.code(), "bad_request", "{cursor:?}");
    }
    let bad = ask(replica.address, "GET", "/v1/edge/fra-1/stream").bearer(&edge.secret);
    assert_eq!(bad.header("last-event-id", "a b").send().await.code(), "bad_request");
    let post = ask(replica.address, "POST", "/v1/edge/fra-1/stream").send().await;
    assert_eq!((post.status, post.header("allow")), (405, "GET"));
    replica.stop().await;
}

/// What a stream that begins with a snapshot says of it, and what comes behind.
async fn snapshot(stream: &mut Listening) -> (bool, Vec<String>, Vec<Frame>) {
    let begin = stream.news().await;
    let Frame::SnapBegin { cursor: to, purge_all } = begin else { panic!("{begin:?}") };
    let mut items = Vec::new();
    loop {
        match stream.news().await {
            Frame::SnapItem(item) => items.push(serde_json::to_string(&item.selectors).unwrap()),
            Frame::SnapEnd { cursor } => {
                assert_eq!(cursor, to);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    items.sort();
    (purge_all, items, stream.until_bookmark().await.0)
}

#[tokio::test]
async fn an_edge_that_was_away_for_too_long_gets_a_snapshot_or_drops_everything() {
    let replica = Replica::start_with(|config| {
        config.journal.keep = count(4);
        config.journal.max_folded = count(3);
    })
    .await;
    let edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let mut stream = Listening::open(replica.address, &edge, None).await;
    let (_, start) = stream.until_bookmark().await;
    let mut cursors = Vec::new();
    for tag in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        purge(&replica, tag).await;
        cursors.push(stream.purge().await.1);
    }
    drop(stream);
    // a to d are folded, of which a is forgotten; e to h are in the log. Memory would still know.
    let replica = replica.pause().await.resume().await;
    let mut stream = Listening::open(replica.address, &edge, Some(&cursors[1])).await;
    let (purge_all, items, rest) = snapshot(&mut stream).await;
    assert_eq!(
        (purge_all, items),
        (false, vec![r#"[{"tag":"c"}]"#.into(), r#"[{"tag":"d"}]"#.into()])
    );
    let tags = |frames: &[Frame]| -> String {
        frames
            .iter()
            .map(|frame| match frame {
                Frame::Op { operation, .. } => format!("{:?}", operation.selectors),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(tags(&rest), r#"[Tag("e")][Tag("f")][Tag("g")][Tag("h")]"#);
    let mut stream = Listening::open(replica.address, &edge, Some(&start)).await;
    let (purge_all, items, rest) = snapshot(&mut stream).await;
    assert_eq!((purge_all, items.len()), (true, 0));
    assert_eq!(tags(&rest), r#"[Tag("e")][Tag("f")][Tag("g")][Tag("h")]"#);
    // What the log still has comes from it.
    let replica = replica.pause().await.resume().await;
    let mut stream = Listening::open(replica.address, &edge, Some(&cursors[5])).await;
    assert_eq!(tags(&stream.until_bookmark().await.0), r#"[Tag("g")][Tag("h")]"#);
    replica.stop().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test]
async fn a_replica_restored_from_an_older_copy_makes_edges_drop_everything_once() {
    let replica = Replica::start().await;
    let edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let mut stream = Listening::open(replica.address, &edge, None).await;
    purge(&replica, "shared").await;
    let (_, shared) = stream.purge().await;
    let (paused, _) =
        tokio::join!(replica.pause(), async { while stream.next().await.is_some() {} });
    let (data, backup) = (paused.config.data.clone(), paused.folder.path().join("backup"));
    copy(&data, &backup);
    let replica = paused.resume().await;
    let mut stream = Listening::open(replica.address, &edge, Some(&shared)).await;
    for tag in ["lost", "too"] {
        purge(&replica, tag).await;
    }
    let (_, lost) = stream.purge().await;
    drop(stream);
    let paused = replica.pause().await;
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    let replica = paused.resume().await;
    // It accepts more than was lost: numbers alone would tell nothing.
    for tag in ["x", "y", "z"] {
        purge(&replica, tag).await;
    }
    assert_eq!(ack(replica.address, &edge, &lost).await.code(), "bad_request");
    let mut stream = Listening::open(replica.address, &edge, Some(&lost)).await;
    let begin = stream.news().await;
    assert!(matches!(begin, Frame::SnapBegin { purge_all: true, .. }), "{begin:?}");
    let end = stream.news().await;
    let Frame::SnapEnd { cursor } = end else { panic!("{end:?}") };
    // Once: from there on it is at home. An edge of the shared past gets exactly what it misses.
    let mut stream = Listening::open(replica.address, &edge, Some(cursor.as_str())).await;
    assert_eq!(stream.until_bookmark().await.0, []);
    let mut stream = Listening::open(replica.address, &edge, Some(&shared)).await;
    assert_eq!(stream.until_bookmark().await.0.len(), 3);
    replica.stop().await;
}

#[tokio::test]
async fn a_slow_edge_is_told_to_come_again_and_holds_nobody_up() {
    let replica = Replica::start_with(|config| {
        config.stream.queue = count(1);
        config.stream.patience = ms(100);
    })
    .await;
    let slow = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let quick = FakeEdge::start(replica.address, "nrt-1", "nrt").await;
    let mut sleeper = Listening::open(replica.address, &slow, None).await;
    let mut reader = Listening::open(replica.address, &quick, None).await;
    // More than sockets and the queue hold.
    let order = json!({"selectors": vec![json!({"tag": "x".repeat(400)}); 1_000]});
    for _ in 0..40 {
        let answer = replica.purge("/v1/purges", order.clone()).send().await;
        assert_eq!(answer.status, 202, "{answer:?}");
        reader.purge().await;
    }
    let name = r#"control_stream_byes_total{reason="slow"}"#;
    let told = async || (replica.metric(name).await > 0.0).then_some(());
    eventually("the slow one is told", told).await;
    let mut seen = 0;
    let end = loop {
        match sleeper.next().await {
            Some(Frame::Op { .. }) => seen += 1,
            Some(Frame::Bookmark { .. }) => {}
            other => break other,
        }
    };
    assert!(seen < 40, "it got all of them");
    // Cut off or told, as far as its own buffers still held the word.
    assert!(
        end.as_ref()
            .is_none_or(|frame| matches!(frame, Frame::Bye(bye) if bye.reason == ByeReason::Slow)),
        "{end:?}"
    );
    replica.stop().await;
}
