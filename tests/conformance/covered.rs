//! How long clients wait for an origin that answers nobody while something stale may stand in, whole or
//! in slices, and that nobody waits for slices longer than for anything else.

#![expect(clippy::indexing_slicing, reason = "a panic is a verdict")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use meridian_config::edge::resilience::FirstByte;
use meridian_config::edge::{Edge, RangeFill};
use meridian_config::units::{ByteSize, HumanDuration};
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, ok};
use meridian_tests::wait::{PATIENCE, eventually, pause};
use tokio::task::JoinSet;

use crate::file::{File, bytes};

const CROWD: usize = 12;
const WAITS: Duration = Duration::from_secs(3);

/// An edge that has stale responses from an origin which hangs from now on.
async fn hanging(origin: &ScriptedOrigin) -> (EdgeProcess, Gate) {
    let edge = EdgeProcess::start(origin, |edge| {
        edge.site[0].stale_patience = Some(HumanDuration::secs(3));
    })
    .await;
    let gate = Gate::closed();
    for n in 0..=CROWD {
        let path = format!("/{n}");
        origin.script(&path, ok("old").header("cache-control", "max-age=0"));
        assert_eq!(edge.get(&path).await.text(), "old");
        origin.script(&path, ok("new").header("cache-control", "max-age=600").behind(&gate));
    }
    (edge, gate)
}

/// Asks for so many of them at once; what came, and after how long.
async fn ask(edge: &EdgeProcess, count: usize) -> Vec<(Reply, Duration)> {
    let mut asking = JoinSet::new();
    let began = Instant::now();
    for n in 0..count {
        let url = format!("{}/{n}", edge.url());
        asking.spawn(async move { (Client::get(&url).await, began.elapsed()) });
    }
    asking.join_all().await
}

#[tokio::test]
async fn many_who_wait_in_vain_find_out_sooner_than_one_and_who_comes_later_at_once() {
    let origin = ScriptedOrigin::start().await;
    let (edge, gate) = hanging(&origin).await;
    for (reply, took) in ask(&edge, CROWD).await {
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "old"));
        assert!(reply.cache_status().contains("detail=slow-upstream"), "{}", reply.cache_status());
        assert!(took < WAITS, "{took:?}");
    }
    let began = Instant::now();
    assert_eq!(edge.get(&format!("/{CROWD}")).await.text(), "old");
    assert!(began.elapsed() < WAITS / 4, "{:?}", began.elapsed());
    gate.open();
    eventually("the fetch that went on has brought the new one", PATIENCE, async || {
        (edge.get("/0").await.text() == "new").then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_slow_answer_is_waited_for_as_the_site_says() {
    let origin = ScriptedOrigin::start().await;
    let (edge, _gate) = hanging(&origin).await;
    let all = ask(&edge, 1).await;
    assert!(all.iter().all(|(reply, took)| reply.text() == "old" && *took >= WAITS), "{all:?}");
}

#[tokio::test]
async fn while_others_are_answered_nobody_takes_the_origin_for_silent() {
    let origin = ScriptedOrigin::start().await;
    origin.script("/well", ok("well").header("cache-control", "no-store"));
    let (edge, _gate) = hanging(&origin).await;
    let well = async {
        loop {
            assert_eq!(edge.get("/well").await.text(), "well");
            pause(Duration::from_millis(50)).await;
        }
    };
    let all = tokio::select! {
        all = ask(&edge, CROWD) => all,
        () = well => unreachable!("it never ends"),
    };
    assert!(all.iter().all(|(reply, took)| reply.text() == "old" && *took >= WAITS), "{all:?}");
}

const SLICE: usize = 64 * 1024;

fn slices(edge: &mut Edge) {
    edge.site[0].range_fill = Some(RangeFill::Slices);
    edge.site[0].slice_size = ByteSize::kib(64);
}

#[tokio::test]
async fn slices_stand_in_for_an_origin_that_hangs_after_the_patience_of_the_site() {
    let origin = ScriptedOrigin::start().await;
    let content = bytes(SLICE * 2 + 100, 1);
    let file = File::at(&origin, "/a", content.clone(), "\"v1\"");
    file.says("cache-control", "max-age=0");
    let edge = EdgeProcess::start(&origin, |edge| {
        slices(edge);
        edge.site[0].stale_patience = Some(HumanDuration::millis(200));
    })
    .await;
    assert_eq!(edge.get("/a").await.body, content);
    let gate = Gate::closed();
    origin.script("/a", ok("late").behind(&gate));
    let began = Instant::now();
    let reply = edge.get("/a").await;
    assert_eq!((reply.status.as_u16(), &reply.body), (200, &content));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}: the first byte is due after 15 s");
    assert!(reply.cache_status().contains("fwd=stale"), "{}", reply.cache_status());
    gate.open();
}

#[tokio::test]
async fn who_has_waited_for_a_slice_in_vain_waits_no_longer_than_alone() {
    let origin = ScriptedOrigin::start().await;
    let file = File::at(&origin, "/same", bytes(SLICE * 2, 1), "\"v1\"");
    let (first, never) = (Gate::closed(), Gate::closed());
    let (opened, hangs) = (first.clone(), never.clone());
    let asked = Arc::new(AtomicUsize::new(0));
    origin.script_fn("/a", move |seen| {
        let slice = file.answer(seen).header("vary", "x-a");
        slice.behind(if asked.fetch_add(1, Ordering::SeqCst) == 0 { &opened } else { &hangs })
    });
    let edge = EdgeProcess::start(&origin, |edge| {
        slices(edge);
        edge.origin[0].connect_timeout = HumanDuration::secs(3);
        edge.origin[0].first_byte_timeout = FirstByte::Fixed(HumanDuration::secs(3));
        edge.origin[0].total_timeout = HumanDuration::secs(3);
    })
    .await;
    let url = format!("{}/a", edge.url());
    let mut clients = JoinSet::new();
    let began = Instant::now();
    for x in ["1", "2"] {
        let url = url.clone();
        clients.spawn(async move {
            let fields = [("range", "bytes=0-9"), ("x-a", x)];
            (Client::get_with(&url, &fields).await, began.elapsed())
        });
    }
    eventually("both wait for one slice", PATIENCE, async || {
        (edge.metric("edge_requests_in_flight").await == 2.0).then_some(())
    })
    .await;
    assert_eq!(origin.count("/a"), 1);
    pause(Duration::from_secs(2)).await;
    first.open();
    let mut ended = clients.join_all().await;
    ended.sort_by_key(|(_, took)| *took);
    assert_eq!(ended[0].0.status, 206);
    let (late, took) = &ended[1];
    assert_eq!((late.status.as_u16(), origin.count("/a")), (504, 2), "{late:?}");
    assert!(*took < Duration::from_millis(4_500), "{took:?}");
    never.open();
}
