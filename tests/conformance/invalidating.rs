//! What an unsafe method invalidates (RFC 9111 §4.4, RFC 9875), also of what is on its way, and
//! what a POST leaves for later GETs (RFC 9110 §9.3.3).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's verdict")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use meridian_config::edge::{Edge, Profile};
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, Seen, ok, status};
use meridian_tests::wait::{PATIENCE, eventually};

fn is_hit(reply: &Reply) -> bool {
    reply.cache_status().starts_with("fra-1; hit")
}

async fn send(edge: &EdgeProcess, method: &str, path: &str) -> Reply {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    Client::request(method, &format!("{}{path}", edge.url()), &[], "x".into()).await
}

/// Fresh for a minute, under each of `paths`, with `fields`.
async fn warm(edge: &EdgeProcess, origin: &ScriptedOrigin, paths: &[(&str, &[(&str, &str)])]) {
    for (path, fields) in paths {
        let answer = ok((*path).to_owned()).header("cache-control", "max-age=60");
        let answer = fields.iter().fold(answer, |answer, (name, value)| answer.header(name, value));
        origin.script(path, answer);
        edge.get(path).await;
        assert!(is_hit(&edge.get(path).await), "{path}");
    }
}

#[tokio::test]
async fn a_method_not_known_to_be_safe_forgets_its_target_and_the_locations_that_it_names() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let own = format!("{}/origin", origin.url()); // it knows itself by this name alone
    let clients = format!("{}/client", edge.url());
    for method in ["POST", "PUT", "DELETE", "PATCH", "FROB"] {
        let all = ["/t", "/loc", "/content", "/origin", "/client", "/elsewhere"];
        warm(&edge, &origin, &all.map(|path| (path, &[][..]))).await;
        let fields = [
            ("/loc", "/content", ["/t", "/loc", "/content"]),
            (own.as_str(), clients.as_str(), ["/t", "/origin", "/client"]),
        ];
        for (location, content_location, forgotten) in fields {
            let answer = status(200).header("location", location);
            origin.script("/t", answer.header("content-location", content_location));
            assert_eq!(send(&edge, method, "/t").await.status, 200);
            for path in all {
                let hit = is_hit(&edge.get(path).await);
                assert_eq!(hit, !forgotten.contains(&path), "{method} {location}: {path}");
            }
            warm(&edge, &origin, &all.map(|path| (path, &[][..]))).await;
        }
        // Another host's, and an error's, are none of ours.
        let answer = status(200).header("location", "http://other.example/loc");
        origin.script("/t", answer.header("content-location", "//other.example/content"));
        send(&edge, method, "/t").await;
        origin.script("/fails", status(500).header("location", "/client"));
        send(&edge, method, "/fails").await;
        for path in ["/loc", "/content", "/client"] {
            assert!(is_hit(&edge.get(path).await), "{method}: {path}");
        }
    }
}

#[tokio::test]
async fn what_was_on_its_way_while_it_was_changed_is_not_used_afterwards() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    let version = Arc::new(AtomicUsize::new(0));
    let (held, now) = (gate.clone(), Arc::clone(&version));
    origin.script_fn("/a", move |seen: &Seen| {
        if seen.method == Method::POST {
            now.fetch_add(1, Ordering::SeqCst);
            return status(204);
        }
        let body = format!("v{}", now.load(Ordering::SeqCst));
        let answer = ok("").header("cache-control", "max-age=60");
        // The first answer has begun, and its body ends after the POST.
        if body == "v0" { answer.then_behind(&held, body) } else { answer.body(body) }
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let (early, after) = tokio::join!(edge.get("/a"), async {
        eventually("the fetch is under way", PATIENCE, async || {
            (origin.count("/a") == 1).then_some(())
        })
        .await;
        assert_eq!(send(&edge, "POST", "/a").await.status, 204);
        let after = edge.get("/a").await;
        gate.open();
        after
    });
    assert_eq!(early.text(), "v0", "who came before the change may have what was before it");
    assert_eq!(after.text(), "v1", "nobody after it follows the old fetch");
    for _ in 0..2 {
        let reply = edge.get("/a").await;
        assert_eq!(reply.text(), "v1", "nor does the old fetch replace the new");
        assert!(is_hit(&reply), "{}", reply.cache_status());
    }
}

#[tokio::test]
async fn a_group_is_invalidated_by_the_answer_to_an_unsafe_method_and_by_no_other() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |edge| {
        let mut other = edge.site[0].clone();
        other.name = "other".parse().unwrap();
        other.default = false;
        other.hosts = vec!["other.example".parse().unwrap()];
        edge.site.push(other);
    })
    .await;
    let elsewhere = [("host", "other.example")];
    let url = |path: &str| format!("{}{path}", edge.url());
    let groups: [(&str, &[(&str, &str)]); 4] = [
        ("/cart", &[("cache-groups", "\"shop\", \"cart\"")]),
        ("/list", &[("cache-groups", "\"Shop\"")]),
        ("/item", &[("cache-groups", "\"shop\"")]),
        ("/tag", &[("surrogate-key", "shop")]),
    ];
    warm(&edge, &origin, &groups).await;
    Client::get_with(&url("/cart"), &elsewhere).await;
    let explained =
        Client::get(&format!("{}/v1/explain?url=/cart", edge.admin())).await.text().to_owned();
    assert!(explained.contains(r#"{"group":"cart"}"#), "{explained}");

    let named = "\"shop\";x=1, \"none\"";
    origin.script("/safe", ok("").header("cache-group-invalidation", named));
    edge.get("/safe").await;
    origin.script("/fails", status(500).header("cache-group-invalidation", named));
    send(&edge, "POST", "/fails").await;
    origin.script("/broken", ok("").header("cache-group-invalidation", "\"shop\", 1"));
    send(&edge, "POST", "/broken").await;
    for (path, _) in groups {
        assert!(is_hit(&edge.get(path).await), "{path}");
    }
    origin.script("/buy", ok("").header("cache-group-invalidation", named));
    send(&edge, "POST", "/buy").await;
    for (path, stays) in [("/cart", false), ("/list", true), ("/item", false), ("/tag", true)] {
        assert_eq!(is_hit(&edge.get(path).await), stays, "{path}");
    }
    assert!(is_hit(&Client::get_with(&url("/cart"), &elsewhere).await), "another origin's group");
}

#[tokio::test]
async fn a_group_takes_what_is_still_on_its_way() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    let answer = ok("").header("cache-control", "max-age=60").header("cache-groups", "\"g\"");
    origin.script("/a", answer.clone().then_behind(&gate, "old"));
    origin.script("/buy", ok("").header("cache-group-invalidation", "\"g\""));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let (early, ()) = tokio::join!(edge.get("/a"), async {
        eventually("the fetch is under way", PATIENCE, async || {
            (origin.count("/a") == 1).then_some(())
        })
        .await;
        send(&edge, "POST", "/buy").await;
        origin.script("/a", answer.body("new"));
        gate.open();
    });
    assert_eq!(early.text(), "old");
    assert_eq!(edge.get("/a").await.text(), "new");
}

fn rfc(edge: &mut Edge) {
    edge.site[0].profile = Profile::Rfc;
}

#[tokio::test]
async fn a_post_that_stands_for_its_own_target_answers_later_gets_where_the_site_lets_it() {
    let origin = ScriptedOrigin::start().await;
    type Fields = &'static [(&'static str, &'static str)];
    let rows: [(&str, u16, Fields, bool); 7] = [
        ("/a", 200, &[("content-location", "/a"), ("cache-control", "max-age=60")], true),
        ("/b", 200, &[("content-location", "/c"), ("cache-control", "max-age=60")], false),
        ("/c", 200, &[("cache-control", "max-age=60")], false),
        ("/d", 200, &[("content-location", "/d")], false),
        ("/e", 201, &[("content-location", "/e"), ("cache-control", "max-age=60")], false),
        ("/f", 200, &[("content-location", "/f"), ("cache-control", "private, max-age=60")], false),
        ("/g", 200, &[("content-location", "/g"), ("expires", "0")], false),
    ];
    for profile in [Profile::Rfc, Profile::Cdn] {
        let edge = EdgeProcess::start(&origin, |edge| edge.site[0].profile = profile).await;
        for (path, code, fields, stored) in rows {
            let kept = stored && profile == Profile::Rfc;
            origin.script_fn(path, move |seen: &Seen| {
                let answer = status(code).body(format!("{} of {path}", seen.method));
                fields.iter().fold(answer, |answer, (name, value)| answer.header(name, value))
            });
            let posted = send(&edge, "POST", path).await;
            assert_eq!(posted.text(), format!("POST of {path}"));
            let told = posted.cache_status();
            assert!(told.starts_with("fra-1; fwd=method; fwd-status=2"), "{path}: {told}");
            assert_eq!(told.contains("stored"), kept, "{path}: {told}");
            let got = edge.get(path).await;
            assert_eq!(is_hit(&got), kept, "{path}: {}", got.cache_status());
            let want = if kept { "POST" } else { "GET" };
            assert_eq!(got.text(), format!("{want} of {path}"));
        }
    }
}

#[tokio::test]
async fn what_a_post_brought_is_not_stored_if_it_was_purged_or_changed_meanwhile() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    let held = gate.clone();
    origin.script_fn("/a", move |seen: &Seen| match seen.method.as_str() {
        "POST" => ok("first")
            .header("content-location", "/a")
            .header("cache-control", "max-age=60")
            .behind(&held),
        "PUT" => status(204),
        _ => ok("second"),
    });
    let edge = EdgeProcess::start(&origin, rfc).await;
    let (posted, ()) = tokio::join!(send(&edge, "POST", "/a"), async {
        eventually("the POST is under way", PATIENCE, async || {
            (origin.count("/a") == 1).then_some(())
        })
        .await;
        send(&edge, "PUT", "/a").await;
        gate.open();
    });
    assert_eq!(posted.text(), "first");
    assert!(!posted.cache_status().contains("stored"), "{}", posted.cache_status());
    assert_eq!(edge.get("/a").await.text(), "second");
}

#[tokio::test]
async fn what_an_origin_was_told_of_a_strange_host_is_not_stored_from_a_post() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen: &Seen| {
        let told = seen.header("x-forwarded-host").unwrap_or("nobody").to_owned();
        ok(told).header("content-location", "/a").header("cache-control", "max-age=60")
    });
    let edge = EdgeProcess::start(&origin, rfc).await;
    let url = format!("{}/a", edge.url());
    let strange = [("host", "evil.example")];
    let posted = Client::request(Method::POST, &url, &strange, "x".into()).await;
    assert_eq!(posted.text(), "evil.example");
    assert_ne!(edge.get("/a").await.text(), "evil.example");
}
