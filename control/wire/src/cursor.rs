//! Where in the stream an edge is: opaque to it, read only by control replicas.
//!
//! # Invariants
//! - A cursor and a position are URL-safe, bounded, and fit into a header field.
//! - A cursor names the cluster and the incarnation of its log: one that comes from elsewhere can
//!   be told from one that is merely old.
//! - Positions of one log grow as strings, too.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest cursor, in bytes: a version vector over dozens of replicas.
pub const MAX_CURSOR: usize = 8 << 10;

/// The version of what is inside a cursor.
const VERSION: u8 = 1;

/// Where in the stream an edge is. Edges compare it for equality and hand it back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor(String);

impl Cursor {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is inside; none if no replica of this version made it.
    pub fn point(&self) -> Option<Point> {
        let bytes = URL_SAFE_NO_PAD.decode(&self.0).ok()?;
        let (inside, rest) = postcard::take_from_bytes::<Inside>(&bytes).ok()?;
        let Inside { version, cluster, incarnation, at } = inside;
        (version == VERSION && rest.is_empty()).then_some(Point { cluster, incarnation, at })
    }
}

impl Cursor {
    /// Whether everything up to `other` is up to here, too; `None`: that cannot be told, as they are
    /// of different logs or lives, or not of this version.
    pub fn covers(&self, other: &Self) -> Option<bool> {
        if self == other {
            return Some(true);
        }
        let (here, there) = (self.point()?, other.point()?);
        if (here.cluster, here.incarnation) != (there.cluster, there.incarnation) {
            return None;
        }
        match (here.at, there.at) {
            (At::Seq(here), At::Seq(there)) => Some(here >= there),
            (At::Vv(here), At::Vv(there)) => Some(
                there.iter().all(|(replica, n)| here.get(replica).is_some_and(|have| have >= n)),
            ),
            (At::Seq(_), At::Vv(_)) | (At::Vv(_), At::Seq(_)) => None,
        }
    }
}

/// What a cursor says to a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// The cluster whose log it is.
    pub cluster: [u8; 16],
    /// Which life of that log.
    pub incarnation: u64,
    /// How far.
    pub at: At,
}

impl Point {
    /// The cursor that says this.
    pub fn cursor(&self) -> Cursor {
        let Self { cluster, incarnation, at } = self.clone();
        let inside = Inside { version: VERSION, cluster, incarnation, at };
        let bytes = postcard::to_allocvec(&inside).expect("memory takes plain data");
        Cursor(URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// How far in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum At {
    /// Everything up to this sequence number.
    Seq(u64),
    /// Of each replica's log everything up to its number.
    Vv(BTreeMap<String, u64>),
}

#[derive(Serialize, Deserialize)]
struct Inside {
    version: u8,
    cluster: [u8; 16],
    incarnation: u64,
    at: At,
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=MAX_CURSOR).contains(&text.len()) && is_url_safe(text);
        if fits { Ok(Self(text.to_owned())) } else { Err("is no cursor".to_owned()) }
    }
}

/// Whether `text` consists of letters, digits, `-` and `_`.
pub(crate) fn is_url_safe(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// A place in the history of purges.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(String);

impl Position {
    /// The place of the sequence number `seq`.
    pub fn of(seq: u64) -> Self {
        Self(format!("{seq:020}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The sequence number; none if no replica of this version made it.
    pub fn seq(&self) -> Option<u64> {
        let fits = self.0.len() == 20 && self.0.bytes().all(|b| b.is_ascii_digit());
        if fits { self.0.parse().ok() } else { None }
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=MAX_CURSOR).contains(&text.len()) && is_url_safe(text);
        if fits { Ok(Self(text.to_owned())) } else { Err("is no position".to_owned()) }
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

as_text!(Cursor, Position);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{any, proptest};

    use super::{At, Cursor, MAX_CURSOR, Point, Position};

    #[test]
    fn a_cursor_keeps_its_bytes() {
        let rows = [
            (At::Seq(300), "AQcHBwcHBwcHBwcHBwcHBwcCAKwC"),
            (At::Vv(BTreeMap::from([("a".to_owned(), 5)])), "AQcHBwcHBwcHBwcHBwcHBwcCAQEBYQU"),
        ];
        for (at, golden) in rows {
            let point = Point { cluster: [7; 16], incarnation: 2, at };
            assert_eq!(point.cursor().as_str(), golden);
            assert_eq!(golden.parse::<Cursor>().unwrap().point(), Some(point));
        }
    }

    #[test]
    fn a_cursor_covers_what_is_before_it_in_the_same_life_of_the_same_log() {
        let seq = |cluster, incarnation, n| {
            Point { cluster: [cluster; 16], incarnation, at: At::Seq(n) }.cursor()
        };
        let vv = |entries: &[(&str, u64)]| {
            let entries = entries.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
            Point { cluster: [1; 16], incarnation: 1, at: At::Vv(entries) }.cursor()
        };
        let text = |text: &str| text.parse::<Cursor>().unwrap();
        let rows = [
            (seq(1, 1, 5), seq(1, 1, 5), Some(true)),
            (seq(1, 1, 5), seq(1, 1, 4), Some(true)),
            (seq(1, 1, 4), seq(1, 1, 5), Some(false)),
            (seq(1, 2, 5), seq(1, 1, 4), None),
            (seq(1, 1, 5), seq(2, 1, 4), None),
            (text("c5"), text("c5"), Some(true)),
            (text("c5"), text("c4"), None),
            (vv(&[("a", 2), ("b", 1)]), vv(&[("a", 2)]), Some(true)),
            (vv(&[("a", 2), ("b", 1)]), vv(&[("a", 1), ("b", 1)]), Some(true)),
            (vv(&[("a", 2), ("b", 1)]), vv(&[("a", 1), ("b", 2)]), Some(false)),
            (vv(&[("a", 2)]), vv(&[("c", 1)]), Some(false)),
            (seq(1, 1, 5), vv(&[]), None),
        ];
        for (here, there, want) in rows {
            assert_eq!(here.covers(&there), want, "{here} {there}");
        }
    }

    #[test]
    fn a_foreign_text_is_no_point() {
        // another version, something behind the end, cut off, nothing of ours
        let rows = ["AgcHBwcHBwcHBwcHBwcHBwcCAKwC", "AQcHBwcHBwcHBwcHBwcHBwcCAKwCAA", "AQcH", "x"];
        for text in rows {
            assert_eq!(text.parse::<Cursor>().unwrap().point(), None, "{text}");
        }
        for text in ["", "a b", "a=", "a\n", "é"] {
            assert!(text.parse::<Cursor>().is_err(), "{text:?}");
        }
        assert!("x".repeat(MAX_CURSOR).parse::<Cursor>().is_ok());
        assert!("x".repeat(MAX_CURSOR + 1).parse::<Cursor>().is_err());
    }

    proptest! {
        #[test]
        fn positions_grow_as_strings(a in any::<u64>(), b in any::<u64>()) {
            assert_eq!(a.cmp(&b), Position::of(a).cmp(&Position::of(b)));
            assert_eq!(Position::of(a).seq(), Some(a));
        }

        #[test]
        fn every_point_comes_back(cluster in any::<[u8; 16]>(), incarnation in any::<u64>(),
                                  seq in any::<u64>()) {
            let point = Point { cluster, incarnation, at: At::Seq(seq) };
            let text = point.cursor().as_str().to_owned();
            assert_eq!(text.parse::<Cursor>().unwrap().point(), Some(point));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            if let Ok(cursor) = text.parse::<Cursor>() {
                drop(cursor.point());
            }
        }
    }
}
