//! A folder with files to serve.

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;

/// A folder of files, gone when dropped.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    files: BTreeMap<String, Vec<u8>>,
}

impl Site {
    /// A small site: pages, a style sheet, an image of all byte values, an empty file, a deep
    /// folder, a name with a space, and one file of a mebibyte.
    pub fn small() -> Self {
        let page = |title: &str| format!("<!doctype html><title>{title}</title>\n").into_bytes();
        let large =
            (0_u32..262_144).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes());
        Self::of([
            ("/index.html", page("start")),
            ("/about/index.html", page("about")),
            ("/style.css", b"body { margin: 0 }\n".to_vec()),
            ("/img/all.png", (0..=255).collect()),
            ("/empty.txt", Vec::new()),
            ("/a/b/c/d/deep.json", b"{\"deep\":true}".to_vec()),
            ("/with%20space.txt", b"a name with a space".to_vec()),
            ("/large.bin", large.collect()),
        ])
    }

    /// A site of these paths and bodies. Paths are as in a URL.
    pub fn of<const N: usize>(files: [(&str, Vec<u8>); N]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut all = BTreeMap::new();
        for (path, body) in files {
            let file = folder.path().join(path.trim_start_matches('/').replace("%20", " "));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, &body).unwrap();
            all.insert(path.to_owned(), body);
        }
        Self { folder, files: all }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder as an argument.
    pub fn argument(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// Paths and bodies.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(path, body)| (path.as_str(), body.as_slice()))
    }
}
