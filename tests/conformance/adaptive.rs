//! The number of requests at once that follows the latency of their origin (`origin.adaptive_limit`).

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a verdict")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use meridian_config::units::HumanDuration;
use meridian_tests::client::Client;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, ok};
use meridian_tests::wait::{PATIENCE, eventually};
use tokio::task::JoinSet;

/// Clients at once, and places.
const CROWD: u32 = 32;
/// What an answer takes while the origin does well.
const USUAL: Duration = Duration::from_millis(40);
/// It does well with so many at once, whatever happens.
const WELL: u32 = 4;

/// An origin that knows how many it answers at once.
#[derive(Default)]
struct Busy {
    /// When those that it was asked for will be answered.
    ends: Mutex<Vec<Instant>>,
    /// The most at once since this was last asked.
    most: AtomicUsize,
    /// Whether each takes as many times as long as there are others.
    is_ill: AtomicBool,
}

impl Busy {
    fn delay(&self) -> Duration {
        let (now, mut ends) = (Instant::now(), self.ends.lock().unwrap());
        ends.retain(|end| *end > now);
        let at_once = u32::try_from(ends.len()).unwrap() + 1;
        let is_ill = self.is_ill.load(Ordering::SeqCst) && at_once > WELL;
        let delay = if is_ill { USUAL * at_once } else { USUAL };
        ends.push(now + delay);
        self.most.fetch_max(ends.len(), Ordering::SeqCst);
        delay
    }
}

/// The most that were asked at once while each of the crowd asked once.
async fn wave(edge: &EdgeProcess, busy: &Busy) -> usize {
    busy.most.store(0, Ordering::SeqCst);
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let url = format!("{}/work", edge.url());
        crowd.spawn(async move { Client::request(Method::POST, &url, &[], Bytes::new()).await });
    }
    for reply in crowd.join_all().await {
        assert_eq!(reply.status, 200);
    }
    busy.most.load(Ordering::SeqCst)
}

async fn start(is_adaptive: bool) -> (ScriptedOrigin, EdgeProcess, Arc<Busy>) {
    let origin = ScriptedOrigin::start().await;
    let busy = Arc::new(Busy::default());
    let same = Arc::clone(&busy);
    origin.script_fn("/work", move |_| ok("done").after(same.delay()));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site[0].resilience = Some(false);
        let origin = &mut edge.origin[0];
        origin.max_requests = CROWD.try_into().unwrap();
        origin.queue_timeout = HumanDuration::secs(30);
        origin.adaptive_limit = is_adaptive;
    })
    .await;
    (origin, edge, busy)
}

#[tokio::test]
async fn an_origin_that_slows_down_with_a_crowd_is_asked_by_fewer_at_once_and_by_all_again_later() {
    let (_origin, edge, busy) = start(true).await;
    for _ in 0..4 {
        wave(&edge, &busy).await; // it gets known
    }
    let before = wave(&edge, &busy).await;
    assert!(before > 24, "{before} of {CROWD} at once while it does well");
    busy.is_ill.store(true, Ordering::SeqCst);
    eventually("few are let through at once", PATIENCE, async || {
        (wave(&edge, &busy).await <= 12).then_some(())
    })
    .await;
    busy.is_ill.store(false, Ordering::SeqCst);
    eventually("nearly all are let through again", PATIENCE, async || {
        (wave(&edge, &busy).await > 24).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_the_limit_the_crowd_goes_on_as_it_is() {
    let (_origin, edge, busy) = start(false).await;
    wave(&edge, &busy).await;
    busy.is_ill.store(true, Ordering::SeqCst);
    for _ in 0..4 {
        let most = wave(&edge, &busy).await;
        assert!(most > 24, "{most} of {CROWD} at once");
    }
}
