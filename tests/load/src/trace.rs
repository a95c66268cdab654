//! Reads request traces: CSV with a header line, columns by name, one request per row.
//!
//! `key` is what is asked for: a number N stands for `/o/N`, anything that begins with `/` is the
//! path and query as it is. `size`, where there is one, is the length of the whole body. `region`
//! or `client` say where the request comes from. Other columns, `t` among them, are not looked at:
//! a trace is replayed at full speed.
//!
//! # Invariants
//! - One row is in memory at a time, whatever the length of the trace.
//! - A row that breaks a rule ends the reading with file, line and rule; none is skipped silently.

use std::fs::File;
use std::io;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};

use csv::{ErrorKind, StringRecord, Trim};
use http::uri::PathAndQuery;

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened or read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a trace.
    #[error("{}:{line}: {rule}", file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// Its line, from 1 (the header).
        line: u64,
        /// What is wrong, and with which value.
        rule: String,
    },
}

/// One request of a trace, as long as the next one is not read.
#[derive(Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// What is asked for.
    pub path: PathAndQuery,
    /// The length of the whole body, if the trace says it.
    pub size: Option<u64>,
    /// The region it comes from, if the trace says it.
    pub region: Option<&'a str>,
    /// Who asks, if the trace says it.
    pub client: Option<&'a str>,
}

/// Reads a trace row by row.
pub struct Reader<R> {
    csv: csv::Reader<R>,
    file: PathBuf,
    columns: Columns,
    record: StringRecord,
}

/// Where the columns stand.
struct Columns {
    key: usize,
    size: Option<usize>,
    region: Option<usize>,
    client: Option<usize>,
}

impl Reader<File> {
    /// Opens a trace and reads its header.
    pub fn open(file: &Path) -> Result<Self, TraceError> {
        let opened =
            File::open(file).map_err(|source| TraceError::Read { file: file.into(), source })?;
        Self::new(opened, file)
    }
}

impl<R: io::Read> Reader<R> {
    /// Reads the header of a trace; `file` is its name in errors.
    pub fn new(from: R, file: &Path) -> Result<Self, TraceError> {
        let mut csv = csv::ReaderBuilder::new().trim(Trim::All).from_reader(from);
        let header = csv.headers().map_err(|error| csv_error(file, error))?;
        let column = |name: &str| header.iter().position(|column| column == name);
        let Some(key) = column("key") else {
            let found = header.iter().collect::<Vec<_>>().join(",");
            let rule = format!("the header {found:?} names no column \"key\"");
            return Err(TraceError::Row { file: file.into(), line: 1, rule });
        };
        let columns = Columns {
            key,
            size: column("size"),
            region: column("region"),
            client: column("client"),
        };
        Ok(Self { csv, file: file.into(), columns, record: StringRecord::new() })
    }

    /// The next request, or `None` at the end.
    pub fn next_row(&mut self) -> Result<Option<Row<'_>>, TraceError> {
        match self.csv.read_record(&mut self.record) {
            Ok(true) => self.row().map(Some).map_err(|rule| self.broken(rule)),
            Ok(false) => Ok(None),
            Err(error) => Err(csv_error(&self.file, error)),
        }
    }

    /// The error for the row read last.
    pub(crate) fn broken(&self, rule: String) -> TraceError {
        let line = self.record.position().map_or(0, csv::Position::line);
        TraceError::Row { file: self.file.clone(), line, rule }
    }

    fn row(&self) -> Result<Row<'_>, String> {
        let field = |at: usize| self.record.get(at).filter(|text| !text.is_empty());
        let key = field(self.columns.key).ok_or("the key is empty")?;
        let size = match self.columns.size.and_then(field) {
            Some(text) => {
                let broken = |error: ParseIntError| {
                    format!("size {text:?} is not a number of bytes: {error}")
                };
                Some(text.parse().map_err(broken)?)
            }
            None => None,
        };
        Ok(Row {
            path: path_of(key)?,
            size,
            region: self.columns.region.and_then(field),
            client: self.columns.client.and_then(field),
        })
    }
}

/// What a key asks for.
pub(crate) fn path_of(key: &str) -> Result<PathAndQuery, String> {
    let path = if key.starts_with('/') {
        PathAndQuery::try_from(key)
    } else if key.bytes().all(|byte| byte.is_ascii_digit()) {
        PathAndQuery::try_from(format!("/o/{key}"))
    } else {
        return Err(format!("key {key:?} must be a number or begin with '/'"));
    };
    path.map_err(|error| format!("key {key:?} is not a path: {error}"))
}

fn csv_error(file: &Path, error: csv::Error) -> TraceError {
    let line = error.position().map_or(1, csv::Position::line);
    let rule = match error.kind() {
        ErrorKind::Utf8 { .. } => "the line is not UTF-8".to_owned(),
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields where the header has {expected_len}")
        }
        _ => error.to_string(),
    };
    match error.into_kind() {
        ErrorKind::Io(source) => TraceError::Read { file: file.into(), source },
        _ => TraceError::Row { file: file.into(), line, rule },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Reader, TraceError};

    fn open(text: &str) -> Result<Reader<&[u8]>, TraceError> {
        Reader::new(text.as_bytes(), Path::new("t.csv"))
    }

    #[test]
    fn columns_are_found_by_name() {
        let mut reader = open(
            "t,client,key,size,agent\r\n0,7,/a/b?q=1,1713,bot\r\n1, 8 ,42,,\r\n2,,0,0,other\r\n",
        )
        .unwrap();
        let mut found = Vec::new();
        while let Some(row) = reader.next_row().unwrap() {
            found.push((row.path.to_string(), row.size, row.client.map(str::to_owned)));
        }
        let client = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                ("/a/b?q=1".to_owned(), Some(1713), client("7")),
                ("/o/42".to_owned(), None, client("8")),
                ("/o/0".to_owned(), Some(0), None),
            ]
        );
    }

    #[test]
    fn a_trace_of_keys_alone_is_a_trace() {
        let mut reader = open("key\n5\n").unwrap();
        let row = reader.next_row().unwrap().unwrap();
        assert_eq!((row.path.as_str(), row.size, row.region), ("/o/5", None, None));
        assert!(reader.next_row().unwrap().is_none());
    }

    #[test]
    fn the_region_is_read_where_there_is_one() {
        let mut reader = open("region,key\nfra,/a\n,/b\n").unwrap();
        assert_eq!(reader.next_row().unwrap().unwrap().region, Some("fra"));
        assert_eq!(reader.next_row().unwrap().unwrap().region, None);
    }

    #[test]
    fn a_bad_line_is_named_with_its_rule() {
        let rows = [
            ("size\n5\n", "t.csv:1: the header \"size\" names no column \"key\""),
            ("", "t.csv:1: the header \"\" names no column \"key\""),
            ("key,size\n1,2\n3\n", "t.csv:3: 1 fields where the header has 2"),
            ("key,size\n1,2\n1,2,3\n", "t.csv:3: 3 fields where the header has 2"),
            (
                "key,size\n1,-2\n",
                "t.csv:2: size \"-2\" is not a number of bytes: invalid digit found in string",
            ),
            ("key,size\n1,2\n,2\n", "t.csv:3: the key is empty"),
            ("key\nimg/a\n", "t.csv:2: key \"img/a\" must be a number or begin with '/'"),
            ("key\n/a b\n", "t.csv:2: key \"/a b\" is not a path: invalid uri character"),
        ];
        for (text, want) in rows {
            let error = read_all(text).unwrap_err();
            assert_eq!(error.to_string(), want, "{text:?}");
        }
        let mut not_text = Reader::new(&b"key\n/\xff\n"[..], Path::new("t.csv")).unwrap();
        let error = not_text.next_row().unwrap_err();
        assert_eq!(error.to_string(), "t.csv:2: the line is not UTF-8");
    }

    fn read_all(text: &str) -> Result<(), TraceError> {
        let mut reader = open(text)?;
        while reader.next_row()?.is_some() {}
        Ok(())
    }
}
