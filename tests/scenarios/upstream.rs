//! A CDN in front of somebody else's web server, and what it does when that one is ill.

use std::time::{Duration, SystemTime};

use meridian_tests::client::Client;
use meridian_tests::cluster::Cluster;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, ok, status};

/// `Last-Modified` of an hour count ago, as RFC 9110 section 5.6.7 writes it.
fn hours_ago(hours: u64) -> String {
    httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(hours * 3_600))
}

fn ttl(cache_status: &str) -> i64 {
    let ttl = cache_status.split("; ").find_map(|parameter| parameter.strip_prefix("ttl="));
    ttl.unwrap_or_else(|| panic!("no ttl in {cache_status:?}")).parse().unwrap()
}

#[tokio::test]
async fn a_server_that_sends_only_last_modified_is_cached_by_heuristic() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/five.html", ok("five").header("last-modified", &hours_ago(5)));
    origin.script("/old.html", ok("old").header("last-modified", &hours_ago(10_000)));
    origin.script("/never.html", ok("never"));
    let cluster = Cluster::start(&[&origin.url(), "--regions", "fra,iad"]).await;
    for edge in cluster.file().edges {
        // A tenth of five hours; a tenth of ten thousand hours, capped at one (RFC 9111 4.2.2).
        for (path, body, lifetime) in [("/five.html", "five", 1_800), ("/old.html", "old", 3_600)] {
            let first = Client::get(&format!("{}{path}", edge.url)).await;
            let second = Client::get(&format!("{}{path}", edge.url)).await;
            assert_eq!((first.text(), second.text()), (body, body));
            let said = second.cache_status();
            assert!(said.starts_with(&format!("{}; hit", edge.name)), "{path}: {said}");
            assert!((lifetime - 30..=lifetime + 1).contains(&ttl(said)), "{path}: {said}");
        }
        for _ in 0..2 {
            let reply = Client::get(&format!("{}/never.html", edge.url)).await;
            assert!(reply.cache_status().contains("fwd="), "{reply:?}");
        }
    }
    // Once for each edge; what gives no ground for a lifetime, each time.
    assert_eq!(origin.count("/five.html"), 2);
    assert_eq!(origin.count("/old.html"), 2);
    assert_eq!(origin.count("/never.html"), 4);
    let seen = origin.requests("/five.html");
    let mut via: Vec<_> = seen.iter().map(|seen| seen.header("via").unwrap_or_default()).collect();
    via.sort_unstable();
    assert_eq!(via, ["1.1 fra-1", "1.1 iad-1"]);
    assert!(seen.iter().all(|seen| seen.header("host") == Some(origin.address().as_str())));
}

#[tokio::test]
async fn a_stale_response_is_revalidated_and_freshened() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |asked| match asked.header("if-none-match") {
        Some("\"v1\"") => {
            status(304).header("etag", "\"v1\"").header("cache-control", "max-age=60")
        }
        _ => ok("whole").header("etag", "\"v1\"").header("cache-control", "max-age=0"),
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    assert_eq!(edge.get("/a").await.text(), "whole");
    let revalidated = edge.get("/a").await;
    assert_eq!((revalidated.status.as_u16(), revalidated.text()), (200, "whole"));
    assert!(revalidated.cache_status().contains("fwd=stale"), "{revalidated:?}");
    assert!(revalidated.cache_status().contains("fwd-status=304"), "{revalidated:?}");
    let fresh = edge.get("/a").await;
    assert!(fresh.cache_status().contains("; hit"), "{fresh:?}");
    assert_eq!(origin.count("/a"), 2);
}

#[tokio::test]
async fn a_waiter_gets_bytes_while_the_leader_still_receives_them() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    let script = ok("first ").header("cache-control", "max-age=60").then_behind(&gate, "second");
    origin.script("/stream", script);
    let edge = EdgeProcess::start(&origin, |_| {}).await;

    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::http1(edge.url()).await.unwrap();
        let mut answer = client.open(meridian_tests::client::get("/stream")).await.unwrap();
        let mut said = Vec::new();
        while said.len() < "first ".len() {
            let frame = http_body_util::BodyExt::frame(answer.body_mut()).await.unwrap().unwrap();
            said.extend_from_slice(frame.data_ref().unwrap());
        }
        assert_eq!(said, b"first ", "before the origin sent the rest");
        clients.push((client, answer));
    }
    gate.open();
    for (_client, answer) in clients {
        let rest = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        assert_eq!(rest.as_ref(), b"second");
    }
    assert_eq!(origin.count("/stream"), 1);
    assert_eq!(edge.get("/stream").await.text(), "first second");
    assert_eq!(origin.count("/stream"), 1);
}

#[tokio::test]
async fn a_cut_body_is_not_stored_and_not_passed_off_as_whole() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/cut", ok("half").header("cache-control", "max-age=60").then_cut());
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let broken = Client::try_get(&format!("{}/cut", edge.url())).await;
    let told = broken.as_ref().map_or(true, |reply| reply.status == 502);
    assert!(told, "half a body was passed off as whole: {broken:?}");

    origin.script("/cut", ok("half and half").header("cache-control", "max-age=60"));
    assert_eq!(edge.get("/cut").await.text(), "half and half");
}

#[tokio::test]
async fn an_origin_that_is_gone_is_a_502_with_a_reason() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    drop(origin);
    let reply = edge.get("/a").await;
    assert_eq!(reply.status.as_u16(), 502, "{reply:?}");
    assert!(reply.code().starts_with("upstream_"), "{}", reply.code());
    assert!(reply.header("proxy-status").is_some(), "{reply:?}");
}

#[tokio::test]
async fn private_answers_are_never_shared() {
    let origin = ScriptedOrigin::start().await;
    let rows = [
        ("/private", ok("mine").header("cache-control", "private, max-age=60")),
        ("/no-store", ok("mine").header("cache-control", "no-store")),
        ("/cookie", ok("mine").header("cache-control", "max-age=60").header("set-cookie", "a=b")),
    ];
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    for (path, script) in rows {
        origin.script(path, script);
        assert_eq!(edge.get(path).await.text(), "mine");
        assert!(edge.get(path).await.cache_status().contains("fwd="), "{path}");
        assert_eq!(origin.count(path), 2, "{path}");
    }
}
