//! What is known of purges that left the log: the newest number of each selector. Pure state.
//!
//! # Invariants
//! - Whoever knows everything up to some entry gets every selector that was purged after it, or
//!   is told that nobody knows: never too little.
//! - Never more selectors than whoever folds allows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meridian_control_wire::frame::SnapItem;
use meridian_control_wire::operation::Operation;
use meridian_control_wire::selector::Selector;
use serde::{Deserialize, Serialize};

/// A selector, and how it was purged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) selector: Selector,
    pub(crate) soft: bool,
}

/// A change of what is kept, for the disk to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit {
    Put(Arc<Target>, u64),
    Remove(Arc<Target>),
}

/// The purges that left the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Folded {
    newest: BTreeMap<Arc<Target>, u64>,
    by_seq: BTreeSet<(u64, Arc<Target>)>,
    /// What was purged at or before this entry is not known any more.
    floor: u64,
}

impl Folded {
    /// What stands on disk.
    pub(crate) fn restored(rows: impl IntoIterator<Item = (Target, u64)>, floor: u64) -> Self {
        let mut folded = Self { floor, ..Self::default() };
        for (target, seq) in rows {
            folded.put(Arc::new(target), seq, &mut Vec::new());
        }
        folded
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// Takes in a purge that leaves the log, and keeps at most `most` selectors.
    pub(crate) fn fold(&mut self, operation: &Operation, seq: u64, most: usize) -> Vec<Edit> {
        let mut edits = Vec::new();
        for selector in &operation.selectors {
            if !operation.soft && *selector == Selector::All {
                // Whoever misses this one drops everything: what came before adds nothing.
                for (_, target) in std::mem::take(&mut self.by_seq) {
                    self.newest.remove(&target);
                    edits.push(Edit::Remove(target));
                }
            }
            if !operation.soft {
                // Hard is more than soft.
                let softly = Target { selector: selector.clone(), soft: true };
                self.remove(&softly, &mut edits);
            }
            let target = Target { selector: selector.clone(), soft: operation.soft };
            self.put(Arc::new(target), seq, &mut edits);
        }
        while self.newest.len() > most {
            let Some((seq, oldest)) = self.by_seq.first().cloned() else { break };
            self.remove(&oldest, &mut edits);
            self.floor = self.floor.max(seq);
        }
        edits
    }

    /// The entry `seq` cannot be read: whoever misses it misses something unknown.
    pub(crate) fn lose(&mut self, seq: u64) {
        self.floor = self.floor.max(seq);
    }

    fn put(&mut self, target: Arc<Target>, seq: u64, edits: &mut Vec<Edit>) {
        if let Some(before) = self.newest.insert(Arc::clone(&target), seq) {
            self.by_seq.remove(&(before, Arc::clone(&target)));
        }
        self.by_seq.insert((seq, Arc::clone(&target)));
        edits.push(Edit::Put(target, seq));
    }

    fn remove(&mut self, target: &Target, edits: &mut Vec<Edit>) {
        if let Some((target, seq)) = self.newest.remove_entry(target) {
            self.by_seq.remove(&(seq, Arc::clone(&target)));
            edits.push(Edit::Remove(target));
        }
    }

    /// What was purged after `seq`; none: nobody knows all of it.
    pub(crate) fn after(&self, seq: u64) -> Option<Vec<SnapItem>> {
        let item = |target: &Target| SnapItem {
            selectors: vec![target.selector.clone()],
            soft: target.soft,
        };
        let known = self.by_seq.iter().filter(|(at, _)| *at > seq);
        (seq >= self.floor).then(|| known.map(|(_, target)| item(target)).collect())
    }
}

#[cfg(test)]
mod tests {
    use meridian_control_wire::frame::SnapItem;
    use meridian_control_wire::operation::Operation;
    use meridian_control_wire::selector::Selector;
    use proptest::prelude::{any, proptest};

    use super::{Folded, Target};

    fn operation(tag: u8, soft: bool) -> Operation {
        let selector =
            if tag == 0 { Selector::All } else { Selector::Tag(format!("t{}", tag % 8)) };
        Operation { id: "i".into(), selectors: vec![selector], soft, at_ms: 0 }
    }

    /// Whether one who applies `items` has done at least what `operation` asks for.
    fn covers(items: &[SnapItem], operation: &Operation) -> bool {
        operation.selectors.iter().all(|selector| {
            items.iter().any(|item| {
                let same = item.selectors.contains(selector) || item.selectors == [Selector::All];
                same && (!item.soft || operation.soft)
            })
        })
    }

    proptest! {
        #[test]
        fn whoever_missed_a_purge_is_told_of_it(
            log in proptest::collection::vec((0..12_u8, any::<bool>()), 1..60),
            most in 1..10_usize,
            known in 0..60_u64,
        ) {
            let mut folded = Folded::default();
            let mut disk: Vec<(Target, u64)> = Vec::new();
            let log: Vec<Operation> = log.into_iter().map(|(tag, soft)| operation(tag, soft)).collect();
            for (seq, operation) in (1..).zip(&log) {
                for edit in folded.fold(operation, seq, most) {
                    match edit {
                        super::Edit::Put(target, seq) => {
                            disk.retain(|(other, _)| *other != *target);
                            disk.push(((*target).clone(), seq));
                        }
                        super::Edit::Remove(target) => disk.retain(|(other, _)| *other != *target),
                    }
                }
                assert!(folded.newest.len() <= most && folded.by_seq.len() == folded.newest.len());
            }
            // what the edits say is what is kept
            assert_eq!(Folded::restored(disk, folded.floor()), folded);
            if let Some(items) = folded.after(known) {
                for (seq, operation) in (1..).zip(&log) {
                    assert!(seq <= known || covers(&items, operation), "{seq}: {operation:?}");
                }
            } else {
                assert!(known < folded.floor());
            }
        }
    }

    #[test]
    fn nothing_is_told_that_was_known() {
        let mut folded = Folded::default();
        folded.fold(&operation(1, false), 1, 10);
        folded.fold(&operation(2, false), 2, 10);
        let tag = |n: u8| SnapItem { selectors: operation(n, false).selectors, soft: false };
        assert_eq!(folded.after(1), Some(vec![tag(2)]));
        folded.fold(&operation(1, false), 3, 10); // again: only its newest number counts
        assert_eq!(folded.after(2), Some(vec![tag(1)]));
        assert_eq!(folded.after(3), Some(Vec::new()));
    }
}
