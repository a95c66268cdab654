//! A rate that all connections of a link share in one way.
//!
//! # Invariants
//! - Reads no clock. Over any stretch of time no more is let through than the rate allows; time
//!   in which nobody sent is not saved up.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When the way is free again.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// Takes the way for `bytes` at `rate` per second; says when the last of them is through.
    pub(crate) fn book(&self, now: Instant, bytes: usize, rate: NonZeroU64) -> Instant {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = free.map_or(now, |free| free.max(now));
        let end = begin + time_for(bytes, rate);
        *free = Some(end);
        end
    }

    /// What was booked counts no more: there is another rate, or none.
    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn time_for(bytes: usize, rate: NonZeroU64) -> Duration {
    let bytes = u128::try_from(bytes).unwrap_or(u128::MAX);
    let nanos = bytes.saturating_mul(1_000_000_000) / u128::from(rate.get());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 4))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Pace;

    #[test]
    fn bytes_take_their_time_one_after_the_other_and_idleness_is_not_saved() {
        let (pace, now) = (Pace::default(), Instant::now());
        let rate = NonZeroU64::new(1_000).unwrap();
        let at = |millis| now + Duration::from_millis(millis);
        assert_eq!(pace.book(now, 100, rate), at(100));
        assert_eq!(pace.book(now, 50, rate), at(150), "of another connection");
        assert_eq!(pace.book(at(400), 100, rate), at(500), "no credit for 250 ms of silence");
        pace.clear();
        assert_eq!(pace.book(at(400), 10, rate), at(410));
    }
}
