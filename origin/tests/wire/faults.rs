//! Each fault, as a client meets it.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::running::{Running, config, sample};

#[tokio::test]
async fn a_status_is_answered_instead() {
    let origin = Running::sample().await;
    origin.fault(r#"{"path":"/app.js","method":"GET","status":503}"#).await;
    let answer = origin.get("/app.js").await;
    assert_eq!((answer.status, answer.code()), (503, "fault".to_owned()));
    assert_eq!(origin.exchange("HEAD", "/app.js", &[]).await.status, 200);
    assert_eq!(origin.get("/styles.css").await.status, 200);
    assert_eq!(origin.admin("DELETE", "/v1/faults", "").await.text(), r#"{"faults":[]}"#);
    assert_eq!(origin.get("/app.js").await.status, 200);
    assert_eq!(origin.metric("origin_faults_total{fault=\"status\"}").await, 1.0);
}

#[tokio::test]
async fn a_delay_comes_before_the_answer_and_meets_only_the_first() {
    let origin = Running::sample().await;
    origin.fault(r#"{"delay":"300ms","first":1}"#).await;
    let began = Instant::now();
    assert_eq!(origin.get("/").await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    origin.fault(r#"{"delay":"1h","first":0}"#).await;
    assert_eq!(origin.get("/").await.status, 200);
}

#[tokio::test]
async fn held_requests_are_bounded_and_end_with_the_origin() {
    let origin = Running::start(|_| {
        let mut config = config(sample());
        config.limits.max_held = 2.try_into().unwrap();
        config
    })
    .await;
    origin.fault(r#"{"path":"/","hang":true},{"path":"/app.js","delay":"1h"}"#).await;
    let (mut hanging, mut delayed) = (origin.client().await, origin.client().await);
    hanging.ask("GET", "/", &[]).await;
    delayed.ask("GET", "/app.js", &[]).await;
    origin.until("origin_held_requests", 2.0).await;
    let shed = origin.get("/").await;
    assert_eq!((shed.status, shed.code()), (503, "overloaded".to_owned()));
    assert_eq!(shed.field("retry-after"), Some("1"));
    origin.stopped().await;
    assert_eq!(delayed.answer("GET").await.status, 200);
    assert!(hanging.rest().await.0.is_empty());
}

#[tokio::test]
async fn a_hanging_request_makes_room_when_its_client_leaves() {
    let origin = Running::sample().await;
    origin.fault(r#"{"hang":true}"#).await;
    let mut client = origin.client().await;
    client.ask("GET", "/", &[]).await;
    origin.until("origin_held_requests", 1.0).await;
    drop(client);
    origin.until("origin_requests_total{status=\"none\"}", 1.0).await;
    assert_eq!(origin.metric("origin_held_requests").await, 0.0);
}

#[tokio::test]
async fn a_body_is_cut_after_exactly_so_many_bytes_with_its_whole_length_promised() {
    let origin = Running::trace("key,size\n1,1000000\n").await;
    for bytes in [0, 1, 1_000, 65_536, 65_537, 999_999] {
        origin.fault(&format!(r#"{{"cut_after":{bytes}}}"#)).await;
        let mut client = origin.client().await;
        client.ask("GET", "/o/1", &[]).await;
        let head = client.head().await;
        assert_eq!((head.status, head.field("content-length")), (200, Some("1000000")));
        let (body, ended) = client.rest().await;
        assert_eq!(body.len(), bytes);
        ended.unwrap();
    }
    origin.fault(r#"{"cut_after":1000000}"#).await;
    let mut client = origin.client().await;
    assert_eq!(client.get("/o/1").await.body.len(), 1_000_000); // there is nothing to cut
    assert_eq!(origin.metric("origin_faults_total{fault=\"cut_after\"}").await, 6.0);
}

#[tokio::test]
async fn a_lost_reply_is_work_done_and_not_a_byte() {
    let origin = Running::sample().await;
    origin.fault(r#"{"lose_reply":true}"#).await;
    let mut client = origin.client().await;
    client.ask("GET", "/", &[]).await;
    let (bytes, ended) = client.rest().await;
    assert!(bytes.is_empty());
    ended.unwrap(); // FIN, not RST
    let counted = origin.admin("GET", "/v1/requests?path=/", "").await;
    assert!(counted.text().starts_with(r#"{"path":"/","requests":1,"body_bytes":0,"#));
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let origin = Running::sample().await;
    origin.fault(r#"{"reset":true}"#).await;
    let mut client = origin.client().await;
    client.ask("GET", "/", &[]).await;
    let (bytes, ended) = client.rest().await;
    assert!(bytes.is_empty());
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_share_of_the_requests_meets_it() {
    let origin = Running::sample().await;
    origin.fault(r#"{"share":0.5,"status":500}"#).await;
    let mut client = origin.client().await;
    let mut met = 0;
    for _ in 0..400 {
        met += usize::from(client.get("/app.js").await.status == 500);
    }
    assert!((140..=260).contains(&met), "{met}"); // seed 7; six standard deviations
}

#[tokio::test]
async fn a_list_that_is_refused_changes_nothing() {
    let origin = Running::sample().await;
    origin.fault(r#"{"status":500}"#).await;
    let refused = origin.admin("PUT", "/v1/faults", r#"{"faults":[{"dealy":"1s"}]}"#).await;
    assert_eq!((refused.status, refused.code()), (400, "bad_request".to_owned()));
    assert!(refused.text().contains("faults[0].dealy: unknown field"), "{}", refused.text());
    let list = origin.admin("GET", "/v1/faults", "").await;
    assert_eq!(list.text(), r#"{"faults":[{"status":500}]}"#);
    let large = format!(r#"{{"faults":[{}]}}"#, " ".repeat(65_536));
    assert_eq!(origin.admin("PUT", "/v1/faults", &large).await.code(), "too_large");
    let many = format!(r#"{{"faults":[{}{{}}]}}"#, "{},".repeat(100));
    assert_eq!(origin.admin("PUT", "/v1/faults", &many).await.code(), "too_large");
}
