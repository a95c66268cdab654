//! Files, their fields, and what is not there.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::running::{Running, config, rule, sample};

fn tag(content: &[u8]) -> String {
    let digits: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

#[tokio::test]
async fn a_file_comes_whole_with_all_that_a_cache_wants_to_know() {
    let origin = Running::folder(&[("a/style.css", b"body {}")]).await;
    let answer = origin.get("/a/style.css?v=1").await;
    assert_eq!((answer.status, answer.text()), (200, "body {}"));
    let etag = tag(b"body {}");
    let rows = [
        ("content-type", "text/css; charset=utf-8"),
        ("content-length", "7"),
        ("etag", &etag),
        ("accept-ranges", "bytes"),
        ("cache-control", "max-age=60"),
        ("server", "meridian-origin"),
    ];
    for (name, want) in rows {
        assert_eq!(answer.field(name), Some(want), "{name}");
    }
    let time = |name| httpdate::parse_http_date(answer.field(name).unwrap()).unwrap();
    assert!(time("last-modified") <= time("date"));
    assert_eq!(answer.field("surrogate-key"), None);
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let origin = Running::folder(&[("a.txt", b"hello"), ("empty", b"")]).await;
    for (target, length) in [("/a.txt", 5), ("/empty", 0), ("/none", 1)] {
        let mut client = origin.client().await;
        let get = client.get(target).await;
        let head = client.exchange("HEAD", target, &[]).await;
        let undated = |head: &str| {
            let lines = head.lines().filter(|line| !line.starts_with("date: "));
            lines.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        assert_eq!(undated(&get.head), undated(&head.head), "{target}");
        assert!(get.body.len() >= length, "{target}");
        assert_eq!(client.get("/a.txt").await.text(), "hello", "after HEAD {target}");
    }
}

#[tokio::test]
async fn rules_set_cache_control_and_surrogate_key_whatever_the_spelling_of_the_path() {
    let files: [(&str, &[u8]); 2] = [("img/a.png", b"png"), ("b.html", b"html")];
    let origin = Running::folder_with(&files, |config| {
        config.rule = vec![
            rule("/img/*", None, Some("images all")),
            rule("*.png", Some("max-age=5"), Some("png")),
        ];
    })
    .await;
    for target in ["/img/a.png", "/%69mg/a.png", "/img/a%2Epng?x"] {
        let answer = origin.get(target).await;
        assert_eq!(answer.field("surrogate-key"), Some("images all"), "{target}");
        assert_eq!(answer.field("cache-control"), Some("max-age=5"), "{target}");
    }
    assert_eq!(origin.get("/b.html").await.field("cache-control"), Some("max-age=60"));
    let missing = origin.get("/img/none.png").await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.field("surrogate-key"), Some("images all"));
    assert_eq!(missing.field("cache-control"), Some("max-age=5"));
}

#[tokio::test]
async fn a_folder_answers_with_its_index_behind_a_slash() {
    let origin = Running::folder(&[("index.html", b"root"), ("docs/index.html", b"docs")]).await;
    assert_eq!(origin.get("/").await.text(), "root");
    assert_eq!(origin.get("/docs/").await.text(), "docs");
    let moved = origin.get("/docs?q=1").await;
    assert_eq!((moved.status, moved.field("location")), (301, Some("/docs/?q=1")));
}

#[tokio::test]
async fn what_is_not_there_says_so_with_the_folders_own_page_if_it_has_one() {
    let origin = Running::folder(&[("a", b"a")]).await;
    let answer = origin.get("/none").await;
    assert_eq!((answer.status, answer.code()), (404, "not_found".to_owned()));
    assert_eq!(answer.field("cache-control"), Some("max-age=5"));

    let origin = Running::folder(&[("404.html", b"<h1>no</h1>")]).await;
    for target in ["/none", "/.git/config"] {
        let answer = origin.get(target).await;
        assert_eq!((answer.status, answer.text()), (404, "<h1>no</h1>"), "{target}");
        assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(answer.field("etag"), None);
    }
}

#[tokio::test]
async fn a_path_that_means_harm_gets_a_clear_answer_and_the_next_request_is_served() {
    let origin = Running::folder(&[("a", b"a")]).await;
    let mut client = origin.client().await;
    for target in
        ["/../a", "/%2e%2e/a", "/..%2fa", "/..%5ca", "/a%00", "/%", "/%zz", "http://test/../a"]
    {
        let answer = client.get(target).await;
        assert_eq!((answer.status, answer.code()), (400, "bad_request".to_owned()), "{target}");
        assert_eq!(client.get("/a").await.text(), "a", "after {target}");
    }
    assert_eq!(client.get("http://test/a").await.text(), "a"); // RFC 9112 §3.2.2
}

#[tokio::test]
async fn other_methods_are_refused_with_those_that_are_not() {
    let origin = Running::sample().await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let answer = origin.exchange(method, "/", &[]).await;
        assert_eq!((answer.status, answer.code()), (405, "method_not_allowed".to_owned()));
        assert_eq!(answer.field("allow"), Some("GET, HEAD"), "{method}");
    }
    let orders = origin.exchange("POST", "/v1/orders", &["Content-Length: 0"]).await;
    assert_eq!((orders.status, orders.code()), (501, "not_offered".to_owned()));
}

#[tokio::test]
async fn a_refused_upload_still_hears_why() {
    let origin = Running::sample().await;
    let mut client = origin.client().await;
    let length = 4 << 20;
    client.send(format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {length}\r\n\r\n")).await;
    // The origin may close while this is written; what it said must still arrive.
    let chunk = vec![0; 64 << 10];
    for _ in 0..length / chunk.len() {
        if tokio::io::AsyncWriteExt::write_all(&mut client.stream, &chunk).await.is_err() {
            break;
        }
    }
    assert_eq!(client.answer("POST").await.code(), "method_not_allowed");
}

#[tokio::test]
async fn the_sample_site_is_served_like_files() {
    let origin = Running::sample().await;
    let page = origin.get("/").await;
    assert!(page.text().contains("Your CDN is running."));
    assert_eq!(page.field("etag"), Some(&*tag(&page.body)));
    assert_eq!(page.field("cache-control"), Some("max-age=60"));
    let again =
        origin.exchange("GET", "/", &[&format!("If-None-Match: {}", tag(&page.body))]).await;
    assert_eq!(again.status, 304);
    let part = origin.exchange("GET", "/app.js", &["Range: bytes=0-11"]).await;
    assert_eq!((part.status, part.text()), (206, "\"use strict\""));
    assert_eq!(origin.get("/nothing").await.status, 404);
    assert_eq!(origin.get("/../x").await.status, 400);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_served_is_refused_before_it_listens() {
    let both = meridian_config::origin::Content { folder: Some("/".into()), ..sample() };
    let told = meridian_origin::bind(config(both)).await.unwrap_err().to_string();
    assert_eq!(told, "[content] must have exactly one of folder, trace and sample");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(sample());
    config.listen = taken.local_addr().unwrap();
    let told = meridian_origin::bind(config).await.unwrap_err().to_string();
    assert!(told.starts_with(&format!("listen {}", taken.local_addr().unwrap())), "{told}");
}
