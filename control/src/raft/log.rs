//! The agreed log of a replica, and its vote, on redb.
//!
//! # Invariants
//! - One writes, in the order in which it was told to: no later write is on disk before an earlier
//!   one. What waits when it looks is one write to disk.
//! - A vote is on disk before it is told to anybody; so is an entry before it is counted.
//! - An entry is read from the moment on when it was handed over, from memory.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use crate::disk::{self, Disk};
use crate::error::StoreError;
use crate::raft::types::TypeConfig;

const FILE: &str = "raft.redb";
const FORMAT: u64 = 2;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// Entries that are kept in memory after they are on disk.
const CACHED: usize = 1_024;
const CACHED_BYTES: usize = 16 << 20;

/// Writes that wait for the disk.
const QUEUE: usize = 1_024;

/// Entries that one write to disk takes with it at most.
const MOST_AT_ONCE: usize = 1_024;

type Entry = EntryOf<TypeConfig>;
type LogId = LogIdOf<TypeConfig>;
type Vote = VoteOf<TypeConfig>;

/// The log. A clone is the same log.
#[derive(Debug, Clone)]
pub(crate) struct RaftLog {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
}

/// Who writes, before it runs.
#[derive(Debug)]
pub(crate) struct LogWriter {
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    file: PathBuf,
    node: u64,
    known: Mutex<Known>,
}

/// What is known without the disk.
#[derive(Debug, Default)]
struct Known {
    /// The newest entries, without a gap, to the last; with their bytes.
    cached: BTreeMap<u64, (Entry, usize)>,
    /// The bytes of all of them.
    cached_bytes: usize,
    /// Entries up to this index are on disk.
    flushed: Option<u64>,
    last: Option<LogId>,
    purged: Option<LogId>,
    /// What is on disk.
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl Known {
    fn cache(&mut self, entry: Entry, size: usize) {
        self.cached_bytes += size;
        let before = self.cached.insert(entry.index(), (entry, size));
        self.cached_bytes -= before.map_or(0, |(_, size)| size);
    }

    /// Lets the oldest go that are on disk, as far as there are too many.
    fn evict(&mut self) {
        while (self.cached.len() > CACHED || self.cached_bytes > CACHED_BYTES)
            && let Some(first) = self.cached.first_entry()
            && Some(*first.key()) <= self.flushed
        {
            self.cached_bytes -= first.remove().1;
        }
    }

    /// Keeps what lies within `range`, one side of which is open.
    fn keep(&mut self, range: impl RangeBounds<u64>) {
        self.cached.retain(|index, _| range.contains(index));
        self.cached_bytes = self.cached.values().map(|(_, size)| size).sum();
    }
}

/// A write.
enum Job {
    Append(Vec<(u64, Vec<u8>)>, IOFlushed<TypeConfig>),
    Vote(Vote, oneshot::Sender<io::Result<()>>),
    /// Entries after this one go; none: all.
    Truncate(Option<u64>, oneshot::Sender<io::Result<()>>),
    /// Entries up to this one go.
    Purge(LogId, oneshot::Sender<io::Result<()>>),
}

impl Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Append(..) => "Append",
            Self::Vote(..) => "Vote",
            Self::Truncate(..) => "Truncate",
            Self::Purge(..) => "Purge",
        })
    }
}

fn broken(error: impl Into<redb::Error>) -> io::Error {
    io::Error::other(error.into())
}

fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

impl RaftLog {
    /// Opens or makes the log on `disk`. A new one belongs to the member `node`. Blocks.
    pub(crate) fn open(disk: &dyn Disk, node: u64) -> Result<(Self, LogWriter), StoreError> {
        let (database, file) = disk::open(disk, FILE)?;
        let opened = prepare(&database, node)
            .and_then(|found| Ok((found, known(&database)?)))
            .map_err(|source| StoreError::File { file: file.clone(), source })?;
        let ((format, node), known) = opened;
        if format != FORMAT {
            return Err(StoreError::Format { file, found: format, known: FORMAT });
        }
        let shared = Arc::new(Shared { database, file, node, known: Mutex::new(known) });
        let (inbox, jobs) = mpsc::channel(QUEUE);
        Ok((Self { shared: Arc::clone(&shared), jobs: inbox }, LogWriter { shared, jobs }))
    }

    /// The member whose log it is.
    pub(crate) fn node(&self) -> u64 {
        self.shared.node
    }

    async fn told(
        &self,
        job: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Job,
    ) -> io::Result<()> {
        let (to, done) = oneshot::channel();
        self.jobs.send(job(to)).await.map_err(ended)?;
        done.await.map_err(ended)?
    }
}

fn ended<E: std::error::Error + Send + Sync + 'static>(error: E) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

fn prepare(database: &Database, node: u64) -> io::Result<(u64, u64)> {
    let transaction = database.begin_write().map_err(broken)?;
    let found = {
        transaction.open_table(LOG).map_err(broken)?;
        transaction.open_table(META).map_err(broken)?;
        let mut numbers = transaction.open_table(NUMBERS).map_err(broken)?;
        let mut number = |name: &str, new: u64| {
            let found = numbers.get(name).map_err(broken)?.map(|number| number.value());
            if found.is_none() {
                numbers.insert(name, new).map_err(broken)?;
            }
            Ok::<_, io::Error>(found.unwrap_or(new))
        };
        (number("format", FORMAT)?, number("node", node)?)
    };
    transaction.commit().map_err(broken)?;
    Ok(found)
}

fn known(database: &Database) -> io::Result<Known> {
    let transaction = database.begin_read().map_err(broken)?;
    let meta = transaction.open_table(META).map_err(broken)?;
    fn read<T: DeserializeOwned>(
        meta: &impl ReadableTable<&'static str, &'static [u8]>,
        name: &str,
    ) -> io::Result<Option<T>> {
        match meta.get(name).map_err(broken)? {
            Some(bytes) => Ok(Some(serde_json::from_slice(bytes.value())?)),
            None => Ok(None),
        }
    }
    let purged: Option<LogId> = read(&meta, "purged")?;
    let log = transaction.open_table(LOG).map_err(broken)?;
    let last = match log.last().map_err(broken)? {
        Some((_, bytes)) => Some(serde_json::from_slice::<Entry>(bytes.value())?.log_id()),
        None => None,
    };
    let last = last.or(purged);
    Ok(Known {
        cached: BTreeMap::new(),
        cached_bytes: 0,
        flushed: last.map(|last| last.index),
        last,
        purged,
        vote: read(&meta, "vote")?,
        committed: read(&meta, "committed")?,
    })
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change to it is complete before the lock is let go: what a panic left is whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes in one transaction, which is on disk when it returns, with what is committed of the
    /// entries that are on disk then: up to `upto`.
    fn write(
        &self,
        upto: Option<u64>,
        job: impl FnOnce(&WriteTransaction) -> io::Result<()>,
    ) -> io::Result<()> {
        let committed = {
            let known = self.known();
            known.committed.filter(|id| Some(id.index) <= upto.max(known.flushed))
        };
        let transaction = self.database.begin_write().map_err(broken)?;
        job(&transaction)?;
        if let Some(committed) = committed {
            let mut meta = transaction.open_table(META).map_err(broken)?;
            meta.insert("committed", json(&committed)?.as_slice()).map_err(broken)?;
        }
        transaction.commit().map_err(broken)
    }

    fn append(&self, rows: &[(u64, Vec<u8>)]) -> io::Result<()> {
        let last = rows.last().map(|(index, _)| *index);
        self.write(last, |transaction| {
            let mut log = transaction.open_table(LOG).map_err(broken)?;
            for (index, bytes) in rows {
                log.insert(index, bytes.as_slice()).map_err(broken)?;
            }
            Ok(())
        })?;
        let mut known = self.known();
        known.flushed = last.or(known.flushed);
        known.evict();
        Ok(())
    }

    fn save_vote(&self, vote: &Vote) -> io::Result<()> {
        let bytes = json(vote)?;
        self.write(None, |transaction| {
            let mut meta = transaction.open_table(META).map_err(broken)?;
            meta.insert("vote", bytes.as_slice()).map_err(broken)?;
            Ok(())
        })?;
        self.known().vote = Some(*vote);
        Ok(())
    }

    fn truncate(&self, after: Option<u64>) -> io::Result<()> {
        let from = after.map_or(0, |last| last.saturating_add(1));
        self.write(None, |transaction| {
            let mut log = transaction.open_table(LOG).map_err(broken)?;
            log.retain_in(from.., |_, _| false).map_err(broken)
        })
    }

    fn purge(&self, upto: &LogId) -> io::Result<()> {
        let bytes = json(upto)?;
        self.write(None, |transaction| {
            let mut meta = transaction.open_table(META).map_err(broken)?;
            meta.insert("purged", bytes.as_slice()).map_err(broken)?;
            let mut log = transaction.open_table(LOG).map_err(broken)?;
            log.retain_in(..=upto.index, |_, _| false).map_err(broken)
        })
    }

    fn entries(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let (transaction, newest, from_memory) = {
            let known = self.known();
            // Under the lock: nothing can leave memory between the two looks.
            let transaction = self.database.begin_read().map_err(broken)?;
            let first = known.cached.keys().next().copied().unwrap_or(u64::MAX);
            let newest: Vec<Entry> =
                known.cached.range(from..to).map(|(_, (entry, _))| entry.clone()).collect();
            (transaction, newest, first)
        };
        let mut entries = Vec::new();
        if from < from_memory {
            let log = transaction.open_table(LOG).map_err(broken)?;
            for row in log.range(from..to.min(from_memory)).map_err(broken)? {
                let (_, bytes) = row.map_err(broken)?;
                entries.push(serde_json::from_slice(bytes.value())?);
            }
        }
        entries.extend(newest);
        Ok(entries)
    }
}

impl LogWriter {
    /// Writes until nobody can tell it anything any more. Blocks.
    pub(crate) fn run(mut self) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| self.jobs.blocking_recv()) {
            next = self.perform(job);
        }
        tracing::debug!(file = %self.shared.file.display(), "the log is closed");
    }

    /// Does `job`, with what waits behind it and fits; tells what comes next, if it looked.
    fn perform(&mut self, job: Job) -> Option<Job> {
        match job {
            Job::Append(mut rows, flushed) => {
                let (mut waiting, mut next) = (vec![flushed], None);
                while rows.len() < MOST_AT_ONCE {
                    match self.jobs.try_recv() {
                        Ok(Job::Append(more, flushed)) => {
                            rows.extend(more);
                            waiting.push(flushed);
                        }
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_empty) => break,
                    }
                }
                let written = self.shared.append(&rows);
                for flushed in waiting {
                    flushed.io_completed(match &written {
                        Ok(()) => Ok(()),
                        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                    });
                }
                next
            }
            Job::Vote(vote, to) => {
                drop(to.send(self.shared.save_vote(&vote)));
                None
            }
            Job::Truncate(after, to) => {
                drop(to.send(self.shared.truncate(after)));
                None
            }
            Job::Purge(upto, to) => {
                drop(to.send(self.shared.purge(&upto)));
                None
            }
        }
    }
}

impl RaftLogReader<TypeConfig> for RaftLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.shared.entries(from, to)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.known().vote)
    }
}

impl RaftLogStorage<TypeConfig> for RaftLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let known = self.shared.known();
        Ok(LogState { last_log_id: known.last, last_purged_log_id: known.purged })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.told(|to| Job::Vote(vote, to)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        // It goes to disk with the next write: it only must not be newer than what is there.
        self.shared.known().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.known().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = Vec::new();
        {
            let mut known = self.shared.known();
            for entry in entries {
                let bytes = json(&entry)?;
                known.last = Some(entry.log_id());
                rows.push((entry.index(), bytes));
                known.cache(entry, rows.last().map_or(0, |(_, bytes)| bytes.len()));
            }
        }
        self.jobs.send(Job::Append(rows, flushed)).await.map_err(ended)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.told(|to| Job::Truncate(last.map(|last| last.index), to)).await?;
        let mut known = self.shared.known();
        let from = last.map_or(0, |last| last.index.saturating_add(1));
        known.keep(..from);
        known.last = known.last.min(last);
        known.flushed = known.flushed.min(last.map(|last| last.index));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        {
            let mut known = self.shared.known();
            known.keep(upto.index.saturating_add(1)..);
            known.purged = Some(upto);
            known.last = known.last.max(Some(upto));
        }
        self.told(|to| Job::Purge(upto, to)).await
    }
}
