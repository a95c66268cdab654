//! Which objects there are.
//!
//! Three ways lead to objects that exist. A running origin says what it serves
//! ([`list_origin`]): that is what a run asks for unless told otherwise. Objects of chosen number
//! and sizes are written to a file first ([`write_trace`]), from which an origin serves them as
//! `/o/1` to `/o/N`; the run is then given the same number and sizes. A list of paths for any
//! other server stands in a text file ([`read_paths`]).

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use http::uri::PathAndQuery;
use serde::Deserialize;

use crate::client::fetch;
use crate::endpoint::Endpoint;
use crate::error::LoadError;
use crate::options::Listed;
use crate::sizes::Sizes;
use crate::trace::path_of;

/// A page of an origin's list is read up to this size.
const LARGEST_PAGE: usize = 16 << 20;

/// An origin's list is read up to this many objects: a few hundred megabytes here.
const MOST_LISTED: usize = 2_000_000;

/// An admin listener answers within this.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes the trace file of `count` numbered objects: a header and one row for each.
pub fn write_trace(file: &Path, count: NonZeroU64, sizes: &Sizes) -> Result<(), LoadError> {
    let failed = |source| LoadError::File { verb: "write", file: file.into(), source };
    let write = || -> io::Result<()> {
        let mut out = BufWriter::new(File::create(file)?);
        writeln!(out, "key,size")?;
        for number in 1..=count.get() {
            writeln!(out, "{number},{}", sizes.of(number))?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(failed)
}

/// Reads a list of paths: one per line, without sizes. Empty lines and lines that begin with `#`
/// are skipped.
pub fn read_paths(file: &Path) -> Result<Vec<Listed>, LoadError> {
    let failed = |source| LoadError::File { verb: "read", file: file.into(), source };
    let mut found = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(File::open(file).map_err(failed)?).lines()) {
        let line = line.map_err(failed)?;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let path = path_of(line);
        let broken = |rule| LoadError::Paths { file: file.into(), line: number, rule };
        found.push(Listed { path: path.map_err(broken)?, size: None });
    }
    Ok(found)
}

/// A page of `GET /v1/paths`.
#[derive(Deserialize)]
struct Page {
    paths: Vec<Entry>,
    /// Where the next page begins, if there is one.
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    path: String,
    #[serde(default)]
    size: Option<u64>,
}

/// Asks the admin listener of an origin what it serves. Two million objects are listed at most.
pub async fn list_origin(origin: &Endpoint) -> Result<Vec<Listed>, LoadError> {
    let what = "the list of what the origin serves";
    let failed = |reason: String| LoadError::Admin { what, url: origin.clone(), reason };
    let mut found = Vec::new();
    let mut path = PathAndQuery::from_static("/v1/paths");
    loop {
        let body = fetch(origin, &path, LARGEST_PAGE, ADMIN_TIMEOUT).await.map_err(failed)?;
        let page: Page =
            serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
        let more = !page.paths.is_empty();
        for Entry { path, size } in page.paths {
            found.push(Listed { path: path_of(&path).map_err(failed)?, size });
        }
        let Some(next) = page.next.filter(|_| more && found.len() < MOST_LISTED) else {
            found.truncate(MOST_LISTED);
            return Ok(found);
        };
        let after = format!("/v1/paths?after={next}");
        path = PathAndQuery::try_from(after).map_err(|error| failed(error.to_string()))?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::num::NonZeroU64;

    use super::{read_paths, write_trace};
    use crate::sizes::Sizes;
    use crate::trace::Reader;

    #[test]
    fn a_written_trace_reads_back_with_the_sizes_of_the_law() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("objects.csv");
        let sizes: Sizes = "lognormal:median=13KiB,p99=270KiB".parse().unwrap();
        write_trace(&file, NonZeroU64::new(100).unwrap(), &sizes).unwrap();

        let mut reader = Reader::open(&file).unwrap();
        for number in 1..=100 {
            let row = reader.next_row().unwrap().unwrap();
            assert_eq!(row.path.as_str(), format!("/o/{number}"));
            assert_eq!(row.size, Some(sizes.of(number)));
        }
        assert!(reader.next_row().unwrap().is_none());
    }

    #[test]
    fn a_list_of_paths_has_one_per_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "# pages\n/\n\n  /a?b=1\n7\n").unwrap();
        let found: Vec<String> =
            read_paths(file.path()).unwrap().into_iter().map(|one| one.path.to_string()).collect();
        assert_eq!(found, ["/", "/a?b=1", "/o/7"]);

        writeln!(file, "index.html").unwrap();
        let error = read_paths(file.path()).unwrap_err().to_string();
        assert!(error.ends_with(":6: key \"index.html\" must be a number or begin with '/'"));
    }
}
