//! Places in the stream of purges that this edge has passed, and what they mean in its own numbers.
//!
//! Edges do not share numbers of purges, but they follow one stream: what one edge says of a place
//! in it, the other can look up. A child tells its shield the place that it needs
//! ([`Cursors::need`]); the shield says whether it has come so far ([`Cursors::reaches`]), and how far
//! it was when it fetched what it answers with ([`Cursors::of_stamp`]); the child reads that in its
//! own numbers ([`Cursors::stamp_of`]).
//!
//! # Invariants
//! - A place is announced before its purges are applied: who has seen a purge's number needs at
//!   least its place. Needing more than that costs a fetch, needing less would bring old bytes.
//! - A place counts as passed only after everything up to it was applied.
//! - What is not known here is answered with "not known", and whoever asks takes the safe side.
//! - Bounded: the oldest places are forgotten.
//!
//! Absent on purpose: what is in a cursor. Where two can be compared by it, the wire does so.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meridian_control_wire::cursor::Cursor;
use tokio::sync::watch;
use tokio::time::timeout;

/// See the module.
pub(crate) struct Cursors {
    table: Mutex<Table>,
    /// Changes with every place that is passed.
    passed: watch::Sender<u64>,
    most: usize,
}

#[derive(Debug, Default)]
struct Table {
    /// The oldest first.
    places: VecDeque<Place>,
    /// From cursors to the numbers of places, of which `first` is the oldest one's.
    known: HashMap<Cursor, u64>,
    first: u64,
    /// Its purges are being applied: everything before it has a number of at most this.
    announced: Option<u64>,
    need: Option<Cursor>,
    /// A snapshot that leads here was begun and has not ended: parts of it are applied.
    unfinished: Option<Cursor>,
}

#[derive(Debug)]
struct Place {
    cursor: Cursor,
    /// Purges applied before those of this place.
    before: u64,
    /// Purges applied when it was passed: all up to this place have a number of at most this.
    after: u64,
}

impl Table {
    fn newest(&self) -> Option<&Cursor> {
        self.places.back().map(|place| &place.cursor)
    }

    fn knows(&self, cursor: &Cursor) -> bool {
        let covers = |newest: &Cursor| newest.covers(cursor) == Some(true);
        self.known.contains_key(cursor) || self.newest().is_some_and(covers)
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.places.pop_front() else { return };
        if self.known.get(&oldest.cursor) == Some(&self.first) {
            self.known.remove(&oldest.cursor);
        }
        self.first += 1;
    }
}

impl Cursors {
    /// Remembers at most so many places.
    pub(crate) fn new(most: usize) -> Self {
        Self { table: Mutex::default(), passed: watch::Sender::new(0), most }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The purges up to `cursor` will be applied next; `applied` are so far.
    pub(crate) fn announce(&self, cursor: &Cursor, applied: u64) {
        let mut table = self.table();
        table.announced = Some(applied);
        table.need = Some(cursor.clone());
    }

    /// What leads to `cursor` will be applied next, piece by piece. With `anew` nothing that was
    /// known of places holds any longer.
    pub(crate) fn begin_snapshot(&self, cursor: &Cursor, applied: u64, anew: bool) {
        self.announce(cursor, applied);
        let mut table = self.table();
        table.unfinished = Some(cursor.clone());
        if anew {
            table.places.clear();
            table.known.clear();
        }
    }

    /// Everything up to `cursor` is applied, `applied` purges in all.
    pub(crate) fn passed(&self, cursor: &Cursor, applied: u64) {
        let mut table = self.table();
        let before = table.announced.take().unwrap_or(applied);
        let ends = |begun: &Cursor| cursor.covers(begun) == Some(true);
        if table.unfinished.as_ref().is_some_and(ends) {
            table.unfinished = None;
        }
        if table.known.contains_key(cursor) {
            return; // it means what it meant when it was passed first
        }
        if table.places.len() >= self.most {
            table.forget_oldest();
        }
        let number = table.first + table.places.len() as u64;
        table.known.insert(cursor.clone(), number);
        table.places.push_back(Place { cursor: cursor.clone(), before, after: applied });
        drop(table);
        self.passed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The place that covers every purge whose number anybody can have seen by now. To be asked
    /// after a stamp was taken. `None`: there was none.
    pub(crate) fn need(&self) -> Option<Cursor> {
        let table = self.table();
        table.unfinished.as_ref().or(table.need.as_ref()).cloned()
    }

    /// Whether everything up to `cursor` is applied here, as far as is known.
    pub(crate) fn knows(&self, cursor: &Cursor) -> bool {
        self.table().knows(cursor)
    }

    /// The same, given a while to get there.
    pub(crate) async fn reaches(&self, cursor: &Cursor, limit: Duration) -> bool {
        let mut passed = self.passed.subscribe();
        let reached = timeout(limit, passed.wait_for(|_| self.knows(cursor))).await;
        matches!(reached, Ok(Ok(_)))
    }

    /// The last place of which a fetch with `stamp` has taken everything into account.
    pub(crate) fn of_stamp(&self, stamp: u64) -> Option<Cursor> {
        let table = self.table();
        let upto = table.places.partition_point(|place| place.after <= stamp);
        table.places.get(upto.checked_sub(1)?).map(|place| place.cursor.clone())
    }

    /// The greatest number of which everything up to it is taken into account by what was fetched
    /// at `cursor`; [`u64::MAX`] as long as nothing came after it. `None`: not known.
    pub(crate) fn stamp_of(&self, cursor: &Cursor) -> Option<u64> {
        let table = self.table();
        let number = *table.known.get(cursor)?;
        let at = usize::try_from(number.checked_sub(table.first)?).ok()?;
        let next = table.places.get(at + 1).map(|place| place.before).or(table.announced);
        Some(next.unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(n: usize) -> Cursor {
        format!("c{n}").parse().unwrap()
    }

    /// The stream brings one purge, the number `n`, at the place `n`.
    fn purge(cursors: &Cursors, n: usize) {
        cursors.announce(&cursor(n), n as u64 - 1);
        cursors.passed(&cursor(n), n as u64);
    }

    #[test]
    fn a_purge_is_needed_before_it_is_applied_and_known_only_after() {
        let cursors = Cursors::new(100);
        assert_eq!(cursors.need(), None);
        purge(&cursors, 1);
        cursors.announce(&cursor(2), 1);
        assert_eq!(cursors.need(), Some(cursor(2)));
        assert!(cursors.knows(&cursor(1)) && !cursors.knows(&cursor(2)));
        // What was fetched at the first place does not know of the second's purge.
        assert_eq!(cursors.stamp_of(&cursor(1)), Some(1));
        cursors.passed(&cursor(2), 2);
        assert!(cursors.knows(&cursor(2)));
        assert_eq!(cursors.stamp_of(&cursor(2)), Some(u64::MAX));
    }

    #[test]
    fn places_and_stamps_mean_each_other() {
        let cursors = Cursors::new(100);
        for n in 1..=5 {
            purge(&cursors, n);
        }
        for n in 1..=4 {
            assert_eq!(cursors.of_stamp(n as u64), Some(cursor(n)));
            assert_eq!(cursors.stamp_of(&cursor(n)), Some(n as u64));
        }
        assert_eq!(cursors.of_stamp(0), None);
        assert_eq!(cursors.of_stamp(99), Some(cursor(5)));
        assert_eq!(cursors.stamp_of(&cursor(6)), None);
        // Purges of this edge's own (numbers 6 and 7) come between the stream's: what a shield
        // fetched at the place before is not older than these, which went through it.
        cursors.announce(&cursor(6), 7);
        cursors.passed(&cursor(6), 8);
        assert_eq!(cursors.stamp_of(&cursor(5)), Some(7));
        assert_eq!(cursors.of_stamp(7), Some(cursor(5)));
    }

    #[test]
    fn a_place_that_is_told_again_changes_nothing() {
        let cursors = Cursors::new(100);
        purge(&cursors, 1);
        cursors.passed(&cursor(1), 4);
        purge(&cursors, 2);
        cursors.passed(&cursor(1), 2);
        assert_eq!(cursors.stamp_of(&cursor(1)), Some(1), "told once more, it says no more");
        let cursors = Cursors::new(100);
        purge(&cursors, 1);
        cursors.passed(&cursor(1), 4);
        assert_eq!(cursors.need(), Some(cursor(1)));
        assert_eq!(cursors.table().places.len(), 1);
        assert_eq!(cursors.stamp_of(&cursor(1)), Some(u64::MAX));
    }

    #[test]
    fn a_snapshot_that_broke_off_is_needed_until_one_has_ended() {
        let cursors = Cursors::new(100);
        purge(&cursors, 1);
        cursors.begin_snapshot(&cursor(9), 1, false);
        purge(&cursors, 2); // another replica goes on from the first place
        assert_eq!(cursors.need(), Some(cursor(9)));
        cursors.begin_snapshot(&cursor(12), 2, true);
        assert_eq!(cursors.need(), Some(cursor(12)));
        assert!(!cursors.knows(&cursor(1)) && cursors.stamp_of(&cursor(1)).is_none());
        cursors.passed(&cursor(12), 5);
        assert!(cursors.knows(&cursor(12)));
        purge(&cursors, 13);
        assert_eq!(cursors.need(), Some(cursor(13)));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten_from_the_oldest_on() {
        let cursors = Cursors::new(16);
        for n in 1..=50 {
            purge(&cursors, n);
        }
        let table = cursors.table();
        assert_eq!((table.places.len(), table.known.len()), (16, 16));
        drop(table);
        assert_eq!(cursors.stamp_of(&cursor(34)), None);
        assert_eq!(cursors.stamp_of(&cursor(35)), Some(35));
        assert_eq!(cursors.of_stamp(34), None);
        assert!(!cursors.knows(&cursor(34)));
    }

    #[tokio::test]
    async fn who_waits_for_a_place_is_woken_when_it_is_passed() {
        let cursors = Cursors::new(16);
        let passes = async { purge(&cursors, 1) };
        let place = cursor(1);
        let waits = cursors.reaches(&place, Duration::from_secs(30));
        let (reached, ()) = tokio::join!(waits, passes);
        assert!(reached);
        assert!(!cursors.reaches(&cursor(2), Duration::from_millis(1)).await);
    }
}
