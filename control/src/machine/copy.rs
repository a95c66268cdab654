//! All rows of the machine as one stream of bytes, and back.
//!
//! # Invariants
//! - The stream is of one moment. Equal machines have equal streams.
//! - Nothing of a stream is taken over before its checksum was found right, and then all of it, in
//!   one transaction.

use std::io::{self, Read, Write};

use redb::{Key, ReadTransaction, ReadableTable, TableDefinition, Value, WriteTransaction};
use sha2::{Digest, Sha256};

use crate::machine::tables::{
    CLUSTER, EDGES, FOLDED, INTENTS, KEY_TIMES, KEYS, LIVES, LOG, META, NOTES, Notes, REGISTERS,
};

/// What a stream begins with.
const MAGIC: &[u8; 8] = b"MRDNSNP1";

/// In place of a table's number: there are no more rows.
const END: u8 = u8::MAX;

/// The number of the table of notes.
const NOTED: u8 = 10;

/// The longest key or value that is believed.
const LONGEST: u32 = 64 << 20;

fn broken(error: impl Into<redb::Error>) -> io::Error {
    io::Error::other(error.into())
}

fn spoilt(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Runs `$job` for each table, with its number.
macro_rules! tables {
    ($job:ident, $($argument:expr),*) => {{
        $job(0, LOG, $($argument),*)?;
        $job(1, FOLDED, $($argument),*)?;
        $job(2, REGISTERS, $($argument),*)?;
        $job(3, KEYS, $($argument),*)?;
        $job(4, KEY_TIMES, $($argument),*)?;
        $job(5, LIVES, $($argument),*)?;
        $job(6, CLUSTER, $($argument),*)?;
        $job(7, META, $($argument),*)?;
        $job(8, EDGES, $($argument),*)?;
        $job(9, INTENTS, $($argument),*)?;
        $job(NOTED, NOTES, $($argument),*)?;
    }};
}

/// Passes bytes on and sums them up.
struct Summed<S> {
    stream: S,
    sum: Sha256,
}

impl<S: Write> Summed<S> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.stream.write_all(bytes)
    }

    fn put_sized(&mut self, bytes: &[u8]) -> io::Result<()> {
        let size = u32::try_from(bytes.len()).ok().filter(|size| *size <= LONGEST);
        let size = size.ok_or_else(|| spoilt("a row is too long for a snapshot"))?;
        self.put(&size.to_le_bytes())?;
        self.put(bytes)
    }
}

impl<S: Read> Summed<S> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        self.sum.update(bytes);
        Ok(bytes)
    }

    fn take_sized(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let size = u32::from_le_bytes(self.take()?);
        if size > LONGEST {
            return Err(spoilt("a row of the snapshot is too long"));
        }
        bytes.clear();
        let whole = (&mut self.stream).take(u64::from(size)).read_to_end(bytes)?;
        if whole != usize::try_from(size).unwrap_or(usize::MAX) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.sum.update(&bytes);
        Ok(())
    }
}

/// Writes all rows that `transaction` sees.
pub(super) fn write(transaction: &ReadTransaction, out: impl Write) -> io::Result<()> {
    let mut out = Summed { stream: out, sum: Sha256::new() };
    out.put(MAGIC)?;
    tables!(write_table, transaction, &mut out);
    out.put(&[END])?;
    let sum = out.sum.clone().finalize();
    out.put(&sum)?;
    out.stream.flush()
}

fn write_table<K: Key + 'static, V: Value + 'static>(
    number: u8,
    table: TableDefinition<'_, K, V>,
    transaction: &ReadTransaction,
    out: &mut Summed<impl Write>,
) -> io::Result<()> {
    let rows = transaction.open_table(table).map_err(broken)?;
    for row in rows.iter().map_err(broken)? {
        let (key, value) = row.map_err(broken)?;
        out.put(&[number])?;
        out.put_sized(K::as_bytes(&key.value()).as_ref())?;
        out.put_sized(V::as_bytes(&value.value()).as_ref())?;
    }
    Ok(())
}

/// What the engine noted.
pub(super) fn notes(transaction: &ReadTransaction) -> io::Result<Notes> {
    let mut notes = Vec::new();
    let rows = transaction.open_table(NOTES).map_err(broken)?;
    for row in rows.iter().map_err(broken)? {
        let (name, value) = row.map_err(broken)?;
        notes.push((name.value().to_owned(), value.value().to_owned()));
    }
    Ok(notes)
}

/// Reads a stream to its end; the notes in it, if it is whole.
pub(super) fn check(input: impl Read) -> io::Result<Notes> {
    let mut notes = Vec::new();
    read(input, |number, key, value| {
        if number == NOTED {
            let name = String::from_utf8(key.to_owned()).map_err(io::Error::other)?;
            notes.push((name, value.to_owned()));
        }
        Ok(())
    })?;
    Ok(notes)
}

/// Puts the rows of a stream, which was checked, in the place of all rows.
pub(super) fn install(transaction: &WriteTransaction, input: impl Read) -> io::Result<()> {
    tables!(empty, transaction);
    read(input, |number, key, value| {
        tables!(insert, number, transaction, key, value);
        Ok(())
    })
}

fn empty<K: Key + 'static, V: Value + 'static>(
    _number: u8,
    table: TableDefinition<'_, K, V>,
    transaction: &WriteTransaction,
) -> io::Result<()> {
    transaction.delete_table(table).map_err(broken)?;
    transaction.open_table(table).map_err(broken)?;
    Ok(())
}

fn insert<K: Key + 'static, V: Value + 'static>(
    number: u8,
    table: TableDefinition<'_, K, V>,
    wanted: u8,
    transaction: &WriteTransaction,
    key: &[u8],
    value: &[u8],
) -> io::Result<()> {
    if number == wanted {
        let mut rows = transaction.open_table(table).map_err(broken)?;
        rows.insert(K::from_bytes(key), V::from_bytes(value)).map_err(broken)?;
    }
    Ok(())
}

fn read(
    input: impl Read,
    mut row: impl FnMut(u8, &[u8], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut input = Summed { stream: input, sum: Sha256::new() };
    if input.take()? != *MAGIC {
        return Err(spoilt("this is no snapshot of this version"));
    }
    let (mut key, mut value) = (Vec::new(), Vec::new());
    loop {
        let [number] = input.take()?;
        if number == END {
            break;
        }
        input.take_sized(&mut key)?;
        input.take_sized(&mut value)?;
        row(number, &key, &value)?;
    }
    let sum = input.sum.clone().finalize();
    let told: [u8; 32] = input.take()?;
    if sum[..] != told {
        return Err(spoilt("the snapshot is damaged: its checksum is wrong"));
    }
    Ok(())
}
