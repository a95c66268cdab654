//! The order book on disk, and the record of each `Idempotency-Key` beside it.
//!
//! # Invariants
//! - An order and the record of its key are one transaction: there is never one without the other.
//! - One transaction writes at a time: of two with the same key the later sees the earlier.
//! - Bounded: orders and records have a greatest number; records end by time.
//!
//! Everything here blocks on the disk. Reads no clock.

use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use redb::{ReadTransaction, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Orders by number.
const ORDERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("orders");
/// What each key was used with, and what came of it.
const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");
/// The same keys, by the end of their records in milliseconds since 1970.
const ENDS: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("ends");

/// Memory that redb may use for pages. Its own default is 1 GiB.
const PAGE_CACHE: usize = 4 << 20;
/// Records past their end that one transaction takes away: more than it adds.
const PRUNED: usize = 16;

/// The book.
#[derive(Debug)]
pub(crate) struct Book {
    database: Database,
    max_orders: u64,
    max_keys: u64,
}

/// What a client orders.
#[derive(Debug)]
pub(crate) struct Wish {
    /// Its `Idempotency-Key`.
    pub(crate) key: Option<String>,
    /// What the key stands for: the hash of the request.
    pub(crate) fingerprint: String,
    pub(crate) order: Value,
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// For how long the key stands for it, in milliseconds.
    pub(crate) key_lasts_ms: u64,
}

impl Wish {
    /// The same at another time.
    pub(crate) fn at(self, now_ms: u64) -> Self {
        Self { now_ms, ..self }
    }

    /// When the record of its key ends.
    const fn key_ends_ms(&self) -> u64 {
        self.now_ms.saturating_add(self.key_lasts_ms)
    }
}

/// An order in the book.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) number: u64,
    pub(crate) order: Value,
    pub(crate) at_ms: u64,
    /// When its key ends, if it came with one.
    pub(crate) key_ends_ms: Option<u64>,
}

/// What became of a wish.
#[derive(Debug)]
pub(crate) enum Placed {
    /// It is in the book now.
    Now(Order),
    /// It was there: an earlier request with this key did it.
    Before(Order),
    /// The key was used with another request.
    Mismatch,
    /// There is no room; names the limit.
    Full(&'static str),
}

/// What a key was used with.
#[derive(Serialize, Deserialize)]
struct Record {
    fingerprint: String,
    number: u64,
    ends_ms: u64,
}

/// Why the book cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// Another process has it open.
    #[error("{0:?} is open in another process")]
    Taken(PathBuf),
    /// Its folder cannot be made.
    #[error("its folder cannot be made")]
    Folder(#[source] std::io::Error),
    /// The disk or the file.
    #[error("the database failed")]
    Database(#[source] Box<redb::Error>),
    /// A row that this program did not write.
    #[error("a row cannot be read")]
    Row(#[from] serde_json::Error),
}

macro_rules! database_errors {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for BookError {
            fn from(error: redb::$error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}

database_errors!(CommitError, DatabaseError, StorageError, TableError, TransactionError);

impl Book {
    /// Opens or makes the file.
    pub(crate) fn open(file: &Path, max_orders: u64, max_keys: u64) -> Result<Self, BookError> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(BookError::Folder)?;
        }
        let database = match Database::builder().set_cache_size(PAGE_CACHE).create(file) {
            Ok(database) => database,
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(BookError::Taken(file.to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let transaction = database.begin_write()?;
        transaction.open_table(ORDERS)?;
        transaction.open_table(KEYS)?;
        transaction.open_table(ENDS)?;
        transaction.commit()?;
        Ok(Self { database, max_orders, max_keys })
    }

    /// Writes the order, unless its key says that it was written before. On disk when it returns.
    pub(crate) fn place(&self, wish: Wish) -> Result<Placed, BookError> {
        let transaction = self.database.begin_write()?;
        let placed = self.place_in(&transaction, wish)?;
        match placed {
            Placed::Now(_) => transaction.commit()?,
            Placed::Before(_) | Placed::Mismatch | Placed::Full(_) => transaction.abort()?,
        }
        Ok(placed)
    }

    /// What is recorded for the key of `wish`, if anything is: nothing is done for it.
    pub(crate) fn recorded(&self, wish: &Wish) -> Result<Option<Placed>, BookError> {
        let transaction = self.database.begin_read()?;
        before(&transaction.open_table(KEYS)?, &transaction.open_table(ORDERS)?, wish)
    }

    fn place_in(&self, into: &WriteTransaction, wish: Wish) -> Result<Placed, BookError> {
        let mut orders = into.open_table(ORDERS)?;
        let mut keys = into.open_table(KEYS)?;
        let mut ends = into.open_table(ENDS)?;
        if let Some(placed) = before(&keys, &orders, &wish)? {
            return Ok(placed);
        }
        let over: Vec<(u64, String)> = ends
            .range(..(wish.now_ms.saturating_add(1), ""))?
            .take(PRUNED)
            .map(|row| row.map(|(at, _)| (at.value().0, at.value().1.to_owned())))
            .collect::<Result<_, _>>()?;
        for (at, key) in &over {
            ends.remove((*at, key.as_str()))?;
            keys.remove(key.as_str())?;
        }
        if orders.len()? >= self.max_orders {
            return Ok(Placed::Full("orders.max_orders"));
        }
        if wish.key.is_some() && keys.len()? >= self.max_keys {
            return Ok(Placed::Full("orders.max_keys"));
        }
        let number = orders.last()?.map_or(0, |(number, _)| number.value()).saturating_add(1);
        let ends_ms = wish.key_ends_ms();
        let key_ends_ms = wish.key.as_ref().map(|_| ends_ms);
        let order = Order { number, order: wish.order, at_ms: wish.now_ms, key_ends_ms };
        orders.insert(number, serde_json::to_vec(&order)?.as_slice())?;
        if let Some(key) = wish.key {
            let fingerprint = wish.fingerprint;
            // One that ended and was not taken away yet has an end of its own.
            if let Some(row) = keys.get(key.as_str())? {
                let old: Record = serde_json::from_slice(row.value())?;
                ends.remove((old.ends_ms, key.as_str()))?;
            }
            let record = Record { fingerprint, number, ends_ms };
            keys.insert(key.as_str(), serde_json::to_vec(&record)?.as_slice())?;
            ends.insert((ends_ms, key.as_str()), ())?;
        }
        Ok(Placed::Now(order))
    }

    /// The order of this number.
    pub(crate) fn order(&self, number: u64) -> Result<Option<Order>, BookError> {
        let transaction = self.database.begin_read()?;
        let row = transaction.open_table(ORDERS)?.get(number)?;
        Ok(row.map(|row| serde_json::from_slice(row.value())).transpose()?)
    }

    /// How many there are, and up to `most` with a number above `after`.
    pub(crate) fn list(&self, after: u64, most: usize) -> Result<(u64, Vec<Order>), BookError> {
        let transaction: ReadTransaction = self.database.begin_read()?;
        let orders = transaction.open_table(ORDERS)?;
        let mut page = Vec::new();
        for row in orders.range(after.saturating_add(1)..)?.take(most) {
            page.push(serde_json::from_slice(row?.1.value())?);
        }
        Ok((orders.len()?, page))
    }
}

/// What came of an earlier request with the key of `wish`.
fn before(
    keys: &impl ReadableTable<&'static str, &'static [u8]>,
    orders: &impl ReadableTable<u64, &'static [u8]>,
    wish: &Wish,
) -> Result<Option<Placed>, BookError> {
    let Some(key) = &wish.key else { return Ok(None) };
    let Some(row) = keys.get(key.as_str())? else { return Ok(None) };
    let record: Record = serde_json::from_slice(row.value())?;
    if record.ends_ms <= wish.now_ms {
        return Ok(None);
    }
    if record.fingerprint != wish.fingerprint {
        return Ok(Some(Placed::Mismatch));
    }
    let order = orders.get(record.number)?;
    let order = order.map(|row| serde_json::from_slice(row.value())).transpose()?;
    Ok(order.map(Placed::Before))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::{Book, Placed, Wish};

    fn wish(key: &str, order: &str, now_ms: u64) -> Wish {
        Wish {
            key: (!key.is_empty()).then(|| key.to_owned()),
            fingerprint: order.to_owned(),
            order: order.parse().unwrap(),
            now_ms,
            key_lasts_ms: 100,
        }
    }

    fn told(placed: Placed) -> String {
        match placed {
            Placed::Now(order) => format!("now {}", order.number),
            Placed::Before(order) => format!("before {} {}", order.number, order.order),
            Placed::Mismatch => "mismatch".to_owned(),
            Placed::Full(limit) => format!("full {limit}"),
        }
    }

    #[test]
    fn a_key_stands_for_one_order_until_it_ends() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("orders");
        let book = Book::open(&file, 5, 2).unwrap();
        let rows = [
            ("a", "1", 0, "now 1"),
            ("a", "1", 99, "before 1 1"),
            ("a", "2", 99, "mismatch"),
            ("", "1", 99, "now 2"), // without a key each is an order of its own
            ("", "1", 99, "now 3"),
            ("b", "1", 99, "now 4"),
            ("c", "1", 99, "full orders.max_keys"),
            ("a", "2", 100, "now 5"), // the key's record has ended
            ("d", "2", 500, "full orders.max_orders"),
        ];
        for (key, order, now, want) in rows {
            let recorded = book.recorded(&wish(key, order, now)).unwrap().map(told);
            let is_repeat = want.starts_with("before") || want == "mismatch";
            assert_eq!(recorded.as_deref(), is_repeat.then_some(want), "{key} {order}");
            assert_eq!(told(book.place(wish(key, order, now)).unwrap()), want, "{key} {order}");
        }
        drop(book);
        let book = Book::open(&file, 5, 2).unwrap();
        assert_eq!(told(book.place(wish("a", "2", 150)).unwrap()), "before 5 2");
        let (count, page) = book.list(1, 2).unwrap();
        assert_eq!((count, page.iter().map(|o| o.number).collect::<Vec<_>>()), (5, vec![2, 3]));
        assert!(book.order(5).unwrap().is_some() && book.order(6).unwrap().is_none());
    }

    #[test]
    fn records_end_with_time_and_make_room() {
        let dir = TempDir::new().unwrap();
        let book = Book::open(&dir.path().join("orders"), 1_000, 3).unwrap();
        for n in 0..300_u64 {
            let placed = told(book.place(wish(&format!("k{n}"), "1", n * 50)).unwrap());
            assert_eq!(placed, format!("now {}", n + 1));
        }
    }
}
