//! A folder of files, and no way out of it.
//!
//! # Invariants
//! - What is served lies in the folder once every symbolic link is followed, and no name on the
//!   way, also behind a link, is hidden. Whoever may write into the folder while it is served is
//!   trusted not to race this check.
//! - The bytes sent under a tag are those that were hashed for it: a file that changes under its
//!   response breaks it off.

mod hashes;
mod walk;

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use meridian_edge_rules::validate::{EntityTag, Validators};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::body::Source;
use crate::error::RunError;
use crate::folder::hashes::{HashError, Hashes};
use crate::folder::walk::walk;
use crate::listing::{Collector, Listing};
use crate::metrics::Metrics;
use crate::problem::{Code, Problem};
use crate::representation::{Found, Representation, content_type};
use crate::target::{Inside, Target, is_hidden};
use crate::version::Version;

/// What a folder answers with.
const INDEX: &str = "index.html";
/// What is sent where there is nothing, if the folder has one.
const NOT_FOUND_PAGE: &str = "404.html";
/// How often a file that changes while it is hashed is tried anew.
const ATTEMPTS: u32 = 5;
/// `EMFILE` and `ENFILE`: no file descriptors left, here or in the system.
const OUT_OF_DESCRIPTORS: [i32; 2] = [24, 23];

/// A folder of files.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Without links.
    root: Arc<Path>,
    hashes: Hashes,
}

/// What lies at a path.
#[derive(Debug)]
enum Located {
    File(OpenFile),
    /// A folder, asked for without its slash.
    Folder,
    Nothing,
}

/// A file, open for reading.
#[derive(Debug)]
struct OpenFile {
    /// Without links.
    path: PathBuf,
    file: File,
    version: Version,
}

impl Folder {
    /// Looks at the folder. Blocks.
    pub(crate) fn open(
        path: &Path,
        max_hashed_files: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, RunError> {
        let broken = |source| RunError::Folder { path: path.to_owned(), source };
        let root = path.canonicalize().map_err(broken)?;
        if !root.is_dir() {
            return Err(RunError::NotAFolder { path: path.to_owned() });
        }
        drop(fs::read_dir(&root).map_err(broken)?);
        Ok(Self { root: root.into(), hashes: Hashes::new(max_hashed_files, metrics) })
    }

    pub(crate) async fn find(&self, target: &Target) -> Found {
        let inside = match target.inside() {
            Ok(Some(inside)) => inside,
            Ok(None) => return self.missing().await,
            Err(bad) => return Found::Nothing(Problem::new(Code::BadRequest, bad.to_string())),
        };
        match self.represent(&inside).await {
            Ok(Found::Missing(_)) => self.missing().await,
            Ok(found) => found,
            Err(problem) => Found::Nothing(problem),
        }
    }

    /// With the folder's own page for it, if it has one.
    async fn missing(&self) -> Found {
        let page = Inside { path: NOT_FOUND_PAGE.into(), is_folder: false };
        match self.represent(&page).await {
            Ok(Found::Here(page)) => Found::Missing(Some(page)),
            Ok(_) | Err(_) => Found::Missing(None),
        }
    }

    async fn represent(&self, inside: &Inside) -> Result<Found, Problem> {
        for _ in 0..ATTEMPTS {
            let (root, wanted) = (Arc::clone(&self.root), inside.clone());
            let located = spawn_blocking(move || locate(&root, &wanted)).await;
            let found = match located.map_err(io::Error::other).flatten().map_err(|e| told(&e))? {
                Located::File(found) => found,
                Located::Folder => return Ok(Found::Elsewhere),
                Located::Nothing => return Ok(Found::Missing(None)),
            };
            if let Some(unsettled) = found.version.unsettled_for(SystemTime::now()) {
                sleep(unsettled).await;
                continue;
            }
            let OpenFile { path, file, version } = found;
            let file = Arc::new(file);
            match self.hashes.of(&path, version, &file).await {
                Ok(tag) => return Ok(Found::Here(representation(&path, file, version, tag))),
                Err(HashError::Changed) => {}
                Err(HashError::Unreadable(error)) => return Err(told(&error)),
            }
        }
        let detail = format!("the file changed {ATTEMPTS} times while it was read; ask again");
        Err(Problem::new(Code::Changing, detail))
    }

    /// A page of what is served.
    pub(crate) async fn list(&self, after: Option<String>) -> Result<Listing, Problem> {
        let root = Arc::clone(&self.root);
        let listed = spawn_blocking(move || {
            let mut collector = Collector::new(after.as_deref());
            walk(&root, |path| follow(&root, path), &mut collector)?;
            Ok(collector.page())
        });
        listed.await.map_err(io::Error::other).flatten().map_err(|error| told(&error))
    }

    /// Why it cannot be served now, if so.
    pub(crate) async fn trouble(&self) -> Option<String> {
        let root = Arc::clone(&self.root);
        let read = spawn_blocking(move || fs::read_dir(&root).map(drop)).await;
        let error = read.map_err(io::Error::other).flatten().err()?;
        Some(format!("content.folder {:?} cannot be read: {error}", self.root))
    }
}

fn representation(
    path: &Path,
    file: Arc<File>,
    version: Version,
    tag: EntityTag,
) -> Representation {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Representation {
        validators: Validators { etag: Some(tag), last_modified: version.modified(), date: None },
        content_type: content_type(&name),
        length: version.length(),
        source: Source::File(file, version),
    }
}

/// Opens what lies at `inside` of `root`. Blocks.
fn locate(root: &Path, inside: &Inside) -> io::Result<Located> {
    let Some(path) = follow(root, &root.join(&inside.path))? else {
        return Ok(Located::Nothing);
    };
    let kind = fs::metadata(&path)?;
    if kind.is_dir() && !inside.is_folder {
        return Ok(Located::Folder);
    }
    if kind.is_dir() {
        return match follow(root, &path.join(INDEX))? {
            Some(index) => open(index),
            None => Ok(Located::Nothing),
        };
    }
    if inside.is_folder { Ok(Located::Nothing) } else { open(path) }
}

/// Follows all links of `path`; `None` if it leads nowhere, out of `root`, or to something hidden.
fn follow(root: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if leads_nowhere(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(below) = real.strip_prefix(root) else {
        tracing::debug!(?path, "a link leads out of the folder");
        return Ok(None);
    };
    let hidden = below.iter().any(|name| is_hidden(name.as_bytes()));
    Ok((!hidden).then_some(real))
}

fn leads_nowhere(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidFilename
            | ErrorKind::PermissionDenied
    ) || error.raw_os_error() == Some(40) // ELOOP, which has no stable kind yet
}

fn open(path: PathBuf) -> io::Result<Located> {
    // Asked before it is opened: opening a pipe would wait for its writer.
    match fs::metadata(&path) {
        Ok(kind) if kind.is_file() => {}
        Ok(_) => return Ok(Located::Nothing),
        Err(error) if leads_nowhere(&error) => return Ok(Located::Nothing),
        Err(error) => return Err(error),
    }
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if leads_nowhere(&error) => return Ok(Located::Nothing),
        Err(error) => return Err(error),
    };
    let version = Version::of(&file.metadata()?);
    Ok(Located::File(OpenFile { path, file, version }))
}

fn told(error: &io::Error) -> Problem {
    if error.raw_os_error().is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code)) {
        tracing::warn!(%error, "no file could be opened; raise the limit of open files");
        return Problem::new(Code::Overloaded, "too many files are open; ask again");
    }
    tracing::error!(%error, "a file of the folder could not be read");
    Problem::new(Code::Internal, "the file could not be read; the origin's log says why")
}

#[cfg(test)]
mod tests;
