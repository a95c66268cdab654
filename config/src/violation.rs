//! What is wrong with a configuration: which file, which key, which value, which rule.
//!
//! Answers how a violation is told, never what the rules are: those are each role's own.

use std::fmt;

use serde::Serialize;

use crate::key::Key;

/// One rule that one value breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The file, as it was named.
    pub file: String,
    /// The key, dotted, with indexes (`site[0].origins`); empty if it is the file as a whole.
    pub key: String,
    /// The value as TOML, shortened; none if the key is missing.
    pub value: Option<String>,
    /// The value stands nowhere in the file: it is the default.
    pub by_default: bool,
    /// The rule, such as `must be at least 1MiB`.
    pub rule: String,
    /// The line in the file, from 1, where there is one.
    pub line: Option<usize>,
    /// The key in steps.
    pub(crate) at: Key,
    /// The other keys that the rule speaks of.
    pub(crate) with: Vec<Key>,
    /// The key itself is wrong, not its value: it is missing, or unknown.
    pub(crate) misfit: bool,
}

impl Violation {
    /// The same, with another key that the rule speaks of: where that one is broken already,
    /// nothing can be said about the two together.
    #[must_use]
    pub fn with(mut self, other: &Place<'_>) -> Self {
        self.with.push(other.key.clone());
        self
    }
}

/// `config/examples/edge.toml: cache.capacity = "64KiB": must be at least 1MiB (line 12)`.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        match (&self.value, self.key.is_empty()) {
            (Some(value), false) => write!(f, "{} = {value}", self.key)?,
            (None, false) => write!(f, "{}", self.key)?,
            (_, true) => return self.rule_and_line(f),
        }
        f.write_str(if self.by_default { " (default): " } else { ": " })?;
        self.rule_and_line(f)
    }
}

impl Violation {
    fn rule_and_line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rule)?;
        self.line.map_or(Ok(()), |line| write!(f, " (line {line})"))
    }
}

/// Everything that is wrong with a file, or with several. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// `Ok` if nothing was found.
    pub fn none_of(found: Vec<Violation>) -> Result<(), Self> {
        if found.is_empty() { Ok(()) } else { Err(Self(found)) }
    }

    /// The violations, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Violation> {
        self.0.iter()
    }
}

impl From<Violation> for Violations {
    fn from(only: Violation) -> Self {
        Self(vec![only])
    }
}

impl<'a> IntoIterator for &'a Violations {
    type Item = &'a Violation;
    type IntoIter = std::slice::Iter<'a, Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Violations {
    type Item = Violation;
    type IntoIter = std::vec::IntoIter<Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// One line each.
impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, violation) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            violation.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

/// A key of a file, on the way down to the one that breaks a rule.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    file: &'a str,
    key: Key,
}

impl<'a> Place<'a> {
    /// The root of `file`.
    pub fn root(file: &'a str) -> Self {
        Self { file, key: Key::default() }
    }

    /// The key `name` of the table that stands here.
    #[must_use]
    pub fn key(&self, name: &str) -> Self {
        Self { file: self.file, key: self.key.name(name) }
    }

    /// The element `index` of the array that stands here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self { file: self.file, key: self.key.index(index) }
    }

    /// The violation of `rule` by the `value` that stands here.
    pub fn breaks(&self, value: &impl Serialize, rule: impl Into<String>) -> Violation {
        let value = toml::Value::try_from(value).ok().map(|value| shortened(&value.to_string()));
        self.violation(value, rule.into())
    }

    /// The violation of `rule` by a key that should stand here.
    pub fn lacks(&self, rule: impl Into<String>) -> Violation {
        self.violation(None, rule.into())
    }

    /// The violation of the role's shape by a key that is missing, or that is none of its own.
    pub(crate) fn misfit(&self, rule: String) -> Violation {
        Violation { misfit: true, ..self.violation(None, rule) }
    }

    pub(crate) fn at(file: &'a str, key: &Key) -> Self {
        Self { file, key: key.clone() }
    }

    fn violation(&self, value: Option<String>, rule: String) -> Violation {
        Violation {
            file: self.file.to_owned(),
            key: self.key.to_string(),
            value,
            by_default: false,
            rule,
            line: None,
            at: self.key.clone(),
            with: Vec::new(),
            misfit: false,
        }
    }
}

/// A value on one line, cut after 60 characters.
pub(crate) fn shortened(value: &str) -> String {
    const LONGEST: usize = 60; // with file, key and rule it still fits a wide terminal
    let line = value.split_whitespace().collect::<Vec<_>>().join(" ");
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String = line.chars().take(LONGEST).map(visible).collect();
    if shown.len() < line.len() && line.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}
