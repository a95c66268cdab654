//! Where files of redb lie: open or make one, and tell why not.
//!
//! A seam: a test brings a disk that forgets what was not synced.

#[cfg(test)]
pub(crate) mod lying;

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError};

use crate::error::StoreError;

/// Memory that redb may use for the pages of one file. Its own default is 1 GiB.
const PAGE_CACHE: usize = 16 << 20;

/// Files by name.
pub(crate) trait Disk: Debug + Send + Sync {
    /// Opens or makes `name`.
    fn open(&self, name: &str, builder: &Builder) -> Result<Database, StoreError>;
    /// Where other files may lie, and what to call this place.
    fn folder(&self) -> &Path;
}

/// A folder of the file system, which is made if need be.
#[derive(Debug, Clone)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Disk for Folder {
    fn open(&self, name: &str, builder: &Builder) -> Result<Database, StoreError> {
        let Self(folder) = self;
        let broken = |source| StoreError::Folder { folder: folder.clone(), source };
        std::fs::create_dir_all(folder).map_err(broken)?;
        let file = folder.join(name);
        match builder.create(&file) {
            Ok(database) => Ok(database),
            Err(DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::Taken { file }),
            Err(error) => Err(StoreError::Database { file, source: Box::new(error.into()) }),
        }
    }

    fn folder(&self) -> &Path {
        &self.0
    }
}

/// Opens or makes `name` on `disk`, under the limits that hold for every file.
pub(crate) fn open(disk: &dyn Disk, name: &str) -> Result<(Database, PathBuf), StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(PAGE_CACHE);
    Ok((disk.open(name, &builder)?, disk.folder().join(name)))
}
