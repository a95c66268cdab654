//! Which cursors belong to this history. Pure state.
//!
//! Each start of a replica begins a life, with a number that no other start has. A cursor names
//! the life in which it was made. A replica that was restored from an older copy of its files does
//! not know the lives after that copy, nor does it reach as far in the one that was copied: cursors
//! from then are told from honest ones, however many entries it has accepted since.
//!
//! # Invariants
//! - A cursor is known only if every entry up to it is an entry of this history.
//! - Lives that are forgotten make cursors foreign, never the other way round.

use meridian_control_wire::cursor::{At, Cursor, Point};
use serde::{Deserialize, Serialize};

use crate::control_store::Standing;

/// Lives that are remembered; a cursor from before that is foreign.
pub(crate) const MOST: usize = 1_000;

/// One start of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) id: u64,
    /// The last entry before it.
    pub(crate) start: u64,
}

/// The lives of a history, oldest first. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lives {
    cluster: [u8; 16],
    before: Vec<Life>,
    current: Life,
}

impl Lives {
    /// Begins another life after `before`, at the entry `last`. `seed` is from a clock and from
    /// chance: never the same twice.
    pub(crate) fn begun(cluster: [u8; 16], mut before: Vec<Life>, last: u64, seed: u64) -> Self {
        let id = before.last().map_or(seed, |life| seed.max(life.id.saturating_add(1)));
        let surplus = (before.len() + 1).saturating_sub(MOST);
        before.drain(..surplus);
        Self { cluster, before, current: Life { id, start: last } }
    }

    /// The life that lasts.
    pub(crate) fn current(&self) -> Life {
        self.current
    }

    /// All of them, for the disk.
    pub(crate) fn all(&self) -> impl Iterator<Item = Life> + '_ {
        self.before.iter().copied().chain([self.current])
    }

    /// The cursor of the entry `seq`.
    pub(crate) fn cursor(&self, seq: u64) -> Cursor {
        Point { cluster: self.cluster, incarnation: self.current.id, at: At::Seq(seq) }.cursor()
    }

    /// What `cursor` is worth in a history whose last entry is `last`.
    pub(crate) fn standing(&self, cursor: &Cursor, last: u64) -> Standing {
        let Some(Point { cluster, incarnation, at: At::Seq(seq) }) = cursor.point() else {
            return Standing::Foreign;
        };
        // A life ends where the next one starts.
        let ends = self.all().skip(1).map(|next| next.start);
        let mut lives = self.all().zip(ends.chain([last]));
        let end = lives.find(|(life, _)| life.id == incarnation).map(|(_, end)| end);
        match end {
            Some(end) if cluster == self.cluster && seq <= end => Standing::Known(seq),
            _ => Standing::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::{Lives, MOST};
    use crate::control_store::Standing;

    const CLUSTER: [u8; 16] = [1; 16];

    #[test]
    fn a_restored_copy_knows_what_it_shares_with_the_lost_history_and_no_more() {
        let first = Lives::begun(CLUSTER, Vec::new(), 0, 10);
        let second = Lives::begun(CLUSTER, first.all().collect(), 5, 20);
        // copied at entry 7 of the second life, which went on to 9, and a third one to 12
        let third = Lives::begun(CLUSTER, second.all().collect(), 9, 30);
        let restored = Lives::begun(CLUSTER, second.all().collect(), 7, 40);
        let last = 100; // it has accepted many entries since
        let rows = [
            (first.cursor(5), Standing::Known(5)),
            (first.cursor(6), Standing::Foreign),
            (second.cursor(7), Standing::Known(7)),
            (second.cursor(8), Standing::Foreign), // made after the copy
            (third.cursor(9), Standing::Foreign),
            (third.cursor(2), Standing::Foreign), // its life is not known: to be on the safe side
            (restored.cursor(100), Standing::Known(100)),
            (restored.cursor(101), Standing::Foreign),
            (Lives::begun([2; 16], Vec::new(), 0, 40).cursor(1), Standing::Foreign),
            ("nonsense".parse().unwrap(), Standing::Foreign),
        ];
        for (cursor, want) in rows {
            assert_eq!(restored.standing(&cursor, last), want, "{:?}", cursor.point());
        }
    }

    #[test]
    fn the_first_life_knows_its_own_cursors() {
        let first = Lives::begun(CLUSTER, Vec::new(), 0, 10);
        assert_eq!(first.standing(&first.cursor(3), 3), Standing::Known(3));
        assert_eq!(first.standing(&first.cursor(4), 3), Standing::Foreign);
    }

    #[test]
    fn lives_are_bounded_and_their_numbers_grow_even_if_the_clock_steps_back() {
        let mut lives = Lives::begun(CLUSTER, Vec::new(), 0, 1_000);
        let oldest = lives.cursor(0);
        for _ in 0..MOST {
            let before = lives.current().id;
            lives = Lives::begun(CLUSTER, lives.all().collect(), 0, 7);
            assert!(lives.current().id > before);
        }
        assert_eq!(lives.all().count(), MOST);
        assert_eq!(lives.standing(&oldest, 0), Standing::Foreign);
    }

    proptest! {
        #[test]
        fn every_cursor_of_an_unbroken_history_is_known(
            steps in proptest::collection::vec(0..5_u64, 1..20),
        ) {
            let (mut last, mut cursors) = (0, Vec::new());
            let mut lives = Lives::begun(CLUSTER, Vec::new(), 0, 1);
            for step in steps {
                for _ in 0..step {
                    last += 1;
                    cursors.push((lives.cursor(last), last));
                }
                lives = Lives::begun(CLUSTER, lives.all().collect(), last, 1);
            }
            for (cursor, seq) in cursors {
                assert_eq!(lives.standing(&cursor, last), Standing::Known(seq));
            }
        }
    }
}
