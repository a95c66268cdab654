//! How old this edge's knowledge of purges may be at most, without any clock but its own.
//!
//! The answer to a ping names how far the log of purges was when the ping came. Once the stream
//! has brought that, every purge that was acknowledged before the ping was sent is applied here:
//! the knowledge is no older than the ping.
//!
//! # Invariants
//! - Only equality of cursors is asked; what is in them is for control replicas.
//! - What is remembered is bounded.

use std::collections::VecDeque;
use std::time::Instant;

use meridian_control_wire::cursor::Cursor;

/// Cursors that the stream has passed of late: more than it brings while a ping is under way.
const PASSED: usize = 4_096;
/// Answers to pings that the stream has not reached yet.
const AHEAD: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Staleness {
    passed: VecDeque<Cursor>,
    ahead: VecDeque<(Cursor, Instant)>,
    fresh_at: Option<Instant>,
}

impl Staleness {
    /// The stream has brought everything up to `cursor`.
    pub(crate) fn passed(&mut self, cursor: &Cursor) {
        if let Some(at) = self.ahead.iter().rposition(|(ahead, _)| ahead == cursor) {
            let reached = self.ahead.drain(..=at).map(|(_, asked)| asked).max();
            self.fresh_at = self.fresh_at.max(reached);
        }
        if self.passed.back() != Some(cursor) {
            if self.passed.len() >= PASSED {
                self.passed.pop_front();
            }
            self.passed.push_back(cursor.clone());
        }
    }

    /// A ping that was sent at `asked` was answered with `cursor`.
    pub(crate) fn answered(&mut self, cursor: Cursor, asked: Instant) {
        if self.passed.iter().rev().any(|passed| *passed == cursor) {
            self.fresh_at = self.fresh_at.max(Some(asked));
            return;
        }
        if self.ahead.len() >= AHEAD {
            self.ahead.pop_front();
        }
        self.ahead.push_back((cursor, asked));
    }

    /// Since when more is known to be there than the stream has brought; `None`: it has all.
    pub(crate) fn missing_since(&self) -> Option<Instant> {
        self.ahead.front().map(|(_, asked)| *asked)
    }

    /// Purges acknowledged before this moment are applied; `None`: nothing is known yet.
    pub(crate) fn fresh_at(&self) -> Option<Instant> {
        self.fresh_at
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cursor(n: usize) -> Cursor {
        format!("c{n}").parse().unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "any point in time will do")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn knowledge_is_as_old_as_the_last_ping_whose_answer_the_stream_has_reached() {
        let zero = start();
        let at = |seconds| zero + Duration::from_secs(seconds);
        let mut staleness = Staleness::default();
        staleness.passed(&cursor(1));
        assert_eq!(staleness.fresh_at(), None);
        staleness.answered(cursor(1), at(1));
        assert_eq!(staleness.fresh_at(), Some(at(1)));
        staleness.answered(cursor(3), at(2)); // purges are on their way
        staleness.answered(cursor(3), at(3));
        staleness.answered(cursor(5), at(4));
        assert_eq!(staleness.fresh_at(), Some(at(1)));
        staleness.passed(&cursor(2));
        assert_eq!(staleness.fresh_at(), Some(at(1)));
        staleness.passed(&cursor(3));
        assert_eq!(staleness.fresh_at(), Some(at(3)));
        staleness.passed(&cursor(4));
        staleness.answered(cursor(3), at(2)); // an answer that came late
        assert_eq!(staleness.fresh_at(), Some(at(3)));
        staleness.passed(&cursor(5));
        assert_eq!(staleness.fresh_at(), Some(at(4)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut staleness = Staleness::default();
        for n in 0..PASSED + 10 {
            staleness.passed(&cursor(n));
            staleness.answered(cursor(1_000_000 + n), start());
        }
        assert_eq!((staleness.passed.len(), staleness.ahead.len()), (PASSED, AHEAD));
    }
}
