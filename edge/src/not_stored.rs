//! Why answers were not stored lately, for `explain`.
//!
//! A help for people and nothing more: bounded, forgotten as a whole when it is full, and never
//! waited for.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use crate::key::CacheKey;

/// Keys that are remembered; one more, and all are forgotten.
const MOST: usize = 1_024;

/// Why an answer is not stored, beside what `NotStorable` knows, in `Cache-Status` and `explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) &'static str);

impl Reason {
    /// It is larger than `cache.max_body`, or than `cache.in_flight`.
    pub(crate) const MAX_BODY: Self = Self("max-body");
    /// The bodies in flight leave no room (`cache.in_flight`).
    pub(crate) const NO_ROOM: Self = Self("no-room");
    /// It varies by what only the edge says.
    pub(crate) const VARY_BY_EDGE: Self = Self("vary-by-edge");
    /// It is an error that what is stored stands in for, or may.
    pub(crate) const SERVER_ERROR: Self = Self("server-error");
    /// It came through a shield that did not say which purges it takes into account.
    pub(crate) const UNKNOWN_AGE: Self = Self("unknown-fill");
    /// Its body broke off.
    pub(crate) const INCOMPLETE: Self = Self("incomplete");
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct NotStored(Mutex<HashMap<CacheKey, (Reason, Instant)>>);

impl NotStored {
    /// An answer under `key` was not stored.
    pub(crate) fn note(&self, key: &CacheKey, why: Reason, now: Instant) {
        let Ok(mut known) = self.0.try_lock() else { return };
        if known.len() >= MOST && !known.contains_key(key) {
            known.clear();
        }
        known.insert(key.clone(), (why, now));
    }

    /// The last reason, and when it was, if it is remembered.
    pub(crate) fn last(&self, key: &CacheKey) -> Option<(Reason, Instant)> {
        self.0.try_lock().ok()?.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any point in time will do")]
    fn the_last_reason_of_a_key_is_remembered_within_a_bound() {
        let (memory, now) = (NotStored::default(), Instant::now());
        let key = |n: usize| CacheKey::from(format!("k{n}").as_str());
        memory.note(&key(0), Reason::MAX_BODY, now);
        memory.note(&key(0), Reason::NO_ROOM, now);
        assert_eq!(memory.last(&key(0)), Some((Reason::NO_ROOM, now)));
        assert_eq!(memory.last(&key(1)), None);
        for n in 0..MOST * 3 {
            memory.note(&key(n), Reason::MAX_BODY, now);
            assert!(memory.0.lock().unwrap().len() <= MOST);
        }
        assert!(memory.last(&key(MOST * 3 - 1)).is_some());
    }
}
