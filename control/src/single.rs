//! A replica that is alone: it orders changes itself, and the disk is all it waits for.
//!
//! - `single/journal.rs`: the tables. `single/draft.rs`: what a batch of orders does to them.
//!   This file: who waits for whom
//!
//! # Invariants
//! - One thread writes. Whatever waits when it looks is made durable by one write to disk: writers
//!   share it, and none is told before it.
//! - Memory follows the disk, and answers follow memory: what is acknowledged is seen by every
//!   read that begins later.

mod draft;
mod journal;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use meridian_config::control::{Control, Journal as Limits};
use meridian_control_wire::cursor::Cursor;
use meridian_control_wire::frame::Frame;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::control_store::{
    ControlStore, Denied, Entry, Promise, Recent, Snapshot, Standing, StoreState, What, is_site,
};
use crate::error::StoreError;
use crate::lives::Lives;
use crate::order::{Accepted, Change, PurgeRequest, Revision};
use crate::purges::Folded;
use crate::register::millis;
use crate::registers::Registers;
use crate::single::draft::Draft;
use crate::single::journal::{Journal, Marks, Saved};
use crate::world;

/// Orders that one write to disk takes with it at most: bounds what the first of them waits for.
const MOST_AT_ONCE: usize = 1_024;

/// Frames of the newest entries that are kept in memory, and their bytes.
const RECENT_FRAMES: usize = 4_096;
const RECENT_BYTES: usize = 8 << 20;

/// Frames that are handed out at once.
const FRAMES_AT_ONCE: usize = 1_000;

/// What somebody ordered, and where the answer goes.
#[derive(Debug)]
enum Order {
    Purge(PurgeRequest, oneshot::Sender<Result<Accepted, Denied>>),
    Change(Change, oneshot::Sender<Result<Arc<Revision>, Denied>>),
    /// Nothing more will be written.
    End,
}

/// The store as the rest of the replica sees it.
#[derive(Debug)]
pub(crate) struct Single {
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    journal: Journal,
    lives: Lives,
    limits: Limits,
    state: Mutex<State>,
    last: watch::Sender<u64>,
    sound: AtomicBool,
}

/// What is known without the disk.
#[derive(Debug)]
struct State {
    marks: Marks,
    registers: Registers,
    folded: Arc<Folded>,
    recent: VecDeque<(u64, Bytes)>,
    recent_bytes: usize,
}

/// The thread that writes, before it runs.
#[derive(Debug)]
pub(crate) struct Writer {
    orders: mpsc::Receiver<Order>,
    shared: Arc<Shared>,
}

/// Opens the store of a replica, and begins another life of it. Blocks.
pub(crate) fn open(config: &Control) -> Result<(Single, Writer), StoreError> {
    let chance = world::random_key();
    let (cluster, rest) = chance.split_first_chunk::<16>().expect("32 bytes are more than 16");
    // The clock makes it grow, chance makes it the only one even if the clock was set back.
    let salt = rest.first_chunk::<2>().map_or(0, |bytes| u64::from(u16::from_le_bytes(*bytes)));
    let seed = millis(world::wall()) << 16 | salt;
    let (journal, saved) = Journal::open(&config.data, *cluster, seed)?;
    let Saved { lives, marks, folded, registers } = saved;
    let limits = config.journal.clone();
    let most = usize::try_from(limits.max_folded.get()).unwrap_or(usize::MAX);
    let mut known = Registers::default();
    for (key, revision) in registers {
        known.put(key, revision);
    }
    let state = State {
        marks,
        registers: known,
        folded: Arc::new(Folded::restored(folded, marks.floor, most)),
        recent: VecDeque::new(),
        recent_bytes: 0,
    };
    let (inbox, orders) = mpsc::channel(limits.max_queue.get().try_into().unwrap_or(usize::MAX));
    let shared = Arc::new(Shared {
        journal,
        lives,
        limits,
        state: Mutex::new(state),
        last: watch::Sender::new(marks.last),
        sound: AtomicBool::new(true),
    });
    Ok((Single { orders: inbox, shared: Arc::clone(&shared) }, Writer { orders, shared }))
}

impl Writer {
    /// Writes until it is told to end, or nobody can order anything any more. Blocks.
    pub(crate) fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(first) = self.orders.blocking_recv() {
            batch.push(first);
            while batch.len() < MOST_AT_ONCE
                && let Ok(next) = self.orders.try_recv()
            {
                batch.push(next);
            }
            if batch.iter().any(|order| matches!(order, Order::End)) {
                self.orders.close(); // what is in it already is still written
            }
            self.shared.commit(std::mem::take(&mut batch));
        }
    }
}

/// What an order came to.
enum Outcome {
    Purge(Result<Accepted, Denied>, oneshot::Sender<Result<Accepted, Denied>>),
    Change(Result<Arc<Revision>, Denied>, oneshot::Sender<Result<Arc<Revision>, Denied>>),
}

impl Outcome {
    /// Tells it. Who does not wait any more does not hear it.
    fn tell(self) {
        match self {
            Self::Purge(outcome, to) => drop(to.send(outcome)),
            Self::Change(outcome, to) => drop(to.send(outcome)),
        }
    }

    fn unknown(self) -> Self {
        match self {
            Self::Purge(_, to) => Self::Purge(Err(Denied::Unknown), to),
            Self::Change(_, to) => Self::Change(Err(Denied::Unknown), to),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change to it is complete before the lock is let go: what a panic left is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, batch: Vec<Order>) {
        let mut draft = {
            let state = self.state();
            let (registers, folded) = (state.registers.clone(), Arc::clone(&state.folded));
            Draft::new(state.marks, registers, folded, &self.limits, millis(world::wall()))
        };
        let mut outcomes = Vec::with_capacity(batch.len());
        let written = self.journal.write(|disk| {
            let tidied = draft.forget_keys(disk)?;
            for order in batch {
                // An error of the disk leaves its asker without an answer: unknown, which is true.
                outcomes.push(match order {
                    Order::Purge(request, to) => Outcome::Purge(draft.purge(disk, request)?, to),
                    Order::Change(change, to) => Outcome::Change(draft.change(disk, change)?, to),
                    Order::End => continue,
                });
            }
            draft.finish(disk)?;
            Ok(((), tidied || draft.is_dirty()))
        });
        self.sound.store(written.is_ok(), Ordering::Relaxed);
        match written {
            Ok(()) => {
                self.publish(draft);
                outcomes.into_iter().for_each(Outcome::tell);
            }
            Err(error) => {
                tracing::error!(%error, "changes cannot be made durable");
                outcomes.into_iter().map(Outcome::unknown).for_each(Outcome::tell);
            }
        }
    }

    fn publish(&self, draft: Draft<'_>) {
        let Draft { marks, registers, folded, entries, .. } = draft;
        let frames: Vec<(u64, Bytes)> = entries
            .into_iter()
            .map(|entry| {
                let seq = entry.seq;
                (seq, frame_of(entry, self.lives.cursor(seq)).to_bytes().into())
            })
            .collect();
        {
            let mut state = self.state();
            (state.marks, state.registers, state.folded) = (marks, registers, folded);
            for (seq, bytes) in frames {
                state.recent_bytes += bytes.len();
                state.recent.push_back((seq, bytes));
            }
            while state.recent.len() > RECENT_FRAMES || state.recent_bytes > RECENT_BYTES {
                let Some((_, bytes)) = state.recent.pop_front() else { break };
                state.recent_bytes -= bytes.len();
            }
        }
        self.last.send_replace(marks.last);
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

/// Where the entry of the purge `id` would be.
pub(crate) fn seq_of(id: &str) -> Option<u64> {
    u64::from_str_radix(id.split_once('-')?.0, 16).ok()
}

impl Single {
    /// Waits until everything that was ordered is written, and lets nothing more come.
    pub(crate) async fn end(&self) {
        if self.orders.send(Order::End).await.is_ok() {
            self.orders.closed().await;
        }
    }

    async fn ordered<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, Denied>>) -> Order,
    ) -> Result<T, Denied> {
        let (to, answer) = oneshot::channel();
        let ending = |_closed| Denied::Ending;
        self.orders.send(order(to)).await.map_err(ending)?;
        answer.await.unwrap_or(Err(Denied::Unknown)) // the disk broke before this one's turn
    }
}

impl ControlStore for Single {
    fn purge(&self, request: PurgeRequest) -> Promise<'_, Accepted> {
        Box::pin(self.ordered(|to| Order::Purge(request, to)))
    }

    fn change(&self, change: Change) -> Promise<'_, Arc<Revision>> {
        Box::pin(self.ordered(|to| Order::Change(change, to)))
    }

    fn register(&self, key: &str) -> Promise<'_, Option<Arc<Revision>>> {
        let found = self.shared.state().registers.live(key).cloned();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn barrier(&self) -> Promise<'_, u64> {
        let last = self.shared.state().marks.last;
        Box::pin(std::future::ready(Ok(last)))
    }

    fn entries(&self, after: u64, most: usize) -> Promise<'_, Vec<Entry>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || {
                let entries = shared.journal.entries(after, most);
                // Looked at after reading: what was folded meanwhile may be missing.
                let low_water = shared.state().marks.low_water;
                if after < low_water { Err(Denied::Compacted { low_water }) } else { Ok(entries) }
            });
            let entries = read.await.unwrap_or(Err(Denied::Unreadable))?;
            entries.map_err(|error| {
                tracing::error!(%error, "the log cannot be read");
                Denied::Unreadable
            })
        })
    }

    fn recent(&self, after: u64) -> Recent {
        let state = self.shared.state();
        if after >= state.marks.last {
            return Recent::UpToDate;
        }
        let first = state.recent.front().map_or(u64::MAX, |(seq, _)| *seq);
        let Some(skipped) = after.saturating_add(1).checked_sub(first) else {
            return Recent::Older;
        };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let (mut at, mut frames) = (after, Vec::new());
        for (seq, bytes) in state.recent.iter().skip(skipped).take(FRAMES_AT_ONCE) {
            at = *seq;
            frames.push(bytes.clone());
        }
        Recent::Frames(frames, at)
    }

    fn snapshot(&self, after: u64) -> Snapshot {
        let (at, folded) = {
            let state = self.shared.state();
            (state.marks.low_water, Arc::clone(&state.folded))
        };
        Snapshot { at, items: folded.after(after) }
    }

    fn sites(&self, upto: u64) -> Vec<(String, Option<Value>)> {
        let state = self.shared.state();
        let sites = state.registers.sites(upto);
        sites.map(|(key, revision)| (key.clone(), revision.value.clone())).collect()
    }

    fn standing(&self, cursor: &Cursor) -> Standing {
        let last = self.shared.state().marks.last;
        self.shared.lives.standing(cursor, last)
    }

    fn cursor(&self, seq: u64) -> Cursor {
        self.shared.lives.cursor(seq)
    }

    fn state(&self) -> StoreState {
        let marks = self.shared.state().marks;
        StoreState {
            incarnation: self.shared.lives.current().id,
            last: marks.last,
            low_water: marks.low_water,
            sound: self.shared.sound.load(Ordering::Relaxed),
        }
    }

    fn last(&self) -> watch::Receiver<u64> {
        self.shared.last.subscribe()
    }
}

#[cfg(test)]
mod tests;
