//! Which control replica is asked, and after which pause the next one. Pure.
//!
//! An edge begins at any replica and stays there as long as it answers. Whoever fails is left for
//! the next one in the ring, after a pause of full jitter: edges that lost one replica together do
//! not come to the next together.
//!
//! # Invariants
//! - A pause is never longer than asked for: the present limit, which doubles from the first to the
//!   last with each failure in a row, and what a replica told.
//! - Every replica has its turn before one has its second, unless a replica names another.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The pauses between two attempts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pauses {
    /// The limit of the first.
    pub(crate) first: Duration,
    /// And of those after many failures.
    pub(crate) last: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ring {
    at: usize,
    len: usize,
    pauses: Pauses,
    limit: Duration,
    /// Failures since somebody answered.
    failures: usize,
}

impl Ring {
    /// A ring of `len` replicas, at any of them.
    pub(crate) fn new(len: usize, pauses: Pauses, rng: &mut impl Rng) -> Self {
        let at = if len > 1 { rng.random_range(0..len) } else { 0 };
        Self { at, len, pauses, limit: pauses.first, failures: 0 }
    }

    /// Whose turn it is.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Whether every replica has failed since one answered last.
    pub(crate) fn has_failed_whole(&self) -> bool {
        self.failures >= self.len
    }

    /// Whether so many have failed in a row that pauses do not grow any more.
    pub(crate) fn is_patient(&self) -> bool {
        self.limit >= self.pauses.last
    }

    /// It answered: pauses are short again.
    pub(crate) fn answered(&mut self) {
        (self.limit, self.failures) = (self.pauses.first, 0);
    }

    /// It failed: the next one's turn, after this pause.
    pub(crate) fn failed(&mut self, rng: &mut impl Rng) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.at = (self.at + 1) % self.len.max(1);
        self.pause(rng)
    }

    /// It asks to come again, or to go to `next`; after this pause and what it asks for.
    pub(crate) fn sent_away(&mut self, next: usize, rng: &mut impl Rng) -> Duration {
        self.at = next % self.len.max(1);
        self.pause(rng)
    }

    /// The next one in the ring.
    pub(crate) fn next(&self) -> usize {
        (self.at + 1) % self.len.max(1)
    }

    fn pause(&mut self, rng: &mut impl Rng) -> Duration {
        let pause = rng.random_range(Duration::ZERO..=self.limit);
        self.limit = (self.limit * 2).min(self.pauses.last);
        pause
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const PAUSES: Pauses =
        Pauses { first: Duration::from_millis(25), last: Duration::from_millis(1_000) };

    #[test]
    fn edges_begin_at_every_replica() {
        let mut begun = [0; 3];
        for seed in 0..300 {
            begun[Ring::new(3, PAUSES, &mut StdRng::seed_from_u64(seed)).at()] += 1;
        }
        assert!(begun.iter().all(|count| *count > 50), "{begun:?}");
    }

    #[test]
    fn the_whole_ring_has_failed_once_each_replica_has() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut ring = Ring::new(3, PAUSES, &mut rng);
        let mut whole = |ring: &mut Ring| {
            ring.failed(&mut rng);
            ring.has_failed_whole()
        };
        assert_eq!([whole(&mut ring), whole(&mut ring)], [false; 2]);
        ring.answered();
        let three = [whole(&mut ring), whole(&mut ring), whole(&mut ring)];
        assert_eq!(three, [false, false, true]);
        assert!(!ring.is_patient());
        assert!((0..3).all(|_| whole(&mut ring)) && ring.is_patient());
        ring.answered();
        assert!(!ring.has_failed_whole() && !ring.is_patient());
    }

    proptest! {
        #[test]
        fn every_replica_has_its_turn_and_pauses_double_up_to_the_last(
            seed in 0_u64..10_000, len in 1_usize..6, failures in 1_usize..40,
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut ring = Ring::new(len, PAUSES, &mut rng);
            let mut turns = vec![0_usize; len];
            for n in 0..failures {
                turns[ring.at()] += 1;
                let limit = PAUSES.first.saturating_mul(1 << n.min(16)).min(PAUSES.last);
                prop_assert!(ring.failed(&mut rng) <= limit);
            }
            let (least, most) = (turns.iter().min(), turns.iter().max());
            prop_assert!(most.unwrap() - least.unwrap() <= 1, "{:?}", turns);
            ring.answered();
            let stays = ring.at();
            prop_assert!(ring.sent_away(stays, &mut rng) <= PAUSES.first);
            prop_assert_eq!(ring.at(), stays);
        }
    }
}
