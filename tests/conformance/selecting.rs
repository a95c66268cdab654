//! Which response, and which part of it: variants (RFC 9111 §4.1), conditions (RFC 9110 §13),
//! ranges (RFC 9110 §14).

use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, Seen, ok, status};

async fn ask(edge: &EdgeProcess, path: &str, fields: &[(&str, &str)]) -> Reply {
    Client::get_with(&format!("{}{path}", edge.url()), fields).await
}

#[tokio::test]
async fn variants_are_kept_apart_by_what_vary_names() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen: &Seen| {
        ok(seen.header("accept-language").unwrap_or("none").to_owned())
            .header("cache-control", "max-age=60")
            .header("vary", "Accept-Language")
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for _ in 0..2 {
        for language in ["de", "fr"] {
            let reply = ask(&edge, "/a", &[("accept-language", language)]).await;
            assert_eq!(reply.text(), language);
        }
        assert_eq!(ask(&edge, "/a", &[]).await.text(), "none");
    }
    assert_eq!(origin.count("/a"), 3);
    let other = ask(&edge, "/a", &[("accept-language", "it")]).await;
    assert!(other.cache_status().starts_with("fra-1; fwd=vary-miss"), "{}", other.cache_status());
}

#[tokio::test]
async fn spellings_of_accept_encoding_do_not_split_the_store() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen: &Seen| {
        ok(seen.header("accept-encoding").unwrap_or("none").to_owned())
            .header("cache-control", "max-age=60")
            .header("vary", "Accept-Encoding")
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for spelling in ["gzip, br", "br, gzip", "gzip;q=1.0, br;q=0.9, deflate"] {
        assert_eq!(ask(&edge, "/a", &[("accept-encoding", spelling)]).await.text(), "gzip, br");
    }
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn the_number_of_variants_is_bounded() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("a").header("cache-control", "max-age=60").header("vary", "X-User"));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.cache.max_variants = 4.try_into().unwrap();
    })
    .await;
    for n in 0..20 {
        ask(&edge, "/a", &[("x-user", &n.to_string())]).await;
    }
    let explained = Client::get(&format!("{}/v1/explain?url=/a", edge.admin())).await.json();
    assert_eq!(explained["stored"].as_array().unwrap().len(), 4);
    let newest = ask(&edge, "/a", &[("x-user", "19")]).await;
    assert!(newest.cache_status().starts_with("fra-1; hit"), "{}", newest.cache_status());
}

#[tokio::test]
async fn conditions_of_clients_are_answered_from_the_store() {
    let origin = ScriptedOrigin::start().await;
    let modified = "Mon, 03 Jan 2022 00:00:00 GMT";
    let answer = ok("body").header("cache-control", "max-age=60").header("etag", "\"v1\"");
    origin.script("/a", answer.header("last-modified", modified));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let rows = [
        ("if-none-match", "\"v1\"", 304),
        ("if-none-match", "W/\"v1\"", 304),
        ("if-none-match", "\"v0\", \"v1\"", 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"v0\"", 200),
        ("if-modified-since", modified, 304),
        ("if-modified-since", "Mon, 03 Jan 2021 00:00:00 GMT", 200),
    ];
    // The first round is a miss: the client's condition must not become the cache's.
    for round in 0..2 {
        for (name, value, want) in rows {
            let reply = ask(&edge, "/a", &[(name, value)]).await;
            assert_eq!(reply.status.as_u16(), want, "{round}: {name}: {value}");
            assert_eq!(reply.header("etag"), Some("\"v1\""));
            assert_eq!(reply.body.is_empty(), want == 304);
        }
    }
    assert_eq!(origin.count("/a"), 1);
    assert!(origin.requests("/a")[0].header("if-none-match").is_none());
}

#[tokio::test]
async fn ranges_are_cut_from_what_is_stored_and_from_what_is_arriving() {
    let origin = ScriptedOrigin::start().await;
    let answer = ok("0123456789").header("cache-control", "max-age=60").header("etag", "\"v1\"");
    origin.script("/cold", answer.clone());
    origin.script("/warm", answer);
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    edge.get("/warm").await;

    let cold = ask(&edge, "/cold", &[("range", "bytes=2-4")]).await;
    assert_eq!((cold.status.as_u16(), cold.text()), (206, "234"));
    assert!(origin.requests("/cold")[0].header("range").is_none(), "the whole is fetched");

    let rows = [
        ("bytes=0-0", 206, Some("bytes 0-0/10"), "0"),
        ("bytes=-3", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=8-", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=5-100", 206, Some("bytes 5-9/10"), "56789"),
        ("bytes=10-", 416, Some("bytes */10"), ""),
        ("bytes=5-2", 200, None, "0123456789"), // malformed: as if absent (RFC 9110 §14.2)
        ("bytes=-0", 416, Some("bytes */10"), ""),
        ("lines=1-2", 200, None, "0123456789"),
    ];
    for (range, status, content_range, body) in rows {
        let reply = ask(&edge, "/warm", &[("range", range)]).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (status, body), "{range}");
        assert_eq!(reply.header("content-range"), content_range, "{range}");
    }
    let long = "0123456789".repeat(100);
    origin.script("/long", ok(long).header("cache-control", "max-age=60"));
    edge.get("/long").await;
    let several = ask(&edge, "/long", &[("range", "bytes=0-1,998-999")]).await;
    assert_eq!(several.status, 206);
    let content_type = several.header("content-type").unwrap();
    assert!(content_type.starts_with("multipart/byteranges; boundary="), "{content_type}");
    let part = "Content-Range: bytes 998-999/1000\r\n\r\n89\r\n";
    assert!(several.text().contains(part), "{}", several.text());
    let unless = [("range", "bytes=0-1"), ("if-range", "\"v0\"")];
    assert_eq!(ask(&edge, "/warm", &unless).await.status, 200);
    assert_eq!(origin.count("/warm"), 1);
}

#[tokio::test]
async fn the_query_belongs_to_the_key_as_the_site_says() {
    let origin = ScriptedOrigin::start().await;
    for path in ["/a?b=2&a=1&utm_source=x", "/a?a=1&b=2", "/a?a=1&b=3"] {
        origin.script(path, ok(path).header("cache-control", "max-age=60"));
    }
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site[0].query.sort = true;
        edge.site[0].query.drop = vec!["utm_*".to_owned()];
    })
    .await;
    edge.get("/a?b=2&a=1&utm_source=x").await;
    assert!(edge.get("/a?a=1&b=2").await.cache_status().starts_with("fra-1; hit"));
    assert!(edge.get("/a?a=1&b=3").await.cache_status().starts_with("fra-1; fwd=uri-miss"));
}

#[tokio::test]
async fn a_part_of_what_may_not_be_shared_is_asked_for_as_a_part() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen| {
        let answer = match seen.header("range") {
            Some(range) => {
                assert_eq!(range, "bytes=2-4");
                status(206).body("234").header("content-range", "bytes 2-4/10")
            }
            None => ok("0123456789"),
        };
        answer.header("cache-control", "private")
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for _ in 0..2 {
        let part = ask(&edge, "/a", &[("range", "bytes=2-4")]).await;
        assert_eq!((part.status.as_u16(), part.text()), (206, "234"));
    }
    assert_eq!(origin.count("/a"), 3, "the whole once, when nobody knew that it is private");
}
