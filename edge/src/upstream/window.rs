//! Counts over the last while: a ring of slots that are forgotten one by one.
//!
//! # Invariants
//! - What is counted is remembered for at least nine tenths of the span and at most all of it.
//! - Costs the same however much is counted; takes no memory beyond itself.

use std::time::{Duration, Instant};

/// Slots of a window.
const SLOTS: usize = 10;

/// `K` counts of the last while.
#[derive(Debug, Clone)]
pub(crate) struct Window<const K: usize> {
    began: Instant,
    /// Of one slot.
    width: Duration,
    slots: [Slot<K>; SLOTS],
}

#[derive(Debug, Clone, Copy)]
struct Slot<const K: usize> {
    /// Which stretch of time it counts.
    stretch: u64,
    counts: [u32; K],
}

impl<const K: usize> Window<K> {
    pub(crate) fn new(span: Duration, now: Instant) -> Self {
        let slots = u32::try_from(SLOTS).unwrap_or(u32::MAX);
        let width = (span / slots).max(Duration::from_millis(1));
        Self { began: now, width, slots: [Slot { stretch: 0, counts: [0; K] }; SLOTS] }
    }

    fn stretch(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began).as_nanos();
        u64::try_from(since / self.width.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    /// Adds `n` to the count number `kind`.
    pub(crate) fn add(&mut self, kind: usize, n: u32, now: Instant) {
        let stretch = self.stretch(now);
        let index = usize::try_from(stretch % SLOTS as u64).unwrap_or_default();
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.stretch != stretch {
            *slot = Slot { stretch, counts: [0; K] };
        }
        if let Some(count) = slot.counts.get_mut(kind) {
            *count = count.saturating_add(n);
        }
    }

    /// All that is remembered.
    pub(crate) fn sums(&self, now: Instant) -> [u32; K] {
        let newest = self.stretch(now);
        let mut sums = [0; K];
        let remembered = |slot: &&Slot<K>| newest.saturating_sub(slot.stretch) < SLOTS as u64;
        for slot in self.slots.iter().filter(remembered) {
            for (sum, count) in sums.iter_mut().zip(slot.counts) {
                *sum = u32::saturating_add(*sum, count);
            }
        }
        sums
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any point in time will do to begin with")]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_forgotten_after_the_span() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let mut window = Window::<2>::new(Duration::from_secs(10), began);
        window.add(0, 3, at(0));
        window.add(1, 1, at(5_500));
        let rows = [
            (5_500, [3, 1]),
            (9_999, [3, 1]),
            (10_000, [0, 1]),
            (14_999, [0, 1]),
            (15_000, [0, 0]),
            (1_000_000, [0, 0]),
        ];
        for (millis, want) in rows {
            assert_eq!(window.sums(at(millis)), want, "{millis}");
        }
        window.add(0, 1, at(10_000)); // the slot of second 0 is used again
        assert_eq!(window.sums(at(10_000)), [1, 1]);
        window.add(0, u32::MAX, at(10_000));
        assert_eq!(window.sums(at(10_000))[0], u32::MAX, "it saturates");
    }
}
