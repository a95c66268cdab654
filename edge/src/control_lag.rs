//! How old this edge's knowledge of purges may be, as the hit path asks it; and what a route wants
//! done once it is too old. Pure but for two atomics, that whoever follows the stream sets.
//!
//! Only this edge's clock is read, and of it only how much time has passed: counted from when a
//! ping was *sent*, since what its answer knows may be as old as that. A clock may be fast or slow
//! by [`DRIFT`].
//!
//! # Invariants
//! - [`ControlLag::bound`] never understates: every purge that was acknowledged longer ago than it
//!   says has been applied.
//! - A route that is `fail_closed` has stopped using what is stored by the time at which the leader
//!   that granted the lease counts the edge as lapsed.
//! - Asking costs two loads and a comparison, and only routes of edges that follow a control plane
//!   ask.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use meridian_config::control_loss::ControlLoss;

/// A clock gains or loses less than one part in this many. A leader assumes the same of its own.
const DRIFT: u32 = 5_000;

/// No lease was granted, as no leader counts on one: a route's own limit alone counts.
const NO_LEASE: u64 = u64::MAX;

/// When the knowledge was complete last, and what was granted for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fresh {
    /// Every purge that was acknowledged before is applied.
    pub(crate) at: Instant,
    /// For how long from then on the edge may go on as if it knew every purge.
    pub(crate) lease: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ControlLag {
    began: Instant,
    /// When the knowledge was complete last: nanoseconds since `began`, and one; 0: never.
    fresh: AtomicU64,
    /// What its lease lets this clock show since then.
    lease: AtomicU64,
}

/// What a route does, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) loss: ControlLoss,
    /// What this clock may show since the knowledge was complete.
    pub(crate) limit: Limit,
}

/// Time that has surely not passed as long as this edge's clock shows no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(u64);

impl Limit {
    pub(crate) fn of(time: Duration) -> Self {
        Self(nanos(time - time / DRIFT).saturating_sub(1))
    }

    /// The time that it is of.
    pub(crate) fn time(self) -> Duration {
        let shown = self.0.saturating_add(1);
        Duration::from_nanos(shown.saturating_add(shown / u64::from(DRIFT - 1)))
    }

    /// What this edge's clock may show.
    pub(crate) fn shown(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - 1)
}

impl ControlLag {
    /// Nothing is known at `began`, when the process begins.
    pub(crate) fn new(began: Instant) -> Self {
        Self { began, fresh: AtomicU64::new(0), lease: AtomicU64::new(NO_LEASE) }
    }

    /// The knowledge was complete at a later moment than before.
    pub(crate) fn set(&self, fresh: Fresh) {
        let lease = fresh.lease.map_or(NO_LEASE, |lease| Limit::of(lease).0);
        self.lease.store(lease, Ordering::Relaxed);
        let since = nanos(fresh.at.saturating_duration_since(self.began));
        self.fresh.store(since.saturating_add(1), Ordering::Release);
    }

    /// What this clock shows since the knowledge was complete.
    fn shown(&self, now: Instant) -> Option<u64> {
        let fresh = self.fresh.load(Ordering::Acquire).checked_sub(1)?;
        Some(nanos(now.saturating_duration_since(self.began)).saturating_sub(fresh))
    }

    /// Whether a route goes on as ever.
    pub(crate) fn is_within(&self, plan: Plan, now: Instant) -> bool {
        let Some(shown) = self.shown(now) else { return false };
        let Limit(limit) = plan.limit;
        match plan.loss {
            ControlLoss::ServeStale | ControlLoss::Revalidate => shown <= limit,
            ControlLoss::FailClosed => shown <= limit.min(self.lease.load(Ordering::Relaxed)),
        }
    }

    /// Every purge that was acknowledged longer ago than this is applied; `None`: nothing is known.
    pub(crate) fn bound(&self, now: Instant) -> Option<Duration> {
        let shown = Duration::from_nanos(self.shown(now)?);
        Some(shown + shown / (DRIFT - 1) + Duration::from_nanos(1))
    }

    /// What is left of the lease; `None`: there is none.
    pub(crate) fn lease_left(&self, now: Instant) -> Option<Duration> {
        let lease = self.lease.load(Ordering::Relaxed);
        let shown = self.shown(now).filter(|_| lease != NO_LEASE)?;
        Some(Duration::from_nanos(lease.saturating_sub(shown)))
    }

    /// The lag in words, as `detail` of `Cache-Status`.
    pub(crate) fn words(&self, now: Instant) -> String {
        match self.bound(now) {
            Some(bound) => {
                let whole = bound.as_secs() + u64::from(bound.subsec_nanos() > 0); // never less
                format!("control-lag={whole}s")
            }
            None => "control-lag=unknown".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any point in time will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_route_goes_on_until_its_limit_and_a_closed_one_no_longer_than_its_lease() {
        let zero = start();
        let lag = ControlLag::new(zero);
        let plan = |loss| Plan { loss, limit: Limit::of(ms(10_000)) };
        let rows = [
            // lease, milliseconds after the ping: serve_stale and revalidate, fail_closed
            (None, 9_997, true, true),
            (None, 9_999, false, false), // a slow clock shows less than has passed
            (Some(ms(3_000)), 2_999, true, true),
            (Some(ms(3_000)), 3_000, true, false),
            (Some(ms(60_000)), 9_997, true, true),
            (Some(ms(60_000)), 9_999, false, false),
        ];
        assert!(!lag.is_within(plan(ControlLoss::ServeStale), zero), "nothing is known yet");
        for (lease, after, open, closed) in rows {
            lag.set(Fresh { at: zero + ms(500), lease });
            let now = zero + ms(500 + after);
            for loss in [ControlLoss::ServeStale, ControlLoss::Revalidate] {
                assert_eq!(lag.is_within(plan(loss), now), open, "{lease:?} {after} {loss:?}");
            }
            let got = lag.is_within(plan(ControlLoss::FailClosed), now);
            assert_eq!(got, closed, "{lease:?} {after}");
        }
    }

    #[test]
    fn the_bound_is_a_little_more_than_the_clock_shows() {
        let zero = start();
        let lag = ControlLag::new(zero);
        assert_eq!((lag.bound(zero), lag.words(zero).as_str()), (None, "control-lag=unknown"));
        lag.set(Fresh { at: zero + ms(1_000), lease: Some(ms(5_000)) });
        let now = zero + ms(42_000);
        let bound = lag.bound(now).unwrap();
        assert!(bound > ms(41_008) && bound < ms(41_009), "{bound:?}");
        assert_eq!(lag.words(now), "control-lag=42s");
        assert_eq!(Limit::of(ms(10_000)).time(), ms(10_000));
        assert_eq!(lag.lease_left(now), Some(Duration::ZERO));
        assert!(lag.lease_left(zero + ms(2_000)).unwrap() > ms(3_998));
    }
}
