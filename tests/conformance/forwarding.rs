//! What an origin is told of a request, and a client of its answer (RFC 9110 §7, RFC 8586,
//! RFC 7239); and requests that no origin should see.

use bytes::Bytes;
use http::{Method, Request};
use meridian_config::units::Host;
use meridian_tests::client::Client;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, ok, status};
use meridian_tests::process::Signal;
use meridian_tests::raw;

#[tokio::test]
async fn an_origin_hears_of_the_client_from_the_edge_and_nobody_else() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a?x=%2F", ok("a"));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let fields = [
        ("x-forwarded-for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-forwarded-host", "evil.example"),
        ("x-original-url", "/admin"),
        ("x-http-method-override", "DELETE"),
        ("meridian-need-cursor", "abc"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("via", "1.0 before"),
        ("accept", "text/html"),
    ];
    let reply = Client::get_with(&format!("{}/a?x=%2f", edge.url()), &fields).await;
    let seen = &origin.requests("/a?x=%2F")[0];
    let host = edge.url().strip_prefix("http://").unwrap();
    let rows: [(&str, Option<&str>); 13] = [
        ("host", Some(&origin.address())),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some(host)),
        ("forwarded", Some(&format!("for=127.0.0.1;proto=http;host=\"{host}\""))),
        ("x-original-url", None),
        ("x-http-method-override", None),
        ("meridian-need-cursor", None),
        ("x-hop", None),
        ("te", Some("trailers")),
        ("connection", Some("te")),
        ("via", Some("1.0 before")),
        ("accept", Some("text/html")),
    ];
    for (name, want) in rows {
        assert_eq!(seen.header(name), want, "{name}");
    }
    assert!(seen.header("cdn-loop").unwrap().starts_with("fra-1; id="));
    assert_eq!(reply.header("via"), Some("1.1 fra-1"));
}

#[tokio::test]
async fn a_site_may_keep_the_clients_host_which_is_then_part_of_the_key() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen| {
        ok(seen.header("host").unwrap().to_owned()).header("cache-control", "max-age=60")
    });
    let edge = EdgeProcess::start(&origin, |edge| edge.site[0].preserve_host = true).await;
    for _ in 0..2 {
        for host in ["one.example", "two.example"] {
            let url = format!("{}/a", edge.url());
            assert_eq!(Client::get_with(&url, &[("host", host)]).await.text(), host);
        }
    }
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn a_host_that_no_site_claims_is_misdirected() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("a"));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site[0].default = false;
        edge.site[0].hosts = vec!["shop.example".parse::<Host>().unwrap()];
    })
    .await;
    let url = format!("{}/a", edge.url());
    for host in ["shop.example", "SHOP.example:8080", "shop.example."] {
        assert_eq!(Client::get_with(&url, &[("host", host)]).await.status, 200, "{host}");
    }
    let reply = Client::get_with(&url, &[("host", "other.example")]).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (421, "misdirected"));
    let absolute = "GET http://shop.example/a HTTP/1.1\r\nHost: other.example\r\n\r\n";
    let text = raw::exchange(edge.url(), absolute.as_bytes(), raw::is_whole).await;
    assert_eq!(raw::status(&text), 200, "the target's authority wins (RFC 9112 §3.2.2): {text}");
}

#[tokio::test]
async fn an_origin_that_leads_back_to_the_edge_is_found_out() {
    let origin = ScriptedOrigin::start().await;
    let mut edge = EdgeProcess::start(&origin, |edge| {
        let own = edge.listen.to_string().parse().unwrap();
        edge.peers.insert("origin-1".parse().unwrap(), own);
    })
    .await;
    let reply = edge.get("/a").await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (508, "loop_detected"));
    assert!(edge.process().runs());
}

#[tokio::test]
async fn bodies_go_up_whole_and_only_up_to_the_limit() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", status(201).body("made"));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.accept.body_size = meridian_config::units::ByteSize::kib(64);
    })
    .await;
    let url = format!("{}/a", edge.url());
    let reply = Client::request(Method::POST, &url, &[], vec![b'x'; 64 << 10].into()).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (201, "made"));
    assert_eq!(origin.requests("/a")[0].body.len(), 64 << 10);
    let reply = Client::request(Method::PUT, &url, &[], vec![b'x'; (64 << 10) + 1].into()).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (413, "too_large"));
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn methods_that_change_something_pass_with_their_bodies_each_time_and_are_never_stored() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        let path = format!("/{method}");
        let fresh = [("cache-control", "max-age=600"), ("content-location", path.as_str())];
        let done =
            fresh.into_iter().fold(ok("done"), |done, (name, value)| done.header(name, value));
        origin.script(&path, done);
        let url = format!("{}{path}", edge.url());
        for times in 1..=2 {
            let body = format!("{method} {times}");
            let reply = Client::request(method.clone(), &url, &[], body.clone().into()).await;
            assert_eq!((reply.status.as_u16(), reply.text()), (200, "done"), "{method}");
            let told = reply.cache_status();
            assert!(told.starts_with("fra-1; fwd=method"), "{method}: {told}");
            let seen = origin.requests(&path);
            let last = &seen[times - 1];
            assert_eq!(
                (seen.len(), &last.method, &last.body[..]),
                (times, &method, body.as_bytes())
            );
        }
    }
}

#[tokio::test]
async fn a_get_with_a_body_is_passed_on_and_never_stored() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("a").header("cache-control", "max-age=60"));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for round in 1..=2 {
        let url = format!("{}/a", edge.url());
        let reply = Client::request(Method::GET, &url, &[], "fat".into()).await;
        assert_eq!(reply.cache_status(), "fra-1; fwd=bypass; fwd-status=200");
        assert_eq!(origin.count("/a"), round);
    }
}

#[tokio::test]
async fn http2_with_prior_knowledge_shares_the_port() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("a").header("cache-control", "max-age=60"));
    let mut edge = EdgeProcess::start(&origin, |_| {}).await;
    let mut client = Client::http2(edge.url()).await.unwrap();
    assert!(client.path("/a").await.cache_status().starts_with("fra-1; fwd=uri-miss"));
    for _ in 0..10 {
        let reply = client.path("/a").await;
        assert!(reply.cache_status().starts_with("fra-1; hit"), "{}", reply.cache_status());
        assert_eq!(reply.text(), "a");
    }
    assert_eq!(origin.count("/a"), 1);
    edge.process().signal(Signal::TERM);
    let ended = edge.process().end().await;
    assert_eq!(ended.status.code(), Some(0), "the open connection ends in good order");
    drop(client);
}

#[tokio::test]
async fn a_field_that_ends_at_the_edge_selects_no_variant() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen| {
        ok(seen.header("accept-language").unwrap_or("any").to_owned())
            .header("cache-control", "max-age=60")
            .header("vary", "accept-language")
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let url = format!("{}/a", edge.url());
    // The origin does not see the field: what it answers is not for those who ask for German.
    let hidden = [("accept-language", "de"), ("connection", "accept-language")];
    assert_eq!(Client::get_with(&url, &hidden).await.text(), "any");
    assert_eq!(Client::get_with(&url, &[("accept-language", "de")]).await.text(), "de");
}

#[tokio::test]
async fn cookies_in_several_lines_of_http2_arrive_as_one() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/a", ok("a"));
    let mut edge = EdgeProcess::start(&origin, |_| {}).await;
    let mut client = Client::http2(edge.url()).await.unwrap();
    let request = Request::get("/a").header("cookie", "a=1").header("cookie", "b=2");
    client.send(request.body(Bytes::new()).unwrap()).await.unwrap();
    let seen = &origin.requests("/a")[0];
    let cookies: Vec<_> = seen.headers.get_all("cookie").iter().collect();
    assert_eq!(cookies, ["a=1; b=2"], "RFC 9113 §8.2.3");
    edge.process().signal(Signal::TERM);
    edge.process().end().await; // the client, still there, hears GOAWAY and leaves
}

#[tokio::test]
async fn targets_that_name_no_path_are_refused_and_reach_no_origin() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let rows = [
        ("GET shop.example HTTP/1.1", 400, "bad_request"),
        ("GET * HTTP/1.1", 400, "bad_request"),
        ("CONNECT shop.example:443 HTTP/1.1", 501, "not_offered"),
    ];
    for (line, status, code) in rows {
        let request = format!("{line}\r\nHost: shop.example\r\n\r\n");
        let text = raw::exchange(edge.url(), request.as_bytes(), raw::is_whole).await;
        assert_eq!(raw::status(&text), status, "{line}: {text}");
        assert!(text.contains(&format!("\"code\":\"{code}\"")), "{line}: {text}");
    }
    assert_eq!(origin.count("/"), 0);
}

#[tokio::test]
async fn an_upload_without_a_length_is_cut_at_the_limit_and_the_origin_is_not_blamed() {
    let origin = ScriptedOrigin::start().await;
    let mut edge = EdgeProcess::start(&origin, |edge| {
        edge.accept.body_size = meridian_config::units::ByteSize::kib(64);
    })
    .await;
    let part = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let head = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let request = format!("{head}{}", part.repeat(3));
    let text = raw::exchange(edge.url(), request.as_bytes(), raw::is_whole).await;
    assert_eq!(raw::status(&text), 413, "{text}");
    assert!(text.contains("\"code\":\"too_large\""), "{text}");
    edge.process().signal(Signal::TERM);
    let ended = edge.process().end().await;
    assert!(!ended.stderr.contains("began to fail"), "{}", ended.stderr);
}

#[tokio::test]
async fn answers_of_other_versions_and_framings_become_the_edges_own() {
    let rows: [(&[u8], u16, &str); 6] = [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nbody", 200, "body"),
        (b"HTTP/1.0 200 OK\r\n\r\nbody", 200, "4\r\nbody"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n\
              4\r\nbody\r\n0\r\n\r\n",
            200,
            "4\r\nbody", // RFC 9112 §6.3: the length is overridden, and not sent on
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 502, "http_protocol_error"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 502, "http_protocol_error"),
        (b"HTTP/9.9 200 OK\r\n\r\n", 502, "connection_terminated"),
    ];
    for (answer, status, body) in rows {
        for lifetime in ["", "Cache-Control: max-age=60\r\n"] {
            let shown =
                String::from_utf8_lossy(answer).replacen("\r\n", &format!("\r\n{lifetime}"), 1);
            let answer = shown.clone().into_bytes().leak();
            let unused = ScriptedOrigin::start().await;
            let (address, _serving) = raw::origin(answer).await;
            let edge = EdgeProcess::start(&unused, |edge| {
                let address = address.to_string().parse().unwrap();
                edge.peers.insert("origin-1".parse().unwrap(), address);
            })
            .await;
            let request = b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
            let text = raw::exchange(edge.url(), request, |_| false).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{shown}: {text}");
            assert!(text.contains(body), "{shown}: {text}");
        }
    }
}

#[tokio::test]
async fn a_host_that_the_key_does_not_hold_cannot_poison_what_others_get() {
    let origin = ScriptedOrigin::start().await;
    for path in ["/links", "/varies"] {
        origin.script_fn(path, move |seen| {
            let told = seen.header("x-forwarded-host").unwrap_or("nobody").to_owned();
            let vary = if seen.path == "/varies" { "X-Forwarded-Proto" } else { "Accept" };
            ok(told).header("cache-control", "max-age=60").header("vary", vary)
        });
    }
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let links = format!("{}/links", edge.url());
    assert_eq!(Client::get_with(&links, &[("host", "evil.example")]).await.text(), "nobody");
    let own = edge.url().strip_prefix("http://").unwrap();
    origin.script_fn("/own", |seen| ok(seen.header("x-forwarded-host").unwrap().to_owned()));
    assert_eq!(edge.get("/own").await.text(), own, "the edge's own address may be told");
    for round in 1..=2 {
        edge.get("/varies").await;
        assert_eq!(origin.count("/varies"), round, "what varies by the edge's words is not shared");
    }
}

#[tokio::test]
async fn methods_that_no_origin_should_see_are_refused() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let url = format!("{}/a", edge.url());
    let reply = Client::request(Method::TRACE, &url, &[], "".into()).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (405, "method_not_allowed"));
    assert!(reply.header("allow").is_some());
    assert_eq!(origin.count("/a"), 0);
}
