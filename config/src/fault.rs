//! Why a value could not be read, from serde's words to a rule.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use crate::key::Key;

/// Why reading stopped, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The value, or the table that lacks a key. Set by the first that knows it.
    at: Option<Key>,
    what: What,
}

#[derive(Debug)]
enum What {
    Rule(String),
    Missing(&'static str),
}

impl Fault {
    /// The same fault, at `key` unless something deeper has said where.
    pub(crate) fn at(mut self, key: &Key) -> Self {
        self.at.get_or_insert_with(|| key.clone());
        self
    }

    /// The key and the rule; no rule if the key is missing.
    pub(crate) fn into_parts(self) -> (Key, Option<String>) {
        let at = self.at.unwrap_or_default();
        match self.what {
            What::Rule(rule) => (at, Some(rule)),
            What::Missing(name) => (at.name(name), None),
        }
    }

    fn rule(text: String) -> Self {
        Self { at: None, what: What::Rule(text) }
    }
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::rule(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::rule(format!("must be {}, not {}", plain(expected), kind(&unexpected)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::rule(format!("must be {}", plain(expected)))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::rule(format!("must be {}, not {length} elements", plain(expected)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let known: Vec<String> = expected.iter().map(|name| format!("\"{name}\"")).collect();
        let hint = nearest(variant, expected)
            .map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"));
        Self::rule(format!("must be one of {}{hint}", known.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { at: None, what: What::Missing(field) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Rule(rule) => f.write_str(rule),
            What::Missing(name) => write!(f, "{name} is required"),
        }
    }
}

impl std::error::Error for Fault {}

/// What serde expects, in the words of someone who writes a file.
fn plain(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "a nonzero u16" => "a whole number from 1 to 65535".to_owned(),
        "a nonzero u32" => "a whole number from 1 to 4294967295".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "path string" => "a path".to_owned(),
        "f64" => "a number".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "a table".to_owned(),
        text if text.starts_with("tuple struct Location") => {
            "an array of latitude and longitude".to_owned()
        }
        text if text.starts_with("struct ") => "a table".to_owned(),
        text if text.starts_with("enum ") => "a string".to_owned(),
        text => text.to_owned(),
    }
}

fn kind(unexpected: &Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
        Unexpected::Float(_) => "a number with a fraction",
        Unexpected::Str(_) => "a string",
        Unexpected::Seq => "an array",
        Unexpected::Map => "a table",
        _ => "a date or time",
    }
}

/// The word of `known` that `word` may be a slip of: a third of its letters at most differ.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let letters = |word: &str| word.chars().count();
    known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(word, known), *known))
        .filter(|(slips, known)| slips * 3 <= letters(word).max(letters(known)))
        .min()
        .map(|(_, known)| known)
}
