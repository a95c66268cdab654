//! What outlives the process, on redb: the edges that registered and the operators' intents.
//!
//! Answers with rows; what they mean is the register's. Every call blocks on the disk: only the
//! ledger calls it, off the async threads. This is the seam where an engine with several replicas
//! takes over: it orders [`Change`]s, and this file applies them.
//!
//! # Invariants
//! - A batch of changes is one transaction: all of it is on disk when [`Store::apply`] returns, or
//!   nothing is.
//! - `position` grows by one with every batch, and never shrinks.
//! - Secrets are kept as fingerprints only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use meridian_config::units::{NodeName, Region};
use meridian_control_wire::{EdgeState, Intent, Registration};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::auth::Fingerprint;
use crate::disk;
use crate::error::StoreError;

const FILE: &str = "control.redb";
const FORMAT: u64 = 1;

const EDGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("edges");
const INTENTS: TableDefinition<'_, &str, &str> = TableDefinition::new("intents");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// An edge as it stands on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EdgeRow {
    pub(crate) registration: Registration,
    pub(crate) secret: Fingerprint,
    /// How it was when this row was written.
    pub(crate) state: EdgeState,
    /// When it was last heard, as far as `state` needs it: milliseconds of wall time since 1970.
    pub(crate) heard_at_ms: u64,
}

/// One change of durable state.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    PutEdge(Box<EdgeRow>),
    RemoveEdge(NodeName),
    Intend(Region, Intent),
}

/// Everything that is on disk.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Saved {
    pub(crate) edges: Vec<EdgeRow>,
    pub(crate) intents: Vec<(Region, Intent)>,
    pub(crate) position: u64,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
    file: PathBuf,
}

impl Store {
    /// Opens or makes the file in `folder`, and reads it.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Saved), StoreError> {
        let (database, file) = disk::open(folder, FILE)?;
        let store = Self { database, file };
        store.prepare().map_err(|error| store.broken(error))??;
        let saved = store.read().map_err(|error| store.broken(error))??;
        Ok((store, saved))
    }

    /// Writes `changes`, all or nothing; answers with the position after them.
    pub(crate) fn apply(&self, changes: &[Change]) -> Result<u64, StoreError> {
        let rows = changes.iter().map(|change| self.row(change)).collect::<Result<Vec<_>, _>>()?;
        self.write(&rows).map_err(|error| self.broken(error))
    }

    /// Makes the tables, so that reading never misses one; refuses another format.
    fn prepare(&self) -> Result<Result<(), StoreError>, redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            transaction.open_table(EDGES)?;
            transaction.open_table(INTENTS)?;
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

    fn read(&self) -> Result<Result<Saved, StoreError>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let mut saved = Saved::default();
        for entry in transaction.open_table(EDGES)?.iter()? {
            let (name, row) = entry?;
            match serde_json::from_slice(row.value()) {
                Ok(row) => saved.edges.push(row),
                Err(why) => return Ok(Err(self.nonsense("edges", name.value(), &why))),
            }
        }
        for entry in transaction.open_table(INTENTS)?.iter()? {
            let (region, intent) = entry?;
            let read: Result<Region, String> = region.value().parse();
            match (read, intent.value()) {
                (Ok(region), "drained") => saved.intents.push((region, Intent::Drained)),
                (Ok(region), other) => {
                    let why = format!("{other:?} is no intent");
                    return Ok(Err(self.nonsense("intents", region.as_str(), &why)));
                }
                (Err(why), _) => return Ok(Err(self.nonsense("intents", region.value(), &why))),
            }
        }
        let meta = transaction.open_table(META)?;
        saved.position = meta.get("position")?.map_or(0, |position| position.value());
        Ok(Ok(saved))
    }

    fn write(&self, rows: &[Row<'_>]) -> Result<u64, redb::Error> {
        let transaction = self.database.begin_write()?; // durability: on disk before it returns
        let position = {
            let mut edges = transaction.open_table(EDGES)?;
            let mut intents = transaction.open_table(INTENTS)?;
            for row in rows {
                match row {
                    Row::PutEdge(name, bytes) => drop(edges.insert(*name, bytes.as_slice())?),
                    Row::RemoveEdge(name) => drop(edges.remove(*name)?),
                    Row::PutIntent(region) => {
                        drop(intents.insert(*region, Intent::Drained.token())?);
                    }
                    Row::RemoveIntent(region) => drop(intents.remove(*region)?),
                }
            }
            let mut meta = transaction.open_table(META)?;
            let position = meta.get("position")?.map_or(0, |position| position.value());
            let position = position.saturating_add(1);
            meta.insert("position", position)?;
            position
        };
        transaction.commit()?;
        Ok(position)
    }

    fn row<'c>(&self, change: &'c Change) -> Result<Row<'c>, StoreError> {
        Ok(match change {
            Change::PutEdge(edge) => {
                let name = edge.registration.name.as_str();
                let bytes =
                    serde_json::to_vec(edge).map_err(|why| self.nonsense("edges", name, &why))?;
                Row::PutEdge(name, bytes)
            }
            Change::RemoveEdge(name) => Row::RemoveEdge(name.as_str()),
            Change::Intend(region, Intent::Drained) => Row::PutIntent(region.as_str()),
            Change::Intend(region, Intent::Active) => Row::RemoveIntent(region.as_str()),
        })
    }

    fn broken(&self, source: redb::Error) -> StoreError {
        StoreError::Database { file: self.file.clone(), source: Box::new(source) }
    }

    fn nonsense(&self, table: &'static str, row: &str, why: &impl ToString) -> StoreError {
        let (file, row) = (self.file.clone(), row.to_owned());
        StoreError::Row { file, table, row, why: why.to_string() }
    }
}

/// A change as the tables take it.
enum Row<'c> {
    PutEdge(&'c str, Vec<u8>),
    RemoveEdge(&'c str),
    PutIntent(&'c str),
    RemoveIntent(&'c str),
}

impl EdgeRow {
    /// For how long the edge had not been heard at `wall`. A clock that stepped back counts as
    /// standing still.
    pub(crate) fn unheard(&self, wall: Duration) -> Duration {
        wall.saturating_sub(Duration::from_millis(self.heard_at_ms))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use meridian_control_wire::{EdgeState, Intent};
    use redb::Database;

    use super::{Change, EDGES, EdgeRow, META, Saved, Store};
    use crate::auth::Fingerprint;
    use crate::error::StoreError;

    fn edge(name: &str) -> EdgeRow {
        let text = format!(
            r#"{{"name":"{name}","region":"fra","city":"Frankfurt","location":[50.0,8.5],
                "url":"http://127.0.0.1:1","admin":"http://127.0.0.1:2"}}"#
        );
        EdgeRow {
            registration: serde_json::from_str(&text).unwrap(),
            secret: Fingerprint::of("0123456789abcdef"),
            state: EdgeState::Unhealthy,
            heard_at_ms: 7,
        }
    }

    fn put(name: &str) -> Change {
        Change::PutEdge(Box::new(edge(name)))
    }

    #[test]
    fn what_was_applied_is_there_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("made/on/the/way");
        let (store, saved) = Store::open(&data).unwrap();
        assert_eq!(saved, Saved::default());
        let drain = |label: &str, intent| Change::Intend(label.parse().unwrap(), intent);
        assert_eq!(store.apply(&[put("a"), put("b"), drain("fra", Intent::Drained)]).unwrap(), 1);
        assert_eq!(store.apply(&[drain("nrt", Intent::Drained)]).unwrap(), 2);
        let change = [Change::RemoveEdge("a".parse().unwrap()), drain("fra", Intent::Active)];
        assert_eq!(store.apply(&change).unwrap(), 3);
        drop(store);
        let (_store, saved) = Store::open(&data).unwrap();
        let intents = vec![("nrt".parse().unwrap(), Intent::Drained)];
        assert_eq!(saved, Saved { edges: vec![edge("b")], intents, position: 3 });
    }

    #[test]
    fn a_file_that_is_open_elsewhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _open = Store::open(folder.path()).unwrap();
        let error = Store::open(folder.path()).unwrap_err();
        assert!(matches!(error, StoreError::Taken { .. }), "{error}");
    }

    #[test]
    fn a_file_of_another_format_or_with_nonsense_is_refused_and_says_where() {
        let spoilt = |spoil: &dyn Fn(&redb::WriteTransaction)| {
            let folder = tempfile::tempdir().unwrap();
            drop(Store::open(folder.path()).unwrap());
            let database = Database::open(folder.path().join("control.redb")).unwrap();
            let transaction = database.begin_write().unwrap();
            spoil(&transaction);
            transaction.commit().unwrap();
            drop(database);
            Store::open(folder.path()).unwrap_err().to_string()
        };
        let error = spoilt(&|t| drop(t.open_table(META).unwrap().insert("format", 2).unwrap()));
        assert!(error.contains("has format 2, this version reads format 1"), "{error}");
        let error = spoilt(&|t| drop(t.open_table(EDGES).unwrap().insert("x", &b"{"[..]).unwrap()));
        assert!(error.contains("table edges, row x"), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = Store::open(Path::new("/dev/null/data")).unwrap_err().to_string();
        assert!(error.contains("data = /dev/null/data"), "{error}");
    }
}
