//! Patterns of media types: `text/*`, `application/*+json`, `image/svg+xml`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::pattern::stars_match;

/// A pattern that a media type matches or does not, whatever its parameters and its case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPattern(String);

impl MediaPattern {
    /// Whether it matches `essence`: type and subtype in lower case, without parameters.
    pub fn matches(&self, essence: &str) -> bool {
        stars_match(&self.0, essence)
    }

    /// The pattern, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MediaPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+*".contains(&b))
        };
        match text.split_once('/') {
            Some((kind, subtype)) if is_part(kind) && is_part(subtype) => {
                Ok(Self(text.to_ascii_lowercase()))
            }
            Some(_) | None => {
                Err("must be a media type without parameters, such as \"text/*\"".to_owned())
            }
        }
    }
}

impl fmt::Display for MediaPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MediaPattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for MediaPattern {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::MediaPattern;

    #[test]
    fn a_pattern_matches_whole_types() {
        let rows = [
            ("text/*", "text/html", true),
            ("text/*", "application/text", false),
            ("application/*+json", "application/ld+json", true),
            ("application/*+json", "application/json", false),
            ("IMAGE/svg+XML", "image/svg+xml", true),
            ("font/ttf", "font/ttf2", false),
        ];
        for (pattern, essence, want) in rows {
            let parsed: MediaPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(essence), want, "{pattern} on {essence}");
        }
        for none in ["", "text", "/", "text/", "text/html; charset=utf-8", "a/b/c", "text/ *"] {
            assert!(none.parse::<MediaPattern>().is_err(), "{none:?}");
        }
    }
}
