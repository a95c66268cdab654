//! What an origin serves, as a list in pages (`GET /v1/paths` of the admin listener).
//!
//! # Invariants
//! - Paths come in ascending order, as they are to be asked for; each in one page.
//! - A page costs the memory of a page, however much is served.

use std::collections::BTreeMap;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

/// Paths in one page.
const PAGE: usize = 1_000;

/// One page.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Listing {
    pub(crate) paths: Vec<Entry>,
    /// What goes behind `?after=` for the next page, as it stands there; nothing at the end.
    next: Option<String>,
}

/// One path with its query, and the size of what is there.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    pub(crate) path: String,
    size: u64,
}

/// Takes paths in any order, keeps the first page behind `after`.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    after: Option<&'a str>,
    kept: BTreeMap<String, u64>,
    most: usize,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(after: Option<&'a str>) -> Self {
        Self { after, kept: BTreeMap::new(), most: PAGE }
    }

    pub(crate) fn offer(&mut self, path: &str, size: u64) {
        let is_behind = self.after.is_none_or(|after| path > after);
        // One more than fits says that there is a next page.
        let is_full = self.kept.len() > self.most;
        let comes_late = || self.kept.last_key_value().is_some_and(|(last, _)| *path > **last);
        if !is_behind || is_full && comes_late() {
            return;
        }
        self.kept.insert(path.to_owned(), size);
        if self.kept.len() > self.most + 1 {
            self.kept.pop_last();
        }
    }

    pub(crate) fn page(mut self) -> Listing {
        let has_more = self.kept.len() > self.most;
        if has_more {
            self.kept.pop_last();
        }
        let last = self.kept.last_key_value().filter(|_| has_more);
        let next = last.map(|(path, _)| utf8_percent_encode(path, NON_ALPHANUMERIC).to_string());
        let paths = self.kept.into_iter().map(|(path, size)| Entry { path, size }).collect();
        Listing { paths, next }
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;

    use super::Collector;

    #[test]
    fn pages_hold_everything_once_and_in_order() {
        for (count, pages) in [(0, 1), (1, 1), (3, 1), (4, 2), (6, 2), (7, 3)] {
            let offered: Vec<String> =
                (0..count).map(|n| format!("/{}?é&{n}", n * 7 % 5)).collect();
            let mut want = offered.clone();
            want.sort();
            let (mut got, mut after, mut turned) = (Vec::new(), None::<String>, 0);
            loop {
                let mut collector = Collector { most: 3, ..Collector::new(after.as_deref()) };
                for path in &offered {
                    collector.offer(path, 1);
                }
                let page = collector.page();
                assert!(page.paths.len() <= 3);
                got.extend(page.paths.into_iter().map(|entry| entry.path));
                turned += 1;
                let Some(next) = page.next else { break };
                assert!(next.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'%'));
                after = Some(percent_decode_str(&next).decode_utf8().unwrap().into_owned());
            }
            assert_eq!((got, turned), (want, pages));
        }
    }
}
