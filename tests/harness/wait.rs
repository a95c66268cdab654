//! Waiting for a condition with a deadline, by looking again and again.
//!
//! The only place of the tests that lets time pass: what another process does shows in files,
//! sockets and `/proc`, none of which calls back.

use std::fmt::Display;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

/// How long most things may take: generous, as test machines are slow and busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often is looked: a hundredth of what people call at once.
const STEP: Duration = Duration::from_millis(10);

/// Looks until `condition` gives something, and fails the test after `deadline`. `what` completes
/// the sentence "waited in vain until ...".
pub async fn eventually<T>(
    what: impl Display,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + deadline;
    let mut pace = interval(STEP);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await; // the first comes at once
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain until {what}");
    }
}

/// The same without a runtime, for destructors: says whether the condition came true.
pub fn soon(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    while !condition() {
        if Instant::now() >= end {
            return false;
        }
        park_timeout(STEP);
    }
    true
}

/// Lets `time` pass: for scripted servers that are slow on purpose, never to wait for something.
pub async fn pause(time: Duration) {
    let mut pace = interval(time);
    pace.tick().await; // the first comes at once
    pace.tick().await;
}
