//! What a batch of orders does, within one transaction.
//!
//! # Invariants
//! - An order and the record of its `Idempotency-Key` are one transaction: there is never one
//!   without the other.
//! - Time is read once per batch and given in from outside; it decides only when keys expire.

use std::sync::Arc;

use meridian_config::control::Journal as Limits;
use meridian_control_wire::operation::Operation;

use crate::control_store::{Denied, Entry, Row, What};
use crate::order::{Accepted, Change, PurgeRequest, Refused, Revision};
use crate::purges::Folded;
use crate::register::millis;
use crate::registers::Registers;
use crate::single::journal::{KeyRow, Marks, Writing};
use crate::world;

/// Keys that one batch forgets, and entries that it folds: bounds what its askers wait for.
const STEPS: usize = 5_000;

/// Memory as it will be once the batch is durable.
pub(crate) struct Draft<'l> {
    pub(crate) marks: Marks,
    pub(crate) registers: Registers,
    pub(crate) folded: Arc<Folded>,
    /// What was added to the log.
    pub(crate) entries: Vec<Entry>,
    limits: &'l Limits,
    wall_ms: u64,
}

impl<'l> Draft<'l> {
    pub(crate) fn new(
        marks: Marks,
        registers: Registers,
        folded: Arc<Folded>,
        limits: &'l Limits,
        wall_ms: u64,
    ) -> Self {
        Self { marks, registers, folded, entries: Vec::new(), limits, wall_ms }
    }

    /// Whether there is anything to write.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Keys from before this moment have expired.
    fn keys_since_ms(&self) -> u64 {
        self.wall_ms.saturating_sub(millis(self.limits.key_expiry.get()))
    }

    pub(crate) fn forget_keys(&self, disk: &mut Writing<'_>) -> Result<bool, redb::Error> {
        let most = u64::from(self.limits.max_keys.get());
        disk.forget_keys(self.keys_since_ms(), most, STEPS)
    }

    pub(crate) fn purge(
        &mut self,
        disk: &mut Writing<'_>,
        request: PurgeRequest,
    ) -> Result<Result<Accepted, Denied>, redb::Error> {
        let PurgeRequest { order, by, key } = request;
        if let Some(key) = &key
            && let Some(row) = disk.key(&key.key)?
            && row.at_ms >= self.keys_since_ms()
        {
            let same = row.fingerprint == key.fingerprint;
            let first = Accepted { id: row.id, seq: row.seq, replayed: true };
            return Ok(if same { Ok(first) } else { Err(Refused::Mismatch.into()) });
        }
        let seq = self.marks.last.saturating_add(1);
        let id = id_of(seq);
        let (selectors, soft, at_ms) = (order.selectors, order.soft, self.wall_ms);
        let operation = Operation { id: id.clone(), selectors, soft, at_ms };
        self.append(disk, by, What::Purge(operation))?;
        if let Some(key) = key {
            let fingerprint = key.fingerprint.to_vec();
            disk.remember(&key.key, &KeyRow { fingerprint, seq, at_ms, id: id.clone() })?;
        }
        Ok(Ok(Accepted { id, seq, replayed: false }))
    }

    pub(crate) fn change(
        &mut self,
        disk: &mut Writing<'_>,
        change: Change,
    ) -> Result<Result<Arc<Revision>, Denied>, redb::Error> {
        let Change { key, value, condition, by } = change;
        let most = usize::try_from(self.limits.max_registers.get()).unwrap_or(usize::MAX);
        let gone = match self.registers.judge(&key, &condition, most) {
            Ok(gone) => gone,
            Err(refused) => return Ok(Err(refused.into())),
        };
        if value.is_none() && self.registers.live(&key).is_none() {
            return Ok(Err(Refused::Absent.into()));
        }
        if let Some(gone) = gone {
            self.registers.forget(&gone);
            disk.forget_register(&gone)?;
        }
        let what = What::Config { key: key.clone(), value: value.clone() };
        let revision = Arc::new(Revision { value, seq: self.append(disk, by, what)? });
        disk.put_register(&key, &revision)?;
        self.registers.put(key, Arc::clone(&revision));
        Ok(Ok(revision))
    }

    fn append(
        &mut self,
        disk: &mut Writing<'_>,
        by: String,
        what: What,
    ) -> Result<u64, redb::Error> {
        let seq = self.marks.last.saturating_add(1);
        let row = Row { by, what };
        disk.append(seq, &row)?;
        self.marks.last = seq;
        self.entries.push(Entry { seq, row });
        Ok(seq)
    }

    /// Ends the batch: notes how far the log is, after folding what exceeds its limit, some at a
    /// time, so that folding is seldom and short.
    pub(crate) fn finish(&mut self, disk: &mut Writing<'_>) -> Result<(), redb::Error> {
        if self.is_dirty() {
            self.compact(disk)?;
            disk.mark(self.marks)?;
        }
        Ok(())
    }

    fn compact(&mut self, disk: &mut Writing<'_>) -> Result<(), redb::Error> {
        let keep = u64::from(self.limits.keep.get());
        let surplus = self.marks.last.saturating_sub(self.marks.low_water).saturating_sub(keep);
        if surplus <= keep / 16 {
            return Ok(());
        }
        let steps = usize::try_from(surplus).unwrap_or(usize::MAX).min(STEPS);
        let folded = Arc::make_mut(&mut self.folded);
        for _ in 0..steps {
            let Some((seq, row)) = disk.take_oldest()? else { break };
            self.marks.low_water = seq;
            match row.map(|row| row.what) {
                Some(What::Purge(operation)) => {
                    for edit in folded.fold(&operation, seq) {
                        disk.edit_folded(&edit)?;
                    }
                }
                Some(What::Config { .. }) => {} // registers keep their newest value themselves
                None => folded.lose(seq),
            }
        }
        self.marks.floor = folded.floor();
        Ok(())
    }
}

/// The id of the entry `seq`: tells where it is, and that it is this one and no other history's.
fn id_of(seq: u64) -> String {
    let chance: String = world::random_key().iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("{seq:x}-{chance}")
}
