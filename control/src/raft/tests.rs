//! Log and machine as openraft wants them, and over crashes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use futures_util::stream;
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{RaftLogReader, RaftSnapshotBuilder, StorageError};
use tempfile::TempDir;

use super::log::RaftLog;
use super::snapshot::SnapshotFile;
use super::state::StateMachine;
use super::types::{Replica, TypeConfig};
use crate::disk::lying::{LyingDisk, Power};
use crate::disk::{Disk, Folder};
use crate::machine::Machine;
use crate::machine::tables::Engine;
use crate::order::{Batch, Bounds, Order};
use crate::watcher::Unwatched;

type Entry = openraft::alias::EntryOf<TypeConfig>;
type LogId = openraft::alias::LogIdOf<TypeConfig>;
type Vote = openraft::alias::VoteOf<TypeConfig>;

impl Default for Replica {
    fn default() -> Self {
        Self { name: "nobody".parse().unwrap() }
    }
}

fn log_on(disk: &dyn Disk) -> Option<(RaftLog, JoinHandle<()>)> {
    let (log, writer) = RaftLog::open(disk, 7).ok()?;
    Some((log, std::thread::spawn(move || writer.run())))
}

fn state_in(folder: &Path) -> StateMachine {
    let disk = Folder(folder.to_owned());
    let machine = Machine::open(&disk, Engine::Raft, Arc::new(Unwatched)).unwrap();
    StateMachine::open(Arc::new(machine), &folder.join("snapshots")).unwrap()
}

struct Stores;

impl StoreBuilder<TypeConfig, RaftLog, StateMachine, TempDir> for Stores {
    async fn build(&self) -> Result<(TempDir, RaftLog, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let (log, _writer) = log_on(&Folder(folder.path().to_owned())).unwrap();
        let state = state_in(folder.path());
        Ok((folder, log, state))
    }
}

#[tokio::test]
async fn openraft_finds_nothing_wrong_with_log_and_machine() {
    Suite::test_all(Stores).await.unwrap();
}

fn id(term: u64, index: u64) -> LogId {
    let leader = openraft::impls::leader_id_adv::LeaderId { term, node_id: 1 };
    LogId { leader_id: leader, index }
}

fn bounds() -> Bounds {
    Bounds { keep: 16, folded: 5, keys: 6, key_expiry_ms: 1_000, registers: 3, edges: 2 }
}

fn entry(term: u64, index: u64) -> Entry {
    let orders = vec![Order::Begin { life: index, cluster: [1; 16] }];
    let batch = Batch { at_ms: index, bounds: bounds(), orders };
    Entry::new(id(term, index), openraft::EntryPayload::Normal(batch))
}

#[tokio::test]
async fn a_log_stays_the_log_of_the_member_that_made_it() {
    let disk = LyingDisk::default();
    let (log, writer) = log_on(&disk).unwrap();
    drop(log);
    writer.join().unwrap();
    let (log, _writer) = RaftLog::open(&disk, 8).unwrap();
    assert_eq!(log.node(), 7);
}

/// What was acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    vote: Option<Vote>,
    entries: BTreeMap<u64, u64>,
}

/// Votes and entries until the disk breaks, or the script ends; whether it broke.
async fn script(log: &mut RaftLog, told: &mut Acknowledged) -> bool {
    for round in 1..=6_u64 {
        let vote = Vote::new(round, 1);
        if log.save_vote(&vote).await.is_err() {
            return true;
        }
        told.vote = Some(vote);
        let first = told.entries.keys().last().map_or(1, |last| last + 1);
        let entries: Vec<Entry> = (first..first + 3).map(|index| entry(round, index)).collect();
        let (flushed, done) = TypeConfig::oneshot();
        if log.append(entries, IOFlushed::signal(flushed)).await.is_err()
            || !matches!(done.await, Ok(Ok(())))
        {
            return true;
        }
        told.entries.extend((first..first + 3).map(|index| (index, round)));
        if round % 3 == 0 {
            // one less may be there or not until it is acknowledged
            let (last, _) = told.entries.pop_last().unwrap();
            let keep = id(round, last - 1);
            if log.truncate_after(Some(keep)).await.is_err() {
                return true;
            }
        }
    }
    false
}

/// What was acknowledged and is not there.
async fn lost(disk: &LyingDisk, told: &Acknowledged) -> Option<String> {
    let Some((mut log, _writer)) = log_on(disk) else {
        // A file that was never finished holds nothing yet.
        return told.vote.map(|_| "the file".to_owned());
    };
    let vote = log.read_vote().await.unwrap();
    if vote < told.vote {
        return Some(format!("the vote: {vote:?} instead of {:?}", told.vote));
    }
    let entries = log.try_get_log_entries(0..).await.unwrap();
    let there: BTreeMap<u64, u64> =
        entries.iter().map(|entry| (entry.index(), entry.log_id.leader_id.term)).collect();
    let gone = told.entries.iter().find(|(index, term)| there.get(index) != Some(term));
    gone.map(|gone| format!("entry {gone:?} of {there:?}"))
}

/// Runs the script with a crash at each sync in turn; tells what was lost.
async fn crashes(lies: bool) -> Vec<String> {
    let mut losses = Vec::new();
    for syncs in 0..u32::MAX {
        let disk =
            LyingDisk::with(Power { syncs_left: Some(syncs.into()), lies, ..Power::default() });
        let (mut told, mut broke) = (Acknowledged::default(), true);
        if let Some((mut log, writer)) = log_on(&disk) {
            broke = script(&mut log, &mut told).await;
            drop(log);
            writer.join().unwrap();
        }
        for luck in [0, u64::MAX, 0xA5A5_5A5A_F00F_1234_u64.rotate_left(syncs)] {
            losses.extend(lost(&disk.after_the_crash(luck), &told).await);
        }
        if !broke {
            assert!(syncs > 15, "{syncs} syncs: what has been tried?");
            break;
        }
    }
    losses
}

#[tokio::test]
async fn no_crash_takes_back_a_vote_or_an_entry_that_was_acknowledged() {
    assert_eq!(crashes(false).await, [""; 0]);
}

#[tokio::test]
async fn a_sync_that_is_none_is_noticed_by_the_loss_of_votes_and_entries() {
    let losses = crashes(true).await;
    assert!(losses.iter().any(|loss| loss.starts_with("the file")), "{losses:?}");
}

async fn apply(state: &mut StateMachine, entries: Vec<Entry>) {
    state.apply(stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_is_taken_over_whole_and_is_there_after_opening_again() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut one = state_in(here.path());
    apply(&mut one, (1..=5).map(|index| entry(1, index)).collect()).await;
    let built = one.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(id(1, 5)));
    let mut other = state_in(there.path());
    apply(&mut other, vec![entry(1, 1)]).await;
    // as it comes over the network, once with a byte that changed on the way
    let received = |spoil: bool| {
        let file = SnapshotFile::create(&there.path().join("snapshots"), "received").unwrap();
        let mut at = 0;
        while let Some(piece) =
            Some(built.snapshot.read(at, 100).unwrap()).filter(|p| !p.is_empty())
        {
            file.write(at, &piece).unwrap();
            at += piece.len() as u64;
        }
        if spoil {
            file.write(at / 2, &[built.snapshot.read(at / 2, 1).unwrap()[0] ^ 1]).unwrap();
        }
        file
    };
    assert!(other.install_snapshot(&built.meta, received(true)).await.is_err());
    assert_eq!(other.applied_state().await.unwrap().0, Some(id(1, 1)));
    other.install_snapshot(&built.meta, received(false)).await.unwrap();
    assert_eq!(other.applied_state().await.unwrap(), one.applied_state().await.unwrap());
    let again = other.build_snapshot().await.unwrap();
    let bytes = |folder: &Path| std::fs::read(folder.join("snapshots/snapshot")).unwrap();
    assert!(bytes(here.path()) == bytes(there.path()));
    drop((other, again));
    let mut other = state_in(there.path());
    assert_eq!(other.applied_state().await.unwrap(), one.applied_state().await.unwrap());
    let kept = other.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(kept.meta, built.meta);
}
