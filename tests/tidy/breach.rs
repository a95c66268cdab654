//! A law that is broken, and where.

use std::fmt;

/// One breach of one law.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    /// The file, from the root of the workspace.
    pub(crate) path: String,
    /// The line from 1; 0 if it is the file as a whole.
    pub(crate) line: usize,
    /// What stands there.
    pub(crate) what: String,
    /// What should.
    pub(crate) law: &'static str,
}

impl Breach {
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>, law: &'static str) -> Self {
        Self { path: path.to_owned(), line, what: what.into(), law }
    }
}

/// `edge/src/serve.rs:12: a function of 90 lines: a function has at most 70`.
impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": {}: {}", self.what, self.law)
    }
}
