//! The admin listener.

use std::fs;

use meridian_config::shared::{Scope, Token};

use crate::client::Client;
use crate::running::{Running, config, sample};

#[tokio::test]
async fn health_and_metrics_are_told() {
    let origin = Running::folder(&[("a", b"a")]).await;
    assert_eq!(origin.admin("GET", "/healthz", "").await.text(), "ok\n");
    assert_eq!(origin.admin("GET", "/readyz", "").await.text(), "ready\n");
    let metrics = origin.admin("GET", "/metrics", "").await;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(metrics.field("content-type"), Some(content_type));
    origin.get("/a").await;
    assert_eq!(origin.metric("origin_response_body_bytes_total").await, 1.0);
    fs::remove_dir_all(origin.path("")).unwrap();
    let not_ready = origin.admin("GET", "/readyz", "").await;
    assert_eq!((not_ready.status, not_ready.code()), (503, "not_ready".to_owned()));
    assert_eq!(origin.admin("GET", "/healthz", "").await.status, 200);
}

#[tokio::test]
async fn what_is_not_offered_or_not_there_says_so() {
    let origin = Running::sample().await;
    let rows = [
        ("GET", "/v1/releases", 501, "not_offered", None),
        ("POST", "/v1/releases", 501, "not_offered", None),
        ("GET", "/none", 404, "not_found", None),
        ("POST", "/v1/faults", 405, "method_not_allowed", Some("GET, HEAD, PUT, DELETE")),
        ("DELETE", "/metrics", 405, "method_not_allowed", Some("GET, HEAD")),
        ("GET", "/v1/requests?q=1", 400, "bad_request", None),
        ("PUT", "/v1/faults", 400, "bad_request", None),
    ];
    for (method, target, status, code, allow) in rows {
        let answer = origin.admin(method, target, "x").await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{method} {target}");
        assert_eq!(answer.field("allow"), allow, "{method} {target}");
    }
}

#[tokio::test]
async fn beyond_loopback_a_change_needs_a_token() {
    let origin = Running::start(|dir| {
        let file = dir.join("token");
        fs::write(&file, "0123456789abcdef\n").unwrap();
        let mut config = config(sample());
        config.admin = "0.0.0.0:0".parse().unwrap();
        config.token = vec![Token { name: "boss".into(), scopes: vec![Scope::Operate], file }];
        config
    })
    .await;
    let address = ([127, 0, 0, 1], origin.addresses.admin.port()).into();
    let mut client = Client::connect(address).await;
    let refused = client.exchange("DELETE", "/v1/faults", &[]).await;
    assert_eq!((refused.status, refused.code()), (401, "unauthorized".to_owned()));
    assert_eq!(refused.field("www-authenticate"), Some("Bearer"));
    let wrong = ["Authorization: Bearer 0123456789abcdeX"];
    assert_eq!(client.exchange("DELETE", "/v1/faults", &wrong).await.status, 401);
    let right = ["Authorization: Bearer 0123456789abcdef"];
    assert_eq!(client.exchange("DELETE", "/v1/faults", &right).await.status, 200);
    assert_eq!(client.get("/v1/faults").await.status, 200);
}

#[tokio::test]
async fn beyond_loopback_without_a_token_it_does_not_start() {
    let mut config = config(sample());
    config.admin = "0.0.0.0:0".parse().unwrap();
    let told = meridian_origin::bind(config).await.unwrap_err().to_string();
    assert!(told.starts_with("admin 0.0.0.0:0 is beyond loopback"), "{told}");
}
