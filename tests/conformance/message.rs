//! The message itself: targets and hosts, expectations, hops, limits of heads, over HTTP/1.1 and
//! over HTTP/2.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use meridian_config::units::ByteSize;
use meridian_tests::client::Client;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, Seen, ok, status};
use meridian_tests::raw;

/// Sends one request's bytes and reads all until the edge closes.
async fn told(edge: &EdgeProcess, request: &str) -> String {
    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    raw::exchange(edge.url(), request.as_bytes(), |_| false).await
}

/// An origin that answers everything under `paths`, and tells what target it got.
async fn telling(paths: &[&str]) -> ScriptedOrigin {
    let origin = ScriptedOrigin::start().await;
    for path in paths {
        let tells = |seen: &Seen| ok(seen.path.clone()).header("cache-control", "max-age=60");
        origin.script_fn(path, tells);
    }
    origin
}

#[tokio::test]
async fn equivalent_targets_are_one_to_the_store_and_to_the_origin() {
    let origin = telling(&["/a/b", "/a/b?", "/a/b?x=%2F", "/a%2Fb", "/a//b"]).await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let own = edge.url().strip_prefix("http://").unwrap().to_owned();
    let rows = [
        ("/a/b", "/a/b"),
        ("/a/%62", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/c/../b", "/a/b"),
        ("/a/c/%2e%2E/b", "/a/b"),
        ("/../a/b", "/a/b"),
        ("/a/b#fragment", "/a/b"), // hyper cuts it off: neither key nor origin sees one
        ("http://OTHER.example/a/b", "/a/b"),
        ("/a/b?", "/a/b?"), // an empty query is not none
        ("/a/b?x=%2f", "/a/b?x=%2F"),
        ("/a/b?%78=%2F", "/a/b?x=%2F"),
        ("/a%2fb", "/a%2Fb"), // an encoded slash is data
        ("/a//b", "/a//b"),
    ];
    for (target, want) in rows {
        let text = told(&edge, &format!("GET {target} HTTP/1.1\r\nHost: {own}\r\n\r\n")).await;
        assert_eq!(raw::status(&text), 200, "{target}: {text}");
        assert_eq!(text.rsplit("\r\n\r\n").next(), Some(want), "{target}");
    }
    for path in ["/a/b", "/a/b?", "/a/b?x=%2F", "/a%2Fb", "/a//b"] {
        assert_eq!(origin.count(path), 1, "{path}: one spelling, one fetch");
    }
}

#[tokio::test]
async fn a_request_names_one_host_or_is_refused() {
    let origin = telling(&["/a"]).await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let rows = [
        ("GET /a HTTP/1.1\r\nHost: shop.example", 200),
        ("GET /a HTTP/1.1\r\nHost: shop.example:", 200),
        ("GET /a HTTP/1.1\r\nHost: [::1]:80", 200),
        ("GET /a HTTP/1.0", 200),
        ("GET /a HTTP/1.1\r\nHost:", 200),
        ("GET http://shop.example:81/a HTTP/1.1\r\nHost: other", 200),
        ("GET /a HTTP/1.1", 400),
        ("GET /a HTTP/1.1\r\nHost: a\r\nHost: a", 400),
        ("GET /a HTTP/1.1\r\nHost: a, b", 400),
        ("GET /a HTTP/1.1\r\nHost: a b", 400),
        ("GET /a HTTP/1.1\r\nHost: a/b", 400),
        ("GET /a HTTP/1.1\r\nHost: user@a", 400),
        ("GET /a HTTP/1.1\r\nHost: a:b", 400),
        ("GET /a HTTP/1.1\r\nHost: a:65536", 400),
        ("GET /a HTTP/1.1\r\nHost: [::1", 400),
        ("GET /a HTTP/1.1\r\nHost: a..b", 400),
        ("GET /a HTTP/1.1\r\nHost: %61", 400),
        ("GET http://user:secret@shop.example/a HTTP/1.1\r\nHost: shop.example", 400),
        ("GET http://shop.example:x/a HTTP/1.1\r\nHost: shop.example", 400),
        ("GET http://shop.example/a HTTP/1.1", 400), // RFC 9112 §3.2: also beside an authority
        ("GET ftp://shop.example/a HTTP/1.1\r\nHost: shop.example", 400),
        ("GET shop.example:80 HTTP/1.1\r\nHost: shop.example", 400),
    ];
    for (head, status) in rows {
        let text = told(&edge, &format!("{head}\r\n\r\n")).await;
        assert_eq!(raw::status(&text), status, "{head}: {text}");
    }
}

#[tokio::test]
async fn spellings_of_one_host_are_one_to_the_key_and_to_the_origin() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen| {
        ok(seen.header("host").unwrap().to_owned()).header("cache-control", "max-age=60")
    });
    let edge = EdgeProcess::start(&origin, |edge| edge.site[0].preserve_host = true).await;
    let one =
        ["shop.example", "SHOP.example", "shop.example.", "shop.example:80", "Shop.Example.:"];
    for host in one {
        let text = told(&edge, &format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert!(text.ends_with("\r\n\r\nshop.example"), "{host}: {text}");
    }
    assert_eq!(origin.count("/a"), 1);
    let text = told(&edge, "GET /a HTTP/1.1\r\nHost: shop.example:81\r\n\r\n").await;
    assert!(text.ends_with("\r\n\r\nshop.example:81"), "another port is another host: {text}");
}

#[tokio::test]
async fn over_http2_two_names_of_the_host_must_be_one() {
    let origin = telling(&["/a"]).await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let own = edge.url().strip_prefix("http://").unwrap().to_owned();
    let mut client = Client::http2(edge.url()).await.unwrap();
    for (host, status) in [(own.as_str(), 200), ("other.example", 400), ("", 400), ("a b", 400)] {
        let request = Request::get("/a").header("host", host).body(Bytes::new()).unwrap();
        assert_eq!(client.send(request).await.unwrap().status, status, "{host}");
    }
}

#[tokio::test]
async fn a_client_is_told_to_go_on_when_its_body_is_wanted_and_not_before() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen| ok(seen.body.clone()));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.accept.body_size = ByteSize::bytes(4);
        edge.site[0].hosts = vec!["shop.example".parse().unwrap()];
        edge.site[0].default = false;
    })
    .await;
    let ask = |fields: &str| format!("POST /a HTTP/1.1\r\nHost: shop.example\r\n{fields}\r\n\r\n");
    let text = told(
        &edge,
        &ask("Content-Length: 4\r\nExpect: 100-Continue").replace("\r\n\r\n", "\r\n\r\nbody"),
    )
    .await;
    let (first, rest) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(first, "HTTP/1.1 100 Continue");
    assert_eq!(raw::status(rest), 200, "{text}");
    assert!(rest.ends_with("body"), "{text}");
    assert_eq!(origin.requests("/a")[0].header("expect"), None, "the origin need not wait");

    // Refused before a byte of the body is asked for.
    let rows = [
        (ask("Content-Length: 5\r\nExpect: 100-continue"), 413),
        (ask("Content-Length: 4\r\nExpect: 100-continue").replace("shop.", "other."), 421),
        (ask("Content-Length: 4\r\nExpect: 200-ok"), 417),
        (ask("Content-Length: 4\r\nExpect: 100-continue\r\nExpect: x"), 417),
        (ask("Content-Length: 4\r\nExpect: 100-continue, x"), 417),
    ];
    for (request, status) in rows {
        let text = told(&edge, &request).await;
        assert_eq!(raw::status(&text), status, "{request}: {text}");
        assert!(!text.contains("100 Continue"), "{request}: {text}");
    }
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn who_expects_to_be_told_and_sends_nothing_is_told_before_the_origin_answers() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen| ok(seen.body.clone()));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let head = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let text = raw::exchange(edge.url(), head.as_bytes(), |text| text.ends_with("\r\n\r\n")).await;
    assert_eq!(text, "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(origin.count("/a"), 0, "its body has not come");
}

#[tokio::test]
async fn via_tells_in_which_version_each_message_was_received() {
    let origin = ScriptedOrigin::start().await;
    for path in ["/10", "/11", "/2"] {
        origin
            .script(path, ok("a").header("via", "1.0 inner").header("cache-control", "max-age=9"));
    }
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    told(&edge, "GET /10 HTTP/1.0\r\nVia: 1.1 outer\r\n\r\n").await;
    told(&edge, "GET /11 HTTP/1.1\r\nHost: h\r\nVia: 1.1 outer\r\n\r\n").await;
    let request = Request::get("/2").header("via", "1.1 outer").body(Bytes::new()).unwrap();
    Client::http2(edge.url()).await.unwrap().send(request).await.unwrap();
    for (path, own) in [("/10", "1.0 fra-1"), ("/11", "1.1 fra-1"), ("/2", "2 fra-1")] {
        let seen = &origin.requests(path)[0];
        let via: Vec<_> = seen.headers.get_all("via").iter().collect();
        assert_eq!(via, ["1.1 outer", own], "{path}");
        for _ in 0..2 {
            let reply = edge.get(path).await;
            let via: Vec<_> = reply.headers.get_all("via").iter().collect();
            assert_eq!(via, ["1.0 inner", "1.1 fra-1"], "{path}");
        }
    }
    let (old, _serving) = raw::origin(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na").await;
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.peers.insert("origin-1".parse().unwrap(), old.to_string().parse().unwrap());
    })
    .await;
    assert_eq!(edge.get("/a").await.header("via"), Some("1.0 fra-1"));
}

#[tokio::test]
async fn a_freshened_response_names_each_node_once() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen| {
        let answer = match seen.header("if-none-match") {
            Some(_) => status(304).header("via", "1.0 inner"),
            None => ok("a").header("via", "1.0 inner, 1.1 second"),
        };
        answer.header("etag", "\"1\"").header("cache-control", "max-age=0")
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    edge.get("/a").await;
    for _ in 0..2 {
        let reply = edge.get("/a").await;
        assert!(reply.cache_status().contains("fwd-status=304"), "{}", reply.cache_status());
        let via: Vec<_> = reply.headers.get_all("via").iter().collect();
        assert_eq!(via, ["1.0 inner", "1.1 fra-1"]);
    }
}

#[tokio::test]
async fn options_and_trace_go_as_far_as_they_may() {
    let origin = ScriptedOrigin::start().await;
    for path in ["/a", "*"] {
        origin.script_fn(path, |seen| ok(format!("{:?}", seen.headers)));
    }
    let edge = EdgeProcess::start(&origin, |edge| edge.accept.trace = true).await;
    let ask = async |line: &str, fields: &str| {
        told(&edge, &format!("{line} HTTP/1.1\r\nHost: h\r\n{fields}\r\n")).await
    };
    for (line, fields) in [("OPTIONS *", ""), ("OPTIONS /a", "Max-Forwards: 0\r\n")] {
        let text = ask(line, fields).await;
        assert_eq!(raw::status(&text), 204, "{text}");
        assert!(text.contains("\r\nallow: GET, HEAD, POST"), "{text}");
        assert!(!text.contains("content-length"), "{text}");
    }
    let secrets = "Cookie: a=b\r\nAuthorization: Basic x\r\n";
    let text = ask("TRACE /a", &format!("Max-Forwards: 0\r\nX-Y: z\r\n{secrets}")).await;
    assert!(text.contains("\r\ncontent-type: message/http\r\n"), "{text}");
    assert!(text.contains("\r\n\r\nTRACE /a HTTP/1.1\r\n"), "{text}");
    assert!(text.contains("\r\nx-y: z\r\n") && !text.contains("Basic"), "{text}");
    assert_eq!((origin.count("/a"), origin.count("*")), (0, 0), "they ended here");

    for (line, fields, sent) in [
        ("OPTIONS /a", "Max-Forwards: 3\r\n", Some("2")),
        ("OPTIONS /a", "Max-Forwards: x\r\n", Some("x")),
        ("OPTIONS /a", "", None),
        ("TRACE /a", "Max-Forwards: 1\r\n", Some("0")),
        ("GET /a", "Max-Forwards: 0\r\n", Some("0")), // it counts for the two alone
    ] {
        let before = origin.count("/a");
        ask(line, &format!("{fields}{secrets}")).await;
        let seen = origin.requests("/a").pop().unwrap();
        assert_eq!((origin.count("/a"), seen.header("max-forwards")), (before + 1, sent), "{line}");
        assert_eq!(seen.header("cookie").is_some(), line != "TRACE /a", "{line}");
    }
}

#[tokio::test]
async fn what_trusted_proxies_say_of_the_client_is_kept_and_added_to() {
    let origin = ScriptedOrigin::start().await;
    for path in ["/a", "/b"] {
        origin.script_fn(path, |seen| {
            ok(seen.header("x-forwarded-proto").unwrap().to_owned())
                .header("cache-control", "max-age=60")
        });
    }
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.accept.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let url = format!("{}/a", edge.url());
    let fields = [
        ("x-forwarded-for", "2001:db8::7, 10.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("forwarded", "for=\"[2001:db8::7]\";host=\"shop.example\""),
        ("host", "edge.internal"),
    ];
    // For itself alone: all of it.
    Client::request(Method::POST, &url, &fields, Bytes::new()).await;
    let seen = origin.requests("/a").pop().unwrap();
    let rows = [
        ("x-forwarded-for", Some("2001:db8::7, 10.1.1.1, 127.0.0.1")),
        ("x-forwarded-proto", Some("https")),
        ("x-forwarded-host", Some("shop.example")),
        (
            "forwarded",
            Some(
                "for=\"[2001:db8::7]\";host=\"shop.example\", \
                 for=127.0.0.1;proto=https;host=shop.example",
            ),
        ),
    ];
    for (name, want) in rows {
        assert_eq!(seen.header(name), want, "{name}");
    }
    // For all: nothing of a host that the key does not hold, and the scheme is part of the key.
    assert_eq!(Client::get_with(&url, &fields).await.text(), "https");
    let seen = origin.requests("/a").pop().unwrap();
    assert_eq!(seen.header("x-forwarded-host"), None);
    assert_eq!(seen.header("forwarded"), Some("for=127.0.0.1;proto=https"));
    assert_eq!(edge.get("/a").await.text(), "http");
    assert_eq!(Client::get_with(&url, &fields).await.text(), "https");
    assert_eq!(origin.count("/a"), 3);
}

#[tokio::test]
async fn a_member_of_cdn_loop_is_parsed_and_appended() {
    let origin = telling(&["/a", "/b"]).await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    edge.get("/a").await;
    let own = origin.requests("/a")[0].header("cdn-loop").unwrap().to_owned();
    let url = format!("{}/b", edge.url());
    for line in [own.clone(), format!("x, {own}; n=1"), own.replace("; ", " ;\t")] {
        let reply = Client::get_with(&url, &[("cdn-loop", &line)]).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (508, "loop_detected"),
            "{line}"
        );
    }
    let harmless = format!("x; note=\", {own}\"");
    assert_eq!(Client::get_with(&url, &[("cdn-loop", &harmless)]).await.status, 200);
    let seen = origin.requests("/b")[0].clone();
    let members: Vec<_> = seen.headers.get_all("cdn-loop").iter().collect();
    assert_eq!(members, [harmless.as_str(), own.as_str()]);
}

#[tokio::test]
async fn heads_at_their_limits_are_taken_and_one_past_them_refused() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.accept.target_size = ByteSize::kib(1);
        edge.accept.head_size = ByteSize::kib(8);
        edge.accept.head_fields = 8.try_into().unwrap();
    })
    .await;
    let get = |target: usize, head: usize, fields: usize| {
        let mut text = format!("GET /{} HTTP/1.1\r\nHost: h\r\n", "t".repeat(target - 1));
        for n in 3..fields {
            text.push_str(&format!("X-{n}: y\r\n"));
        }
        let rest = head.saturating_sub(text.len() + "Z: \r\n\r\n".len());
        text.push_str(&format!("Z: {}\r\n\r\n", "z".repeat(rest)));
        text
    };
    // Each request has the fields Host and Z, and with `told` Connection.
    let rows = [
        ((1024, 0, 8), 404),
        ((1025, 0, 8), 414),
        ((1, 0, 8), 404),
        ((1, 0, 9), 431),
        ((1, 8192 - "Connection: close\r\n".len(), 8), 404),
        ((1, 8193 - "Connection: close\r\n".len(), 8), 431),
    ];
    for ((target, head, fields), status) in rows {
        let text = told(&edge, &get(target, head, fields)).await;
        assert_eq!(raw::status(&text), status, "{target} {head} {fields}: {text}");
    }
    let mut client = Client::http2(edge.url()).await.unwrap();
    // In HTTP/2 a list's size is that of names and values and 32 for each (RFC 9113 §6.5.2).
    let pseudo: usize = [":method", "GET", ":scheme", "http", ":path", "/", ":authority"]
        .iter()
        .map(|part| part.len())
        .sum::<usize>()
        + edge.url().len()
        - "http://".len()
        + 4 * 32;
    let room = 8192 - 1 - pseudo - 32 - "z".len(); // h2 takes less than the limit, not the limit
    for (target, size, fields, status) in [
        (1024, 0, 1, 404),
        (1025, 0, 1, 414),
        (1, 0, 8, 404),
        (1, 0, 9, 431),
        (1, room, 1, 404),
        (1, room + 1, 1, 431),
    ] {
        let mut request = Request::get(format!("/{}", "t".repeat(target - 1)));
        for _ in 1..fields {
            request = request.header("x", "y");
        }
        let request = request.header("z", "z".repeat(size)).body(Bytes::new()).unwrap();
        let reply = client.send(request).await.unwrap();
        assert_eq!(reply.status, status, "{target} {size} {fields}");
    }
}

/// An answer in chunks with trailers, allowed and not.
const WITH_TRAILERS: &str = "Transfer-Encoding: chunked\r\nTrailer: X-Sum, Set-Cookie\r\n\r\n\
     4\r\nbody\r\n0\r\nX-Sum: 7\r\nSet-Cookie: a=b\r\n\r\n";

#[tokio::test]
async fn trailers_go_to_the_clients_that_take_them_and_only_the_harmless_ones() {
    for lifetime in ["no-store", "max-age=60"] {
        let answer = format!("HTTP/1.1 200 OK\r\nCache-Control: {lifetime}\r\n{WITH_TRAILERS}");
        let (address, _serving) = raw::origin(answer.into_bytes().leak()).await;
        let unused = ScriptedOrigin::start().await;
        let edge = EdgeProcess::start(&unused, |edge| {
            edge.peers.insert("origin-1".parse().unwrap(), address.to_string().parse().unwrap());
        })
        .await;
        let taking = "GET /1 HTTP/1.1\r\nHost: h\r\nTE: trailers\r\n\r\n";
        let text = told(&edge, taking).await;
        let want = "\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n";
        assert!(text.ends_with(want), "{lifetime}: {text}");
        let text = told(&edge, "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(text.ends_with("\r\n\r\n4\r\nbody\r\n0\r\n\r\n"), "{lifetime}: {text}");

        let mut client = Client::http2(edge.url()).await.unwrap();
        let request = Request::get("/3").body(Bytes::new()).unwrap();
        let body = client.open(request).await.unwrap().into_body().collect().await.unwrap();
        let trailers = body.trailers().unwrap();
        assert_eq!(trailers.get("x-sum").unwrap(), "7", "{lifetime}");
        assert_eq!(trailers.len(), 1, "{lifetime}: {trailers:?}");

        // What comes from the store is whole at once, and says nothing of trailers.
        let text = told(&edge, taking).await;
        let is_stored = lifetime == "max-age=60";
        assert_eq!(text.contains("fra-1; hit"), is_stored, "{text}");
        if is_stored {
            assert!(text.contains("\r\ncontent-length: 4\r\n"), "{text}");
            assert!(!text.contains("\r\ntrailer:") && text.ends_with("\r\n\r\nbody"), "{text}");
        }
    }
}

#[tokio::test]
async fn trailers_of_a_request_reach_the_origin_and_only_the_harmless_ones() {
    let (address, mut heard) = raw::hearing_origin(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let unused = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&unused, |edge| {
        edge.peers.insert("origin-1".parse().unwrap(), address.to_string().parse().unwrap());
    })
    .await;
    let head = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\
                Trailer: X-Sum, X-Forwarded-For, Host\r\n\r\n";
    let trailers = "X-Sum: 7\r\nX-Forwarded-For: 6.6.6.6\r\nHost: evil\r\n\r\n";
    let text = told(&edge, &format!("{head}4\r\nbody\r\n0\r\n{trailers}")).await;
    assert_eq!(raw::status(&text), 204, "{text}");
    let heard = heard.join_next().await.unwrap().unwrap();
    assert!(heard.ends_with("\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 7\r\n\r\n"), "{heard}");
    assert!(heard.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"), "{heard}");
}

#[tokio::test]
async fn what_has_no_body_says_no_length_of_one_and_head_says_that_of_get() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/none", status(204).header("cache-control", "max-age=60"));
    origin
        .script("/some", ok("body").header("cache-control", "max-age=60").header("etag", "\"1\""));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for round in ["fetched", "stored"] {
        for client in [Client::http1(edge.url()).await, Client::http2(edge.url()).await] {
            let mut client = client.unwrap();
            let reply = client.path("/none").await;
            assert_eq!(
                (reply.status.as_u16(), reply.header("content-length")),
                (204, None),
                "{round}"
            );
            assert_eq!(reply.header("transfer-encoding"), None, "{round}");
            assert_eq!(client.path("/some").await.header("content-length"), Some("4"), "{round}");
            let head = Request::head("/some").body(Bytes::new()).unwrap();
            let reply = client.send(head).await.unwrap();
            assert_eq!(reply.header("content-length"), Some("4"), "{round}");
            assert!(reply.body.is_empty(), "{round}");
            let condition = Request::get("/some").header("if-none-match", "\"1\"");
            let reply = client.send(condition.body(Bytes::new()).unwrap()).await.unwrap();
            assert_eq!(reply.status, 304, "{round}");
            assert_eq!(reply.header("transfer-encoding"), None, "{round}");
            assert!(reply.header("content-length").is_none_or(|n| n == "4"), "{round}");
        }
    }
    assert_eq!(origin.count("/none"), 1);
}
