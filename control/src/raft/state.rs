//! The machine as openraft drives it: entries go in, outcomes come out.
//!
//! # Invariants
//! - Every entry is answered, also one that changes nothing.
//! - What was applied is noted with its effect, in one transaction: after a restart the log goes on
//!   where the machine is.

use std::io;
use std::sync::Arc;

use futures_util::TryStreamExt;
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use redb::Durability;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::raft::snapshot::SnapshotFile;
use crate::raft::types::TypeConfig;
use crate::world;

/// The agreement over this machine.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Under which the machine notes how far it is.
const APPLIED: &str = "applied";

/// The machine, and how far it is.
#[derive(Debug, Clone)]
pub(crate) struct StateMachine {
    machine: Arc<Machine>,
    applied: Applied,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Applied {
    log: Option<LogIdOf<TypeConfig>>,
    membership: StoredMembershipOf<TypeConfig>,
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

impl StateMachine {
    /// Blocks.
    pub(crate) fn of(machine: Arc<Machine>) -> io::Result<Self> {
        let noted = machine.note(APPLIED).map_err(broken)?;
        let applied = match noted {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(broken)?,
            None => Applied::default(),
        };
        Ok(Self { machine, applied })
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotFile>> {
        Err(io::Error::other("not yet"))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> io::Result<(Option<LogIdOf<TypeConfig>>, StoredMembershipOf<TypeConfig>)> {
        Ok((self.applied.log, self.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: futures_util::Stream<Item = io::Result<EntryResponder<TypeConfig>>>
            + Unpin
            + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut applied = self.applied.clone();
            applied.log = Some(entry.log_id);
            let mut batches = Vec::new();
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(batch) => batches.push(batch),
                EntryPayload::Membership(members) => {
                    applied.membership =
                        StoredMembershipOf::<TypeConfig>::new(applied.log, members);
                }
            }
            let notes = vec![(APPLIED, serde_json::to_vec(&applied).map_err(broken)?)];
            let machine = Arc::clone(&self.machine);
            let done = world::blocking(move || machine.apply(batches, &notes, Durability::None));
            let mut outcomes = done.await.map_err(broken)?.map_err(broken)?;
            self.applied = applied;
            if let Some(responder) = responder {
                responder.send(outcomes.pop().unwrap_or_default());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMetaOf<TypeConfig>,
        _snapshot: SnapshotFile,
    ) -> io::Result<()> {
        Err(io::Error::other("not yet"))
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotFile>>> {
        Ok(None)
    }
}
