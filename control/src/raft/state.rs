//! The machine as the agreed log drives it: entries in, snapshots out and in.
//!
//! # Invariants
//! - The number of the last entry that was applied, and the members, are written with the rows
//!   that it changed. After a crash the machine is as it was after some entry, and the log brings
//!   the rest again.
//! - Before the log may forget an entry, what it did is on disk.
//! - A snapshot takes its name when all of it is on disk, and is taken over after its checksum was
//!   found right, as one transaction.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{FutureExt, Stream, StreamExt};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use redb::Durability;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::machine::Machine;
use crate::order::Batch;
use crate::raft::snapshot::SnapshotFile;
use crate::raft::types::TypeConfig;
use crate::world;

/// The agreement over this machine.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

type LogId = LogIdOf<TypeConfig>;
type Membership = StoredMembershipOf<TypeConfig>;
type Meta = SnapshotMetaOf<TypeConfig>;

/// Entries of one transaction at most.
const AT_ONCE: usize = 64;

/// Entries after which what was applied goes to disk: bounds what a restart applies again.
const SYNC_AFTER: usize = 4_096;

/// What a snapshot's file is called.
const SNAPSHOT: &str = "snapshot";

/// Under which name the machine notes how far it is.
const APPLIED: &str = "applied";

/// How far the machine is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Applied {
    last: Option<LogId>,
    membership: Membership,
}

impl Applied {
    fn meta(&self) -> Meta {
        Meta { last_log_id: self.last, last_membership: self.membership.clone() }
    }
}

/// The machine, and the snapshot that stands for it. A clone is the same.
#[derive(Debug, Clone)]
pub(crate) struct StateMachine(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    machine: Arc<Machine>,
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    applied: Applied,
    /// Entries since the last write to disk.
    unsynced: usize,
    snapshot: Option<(Meta, SnapshotFile)>,
}

fn failed(error: StoreError) -> io::Error {
    io::Error::other(error)
}

impl StateMachine {
    /// The machine as it was left, with its snapshots in `folder`. Blocks.
    pub(crate) fn open(machine: Arc<Machine>, folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let applied = match machine.note(APPLIED).map_err(failed)? {
            Some(bytes) => serde_json::from_slice(&bytes)?,
            None => Applied::default(),
        };
        let state = State { applied, unsynced: 0, snapshot: None };
        let folder = folder.to_owned();
        let shared = Shared { machine, folder, state: Mutex::new(state) };
        let found = shared.found()?;
        shared.state().snapshot = found;
        Ok(Self(Arc::new(shared)))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change to it is complete before the lock is let go: what a panic left is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(SNAPSHOT)
    }

    /// The snapshot that an earlier start left, if it is whole.
    fn found(&self) -> io::Result<Option<(Meta, SnapshotFile)>> {
        let path = self.path();
        if !path.try_exists()? {
            return Ok(None);
        }
        let file = SnapshotFile::open(&path)?;
        match Machine::check(file.reader()) {
            Ok(notes) => Ok(applied_of(&notes)?.map(|applied| (applied.meta(), file))),
            Err(error) => {
                // Another one is made when somebody needs it: the rows are in the machine.
                tracing::warn!(file = %path.display(), %error, "a snapshot is damaged");
                fs::remove_file(&path)?;
                Ok(None)
            }
        }
    }

    /// Applies `run` in one transaction, and tells what came of each batch.
    fn apply(&self, run: Vec<(Step, Option<ApplyResponder<TypeConfig>>)>) -> io::Result<()> {
        let (mut applied, unsynced) = {
            let state = self.state();
            (state.applied.clone(), state.unsynced + run.len())
        };
        let (mut batches, mut answers) = (Vec::new(), Vec::new());
        for (step, responder) in run {
            applied.last = Some(step.id);
            let there = step.batch.is_some();
            batches.extend(step.batch);
            if let Some(membership) = step.membership {
                applied.membership = membership;
            }
            answers.push((there, responder));
        }
        let synced = unsynced >= SYNC_AFTER;
        let durability = if synced { Durability::Immediate } else { Durability::None };
        let notes = vec![(APPLIED.to_owned(), serde_json::to_vec(&applied)?)];
        let outcomes = self.machine.apply(batches, &notes, durability).map_err(failed)?;
        {
            let mut state = self.state();
            state.applied = applied;
            state.unsynced = if synced { 0 } else { unsynced };
        }
        let mut outcomes = outcomes.into_iter();
        for (there, responder) in answers {
            let outcome = if there { outcomes.next().unwrap_or_default() } else { Vec::new() };
            if let Some(responder) = responder {
                responder.send(outcome); // always, or whoever proposed it never hears
            }
        }
        Ok(())
    }

    /// Makes a snapshot of what is applied now. Blocks.
    fn build(&self) -> io::Result<(Meta, SnapshotFile)> {
        self.machine.sync().map_err(failed)?; // the log may forget what it stands for
        let file = SnapshotFile::create(&self.folder, "building")?;
        let mut out = BufWriter::with_capacity(256 << 10, file.writer());
        let notes = self.machine.copy(&mut out)?;
        out.flush()?;
        drop(out);
        let applied = applied_of(&notes)?.unwrap_or_default();
        let file = self.named(&file)?;
        Ok(self.kept(applied.meta(), file))
    }

    /// Puts `file` in the place of the snapshot, once it is on disk.
    fn named(&self, file: &SnapshotFile) -> io::Result<SnapshotFile> {
        file.sync()?;
        let path = self.path();
        fs::rename(file.path(), &path)?;
        fs::File::open(&self.folder)?.sync_all()?;
        SnapshotFile::open(&path)
    }

    fn kept(&self, meta: Meta, file: SnapshotFile) -> (Meta, SnapshotFile) {
        self.state().snapshot = Some((meta.clone(), file.clone()));
        (meta, file)
    }

    /// Takes over what `file` holds. Blocks.
    fn install(&self, file: &SnapshotFile) -> io::Result<()> {
        let notes = Machine::check(file.reader())?;
        let applied = applied_of(&notes)?.unwrap_or_default();
        // First it is kept, then taken over: after a crash between, it is taken over again.
        let own = self.path();
        let kept = if file.path() == own { file.clone() } else { self.named(file)? };
        self.machine.install(kept.reader()).map_err(failed)?;
        let mut state = self.state();
        state.snapshot = Some((applied.meta(), kept));
        (state.applied, state.unsynced) = (applied, 0);
        Ok(())
    }
}

fn applied_of(notes: &[(String, Vec<u8>)]) -> io::Result<Option<Applied>> {
    let note = notes.iter().find(|(name, _)| name == APPLIED);
    Ok(note.map(|(_, bytes)| serde_json::from_slice(bytes)).transpose()?)
}

/// What one entry asks for.
struct Step {
    id: LogId,
    batch: Option<Batch>,
    membership: Option<Membership>,
}

fn step(
    (entry, responder): EntryResponder<TypeConfig>,
) -> (Step, Option<ApplyResponder<TypeConfig>>) {
    let id = entry.log_id;
    let (batch, membership) = match entry.payload {
        EntryPayload::Blank => (None, None),
        EntryPayload::Normal(batch) => (Some(batch), None),
        EntryPayload::Membership(members) => (None, Some(Membership::new(Some(id), members))),
    };
    (Step { id, batch, membership }, responder)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    world::blocking(work).await.map_err(io::Error::other)?
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotFile>> {
        let shared = Arc::clone(&self.0);
        let (meta, snapshot) = blocking(move || shared.build()).await?;
        Ok(SnapshotOf::<TypeConfig, SnapshotFile> { meta, snapshot })
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        let state = self.0.state();
        Ok((state.applied.last, state.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let mut run = vec![step(first?)];
            while run.len() < AT_ONCE
                && let Some(Some(next)) = entries.next().now_or_never()
            {
                run.push(step(next?));
            }
            let shared = Arc::clone(&self.0);
            blocking(move || shared.apply(run)).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, _meta: &Meta, snapshot: SnapshotFile) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        blocking(move || shared.install(&snapshot)).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotFile>>> {
        let snapshot = self.0.state().snapshot.clone();
        Ok(snapshot
            .map(|(meta, snapshot)| SnapshotOf::<TypeConfig, SnapshotFile> { meta, snapshot }))
    }
}
