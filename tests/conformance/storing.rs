//! What is stored, and how long it is fresh (RFC 9111 §3, §4.2), seen from a client.

use http::Method;
use meridian_tests::client::Client;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, ok, status};

/// What happens to the second of two requests for the same.
async fn reused(edge: &EdgeProcess, origin: &ScriptedOrigin, path: &str) -> bool {
    let first = edge.get(path).await;
    let second = edge.get(path).await;
    assert_eq!(first.status, second.status);
    assert_eq!(first.body, second.body);
    assert!(first.cache_status().starts_with("fra-1; fwd=uri-miss"), "{}", first.cache_status());
    let is_hit = second.cache_status().starts_with("fra-1; hit; ttl=");
    assert_eq!(origin.count(path), if is_hit { 1 } else { 2 }, "{}", second.cache_status());
    assert!(!is_hit || second.header("age").is_some(), "a stored response has an Age");
    is_hit
}

#[tokio::test]
async fn what_says_how_long_it_is_fresh_is_reused_and_what_forbids_it_is_not() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    type Fields = &'static [(&'static str, &'static str)];
    let rows: [(&str, Fields, bool); 12] = [
        ("/max-age", &[("cache-control", "max-age=60")], true),
        ("/s-maxage", &[("cache-control", "max-age=0, s-maxage=60")], true),
        ("/zero", &[("cache-control", "max-age=0")], false),
        ("/silent", &[], false),
        ("/no-store", &[("cache-control", "no-store, max-age=60")], false),
        ("/private", &[("cache-control", "private, max-age=60")], false),
        ("/past", &[("expires", "Thu, 01 Jan 1970 00:00:00 GMT")], false),
        ("/unreadable", &[("expires", "0")], false),
        ("/cookie", &[("cache-control", "max-age=60"), ("set-cookie", "a=b")], false),
        ("/any", &[("cache-control", "max-age=60"), ("vary", "*")], false),
        ("/old", &[("cache-control", "max-age=60"), ("age", "61")], false),
        ("/cdn", &[("cache-control", "no-store"), ("cdn-cache-control", "max-age=60")], true),
    ];
    for (path, fields, want) in rows {
        let answer = fields.iter().fold(ok(path), |answer, (n, v)| answer.header(n, v));
        origin.script(path, answer);
        assert_eq!(reused(&edge, &origin, path).await, want, "{path}");
    }
}

#[tokio::test]
async fn a_file_that_changed_long_ago_is_fresh_for_a_while_by_heuristic() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("a").header("last-modified", "Mon, 03 Jan 2022 00:00:00 GMT"));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    assert!(reused(&edge, &origin, "/a").await);
    let capped = edge.get("/a").await;
    let ttl = capped.cache_status().rsplit_once("ttl=").unwrap().1.parse::<i64>().unwrap();
    assert!((3_500..=3_600).contains(&ttl), "10 % of years, capped at an hour: {ttl}");
}

#[tokio::test]
async fn the_profile_rfc_stores_what_the_standard_allows() {
    let origin = ScriptedOrigin::start().await;
    origin.script(
        "/cookie",
        ok("a").header("cache-control", "max-age=60").header("set-cookie", "a=b"),
    );
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site[0].profile = meridian_config::edge::Profile::Rfc;
    })
    .await;
    assert!(reused(&edge, &origin, "/cookie").await);
}

#[tokio::test]
async fn redirects_and_errors_with_a_lifetime_are_stored_too() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for (code, path) in [(301, "/moved"), (404, "/missing"), (410, "/gone")] {
        origin.script(path, status(code).body("x").header("cache-control", "max-age=60"));
        assert!(reused(&edge, &origin, path).await, "{code}");
    }
}

#[tokio::test]
async fn answers_to_a_client_with_credentials_are_not_shared_unless_they_say_so() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for (path, cache_control, shared) in
        [("/own", "max-age=60", false), ("/public", "public, max-age=60", true)]
    {
        origin.script(path, ok(path).header("cache-control", cache_control));
        let url = format!("{}{path}", edge.url());
        for _ in 0..2 {
            Client::get_with(&url, &[("authorization", "Basic eDp5")]).await;
        }
        assert_eq!(origin.count(path), if shared { 1 } else { 2 }, "{path}");
    }
}

#[tokio::test]
async fn head_is_answered_from_a_stored_get_and_an_unsafe_method_forgets_it() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("body").header("cache-control", "max-age=60"));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    edge.get("/a").await;
    let url = format!("{}/a", edge.url());
    let head = Client::request(Method::HEAD, &url, &[], "".into()).await;
    assert!(head.cache_status().starts_with("fra-1; hit"), "{}", head.cache_status());
    assert_eq!(head.header("content-length"), Some("4"));
    assert!(head.body.is_empty());

    let post = Client::request(Method::POST, &url, &[], "x".into()).await;
    assert_eq!(post.cache_status(), "fra-1; fwd=method; fwd-status=200");
    let after = edge.get("/a").await;
    assert!(after.cache_status().starts_with("fra-1; fwd=uri-miss"), "{}", after.cache_status());
}

#[tokio::test]
async fn labels_for_purging_do_not_reach_clients_and_are_explained() {
    let origin = ScriptedOrigin::start().await;
    let labelled = ok("a")
        .header("cache-control", "max-age=60")
        .header("surrogate-key", "shop item-7")
        .header("cache-tag", "x, y")
        .header("surrogate-control", "max-age=90")
        .header("cdn-cache-control", "max-age=120");
    origin.script("/a", labelled);
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for reply in [edge.get("/a").await, edge.get("/a").await] {
        for name in ["surrogate-key", "cache-tag", "surrogate-control"] {
            assert_eq!(reply.header(name), None, "{name}");
        }
        assert_eq!(reply.header("cdn-cache-control"), Some("max-age=120"));
    }
    let explained = Client::get(&format!("{}/v1/explain?url=/a", edge.admin())).await.json();
    let stored = &explained["stored"][0];
    assert_eq!(stored["tags"], serde_json::json!(["shop", "item-7", "x", "y"]));
    assert_eq!(stored["lifetime_seconds"], 120, "{explained:#}");
    assert_eq!(explained["next"]["decision"], "hit");
}
