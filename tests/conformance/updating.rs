//! What a 304, and the answer to a HEAD, make of what is stored (RFC 9111 §3.2, §4.3.4, §4.3.5).

use http::Method;
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, Seen, ok, status};

async fn ask(edge: &EdgeProcess, method: Method, path: &str, fields: &[(&str, &str)]) -> Reply {
    Client::request(method, &format!("{}{path}", edge.url()), fields, "".into()).await
}

fn is_hit(reply: &Reply) -> bool {
    reply.cache_status().starts_with("fra-1; hit")
}

#[tokio::test]
async fn a_head_that_says_nothing_else_freshens_and_one_that_does_outdates() {
    type Fields = &'static [(&'static str, &'static str)];
    let rows: [(&str, u16, Fields, bool); 7] = [
        ("/same", 200, &[("etag", "\"1\""), ("content-length", "4")], true),
        ("/weak", 200, &[("etag", "W/\"1\"")], true),
        ("/silent", 200, &[], true),
        ("/tag", 200, &[("etag", "\"2\"")], false),
        ("/length", 200, &[("etag", "\"1\""), ("content-length", "5")], false),
        ("/gone", 410, &[("etag", "\"1\"")], false),
        ("/fails", 503, &[("etag", "\"1\"")], false),
    ];
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for (path, code, fields, updated) in rows {
        origin.script_fn(path, move |seen: &Seen| {
            if seen.method == Method::HEAD {
                let answer = status(code).header("cache-control", "max-age=60").header("x-n", "2");
                return fields.iter().fold(answer, |answer, (n, v)| answer.header(n, v));
            }
            ok("body")
                .header("cache-control", "max-age=0")
                .header("etag", "\"1\"")
                .header("x-n", "1")
        });
        edge.get(path).await;
        let head = ask(&edge, Method::HEAD, path, &[]).await;
        // What is stored stands in for a failure, as it does for who asks by GET.
        let want = if code >= 500 { (200, Some("1")) } else { (code, Some("2")) };
        assert_eq!((head.status.as_u16(), head.header("x-n")), want, "{path}");
        assert!(head.cache_status().starts_with("fra-1; fwd=stale"), "{}", head.cache_status());
        let after = edge.get(path).await;
        assert_eq!(is_hit(&after), updated, "{path}: {}", after.cache_status());
        assert_eq!(after.header("x-n"), Some(if updated { "2" } else { "1" }), "{path}");
        assert_eq!((after.text(), after.header("content-length")), ("body", Some("4")), "{path}");
    }
}

#[tokio::test]
async fn a_head_of_what_is_not_stored_is_asked_for_and_answered_without_a_body() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("body").header("cache-control", "max-age=60"));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for round in 1..=2 {
        let head = ask(&edge, Method::HEAD, "/a", &[]).await;
        assert_eq!(head.cache_status(), "fra-1; fwd=uri-miss; fwd-status=200");
        assert_eq!((head.header("content-length"), head.body.len()), (Some("4"), 0));
        assert_eq!(origin.requests("/a").len(), round);
    }
    assert!(!is_hit(&edge.get("/a").await), "a HEAD brings no body to store");
    assert!(is_hit(&ask(&edge, Method::HEAD, "/a", &[]).await));
}

#[tokio::test]
async fn a_head_with_credentials_or_to_a_strange_host_says_nothing_of_what_others_get() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen: &Seen| {
        let age = if seen.method == Method::HEAD { "max-age=60" } else { "max-age=0" };
        let told = seen.header("x-forwarded-host").unwrap_or("nobody").to_owned();
        ok("body").header("cache-control", age).header("etag", "\"1\"").header("x-told", &told)
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    edge.get("/a").await;
    for fields in [[("authorization", "Basic eDp5")], [("host", "evil.example")]] {
        ask(&edge, Method::HEAD, "/a", &fields).await;
        let after = edge.get("/a").await;
        assert!(!is_hit(&after), "{fields:?}: {}", after.cache_status());
        assert_ne!(after.header("x-told"), Some("evil.example"));
    }
}

#[tokio::test]
async fn a_304_freshens_every_response_that_its_request_could_have_selected() {
    let origin = ScriptedOrigin::start().await;
    // The selecting field changes: both are stored, and a request with both fields selects both.
    origin.script_fn("/a", |seen: &Seen| {
        let (vary, tag) = match seen.header("x-one") {
            Some(_) => ("x-one", "\"same\""),
            None => ("x-two", "\"same\""),
        };
        let answer = match seen.header("if-none-match") {
            Some(_) => status(304).header("cache-control", "max-age=60"),
            None => ok("body").header("cache-control", "max-age=0").header("vary", vary),
        };
        answer.header("etag", tag)
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    ask(&edge, Method::GET, "/a", &[("x-one", "1")]).await;
    ask(&edge, Method::GET, "/a", &[("x-two", "1")]).await;
    ask(&edge, Method::GET, "/a", &[("x-two", "9")]).await;
    let both = [("x-one", "1"), ("x-two", "1")];
    let reply = ask(&edge, Method::GET, "/a", &both).await;
    assert!(reply.cache_status().contains("fwd-status=304"), "{}", reply.cache_status());
    let rows = [(("x-one", "1"), true), (("x-two", "1"), true), (("x-two", "9"), false)];
    for (field, fresh) in rows {
        let reply = ask(&edge, Method::GET, "/a", &[field]).await;
        assert_eq!(is_hit(&reply), fresh, "{field:?}: {}", reply.cache_status());
    }
}

#[tokio::test]
async fn a_304_that_names_other_selecting_fields_selects_by_them_from_then_on() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen: &Seen| {
        let answer = match seen.header("if-none-match") {
            Some(_) => status(304).header("cache-control", "max-age=60").header("vary", "x-two"),
            None => ok("body").header("cache-control", "max-age=0"),
        };
        answer.header("etag", "\"1\"")
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let with = async |value| ask(&edge, Method::GET, "/a", &[("x-two", value)]).await;
    with("1").await;
    let validated = with("2").await;
    assert_eq!(validated.header("vary"), Some("x-two"), "in the very answer");
    assert!(is_hit(&with("2").await));
    let explained = Client::get(&format!("{}/v1/explain?url=/a", edge.admin())).await.json();
    assert_eq!(explained["stored"].as_array().unwrap().len(), 1, "{explained:#}");
    let other = with("1").await;
    assert!(other.cache_status().starts_with("fra-1; fwd=vary-miss"), "{}", other.cache_status());
}

#[tokio::test]
async fn a_condition_of_a_client_never_becomes_the_caches() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen: &Seen| {
        let answer = match seen.header("if-none-match") {
            Some("\"1\"") => status(304),
            Some(other) => panic!("the client's own: {other}"),
            None => ok("body"),
        };
        answer.header("cache-control", "max-age=0").header("etag", "\"1\"")
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for (condition, want) in [("\"2\"", 200), ("\"1\"", 304), ("\"2\"", 200), ("*", 304)] {
        let reply = ask(&edge, Method::GET, "/a", &[("if-none-match", condition)]).await;
        assert_eq!(reply.status, want, "{condition}");
    }
}
