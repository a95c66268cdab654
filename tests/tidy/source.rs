//! A text, a Rust source, a package: what the laws look at.

use toml::Table;

/// A text, with its path from the root of the workspace.
pub(crate) struct Text {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A Rust source.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
}

impl Source {
    /// Parses `text`; a source that does not parse does not compile either.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let syntax = syn::parse_file(text).unwrap_or_else(|error| {
            let line = error.span().start().line;
            unreachable!("{path}:{line} compiles, so it parses: {error}")
        });
        Self { path: path.to_owned(), text: text.to_owned(), syntax }
    }
}

/// A package: its folder from the root, and its manifest.
pub(crate) struct Package {
    pub(crate) folder: String,
    pub(crate) manifest: Table,
}
