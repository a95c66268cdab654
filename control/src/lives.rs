//! Which cursors belong to this history. Pure state.
//!
//! Each start of a replica that is alone, and each leadership of one that agrees with others, begins
//! a life, with a number that no other start has. A cursor names
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

/// A start of a replica, or a leadership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) id: u64,
    /// The last entry before it.
    pub(crate) start: u64,
}

/// The lives of a history, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Lives {
    /// None: nothing has happened yet.
    cluster: Option<[u8; 16]>,
    lives: Vec<Life>,
}

impl Lives {
    /// What stands on disk.
    pub(crate) fn restored(cluster: Option<[u8; 16]>, lives: Vec<Life>) -> Self {
        Self { cluster, lives }
    }

    /// Begins another life at the entry `last`. `seed` is from a clock and from chance: never the
    /// same twice. A history without a name is called `cluster` from now on.
    pub(crate) fn begin(&mut self, cluster: [u8; 16], last: u64, seed: u64) {
        let id = self.lives.last().map_or(seed, |life| seed.max(life.id.saturating_add(1)));
        let surplus = (self.lives.len() + 1).saturating_sub(MOST);
        self.lives.drain(..surplus);
        self.lives.push(Life { id, start: last });
        self.cluster.get_or_insert(cluster);
    }

    /// Whose history it is, if it has begun.
    pub(crate) fn cluster(&self) -> Option<[u8; 16]> {
        self.cluster
    }

    /// The number of the life that lasts; zero before the first.
    pub(crate) fn current(&self) -> u64 {
        self.lives.last().map_or(0, |life| life.id)
    }

    /// All of them, for the disk.
    pub(crate) fn all(&self) -> impl Iterator<Item = Life> + '_ {
        self.lives.iter().copied()
    }

    /// The cursor of the entry `seq`. Before the first life it is nobody's.
    pub(crate) fn cursor(&self, seq: u64) -> Cursor {
        let (cluster, incarnation) = (self.cluster.unwrap_or_default(), self.current());
        Point { cluster, incarnation, at: At::Seq(seq) }.cursor()
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
            Some(end) if Some(cluster) == self.cluster && seq <= end => Standing::Known(seq),
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

    /// `before` and another life.
    fn begun(before: &Lives, last: u64, seed: u64) -> Lives {
        let mut lives = before.clone();
        lives.begin(CLUSTER, last, seed);
        lives
    }

    #[test]
    fn a_restored_copy_knows_what_it_shares_with_the_lost_history_and_no_more() {
        let first = begun(&Lives::default(), 0, 10);
        let second = begun(&first, 5, 20);
        // copied at entry 7 of the second life, which went on to 9, and a third one to 12
        let third = begun(&second, 9, 30);
        let restored = begun(&second, 7, 40);
        let mut other = Lives::default();
        other.begin([2; 16], 0, 40);
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
            (other.cursor(1), Standing::Foreign),
            ("nonsense".parse().unwrap(), Standing::Foreign),
        ];
        for (cursor, want) in rows {
            assert_eq!(restored.standing(&cursor, last), want, "{:?}", cursor.point());
        }
    }

    #[test]
    fn the_first_life_knows_its_own_cursors() {
        let first = begun(&Lives::default(), 0, 10);
        assert_eq!(first.standing(&first.cursor(3), 3), Standing::Known(3));
        assert_eq!(first.standing(&first.cursor(4), 3), Standing::Foreign);
    }

    #[test]
    fn before_the_first_life_no_cursor_is_known() {
        let none = Lives::default();
        assert_eq!(none.standing(&none.cursor(0), 0), Standing::Foreign);
        assert_eq!((none.cluster(), none.current()), (None, 0));
        assert_eq!(begun(&none, 0, 7).cluster(), Some(CLUSTER));
    }

    #[test]
    fn lives_are_bounded_and_their_numbers_grow_even_if_the_clock_steps_back() {
        let mut lives = begun(&Lives::default(), 0, 1_000);
        let oldest = lives.cursor(0);
        for _ in 0..MOST {
            let before = lives.current();
            lives = begun(&lives, 0, 7);
            assert!(lives.current() > before);
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
            let mut lives = begun(&Lives::default(), 0, 1);
            for step in steps {
                for _ in 0..step {
                    last += 1;
                    cursors.push((lives.cursor(last), last));
                }
                lives = begun(&lives, last, 1);
            }
            for (cursor, seq) in cursors {
                assert_eq!(lives.standing(&cursor, last), Standing::Known(seq));
            }
        }
    }
}
