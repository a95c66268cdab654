//! Whether an origin is silent: it answers nobody, though it was asked.
//!
//! Not here: who waits for it, and for how long ([`crate::cover`]).
//!
//! # Invariants
//! - Any answer ends it.
//! - It is told by answers that are missing, never by requests that are: who was not asked is not
//!   silent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// When an origin answered last, and since when somebody waits in vain. In milliseconds since it is
/// known, plus one; 0: never.
#[derive(Debug)]
pub(crate) struct Silence {
    known: Instant,
    answered: AtomicU64,
    overdue: AtomicU64,
}

impl Silence {
    pub(crate) fn new(now: Instant) -> Self {
        Self { known: now, answered: AtomicU64::new(0), overdue: AtomicU64::new(0) }
    }

    /// It has answered.
    pub(crate) fn ends(&self, now: Instant) {
        self.answered.fetch_max(self.at(now), Ordering::Relaxed);
    }

    /// Asked at `since`, it has let somebody wait for longer than they would.
    pub(crate) fn begins(&self, since: Instant) {
        self.overdue.fetch_max(self.at(since), Ordering::Relaxed);
    }

    /// Whether it has answered nobody since then.
    pub(crate) fn lasts_since(&self, since: Instant) -> bool {
        self.answered.load(Ordering::Relaxed) <= self.at(since)
    }

    /// Whether who asked before has waited in vain, and nothing came since.
    pub(crate) fn is_known(&self) -> bool {
        let overdue = self.overdue.load(Ordering::Relaxed);
        overdue > 0 && overdue >= self.answered.load(Ordering::Relaxed)
    }

    fn at(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.known);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1) + 1
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any time will do; it is moved by hand")]
    #[test]
    fn it_begins_with_a_wait_in_vain_and_ends_with_any_answer() {
        let known = Instant::now();
        let at = |n| known + Duration::from_millis(n);
        let silence = Silence::new(known);
        assert!(!silence.is_known(), "nobody has asked");
        silence.ends(at(10));
        assert!(!silence.lasts_since(at(5)) && silence.lasts_since(at(20)));
        silence.begins(at(20));
        assert!(silence.is_known());
        silence.ends(at(1_000));
        assert!(!silence.is_known() && !silence.lasts_since(at(20)));
        silence.begins(at(900));
        assert!(!silence.is_known(), "others were answered meanwhile");
    }
}
