//! What tells one version of a file from another, without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// How old the last change must be before its time can be relied on: file systems tell times by
/// the tick of the kernel (up to 10 ms), so that a second change within one tick shows no trace.
const SETTLED_AFTER: Duration = Duration::from_millis(20);

/// A version of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// When its content was last modified, in whole seconds: HTTP-dates know no fractions, and
    /// must compare equal when they come back. `None` before 1970.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        at((self.modified.0, 0))
    }

    /// Whether the content is that of `other`, the same file at another time. A new name or owner
    /// changes the version, not the content: a file that is replaced is still sent to its end.
    pub(crate) fn holds_same_content(&self, other: &Self) -> bool {
        let file = |version: &Self| (version.device, version.inode);
        let content = |version: &Self| (version.length, version.modified);
        file(self) == file(other) && content(self) == content(other)
    }

    /// How long until its times can be relied on; `None` if they can be at `now`.
    pub(crate) fn unsettled_for(&self, now: SystemTime) -> Option<Duration> {
        let age = now.duration_since(at(self.changed)?);
        // A change in the future is another machine's clock: no reason to wait.
        let left = SETTLED_AFTER.checked_sub(age.ok()?)?;
        (!left.is_zero()).then_some(left)
    }
}

fn at((seconds, nanoseconds): (i64, i64)) -> Option<SystemTime> {
    let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}
