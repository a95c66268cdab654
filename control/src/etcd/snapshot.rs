//! Snapshots of the machine in etcd, in pieces that it takes.
//!
//! # Invariants
//! - The base names a snapshot only after all its pieces are there; the log's beginning goes away
//!   in the same transaction.
//! - Nothing of a snapshot is taken over before its checksum was found right.
//! - One piece is in memory at a time.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::etcd::entry::Base;
use crate::etcd::log::{Fault, Log};
use crate::etcd::place::At;
use crate::machine::Machine;
use crate::world;

/// What has to be known to make one.
#[derive(Debug, Clone)]
pub(super) struct Maker {
    pub(super) log: Arc<Log>,
    pub(super) machine: Arc<Machine>,
    pub(super) folder: PathBuf,
    pub(super) piece: usize,
}

impl Maker {
    /// Makes one, in the place of `old`, and takes all entries away but `keep` before it; none:
    /// somebody else was faster.
    pub(super) async fn make(self, old: Option<Base>, keep: u64) -> Result<Option<Base>, Fault> {
        let (path, machine) = (self.folder.join("sending"), Arc::clone(&self.machine));
        let file = path.clone();
        let copied = off_thread(move || {
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let notes = machine.copy(BufWriter::new(File::create(&file)?))?;
            let at = At::of(&notes).filter(|at| at.index > 0);
            let at = at.ok_or_else(|| io::Error::other("the machine has followed nothing yet"))?;
            Ok((at, File::open(&file)?))
        });
        let (at, file) = copied.await?;
        let name = format!("{:020}-{:016x}", at.index, world::random_u64());
        let mut base = Base { index: at.index, name, pieces: 0 };
        let (mut file, size) = (Some(file), u64::try_from(self.piece).unwrap_or(u64::MAX));
        while let Some(open) = file.take() {
            let (piece, open) = off_thread(move || {
                let mut piece = Vec::new();
                (&open).take(size).read_to_end(&mut piece)?;
                Ok((piece, open))
            })
            .await?;
            if !piece.is_empty() {
                self.log.put_piece(&base, base.pieces, &piece).await?;
                base.pieces += 1;
                file = Some(open);
            }
        }
        let upto = base.index.saturating_sub(keep);
        let made = self.log.rebase(old.as_ref(), &base, upto).await?;
        let pieces = base.pieces;
        tracing::info!(index = base.index, pieces, made, "a snapshot is in etcd");
        off_thread(move || std::fs::remove_file(path)).await?;
        Ok(made.then_some(base))
    }
}

/// Fetches the snapshot that `base` names, and puts it in the place of what the machine has; none:
/// it is gone.
pub(super) async fn fetch(
    log: &Log,
    machine: &Arc<Machine>,
    folder: &Path,
    base: &Base,
) -> Result<Option<At>, Fault> {
    let path = folder.join("receiving");
    let (file, parent) = (path.clone(), folder.to_owned());
    let mut out = off_thread(move || {
        std::fs::create_dir_all(parent)?;
        File::create(file)
    })
    .await?;
    for n in 0..base.pieces {
        let Some(piece) = log.piece_of(base, n).await? else { return Ok(None) };
        out = off_thread(move || out.write_all(&piece).map(|()| out)).await?;
    }
    let (machine, index) = (Arc::clone(machine), base.index);
    let installed = off_thread(move || {
        out.sync_all()?;
        let notes = Machine::check(BufReader::new(File::open(&path)?))?;
        let at = At::of(&notes).filter(|at| at.index == index);
        let at = at.ok_or_else(|| io::Error::other("the snapshot is of another entry"))?;
        let install = machine.install(BufReader::new(File::open(&path)?));
        install.map_err(io::Error::other)?;
        std::fs::remove_file(&path)?;
        Ok(at)
    });
    installed.await.map(Some)
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Fault> {
    let told = |error: &dyn std::fmt::Display| Fault::Nothing(format!("a snapshot: {error}"));
    match world::blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(told(&error)),
        Err(error) => Err(told(&error)),
    }
}
