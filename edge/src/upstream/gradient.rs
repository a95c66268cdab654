//! How many requests at once an origin takes without slowing down: a limit that follows the ratio
//! of its long-term to its present latency (Netflix's "gradient2").
//!
//! # Invariants
//! - The limit stays between [`LEAST`] and the configured most.
//! - It grows only while it is used: an idle origin proves nothing.

use std::time::Duration;

/// Even the slowest origin gets as many.
pub(crate) const LEAST: u32 = 4;
/// Present latency may be so many times the long-term one before the limit shrinks.
const TOLERANCE: f64 = 1.5;
/// How much of a step is taken at once.
const SMOOTHING: f64 = 0.2;
/// Weight of a sample in the long-term latency: about the last 600.
const LONG: f64 = 2.0 / 601.0;
/// Weight of a sample in the present latency: about the last 10.
const SHORT: f64 = 2.0 / 11.0;

/// See the module.
#[derive(Debug)]
pub(crate) struct Gradient {
    most: f64,
    limit: f64,
    long: Option<f64>,
    short: Option<f64>,
}

impl Gradient {
    pub(crate) fn new(most: u32) -> Self {
        let most = f64::from(most.max(LEAST));
        Self { most, limit: most, long: None, short: None }
    }

    /// Takes a sample; the limit by then.
    pub(crate) fn add(&mut self, took: Duration, in_flight: u32) -> u32 {
        let took = took.as_secs_f64().max(1e-6);
        let mix = |old: Option<f64>, weight| old.map_or(took, |old| old + weight * (took - old));
        let (mut long, short) = (mix(self.long, LONG), mix(self.short, SHORT));
        if long > 2.0 * short {
            long *= 0.95; // what was slow for long is over: do not let it allow too much
        }
        (self.long, self.short) = (Some(long), Some(short));
        let gradient = (TOLERANCE * long / short).clamp(0.5, 1.0);
        let is_used = f64::from(in_flight) * 2.0 >= self.limit;
        let target = self.limit * gradient + self.limit.sqrt();
        if is_used || target < self.limit {
            let step = SMOOTHING * (target - self.limit);
            self.limit = (self.limit + step).clamp(f64::from(LEAST).min(self.most), self.most);
        }
        self.limit()
    }

    pub(crate) fn limit(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "held between LEAST and most, which is a u32"
        )]
        let limit = self.limit as u32;
        limit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn it_shrinks_while_the_origin_slows_down_and_grows_back_when_it_is_used() {
        let mut gradient = Gradient::new(256);
        for _ in 0..1_000 {
            gradient.add(millis(10), 200);
        }
        assert_eq!(gradient.limit(), 256, "steady latency costs nothing");
        for _ in 0..50 {
            gradient.add(millis(200), 256);
        }
        let shrunk = gradient.limit();
        assert!(shrunk < 64, "{shrunk}");
        for _ in 0..20 {
            gradient.add(millis(10), 0);
        }
        let unused = gradient.limit();
        assert!(unused <= shrunk, "unused, it does not grow: {unused}");
        for _ in 0..1_000 {
            gradient.add(millis(10), gradient.limit());
        }
        assert_eq!(gradient.limit(), 256);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(
            most in 1_u32..1_000,
            samples in proptest::collection::vec((0_u64..100_000, 0_u32..2_000), 0..500),
        ) {
            let mut gradient = Gradient::new(most);
            for (took, in_flight) in samples {
                let limit = gradient.add(millis(took), in_flight);
                prop_assert!((LEAST..=most.max(LEAST)).contains(&limit), "{}", limit);
            }
        }
    }
}
