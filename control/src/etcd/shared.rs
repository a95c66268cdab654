//! What the tasks of this engine tell each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use meridian_config::units::NodeName;
use tokio::sync::watch;

/// What they know.
#[derive(Debug)]
pub(super) struct Shared {
    /// The last entry that the machine has.
    pub(super) applied: watch::Sender<u64>,
    /// The last entry that somebody is known to have.
    pub(super) wanted: watch::Sender<u64>,
    /// The term for which this replica hears the edges, and until when that is certain.
    hearing: watch::Sender<Option<(u64, Instant)>>,
    /// Who hears them, when that was seen last.
    hearer: Mutex<Option<(NodeName, Instant)>>,
    /// When the last confirmed read began: everything before it has been seen here.
    seen: Mutex<Option<Instant>>,
    /// The entry that the snapshot in etcd stands for.
    pub(super) base: AtomicU64,
    /// What was there at the start has been applied.
    pub(super) caught_up: AtomicBool,
    /// A fault that only a person ends.
    pub(super) broken: AtomicBool,
}

impl Shared {
    pub(super) fn new(applied: u64) -> Self {
        Self {
            applied: watch::Sender::new(applied),
            wanted: watch::Sender::new(applied),
            hearing: watch::Sender::new(None),
            hearer: Mutex::default(),
            seen: Mutex::default(),
            base: AtomicU64::new(0),
            caught_up: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        }
    }

    pub(super) fn want(&self, index: u64) {
        self.wanted.send_if_modified(|wanted| {
            let more = index > *wanted;
            *wanted = index.max(*wanted);
            more
        });
    }

    /// The term for which this replica certainly hears the edges at `now`.
    pub(super) fn hears(&self, now: Instant) -> Option<u64> {
        let hearing = *self.hearing.borrow();
        hearing.filter(|(_, until)| now < *until).map(|(term, _)| term)
    }

    /// Whenever this replica begins to hear the edges, or ceases.
    pub(super) fn turns(&self) -> watch::Receiver<Option<(u64, Instant)>> {
        self.hearing.subscribe()
    }

    /// Notes for which term this replica hears the edges, and until when.
    pub(super) fn hear(&self, hearing: Option<(u64, Instant)>) {
        self.hearing.send_if_modified(|known| {
            let turned = known.map(|(term, _)| term) != hearing.map(|(term, _)| term);
            *known = hearing;
            turned
        });
    }

    pub(super) fn note_hearer(&self, name: NodeName, now: Instant) {
        *self.hearer.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, now));
    }

    /// Who hears the edges, and when that was seen.
    pub(super) fn hearer(&self) -> Option<(NodeName, Instant)> {
        self.hearer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note_seen(&self, begun: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = (*seen).max(Some(begun));
    }

    /// For how long at most this replica has not seen what was acknowledged.
    pub(super) fn staleness(&self, now: Instant) -> Option<Duration> {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.map(|at| now.saturating_duration_since(at))
    }

    pub(super) fn breaks(&self, why: &dyn std::fmt::Display) {
        if !self.broken.swap(true, Ordering::Relaxed) {
            tracing::error!(%why, "this replica cannot follow etcd any more");
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}
