//! Coded bodies are made here: by a few threads of their own, beside the cores, from a queue with
//! an end.
//!
//! # Invariants
//! - Nobody waits for it: a response whose coding is not made yet is served as it is.
//! - A body that waits here is not held here: if it leaves the store meanwhile, it is not coded.
//! - Whatever ends an order without a result, other than that it was of no use, gives it back.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use meridian_config::edge::compression::Compressor as Config;
use meridian_edge_rules::coding::Coding;
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::coder::{EncodeError, Levels, encode};
use crate::forms::{Bodies, Coded};
use crate::store::Store;
use crate::stored_body::{PIECE, StoredBody};

/// The queue, and what is counted of the work.
#[derive(Debug)]
pub(crate) struct Compressor {
    waiting: Mutex<VecDeque<Job>>,
    more: Condvar,
    /// How many wait, to be asked without the lock.
    length: AtomicUsize,
    most: usize,
    closed: AtomicBool,
    pub(crate) counters: Counters,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Bodies made, by [`Coding::index`].
    pub(crate) made: [AtomicU64; Coding::ALL.len()],
    /// Of them, the bytes before and after.
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) useless: AtomicU64,
    /// Not taken on, as the queue was full.
    pub(crate) shed: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// An order for one coding of one response.
#[derive(Debug)]
struct Job {
    bodies: Weak<Bodies<StoredBody>>,
    coding: Coding,
    levels: Levels,
    done: bool,
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.done
            && let Some(bodies) = self.bodies.upgrade()
        {
            bodies.give_back(self.coding);
        }
    }
}

impl Compressor {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            waiting: Mutex::default(),
            more: Condvar::new(),
            length: AtomicUsize::new(0),
            most: usize::try_from(config.queue.get()).unwrap_or(usize::MAX),
            closed: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    /// Has `coding` made of `bodies`, unless somebody did already or too many wait.
    pub(crate) fn order(&self, bodies: &Arc<Bodies<StoredBody>>, coding: Coding, levels: Levels) {
        if self.length.load(Ordering::Relaxed) >= self.most {
            // Asked again at the next hit, which must not cost it the lock.
            self.counters.shed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if !bodies.order(coding) {
            return;
        }
        let job = Job { bodies: Arc::downgrade(bodies), coding, levels, done: false };
        let mut waiting = self.waiting();
        if waiting.len() < self.most {
            waiting.push_back(job);
            self.length.store(waiting.len(), Ordering::Relaxed);
            self.more.notify_one();
        } else {
            self.counters.shed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Bodies that wait.
    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed) as u64
    }

    /// Ends the work: what is under way is given up, what waits is not begun.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.waiting().clear();
        self.more.notify_all();
    }

    /// Works until [`Compressor::close`]; for a thread that does nothing else.
    pub(crate) fn work(&self, store: &Store) {
        while let Some(job) = self.next() {
            self.make(job, store);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting();
        loop {
            if self.is_closed() {
                return None;
            }
            if let Some(job) = waiting.pop_front() {
                self.length.store(waiting.len(), Ordering::Relaxed);
                return Some(job);
            }
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn make(&self, mut job: Job, store: &Store) {
        let Some(bodies) = job.bodies.upgrade() else { return };
        let pieces = bodies.identity.pieces();
        let work = || encode(job.coding, job.levels, pieces, || !self.is_closed());
        // An encoder that panics is a mistake of its own, and no reason to end an edge.
        let outcome = catch_unwind(AssertUnwindSafe(work));
        job.done = !matches!(outcome, Ok(Err(EncodeError::GivenUp)));
        let count = |counter: &AtomicU64, by: u64| {
            counter.fetch_add(by, Ordering::Relaxed);
        };
        match outcome {
            Ok(Ok(bytes)) => {
                let coded = coded(bytes);
                count(&self.counters.bytes_in, bodies.identity.len());
                count(&self.counters.bytes_out, coded.length);
                bodies.put(job.coding, coded);
                store.weigh_again(&bodies);
                if let Some(made) = self.counters.made.get(job.coding.index()) {
                    count(made, 1);
                }
            }
            Ok(Err(EncodeError::Useless)) => count(&self.counters.useless, 1),
            Ok(Err(EncodeError::GivenUp)) => {}
            Ok(Err(error @ EncodeError::Encoder(_))) => {
                warn!(%error, coding = job.coding.token(), "a response could not be coded");
                count(&self.counters.failed, 1);
            }
            Err(_panic) => {
                warn!(coding = job.coding.token(), "an encoder panicked");
                count(&self.counters.failed, 1);
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn coded(bytes: Bytes) -> Coded<StoredBody> {
    let hash = Sha256::digest(&bytes);
    let digest = hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
    // Copied to exactly the memory that it needs.
    let mut pieces: Vec<Bytes> = bytes.chunks(PIECE).map(Bytes::copy_from_slice).collect();
    let body = if pieces.len() > 1 {
        StoredBody::Many { pieces: pieces.into(), len: bytes.len() as u64 }
    } else {
        StoredBody::One(pieces.pop().unwrap_or_default())
    };
    Coded { length: bytes.len() as u64, body, digest }
}

/// Takes the thread that calls it back behind those that serve. Elsewhere than on Linux, where
/// this would concern the whole process, it does nothing.
pub(crate) fn step_back() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(10) {
        warn!(%error, "the threads that compress have the priority of those that serve");
    }
}

#[cfg(test)]
mod tests {
    use meridian_config::edge::Cache;

    use super::*;
    use crate::epochs::{Epochs, Limits};
    use crate::forms::Forms;
    use crate::key::CacheKey;

    const LEVELS: Levels = Levels { gzip: 6, br: 5, zstd: 7 };

    fn compressor(queue: u32) -> Compressor {
        Compressor::new(&Config { queue: queue.try_into().unwrap(), ..Config::default() })
    }

    fn forms() -> Forms<StoredBody> {
        let text = Bytes::from("some text\n".repeat(200));
        Forms::new(CacheKey::from("s http  /k"), StoredBody::One(text))
    }

    fn store() -> Store {
        Store::new(&Cache::default(), Epochs::new(Limits { selectors: 100, shards: 1 }, 0))
    }

    fn shed(compressor: &Compressor) -> u64 {
        compressor.counters.shed.load(Ordering::Relaxed)
    }

    #[test]
    fn a_full_queue_takes_no_more_and_takes_the_same_later() {
        let (compressor, store, first, second) = (compressor(1), store(), forms(), forms());
        compressor.order(first.bodies(), Coding::Gzip, LEVELS);
        compressor.order(first.bodies(), Coding::Gzip, LEVELS); // waits already, but it is full
        compressor.order(second.bodies(), Coding::Gzip, LEVELS);
        assert_eq!((compressor.length(), shed(&compressor)), (1, 2));
        compressor.make(compressor.next().unwrap(), &store);
        compressor.order(first.bodies(), Coding::Gzip, LEVELS);
        assert_eq!(compressor.length(), 0, "it is made");
        compressor.order(second.bodies(), Coding::Gzip, LEVELS);
        compressor.make(compressor.next().unwrap(), &store);
        assert!(first.bodies().coded(Coding::Gzip).is_some());
        assert!(second.bodies().coded(Coding::Gzip).is_some());
    }

    #[test]
    fn what_has_left_the_store_is_not_coded_and_what_is_given_up_can_be_ordered_again() {
        let (compressor, store, kept) = (compressor(10), store(), forms());
        let gone = forms();
        compressor.order(gone.bodies(), Coding::Br, LEVELS);
        compressor.order(kept.bodies(), Coding::Br, LEVELS);
        drop(gone);
        compressor.make(compressor.next().unwrap(), &store);
        assert_eq!(compressor.counters.bytes_in.load(Ordering::Relaxed), 0);
        drop(compressor.next().unwrap());
        assert!(kept.bodies().order(Coding::Br), "given back");
        compressor.close();
        assert!(compressor.next().is_none());
    }
}
