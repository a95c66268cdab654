//! The log, the registers and the keys of requests on disk, on redb.
//!
//! Answers with rows; what they mean is the engine's. Every call blocks on the disk.
//!
//! # Invariants
//! - What one call of [`Journal::write`] does is on disk when it returns, or none of it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
};
use serde::de::DeserializeOwned;

use crate::control_store::{Entry, Row};
use crate::disk;
use crate::error::StoreError;
use crate::lives::{Life, Lives};
use crate::order::Revision;
use crate::purges::{Edit, Target};

const FILE: &str = "journal.redb";
const FORMAT: u64 = 1;

/// Bytes of entries after which no more are read at once.
const PAGE_BYTES: usize = 2 << 20;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const FOLDED: TableDefinition<'_, &[u8], u64> = TableDefinition::new("folded");
const REGISTERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("registers");
/// From a key to the fingerprint of its order, the entry, the time and the id.
const KEYS: TableDefinition<'_, &[u8], (&[u8], u64, u64, &str)> = TableDefinition::new("keys");
/// Keys by time and entry.
const KEY_TIMES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("key_times");
const LIVES: TableDefinition<'_, u64, u64> = TableDefinition::new("lives");
const CLUSTER: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cluster");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Everything that is kept in memory, too.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) lives: Lives,
    pub(crate) marks: Marks,
    pub(crate) folded: Vec<(Target, u64)>,
    pub(crate) registers: Vec<(String, Arc<Revision>)>,
}

/// How far the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    pub(crate) last: u64,
    /// Entries after it are in the log.
    pub(crate) low_water: u64,
    /// What the snapshot does not reach back to.
    pub(crate) floor: u64,
}

/// A key that was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRow {
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) seq: u64,
    pub(crate) at_ms: u64,
    pub(crate) id: String,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Journal {
    database: Database,
    file: PathBuf,
}

impl Journal {
    /// Opens or makes the file in `folder`, reads it, and begins another life in it. A new file
    /// belongs to the cluster `cluster`; `seed` never comes twice.
    pub(crate) fn open(
        folder: &Path,
        cluster: [u8; 16],
        seed: u64,
    ) -> Result<(Self, Saved), StoreError> {
        let (database, file) = disk::open(folder, FILE)?;
        let journal = Self { database, file };
        journal.prepare(cluster).map_err(|error| journal.broken(error))??;
        let saved = journal.read(seed).map_err(|error| journal.broken(error))??;
        journal.begin(&saved.lives).map_err(|error| journal.broken(error))?;
        Ok((journal, saved))
    }

    fn prepare(&self, cluster: [u8; 16]) -> Result<Result<(), StoreError>, redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            transaction.open_table(LOG)?;
            transaction.open_table(FOLDED)?;
            transaction.open_table(REGISTERS)?;
            transaction.open_table(KEYS)?;
            transaction.open_table(KEY_TIMES)?;
            transaction.open_table(LIVES)?;
            let mut names = transaction.open_table(CLUSTER)?;
            if names.get("id")?.is_none() {
                names.insert("id", &cluster[..])?;
            }
            let mut meta = transaction.open_table(META)?;
            let found = meta.get("format")?.map_or(FORMAT, |format| format.value());
            if found != FORMAT {
                let file = self.file.clone();
                return Ok(Err(StoreError::Format { file, found, known: FORMAT }));
            }
            meta.insert("format", FORMAT)?;
        }
        transaction.commit()?;
        Ok(Ok(()))
    }

    fn read(&self, seed: u64) -> Result<Result<Saved, StoreError>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let meta = transaction.open_table(META)?;
        let mark = |name: &str| Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |m| m.value()));
        let marks =
            Marks { last: mark("last")?, low_water: mark("low_water")?, floor: mark("floor")? };
        let names = transaction.open_table(CLUSTER)?;
        let cluster = names.get("id")?.and_then(|id| <[u8; 16]>::try_from(id.value()).ok());
        let Some(cluster) = cluster else {
            return Ok(Err(self.nonsense("cluster", "id".to_owned(), "is not 16 bytes")));
        };
        let mut before = Vec::new();
        for entry in transaction.open_table(LIVES)?.iter()? {
            let (id, start) = entry?;
            before.push(Life { id: id.value(), start: start.value() });
        }
        let lives = Lives::begun(cluster, before, marks.last, seed);
        let mut saved = Saved { lives, marks, folded: Vec::new(), registers: Vec::new() };
        for entry in transaction.open_table(FOLDED)?.iter()? {
            let (target, seq) = entry?;
            match self.json("folded", &seq.value(), target.value()) {
                Ok(target) => saved.folded.push((target, seq.value())),
                Err(error) => return Ok(Err(error)),
            }
        }
        for entry in transaction.open_table(REGISTERS)?.iter()? {
            let (key, revision) = entry?;
            match self.json("registers", &key.value(), revision.value()) {
                Ok(revision) => saved.registers.push((key.value().to_owned(), Arc::new(revision))),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(saved))
    }

    fn begin(&self, lives: &Lives) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(LIVES)?;
            table.retain(|_, _| false)?;
            for life in lives.all() {
                table.insert(life.id, life.start)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Runs `job` in one transaction, which becomes durable if it answers that something changed.
    pub(crate) fn write<T>(
        &self,
        job: impl FnOnce(&mut Writing<'_>) -> Result<(T, bool), redb::Error>,
    ) -> Result<T, StoreError> {
        let run = || {
            let transaction = self.database.begin_write()?; // durability: on disk at its commit
            let (done, changed) = {
                let mut writing = Writing {
                    log: transaction.open_table(LOG)?,
                    folded: transaction.open_table(FOLDED)?,
                    registers: transaction.open_table(REGISTERS)?,
                    keys: transaction.open_table(KEYS)?,
                    key_times: transaction.open_table(KEY_TIMES)?,
                    meta: transaction.open_table(META)?,
                };
                job(&mut writing)?
            };
            if changed {
                transaction.commit()?
            } else {
                transaction.abort()?
            }
            Ok::<_, redb::Error>(done)
        };
        run().map_err(|error| self.broken(error))
    }

    /// The entries after `after`, at most `most`; fewer if they are large.
    pub(crate) fn entries(&self, after: u64, most: usize) -> Result<Vec<Entry>, StoreError> {
        let rows = || {
            let log = self.database.begin_read()?.open_table(LOG)?;
            let (mut entries, mut size) = (Vec::new(), 0);
            for row in log.range(after.saturating_add(1)..)?.take(most) {
                if size > PAGE_BYTES {
                    break;
                }
                let (seq, row) = row?;
                size += row.value().len();
                let seq = seq.value();
                entries.push(self.json("log", &seq, row.value()).map(|row| Entry { seq, row }));
            }
            Ok::<_, redb::Error>(entries)
        };
        rows().map_err(|error| self.broken(error))?.into_iter().collect()
    }

    fn json<T: DeserializeOwned>(
        &self,
        table: &'static str,
        row: &impl ToString,
        bytes: &[u8],
    ) -> Result<T, StoreError> {
        serde_json::from_slice(bytes)
            .map_err(|why| self.nonsense(table, row.to_string(), &why.to_string()))
    }

    fn broken(&self, source: redb::Error) -> StoreError {
        StoreError::Database { file: self.file.clone(), source: Box::new(source) }
    }

    fn nonsense(&self, table: &'static str, row: String, why: &str) -> StoreError {
        StoreError::Row { file: self.file.clone(), table, row, why: why.to_owned() }
    }
}

/// The tables within one transaction.
pub(crate) struct Writing<'t> {
    log: Table<'t, u64, &'static [u8]>,
    folded: Table<'t, &'static [u8], u64>,
    registers: Table<'t, &'static str, &'static [u8]>,
    keys: Table<'t, &'static [u8], (&'static [u8], u64, u64, &'static str)>,
    key_times: Table<'t, (u64, u64), &'static [u8]>,
    meta: Table<'t, &'static str, u64>,
}

impl Writing<'_> {
    pub(crate) fn append(&mut self, seq: u64, row: &Row) -> Result<(), redb::Error> {
        self.log.insert(seq, json(row).as_slice())?;
        Ok(())
    }

    /// Takes the oldest entry out of the log. One that makes no sense is told as none: the log
    /// loses it, and whoever misses it must not believe the snapshot.
    pub(crate) fn take_oldest(&mut self) -> Result<Option<(u64, Option<Row>)>, redb::Error> {
        let Some((seq, row)) = self.log.pop_first()? else { return Ok(None) };
        Ok(Some((seq.value(), serde_json::from_slice(row.value()).ok())))
    }

    pub(crate) fn edit_folded(&mut self, edit: &Edit) -> Result<(), redb::Error> {
        match edit {
            Edit::Put(target, seq) => drop(self.folded.insert(json(&**target).as_slice(), seq)?),
            Edit::Remove(target) => drop(self.folded.remove(json(&**target).as_slice())?),
        }
        Ok(())
    }

    pub(crate) fn put_register(&mut self, key: &str, to: &Revision) -> Result<(), redb::Error> {
        self.registers.insert(key, json(to).as_slice())?;
        Ok(())
    }

    pub(crate) fn forget_register(&mut self, key: &str) -> Result<(), redb::Error> {
        self.registers.remove(key)?;
        Ok(())
    }

    pub(crate) fn key(&self, key: &[u8]) -> Result<Option<KeyRow>, redb::Error> {
        Ok(self.keys.get(key)?.map(|row| {
            let (fingerprint, seq, at_ms, id) = row.value();
            KeyRow { fingerprint: fingerprint.to_owned(), seq, at_ms, id: id.to_owned() }
        }))
    }

    pub(crate) fn remember(&mut self, key: &[u8], row: &KeyRow) -> Result<(), redb::Error> {
        self.keys.insert(key, (row.fingerprint.as_slice(), row.seq, row.at_ms, row.id.as_str()))?;
        self.key_times.insert((row.at_ms, row.seq), key)?;
        Ok(())
    }

    /// Forgets the oldest keys: those from before `since_ms`, and what exceeds `most`. At most
    /// `steps` of them; whether there were any.
    pub(crate) fn forget_keys(
        &mut self,
        since_ms: u64,
        most: u64,
        steps: usize,
    ) -> Result<bool, redb::Error> {
        for step in 0..steps {
            let surplus = self.key_times.len()? > most;
            let oldest = self.key_times.first()?.map(|(at, _)| at.value());
            let Some((at_ms, seq)) = oldest.filter(|(at_ms, _)| surplus || *at_ms < since_ms)
            else {
                return Ok(step > 0);
            };
            let key = self.key_times.remove((at_ms, seq))?.map(|key| key.value().to_owned());
            if let Some(key) = key
                && self.key(&key)?.is_some_and(|row| row.seq == seq)
            {
                self.keys.remove(key.as_slice())?;
            }
        }
        Ok(true)
    }

    pub(crate) fn mark(&mut self, marks: Marks) -> Result<(), redb::Error> {
        self.meta.insert("last", marks.last)?;
        self.meta.insert("low_water", marks.low_water)?;
        self.meta.insert("floor", marks.floor)?;
        Ok(())
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("memory takes JSON with text for keys")
}
