//! Configuration registers: keys, values, revisions. Pure state.
//!
//! # Invariants
//! - A revision is the number of the entry that made it: no two values of a key share one.
//! - A register that is gone leaves its revision behind, so that edges learn of it; when there is
//!   no room, the oldest of those goes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::control_store::is_site;
use crate::order::{Condition, Refused, Revision};

/// The registers of a replica. A clone costs its keys, not its values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registers(BTreeMap<String, Arc<Revision>>);

impl Registers {
    /// What `key` holds, if it holds something.
    pub(crate) fn live(&self, key: &str) -> Option<&Arc<Revision>> {
        self.0.get(key).filter(|revision| revision.value.is_some())
    }

    /// Whether `key` may change, and which register has to make room for it.
    pub(crate) fn judge(
        &self,
        key: &str,
        condition: &Condition,
        most: usize,
    ) -> Result<Option<String>, Refused> {
        let found = self.live(key).map(|revision| revision.seq);
        let holds = match (condition, found) {
            (Condition::Any, _) | (Condition::Exists, Some(_)) | (Condition::Absent, None) => true,
            (Condition::Revisions(wanted), Some(found)) => wanted.contains(&found),
            (Condition::Exists | Condition::Revisions(_), None) | (Condition::Absent, Some(_)) => {
                false
            }
        };
        if !holds {
            return Err(Refused::Conflict { found });
        }
        if self.0.contains_key(key) || self.0.len() < most {
            return Ok(None);
        }
        let gone = self.0.iter().filter(|(_, revision)| revision.value.is_none());
        let oldest = gone.min_by_key(|(_, revision)| revision.seq);
        oldest.map(|(key, _)| Some(key.clone())).ok_or(Refused::Full)
    }

    /// Makes it so; also what a restart restores.
    pub(crate) fn put(&mut self, key: String, revision: Arc<Revision>) {
        self.0.insert(key, revision);
    }

    /// Forgets one that is gone.
    pub(crate) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Those that edges obey and that changed last at or before `upto`.
    pub(crate) fn sites(&self, upto: u64) -> impl Iterator<Item = (&String, &Arc<Revision>)> {
        self.0.iter().filter(move |(key, revision)| is_site(key) && revision.seq <= upto)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::Registers;
    use crate::order::{Condition, Refused, Revision};

    fn put(registers: &mut Registers, key: &str, seq: u64, there: bool) {
        let value = there.then(|| json!(seq));
        registers.put(key.to_owned(), Arc::new(Revision { value, seq }));
    }

    #[test]
    fn a_condition_is_held_against_what_is_there() {
        let mut registers = Registers::default();
        put(&mut registers, "a", 3, true);
        put(&mut registers, "gone", 4, false);
        let denied = |found| Err(Refused::Conflict { found });
        let rows = [
            ("a", Condition::Any, Ok(None)),
            ("a", Condition::Exists, Ok(None)),
            ("a", Condition::Absent, denied(Some(3))),
            ("a", Condition::Revisions(vec![1, 3]), Ok(None)),
            ("a", Condition::Revisions(vec![1]), denied(Some(3))),
            ("gone", Condition::Any, Ok(None)),
            ("gone", Condition::Exists, denied(None)),
            ("gone", Condition::Absent, Ok(None)),
            ("gone", Condition::Revisions(vec![4]), denied(None)),
            ("new", Condition::Absent, Ok(None)),
        ];
        for (key, condition, want) in rows {
            assert_eq!(registers.judge(key, &condition, 10), want, "{key} {condition:?}");
        }
    }

    #[test]
    fn the_oldest_that_is_gone_makes_room() {
        let mut registers = Registers::default();
        put(&mut registers, "a", 3, true);
        assert_eq!(registers.judge("b", &Condition::Any, 2), Ok(None));
        assert_eq!(registers.judge("b", &Condition::Any, 1), Err(Refused::Full));
        assert_eq!(registers.judge("a", &Condition::Any, 1), Ok(None));
        put(&mut registers, "x", 9, false);
        put(&mut registers, "y", 8, false);
        assert_eq!(registers.judge("b", &Condition::Any, 3), Ok(Some("y".to_owned())));
    }
}
