//! Asking again (RFC 9111 §4.3), and what may stand in for an error (RFC 5861).

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use meridian_config::edge::resilience::FirstByte;
use meridian_config::units::HumanDuration;
use meridian_tests::client::{Client, get};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, Seen, ok, status};
use meridian_tests::raw;
use meridian_tests::wait::{PATIENCE, eventually};

#[tokio::test]
async fn a_stale_response_is_validated_and_freshened_by_a_304() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen: &Seen| {
        if seen.header("if-none-match") == Some("\"v1\"") {
            status(304).header("cache-control", "max-age=60").header("x-round", "2")
        } else {
            ok("body")
                .header("cache-control", "max-age=0")
                .header("etag", "\"v1\"")
                .header("x-round", "1")
        }
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    assert_eq!(edge.get("/a").await.header("x-round"), Some("1"));
    let second = edge.get("/a").await;
    assert_eq!(second.text(), "body");
    assert_eq!(second.header("x-round"), Some("2"), "a 304 updates stored fields (§3.2)");
    let want = "fra-1; fwd=stale; fwd-status=304; stored; ttl=60";
    assert_eq!(second.cache_status(), want);
    let third = edge.get("/a").await;
    assert!(third.cache_status().starts_with("fra-1; hit"), "{}", third.cache_status());
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn a_304_about_another_representation_freshens_nothing() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen: &Seen| {
        if seen.header("if-none-match").is_some() {
            status(304).header("etag", "\"other\"").header("cache-control", "max-age=60")
        } else {
            ok("body").header("cache-control", "max-age=0").header("etag", "\"v1\"")
        }
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    edge.get("/a").await;
    let second = edge.get("/a").await;
    assert_eq!((second.status.as_u16(), second.text()), (200, "body"));
    assert_eq!(origin.count("/a"), 3, "asked again without conditions");
}

#[tokio::test]
async fn stale_while_revalidate_answers_the_first_asker_at_once() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    let fields = "max-age=0, stale-while-revalidate=60";
    origin.script("/a", ok("old").header("cache-control", fields).header("etag", "\"1\""));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    edge.get("/a").await;
    origin.script("/a", ok("new").header("cache-control", "max-age=60").behind(&gate));
    for _ in 0..3 {
        let stale = edge.get("/a").await;
        assert_eq!(stale.text(), "old");
        assert!(stale.cache_status().starts_with("fra-1; hit; ttl="), "{}", stale.cache_status());
    }
    gate.open();
    eventually("the refreshed response", PATIENCE, async || {
        (edge.get("/a").await.text() == "new").then_some(())
    })
    .await;
    assert_eq!(origin.count("/a"), 2, "one refresh for all who asked");
}

#[tokio::test]
async fn an_origin_that_fails_or_is_gone_is_covered_by_what_is_stored() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let keep = ok("kept").header("cache-control", "max-age=0").header("etag", "\"1\"");
    let strict = "max-age=0, must-revalidate";
    origin.script("/a", keep.clone());
    origin.script("/strict", ok("kept").header("cache-control", strict).header("etag", "\"1\""));
    edge.get("/a").await;
    edge.get("/strict").await;

    origin.script("/a", status(503));
    origin.script("/strict", status(503));
    let stale = edge.get("/a").await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, "kept"));
    let told = stale.cache_status();
    assert!(told.starts_with("fra-1; fwd=stale; fwd-status=503; ttl=-"), "{told}");
    assert_eq!(edge.get("/strict").await.status, 503, "must-revalidate forbids it");

    drop(origin);
    eventually("the origin is gone", PATIENCE, async || {
        let reply = edge.get("/strict").await;
        (reply.status == 502 && reply.code() == "upstream_connection_refused").then_some(())
    })
    .await;
    let stale = edge.get("/a").await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, "kept"));
    let told = stale.cache_status();
    assert!(told.contains("fwd=stale") && told.contains("detail=connection_refused"), "{told}");
}

#[tokio::test]
async fn an_origin_that_does_not_answer_costs_a_client_no_more_than_the_deadline() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    origin.script("/a", ok("late").behind(&gate));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.origin[0].first_byte_timeout = FirstByte::Fixed(HumanDuration::millis(200));
    })
    .await;
    let reply = tokio::time::timeout(Duration::from_secs(5), edge.get("/a")).await.unwrap();
    assert_eq!(reply.status, 504);
    assert_eq!(reply.code(), "upstream_http_response_timeout");
    assert_eq!(
        reply.header("proxy-status"),
        Some(
            "fra-1; error=http_response_timeout; next-hop=origin-1; details=\"no answer within 200ms\""
        )
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_stored_and_the_client_can_tell() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for (path, length) in [("/chunked", None), ("/sized", Some("100"))] {
        for round in 1..=2 {
            let gate = Gate::closed();
            let cut = ok("half").header("cache-control", "max-age=60");
            let cut = length.iter().fold(cut, |cut, n| cut.header("content-length", n));
            origin.script(path, cut.then_behind(&gate, "more").then_cut());
            let mut client = Client::http1(edge.url()).await.unwrap();
            let body = client.open(get(path)).await.unwrap().into_body();
            gate.open();
            assert!(body.collect().await.is_err(), "{path}: the client can tell");
            assert_eq!(origin.count(path), round, "{path} is fetched again");
        }
    }
}

#[tokio::test]
async fn freshening_keeps_what_governs_and_adds_nothing_twice() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen: &Seen| {
        let answer = if seen.header("if-none-match").is_some() {
            status(304) // RFC 9110 §15.4.5 does not ask for Surrogate-Control here
        } else {
            ok("body").header("surrogate-control", "max-age=60").header("surrogate-key", "k")
        };
        // Stale on arrival, by what governs.
        answer.header("cache-control", "no-store").header("etag", "\"1\"").header("age", "60")
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    edge.get("/a").await;
    for round in 2..=4 {
        let reply = edge.get("/a").await;
        let told = reply.cache_status();
        assert!(told.starts_with("fra-1; fwd=stale; fwd-status=304; stored"), "{round}: {told}");
        assert_eq!(reply.headers.get_all("via").iter().count(), 1, "round {round}: {reply:?}");
        assert_eq!(origin.count("/a"), round);
    }
    let explained = format!("{}/v1/explain?url=/a", edge.admin());
    let explained = Client::get(&explained).await.json();
    assert_eq!(explained["stored"][0]["lifetime_seconds"], 60, "{explained}");
    assert_eq!(explained["stored"][0]["tags"][0], "k", "{explained}");
}

#[tokio::test]
async fn an_origin_that_closes_a_kept_connection_under_a_request_is_asked_again_where_that_is_safe()
{
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (address, _serving) = raw::fickle_origin(answer).await;
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.peers.insert("origin-1".parse().unwrap(), address.to_string().parse().unwrap());
    })
    .await;
    assert_eq!(edge.get("/1").await.text(), "ok");
    assert_eq!(edge.get("/2").await.text(), "ok", "asked again over a new connection");
    let url = format!("{}/3", edge.url());
    let key: &[_] = &[("idempotency-key", "\"k\"")];
    let rows = [
        (Method::DELETE, false, 0, 200),
        (Method::PUT, false, 64 << 10, 200),
        (Method::PUT, false, (64 << 10) + 1, 502), // longer than what is held for it
        (Method::POST, true, 5, 200),              // over a new connection from the start
        (Method::POST, true, 5, 200),
        (Method::POST, false, 0, 502), // it may have been carried out
        (Method::PATCH, false, 0, 200),
    ];
    for (method, is_keyed, length, want) in rows {
        let fields = if is_keyed { key } else { &[] };
        let body = vec![b'x'; length].into();
        let reply = Client::request(method.clone(), &url, fields, body).await;
        assert_eq!(reply.status, want, "{method} {fields:?} {length}");
    }
    let attempts = ["edge_upstream_asked", "edge_upstream_retries", "edge_upstream_replays"];
    let mut sum = 0.0;
    for name in attempts {
        let count = edge.metric(&format!("{name}_total")).await;
        assert!(count > 0.0 || name != "edge_upstream_replays", "{name}");
        sum += count;
    }
    let counted = edge.metric("edge_upstream_requests_total").await;
    assert_eq!(counted, sum, "replays are attempts, as the amplification has it");
}

#[tokio::test]
async fn a_connection_that_its_origin_will_close_is_closed_first_also_without_traffic() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let idle = "edge_upstream_idle_connections";
    origin.script("/once", ok("a").header("keep-alive", "timeout=1"));
    edge.get("/once").await;
    assert_eq!(edge.metric(idle).await, 0.0, "a second is no time to rely on");
    origin.script("/twice", ok("a").header("keep-alive", "timeout=3"));
    edge.get("/twice").await;
    assert_eq!(edge.metric(idle).await, 1.0);
    eventually("the idle connection is closed", PATIENCE, async || {
        (edge.metric(idle).await == 0.0).then_some(())
    })
    .await;
}
