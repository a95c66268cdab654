//! What an answer that came through a shield is worth: which purges it takes into account, and how
//! long it is fresh.
//!
//! A shield that keeps to the agreement has taken into account all that this edge needed when it
//! asked, and says so by telling that very place back. It tells an older one where what it serves
//! is stale by a soft purge; then the stored response bears an older stamp here, too, and is stale
//! here, too. Of a place that is not known here nothing follows: such an answer is given to who
//! asked for it, and not stored.
//!
//! # Invariants
//! - A stamp is only ever lowered by what a shield says.
//! - So is a lifetime; `Age` adds up by itself.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, Response};
use meridian_control_wire::cursor::Cursor;
use meridian_edge_rules::stored::StoredHead;

use crate::cursors::Cursors;
use crate::nodes::{Counters, FILL, LIFETIME};

/// See the module. An answer of an origin has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fill {
    /// What a stamp may be at most; `None`: that is not known.
    stamp: Option<u64>,
    /// How long the answer is fresh at the shield.
    lifetime: Option<Duration>,
}

impl Fill {
    /// What the answer with these fields to a request with this need is worth here.
    pub(crate) fn told(
        answer: &HeaderMap,
        need: Option<&Cursor>,
        cursors: &Cursors,
        counters: &Counters,
    ) -> Self {
        let told = answer.get(FILL).and_then(|value| value.to_str().ok());
        let (stamp, counter) = match (told, need) {
            // Who needs nothing knows of no purge at all: what it learns later takes everything.
            (None, None) => (Some(u64::MAX), &counters.filled),
            (Some(told), Some(need)) if told == need.as_str() => (Some(u64::MAX), &counters.filled),
            (None, Some(_)) => (None, &counters.unknown),
            (Some(told), _) => {
                let stamp = told.parse().ok().and_then(|place| cursors.stamp_of(&place));
                (stamp, if stamp.is_some() { &counters.older } else { &counters.unknown })
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let seconds = answer.get(LIFETIME).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { stamp, lifetime: seconds.map(Duration::from_secs) }
    }

    /// What came with an answer, if it came through a shield.
    pub(crate) fn of<B>(response: &Response<B>) -> Option<Self> {
        response.extensions().get().copied()
    }

    /// What a stamp may be at most. Of what is not known: that it is as old as can be.
    pub(crate) fn stamp(self) -> u64 {
        self.stamp.unwrap_or(0)
    }

    /// Whether the answer may be stored.
    pub(crate) fn may_be_stored(self) -> bool {
        self.stamp.is_some()
    }

    /// Makes a head no fresher than the shield's is.
    pub(crate) fn limit(self, head: &mut StoredHead) {
        if let Some(lifetime) = self.lifetime {
            head.lifetime = head.lifetime.min(lifetime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_lowers_the_stamp_or_forbids_to_store() {
        let cursors = Cursors::new(16);
        let place = |n: usize| format!("c{n}").parse::<Cursor>().unwrap();
        for n in 1..=3 {
            cursors.announce(&place(n), n as u64 - 1);
            cursors.passed(&place(n), n as u64);
        }
        let rows = [
            (Some("c3"), Some(3), Some(u64::MAX)),
            (Some("c2"), Some(3), Some(2)),
            (Some("c1"), Some(3), Some(1)),
            (Some("c9"), Some(9), Some(u64::MAX)), // told back: whatever it is, it was needed
            (Some("c9"), Some(3), None),
            (Some("no cursor!"), Some(3), None),
            (None, Some(3), None),
            (None, None, Some(u64::MAX)),
            (Some("c2"), None, Some(2)),
            (Some("c9"), None, None),
        ];
        for (told, need, want) in rows {
            let mut answer = HeaderMap::new();
            if let Some(told) = told {
                answer.insert(FILL, told.parse().unwrap());
            }
            let need = need.map(place);
            let fill = Fill::told(&answer, need.as_ref(), &cursors, &Counters::default());
            assert_eq!(fill.stamp, want, "{told:?} {need:?}");
            assert_eq!(fill.may_be_stored(), want.is_some());
        }
    }
}
