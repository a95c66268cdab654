//! How often which path was asked for, by whom, and how many body bytes went out for it.
//!
//! Who asked is the last pseudonym of `Via` (RFC 9110 §7.6.3): the edge that sent the request.
//!
//! # Invariants
//! - A request is counted before it is answered or harmed by a fault; its bytes as they go out.
//! - Totals are exact also when there are more paths or edges than are counted one by one.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use http::header::VIA;
use serde::Serialize;

/// Who asked, where `Via` does not say.
const DIRECT: &str = "direct";
/// Who asked, beyond the edges that are counted one by one.
const OTHER: &str = "other";
/// The longest pseudonym that is told apart: that of a node's name.
const MAX_PSEUDONYM: usize = 63;

/// What one edge asked of one path, and got.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    requests: AtomicU64,
    body_bytes: AtomicU64,
    /// The same for all paths together.
    total: Option<Arc<Tally>>,
}

impl Tally {
    fn asked(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(total) = &self.total {
            total.asked();
        }
    }

    pub(crate) fn sends(&self, bytes: u64) {
        self.body_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(total) = &self.total {
            total.sends(bytes);
        }
    }
}

/// An edge's place in [`Table::edges`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct EdgeIndex(u32);

#[derive(Debug, Default)]
struct Table {
    indices: HashMap<Box<str>, EdgeIndex>,
    edges: Vec<(Box<str>, Arc<Tally>)>,
    /// By path with its query. In order, so that all queries of a path stand together.
    paths: BTreeMap<Box<str>, Vec<(EdgeIndex, Arc<Tally>)>>,
    /// Some path was not counted one by one.
    overflowed: bool,
}

/// All counts of an origin.
#[derive(Debug)]
pub(crate) struct Counts {
    table: Mutex<Table>,
    max_paths: usize,
    max_edges: usize,
}

/// The answer of `GET /v1/requests`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    path: Option<String>,
    requests: u64,
    body_bytes: u64,
    by: BTreeMap<String, Share>,
}

/// One edge's part of a [`Report`].
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Share {
    requests: u64,
    body_bytes: u64,
}

/// The path was never counted, but might have been if there had been room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Uncounted {
    pub(crate) limit: usize,
}

impl Counts {
    pub(crate) fn new(max_paths: usize, max_edges: usize) -> Self {
        Self { table: Mutex::default(), max_paths, max_edges }
    }

    /// Counts a request for `target`, a path with its query, and says where its bytes belong.
    pub(crate) fn asked(&self, target: &str, headers: &HeaderMap) -> Arc<Tally> {
        let by = last_pseudonym(headers).unwrap_or(DIRECT);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let (edge, total) = table.edge(by, self.max_edges);
        let tally = table.path(target, self.max_paths).map(|by_edge| {
            let known = by_edge.iter().find(|(index, _)| *index == edge);
            if let Some((_, tally)) = known {
                return Arc::clone(tally);
            }
            let tally = Arc::new(Tally { total: Some(Arc::clone(&total)), ..Tally::default() });
            by_edge.push((edge, Arc::clone(&tally)));
            tally
        });
        drop(table);
        let tally = tally.unwrap_or(total);
        tally.asked();
        tally
    }

    /// What was asked of `path`: with a query of exactly that, else of all its queries together;
    /// of everything if there is no `path`.
    pub(crate) fn report(&self, path: Option<&str>) -> Result<Report, Uncounted> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = Report { path: path.map(str::to_owned), ..Report::default() };
        let Some(path) = path else {
            for (name, tally) in &table.edges {
                report.add(name, tally);
            }
            return Ok(report);
        };
        let mut found = false;
        for by_edge in table.of(path) {
            found = true;
            for (EdgeIndex(index), tally) in by_edge {
                let index = usize::try_from(*index).unwrap_or(usize::MAX);
                if let Some((name, _)) = table.edges.get(index) {
                    report.add(name, tally);
                }
            }
        }
        if found || !table.overflowed {
            Ok(report)
        } else {
            Err(Uncounted { limit: self.max_paths })
        }
    }
}

impl Table {
    fn edge(&mut self, name: &str, most: usize) -> (EdgeIndex, Arc<Tally>) {
        let room = self.edges.len() < most || [DIRECT, OTHER].contains(&name);
        let name = if room || self.indices.contains_key(name) { name } else { OTHER };
        let next = EdgeIndex(u32::try_from(self.edges.len()).unwrap_or(u32::MAX));
        let index = match self.indices.get(name) {
            Some(index) => *index,
            None => {
                self.indices.insert(name.into(), next);
                self.edges.push((name.into(), Arc::default()));
                next
            }
        };
        let place = usize::try_from(index.0).unwrap_or(usize::MAX);
        let total = self.edges.get(place).map(|(_, total)| Arc::clone(total));
        (index, total.unwrap_or_default())
    }

    fn path(&mut self, target: &str, most: usize) -> Option<&mut Vec<(EdgeIndex, Arc<Tally>)>> {
        if !self.paths.contains_key(target) {
            if self.paths.len() >= most {
                self.overflowed = true;
                return None;
            }
            self.paths.insert(target.into(), Vec::with_capacity(1));
        }
        self.paths.get_mut(target)
    }

    fn of<'t>(&'t self, path: &str) -> impl Iterator<Item = &'t Vec<(EdgeIndex, Arc<Tally>)>> {
        let queries = (!path.contains('?')).then(|| {
            let (first, behind) = (format!("{path}?"), format!("{path}@")); // '@' follows '?'
            let bounds = (Bound::Included(&*first), Bound::Excluded(&*behind));
            self.paths.range::<str, _>(bounds).map(|(_, by_edge)| by_edge)
        });
        self.paths.get(path).into_iter().chain(queries.into_iter().flatten())
    }
}

impl Report {
    fn add(&mut self, name: &str, tally: &Tally) {
        let requests = tally.requests.load(Ordering::Relaxed);
        let body_bytes = tally.body_bytes.load(Ordering::Relaxed);
        self.requests += requests;
        self.body_bytes += body_bytes;
        let share = self.by.entry(name.to_owned()).or_default();
        share.requests += requests;
        share.body_bytes += body_bytes;
    }
}

/// The pseudonym of the last member of `Via`, which the sender of the request has added.
fn last_pseudonym(headers: &HeaderMap) -> Option<&str> {
    let line = headers.get_all(VIA).iter().next_back()?.to_str().ok()?;
    let (mut depth, mut last) = (0_u32, 0); // of comments, which may nest and hold commas
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => last = at + 1,
            _ => {}
        }
    }
    let member = line.get(last..)?.split('(').next()?.trim();
    let (_protocol, by) = member.split_once([' ', '\t'])?;
    let by = by.trim();
    let is_name = !by.is_empty() && by.bytes().all(|byte| byte.is_ascii_graphic());
    Some(if is_name && by.len() <= MAX_PSEUDONYM { by } else { OTHER })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::VIA;

    use super::{Counts, Uncounted, last_pseudonym};

    fn via(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(VIA, line.parse().unwrap());
        }
        headers
    }

    fn counted(counts: &Counts, path: Option<&str>) -> String {
        serde_json::to_string(&counts.report(path).unwrap()).unwrap()
    }

    #[test]
    fn who_asked_is_the_last_pseudonym_of_via() {
        let long = format!("1.1 {}", "x".repeat(64));
        let rows: [(&[&str], Option<&str>); 10] = [
            (&["1.1 iad-1 (a, (b), 1.1 c), 1.1 fra-1"], Some("fra-1")),
            (&[], None),
            (&["1.1 fra-1"], Some("fra-1")),
            (&["1.1 iad-1, 2 fra-1"], Some("fra-1")),
            (&["1.1 iad-1", "1.1 fra-1"], Some("fra-1")),
            (&["HTTP/1.1 fra-1:80 (a, b)"], Some("fra-1:80")),
            (&["1.1\tfra-1 "], Some("fra-1")),
            (&["fra-1"], None),
            (&["1.1 a b"], Some("other")),
            (&[&long], Some("other")),
        ];
        for (lines, want) in rows {
            assert_eq!(last_pseudonym(&via(lines)), want, "{lines:?}");
        }
    }

    #[test]
    fn requests_and_bytes_stand_under_path_and_edge() {
        let counts = Counts::new(10, 10);
        counts.asked("/a", &via(&["1.1 fra-1"])).sends(5);
        counts.asked("/a", &via(&["1.1 fra-1"])).sends(7);
        counts.asked("/a?q=1", &via(&["1.1 iad-1"])).sends(1);
        counts.asked("/ab", &via(&[])).sends(100);
        assert_eq!(
            counted(&counts, Some("/a")),
            r#"{"path":"/a","requests":3,"body_bytes":13,"by":{"fra-1":{"requests":2,"body_bytes":12},"iad-1":{"requests":1,"body_bytes":1}}}"#
        );
        assert_eq!(
            counted(&counts, Some("/a?q=1")),
            r#"{"path":"/a?q=1","requests":1,"body_bytes":1,"by":{"iad-1":{"requests":1,"body_bytes":1}}}"#
        );
        assert_eq!(
            counted(&counts, Some("/b")),
            r#"{"path":"/b","requests":0,"body_bytes":0,"by":{}}"#
        );
        assert!(
            counted(&counts, None).starts_with(r#"{"path":null,"requests":4,"body_bytes":113"#)
        );
    }

    #[test]
    fn one_path_and_one_edge_too_many_are_counted_together_with_the_rest() {
        let counts = Counts::new(2, 2);
        for (target, edge) in [("/a", "1.1 e1"), ("/b", "1.1 e2"), ("/c", "1.1 e3")] {
            counts.asked(target, &via(&[edge])).sends(1);
        }
        assert_eq!(counts.report(Some("/c")).unwrap_err(), Uncounted { limit: 2 });
        assert_eq!(
            counted(&counts, None),
            r#"{"path":null,"requests":3,"body_bytes":3,"by":{"e1":{"requests":1,"body_bytes":1},"e2":{"requests":1,"body_bytes":1},"other":{"requests":1,"body_bytes":1}}}"#
        );
    }
}
