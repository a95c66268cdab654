//! A file that stands for everything up to an entry, read and written in pieces.
//!
//! # Invariants
//! - Whoever holds one reads all of it, also after its name is gone from the folder.
//! - What is being received lies under a name that no start takes for a snapshot.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is being received ends so.
const PARTIAL: &str = "part";

/// An open file, and where it was made. A clone is the same file.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile {
    file: Arc<File>,
    path: Arc<PathBuf>,
}

impl SnapshotFile {
    /// Opens one that is there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: Arc::new(File::open(path)?), path: Arc::new(path.to_owned()) })
    }

    /// An empty one called `name` in `folder`, to be written. Whatever had the name is gone.
    pub(crate) fn create(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name).with_extension(PARTIAL);
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        Ok(Self { file: Arc::new(file), path: Arc::new(path) })
    }

    /// Where it was made.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// At most `most` bytes from `offset` on; none: that is its end.
    pub(crate) fn read(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.len()?.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; most.min(left)];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Puts `bytes` at `offset`.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// All of it, from its beginning.
    pub(crate) fn reader(&self) -> impl Read + use<> {
        BufReader::with_capacity(256 << 10, Place { file: Arc::clone(&self.file), at: 0 })
    }

    /// Where it is written from its beginning.
    pub(crate) fn writer(&self) -> impl Write + use<> {
        Place { file: Arc::clone(&self.file), at: 0 }
    }

    /// Waits until all of it is on disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

/// A place in a file, of whoever reads or writes there.
struct Place {
    file: Arc<File>,
    at: u64,
}

impl Place {
    fn moved(&mut self, by: usize) -> usize {
        self.at = self.at.saturating_add(u64::try_from(by).unwrap_or(u64::MAX));
        by
    }
}

impl Read for Place {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.at)?;
        Ok(self.moved(read))
    }
}

impl Write for Place {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.at)?;
        Ok(self.moved(written))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::SnapshotFile;

    #[test]
    fn what_is_written_in_pieces_is_read_in_other_pieces_also_without_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let made = SnapshotFile::create(folder.path(), "a").unwrap();
        made.write(0, b"hello ").unwrap();
        made.write(6, b"world").unwrap();
        made.sync().unwrap();
        let opened = SnapshotFile::open(made.path()).unwrap();
        std::fs::remove_file(made.path()).unwrap();
        assert_eq!(opened.len().unwrap(), 11);
        assert_eq!(opened.read(0, 4).unwrap(), b"hell");
        assert_eq!(opened.read(4, 100).unwrap(), b"o world");
        assert_eq!(opened.read(11, 100).unwrap(), b"");
        assert_eq!(opened.read(12, 100).unwrap(), b"");
    }
}
