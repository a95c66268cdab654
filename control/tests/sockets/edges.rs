//! Edges register, beat, lapse, return, leave.

use std::collections::BTreeSet;

use serde_json::json;

use crate::kit::{
    EDGE, FakeEdge, OPERATOR, Replica, ask, count, eventually, ms, ping, register, registration,
};

#[tokio::test]
async fn an_edge_registers_and_beats_and_is_listed_with_what_it_told() {
    let replica = Replica::start().await;
    assert_eq!(replica.get("/v1/edges").await.json(), json!({ "edges": [] }));

    let answer = register(replica.address, &registration("fra-1", "fra")).await;
    assert_eq!(answer.status, 201);
    let registered = answer.json();
    assert_eq!((&registered["id"], &registered["beat_ms"]), (&json!("fra-1"), &json!(500)));
    let secret = registered["secret"].as_str().unwrap();
    assert_eq!(secret.len(), 64);

    assert_eq!(ping(replica.address, "fra-1", secret, 1).send().await.status, 200);
    let mut edge = replica.edge("fra-1").await.unwrap();
    assert!(edge["heard_ms_ago"].as_u64().unwrap() < 2_000);
    edge["heard_ms_ago"] = json!(0);
    let want = json!({
        "id": "fra-1", "name": "fra-1", "region": "fra", "city": "Frankfurt",
        "location": [50.03, 8.57], "url": "http://fra-1.example:8080",
        "admin": "http://127.0.0.1:1", "state": "healthy", "heard_ms_ago": 0, "intent": "active",
        "active_requests": 3, "requests_total": 1_001, "store_bytes": 4_096, "store_entries": 7,
    });
    assert_eq!(edge, want);
    assert_eq!(replica.metric("control_beats_total").await, 1.0);
    assert_eq!(replica.metric("control_registrations_total").await, 1.0);
    assert_eq!(replica.metric(r#"control_edges{state="healthy"}"#).await, 1.0);
    replica.stop().await;
}

#[tokio::test]
async fn only_a_token_of_scope_edge_registers() {
    let replica = Replica::start().await;
    let body = registration("fra-1", "fra");
    let post = || ask(replica.address, "POST", "/v1/edges").body(&body);
    let missing = post().send().await;
    assert_eq!((missing.status, missing.code().as_str()), (401, "unauthorized"));
    assert_eq!(missing.header("www-authenticate"), "Bearer");
    let wrong = post().bearer("0123456789abcdef").send().await;
    assert_eq!((wrong.status, wrong.code().as_str()), (401, "unauthorized"));
    let other = post().bearer(OPERATOR).send().await;
    assert_eq!((other.status, other.code().as_str()), (403, "forbidden"));
    assert_eq!(replica.edge("fra-1").await, None);
    let errors = replica.metric(r#"control_errors_total{code="unauthorized"}"#).await;
    assert_eq!(errors, 2.0);
    assert_eq!(post().bearer(EDGE).send().await.status, 201);
    replica.stop().await;
}

#[tokio::test]
async fn a_registration_that_breaks_a_rule_is_refused_and_says_which() {
    let replica = Replica::start().await;
    let good = registration("fra-1", "fra");
    let rows = [
        ("name", json!("Fra 1"), "must be 1-63"),
        ("region", json!(""), "must be 1-63"),
        ("location", json!([91.0, 0.0]), "location"),
        ("url", json!("http://a/\r\nSet-Cookie: x"), "scheme://host"),
        ("admin", json!("http://a@b"), "scheme://host"),
        ("city", json!("x".repeat(129)), "city"),
    ];
    for (field, value, want) in rows {
        let mut body = good.clone();
        body[field] = value;
        let answer = register(replica.address, &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{field}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(want), "{answer:?}");
    }
    for body in ["", "{", "[]", "null", "\u{0}", "{\"name\":\"fra-1\"}"] {
        let post = ask(replica.address, "POST", "/v1/edges").bearer(EDGE).body(body);
        assert_eq!(post.send().await.code(), "bad_request", "{body:?}");
    }
    assert_eq!(replica.get("/v1/edges").await.json()["edges"], json!([]));
    replica.stop().await;
}

#[tokio::test]
async fn only_the_latest_secret_of_that_edge_makes_a_beat_count() {
    let replica = Replica::start().await;
    let first = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let other = FakeEdge::start(replica.address, "nrt-1", "nrt").await;
    let beat = async |secret: &str| {
        let answer = ping(replica.address, "fra-1", secret, 1_000).send().await;
        (answer.status, if answer.status == 200 { String::new() } else { answer.code() })
    };
    assert_eq!(beat(&other.secret).await, (403, "forbidden".to_owned()));
    assert_eq!(beat(EDGE).await, (403, "forbidden".to_owned()));
    assert_eq!(beat("").await, (401, "unauthorized".to_owned()));

    // It restarts elsewhere: addresses and secret are replaced.
    let mut moved = registration("fra-1", "fra");
    moved["url"] = json!("http://moved.example");
    let answer = register(replica.address, &moved).await;
    assert_eq!(answer.status, 200);
    let second = answer.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!(replica.edge("fra-1").await.unwrap()["url"], "http://moved.example");
    assert_eq!(beat(&first.secret).await, (403, "forbidden".to_owned()));
    assert_eq!(beat(&second).await, (200, String::new()));

    let stranger = ping(replica.address, "syd-1", &second, 1).send().await;
    assert_eq!((stranger.status, stranger.code().as_str()), (401, "unknown_edge"));
    replica.stop().await;
}

#[tokio::test]
async fn a_late_copy_of_a_beat_changes_nothing() {
    let replica = Replica::start().await;
    let answer = register(replica.address, &registration("fra-1", "fra")).await;
    let secret = answer.json()["secret"].as_str().unwrap().to_owned();
    let total = async || replica.edge("fra-1").await.unwrap()["requests_total"].clone();
    for (sequence, want) in [(7, 1_007), (7, 1_007), (3, 1_007), (8, 1_008)] {
        assert_eq!(ping(replica.address, "fra-1", &secret, sequence).send().await.status, 200);
        assert_eq!(total().await, want);
    }
    assert_eq!(replica.metric("control_late_beats_total").await, 2.0);
    // A new registration counts from anew.
    let answer = register(replica.address, &registration("fra-1", "fra")).await;
    let secret = answer.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!(ping(replica.address, "fra-1", &secret, 1).send().await.status, 200);
    assert_eq!(total().await, 1_001);
    replica.stop().await;
}

#[tokio::test]
async fn an_edge_that_falls_silent_is_unhealthy_and_returns_by_beating() {
    let replica = Replica::start_with(|config| config.health.edge_lapse = ms(500)).await;
    let mut edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    replica.until_state("fra-1", "healthy").await;
    edge.die();
    replica.until_state("fra-1", "unhealthy").await;
    let turned = r#"control_edge_turns_total{state="unhealthy"}"#;
    let counted = async || (replica.metric(turned).await >= 1.0).then_some(());
    eventually("the turn is counted", counted).await;

    // The first beat is a sign of life, not of health: also when it registers again.
    let again = register(replica.address, &registration("fra-1", "fra")).await;
    assert_eq!(replica.edge("fra-1").await.unwrap()["state"], "unhealthy");
    edge.secret = again.json()["secret"].as_str().unwrap().to_owned();
    edge.live(replica.address, 1);
    replica.until_state("fra-1", "healthy").await;
    replica.stop().await;
}

#[tokio::test]
async fn an_edge_that_stays_away_leaves_the_register_for_good() {
    let replica = Replica::start_with(|config| {
        config.health.edge_lapse = ms(100);
        config.health.edge_expiry = ms(400);
    })
    .await;
    let mut gone = FakeEdge::start(replica.address, "fra-1", "fra").await;
    gone.die();
    let left = async || replica.edge("fra-1").await.is_none().then_some(());
    eventually("fra-1 leaves", left).await;
    let beat = ping(replica.address, "fra-1", &gone.secret, 99).send().await;
    assert_eq!((beat.status, beat.code().as_str()), (401, "unknown_edge"));
    let replica = replica.pause().await.resume().await;
    assert_eq!(replica.edge("fra-1").await, None);
    replica.stop().await;
}

#[tokio::test]
async fn an_operator_removes_an_edge() {
    let replica = Replica::start().await;
    let mut edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    edge.die();
    let delete = |id: &str| ask(replica.address, "DELETE", &format!("/v1/edges/{id}"));
    assert_eq!(delete("fra-1").send().await.code(), "unauthorized");
    assert_eq!(delete("fra-1").bearer(EDGE).send().await.code(), "forbidden");
    assert_eq!(delete("syd-1").bearer(OPERATOR).send().await.code(), "not_found");
    assert_eq!(delete("..%2f").bearer(OPERATOR).send().await.code(), "not_found");
    assert_eq!(delete("fra-1").bearer(OPERATOR).send().await.status, 204);
    assert_eq!(replica.edge("fra-1").await, None);
    assert_eq!(delete("fra-1").bearer(OPERATOR).send().await.code(), "not_found");
    let replica = replica.pause().await.resume().await;
    assert_eq!(replica.edge("fra-1").await, None);
    replica.stop().await;
}

#[tokio::test]
async fn a_full_register_takes_no_new_name_but_known_ones() {
    let replica = Replica::start_with(|config| config.limits.max_edges = count(2)).await;
    for name in ["a", "b"] {
        assert_eq!(register(replica.address, &registration(name, "fra")).await.status, 201);
    }
    let third = register(replica.address, &registration("c", "fra")).await;
    assert_eq!((third.status, third.code().as_str()), (503, "register_full"));
    assert_eq!(third.header("retry-after"), "1");
    assert_eq!(register(replica.address, &registration("a", "fra")).await.status, 200);
    let delete = ask(replica.address, "DELETE", "/v1/edges/b").bearer(OPERATOR);
    assert_eq!(delete.send().await.status, 204);
    assert_eq!(register(replica.address, &registration("c", "fra")).await.status, 201);
    replica.stop().await;
}

#[tokio::test]
async fn after_a_restart_edges_are_known_and_one_beat_proves_them() {
    let replica = Replica::start().await;
    let mut alive = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let mut dead = FakeEdge::start(replica.address, "nrt-1", "nrt").await;
    alive.die();
    dead.die();
    let replica = replica.pause().await.resume().await;
    let edge = replica.edge("fra-1").await.unwrap();
    assert_eq!(edge["url"], "http://fra-1.example:8080");
    assert_eq!((&edge["state"], &edge["heard_ms_ago"]), (&json!("unhealthy"), &json!(null)));

    let beat = ping(replica.address, "fra-1", &alive.secret, 1).send().await;
    assert_eq!(beat.status, 200, "the secret of before the restart is still good");
    assert_eq!(replica.edge("fra-1").await.unwrap()["state"], "healthy");
    let told = async || replica.edge("nrt-1").await.unwrap()["heard_ms_ago"].as_u64();
    eventually("the silence of nrt-1 is certain", told).await;
    assert_eq!(replica.edge("nrt-1").await.unwrap()["state"], "unhealthy");
    replica.stop().await;
}

#[tokio::test]
async fn an_edge_that_was_dead_before_a_restart_is_not_healthy_by_its_first_beat_after() {
    let replica = Replica::start_with(|config| config.health.edge_lapse = ms(300)).await;
    let mut edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    edge.die();
    replica.until_state("fra-1", "unhealthy").await;
    let recorded = async || {
        let status = replica.get("/v1/status").await.json();
        (status["store"]["position"] == 2).then_some(()) // the registration, then the loss
    };
    eventually("the loss is recorded", recorded).await;
    let replica = replica.pause().await.resume().await;
    let silence = replica.edge("fra-1").await.unwrap()["heard_ms_ago"].as_u64();
    assert!(silence.is_some_and(|ms| ms >= 300), "it counts on: {silence:?}");
    assert_eq!(ping(replica.address, "fra-1", &edge.secret, 1).send().await.status, 200);
    assert_eq!(replica.edge("fra-1").await.unwrap()["state"], "unhealthy");
    edge.live(replica.address, 2);
    replica.until_state("fra-1", "healthy").await;
    replica.stop().await;
}

#[tokio::test]
async fn of_concurrent_registrations_under_one_name_one_secret_is_good_also_on_disk() {
    let replica = Replica::start().await;
    let address = replica.address;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..30 {
        tasks.spawn(async move {
            let answer = register(address, &registration("fra-1", "fra")).await;
            (answer.status, answer.json()["secret"].as_str().unwrap().to_owned())
        });
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 201).count(), 1);
    let secrets: BTreeSet<&String> = answers.iter().map(|(_, secret)| secret).collect();
    assert_eq!(secrets.len(), 30);
    let good = async |address, sequence| {
        let mut good = Vec::new();
        for secret in &secrets {
            if ping(address, "fra-1", secret, sequence).send().await.status == 200 {
                good.push((*secret).clone());
            }
        }
        good
    };
    let before = good(replica.address, 1).await;
    assert_eq!(before.len(), 1);
    let replica = replica.pause().await.resume().await;
    assert_eq!(good(replica.address, 2).await, before);
    replica.stop().await;
}
