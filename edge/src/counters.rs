//! What an edge counts.
//!
//! Counters of the hit path are per core and per site, so that no cache line is written by two
//! cores; [`crate::metrics`] adds them up when somebody reads them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::connection::Overdue;
use crate::outcome::Outcome;

/// What was done for a request while purges may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lagging {
    /// Answered from the store.
    Served,
    /// What is stored was validated first.
    Revalidated,
    /// Sent to the origin past the store.
    Bypassed,
    /// Refused, as the origin gave no answer either.
    Refused,
}

impl Lagging {
    /// All, in the order of their counters.
    pub(crate) const ALL: [Self; 4] =
        [Self::Served, Self::Revalidated, Self::Bypassed, Self::Refused];

    /// The word in metrics.
    pub(crate) const fn token(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Revalidated => "revalidated",
            Self::Bypassed => "bypassed",
            Self::Refused => "refused",
        }
    }
}

/// What one core counts for one site. Alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct SiteCounters {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    pub(crate) server_errors: AtomicU64,
    /// In the order of [`Lagging::ALL`].
    lagging: [AtomicU64; Lagging::ALL.len()],
}

impl SiteCounters {
    pub(crate) fn count_lagging(&self, done: Lagging) {
        if let Some(count) = self.lagging(done) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counter of what was `done`.
    pub(crate) fn lagging(&self, done: Lagging) -> Option<&AtomicU64> {
        Lagging::ALL.iter().zip(&self.lagging).find(|(one, _)| **one == done).map(|(_, n)| n)
    }

    pub(crate) fn count(&self, outcome: Outcome, is_server_error: bool) {
        if let Some(counter) = self.outcomes.get(outcome.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if is_server_error {
            self.server_errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often `outcome` was counted.
    pub(crate) fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome.index()).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// All requests.
    pub(crate) fn requests(&self) -> u64 {
        self.outcomes.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }
}

/// What the whole edge counts, off the hit path.
#[derive(Debug, Default)]
pub(crate) struct EdgeCounters {
    pub(crate) connections: AtomicI64,
    pub(crate) accepted: AtomicU64,
    /// In the order of [`Overdue::ALL`].
    pub(crate) overdue: [AtomicU64; Overdue::ALL.len()],
    pub(crate) misdirected: AtomicU64,
    pub(crate) registrations: AtomicU64,
    /// Control replicas that were left for another one.
    pub(crate) rotations: AtomicU64,
    /// 1 while the stream of purges is open.
    pub(crate) stream_open: AtomicU64,
    /// 1 once the stream has reached the present.
    pub(crate) attached: AtomicU64,
    /// Streams opened.
    pub(crate) streams: AtomicU64,
    /// Acknowledgements that arrived.
    pub(crate) acks: AtomicU64,
    pub(crate) site_changes: AtomicU64,
    pub(crate) site_refusals: AtomicU64,
    /// 1 while the control plane answers this edge.
    pub(crate) control_reachable: AtomicU64,
}

impl EdgeCounters {
    pub(crate) fn count_overdue(&self, limit: Overdue) {
        let counted = Overdue::ALL.iter().zip(&self.overdue).find(|(one, _)| **one == limit);
        if let Some((_, count)) = counted {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_connections(&self, change: i64) {
        self.connections.fetch_add(change, Ordering::Relaxed);
        if change > 0 {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        }
    }
}
