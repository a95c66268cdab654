//! The tables of the machine, on redb.
//!
//! Answers with rows; what they mean is the machine's. Every call blocks on the disk.
//!
//! # Invariants
//! - What one call of [`Tables::write`] does is seen whole or not at all: by readers, and after a
//!   crash. With [`Durability::Immediate`] it is on disk when it returns, and so is everything
//!   before it; with `None` a crash may take the last of these calls back, in their order.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use meridian_config::units::Region;
use meridian_control_wire::Intent;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    Table, TableDefinition, WriteTransaction,
};
use serde::de::DeserializeOwned;

use crate::control_store::{Entry, Row};
use crate::disk::{self, Disk};
use crate::error::StoreError;
use crate::lives::{Life, Lives};
use crate::order::Revision;
use crate::purges::{Edit, Target};
use crate::watcher::{EdgeRow, EdgesSaved};

const FILE: &str = "journal.redb";
const FORMAT: u64 = 3;

/// Bytes of entries after which no more are read at once.
const PAGE_BYTES: usize = 2 << 20;

pub(crate) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
pub(crate) const FOLDED: TableDefinition<'_, &[u8], u64> = TableDefinition::new("folded");
pub(crate) const REGISTERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("registers");
/// From a key to the fingerprint of its order, the entry, the time and the id.
pub(crate) const KEYS: TableDefinition<'_, &[u8], (&[u8], u64, u64, &str)> =
    TableDefinition::new("keys");
/// Keys by time and entry.
pub(crate) const KEY_TIMES: TableDefinition<'_, (u64, u64), &[u8]> =
    TableDefinition::new("key_times");
pub(crate) const LIVES: TableDefinition<'_, u64, u64> = TableDefinition::new("lives");
pub(crate) const CLUSTER: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("cluster");
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(crate) const EDGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("edges");
pub(crate) const INTENTS: TableDefinition<'_, &str, &str> = TableDefinition::new("intents");
/// What the engine has to know after a restart, written with the rows that it is about.
pub(crate) const NOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("notes");
/// What this file is, which no other file's content changes.
pub(crate) const FILE_META: TableDefinition<'_, &str, u64> = TableDefinition::new("file");

/// Whose file it is: the rows of one are not to be continued by the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// One replica alone.
    Single = 1,
    /// Replicas that agree.
    Raft = 2,
    /// Replicas that follow etcd.
    #[cfg(feature = "etcd")]
    Etcd = 3,
}

/// Everything that is kept in memory, too.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) lives: Lives,
    pub(crate) marks: Marks,
    pub(crate) folded: Vec<(Target, u64)>,
    pub(crate) registers: Vec<(String, Arc<Revision>)>,
    pub(crate) edges: EdgesSaved,
}

/// How far the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    pub(crate) last: u64,
    /// Entries after it are in the log.
    pub(crate) low_water: u64,
    /// What the snapshot does not reach back to.
    pub(crate) floor: u64,
    /// The latest time that a batch brought which changed something.
    pub(crate) clock_ms: u64,
    /// Changes of edges and intents, ever.
    pub(crate) position: u64,
}

/// A key that was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRow {
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) seq: u64,
    pub(crate) at_ms: u64,
    pub(crate) id: String,
}

/// What the engine notes: names and values.
pub(crate) type Notes = Vec<(String, Vec<u8>)>;

/// The open file.
#[derive(Debug)]
pub(crate) struct Tables {
    database: Database,
    file: PathBuf,
}

impl Tables {
    /// Opens or makes the file on `disk`, and reads it.
    pub(crate) fn open(disk: &dyn Disk, engine: Engine) -> Result<(Self, Saved), StoreError> {
        let (database, file) = disk::open(disk, FILE)?;
        let tables = Self { database, file };
        tables.prepare(engine)?;
        let saved = tables.read()?;
        Ok((tables, saved))
    }

    /// Makes the tables, so that reading never misses one; refuses another format or engine.
    fn prepare(&self, engine: Engine) -> Result<(), StoreError> {
        let prepared = || {
            let transaction = self.database.begin_write()?;
            let found = {
                let mut file = transaction.open_table(FILE_META)?;
                let format = file.get("format")?.map(|format| format.value());
                // where the first format had it
                let first = transaction.open_table(META)?.get("format")?.map(|f| f.value());
                let owner = file.get("engine")?.map(|engine| engine.value());
                if format.is_none() && first.is_none() {
                    file.insert("format", FORMAT)?;
                    file.insert("engine", engine as u64)?;
                }
                (format.or(first).unwrap_or(FORMAT), owner.unwrap_or(engine as u64))
            };
            make(&transaction)?;
            if found == (FORMAT, engine as u64) {
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            Ok(found)
        };
        let (format, owner) = prepared().map_err(|fault| self.told(fault))?;
        let file = self.file.clone();
        if format != FORMAT {
            return Err(StoreError::Format { file, found: format, known: FORMAT });
        }
        if owner != engine as u64 {
            return Err(StoreError::Engine { file });
        }
        Ok(())
    }

    /// Reads what is kept in memory.
    pub(crate) fn read(&self) -> Result<Saved, StoreError> {
        self.reading(|transaction| {
            let meta = transaction.open_table(META)?;
            let mark = |name: &str| Ok::<_, Fault>(meta.get(name)?.map_or(0, |mark| mark.value()));
            let marks = Marks {
                last: mark("last")?,
                low_water: mark("low_water")?,
                floor: mark("floor")?,
                clock_ms: mark("clock_ms")?,
                position: mark("position")?,
            };
            let mut saved = Saved {
                lives: lives(transaction)?,
                marks,
                folded: Vec::new(),
                registers: Vec::new(),
                edges: edges(transaction)?,
            };
            saved.edges.position = marks.position;
            for row in transaction.open_table(FOLDED)?.iter()? {
                let (target, seq) = row?;
                let target = parsed("folded", &seq.value(), target.value())?;
                saved.folded.push((target, seq.value()));
            }
            for row in transaction.open_table(REGISTERS)?.iter()? {
                let (key, revision) = row?;
                let revision = parsed("registers", &key.value(), revision.value())?;
                saved.registers.push((key.value().to_owned(), Arc::new(revision)));
            }
            Ok(saved)
        })
    }

    /// What the engine noted under `name`.
    pub(crate) fn note(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.reading(|transaction| {
            let notes = transaction.open_table(NOTES)?;
            Ok(notes.get(name)?.map(|value| value.value().to_owned()))
        })
    }

    /// The entries after `after`, at most `most`; fewer if they are large.
    pub(crate) fn entries(&self, after: u64, most: usize) -> Result<Vec<Entry>, StoreError> {
        self.reading(|transaction| {
            let log = transaction.open_table(LOG)?;
            let (mut entries, mut size) = (Vec::new(), 0);
            for row in log.range(after.saturating_add(1)..)?.take(most) {
                if size > PAGE_BYTES {
                    break;
                }
                let (seq, row) = row?;
                size += row.value().len();
                let seq = seq.value();
                entries.push(Entry { seq, row: parsed("log", &seq, row.value())? });
            }
            Ok(entries)
        })
    }

    /// What the tables hold now, for as long as it is wanted.
    pub(crate) fn view(&self) -> Result<ReadTransaction, StoreError> {
        self.database.begin_read().map_err(|error| self.told(error.into()))
    }

    /// Runs `job` in one transaction, which is on disk when it returns, or never was.
    pub(crate) fn replace(
        &self,
        job: impl FnOnce(&WriteTransaction) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let replaced = || {
            let transaction = self.database.begin_write()?;
            let done = job(&transaction);
            if done.is_ok() {
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            Ok(done)
        };
        let done = replaced().map_err(|fault| self.told(fault))?;
        done.map_err(|source| StoreError::File { file: self.file.clone(), source })
    }

    /// Runs `job` in one transaction, which is committed if it answers that something changed.
    pub(crate) fn write<T>(
        &self,
        durability: Durability,
        job: impl FnOnce(&mut Writing<'_>) -> Result<(T, bool), Fault>,
    ) -> Result<T, StoreError> {
        let written = || {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(durability)?;
            let (done, changed) = job(&mut Writing::of(&transaction)?)?;
            if changed {
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            Ok(done)
        };
        written().map_err(|fault| self.told(fault))
    }

    /// Waits until everything that was written is on disk.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let synced = || {
            let transaction = self.database.begin_write()?; // immediate: with all before it
            transaction.commit()?;
            Ok(())
        };
        synced().map_err(|fault| self.told(fault))
    }

    fn reading<T>(
        &self,
        job: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let read = || job(&self.database.begin_read()?);
        read().map_err(|fault| self.told(fault))
    }

    fn told(&self, fault: Fault) -> StoreError {
        let file = self.file.clone();
        match fault {
            Fault::Database(source) => StoreError::Database { file, source },
            Fault::Row { table, row, why } => StoreError::Row { file, table, row, why },
        }
    }
}

/// What went wrong within a transaction.
#[derive(Debug)]
pub(crate) enum Fault {
    Database(Box<redb::Error>),
    Row { table: &'static str, row: String, why: String },
}

macro_rules! faults {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for Fault {
            fn from(error: redb::$error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}

faults!(TransactionError, TableError, StorageError, CommitError, SetDurabilityError);

fn parsed<T: DeserializeOwned>(
    table: &'static str,
    row: &impl ToString,
    bytes: &[u8],
) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|why| nonsense(table, row, &why))
}

fn nonsense(table: &'static str, row: &impl ToString, why: &impl ToString) -> Fault {
    Fault::Row { table, row: row.to_string(), why: why.to_string() }
}

fn make(transaction: &WriteTransaction) -> Result<(), Fault> {
    transaction.open_table(LOG)?;
    transaction.open_table(FOLDED)?;
    transaction.open_table(REGISTERS)?;
    transaction.open_table(KEYS)?;
    transaction.open_table(KEY_TIMES)?;
    transaction.open_table(LIVES)?;
    transaction.open_table(CLUSTER)?;
    transaction.open_table(META)?;
    transaction.open_table(EDGES)?;
    transaction.open_table(INTENTS)?;
    transaction.open_table(NOTES)?;
    Ok(())
}

fn lives(transaction: &ReadTransaction) -> Result<Lives, Fault> {
    let names = transaction.open_table(CLUSTER)?;
    let cluster = match names.get("id")? {
        None => None,
        Some(id) => {
            let id = <[u8; 16]>::try_from(id.value());
            Some(id.map_err(|why| nonsense("cluster", &"id", &why))?)
        }
    };
    let mut lives = Vec::new();
    for row in transaction.open_table(LIVES)?.iter()? {
        let (id, start) = row?;
        lives.push(Life { id: id.value(), start: start.value() });
    }
    Ok(Lives::restored(cluster, lives))
}

fn edges(transaction: &ReadTransaction) -> Result<EdgesSaved, Fault> {
    let mut saved = EdgesSaved::default();
    for row in transaction.open_table(EDGES)?.iter()? {
        let (name, row) = row?;
        saved.edges.push(parsed("edges", &name.value(), row.value())?);
    }
    for row in transaction.open_table(INTENTS)?.iter()? {
        let (label, intent) = row?;
        let region: Result<Region, String> = label.value().parse();
        let region = region.map_err(|why| nonsense("intents", &label.value(), &why))?;
        let intent = match intent.value() {
            "drained" => Intent::Drained,
            other => {
                let why = format!("{other:?} is no intent");
                return Err(nonsense("intents", &region, &why));
            }
        };
        saved.intents.push((region, intent));
    }
    Ok(saved)
}

/// The tables within one transaction. Those that are seldom used are opened when they are.
pub(crate) struct Writing<'t> {
    transaction: &'t WriteTransaction,
    log: Table<'t, u64, &'static [u8]>,
    keys: Table<'t, &'static [u8], (&'static [u8], u64, u64, &'static str)>,
    key_times: Table<'t, (u64, u64), &'static [u8]>,
}

impl<'t> Writing<'t> {
    fn of(transaction: &'t WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            transaction,
            log: transaction.open_table(LOG)?,
            keys: transaction.open_table(KEYS)?,
            key_times: transaction.open_table(KEY_TIMES)?,
        })
    }

    pub(crate) fn append(&mut self, seq: u64, row: &Row) -> Result<(), Fault> {
        self.log.insert(seq, json(row).as_slice())?;
        Ok(())
    }

    /// Takes the oldest entry out of the log. One that makes no sense is told as none: the log
    /// loses it, and whoever misses it must not believe the snapshot.
    pub(crate) fn take_oldest(&mut self) -> Result<Option<(u64, Option<Row>)>, Fault> {
        let Some((seq, row)) = self.log.pop_first()? else { return Ok(None) };
        Ok(Some((seq.value(), serde_json::from_slice(row.value()).ok())))
    }

    pub(crate) fn edit_folded(&mut self, edits: &[Edit]) -> Result<(), Fault> {
        let mut folded = self.transaction.open_table(FOLDED)?;
        for edit in edits {
            match edit {
                Edit::Put(target, seq) => drop(folded.insert(json(&**target).as_slice(), seq)?),
                Edit::Remove(target) => drop(folded.remove(json(&**target).as_slice())?),
            }
        }
        Ok(())
    }

    pub(crate) fn put_register(&mut self, key: &str, to: &Revision) -> Result<(), Fault> {
        self.transaction.open_table(REGISTERS)?.insert(key, json(to).as_slice())?;
        Ok(())
    }

    pub(crate) fn forget_register(&mut self, key: &str) -> Result<(), Fault> {
        self.transaction.open_table(REGISTERS)?.remove(key)?;
        Ok(())
    }

    pub(crate) fn key(&self, key: &[u8]) -> Result<Option<KeyRow>, Fault> {
        Ok(self.keys.get(key)?.map(|row| {
            let (fingerprint, seq, at_ms, id) = row.value();
            KeyRow { fingerprint: fingerprint.to_owned(), seq, at_ms, id: id.to_owned() }
        }))
    }

    pub(crate) fn remember(&mut self, key: &[u8], row: &KeyRow) -> Result<(), Fault> {
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
    ) -> Result<bool, Fault> {
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

    /// How many edges there are.
    pub(crate) fn edge_count(&self) -> Result<u64, Fault> {
        Ok(self.transaction.open_table(EDGES)?.len()?)
    }

    pub(crate) fn edge(&self, name: &str) -> Result<Option<EdgeRow>, Fault> {
        let edges = self.transaction.open_table(EDGES)?;
        let Some(row) = edges.get(name)? else { return Ok(None) };
        Ok(Some(parsed("edges", &name, row.value())?))
    }

    pub(crate) fn put_edge(&mut self, row: &EdgeRow) -> Result<(), Fault> {
        let mut edges = self.transaction.open_table(EDGES)?;
        edges.insert(row.registration.name.as_str(), json(row).as_slice())?;
        Ok(())
    }

    pub(crate) fn remove_edge(&mut self, name: &str) -> Result<(), Fault> {
        self.transaction.open_table(EDGES)?.remove(name)?;
        Ok(())
    }

    /// Whether an edge of `region` is registered.
    pub(crate) fn has_edge_of(&self, region: &Region) -> Result<bool, Fault> {
        for row in self.transaction.open_table(EDGES)?.iter()? {
            let (name, row) = row?;
            let row: EdgeRow = parsed("edges", &name.value(), row.value())?;
            if row.registration.region == *region {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn intent(&self, region: &Region) -> Result<Intent, Fault> {
        let found = self.transaction.open_table(INTENTS)?.get(region.as_str())?.is_some();
        Ok(if found { Intent::Drained } else { Intent::Active })
    }

    pub(crate) fn intend(&mut self, region: &Region, intent: Intent) -> Result<(), Fault> {
        let mut intents = self.transaction.open_table(INTENTS)?;
        match intent {
            Intent::Drained => drop(intents.insert(region.as_str(), intent.token())?),
            Intent::Active => drop(intents.remove(region.as_str())?),
        }
        Ok(())
    }

    /// Puts down which lives there were, and whose.
    pub(crate) fn put_lives(&mut self, lives: &Lives) -> Result<(), Fault> {
        let mut table = self.transaction.open_table(LIVES)?;
        table.retain(|_, _| false)?;
        for life in lives.all() {
            table.insert(life.id, life.start)?;
        }
        if let Some(cluster) = lives.cluster() {
            self.transaction.open_table(CLUSTER)?.insert("id", &cluster[..])?;
        }
        Ok(())
    }

    pub(crate) fn note(&mut self, notes: &Notes) -> Result<(), Fault> {
        let mut table = self.transaction.open_table(NOTES)?;
        for (name, value) in notes {
            table.insert(name.as_str(), value.as_slice())?;
        }
        Ok(())
    }

    pub(crate) fn mark(&mut self, marks: Marks) -> Result<(), Fault> {
        let mut meta = self.transaction.open_table(META)?;
        meta.insert("last", marks.last)?;
        meta.insert("low_water", marks.low_water)?;
        meta.insert("floor", marks.floor)?;
        meta.insert("clock_ms", marks.clock_ms)?;
        meta.insert("position", marks.position)?;
        Ok(())
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("memory takes JSON with text for keys")
}
