//! Content codings made at the edge (RFC 9110 §8.4, §12.5.3): who gets which form, what each says
//! of itself, and what ends together with the response that it is made of.

#![expect(clippy::unwrap_used, reason = "a panic is a test's verdict")]

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Method, Request};
use meridian_config::edge::Profile;
use meridian_config::edge::compression::Coding;
use meridian_config::units::ByteSize;
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Script, ScriptedOrigin, Seen, ok, status};
use meridian_tests::wait::{PATIENCE, eventually};

/// Something that is worth coding.
fn text() -> String {
    (0..500).map(|n| format!("<li class=\"item\">Item number {n}</li>\n")).collect()
}

fn page() -> Script {
    ok(text())
        .header("content-type", "text/html; charset=utf-8")
        .header("cache-control", "max-age=60")
        .header("etag", "\"v1\"")
}

async fn ask(edge: &EdgeProcess, path: &str, fields: &[(&str, &str)]) -> Reply {
    Client::get_with(&format!("{}{path}", edge.url()), fields).await
}

async fn accepting(edge: &EdgeProcess, path: &str, accept: &str) -> Reply {
    ask(edge, path, &[("accept-encoding", accept)]).await
}

/// The answer to a client that accepts `accept`, once it comes in `coding`.
async fn coded(edge: &EdgeProcess, path: &str, accept: &str, coding: &str) -> Reply {
    eventually(format!("{path} is there in {coding}"), PATIENCE, async || {
        let reply = accepting(edge, path, accept).await;
        (reply.header("content-encoding") == Some(coding)).then_some(reply)
    })
    .await
}

fn decoded(reply: &Reply) -> String {
    let (mut text, body) = (String::new(), &reply.body[..]);
    match reply.header("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_string(&mut text),
        Some("br") => brotli::Decompressor::new(body, 4_096).read_to_string(&mut text),
        Some("zstd") => zstd::stream::read::Decoder::new(body).unwrap().read_to_string(&mut text),
        coding => {
            assert_eq!(coding, None);
            text.push_str(reply.text());
            Ok(text.len())
        }
    }
    .unwrap();
    text
}

fn vary(reply: &Reply) -> Vec<&str> {
    reply.headers.get_all("vary").iter().map(|line| line.to_str().unwrap()).collect()
}

#[tokio::test]
async fn each_client_gets_the_coding_that_it_likes_best_of_one_fetch() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", page().header("content-md5", "x").header("digest", "sha-256=x"));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let first = accepting(&edge, "/a", "gzip, deflate, br, zstd").await;
    assert_eq!(first.header("content-encoding"), None, "nobody waits for a coding");
    assert_eq!(decoded(&first), text());
    assert_eq!(vary(&first), ["Accept-Encoding"]);
    assert_eq!(first.header("digest"), Some("sha-256=x"));

    let rows = [
        ("gzip, deflate, br, zstd", "br"),
        ("gzip, deflate, br;q=0.9, zstd", "zstd"),
        ("x-gzip", "gzip"),
        ("*;q=0.1, br;q=0", "zstd"),
        ("identity;q=0, gzip", "gzip"),
    ];
    let mut tags = vec![first.header("etag").unwrap().to_owned()];
    for (accept, coding) in rows {
        let reply = coded(&edge, "/a", accept, coding).await;
        assert_eq!(decoded(&reply), text(), "{accept}");
        assert_eq!(vary(&reply), ["Accept-Encoding"]);
        assert!(reply.body.len() < text().len() / 4, "{coding}: {}", reply.body.len());
        for digest in ["content-md5", "digest"] {
            assert_eq!(reply.header(digest), None, "{digest} was of the unencoded content");
        }
        tags.push(reply.header("etag").unwrap().to_owned());

        // Over HTTP/2, and for HEAD, the same.
        let mut client = Client::http2(edge.url()).await.unwrap();
        for method in [Method::GET, Method::HEAD] {
            let request = Request::builder().method(method.clone()).uri("/a");
            let request = request.header("accept-encoding", accept).body(Bytes::new()).unwrap();
            let other = client.send(request).await.unwrap();
            for name in ["content-length", "content-encoding", "etag", "vary", "content-type"] {
                assert_eq!(other.header(name), reply.header(name), "{method} {accept}: {name}");
            }
            let length: usize = other.header("content-length").unwrap().parse().unwrap();
            assert_eq!(length, reply.body.len());
            assert_eq!(other.body.is_empty(), method == Method::HEAD);
        }
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "each form has a tag of its own: {tags:?}");
    for accept in ["", "identity", "deflate", "gzip;q=0", "gzip;q=0.5, identity"] {
        let reply = accepting(&edge, "/a", accept).await;
        assert_eq!(reply.header("content-encoding"), None, "{accept:?}");
        assert_eq!((reply.header("etag"), vary(&reply)[..].len()), (Some("\"v1\""), 1));
    }
    assert_eq!(origin.count("/a"), 1);
    assert!((edge.metric("edge_compressions_total").await - 3.0).abs() < 0.5);
    let explained = Client::get(&format!("{}/v1/explain?url=/a", edge.admin())).await.json();
    assert_eq!(explained["stored"][0]["coded_bytes"].as_object().unwrap().len(), 3);
}

#[tokio::test]
async fn what_must_not_or_need_not_be_coded_stays_as_it_is() {
    let origin = ScriptedOrigin::start().await;
    let html = || ok(text()).header("content-type", "text/html").header("etag", "\"v1\"");
    let fresh = |script: Script| script.header("cache-control", "max-age=60");
    let image = ok(text()).header("content-type", "image/png");
    let rows = [
        ("/no-transform", html().header("cache-control", "max-age=60, no-transform")),
        ("/coded", fresh(html().header("content-encoding", "gzip"))),
        ("/image", fresh(image)),
        ("/events", fresh(ok(text()).header("content-type", "text/event-stream"))),
        ("/small", fresh(ok("small").header("content-type", "text/html"))),
        ("/large", fresh(ok("x".repeat(30_000)).header("content-type", "text/html"))),
        ("/untyped", fresh(ok(text()))),
        ("/not-found", fresh(status(404).body(text()).header("content-type", "text/html"))),
    ];
    let paths: Vec<&str> = rows.iter().map(|(path, _)| *path).collect();
    for (path, script) in rows {
        origin.script(path, script);
    }
    origin.script("/a", page());
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site[0].compression.max_size = ByteSize::bytes(25_000);
    })
    .await;
    for _ in 0..2 {
        for path in &paths {
            accepting(&edge, path, "gzip").await;
        }
    }
    // Whatever was ordered by now stood in the queue before this one.
    coded(&edge, "/a", "gzip", "gzip").await;
    for path in paths {
        let reply = accepting(&edge, path, "gzip").await;
        assert!(reply.cache_status().starts_with("fra-1; hit"), "{path}");
        let own = (path == "/coded").then_some("gzip");
        assert_eq!(reply.header("content-encoding"), own, "{path}");
        assert!(vary(&reply).is_empty(), "{path}");
    }
    assert!((edge.metric("edge_compressions_total").await - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn a_client_that_asks_to_leave_content_as_it_is_gets_it_so() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", page());
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    coded(&edge, "/a", "gzip", "gzip").await;
    let fields = [("accept-encoding", "gzip"), ("cache-control", "no-transform")];
    let reply = ask(&edge, "/a", &fields).await;
    assert_eq!((reply.header("content-encoding"), reply.header("etag")), (None, Some("\"v1\"")));
}

#[tokio::test]
async fn sites_say_whether_and_what_is_coded() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", page());
    let off = EdgeProcess::start(&origin, |edge| edge.site[0].profile = Profile::Rfc).await;
    for _ in 0..2 {
        let reply = accepting(&off, "/a", "gzip, br, zstd").await;
        assert_eq!((reply.header("content-encoding"), vary(&reply).len()), (None, 0));
    }
    let only = EdgeProcess::start(&origin, |edge| {
        edge.site[0].profile = Profile::Rfc;
        edge.site[0].compression.codings = Some(vec![Coding::Gzip]);
    })
    .await;
    coded(&only, "/a", "br, zstd, gzip;q=0.1", "gzip").await;
    let reply = accepting(&only, "/a", "br, zstd").await;
    assert_eq!(reply.header("content-encoding"), None);
}

#[tokio::test]
async fn noise_is_tried_once_and_left() {
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..20_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect();
    let origin = ScriptedOrigin::start().await;
    let script = ok(noise.clone()).header("content-type", "text/plain");
    origin.script("/noise", script.header("cache-control", "max-age=60"));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for (tries, accept) in [(1.0, "gzip"), (2.0, "br")] {
        eventually(format!("{accept} was tried"), PATIENCE, async || {
            let reply = accepting(&edge, "/noise", accept).await;
            assert_eq!((reply.header("content-encoding"), &reply.body[..]), (None, &noise[..]));
            (edge.metric("edge_compression_useless_total").await >= tries).then_some(())
        })
        .await;
        for _ in 0..3 {
            accepting(&edge, "/noise", accept).await;
        }
    }
    assert!((edge.metric("edge_compression_useless_total").await - 2.0).abs() < 0.5, "each once");
}

#[tokio::test]
async fn conditions_are_about_the_form_that_the_client_has() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", page());
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let gzip = coded(&edge, "/a", "gzip", "gzip").await.header("etag").unwrap().to_owned();
    let elsewhere = "\"v1-br-0123456789abcdef\""; // made at another edge
    let stale = "\"v0-gzip-0123456789abcdef\"";
    let rows = [
        // If-None-Match, Accept-Encoding, status, entity tag
        ("\"v1\"", "identity", 304, Some("\"v1\"")),
        ("\"v1\"", "gzip", 304, Some("\"v1\"")), // its copy is good, though it came in plain
        (&gzip, "gzip", 304, Some(gzip.as_str())),
        (&gzip, "gzip, br", 304, Some(&gzip)),
        (elsewhere, "gzip, br", 304, Some(elsewhere)),
        (elsewhere, "gzip", 200, Some(&gzip)), // a form that it cannot read any more
        (&gzip, "identity", 200, Some("\"v1\"")),
        (stale, "gzip", 200, Some(&gzip)),
        ("*", "gzip", 304, Some(&gzip)),
    ];
    for (none_match, accept, status, tag) in rows {
        for method in [Method::GET, Method::HEAD] {
            let fields = [("accept-encoding", accept), ("if-none-match", none_match)];
            let url = format!("{}/a", edge.url());
            let reply = Client::request(method.clone(), &url, &fields, Bytes::new()).await;
            let told = format!("{method} {none_match} {accept}");
            assert_eq!((reply.status.as_u16(), reply.header("etag")), (status, tag), "{told}");
            assert_eq!(vary(&reply), ["Accept-Encoding"], "{told}");
            if status == 304 {
                assert_eq!(reply.header("content-encoding"), None, "{told}");
            }
        }
    }
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn ranges_are_of_the_form_that_if_range_names_and_else_of_the_unencoded_one() {
    let origin = ScriptedOrigin::start().await;
    let modified = "Mon, 03 Jan 2022 00:00:00 GMT";
    origin.script("/a", page().header("last-modified", modified));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let whole = coded(&edge, "/a", "gzip", "gzip").await;
    let tag = whole.header("etag").unwrap();
    let part = |if_range: Option<&'static str>| {
        let mut fields = vec![("accept-encoding", "gzip"), ("range", "bytes=3-9")];
        fields.extend(if_range.map(|tag| ("if-range", tag)));
        fields
    };
    let plain = text().into_bytes();
    for fields in [part(None), part(Some("\"v1\""))] {
        let reply = ask(&edge, "/a", &fields).await;
        assert_eq!((reply.status.as_u16(), &reply.body[..]), (206, &plain[3..=9]));
        assert_eq!(
            (reply.header("content-encoding"), reply.header("etag")),
            (None, Some("\"v1\""))
        );
    }
    let mut fields = part(None);
    fields.push(("if-range", tag));
    let reply = ask(&edge, "/a", &fields).await;
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (206, &whole.body[3..=9]));
    assert_eq!((reply.header("content-encoding"), reply.header("etag")), (Some("gzip"), Some(tag)));
    let total = format!("bytes 3-9/{}", whole.body.len());
    assert_eq!(reply.header("content-range"), Some(total.as_str()));
    // All forms have this date: it names none of them.
    let reply = ask(&edge, "/a", &part(Some(modified))).await;
    assert_eq!((reply.status.as_u16(), &reply.body), (200, &whole.body));
    let reply = ask(&edge, "/a", &part(Some("\"v1-gzip-0123456789abcdef\""))).await;
    assert_eq!((reply.status.as_u16(), &reply.body), (200, &whole.body));
}

#[tokio::test]
async fn who_refuses_the_unencoded_form_waits_for_another_and_never_gets_it() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", page());
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    edge.get("/a").await;
    let accept = "identity;q=0, br";
    let reply = accepting(&edge, "/a", accept).await;
    if reply.status == 406 {
        assert_eq!(
            (reply.code().as_str(), vary(&reply)),
            ("not_acceptable", vec!["Accept-Encoding"])
        );
    } else {
        assert_eq!(reply.header("content-encoding"), Some("br"));
    }
    let reply = coded(&edge, "/a", accept, "br").await;
    assert_eq!(decoded(&reply), text());
    assert_eq!(accepting(&edge, "/a", "*;q=0").await.status, 406);
    assert_eq!(origin.count("/a"), 1);
}

/// An origin whose page has the number `version`, and validates it.
fn versioned(origin: &ScriptedOrigin, lifetime: &'static str) -> Arc<AtomicUsize> {
    let version = Arc::new(AtomicUsize::new(1));
    let now = Arc::clone(&version);
    origin.script_fn("/a", move |seen: &Seen| {
        let number = now.load(Ordering::SeqCst);
        let etag = format!("\"{number}\"");
        let script = if seen.header("if-none-match") == Some(&etag) {
            status(304)
        } else {
            ok(format!("{number}{}", text())).header("content-type", "text/html")
        };
        script.header("etag", &etag).header("cache-control", lifetime)
    });
    version
}

#[tokio::test]
async fn a_304_keeps_coded_forms_and_a_new_response_has_its_own() {
    let origin = ScriptedOrigin::start().await;
    let version = versioned(&origin, "no-cache");
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let first = coded(&edge, "/a", "gzip", "gzip").await;
    assert!(decoded(&first).starts_with("1<"));
    let tag = first.header("etag").unwrap();
    let before = origin.count("/a");
    let fields = [("accept-encoding", "gzip"), ("if-none-match", tag)];
    let again = ask(&edge, "/a", &fields).await;
    assert_eq!((again.status.as_u16(), again.header("etag")), (304, Some(tag)));
    let again = accepting(&edge, "/a", "gzip").await;
    assert_eq!((&again.body, again.header("etag")), (&first.body, Some(tag)));
    let seen = origin.requests("/a");
    assert_eq!(seen.len(), before + 2);
    for seen in &seen[before..] {
        assert_eq!(seen.header("if-none-match"), Some("\"1\""), "the origin's own validator");
    }
    assert!((edge.metric("edge_compressions_total").await - 1.0).abs() < 0.5, "made once");

    version.store(2, Ordering::SeqCst);
    let new = ask(&edge, "/a", &fields).await;
    assert_eq!(new.status, 200);
    assert!(decoded(&new).starts_with("2<"));
    let new = coded(&edge, "/a", "gzip", "gzip").await;
    assert!(decoded(&new).starts_with("2<"));
    assert_ne!(new.header("etag"), Some(tag));
}

#[tokio::test]
async fn what_the_origin_codes_itself_is_passed_on_as_it_is() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen: &Seen| {
        let accept = seen.header("accept-encoding").unwrap_or_default();
        let script = if accept.contains("br") {
            ok("the origin's own").header("content-encoding", "br")
        } else {
            ok(text())
        };
        let script = script.header("content-type", "text/html").header("vary", "Accept-Encoding");
        script.header("cache-control", "max-age=60").header("etag", &format!("\"{accept}\""))
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for _ in 0..3 {
        let reply = accepting(&edge, "/a", "gzip, br").await;
        assert_eq!(
            (reply.header("content-encoding"), reply.text()),
            (Some("br"), "the origin's own")
        );
        assert_eq!(vary(&reply), ["Accept-Encoding"]);
    }
    // A client that takes none of that has the unencoded form fetched, and coded here.
    let reply = coded(&edge, "/a", "gzip", "gzip").await;
    assert_eq!(decoded(&reply), text());
    assert_eq!(vary(&reply), ["Accept-Encoding"]);
    assert_eq!(accepting(&edge, "/a", "deflate").await.header("content-encoding"), None);
}
