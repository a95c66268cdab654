//! The path of a value within a file: `site[0].origins[1]`.

use std::fmt;

/// One step from a table or an array to what it holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Step {
    /// Into a table, by name.
    Name(String),
    /// Into an array, by index from 0.
    Index(usize),
}

/// Where a value stands. The empty key is the file itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(Vec<Step>);

impl Key {
    /// The key of `name` within the table at this key.
    pub(crate) fn name(&self, name: &str) -> Self {
        self.step(Step::Name(name.to_owned()))
    }

    /// The key of the element `index` of the array at this key.
    pub(crate) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// The steps from the file's root.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The name of this key within the table at `table`, if it stands directly in there.
    pub(crate) fn name_within(&self, table: &Self) -> Option<&str> {
        match self.0.split_last()? {
            (Step::Name(name), parent) if parent == table.0 => Some(name),
            _ => None,
        }
    }

    /// Whether this is an element of an array.
    pub(crate) fn is_element(&self) -> bool {
        matches!(self.0.last(), Some(Step::Index(_)))
    }

    /// Whether this is `other`, stands within it, or holds it.
    pub(crate) fn touches(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0) || other.0.starts_with(&self.0)
    }

    /// Whether this is `other` or stands within it.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Name(name) if position == 0 => f.write_str(&shown(name))?,
                Step::Name(name) => write!(f, ".{}", shown(name))?,
            }
        }
        Ok(())
    }
}

/// A name as TOML writes it: bare where it may be, else quoted.
fn shown(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { format!("{name:?}") }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn a_key_is_shown_as_toml_would_write_it() {
        let key = Key::default().name("site").index(0).name("origins").index(1);
        assert_eq!(key.to_string(), "site[0].origins[1]");
        assert_eq!(Key::default().name("peers").name("a b.c").to_string(), r#"peers."a b.c""#);
        assert_eq!(Key::default().to_string(), "");
    }

    #[test]
    fn a_key_touches_what_it_holds_and_what_holds_it() {
        let site = Key::default().name("site").index(0);
        assert!(site.touches(&site.name("name")) && site.name("name").touches(&site));
        assert!(!site.touches(&Key::default().name("site").index(1)));
        assert!(site.name("name").is_within(&site) && !site.is_within(&site.name("name")));
    }
}
