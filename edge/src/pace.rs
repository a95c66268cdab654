//! Whether a connection moves fast enough while its client is what is waited for; likewise the body
//! of an origin ([`crate::upstream::drip`]).
//!
//! Answers "is it too slow", never "since when is it silent": that is [`crate::connection`]'s.
//!
//! # Invariants
//! - Time in which no part of the connection waits for its client does not count: a slow origin is
//!   not held against the client.
//! - The average begins anew with each period of grace, so that bytes that came fast at first are no
//!   credit for a stall later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock::SharedClock;

/// What a client has to keep up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeastRate {
    /// Bytes in a second; 0: anything will do.
    pub(crate) bytes: u64,
    /// How much time of waiting the average is over.
    pub(crate) grace: Duration,
}

/// The pace of one connection. Times are milliseconds since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Parts that wait for the client now: its socket, bodies of responses, bodies of requests.
    waits: AtomicU32,
    /// Since when the first of them does, plus one; 0: none does.
    since: AtomicU64,
    /// Time waited in this period before that.
    waited: AtomicU64,
    /// Bytes that moved in this period.
    moved: AtomicU64,
}

impl Pace {
    /// One more part waits for the client.
    pub(crate) fn wait(&self, now: u64) {
        if self.waits.fetch_add(1, Ordering::Relaxed) == 0 {
            self.since.store(now + 1, Ordering::Relaxed);
        }
    }

    /// One of them waits no longer.
    pub(crate) fn go_on(&self, now: u64) {
        if self.waits.fetch_sub(1, Ordering::Relaxed) == 1 {
            let since = self.since.swap(0, Ordering::Relaxed);
            let waited = (now + 1).saturating_sub(since);
            self.waited.fetch_add(waited, Ordering::Relaxed);
        }
    }

    /// Bytes came from the client, or went to it.
    pub(crate) fn count(&self, bytes: usize) {
        let has_begun = self.since.load(Ordering::Relaxed) > 0 || self.has_waited();
        if has_begun {
            self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    fn has_waited(&self) -> bool {
        self.waited.load(Ordering::Relaxed) > 0
    }

    /// What was before does not matter any more.
    pub(crate) fn begin_anew(&self) {
        if self.has_waited() {
            self.waited.store(0, Ordering::Relaxed);
            self.moved.store(0, Ordering::Relaxed);
        }
    }

    /// Whether it waits for its client, and did for longer than the grace at less than that rate.
    pub(crate) fn is_below(&self, least: LeastRate, now: u64) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 || least.bytes == 0 {
            return false;
        }
        let before = self.waited.load(Ordering::Relaxed);
        let waited = (now + 1).saturating_sub(since).saturating_add(before);
        if u128::from(waited) <= least.grace.as_millis() {
            return false;
        }
        let moved = u128::from(self.moved.load(Ordering::Relaxed));
        let is_below = moved * 1_000 < u128::from(least.bytes) * u128::from(waited);
        if !is_below {
            self.since.store(now + 1, Ordering::Relaxed);
            self.waited.store(0, Ordering::Relaxed);
            self.moved.store(0, Ordering::Relaxed);
        }
        is_below
    }
}

/// The pace of one connection, with the clock that it goes by.
#[derive(Debug)]
pub(crate) struct Paced {
    pub(crate) pace: Pace,
    clock: SharedClock,
    opened: Instant,
}

impl Paced {
    pub(crate) fn new(clock: SharedClock, opened: Instant) -> Arc<Self> {
        Arc::new(Self { pace: Pace::default(), clock, opened })
    }

    fn now(&self) -> u64 {
        let open = self.clock.now().mono.saturating_duration_since(self.opened);
        u64::try_from(open.as_millis()).unwrap_or(u64::MAX)
    }

    /// A body waits for the client until the guard is gone.
    pub(crate) fn waits(self: &Arc<Self>) -> Waits {
        self.pace.wait(self.now());
        Waits(Arc::clone(self))
    }
}

/// A body that waits for the client.
#[derive(Debug)]
pub(crate) struct Waits(Arc<Paced>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.pace.go_on(self.0.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: LeastRate = LeastRate { bytes: 100, grace: Duration::from_secs(10) };

    #[test]
    fn who_moves_less_than_the_least_rate_is_below_it_after_the_grace_and_not_before() {
        for (bytes, is_below) in [(0, true), (1, true), (99, true), (101, false), (1_000, false)] {
            let pace = Pace::default();
            pace.wait(0);
            for second in 1..=10 {
                pace.count(bytes);
                assert!(!pace.is_below(LEAST, second * 1_000), "{bytes} within the grace");
            }
            assert_eq!(pace.is_below(LEAST, 10_001), is_below, "{bytes} in a second");
        }
    }

    #[test]
    fn time_in_which_nobody_waits_for_the_client_does_not_count() {
        let pace = Pace::default();
        pace.wait(0);
        pace.go_on(5_000);
        assert!(!pace.is_below(LEAST, 900_000), "the origin is slow, not the client");
        pace.wait(900_000);
        assert!(!pace.is_below(LEAST, 905_000));
        assert!(pace.is_below(LEAST, 905_001), "but what was waited before counts");
    }

    #[test]
    fn bytes_of_one_period_are_no_credit_for_the_next() {
        let pace = Pace::default();
        pace.wait(0);
        pace.count(1 << 30);
        assert!(!pace.is_below(LEAST, 10_001));
        assert!(!pace.is_below(LEAST, 20_001));
        assert!(pace.is_below(LEAST, 20_002));
    }

    #[test]
    fn as_long_as_one_part_waits_time_counts_and_a_new_request_begins_anew() {
        let pace = Pace::default();
        pace.wait(0);
        pace.wait(1_000);
        pace.go_on(2_000);
        assert!(pace.is_below(LEAST, 10_001));
        pace.go_on(10_001);
        pace.begin_anew();
        pace.wait(20_000);
        assert!(!pace.is_below(LEAST, 30_000));
        assert!(pace.is_below(LEAST, 30_001));
    }

    #[test]
    fn no_rate_is_no_limit() {
        let pace = Pace::default();
        pace.wait(0);
        assert!(!pace.is_below(LeastRate { bytes: 0, ..LEAST }, u64::MAX - 1));
    }
}
