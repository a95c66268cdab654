//! Objects in slices: fetched, collapsed, stored, evicted and purged slice by slice, and never of
//! two representations.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a verdict")]

use bytes::Bytes;
use http::Method;
use meridian_config::edge::{Edge, RangeFill};
use meridian_config::units::ByteSize;
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, Seen, status};
use meridian_tests::wait::{PATIENCE, eventually};

use crate::file::{File, bytes};
use crate::purging::{Followed, followed};

const SLICE: usize = 64 * 1024;

fn slices(edge: &mut Edge) {
    edge.site[0].range_fill = Some(RangeFill::Slices);
    edge.site[0].slice_size = ByteSize::kib(64);
}

async fn range(edge: &EdgeProcess, path: &str, range: &str) -> Reply {
    let fields = [("range", &*format!("bytes={range}"))];
    Client::get_with(&format!("{}{path}", edge.url()), &fields).await
}

fn is_hit(reply: &Reply) -> bool {
    reply.cache_status().starts_with("fra-1; hit")
}

/// The slices that the origin was asked for, by number, without the first `skip` requests.
fn asked(origin: &ScriptedOrigin, path: &str, skip: usize) -> Vec<usize> {
    let of = |seen: &Seen| {
        let range = seen.header("range").and_then(|range| range.strip_prefix("bytes="));
        let first = range.unwrap().split_once('-').unwrap().0.parse::<usize>().unwrap();
        assert_eq!(first % SLICE, 0);
        first / SLICE
    };
    origin.requests(path)[skip..].iter().map(of).collect()
}

#[tokio::test]
async fn an_object_larger_than_any_stored_body_is_stored_in_slices() {
    let origin = ScriptedOrigin::start().await;
    let content = bytes(SLICE * 5 + 100, 1);
    let length = content.len();
    File::at(&origin, "/a", content.clone(), "\"v1\"");
    let edge = EdgeProcess::start(&origin, |edge| {
        slices(edge);
        edge.cache.max_body = ByteSize::kib(64);
    })
    .await;
    let part = range(&edge, "/a", "70000-140000").await;
    assert_eq!((part.status.as_u16(), &part.body), (206, &content.slice(70_000..=140_000)));
    assert_eq!(part.header("content-range"), Some(&*format!("bytes 70000-140000/{length}")));
    assert!(part.cache_status().starts_with("fra-1; fwd=uri-miss"), "{}", part.cache_status());
    assert_eq!(asked(&origin, "/a", 0), [1, 2]);
    assert_eq!(origin.requests("/a")[1].header("if-range"), Some("\"v1\""));

    let rows = [
        // range, first, last, slices asked for
        ("65536-65536", SLICE, SLICE, vec![]),
        ("131072-196608", SLICE * 2, SLICE * 3, vec![3]),
        ("-1", length - 1, length - 1, vec![5]),
        ("-101", length - 101, length - 1, vec![4]),
        ("327680-", SLICE * 5, length - 1, vec![]),
    ];
    for (of, first, last, fetched) in rows {
        let before = origin.count("/a");
        let reply = range(&edge, "/a", of).await;
        assert_eq!((reply.status.as_u16(), &reply.body), (206, &content.slice(first..=last)));
        assert_eq!(is_hit(&reply), fetched.is_empty(), "{of}: {}", reply.cache_status());
        assert_eq!(asked(&origin, "/a", before), fetched, "{of}");
    }
    let whole = edge.get("/a").await;
    assert_eq!((whole.status.as_u16(), &whole.body), (200, &content));
    assert!(whole.cache_status().starts_with("fra-1; fwd=partial"), "{}", whole.cache_status());
    let count = origin.count("/a");
    assert_eq!(count, 6, "each slice once");
    assert!(is_hit(&edge.get("/a").await));

    let several = range(&edge, "/a", "0-9,200000-200009").await;
    assert_eq!(several.status, 206);
    let parts = [&content[..10], &content[200_000..200_010]];
    let text = several.text();
    assert!(parts.iter().all(|part| text.contains(std::str::from_utf8(part).unwrap())), "{text}");
    let beyond = range(&edge, "/a", "999999-").await;
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), Some(&*format!("bytes */{length}")));
    let url = format!("{}/a", edge.url());
    let head = Client::request(Method::HEAD, &url, &[], Bytes::new()).await;
    assert!(is_hit(&head) && head.body.is_empty());
    assert_eq!(head.header("content-length"), Some(&*length.to_string()));
    let rows = [
        ("if-range", "\"v1\"", 206),
        ("if-range", "\"v0\"", 200),
        ("if-none-match", "\"v1\"", 304),
        ("cache-control", "only-if-cached", 206),
    ];
    for (name, value, status) in rows {
        let reply = Client::get_with(&url, &[("range", "bytes=1-2"), (name, value)]).await;
        assert_eq!(reply.status, status, "{name}: {value}");
    }
    assert_eq!(origin.count("/a"), count, "all of it from the store");
}

#[tokio::test]
async fn what_is_cold_is_answered_at_any_place_and_what_is_small_is_stored_whole() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, slices).await;
    let content = bytes(SLICE * 2, 1);
    let rows = [
        ("0-0", 206, 0..1),
        ("-5", 206, SLICE * 2 - 5..SLICE * 2),
        ("100000-", 206, 100_000..SLICE * 2),
        ("131072-", 416, 0..0),
        ("5-4", 200, 0..SLICE * 2),
    ];
    for (n, (of, status, bytes)) in rows.into_iter().enumerate() {
        let path = format!("/large/{n}");
        File::at(&origin, &path, content.clone(), "\"v1\"");
        let reply = range(&edge, &path, of).await;
        assert_eq!((reply.status.as_u16(), &reply.body), (status, &content.slice(bytes)), "{of}");
    }
    let small = bytes(1_000, 2);
    File::at(&origin, "/small", small.clone(), "\"v1\"");
    assert_eq!(range(&edge, "/small", "10-19").await.body, small.slice(10..20));
    let whole = edge.get("/small").await;
    assert!(is_hit(&whole) && whole.body == small);
    File::at(&origin, "/empty", Bytes::new(), "\"v1\"").ignores_ranges();
    assert_eq!(edge.get("/empty").await.status, 200);
    // What has no strong validator cannot be put together of slices.
    File::at(&origin, "/weak", content.clone(), "W/\"v1\"");
    assert_eq!(edge.get("/weak").await.body, content);
    assert!(is_hit(&edge.get("/weak").await), "it is stored as the whole");
    assert_eq!(edge.get("/absent").await.status, 404);
}

#[tokio::test]
async fn what_must_be_validated_is_validated_once_and_its_slices_stay() {
    let origin = ScriptedOrigin::start().await;
    let content = bytes(SLICE * 3, 1);
    let file = File::at(&origin, "/a", content.clone(), "\"v1\"");
    file.says("cache-control", "no-cache");
    let edge = EdgeProcess::start(&origin, slices).await;
    assert_eq!(edge.get("/a").await.body, content);
    assert_eq!(asked(&origin, "/a", 0), [0, 1, 2]);
    assert_eq!(edge.get("/a").await.body, content);
    let again = &origin.requests("/a")[3..];
    assert_eq!(again.len(), 1, "one question, and nothing fetched");
    assert_eq!(again[0].header("if-none-match"), Some("\"v1\""));
    let new = bytes(SLICE * 3, 2);
    file.becomes(new.clone(), "\"v2\"");
    assert_eq!(edge.get("/a").await.body, new);
    assert_eq!(asked(&origin, "/a", 4), [0, 1, 2]);
}

#[tokio::test]
async fn a_representation_that_changes_ends_the_response_in_progress_or_restarts_it() {
    let origin = ScriptedOrigin::start().await;
    let (old, new) = (bytes(SLICE * 4, 1), bytes(SLICE * 4, 2));
    let file = File::at(&origin, "/a", old.clone(), "\"v1\"");
    let edge = EdgeProcess::start(&origin, slices).await;
    range(&edge, "/a", "0-9").await;
    file.becomes(new.clone(), "\"v2\"");
    // The first slice is stored and still fresh; the second is of another representation.
    let broken = Client::try_get(&format!("{}/a", edge.url())).await;
    assert!(broken.is_err(), "bytes of both: {:?}", broken.map(|reply| reply.body.len()));
    assert_eq!(edge.get("/a").await.body, new, "the old head is gone");

    // Nothing was sent yet: the client sees nothing of it.
    let file = File::at(&origin, "/b", old, "\"v1\"");
    range(&edge, "/b", "0-9").await;
    file.becomes(new.clone(), "\"v2\"");
    let reply = range(&edge, "/b", "200000-200009").await;
    assert_eq!((reply.status.as_u16(), &reply.body), (206, &new.slice(200_000..200_010)));
    assert_eq!(range(&edge, "/b", "0-9").await.body, new.slice(0..10));
}

#[tokio::test]
async fn many_who_want_the_same_slice_share_one_fetch() {
    let origin = ScriptedOrigin::start().await;
    let content = bytes(SLICE * 2, 1);
    let gate = Gate::closed();
    let file = File::at(&origin, "/other", content.clone(), "\"v1\"");
    let behind = gate.clone();
    origin.script_fn("/a", move |seen| file.answer(seen).behind(&behind));
    let edge = EdgeProcess::start(&origin, slices).await;
    let asking = async {
        eventually("the origin is asked", PATIENCE, async || {
            (origin.count("/a") > 0).then_some(())
        })
        .await;
        gate.open();
    };
    let all = tokio::join!(edge.get("/a"), range(&edge, "/a", "5-9"), edge.get("/a"), asking);
    assert_eq!(
        (all.0.body, all.1.body, all.2.body),
        (content.clone(), content.slice(5..10), content)
    );
    assert_eq!(asked(&origin, "/a", 0), [0, 1]);
}

#[tokio::test]
async fn a_slice_that_was_evicted_costs_only_itself() {
    let origin = ScriptedOrigin::start().await;
    let content = bytes(SLICE * 40, 1); // 2.5 MiB, with a store of 1 MiB
    File::at(&origin, "/a", content.clone(), "\"v1\"");
    let edge = EdgeProcess::start(&origin, |edge| {
        slices(edge);
        edge.cache.capacity = ByteSize::mib(1);
        edge.cache.max_body = ByteSize::mib(1);
    })
    .await;
    assert_eq!(edge.get("/a").await.body, content);
    let first = origin.count("/a");
    assert_eq!(edge.get("/a").await.body, content);
    let again = asked(&origin, "/a", first);
    assert!((20..40).contains(&again.len()), "some are there, the others are fetched: {again:?}");
}

#[tokio::test]
async fn slices_are_purged_with_their_object() {
    let Followed { origin, replica, edge, .. } = followed(slices).await;
    let file = File::at(&origin, "/img/a", bytes(SLICE * 3, 0), "\"v\"");
    file.says("surrogate-key", "red");
    let selectors = [
        r#"{"url":"/img/a"}"#,
        r#"{"prefix":"/im"}"#,
        r#"{"tag":"red"}"#,
        r#"{"host":"127.0.0.1"}"#,
        r#"{"all":true}"#,
    ];
    for (n, selector) in selectors.into_iter().enumerate() {
        edge.get("/img/a").await;
        assert!(is_hit(&edge.get("/img/a").await), "{selector}");
        let before = origin.count("/img/a");
        // The validator stays: were a slice of before still used, nobody would notice by it.
        let new = bytes(SLICE * 3, u32::try_from(n).unwrap() + 1);
        file.becomes(new.clone(), "\"v\"");
        replica.purged(&format!("purge-{n}"), selector, false).await;
        for (of, bytes) in [("131072-131073", 131_072..131_074), ("0-196607", 0..196_608)] {
            assert_eq!(range(&edge, "/img/a", of).await.body, new.slice(bytes), "{selector}");
        }
        let mut again = asked(&origin, "/img/a", before);
        again.sort_unstable();
        assert_eq!(again, [0, 1, 2], "{selector}");
    }
    let before = origin.count("/img/a");
    replica.purged("other", r#"{"url":"/img/b"}"#, false).await;
    assert!(is_hit(&edge.get("/img/a").await));
    assert_eq!(origin.count("/img/a"), before);
    // An unsafe method forgets the head; slices of the same strong validator may go on.
    Client::request(Method::DELETE, &format!("{}/img/a", edge.url()), &[], Bytes::new()).await;
    assert!(!is_hit(&edge.get("/img/a").await));
}

#[tokio::test]
async fn a_purge_between_two_slices_mixes_nothing() {
    let Followed { origin, replica, edge, .. } = followed(slices).await;
    let (old, new) = (bytes(SLICE * 4, 1), bytes(SLICE * 4, 2));
    let file = File::at(&origin, "/a", old.clone(), "\"v1\"");
    let gate = Gate::closed();
    let (behind, same) = (gate.clone(), file.clone());
    // The third slice waits: the response is in progress then.
    origin.script_fn("/a", move |seen| {
        let script = same.answer(seen);
        match seen.header("range") {
            Some("bytes=131072-196607") => script.behind(&behind),
            Some(_) | None => script,
        }
    });
    let url = format!("{}/a", edge.url());
    let reading = Client::try_get(&url);
    let purging = async {
        eventually("the third slice is asked for", PATIENCE, async || {
            (origin.count("/a") >= 3).then_some(())
        })
        .await;
        file.becomes(new.clone(), "\"v2\"");
        replica.purged("purge", r#"{"url":"/a"}"#, false).await;
        gate.open();
    };
    let (in_progress, ()) = tokio::join!(reading, purging);
    assert!(in_progress.is_err(), "its slices were of two representations");
    let after = edge.get("/a").await;
    assert_eq!((after.status.as_u16(), after.body), (200, new));
}

#[tokio::test]
async fn stale_slices_stand_in_for_an_error_where_a_stale_response_may() {
    let origin = ScriptedOrigin::start().await;
    let content = bytes(SLICE * 2, 1);
    let file = File::at(&origin, "/a", content.clone(), "\"v1\"");
    file.says("cache-control", "max-age=60, stale-if-error=60");
    file.says("age", "60");
    let edge = EdgeProcess::start(&origin, slices).await;
    assert_eq!(edge.get("/a").await.body, content);
    origin.script("/a", status(503));
    let reply = edge.get("/a").await;
    assert_eq!((reply.status.as_u16(), &reply.body), (200, &content), "{}", reply.cache_status());
    assert!(reply.cache_status().starts_with("fra-1; fwd=stale"), "{}", reply.cache_status());
    let lost = File::at(&origin, "/b", content, "\"v1\"");
    lost.says("cache-control", "max-age=60, must-revalidate");
    lost.says("age", "60");
    edge.get("/b").await;
    origin.script("/b", status(503));
    assert_eq!(edge.get("/b").await.status, 503);
}
