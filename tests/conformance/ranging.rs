//! Ranges of what is not stored, or not all of it (RFC 9110 §14, §15.3.7, RFC 9111 §3.3-3.4): parts
//! that are stored and combined, and ranges that are fetched by themselves.

#![expect(clippy::indexing_slicing, reason = "a panic is a test's verdict")]

use bytes::Bytes;
use http::Method;
use meridian_config::edge::{Edge, Profile, RangeFill};
use meridian_config::units::ByteSize;
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, ok, status};
use meridian_tests::wait::{PATIENCE, eventually};

use crate::file::{File, bytes};
use crate::purging::{Followed, followed};

async fn ask(edge: &EdgeProcess, path: &str, fields: &[(&str, &str)]) -> Reply {
    Client::get_with(&format!("{}{path}", edge.url()), fields).await
}

async fn range(edge: &EdgeProcess, path: &str, range: &str) -> Reply {
    ask(edge, path, &[("range", &format!("bytes={range}"))]).await
}

fn is_hit(reply: &Reply) -> bool {
    reply.cache_status().starts_with("fra-1; hit")
}

/// Waits until the whole has come, past what the first client wanted of it.
async fn stored(edge: &EdgeProcess, path: &str) -> Reply {
    eventually("the whole is stored", PATIENCE, async || Some(edge.get(path).await).filter(is_hit))
        .await
}

fn passes(edge: &mut Edge) {
    edge.site[0].range_fill = Some(RangeFill::Pass);
}

/// The ranges that the origin was asked for, `-` for the whole.
fn asked(origin: &ScriptedOrigin, path: &str) -> Vec<String> {
    let of = |seen: &meridian_tests::origin::Seen| seen.header("range").unwrap_or("-").to_owned();
    origin.requests(path).iter().map(of).collect()
}

#[tokio::test]
async fn parts_answer_the_ranges_that_they_cover_and_are_combined() {
    let origin = ScriptedOrigin::start().await;
    let content = bytes(1_000, 1);
    File::at(&origin, "/a", content.clone(), "\"v1\"");
    let edge = EdgeProcess::start(&origin, passes).await;
    let rows = [
        // range, first, last, hit
        ("100-199", 100, 199, false),
        ("100-199", 100, 199, true),
        ("120-130", 120, 130, true),
        ("-100", 900, 999, false),
        ("-50", 950, 999, true),
        ("990-", 990, 999, true),
        ("150-250", 150, 250, false),
        ("100-250", 100, 250, true), // of two answers
        ("250-900", 250, 900, false),
        ("100-999", 100, 999, true), // of all four
    ];
    for (of, first, last, hit) in rows {
        let reply = range(&edge, "/a", of).await;
        assert_eq!(reply.status, 206, "{of}: {reply:?}");
        assert_eq!(reply.body, content.slice(first..=last), "{of}");
        assert_eq!(reply.header("content-range"), Some(&*format!("bytes {first}-{last}/1000")));
        assert_eq!(reply.header("etag"), Some("\"v1\""));
        assert_eq!(is_hit(&reply), hit, "{of}: {}", reply.cache_status());
        assert_eq!(reply.cache_status().contains("fwd-status=206"), !hit);
    }
    let explained = Client::get(&format!("{}/v1/explain?url=/a", edge.admin())).await.json();
    let stored = &explained["stored"][0];
    assert_eq!(stored["parts"], serde_json::json!(["100-999"]), "{explained:#}");
    assert_eq!((&stored["body_bytes"], &stored["held_bytes"]), (&1_000.into(), &900.into()));
    assert_eq!(explained["next"]["fwd"], "partial");
    let several = range(&edge, "/a", "100-109,900-999").await;
    assert!(is_hit(&several), "{}", several.cache_status());
    assert!(several.header("content-type").unwrap().starts_with("multipart/byteranges"));
    assert_eq!(range(&edge, "/a", "1000-").await.status, 416);
    let partly = range(&edge, "/a", "0-50").await;
    assert!(partly.cache_status().starts_with("fra-1; fwd=partial"), "{}", partly.cache_status());
    range(&edge, "/a", "50-99").await; // now it is all there
    let whole = edge.get("/a").await;
    assert_eq!((whole.status.as_u16(), &whole.body), (200, &content));
    assert!(is_hit(&whole), "{}", whole.cache_status());
    assert_eq!(whole.header("content-range"), None);
    assert_eq!(asked(&origin, "/a").len(), 6);
}

#[tokio::test]
async fn an_incomplete_response_is_no_answer_to_who_wants_the_whole() {
    let origin = ScriptedOrigin::start().await;
    let content = bytes(1_000, 1);
    File::at(&origin, "/a", content.clone(), "\"v1\"");
    let edge = EdgeProcess::start(&origin, passes).await;
    range(&edge, "/a", "0-998").await;
    let head = Client::request(Method::HEAD, &format!("{}/a", edge.url()), &[], Bytes::new()).await;
    assert_eq!(head.header("content-length"), Some("1000"));
    assert!(head.cache_status().starts_with("fra-1; fwd=partial"), "{}", head.cache_status());
    let only = ask(&edge, "/a", &[("cache-control", "only-if-cached")]).await;
    assert_eq!(only.status, 504);
    let whole = edge.get("/a").await;
    assert_eq!((whole.status.as_u16(), &whole.body), (200, &content));
    assert!(whole.cache_status().starts_with("fra-1; fwd=partial"), "{}", whole.cache_status());
    assert!(is_hit(&edge.get("/a").await), "the whole has replaced the part");
    // A condition is answered from the part: it knows the validator.
    File::at(&origin, "/b", content, "\"v1\"");
    range(&edge, "/b", "0-9").await;
    let fields = [("if-none-match", "\"v1\"")];
    assert_eq!(ask(&edge, "/b", &fields).await.status, 304);
    assert_eq!(origin.count("/b"), 1);
}

#[tokio::test]
async fn parts_of_different_representations_are_never_combined() {
    // Whatever the validator is, bytes 0-99 of one and 100-199 of the other must not meet.
    for (before, after) in [("\"v1\"", "\"v2\""), ("W/\"same\"", "W/\"same\""), ("bad", "bad")] {
        let origin = ScriptedOrigin::start().await;
        let (old, new) = (bytes(1_000, 1), bytes(1_000, 2));
        let file = File::at(&origin, "/a", old, before);
        let edge = EdgeProcess::start(&origin, passes).await;
        range(&edge, "/a", "0-99").await;
        file.becomes(new.clone(), after);
        range(&edge, "/a", "100-199").await;
        let both = range(&edge, "/a", "50-149").await;
        assert_eq!(both.body, new.slice(50..150), "{after}");
        assert!(!is_hit(&both), "{after}: {}", both.cache_status());
        let first = range(&edge, "/a", "0-9").await;
        assert_eq!(first.body, new.slice(0..10), "{after}: the old part is gone");
    }
}

#[tokio::test]
async fn a_206_that_contradicts_itself_is_the_clients_alone() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, passes).await;
    let rows = [
        ("/short", "bytes 4-9/10", "01234"),
        ("/long", "bytes 4-9/10", "0123456"),
        ("/beyond", "bytes 4-10/10", "0123456"),
        ("/unknown", "bytes 4-8/*", "01234"),
    ];
    for (path, content_range, body) in rows {
        let part = status(206).body(body).header("content-range", content_range);
        origin.script(path, part.header("cache-control", "max-age=60").header("etag", "\"a\""));
        for count in 1..=2 {
            let reply = range(&edge, path, "4-9").await;
            assert_eq!((reply.status.as_u16(), reply.text()), (206, body), "{path}");
            assert_eq!(reply.header("content-range"), Some(content_range), "{path}");
            assert_eq!(origin.count(path), count, "{path}: {}", reply.cache_status());
        }
    }
    // The profile `rfc` stores what came of a part that stops early (RFC 9111 §3.3), and only that.
    let edge = EdgeProcess::start(&origin, |edge| edge.site[0].profile = Profile::Rfc).await;
    for (of, hit, body) in [("4-9", false, "01234"), ("6-8", true, "234"), ("8-9", false, "01234")]
    {
        let reply = range(&edge, "/short", of).await;
        assert_eq!((is_hit(&reply), reply.text()), (hit, body), "{of}: {}", reply.cache_status());
    }
}

#[tokio::test]
async fn parts_are_freshened_by_a_304_and_discarded_with_their_validator() {
    let origin = ScriptedOrigin::start().await;
    let content = bytes(1_000, 1);
    let file = File::at(&origin, "/a", content.clone(), "\"v1\"");
    file.says("cache-control", "max-age=60");
    file.says("age", "60"); // stale at once
    let edge = EdgeProcess::start(&origin, passes).await;
    range(&edge, "/a", "100-199").await;
    let again = range(&edge, "/a", "110-119").await;
    assert_eq!(again.body, content.slice(110..120));
    assert!(again.cache_status().contains("fwd-status=304"), "{}", again.cache_status());
    let last = origin.requests("/a").pop().unwrap();
    assert_eq!(last.header("if-none-match"), Some("\"v1\""));
    file.becomes(bytes(1_000, 2), "\"v2\"");
    let changed = range(&edge, "/a", "110-119").await;
    assert_eq!(changed.body, bytes(1_000, 2).slice(110..120));
    file.says("age", "0");
    range(&edge, "/a", "110-119").await;
    let other = range(&edge, "/a", "100-109").await;
    assert!(!is_hit(&other), "the part of the old representation is gone");
    assert_eq!(other.body, bytes(1_000, 2).slice(100..110));
}

#[tokio::test]
async fn the_parts_of_one_response_are_bounded() {
    let origin = ScriptedOrigin::start().await;
    File::at(&origin, "/a", bytes(10_000, 1), "\"v1\"");
    let edge = EdgeProcess::start(&origin, |edge| {
        passes(edge);
        edge.cache.max_parts = 3.try_into().unwrap();
    })
    .await;
    for n in 0..8 {
        range(&edge, "/a", &format!("{}-{}", n * 1_000, n * 1_000 + 10 + n)).await;
    }
    let mut hits = 0;
    for n in (0..8).rev() {
        let reply = range(&edge, "/a", &format!("{}-{}", n * 1_000, n * 1_000)).await;
        hits += usize::from(is_hit(&reply));
        if !is_hit(&reply) {
            break;
        }
    }
    assert_eq!(hits, 3, "the three largest");
}

#[tokio::test]
async fn a_range_deep_in_what_is_not_stored_is_fetched_by_itself() {
    let origin = ScriptedOrigin::start().await;
    let content = bytes(300_000, 1);
    File::at(&origin, "/a", content.clone(), "\"v1\"");
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site[0].range_skip = ByteSize::kib(100);
    })
    .await;
    for (of, first, last) in [("200000-200009", 200_000, 200_009), ("-10", 299_990, 299_999)] {
        let reply = range(&edge, "/a", of).await;
        assert_eq!(reply.body, content.slice(first..=last), "{of}");
        assert!(is_hit(&range(&edge, "/a", of).await), "{of}: the part is stored");
    }
    assert_eq!(asked(&origin, "/a"), ["bytes=200000-200009", "bytes=-10"]);
    // Not so deep: the whole is fetched, once, and answers everything from then on.
    assert_eq!(range(&edge, "/a", "102400-102409").await.body, content.slice(102_400..102_410));
    stored(&edge, "/a").await;
    assert_eq!(asked(&origin, "/a")[2..], ["-"]);
}

#[tokio::test]
async fn a_deep_range_does_not_wait_for_a_whole_that_is_on_its_way() {
    let origin = ScriptedOrigin::start().await;
    let content = bytes(300_000, 1);
    let gate = Gate::closed();
    let (all, behind) = (content.clone(), gate.clone());
    origin.script_fn("/a", move |seen| {
        let part = match seen.header("range") {
            None => ok(all.slice(..1_000))
                .then_behind(&behind, all.slice(1_000..))
                .header("content-length", "300000"),
            Some("bytes=200000-200009") => status(206)
                .body(all.slice(200_000..200_010))
                .header("content-range", "bytes 200000-200009/300000"),
            Some(other) => panic!("{other}"),
        };
        part.header("cache-control", "max-age=60").header("etag", "\"v1\"")
    });
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site[0].range_skip = ByteSize::kib(100);
    })
    .await;
    let whole = edge.get("/a");
    let deep = async {
        eventually("the whole is on its way", PATIENCE, async || {
            (origin.count("/a") > 0).then_some(())
        })
        .await;
        let deep = range(&edge, "/a", "200000-200009").await;
        gate.open();
        deep
    };
    let (whole, deep) = tokio::join!(whole, deep);
    assert_eq!(deep.body, content.slice(200_000..200_010));
    assert_eq!(whole.body, content);
    let hit = range(&edge, "/a", "5-6").await;
    assert!(is_hit(&hit), "the part did not take the place of the whole: {}", hit.cache_status());
}

#[tokio::test]
async fn an_origin_that_knows_no_ranges_gives_the_whole() {
    for fill in [RangeFill::Pass, RangeFill::Slices, RangeFill::Whole] {
        let origin = ScriptedOrigin::start().await;
        let content = bytes(200_000, 1);
        File::at(&origin, "/a", content.clone(), "\"v1\"").ignores_ranges();
        let edge = EdgeProcess::start(&origin, |edge| {
            edge.site[0].range_fill = Some(fill);
            edge.site[0].slice_size = ByteSize::kib(64);
            edge.site[0].range_skip = ByteSize::kib(1);
        })
        .await;
        let reply = range(&edge, "/a", "100000-100009").await;
        assert_eq!((reply.status.as_u16(), &reply.body), (206, &content.slice(100_000..100_010)));
        // Who asks for the whole while it still arrives for a part asks the origin, too.
        eventually("the whole is stored", PATIENCE, async || {
            (edge.metric("edge_store_urls").await >= 1.0).then_some(())
        })
        .await;
        assert_eq!(stored(&edge, "/a").await.body, content, "{fill:?}");
        assert_eq!(origin.count("/a"), 1, "{fill:?}");
    }
}

#[tokio::test]
async fn many_who_want_the_same_part_share_one_fetch() {
    let origin = ScriptedOrigin::start().await;
    let content = bytes(1_000, 1);
    let gate = Gate::closed();
    let part = status(206).body(content.slice(10..20)).header("content-range", "bytes 10-19/1000");
    origin.script("/a", part.behind(&gate).header("cache-control", "max-age=60"));
    let edge = EdgeProcess::start(&origin, passes).await;
    let asking = async {
        eventually("the origin is asked", PATIENCE, async || {
            (origin.count("/a") > 0).then_some(())
        })
        .await;
        gate.open();
    };
    let all = tokio::join!(
        range(&edge, "/a", "10-19"),
        range(&edge, "/a", "10-19"),
        range(&edge, "/a", "10-19"),
        asking
    );
    for reply in [all.0, all.1, all.2] {
        assert_eq!((reply.status.as_u16(), &reply.body), (206, &content.slice(10..20)));
    }
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn parts_are_purged_with_their_response() {
    let Followed { origin, replica, edge, .. } = followed(passes).await;
    let file = File::at(&origin, "/img/a", bytes(1_000, 0), "\"v\"");
    let selectors = [
        r#"{"url":"/img/a"}"#,
        r#"{"prefix":"/im"}"#,
        r#"{"tag":"first"}"#,
        r#"{"tag":"second"}"#,
        r#"{"all":true}"#,
    ];
    for (n, selector) in selectors.into_iter().enumerate() {
        file.says("surrogate-key", "first");
        range(&edge, "/img/a", "0-99").await;
        file.says("surrogate-key", "second");
        range(&edge, "/img/a", "100-199").await;
        assert!(is_hit(&range(&edge, "/img/a", "50-149").await), "{selector}");
        // The validator stays: were a part of before still used, nobody would notice by it.
        let new = bytes(1_000, u32::try_from(n).unwrap() + 1);
        file.becomes(new.clone(), "\"v\"");
        replica.purged(&format!("purge-{n}"), selector, false).await;
        range(&edge, "/img/a", "150-160").await;
        let reply = range(&edge, "/img/a", "50-149").await;
        assert_eq!(reply.body, new.slice(50..150), "{selector}: {}", reply.cache_status());
        range(&edge, "/img/a", "0-0").await;
        replica.purged(&format!("after-{n}"), r#"{"all":true}"#, false).await;
    }
}

#[tokio::test]
async fn any_range_is_answered_with_the_bytes_that_it_names() {
    let length = 400_000_u64;
    let content = bytes(400_000, 1);
    for fill in [RangeFill::Pass, RangeFill::Slices, RangeFill::Whole] {
        let origin = ScriptedOrigin::start().await;
        File::at(&origin, "/a", content.clone(), "\"v1\"");
        let edge = EdgeProcess::start(&origin, |edge| {
            edge.site[0].range_fill = Some(fill);
            edge.site[0].slice_size = ByteSize::kib(64);
            edge.site[0].range_skip = ByteSize::kib(100);
            edge.cache.max_body = ByteSize::kib(300); // the whole is never stored
            edge.cache.max_parts = 4.try_into().unwrap();
        })
        .await;
        let mut client = Client::http1(edge.url()).await.unwrap();
        let mut state = 42_u64; // of a linear congruence: the same ranges in every run
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..150 {
            let (first, more) = (next(length), next(100_000));
            let last = (first + more).min(length - 1);
            let (of, first, last) = match next(4) {
                0 => (format!("-{}", more + 1), length - more - 1, length - 1),
                1 => (format!("{first}-"), first, length - 1),
                _ => (format!("{first}-{}", first + more), first, last),
            };
            let request = http::Request::get("/a").header("range", format!("bytes={of}"));
            let reply = client.send(request.body(Bytes::new()).unwrap()).await.unwrap();
            let [from, to] = [first, last].map(|at| usize::try_from(at).unwrap());
            assert_eq!(reply.status, 206, "{fill:?} {of}");
            assert!(reply.body == content.slice(from..=to), "{fill:?} {of}: {}", reply.body.len());
        }
    }
}
