//! Purges are ordered once, kept, told, and followed to the edges.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kit::{EDGE, FakeEdge, OPERATOR, PURGER, Replica, ask, is_ordered_elsewhere, now};
use crate::listening::{Listening, ack};

#[tokio::test]
async fn an_order_is_answered_listed_and_looked_up() {
    let replica = Replica::start().await;
    let answer = replica.purge("/v1/purges", json!({"tag": "a", "soft": true})).send().await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let first = answer.json();
    assert_eq!(first["replayed"], false);
    assert_eq!(first["edges"], json!({"total": 0, "acked": 0, "pending": [], "lapsed": []}));
    let level = answer.header("meridian-consistency");
    let basis = if is_ordered_elsewhere() { "etcd; term=" } else { "fsync; position=" };
    assert!(level.starts_with(&format!("level=committed; basis={basis}")), "{level}");
    let order = json!({"selectors": [{"url": "/a"}, {"prefix": "http://h/img/"}]});
    let second = replica.purge("/v1/purges", order).send().await.json();
    assert!(second["position"].as_str() > first["position"].as_str());
    let answer = replica.get("/v1/purges").await;
    assert!(answer.header("meridian-consistency").starts_with("level=linearizable; "));
    let history = answer.json();
    assert_eq!(history["next"], Value::Null);
    let purges = history["purges"].as_array().unwrap();
    assert_eq!(purges.len(), 2);
    assert_eq!(purges[0]["id"], first["id"]);
    assert_eq!(purges[0]["soft"], true);
    assert_eq!(purges[0]["by"], "ci");
    assert!(purges[0]["at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(purges[1]["selectors"], json!([{"url": "/a"}, {"prefix": "h/img/"}]));
    let after = first["position"].as_str().unwrap();
    let rest = replica.get(&format!("/v1/purges?after={after}")).await.json();
    assert_eq!(rest["purges"].as_array().unwrap().len(), 1);
    let one = replica.get(&format!("/v1/purges/{}", second["id"].as_str().unwrap())).await.json();
    assert_eq!(one["position"], second["position"]);
    replica.stop().await;
}

#[tokio::test]
async fn what_is_no_order_is_told_why_and_changes_nothing() {
    let replica = Replica::start().await;
    let tag = |n: usize| json!({"tag": "x".repeat(n)});
    let many = json!({"selectors": vec![json!({"tag": "a"}); 10_000]});
    let rows = [
        ("", json!({}), 400, "bad_request"),
        ("", json!({"soft": true}), 400, "bad_request"),
        ("", json!({"tga": "a"}), 400, "bad_request"),
        ("", tag(10_000), 400, "bad_request"),
        ("", tag(1_025), 400, "bad_request"),
        ("", many, 400, "bad_request"),
        ("", tag(2 << 20), 413, "too_large"),
        ("?ack=some", json!({"tag": "a"}), 400, "bad_request"),
        ("?ack=region:nrt", json!({"tag": "a"}), 400, "bad_request"),
        ("?ack=region:N%20", json!({"tag": "a"}), 400, "bad_request"),
        ("?timeout=soon", json!({"tag": "a"}), 400, "bad_request"),
        ("?timeout=2h", json!({"tag": "a"}), 400, "bad_request"),
    ];
    for (query, order, status, code) in rows {
        let target = format!("/v1/purges{query}");
        let answer = replica.purge(&target, order).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{answer:?}");
    }
    let order = |secret| ask(replica.address, "POST", "/v1/purges").bearer(secret).body("{}");
    assert_eq!(order(OPERATOR).send().await.code(), "forbidden");
    assert_eq!(order(EDGE).send().await.code(), "forbidden");
    assert_eq!(order("nobody-0123456789").send().await.code(), "unauthorized");
    for key in ["", "a b", "\"a", &"x".repeat(256)] {
        let answer = order(PURGER).header("idempotency-key", key).send().await;
        assert_eq!(answer.code(), "bad_request", "{key:?}");
    }
    for level in ["one", "quorum", "all"] {
        let answer = order(PURGER).header("consistency", level).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (501, "not_offered"));
    }
    for target in ["/v1/purges?after=x", "/v1/purges?after="] {
        assert_eq!(replica.get(target).await.status, 400, "{target}");
    }
    for id in ["1-0", "zz", "0-0", "ffffffffffffffff-0"] {
        assert_eq!(replica.get(&format!("/v1/purges/{id}")).await.status, 404, "{id}");
    }
    assert!(replica.history().await.is_empty());
    replica.stop().await;
}

#[tokio::test]
async fn a_hundred_clients_with_one_key_have_one_effect_and_one_answer() {
    let replica = Replica::start().await;
    let order = || {
        let order = replica.purge("/v1/purges", json!({"tag": "a"}));
        order.header("idempotency-key", "\"deploy-17\"").send()
    };
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..100 {
        clients.spawn(order());
    }
    let answers: Vec<_> = clients.join_all().await;
    let ids: BTreeSet<String> = answers.iter().map(|a| a.json()["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    let replayed = |answer: &&crate::kit::Answer| answer.json()["replayed"] == true;
    assert_eq!(answers.iter().filter(replayed).count(), 99);
    for answer in &answers {
        let marked = answer.header("idempotency-replayed") == "true";
        assert_eq!(marked, answer.json()["replayed"] == true);
    }
    assert_eq!(replica.history().await.len(), 1);
    replica.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_purges_keys_and_registers() {
    let replica = Replica::start().await;
    let keyed = |replica: &Replica, key: &str, tag: &str| {
        replica.purge("/v1/purges", json!({"tag": tag})).header("idempotency-key", key).send()
    };
    let first = keyed(&replica, "k", "a").await.json();
    let unkeyed = replica.purge("/v1/purges", json!({"tag": "a"})).send().await.json();
    assert_ne!(unkeyed["id"], first["id"]);
    let replica = replica.pause().await.resume().await;
    let again = keyed(&replica, "\"k\"", "a").await; // quoted is the same key
    assert_eq!((again.status, again.json()["id"].clone()), (202, first["id"].clone()));
    assert_eq!(again.json()["position"], first["position"]);
    assert_eq!(again.json()["replayed"], true);
    let other = keyed(&replica, "k", "b").await;
    assert_eq!((other.status, other.code().as_str()), (422, "idempotency_mismatch"));
    let third = keyed(&replica, "l", "b").await.json();
    assert!(third["position"].as_str() > unkeyed["position"].as_str());
    assert_eq!(replica.history().await.len(), 3);
    replica.stop().await;
}

#[tokio::test]
async fn a_key_expires() {
    let replica =
        Replica::start_with(|config| config.journal.key_expiry = crate::kit::ms(10)).await;
    let order =
        || replica.purge("/v1/purges", json!({"tag": "a"})).header("idempotency-key", "k").send();
    let first = order().await.json()["id"].clone();
    let fresh = async || Some(order().await.json()).filter(|answer| answer["id"] != first);
    let second = crate::kit::eventually("the key expires", fresh).await;
    assert_eq!(second["replayed"], false);
    replica.stop().await;
}

#[tokio::test]
async fn an_answer_waits_for_the_edges_it_asks_for_and_names_the_others() {
    let replica = Replica::start().await;
    let address = replica.address;
    let fra = FakeEdge::start(address, "fra-1", "fra").await;
    let nrt = FakeEdge::start(address, "nrt-1", "nrt").await;
    let iad = FakeEdge::start(address, "iad-1", "iad").await;
    let mut streams = Vec::new();
    for edge in [&fra, &nrt, &iad] {
        streams.push(Listening::open(address, edge, None).await);
    }
    let start = now();
    let order = replica.purge("/v1/purges?ack=effective&timeout=50ms", json!({"tag": "a"}));
    let receipt = order.send().await.json();
    assert!(start.elapsed().as_millis() >= 50);
    assert_eq!(receipt["edges"]["pending"], json!(["fra-1", "iad-1", "nrt-1"]));
    let (id, cursor) = streams[0].purge().await;
    assert_eq!(receipt["id"], id);
    // The slowest of those that a level asks for makes the answer, and nobody else.
    let wait = |level: &str| {
        let target = format!("/v1/purges?ack={level}&timeout=20s");
        let order = replica.purge(&target, json!({"tag": "a"}));
        order.header("idempotency-key", "the-same").send()
    };
    let first = replica.purge("/v1/purges", json!({"tag": "a"}));
    let first = first.header("idempotency-key", "the-same").send().await.json();
    let (id, cursor_2) = streams[0].purge().await;
    assert_eq!(first["id"], id);
    assert_eq!(ack(address, &fra, &cursor_2).await.status, 204);
    assert_eq!(ack(address, &fra, &cursor).await.status, 204); // a late copy
    assert_eq!(wait("region:fra").await.json()["edges"]["acked"], 1);
    let (answer, acked) = tokio::join!(wait("quorum"), ack(address, &nrt, &cursor_2));
    assert_eq!((acked.status, answer.json()["edges"]["acked"].clone()), (204, json!(2)));
    let (answer, acked) = tokio::join!(wait("effective"), ack(address, &iad, &cursor_2));
    assert_eq!(acked.status, 204);
    let whole = json!({"total": 3, "acked": 3, "pending": [], "lapsed": []});
    assert_eq!(answer.json()["edges"], whole);
    let one = replica.get(&format!("/v1/purges/{id}")).await.json();
    assert_eq!(one["edges"], whole);
    for delivery in one["delivery"].as_array().unwrap() {
        assert_eq!(delivery["state"], "acked");
        assert!(delivery["latency_ms"].as_f64().unwrap() > 0.0, "{delivery}");
    }
    // An edge that registers again is empty and has applied nothing yet.
    let again = FakeEdge::start(address, "fra-1", "fra").await;
    assert!(again.secret != fra.secret);
    let one = replica.get(&format!("/v1/purges/{id}")).await.json();
    assert_eq!(one["edges"]["pending"], json!(["fra-1"]));
    replica.stop().await;
}

#[tokio::test]
async fn the_history_comes_in_pages_and_ends_where_it_was_folded() {
    let replica = Replica::start_with(|config| {
        config.journal.keep = crate::kit::count(1_200);
    })
    .await;
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..1_100 {
        clients.spawn(replica.purge("/v1/purges", json!({"tag": format!("t{n}")})).send());
    }
    let answers = clients.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == 202));
    let page = replica.get("/v1/purges").await.json();
    assert_eq!(page["purges"].as_array().unwrap().len(), 1_000);
    assert_eq!(page["next"], page["purges"][999]["position"]);
    let ids: BTreeSet<String> =
        replica.history().await.iter().map(|purge| purge["id"].to_string()).collect();
    let answered: BTreeSet<String> = answers.iter().map(|a| a.json()["id"].to_string()).collect();
    assert_eq!(ids, answered);
    let oldest = page["purges"][0].clone();
    for _ in 0..200 {
        replica.purge("/v1/purges", json!({"tag": "more"})).send().await;
    }
    let gone = oldest["position"].as_str().unwrap();
    let answer = replica.get(&format!("/v1/purges?after={gone}")).await;
    assert_eq!((answer.status, answer.code().as_str()), (410, "cursor_compacted"));
    let answer = replica.get(&format!("/v1/purges/{}", oldest["id"].as_str().unwrap())).await;
    assert_eq!(answer.status, 404);
    replica.stop().await;
}
