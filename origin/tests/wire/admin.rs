//! The admin listener.

use std::fs;

use meridian_config::shared::{Scope, Token};
use serde_json::Value;

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
        ("GET", "/v1/paths?after=x", 400, "bad_request", None),
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

/// Everything that the origin lists, and how many pages that took.
async fn listed(origin: &Running) -> (Vec<(String, u64)>, usize) {
    let (mut found, mut target, mut pages) = (Vec::new(), "/v1/paths".to_owned(), 0);
    loop {
        let answer = origin.admin("GET", &target, "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page: Value = serde_json::from_slice(&answer.body).unwrap();
        pages += 1;
        for entry in page["paths"].as_array().unwrap() {
            let path = entry["path"].as_str().unwrap().to_owned();
            found.push((path, entry["size"].as_u64().unwrap()));
        }
        let Some(next) = page["next"].as_str() else { return (found, pages) };
        target = format!("/v1/paths?after={next}");
    }
}

#[tokio::test]
async fn everything_that_is_listed_is_served_with_its_size() {
    let files: [(&str, &[u8]); 7] = [
        ("index.html", b"1"),
        ("docs/index.html", b"12"),
        ("docs/a b%?#.txt", b"123"),
        ("caf\u{e9}", b"1234"),
        (".htaccess", b"no"),
        (".git/config", b"no"),
        ("back\\slash", b"no"),
    ];
    let folder = Running::folder(&files).await;
    std::os::unix::fs::symlink("index.html", folder.path("link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.path("out")).unwrap();
    std::os::unix::fs::symlink("..", folder.path("docs/up")).unwrap();
    let csv: String = (0..2_001).map(|n| format!("{n},{n}\n")).collect();
    let trace = Running::trace(&format!("key,size\n/q?a=%20&b,7\n{csv}")).await;
    let sample = Running::sample().await;
    for (origin, count, pages) in [(folder, 5, 1), (trace, 2_002, 3), (sample, 6, 1)] {
        let (found, turned) = listed(&origin).await;
        assert_eq!((found.len(), turned), (count, pages), "{found:?}");
        assert!(found.is_sorted());
        let mut client = origin.client().await;
        for (path, size) in found {
            let answer = client.exchange("HEAD", &path, &[]).await;
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.field("content-length"), Some(&*size.to_string()), "{path}");
        }
    }
}
