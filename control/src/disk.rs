//! Files of redb: open or make one, and tell why not.

use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError};

use crate::error::StoreError;

/// Memory that redb may use for pages. Its own default is 1 GiB.
const PAGE_CACHE: usize = 16 << 20;

/// Opens or makes `name` in `folder`, which is made if need be.
pub(crate) fn open(folder: &Path, name: &str) -> Result<(Database, PathBuf), StoreError> {
    let broken = |source| StoreError::Folder { folder: folder.to_owned(), source };
    std::fs::create_dir_all(folder).map_err(broken)?;
    let file = folder.join(name);
    match Database::builder().set_cache_size(PAGE_CACHE).create(&file) {
        Ok(database) => Ok((database, file)),
        Err(DatabaseError::DatabaseAlreadyOpen) => Err(StoreError::Taken { file }),
        Err(error) => Err(StoreError::Database { file, source: Box::new(error.into()) }),
    }
}
