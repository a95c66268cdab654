//! What a 304 changes (RFC 9111 §3.2, §4.3.4), and that it is seen at once.

use http::Method;
use meridian_config::edge::Profile;
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Script, ScriptedOrigin, ok, status};

type Fields = &'static [(&'static str, &'static str)];

const UPDATE: Fields = &[("a", "new"), ("b", "added"), ("content-language", "de")];

/// A stale response of which the origin says 304 with `fields`, asked for three times.
async fn freshened(profile: Profile, fields: Fields) -> [Reply; 2] {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen| match seen.header("if-none-match") {
        Some(_) => {
            let answer = status(304).header("etag", "\"1\"").header("cache-control", "max-age=60");
            fields.iter().fold(answer, |answer, (name, value)| answer.header(name, value))
        }
        None => stale(),
    });
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site.iter_mut().for_each(|site| site.profile = profile)
    })
    .await;
    edge.get("/a").await;
    let validated = edge.get("/a").await;
    let reused = edge.get("/a").await;
    assert_eq!(
        origin.count("/a"),
        2,
        "{}, then {}",
        validated.cache_status(),
        reused.cache_status()
    );
    [validated, reused]
}

fn stale() -> Script {
    ok("first")
        .header("etag", "\"1\"")
        .header("cache-control", "max-age=60")
        .header("age", "70")
        .header("a", "old")
        .header("kept", "yes")
        .header("content-language", "fr")
}

#[tokio::test]
async fn a_304_updates_the_stored_fields_in_the_very_answer_that_it_brings() {
    for profile in [Profile::Rfc, Profile::Cdn] {
        for seen in freshened(profile, UPDATE).await {
            assert_eq!((seen.status.as_u16(), seen.text()), (200, "first"));
            let values = ["a", "b", "content-language", "kept", "content-length"];
            let values = values.map(|name| seen.header(name).unwrap_or("none"));
            assert_eq!(values, ["new", "added", "de", "yes", "5"], "{profile:?}");
            let age: u64 = seen.header("age").unwrap_or("0").parse().unwrap();
            assert!(age < 60, "the age begins anew: {age}");
        }
    }
}

#[tokio::test]
async fn a_newer_response_that_may_not_be_stored_does_not_bring_the_older_one_back() {
    for profile in [Profile::Rfc, Profile::Cdn] {
        let origin = ScriptedOrigin::start().await;
        origin.script_fn("/a", |seen| match seen.header("if-none-match") {
            Some(_) => ok("second").header("cache-control", "no-store"),
            None => stale(),
        });
        let edge = EdgeProcess::start(&origin, |edge| {
            edge.site.iter_mut().for_each(|site| site.profile = profile)
        })
        .await;
        let mut bodies = Vec::new();
        for _ in 0..3 {
            bodies.push(edge.get("/a").await.text().to_owned());
        }
        assert_eq!(bodies.get(..2), Some(&["first".to_owned(), "second".to_owned()][..]));
        assert_eq!(origin.count("/a"), 3, "the third asks again ({profile:?}): {bodies:?}");
    }
}

#[tokio::test]
async fn an_unsafe_method_invalidates_if_it_succeeds_known_or_not() {
    let rows = [
        ("POST", 200, 2),
        ("PUT", 204, 2),
        ("DELETE", 200, 2),
        ("PATCH", 201, 2),
        ("M-SEARCH", 200, 2), // required: what is not known to be safe is not
        ("FOO", 302, 2),
        ("POST", 500, 1), // optimal: an error has changed nothing
        ("FOO", 404, 1),
        ("OPTIONS", 200, 1), // safe
    ];
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for (index, (method, code, gets)) in rows.into_iter().enumerate() {
        let path = format!("/{index}");
        origin.script_fn(&path, move |seen| match seen.method {
            Method::GET => ok("a").header("cache-control", "max-age=60"),
            _ => status(code),
        });
        edge.get(&path).await;
        let unsafe_one = Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}{path}", edge.url());
        let reply = Client::request(unsafe_one, &url, &[], "".into()).await;
        assert_eq!(reply.status, code);
        edge.get(&path).await;
        let asked = origin.requests(&path).iter().filter(|seen| seen.method == Method::GET).count();
        assert_eq!(asked, gets, "{method} answered with {code}");
    }
}
