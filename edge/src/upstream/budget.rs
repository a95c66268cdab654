//! How many retries an origin may get: a share of its requests, and a few in any case.
//!
//! Without it retries multiply the load of an origin in the very moment in which it has too much.
//! As in Finagle and Envoy; here the greater of share and floor counts, not their sum, so that the
//! share bounds the amplification from a modest load on.
//!
//! # Invariants
//! - Over any span no more retries are granted than the greater of share and floor allow.

use std::time::{Duration, Instant};

use crate::upstream::window::Window;

/// What may be spent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Settings {
    /// Retries per request.
    pub(crate) share: f64,
    /// Retries per second that are granted however few requests there are.
    pub(crate) floor: f64,
    /// The span over which both are counted.
    pub(crate) window: Duration,
}

const REQUESTS: usize = 0;
const RETRIES: usize = 1;

/// See the module.
#[derive(Debug)]
pub(crate) struct Budget {
    settings: Settings,
    window: Window<2>,
}

impl Budget {
    pub(crate) fn new(settings: Settings, now: Instant) -> Self {
        Self { settings, window: Window::new(settings.window, now) }
    }

    /// A request goes out for the first time.
    pub(crate) fn earn(&mut self, now: Instant) {
        self.window.add(REQUESTS, 1, now);
    }

    /// Whether it may go out again. Granted, it is spent.
    pub(crate) fn spend(&mut self, now: Instant) -> bool {
        let [requests, retries] = self.window.sums(now).map(f64::from);
        let floor = self.settings.floor * self.settings.window.as_secs_f64();
        let granted = retries + 1.0 <= floor.max(self.settings.share * requests);
        if granted {
            self.window.add(RETRIES, 1, now);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Settings = Settings { share: 0.2, floor: 0.5, window: Duration::from_secs(10) };

    #[expect(clippy::disallowed_methods, reason = "any point in time will do to begin with")]
    fn began() -> Instant {
        Instant::now()
    }

    #[test]
    fn retries_are_a_share_of_requests_or_the_floor() {
        let rows = [
            // requests, retries wanted, retries granted
            (0, 100, 5), // the floor: half a retry per second for ten seconds
            (10, 100, 5),
            (25, 100, 5),
            (30, 100, 6),
            (100, 100, 20),
            (100, 7, 7),
            (1_000, 1_000, 200),
        ];
        for (requests, wanted, granted) in rows {
            let now = began();
            let mut budget = Budget::new(SETTINGS, now);
            (0..requests).for_each(|_| budget.earn(now));
            let got = (0..wanted).filter(|_| budget.spend(now)).count();
            assert_eq!(got, granted, "{requests} requests, {wanted} wanted");
        }
    }

    #[test]
    fn what_was_spent_comes_back_after_the_window_and_what_was_earned_goes() {
        let now = began();
        let mut budget = Budget::new(SETTINGS, now);
        (0..100).for_each(|_| budget.earn(now));
        assert_eq!((0..100).filter(|_| budget.spend(now)).count(), 20);
        let later = now + Duration::from_secs(10);
        assert_eq!((0..100).filter(|_| budget.spend(later)).count(), 5, "only the floor");
    }

    proptest! {
        /// With everything failing and each failure wanting two more attempts.
        #[test]
        fn attempts_stay_within_the_share(gaps in proptest::collection::vec(0_u64..50, 100..2_000)) {
            let mut now = began();
            let mut budget = Budget::new(SETTINGS, now);
            let (mut requests, mut retries) = (0.0, 0.0);
            for gap in gaps {
                now += Duration::from_millis(gap);
                budget.earn(now);
                requests += 1.0;
                retries += f64::from(u8::from(budget.spend(now))) + f64::from(u8::from(budget.spend(now)));
                // What a window forgot of requests it had granted retries for.
                prop_assert!(retries <= 5.0 + 0.2 * requests, "{retries} of {requests}");
            }
        }
    }
}
