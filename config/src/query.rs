//! The query string within a key: which parameters belong to it, and in which order.

use serde::{Deserialize, Serialize};

use crate::limits::unique;
use crate::violation::{Place, Violation};

/// `[site.query]`: which parameters belong to the key, and in which order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Query {
    /// Only these parameters count. Default: all. A `*` at the end matches any rest.
    pub keep: Option<Vec<String>>,
    /// These do not count (`utm_*`).
    pub drop: Vec<String>,
    /// Sorts the parameters by name, keeping the order of equal names.
    pub sort: bool,
}

impl Query {
    /// What is wrong with names of parameters.
    pub(crate) fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let lists = [("keep", self.keep.as_deref().unwrap_or_default()), ("drop", &self.drop)];
        for (key, names) in lists {
            let here = at.key(key);
            unique(&here, None, names.iter().map(String::as_str), found);
            for (index, name) in names.iter().enumerate() {
                let stem = name.strip_suffix('*').unwrap_or(name);
                let fits = stem.bytes().all(|b| b.is_ascii_graphic() && !b"*&=#".contains(&b));
                if name.is_empty() || !fits {
                    let rule = "must be a parameter's name, with a '*' at its end at most";
                    found.push(here.index(index).breaks(name, rule));
                }
            }
        }
    }
}
