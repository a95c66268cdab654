//! What batches of orders do, within one transaction.
//!
//! # Invariants
//! - An order and the record of its `Idempotency-Key` are one transaction: there is never one
//!   without the other.
//! - Reads no clock and no chance: both come with the batch. Time decides only when keys expire.
//! - What a batch does depends on it and on the state before it, not on what shares its transaction.

use std::sync::Arc;

use meridian_control_wire::operation::Operation;

use crate::control_store::{Entry, Row, What};
use crate::lives::Lives;
use crate::machine::edges;
use crate::machine::tables::{Fault, KeyRow, Marks, Writing};
use crate::order::{
    Accepted, Batch, Bounds, Change, Order, Outcome, PurgeRequest, Refused, Revision,
};
use crate::purges::Folded;
use crate::registers::Registers;
use crate::watcher::EdgeEvent;

/// Keys that one batch forgets, and entries that it folds: bounds what its askers wait for.
const STEPS: usize = 5_000;

/// Memory as it will be once the transaction is committed.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) marks: Marks,
    pub(crate) lives: Arc<Lives>,
    pub(crate) registers: Arc<Registers>,
    pub(crate) folded: Arc<Folded>,
    /// What was added to the log.
    pub(crate) entries: Vec<Entry>,
    /// What happened to edges.
    pub(crate) events: Vec<EdgeEvent>,
    /// Whether there is anything to write.
    pub(crate) changed: bool,
}

/// What all orders of a batch share.
#[derive(Debug, Clone, Copy)]
struct Terms {
    bounds: Bounds,
    now_ms: u64,
}

impl Terms {
    /// Keys from before this moment have expired.
    fn keys_since_ms(&self) -> u64 {
        self.now_ms.saturating_sub(self.bounds.key_expiry_ms)
    }
}

impl Draft {
    /// Does what `batch` says.
    pub(crate) fn apply(
        &mut self,
        disk: &mut Writing<'_>,
        batch: Batch,
    ) -> Result<Vec<Outcome>, Fault> {
        let Batch { at_ms, bounds, orders } = batch;
        let terms = Terms { bounds, now_ms: self.marks.clock_ms.max(at_ms) };
        let before = self.marks;
        let most = u64::from(bounds.keys);
        let tidied = disk.forget_keys(terms.keys_since_ms(), most, STEPS)?;
        let mut outcomes = Vec::with_capacity(orders.len());
        for order in orders {
            outcomes.push(match order {
                Order::Purge { request, nonce } => self.purge(disk, terms, request, nonce)?,
                Order::Change(change) => self.change(disk, bounds, change)?,
                Order::Edge(change) => {
                    let (outcome, events) = edges::apply(disk, bounds, terms.now_ms, change)?;
                    let happened = u64::from(!events.is_empty());
                    self.marks.position = self.marks.position.saturating_add(happened);
                    self.events.extend(events);
                    outcome
                }
                Order::Begin { life, cluster } => {
                    Arc::make_mut(&mut self.lives).begin(cluster, self.marks.last, life);
                    disk.put_lives(&self.lives)?;
                    self.changed = true;
                    Outcome::Begun
                }
            });
        }
        if self.marks.last != before.last {
            self.compact(disk, bounds)?;
        }
        if tidied || self.marks != before {
            self.marks.clock_ms = terms.now_ms;
            self.changed = true;
        }
        Ok(outcomes)
    }

    fn purge(
        &mut self,
        disk: &mut Writing<'_>,
        terms: Terms,
        request: PurgeRequest,
        nonce: u64,
    ) -> Result<Outcome, Fault> {
        let PurgeRequest { order, by, key } = request;
        if let Some(key) = &key
            && let Some(row) = disk.key(&key.key)?
            && row.at_ms >= terms.keys_since_ms()
        {
            let same = row.fingerprint == key.fingerprint;
            let first = Accepted { id: row.id, seq: row.seq, replayed: true };
            return Ok(if same {
                Outcome::Purged(first)
            } else {
                Outcome::Refused(Refused::Mismatch)
            });
        }
        let seq = self.marks.last.saturating_add(1);
        let id = id_of(seq, nonce);
        let (selectors, soft, at_ms) = (order.selectors, order.soft, terms.now_ms);
        let operation = Operation { id: id.clone(), selectors, soft, at_ms };
        self.append(disk, by, What::Purge(operation))?;
        if let Some(key) = key {
            let fingerprint = key.fingerprint.to_vec();
            disk.remember(&key.key, &KeyRow { fingerprint, seq, at_ms, id: id.clone() })?;
        }
        Ok(Outcome::Purged(Accepted { id, seq, replayed: false }))
    }

    fn change(
        &mut self,
        disk: &mut Writing<'_>,
        bounds: Bounds,
        change: Change,
    ) -> Result<Outcome, Fault> {
        let Change { key, value, condition, by } = change;
        let gone = match self.registers.judge(&key, &condition, count(bounds.registers)) {
            Ok(gone) => gone,
            Err(refused) => return Ok(Outcome::Refused(refused)),
        };
        if value.is_none() && self.registers.live(&key).is_none() {
            return Ok(Outcome::Refused(Refused::Absent));
        }
        let registers = Arc::make_mut(&mut self.registers);
        if let Some(gone) = gone {
            registers.forget(&gone);
            disk.forget_register(&gone)?;
        }
        let seq = self.marks.last.saturating_add(1);
        let revision = Arc::new(Revision { value: value.clone(), seq });
        disk.put_register(&key, &revision)?;
        registers.put(key.clone(), Arc::clone(&revision));
        self.append(disk, by, What::Config { key, value })?;
        Ok(Outcome::Changed(revision))
    }

    fn append(&mut self, disk: &mut Writing<'_>, by: String, what: What) -> Result<(), Fault> {
        let seq = self.marks.last.saturating_add(1);
        let row = Row { by, what };
        disk.append(seq, &row)?;
        self.marks.last = seq;
        self.entries.push(Entry { seq, row });
        Ok(())
    }

    /// Folds what exceeds the limit of the log, some at a time, so that folding is seldom and
    /// short.
    fn compact(&mut self, disk: &mut Writing<'_>, bounds: Bounds) -> Result<(), Fault> {
        let keep = u64::from(bounds.keep);
        let surplus = self.marks.last.saturating_sub(self.marks.low_water).saturating_sub(keep);
        if surplus <= keep / 16 {
            return Ok(());
        }
        let steps = usize::try_from(surplus).unwrap_or(usize::MAX).min(STEPS);
        let (folded, most) = (Arc::make_mut(&mut self.folded), count(bounds.folded));
        for _ in 0..steps {
            let Some((seq, row)) = disk.take_oldest()? else { break };
            self.marks.low_water = seq;
            match row.map(|row| row.what) {
                Some(What::Purge(operation)) => {
                    disk.edit_folded(&folded.fold(&operation, seq, most))?;
                }
                Some(What::Config { .. }) => {} // registers keep their newest value themselves
                None => folded.lose(seq),
            }
        }
        self.marks.floor = folded.floor();
        Ok(())
    }
}

fn count(bound: u32) -> usize {
    usize::try_from(bound).unwrap_or(usize::MAX)
}

/// The id of the entry `seq`: tells where it is, and that it is this one and no other history's.
fn id_of(seq: u64, nonce: u64) -> String {
    format!("{seq:x}-{nonce:016x}")
}

/// Where the entry of the purge `id` would be.
pub(crate) fn seq_of(id: &str) -> Option<u64> {
    u64::from_str_radix(id.split_once('-')?.0, 16).ok()
}
