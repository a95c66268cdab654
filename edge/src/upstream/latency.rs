//! How long an origin takes to begin its answers: quantiles of the recent past, and the deadline
//! that follows them.
//!
//! A histogram with logarithmic buckets whose weights decay by half each half-life. Newer samples
//! weigh more instead of older ones being touched, so that a sample costs one addition.
//!
//! # Invariants
//! - A quantile is at most a bucket's width (a tenth) above the true one of the weighted samples.
//! - With too few samples it says nothing.

use std::time::{Duration, Instant};

/// The lower end of the first bucket, in seconds.
const LEAST: f64 = 100e-6;
/// Each bucket ends at this times its beginning.
const GROWTH: f64 = 1.1;
/// Up to 100 s and some.
const BUCKETS: usize = 146;
/// Weights are scaled down before they lose precision.
const HEAVIEST: f64 = 1e12;

/// See the module.
#[derive(Debug)]
pub(crate) struct Latency {
    half_life: Duration,
    /// The moment at which a sample weighs 1.
    since: Instant,
    weights: [f64; BUCKETS],
    total: f64,
}

impl Latency {
    pub(crate) fn new(half_life: Duration, now: Instant) -> Self {
        Self { half_life, since: now, weights: [0.0; BUCKETS], total: 0.0 }
    }

    /// What a sample weighs that is taken now.
    fn unit(&self, now: Instant) -> f64 {
        let past = now.saturating_duration_since(self.since).as_secs_f64();
        (past / self.half_life.as_secs_f64().max(1e-3)).min(1_000.0).exp2()
    }

    pub(crate) fn add(&mut self, took: Duration, now: Instant) {
        let mut unit = self.unit(now);
        if unit > HEAVIEST {
            for weight in &mut self.weights {
                *weight /= unit;
            }
            self.total /= unit;
            self.since = now;
            unit = 1.0;
        }
        if let Some(weight) = self.weights.get_mut(bucket(took)) {
            *weight += unit;
            self.total += unit;
        }
    }

    /// How many samples there are, as they weigh now.
    pub(crate) fn samples(&self, now: Instant) -> f64 {
        self.total / self.unit(now)
    }

    /// This share of the samples, from 0 to 1, took no longer. `None`: there is no sample.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = self.total * share;
        let mut sum = 0.0;
        let mut last = None;
        for (index, weight) in self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0)
        {
            sum += weight;
            last = Some(end(index));
            if sum >= wanted {
                break;
            }
        }
        last
    }
}

fn bucket(took: Duration) -> usize {
    let exponent = (took.as_secs_f64() / LEAST).max(1.0).log(GROWTH);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "held between 0 and the last bucket"
    )]
    let index = exponent.clamp(0.0, BUCKETS as f64 - 1.0) as usize;
    index
}

/// The upper end of a bucket.
fn end(index: usize) -> Duration {
    let exponent = i32::try_from(index).unwrap_or(i32::MAX).saturating_add(1);
    Duration::from_secs_f64(LEAST * GROWTH.powi(exponent))
}

/// A deadline that follows what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Adaptive {
    pub(crate) quantile: f64,
    pub(crate) factor: f64,
    pub(crate) floor: Duration,
    pub(crate) ceiling: Duration,
    /// With fewer, the ceiling holds.
    pub(crate) min_samples: f64,
}

impl Adaptive {
    /// The deadline by now.
    pub(crate) fn deadline(&self, latency: &Latency, now: Instant) -> Duration {
        if latency.samples(now) < self.min_samples {
            return self.ceiling;
        }
        let measured = latency.quantile(self.quantile);
        measured.map_or(self.ceiling, |measured| {
            measured.mul_f64(self.factor).clamp(self.floor, self.ceiling.max(self.floor))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any point in time will do to begin with")]
    fn began() -> Instant {
        Instant::now()
    }

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    const ADAPTIVE: Adaptive = Adaptive {
        quantile: 0.99,
        factor: 2.0,
        floor: Duration::from_millis(50),
        ceiling: Duration::from_secs(15),
        min_samples: 100.0,
    };

    #[test]
    fn the_deadline_follows_the_quantile_between_floor_and_ceiling() {
        let rows: [(&[(u64, usize)], u64); 6] = [
            (&[], 15_000),
            (&[(10, 99)], 15_000), // too few
            (&[(10, 100)], 50),    // the floor
            (&[(100, 200)], 200),
            (&[(100, 980), (400, 20)], 800),
            (&[(100, 100), (20_000, 100)], 15_000), // the ceiling
        ];
        for (samples, want) in rows {
            let now = began();
            let mut latency = Latency::new(Duration::from_secs(60), now);
            for (took, times) in samples {
                (0..*times).for_each(|_| latency.add(millis(*took), now));
            }
            let (got, want) = (ADAPTIVE.deadline(&latency, now), millis(want));
            assert!(got >= want && got <= want.mul_f64(1.11), "{samples:?}: {got:?}");
        }
    }

    #[test]
    fn what_was_slow_long_ago_is_forgotten_and_silence_says_nothing() {
        let now = began();
        let mut latency = Latency::new(Duration::from_secs(1), now);
        (0..1_000).for_each(|_| latency.add(millis(1_000), now));
        let later = now + Duration::from_secs(20);
        (0..1_000).for_each(|_| latency.add(millis(100), later));
        let got = ADAPTIVE.deadline(&latency, later);
        assert!(got < millis(250), "{got:?}");
        let much_later = later + Duration::from_secs(20);
        assert_eq!(ADAPTIVE.deadline(&latency, much_later), ADAPTIVE.ceiling);
    }

    #[test]
    fn years_do_not_break_the_arithmetic() {
        let mut now = began();
        let mut latency = Latency::new(Duration::from_secs(1), now);
        for _ in 0..1_000 {
            now += Duration::from_secs(86_400);
            (0..200).for_each(|_| latency.add(millis(100), now));
            let samples = latency.samples(now);
            assert!((199.9..200.1).contains(&samples), "{samples}");
        }
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_a_tenth_of_the_true_one(
            mut took in proptest::collection::vec(1_u64..90_000, 1..300),
            share in 0.01_f64..1.0,
        ) {
            let now = began();
            let mut latency = Latency::new(Duration::from_secs(60), now);
            took.iter().for_each(|took| latency.add(millis(*took), now));
            took.sort_unstable();
            let wanted = took.len() as f64 * share;
            let rank = (1..took.len()).find(|rank| *rank as f64 >= wanted);
            let exact = millis(took[rank.unwrap_or(took.len()) - 1]);
            let got = latency.quantile(share).unwrap();
            prop_assert!(got >= exact && got <= exact.mul_f64(1.11), "{got:?} for {exact:?}");
        }
    }
}
