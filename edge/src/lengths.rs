//! How long the prefixes are that purges have named: a path is compared at these lengths only.
//!
//! # Invariants
//! - A length is in the set before the purge that brought it is published, and stays as long as any
//!   prefix of that length does.

use std::collections::BTreeMap;

use crate::sync::{AtomicU64, Ordering};

/// The longest prefix of a path that is told from longer ones; what is longer is cut to it.
pub(crate) const MAX_PREFIX: usize = 8 * 1024;
/// Lengths in one word of a set.
const BITS: usize = 64;

/// The length of a prefix, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Length {
    /// It is one of all sites, not of one.
    pub(crate) any_site: bool,
    pub(crate) bytes: usize,
}

/// How many prefixes have each length. Who holds it is the only one to change the sets.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<Length, usize>);

/// Sets of lengths, as bits: of prefixes of one site, and of all sites.
pub(crate) struct Lengths {
    of_one: Vec<AtomicU64>,
    of_all: Vec<AtomicU64>,
}

impl Lengths {
    pub(crate) fn new() -> Self {
        let words = || (0..=MAX_PREFIX / BITS).map(|_| AtomicU64::new(0)).collect();
        Self { of_one: words(), of_all: words() }
    }

    pub(crate) fn add(&self, counts: &mut Counts, length: Option<Length>) {
        let Some(length) = length else { return };
        *counts.0.entry(length).or_default() += 1;
        self.change(length, |word, bit| word | bit);
    }

    pub(crate) fn remove(&self, counts: &mut Counts, length: Option<Length>) {
        let Some(length) = length else { return };
        if let Some(count) = counts.0.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                counts.0.remove(&length);
                self.change(length, |word, bit| word & !bit);
            }
        }
    }

    /// Visits the lengths up to `most`, the least first, with whether one site's prefixes and
    /// whether those of all sites have it.
    pub(crate) fn upto(&self, most: usize, mut visit: impl FnMut(usize, bool, bool)) {
        for (index, (of_one, of_all)) in self.of_one.iter().zip(&self.of_all).enumerate() {
            if index * BITS > most {
                return;
            }
            let of_one = of_one.load(Ordering::Acquire);
            let of_all = of_all.load(Ordering::Acquire);
            let mut left = of_one | of_all;
            while left != 0 {
                let bit = left & left.wrapping_neg();
                left &= !bit;
                let length = index * BITS + bit.trailing_zeros() as usize;
                if length > most {
                    return;
                }
                visit(length, of_one & bit != 0, of_all & bit != 0);
            }
        }
    }

    fn change(&self, length: Length, change: fn(u64, u64) -> u64) {
        let set = if length.any_site { &self.of_all } else { &self.of_one };
        if let Some(word) = set.get(length.bytes / BITS) {
            let bit = 1 << (length.bytes % BITS);
            word.store(change(word.load(Ordering::Relaxed), bit), Ordering::Release);
        }
    }
}
