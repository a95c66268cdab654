//! The log of the agreement on redb: entries, the vote, and how far it is committed.
//!
//! # Invariants
//! - The vote and entries are on disk before anybody is told that they are.
//! - Writes come one after the other: openraft waits for each of them.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::{self, Disk};
use crate::error::StoreError;
use crate::raft::types::TypeConfig;
use crate::world;

const FILE: &str = "raft.redb";

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The log, open. A clone is the same log.
#[derive(Debug, Clone)]
pub(crate) struct RaftLog {
    database: Arc<Database>,
    node: u64,
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

impl RaftLog {
    /// Opens or makes the log on `disk`. Blocks.
    pub(crate) fn open(disk: &dyn Disk) -> Result<Self, StoreError> {
        let (database, file) = disk::open(disk, FILE)?;
        let prepared = || -> Result<u64, redb::Error> {
            let transaction = database.begin_write()?;
            let node = {
                transaction.open_table(LOG)?;
                let mut meta = transaction.open_table(META)?;
                let known = meta.get("node")?.and_then(|id| id.value().try_into().ok());
                let node = known.map_or_else(world::random_u64, u64::from_be_bytes);
                meta.insert("node", &node.to_be_bytes()[..])?;
                node
            };
            transaction.commit()?;
            Ok(node)
        };
        let node =
            prepared().map_err(|source| StoreError::Database { file, source: Box::new(source) })?;
        Ok(Self { database: Arc::new(database), node })
    }

    /// The number of this disk's life.
    pub(crate) fn node(&self) -> u64 {
        self.node
    }

    fn meta<T: DeserializeOwned>(&self, key: &str) -> io::Result<Option<T>> {
        let transaction = self.database.begin_read().map_err(broken)?;
        let meta = transaction.open_table(META).map_err(broken)?;
        let Some(value) = meta.get(key).map_err(broken)? else { return Ok(None) };
        serde_json::from_slice(value.value()).map(Some).map_err(broken)
    }

    /// Runs `job` in one transaction, off the async threads.
    async fn write(
        &self,
        durability: Durability,
        job: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> io::Result<()> {
        let database = Arc::clone(&self.database);
        let written = world::blocking(move || {
            let mut transaction = database.begin_write().map_err(broken)?;
            transaction.set_durability(durability).map_err(broken)?;
            job(&transaction).map_err(broken)?;
            transaction.commit().map_err(broken)
        });
        written.await.map_err(broken)?
    }

    async fn put(
        &self,
        durability: Durability,
        key: &'static str,
        value: &impl Serialize,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(value).map_err(broken)?;
        let put = move |transaction: &WriteTransaction| {
            transaction.open_table(META)?.insert(key, bytes.as_slice())?;
            Ok(())
        };
        self.write(durability, put).await
    }
}

impl RaftLogReader<TypeConfig> for RaftLog {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<EntryOf<TypeConfig>>> {
        let from = match range.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(after) => *after,
            Bound::Unbounded => u64::MAX,
        };
        let database = Arc::clone(&self.database);
        let read = world::blocking(move || {
            let transaction = database.begin_read().map_err(broken)?;
            let log = transaction.open_table(LOG).map_err(broken)?;
            let rows = log.range(from..to).map_err(broken)?;
            let entry = |row: Result<(_, redb::AccessGuard<'_, &[u8]>), _>| {
                let (_, bytes) = row.map_err(broken)?;
                serde_json::from_slice(bytes.value()).map_err(broken)
            };
            rows.map(entry).collect()
        });
        read.await.map_err(broken)?
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<TypeConfig>>> {
        self.meta("vote")
    }
}

impl RaftLogStorage<TypeConfig> for RaftLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let purged: Option<LogIdOf<TypeConfig>> = self.meta("purged")?;
        let transaction = self.database.begin_read().map_err(broken)?;
        let log = transaction.open_table(LOG).map_err(broken)?;
        let last = match log.last().map_err(broken)? {
            Some((_, bytes)) => {
                let entry: EntryOf<TypeConfig> =
                    serde_json::from_slice(bytes.value()).map_err(broken)?;
                Some(entry.log_id())
            }
            None => None,
        };
        Ok(LogState { last_log_id: last.or(purged), last_purged_log_id: purged })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<TypeConfig>) -> io::Result<()> {
        self.put(Durability::Immediate, "vote", vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<TypeConfig>>) -> io::Result<()> {
        // It only has to be no newer than what is durable in the log.
        self.put(Durability::None, "committed", &committed).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<TypeConfig>>> {
        Ok(self.meta::<Option<LogIdOf<TypeConfig>>>("committed")?.flatten())
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let row = |entry: EntryOf<TypeConfig>| -> io::Result<(u64, Vec<u8>)> {
            Ok((entry.index(), serde_json::to_vec(&entry).map_err(broken)?))
        };
        let rows = entries.into_iter().map(row).collect::<io::Result<Vec<_>>>()?;
        let append = move |transaction: &WriteTransaction| {
            let mut log = transaction.open_table(LOG)?;
            for (index, bytes) in &rows {
                log.insert(*index, bytes.as_slice())?;
            }
            Ok(())
        };
        let written = self.write(Durability::Immediate, append).await;
        flushed.io_completed(
            written
                .as_ref()
                .map(|_| ())
                .map_err(|error| io::Error::new(error.kind(), error.to_string())),
        );
        written
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<TypeConfig>>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index.saturating_add(1));
        let cut = move |transaction: &WriteTransaction| {
            transaction.open_table(LOG)?.retain_in(from.., |_, _| false)?;
            Ok(())
        };
        self.write(Durability::Immediate, cut).await
    }

    async fn purge(&mut self, upto: LogIdOf<TypeConfig>) -> io::Result<()> {
        let bytes = serde_json::to_vec(&upto).map_err(broken)?;
        let purge = move |transaction: &WriteTransaction| {
            transaction.open_table(META)?.insert("purged", bytes.as_slice())?;
            transaction.open_table(LOG)?.retain_in(..=upto.index, |_, _| false)?;
            Ok(())
        };
        self.write(Durability::Immediate, purge).await
    }
}
