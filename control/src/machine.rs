//! What a replica knows, and what batches of orders do to it: the same in every engine.
//!
//! - `machine/tables.rs`: the rows on redb. `machine/draft.rs`: what a batch does to them;
//!   `machine/edges.rs`: those about edges. `machine/recent.rs`: the newest frames. This file:
//!   memory that follows the disk
//!
//! Answers nothing about who orders, nor about when it is durable: the engine says so with each
//! call.
//!
//! # Invariants
//! - Deterministic: machines that applied the same batches in the same order have the same rows,
//!   however the batches were gathered into transactions. No clock, no chance, no configuration.
//! - Memory follows the disk, and answers follow memory: whoever is told of an effect finds it in
//!   every read that begins later.

pub(crate) mod draft;
pub(crate) mod tables;

mod copy;
mod edges;
mod recent;

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use meridian_control_wire::cursor::Cursor;
use meridian_control_wire::frame::Frame;
use redb::Durability;
use serde_json::Value;
use tokio::sync::watch;

use crate::control_store::{
    Denied, Entry, Recent as RecentFrames, Snapshot, Standing, StoreState, What, is_site,
};
use crate::disk::Disk;
use crate::error::StoreError;
use crate::lives::Lives;
use crate::machine::draft::Draft;
use crate::machine::recent::Recent;
use crate::machine::tables::{Engine, Marks, Notes, Saved, Tables};
use crate::order::{Batch, Outcome, Revision};
use crate::purges::Folded;
use crate::registers::Registers;
use crate::watcher::EdgeWatcher;
use crate::world;

/// The machine of a replica.
#[derive(Debug)]
pub(crate) struct Machine {
    tables: Arc<Tables>,
    state: Mutex<State>,
    /// One changes it at a time.
    writer: Mutex<()>,
    last: watch::Sender<u64>,
    sound: AtomicBool,
    watcher: Arc<dyn EdgeWatcher>,
}

/// What is known without the disk.
#[derive(Debug)]
struct State {
    marks: Marks,
    lives: Arc<Lives>,
    registers: Arc<Registers>,
    folded: Arc<Folded>,
    recent: Recent,
}

impl State {
    fn restored(saved: Saved) -> Self {
        let Saved { lives, marks, folded, registers, edges: _ } = saved;
        let mut known = Registers::default();
        for (key, revision) in registers {
            known.put(key, revision);
        }
        Self {
            marks,
            lives: Arc::new(lives),
            registers: Arc::new(known),
            folded: Arc::new(Folded::restored(folded, marks.floor)),
            recent: Recent::default(),
        }
    }
}

impl Machine {
    /// Opens or makes the machine on `disk`, and tells `watcher` of the edges. Blocks.
    pub(crate) fn open(
        disk: &dyn Disk,
        engine: Engine,
        watcher: Arc<dyn EdgeWatcher>,
    ) -> Result<Self, StoreError> {
        let (tables, mut saved) = Tables::open(disk, engine)?;
        watcher.restored(std::mem::take(&mut saved.edges));
        let state = State::restored(saved);
        Ok(Self {
            tables: Arc::new(tables),
            last: watch::Sender::new(state.marks.last),
            state: Mutex::new(state),
            writer: Mutex::new(()),
            sound: AtomicBool::new(true),
            watcher,
        })
    }

    fn state_of(&self) -> MutexGuard<'_, State> {
        // Every change to it is complete before the lock is let go: what a panic left is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draft(&self) -> Draft {
        let state = self.state_of();
        Draft {
            marks: state.marks,
            lives: Arc::clone(&state.lives),
            registers: Arc::clone(&state.registers),
            folded: Arc::clone(&state.folded),
            entries: Vec::new(),
            events: Vec::new(),
            changed: false,
        }
    }

    /// Applies `batches` in one transaction, with what the engine notes; tells what came of each.
    /// An error may have had its effect on disk, if not in memory: then nothing more is to be
    /// applied before the file has been opened anew. Blocks.
    pub(crate) fn apply(
        &self,
        batches: Vec<Batch>,
        notes: &Notes,
        durability: Durability,
    ) -> Result<Vec<Vec<Outcome>>, StoreError> {
        let _one_at_a_time = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut draft = self.draft();
        let before = draft.marks;
        let written = self.tables.write(durability, |disk| {
            let mut outcomes = Vec::with_capacity(batches.len());
            for batch in batches {
                outcomes.push(draft.apply(disk, batch)?);
            }
            if draft.marks != before {
                disk.mark(draft.marks)?;
            }
            if !notes.is_empty() {
                disk.note(notes)?;
            }
            Ok((outcomes, draft.changed || !notes.is_empty()))
        });
        self.sound.store(written.is_ok(), Ordering::Relaxed);
        let outcomes = written?;
        self.publish(draft);
        Ok(outcomes)
    }

    fn publish(&self, draft: Draft) {
        let Draft { marks, lives, registers, folded, entries, events, changed: _ } = draft;
        let frames: Vec<(u64, Bytes)> = entries
            .into_iter()
            .map(|entry| {
                let seq = entry.seq;
                (seq, frame_of(entry, lives.cursor(seq)).to_bytes().into())
            })
            .collect();
        {
            let mut state = self.state_of();
            (state.marks, state.lives, state.registers) = (marks, lives, registers);
            state.folded = folded;
            state.recent.extend(frames);
        }
        if !events.is_empty() {
            self.watcher.happened(events, marks.position);
        }
        if *self.last.borrow() != marks.last {
            self.last.send_replace(marks.last);
        }
    }

    /// Waits until everything that was applied is on disk. Blocks.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let synced = self.tables.sync();
        self.sound.store(synced.is_ok(), Ordering::Relaxed);
        synced
    }

    /// What the engine noted last under `name`. Blocks.
    pub(crate) fn note(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.tables.note(name)
    }

    /// Writes all rows of one moment to `out`; tells what the engine had noted then. Blocks.
    pub(crate) fn copy(&self, out: impl Write) -> io::Result<Notes> {
        let view = self.tables.view().map_err(io::Error::other)?;
        copy::write(&view, out)?;
        copy::notes(&view)
    }

    /// Reads what `copy` wrote; tells the notes in it, if all of it is whole. Blocks.
    pub(crate) fn check(input: impl Read) -> io::Result<Notes> {
        copy::check(input)
    }

    /// Puts the rows of `input`, which was checked, in the place of its own. Blocks.
    pub(crate) fn install(&self, input: impl Read) -> Result<(), StoreError> {
        let _one_at_a_time = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let installed = self.tables.replace(|transaction| copy::install(transaction, input));
        self.sound.store(installed.is_ok(), Ordering::Relaxed);
        installed?;
        let mut saved = self.tables.read()?;
        let edges = std::mem::take(&mut saved.edges);
        let state = State::restored(saved);
        let last = state.marks.last;
        *self.state_of() = state;
        self.watcher.restored(edges);
        self.last.send_replace(last);
        Ok(())
    }

    /// Whose history it is, once it has begun.
    pub(crate) fn cluster(&self) -> Option<[u8; 16]> {
        self.state_of().lives.cluster()
    }

    /// What a register holds; none: nothing.
    pub(crate) fn register(&self, key: &str) -> Option<Arc<Revision>> {
        self.state_of().registers.live(key).cloned()
    }

    /// Entries after `after`, at most `most`.
    pub(crate) async fn entries(&self, after: u64, most: usize) -> Result<Vec<Entry>, Denied> {
        let tables = Arc::clone(&self.tables);
        let read = world::blocking(move || tables.entries(after, most)).await;
        // Looked at after reading: what was folded meanwhile may be missing.
        let low_water = self.state_of().marks.low_water;
        if after < low_water {
            return Err(Denied::Compacted { low_water });
        }
        let entries = read.map_err(|error| {
            tracing::error!(%error, "reading the log broke");
            Denied::Unreadable
        })?;
        entries.map_err(|error| {
            tracing::error!(%error, "the log cannot be read");
            Denied::Unreadable
        })
    }

    /// Frames after `after`.
    pub(crate) fn recent(&self, after: u64) -> RecentFrames {
        let state = self.state_of();
        state.recent.after(after, state.marks.last)
    }

    /// What stands for the log before its beginning, for one who knows everything up to `after`.
    pub(crate) fn snapshot(&self, after: u64) -> Snapshot {
        let (at, folded) = {
            let state = self.state_of();
            (state.marks.low_water, Arc::clone(&state.folded))
        };
        Snapshot { at, items: folded.after(after) }
    }

    /// The registers that edges obey and that changed last at or before `upto`, gone ones too.
    pub(crate) fn sites(&self, upto: u64) -> Vec<(String, Option<Value>)> {
        let registers = Arc::clone(&self.state_of().registers);
        let sites = registers.sites(upto);
        sites.map(|(key, revision)| (key.clone(), revision.value.clone())).collect()
    }

    /// What a cursor is worth, as far as is known here.
    pub(crate) fn standing(&self, cursor: &Cursor) -> Standing {
        let state = self.state_of();
        state.lives.standing(cursor, state.marks.last)
    }

    /// The cursor of an entry.
    pub(crate) fn cursor(&self, seq: u64) -> Cursor {
        self.state_of().lives.cursor(seq)
    }

    /// How it is.
    pub(crate) fn state(&self) -> StoreState {
        let state = self.state_of();
        StoreState {
            incarnation: state.lives.current(),
            last: state.marks.last,
            low_water: state.marks.low_water,
            sound: self.sound.load(Ordering::Relaxed),
        }
    }

    /// Tells the last entry whenever there is another.
    pub(crate) fn last(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

/// The frame that tells an edge of `entry`. Every entry has one, so that its cursor comes by.
pub(crate) fn frame_of(entry: Entry, cursor: Cursor) -> Frame {
    match entry.row.what {
        What::Purge(operation) => Frame::Op { cursor, operation },
        What::Config { key, value } if is_site(&key) => Frame::Config { cursor, key, value },
        What::Config { .. } => Frame::Bookmark { cursor },
    }
}

#[cfg(test)]
mod tests;
