//! How long a client who may get something stale waits for origins: as its site says, and no longer
//! than makes sense while they answer nobody.
//!
//! # Invariants
//! - Never longer than the patience of the site.
//! - A slow answer to one request shortens nobody's wait while others are answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::upstream::Upstream;

/// So many requests without any answer say what one alone does not.
const MANY: u32 = 8;
/// They say it after this part of a client's patience.
const EARLY: u32 = 4;
/// And after so many times what nearly all answers take.
const FACTOR: u32 = 3;
/// As long as a fetch is given that asks nobody, to say that a breaker is open.
const MOMENT: Duration = Duration::from_millis(50);

/// The origins that a request goes to, as those who wait for them see them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silent<'a>(pub(crate) &'a [Arc<Upstream>]);

impl Silent<'_> {
    /// How long who may have something stale waits before it is worth asking whether they are
    /// [silent](Self::lasts); at most `patience`.
    pub(crate) fn patience(self, patience: Duration) -> Duration {
        if self.is_known() {
            return patience.min(MOMENT);
        }
        let measured = self.0.first().and_then(|origin| origin.guard.latency(0.99));
        let early = |usual| (patience / EARLY).max(FACTOR * usual);
        measured.map_or(patience, early).min(patience)
    }

    /// Whether they are: they were asked at `since`, as others were.
    pub(crate) fn lasts(self, since: Instant) -> bool {
        let asked = self.0.iter().map(|origin| origin.bulkhead.in_flight()).sum::<u32>();
        self.is_known() || (asked >= MANY && self.lasts_since(since))
    }

    /// Who was asked at `since` has not answered for as long as anybody would wait.
    pub(crate) fn begins(self, since: Instant) {
        if self.lasts_since(since) {
            self.0.iter().for_each(|origin| origin.silence.begins(since));
        }
    }

    fn lasts_since(self, since: Instant) -> bool {
        self.0.iter().all(|origin| origin.silence.lasts_since(since))
    }

    fn is_known(self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|origin| origin.silence.is_known())
    }
}
