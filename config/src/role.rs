//! What the roles have in common: they come from a file, they can be checked.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::violation::{Place, Violation};

/// A role that a node can have: one kind of configuration file.
pub trait Role: DeserializeOwned + Serialize {
    /// Its name, as the command line says it.
    const NAME: &'static str;

    /// Adds what breaks a range, or a rule that spans several keys. What one key's type refuses
    /// was refused before.
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>);

    /// Puts `folder` before every relative path.
    fn resolve(&mut self, folder: &Path);
}

/// Puts `folder` before `path` if it is relative.
pub(crate) fn resolve(path: &mut PathBuf, folder: &Path) {
    *path = folder.join(&*path); // an absolute path replaces what it is joined to
}
