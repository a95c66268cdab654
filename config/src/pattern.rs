//! Path patterns of rules and faults: `/img/*`, `*.css`, `/exact`.
//!
//! A `*` stands for any run of characters, `/` included; everything else stands for itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A pattern that a path matches or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(String);

impl PathPattern {
    /// Whether the whole of `path` matches. Linear in `path` times the number of stars.
    pub fn matches(&self, path: &str) -> bool {
        stars_match(&self.0, path)
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the whole of `text` matches `pattern`, in which a `*` stands for any run of characters.
pub(crate) fn stars_match(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') || text.starts_with('*') {
            Ok(Self(text.to_owned()))
        } else {
            Err("must start with '/' or '*', such as \"/img/*\" or \"*.css\"".to_owned())
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for PathPattern {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::PathPattern;

    #[test]
    fn a_star_stands_for_any_run() {
        let rows = [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a*", "/a/b/c", true),
            ("*.css", "/x/y.css", true),
            ("*.css", "/x/y.css.map", false),
            ("/a*b*c", "/a1b2c", true),
            ("/a*b*c", "/a1c2b", false),
            ("/ab*ba", "/aba", false), // the two ends may not share characters
            ("*", "/anything", true),
        ];
        for (pattern, path, want) in rows {
            let parsed: PathPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(path), want, "{pattern} on {path}");
        }
    }
}
