//! How old this edge's knowledge of purges may be at most, without any clock but its own.
//!
//! The answer to a ping names how far the log of purges was when the ping came. Once the stream
//! has brought that, every purge that was acknowledged before the ping was sent is applied here:
//! the knowledge is no older than the ping.
//!
//! # Invariants
//! - Only equality of cursors is asked; what is in them is for control replicas. Answers may come in
//!   any order.
//! - What is remembered is bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use meridian_control_wire::cursor::Cursor;

use crate::control_lag::{ControlLag, Fresh};

/// Cursors that the stream has passed of late: more than it brings while a ping is under way.
const PASSED: usize = 4_096;
/// Answers to pings that the stream has not reached yet.
const AHEAD: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Staleness {
    passed: VecDeque<Cursor>,
    ahead: VecDeque<(Cursor, Fresh)>,
    fresh: Option<Fresh>,
    /// Where the hit path looks.
    told: Arc<ControlLag>,
}

impl Staleness {
    /// Nothing is known; `told` is told of all that will be.
    pub(crate) fn new(told: Arc<ControlLag>) -> Self {
        let (passed, ahead) = (VecDeque::new(), VecDeque::new());
        Self { passed, ahead, fresh: None, told }
    }

    /// The knowledge was complete at a moment, perhaps a later one than is known so far.
    fn learn(&mut self, fresh: Option<Fresh>) {
        if let Some(fresh) = fresh
            && self.fresh.is_none_or(|known| fresh.at > known.at)
        {
            self.fresh = Some(fresh);
            self.told.set(fresh);
        }
        let known = self.fresh.map(|known| known.at);
        self.ahead.retain(|(_, fresh)| Some(fresh.at) > known);
    }

    /// The stream has brought everything up to `cursor`.
    pub(crate) fn passed(&mut self, cursor: &Cursor) {
        // Only what names this very place: in which order answers came says nothing of the others.
        let reached = self.ahead.iter().filter(|(ahead, _)| ahead == cursor);
        self.learn(reached.map(|(_, fresh)| *fresh).max());
        if self.passed.back() != Some(cursor) {
            if self.passed.len() >= PASSED {
                self.passed.pop_front();
            }
            self.passed.push_back(cursor.clone());
        }
    }

    /// The answer to a ping, which was sent at `fresh.at`, named `cursor`.
    pub(crate) fn answered(&mut self, cursor: Cursor, fresh: Fresh) {
        if self.passed.iter().rev().any(|passed| *passed == cursor) {
            self.learn(Some(fresh));
            return;
        }
        if self.fresh.is_some_and(|known| fresh.at <= known.at) {
            return; // a late copy
        }
        if self.ahead.len() >= AHEAD {
            self.ahead.pop_front();
        }
        self.ahead.push_back((cursor, fresh));
    }

    /// Since when more is known to be there than the stream has brought; `None`: it has all.
    pub(crate) fn missing_since(&self) -> Option<Instant> {
        self.ahead.iter().map(|(_, fresh)| fresh.at).min()
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
        let fresh = |seconds| Fresh { at: at(seconds), lease: Some(Duration::from_secs(seconds)) };
        let at_last = |staleness: &Staleness| {
            let known = staleness.fresh?;
            assert_eq!(Some(fresh(known.at.duration_since(zero).as_secs())), staleness.fresh);
            Some(known.at)
        };
        let mut staleness = Staleness::new(Arc::new(ControlLag::new(zero)));
        staleness.passed(&cursor(1));
        assert_eq!(at_last(&staleness), None);
        staleness.answered(cursor(1), fresh(1));
        assert_eq!(at_last(&staleness), Some(at(1)));
        staleness.answered(cursor(3), fresh(2)); // purges are on their way
        staleness.answered(cursor(3), fresh(3));
        staleness.answered(cursor(5), fresh(4));
        assert_eq!(at_last(&staleness), Some(at(1)));
        staleness.passed(&cursor(2));
        assert_eq!(at_last(&staleness), Some(at(1)));
        staleness.passed(&cursor(3));
        assert_eq!(at_last(&staleness), Some(at(3)));
        staleness.passed(&cursor(4));
        staleness.answered(cursor(3), fresh(2)); // an answer that came late
        assert_eq!(at_last(&staleness), Some(at(3)));
        staleness.passed(&cursor(5));
        assert_eq!(at_last(&staleness), Some(at(4)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let zero = start();
        let mut staleness = Staleness::new(Arc::new(ControlLag::new(zero)));
        for n in 0..PASSED + 10 {
            staleness.passed(&cursor(n));
            staleness.answered(cursor(1_000_000 + n), Fresh { at: zero, lease: None });
        }
        assert_eq!((staleness.passed.len(), staleness.ahead.len()), (PASSED, AHEAD));
    }
}
