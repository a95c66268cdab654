//! Which shield is asked for what: each URL has one among those that look alive, by rendezvous
//! hashing, the same one at every edge.
//!
//! # Invariants
//! - When a shield goes or comes, only URLs that are its own change hands.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Instant;

use foldhash::quality::FixedState;

use crate::upstream::Upstream;

/// The shields of this edge.
#[derive(Debug, Default)]
pub(crate) struct Shields(Vec<Arc<Upstream>>);

impl Shields {
    /// Those among `upstreams`.
    pub(crate) fn of(upstreams: &[Arc<Upstream>]) -> Self {
        Self(upstreams.iter().filter(|upstream| upstream.is_shield).cloned().collect())
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that look alive, in the order in which they are asked for what has this name at this
    /// site.
    pub(crate) fn in_order(&self, site: &str, target: &str, now: Instant) -> Vec<&Arc<Upstream>> {
        let mut alive: Vec<_> = self.0.iter().filter(|shield| shield.guard.is_up(now)).collect();
        if alive.len() > 1 {
            alive
                .sort_by_cached_key(|shield| std::cmp::Reverse(weight(&shield.name, site, target)));
        }
        alive
    }
}

/// What `shield` weighs for a URL; the heaviest has it.
fn weight(shield: &str, site: &str, target: &str) -> u64 {
    FixedState::with_seed(0).hash_one((shield, site, target))
}

#[cfg(test)]
mod tests {
    use super::weight;

    const NAMES: [&str; 4] = ["iad-1", "iad-2", "iad-3", "iad-4"];

    fn owner<'n>(names: &[&'n str], target: &str) -> &'n str {
        names.iter().max_by_key(|name| weight(name, "shop", target)).unwrap()
    }

    #[test]
    fn urls_are_shared_out_evenly_and_stay_where_they_are_when_a_shield_goes() {
        let mut counts = std::collections::BTreeMap::new();
        for n in 0..4_000 {
            let target = format!("/o/{n}");
            let before = owner(&NAMES, &target);
            *counts.entry(before).or_insert(0) += 1;
            let after = owner(&NAMES[..3], &target);
            assert!(before == after || before == "iad-4", "{target}: {before}, then {after}");
        }
        assert!(counts.values().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }
}
