//! The strong tag of each version of each file: the SHA-256 of its content, computed once.
//!
//! # Invariants
//! - Requests for one version at the same time compute it once.
//! - A tag is kept only if the file did not change while it was hashed.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use meridian_edge_rules::validate::EntityTag;
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::spawn_blocking;

use crate::hex::hex;
use crate::metrics::Metrics;
use crate::version::Version;

/// Files that are hashed at once: it is work for processors, and there are others to do.
const AT_ONCE: usize = 2;
/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// Why there is no tag.
#[derive(Debug)]
pub(crate) enum HashError {
    /// The file is no longer the version that was asked for.
    Changed,
    Unreadable(io::Error),
}

type Tag = Arc<OnceCell<EntityTag>>;

#[derive(Debug, Default)]
struct Known {
    tags: HashMap<PathBuf, (Version, Tag)>,
    /// From the oldest to the newest; each path once.
    order: VecDeque<PathBuf>,
}

/// The tags that are known, and those that are being computed.
#[derive(Debug)]
pub(crate) struct Hashes {
    known: Mutex<Known>,
    most: usize,
    permits: Semaphore,
    metrics: Arc<Metrics>,
}

impl Hashes {
    pub(crate) fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self { known: Mutex::default(), most, permits: Semaphore::new(AT_ONCE), metrics }
    }

    /// The tag of `file`, which lies at `path` and is `version`. If whoever computes it leaves,
    /// another of those who wait goes on.
    pub(crate) async fn of(
        &self,
        path: &Path,
        version: Version,
        file: &Arc<File>,
    ) -> Result<EntityTag, HashError> {
        let tag = self.tag(path, version);
        let compute = || async {
            // The permits are never closed: without one, hashing would only be less polite.
            let _permit = self.permits.acquire().await.ok();
            let file = Arc::clone(file);
            let hashed = spawn_blocking(move || hash(&file, version)).await;
            let tag = hashed.map_err(|error| HashError::Unreadable(io::Error::other(error)))?;
            self.metrics.hashed(version.length());
            tag
        };
        tag.get_or_try_init(compute).await.cloned()
    }

    fn tag(&self, path: &Path, version: Version) -> Tag {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, tag)) = known.tags.get_mut(path) {
            if *of != version {
                (*of, *tag) = (version, Tag::default());
            }
            return Arc::clone(tag);
        }
        if known.tags.len() >= self.most
            && let Some(oldest) = known.order.pop_front()
        {
            known.tags.remove(&oldest);
        }
        let tag = Tag::default();
        known.order.push_back(path.to_owned());
        known.tags.insert(path.to_owned(), (version, Arc::clone(&tag)));
        tag
    }
}

/// Reads `file` once. Blocks.
fn hash(file: &File, version: Version) -> Result<EntityTag, HashError> {
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    loop {
        match file.read_at(&mut chunk, at) {
            Ok(0) => break,
            Ok(read) => {
                digest.update(chunk.get(..read).unwrap_or_default());
                at += u64::try_from(read).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(HashError::Unreadable(error)),
        }
        if at > version.length() {
            break;
        }
    }
    let now = file.metadata().map_err(HashError::Unreadable)?;
    if at != version.length() || !version.holds_same_content(&Version::of(&now)) {
        return Err(HashError::Changed);
    }
    EntityTag::strong(&hex(&digest.finalize())).ok_or(HashError::Changed)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::Hashes;
    use crate::metrics::Metrics;
    use crate::version::Version;

    fn computed(metrics: &Metrics) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, metrics.registry()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("origin_hashes_total "));
        line.unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn a_hundred_at_once_compute_one_hash_and_the_oldest_beyond_the_limit_is_forgotten() {
        let dir = TempDir::new().unwrap();
        let metrics = Arc::new(Metrics::new());
        let hashes = Arc::new(Hashes::new(2, Arc::clone(&metrics)));
        let file = |name: &str| {
            let path = dir.path().join(name);
            if !path.exists() {
                fs::write(&path, name.repeat(100_000)).unwrap();
            }
            let file = Arc::new(File::open(&path).unwrap());
            let version = Version::of(&file.metadata().unwrap());
            (path, version, file)
        };
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let ((path, version, file), hashes) = (file("a"), Arc::clone(&hashes));
            tasks.spawn(async move { hashes.of(&path, version, &file).await.unwrap() });
        }
        let tags = tasks.join_all().await;
        assert!(tags.iter().all(|tag| *tag == tags[0]));
        assert_eq!(computed(&metrics), 1);
        for (name, want) in [("b", 2), ("a", 2), ("c", 3), ("b", 3), ("a", 4)] {
            let (path, version, file) = file(name);
            hashes.of(&path, version, &file).await.unwrap();
            assert_eq!(computed(&metrics), want, "{name}");
        }
    }
}
