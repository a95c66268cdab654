//! A TOML file with the places of its values.
//!
//! Answers what stands where; what it means is [`crate::decode`]'s.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::key::{Key, Step};
use crate::violation::{Place, Violation, shortened};

/// A file that is TOML.
pub(crate) struct Document<'t> {
    text: &'t str,
    lines: Lines,
    root: DeTable<'t>,
}

impl<'t> Document<'t> {
    /// Reads `text`, or says everything that keeps it from being TOML, at most `most` violations.
    pub(crate) fn parse(file: &str, text: &'t str, most: usize) -> Result<Self, Vec<Violation>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let lines = Lines::of(text);
        if errors.is_empty() {
            return Ok(Self { text, lines, root: root.into_inner() });
        }
        let violation = |error: toml::de::Error| {
            let mut violation =
                Place::root(file).lacks(format!("is not TOML: {}", error.message()));
            violation.line = error.span().map(|span| lines.at(span.start));
            violation
        };
        Err(errors.into_iter().take(most).map(violation).collect())
    }

    /// The table of the whole file.
    pub(crate) fn root(&self) -> &DeTable<'t> {
        &self.root
    }

    /// Fills in what stands in the file at the violation's key: line and value as written.
    pub(crate) fn locate(&self, violation: &mut Violation) {
        let Some((at, value)) = self.find(&violation.at) else {
            violation.by_default = violation.value.is_some();
            violation.line = self.nearest_line(&violation.at);
            return;
        };
        violation.line = Some(self.lines.at(at.start));
        let table = value.get_ref().is_table() || self.written(value).is_none();
        violation.value = if table { None } else { self.written(value).map(shortened) };
    }

    fn written(&self, value: &Spanned<DeValue<'_>>) -> Option<&str> {
        let text = self.text.get(value.span())?;
        (!text.starts_with("[[") || value.get_ref().is_array()).then_some(text)
    }

    /// The line of the innermost table or array that should hold `key`, the root excepted.
    fn nearest_line(&self, key: &Key) -> Option<usize> {
        let steps = key.steps();
        (1..steps.len()).rev().find_map(|length| {
            let found = self.walk(steps.get(..length)?)?;
            Some(self.lines.at(found.0.start))
        })
    }

    fn find(&self, key: &Key) -> Option<(Range<usize>, &Spanned<DeValue<'t>>)> {
        self.walk(key.steps())
    }

    /// The span to point at (a key's own where there is one) and the value.
    fn walk(&self, steps: &[Step]) -> Option<(Range<usize>, &Spanned<DeValue<'t>>)> {
        let (first, rest) = steps.split_first()?;
        let Step::Name(name) = first else { return None };
        let mut found = entry(&self.root, name)?;
        for step in rest {
            found = match (step, found.1.get_ref()) {
                (Step::Name(name), DeValue::Table(table)) => entry(table, name)?,
                (Step::Index(index), DeValue::Array(array)) => {
                    let value = array.get(*index)?;
                    (value.span(), value)
                }
                _ => return None,
            };
        }
        Some(found)
    }
}

type Entry<'d, 't> = (Range<usize>, &'d Spanned<DeValue<'t>>);

fn entry<'d, 't>(table: &'d DeTable<'t>, name: &str) -> Option<Entry<'d, 't>> {
    table.get_key_value(name).map(|(key, value)| (key.span(), value))
}

/// Where the lines of a text end.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(offset, _)| offset).collect())
    }

    /// The line of the byte `offset`, from 1.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}
