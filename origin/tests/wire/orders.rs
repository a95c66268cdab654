//! The order book: one key, one order, whatever happens on the way.

use meridian_config::origin::{Duplicates, Orders, Origin};
use meridian_config::units::HumanDuration;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::client::Answer;
use crate::running::{Running, config, sample};

const KEY: &str = "Idempotency-Key: k-1";

/// An origin that takes orders.
async fn with_orders(change: impl FnOnce(&mut Orders)) -> Running {
    Running::start(|dir| {
        let mut orders = Orders { file: Some(dir.join("orders.redb")), ..Orders::default() };
        change(&mut orders);
        Origin { orders, ..config(sample()) }
    })
    .await
}

async fn order(origin: &Running, fields: &[&str], body: &str) -> Answer {
    let mut client = origin.client().await;
    client.post("/v1/orders", fields, body).await;
    client.answer("POST").await
}

async fn count(origin: &Running) -> u64 {
    let list: Value = serde_json::from_str(origin.get("/v1/orders").await.text()).unwrap();
    list["count"].as_u64().unwrap()
}

#[tokio::test]
async fn a_key_makes_one_order_however_often_it_comes() {
    let origin = with_orders(|_| {}).await;
    let first = order(&origin, &[KEY], r#"{"item":"tea"}"#).await;
    assert_eq!((first.status, first.field("location")), (201, Some("/v1/orders/1")));
    assert_eq!(first.field("cache-control"), Some("no-store"));
    assert_eq!(first.field("idempotency-replayed"), None);
    let told: Value = serde_json::from_str(first.text()).unwrap();
    assert_eq!((&told["id"], &told["order"]["item"]), (&"1".into(), &"tea".into()));
    assert!(told["key_expires"].as_str().unwrap() > told["at"].as_str().unwrap());

    let again = order(&origin, &["Idempotency-Key: \"k-1\""], r#"{"item":"tea"}"#).await;
    assert_eq!((again.status, again.text()), (201, first.text()));
    assert_eq!(again.field("idempotency-replayed"), Some("true"));
    let other = order(&origin, &[KEY], r#"{"item":"milk"}"#).await;
    assert_eq!((other.status, other.code()), (422, "idempotency_mismatch".to_owned()));
    assert_eq!(count(&origin).await, 1);

    for _ in 0..2 {
        assert_eq!(order(&origin, &[], r#"{"item":"tea"}"#).await.status, 201);
    }
    assert_eq!(count(&origin).await, 3, "without a key each is an order");
    assert_eq!(origin.get("/v1/orders/1").await.text(), first.text());
    assert_eq!(origin.get("/v1/orders/9").await.status, 404);
    assert_eq!(origin.metric("origin_orders_total{result=\"replayed\"}").await, 1.0);
}

#[tokio::test]
async fn a_hundred_requests_with_one_key_at_once_make_one_order() {
    // If each did the work anew, those behind the fortieth would wait for longer than they may.
    let origin = with_orders(|orders| {
        orders.work = HumanDuration::millis(250);
        orders.max_wait = HumanDuration::secs(10);
    })
    .await;
    let mut clients = JoinSet::new();
    for _ in 0..100 {
        let mut client = origin.client().await;
        clients.spawn(async move {
            client.post("/v1/orders", &[KEY], "1").await;
            client.answer("POST").await
        });
    }
    let answers = clients.join_all().await;
    let replayed = |answer: &&Answer| answer.field("idempotency-replayed").is_some();
    assert_eq!(answers.iter().filter(replayed).count(), 99);
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.body == answers[0].body));
    assert_eq!(count(&origin).await, 1);
}

#[tokio::test]
async fn duplicates_are_refused_where_the_configuration_says_so() {
    let origin = with_orders(|orders| {
        orders.duplicates = Duplicates::Refuse;
        orders.work = HumanDuration::secs(3_600);
    })
    .await;
    let mut clients = JoinSet::new();
    for _ in 0..2 {
        let mut client = origin.client().await;
        clients.spawn(async move {
            client.post("/v1/orders", &[KEY], "1").await;
            client.answer("POST").await
        });
    }
    // Whichever came first is at work for an hour.
    let refused = clients.join_next().await.unwrap().unwrap();
    assert_eq!((refused.status, refused.code()), (409, "idempotency_in_flight".to_owned()));
    assert_eq!(refused.field("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_lost_reply_is_found_again_under_its_key_and_doubles_without_one() {
    let origin = with_orders(|_| {}).await;
    for (fields, orders) in [(&[KEY][..], 1), (&[][..], 3)] {
        origin.fault(r#"{"path":"/v1/orders","lose_reply":true,"first":1}"#).await;
        let mut client = origin.client().await;
        client.post("/v1/orders", fields, "1").await;
        assert!(client.rest().await.0.is_empty(), "the reply was lost");
        let again = order(&origin, fields, "1").await;
        let replayed = again.field("idempotency-replayed").is_some();
        assert_eq!((again.status, replayed), (201, !fields.is_empty()));
        assert_eq!(count(&origin).await, orders);
    }
}

#[tokio::test]
async fn keys_and_orders_outlive_the_process_and_have_a_limit() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("book/orders.redb");
    let start = || {
        with_orders(|orders| {
            orders.file = Some(file.clone());
            orders.max_orders = 2.try_into().unwrap();
        })
    };
    let origin = start().await;
    assert_eq!(order(&origin, &[KEY], "1").await.status, 201);
    origin.stopped().await;
    let origin = start().await;
    assert!(order(&origin, &[KEY], "1").await.field("idempotency-replayed").is_some());
    assert_eq!(order(&origin, &[], "1").await.status, 201);
    let full = order(&origin, &[], "1").await;
    assert_eq!((full.status, full.code()), (503, "overloaded".to_owned()));
    assert!(order(&origin, &[KEY], "1").await.field("idempotency-replayed").is_some());
}

#[tokio::test]
async fn what_is_no_order_is_told() {
    let origin = with_orders(|_| {}).await;
    let rows: [(&[&str], &str, u16, &str); 4] = [
        (&[], "tea", 400, "bad_request"),
        (&[], "", 400, "bad_request"),
        (&["Idempotency-Key: a b"], "1", 400, "bad_request"),
        (&["Idempotency-Key: a", "Idempotency-Key: b"], "1", 400, "bad_request"),
    ];
    for (fields, body, status, code) in rows {
        let answer = order(&origin, fields, body).await;
        assert_eq!((answer.status, answer.code()), (status, code.to_owned()), "{fields:?} {body}");
    }
    let large = format!("\"{}\"", "x".repeat(65 << 10));
    assert_eq!(order(&origin, &[], &large).await.status, 413);
    assert_eq!(origin.get("/v1/orders?after=x").await.status, 400);
    assert_eq!(origin.exchange("DELETE", "/v1/orders", &[]).await.status, 405);
    assert_eq!(count(&origin).await, 0);
    let without = Running::sample().await;
    let answer = order(&without, &[], "1").await;
    assert_eq!((answer.status, answer.code()), (501, "not_offered".to_owned()));
}
