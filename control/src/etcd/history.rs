//! How far this replica has followed the log in etcd, and that it is still the same log.
//!
//! # Invariants
//! - Entries are applied by number, each once, without a gap, whatever a watch tells twice, late or
//!   not at all.
//! - How far it is stands in the transaction of what was applied, with the hash of the last entry:
//!   a log that was restored from an older copy, or begun anew, is not taken for this one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::Durability;
use sha2::{Digest, Sha256};

use crate::control_store::Denied;
use crate::etcd::entry::{Base, Proposal};
use crate::etcd::log::{Fault, Log, Page};
use crate::etcd::place::At;
use crate::etcd::shared::Shared;
use crate::etcd::snapshot;
use crate::machine::Machine;
use crate::order::Outcome;
use crate::world;

/// Entries after which the disk is waited for: what a crash takes back is read again.
const SYNC_EVERY: u64 = 512;

/// The machine as the log drives it.
#[derive(Debug)]
pub(super) struct History {
    pub(super) log: Arc<Log>,
    pub(super) machine: Arc<Machine>,
    pub(super) shared: Arc<Shared>,
    /// Where snapshots lie while they are on their way.
    pub(super) folder: PathBuf,
    pub(super) at: At,
    pub(super) base: Option<Base>,
    /// Bytes of entries that were applied since the base was seen to change.
    pub(super) bytes: usize,
    /// The last entry that is certainly on this disk.
    pub(super) synced: u64,
}

impl History {
    /// Whether the log in etcd is the one that was followed until now.
    pub(super) async fn is_same(&self, deadline: Instant) -> Result<(), Fault> {
        if self.at.index == 0 {
            return Ok(());
        }
        match self.log.one(self.at.index, deadline).await? {
            Some(bytes) if hash(&bytes) == self.at.hash => Ok(()),
            Some(_) => Err(foreign(self.at.index, "another entry stands there")),
            None => Ok(()), // in a snapshot, or not there at all: the next page tells
        }
    }

    /// Applies everything up to the head; tells the revision from which there may be more.
    /// Each step has `patience` for its answer.
    pub(super) async fn catch_up(&mut self, patience: Duration) -> Result<i64, Fault> {
        loop {
            let deadline = world::now() + patience;
            let Page { head, base, entries, revision } =
                self.log.page(self.at.index, deadline).await?;
            self.rebased(base);
            self.shared.want(head);
            let next = entries.first().map(|(index, _)| *index);
            if head < self.at.index {
                return Err(foreign(self.at.index, "its log ends before that"));
            }
            if next == Some(self.at.index + 1) {
                self.apply(entries).await?;
            } else if head > self.at.index {
                self.leap().await?;
            }
            if self.at.index >= head {
                return Ok(revision);
            }
        }
    }

    /// Notes what stands for the beginning of the log.
    pub(super) fn rebased(&mut self, base: Option<Base>) {
        if base != self.base {
            let index = base.as_ref().map_or(0, |base| base.index);
            self.shared.base.store(index, Ordering::Relaxed);
            (self.base, self.bytes) = (base, 0);
        }
    }

    /// Takes the snapshot over: the log does not go back to where this replica is.
    async fn leap(&mut self) -> Result<(), Fault> {
        let Some(base) = self.base.clone().filter(|base| base.index > self.at.index) else {
            return Err(foreign(self.at.index, "what comes after it is missing"));
        };
        let (index, from) = (base.index, self.at.index);
        let Some(at) = snapshot::fetch(&self.log, &self.machine, &self.folder, &base).await? else {
            return Ok(()); // another one has taken its place meanwhile
        };
        tracing::info!(from, index, "a snapshot from etcd is installed");
        (self.at, self.synced) = (at, at.index);
        self.shared.applied.send_replace(at.index);
        Ok(())
    }

    /// Applies what follows of `entries`; tells what came of each order of each of these.
    pub(super) async fn apply(
        &mut self,
        entries: Vec<(u64, Bytes)>,
    ) -> Result<Vec<Vec<Outcome>>, Fault> {
        let (mut at, mut batches, mut size) = (self.at, Vec::new(), 0);
        for (index, bytes) in entries {
            if index <= at.index {
                continue; // told again
            }
            if index != at.index + 1 {
                break; // told too early: whoever reads the log comes by it
            }
            let proposal: Proposal = serde_json::from_slice(&bytes)
                .map_err(|why| Fault::Foreign(format!("entry {index} of the log: {why}")))?;
            at = At { index, hash: hash(&bytes) };
            size += bytes.len();
            batches.push(proposal.batch);
        }
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        let notes = at.notes();
        let sync = at.index.saturating_sub(self.synced) >= SYNC_EVERY;
        let durability = if sync { Durability::Immediate } else { Durability::None };
        let machine = Arc::clone(&self.machine);
        let applied = world::blocking(move || machine.apply(batches, &notes, durability)).await;
        let applied = applied.map_err(|error| Fault::Foreign(error.to_string()))?;
        let outcomes = applied.map_err(|error| Fault::Foreign(error.to_string()))?;
        if sync {
            self.synced = at.index;
        }
        self.at = at;
        self.bytes = self.bytes.saturating_add(size);
        self.shared.applied.send_replace(at.index);
        self.shared.want(at.index);
        Ok(outcomes)
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn foreign(index: u64, why: &str) -> Fault {
    Fault::Foreign(format!(
        "etcd holds another history than this replica, which followed it up to entry {index}: \
         {why}. Check etcd.endpoints and etcd.prefix; if this etcd was restored from a copy, remove \
         the folder `data` of every replica"
    ))
}

/// A fault as whoever ordered something hears it.
pub(super) fn denied(fault: &Fault) -> Denied {
    match fault {
        Fault::Nothing(_) | Fault::Foreign(_) => Denied::NoQuorum,
        Fault::Unknown(_) => Denied::Unknown,
        Fault::TooLarge => Denied::NotOffered(
            "this change is larger than etcd takes at once: see its --max-request-bytes",
        ),
    }
}
