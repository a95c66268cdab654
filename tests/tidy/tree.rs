//! What the workspace consists of: its files, its packages, its lock file.

use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

use crate::modules::{Crate, roots};
use crate::source::{Package, Source, Text};

/// The workspace.
pub(crate) struct Tree {
    /// The names at its top.
    pub(crate) top: Vec<String>,
    /// Every Rust source.
    pub(crate) sources: Vec<Source>,
    /// Every text, the sources among them.
    pub(crate) texts: Vec<Text>,
    /// Every package.
    pub(crate) packages: Vec<Package>,
    /// The root manifest.
    pub(crate) manifest: Table,
    /// The lock file.
    pub(crate) lock: Table,
}

impl Tree {
    /// Reads the workspace that this test belongs to.
    pub(crate) fn of_workspace() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
        let top: Vec<String> = names(&root).into_iter().map(|(name, _)| name).collect();
        let mut texts = Vec::new();
        read(&root, "", &mut texts);
        let is_source = |text: &&Text| text.path.ends_with(".rs");
        let sources = texts.iter().filter(is_source);
        let sources = sources.map(|text| Source::new(&text.path, &text.text)).collect();
        let package = |text: &Text| {
            let folder = text.path.strip_suffix("/Cargo.toml")?.to_owned();
            Some(Package { folder, manifest: text.text.parse().unwrap() })
        };
        let packages = texts.iter().filter_map(package).collect();
        let table = |name: &str| fs::read_to_string(root.join(name)).unwrap().parse().unwrap();
        Self {
            top,
            sources,
            texts,
            packages,
            manifest: table("Cargo.toml"),
            lock: table("Cargo.lock"),
        }
    }

    /// The crates of all packages.
    pub(crate) fn crates(&self) -> Vec<Crate<'_>> {
        let roots = self.packages.iter().flat_map(|package| roots(package, &self.sources));
        roots.map(|root| Crate::from_root(&root, &self.sources)).collect()
    }
}

/// Reads every text below `folder`, except what nobody wrote.
fn read(folder: &Path, prefix: &str, texts: &mut Vec<Text>) {
    for (name, path) in names(folder) {
        let hidden = name.starts_with('.') && name != ".ci" && name != ".config";
        if hidden || name == "target" || name == "node_modules" {
            continue;
        }
        if path.is_dir() {
            read(&path, &format!("{prefix}{name}/"), texts);
        } else if let Ok(text) = String::from_utf8(fs::read(&path).unwrap()) {
            texts.push(Text { path: format!("{prefix}{name}"), text });
        }
    }
}

/// What is in `folder`, by name.
fn names(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), path);
    let mut names: Vec<(String, PathBuf)> = entries.map(name).collect();
    names.sort();
    names
}
