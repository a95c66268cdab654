//! Leases of edges beside their progress: who is waited for, and for how long at most.

use std::future::pending;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use meridian_config::units::NodeName;
use meridian_control_wire::FailClosed;
use meridian_control_wire::operation::Lease;
use meridian_control_wire::purge::Delivery;

use crate::delivery::{Level, Member};
use crate::feed::Hub;
use crate::leases::Leases;
use crate::world;

/// A lease has lapsed only after its end.
const JUST_AFTER: Duration = Duration::from_millis(1);

impl Hub {
    /// The leases of this replica, if it leads.
    pub(super) fn leases(&self) -> MutexGuard<'_, Leases> {
        let term = self.store.leads();
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked each time: of a leadership that was lost and won again nothing may be left.
        if !leases.are_of(term) {
            leases.begin(term, world::random_u64(), world::now());
        }
        leases
    }

    /// Grants what a ping asks for, which came before the barrier that its answer names.
    pub(crate) fn grant(
        &self,
        edge: &NodeName,
        asks: FailClosed,
        named: Option<u64>,
    ) -> Option<Lease> {
        self.leases().grant(edge, asks, named, world::now())
    }

    /// How far the purge of the entry `seq` got.
    pub(crate) fn delivery(&self, seq: u64, members: &[Member]) -> Delivery {
        let progress = self.progress();
        let (known, mut delivery) = (progress.known_at(seq), progress.delivery(seq, members));
        drop(progress);
        let (leases, now) = (self.leases(), world::now());
        let pending = std::mem::take(&mut delivery.pending);
        (delivery.lapsed, delivery.pending) =
            pending.into_iter().partition(|edge| leases.has_lapsed(edge, known, now));
        delivery
    }

    /// Whether the purge of the entry `seq` got as far as `level` asks for.
    pub(super) fn has_reached(&self, level: &Level, seq: u64, members: &[Member]) -> bool {
        match level {
            Level::None | Level::Quorum | Level::Region(_) => {
                self.progress().reached(level, seq, members)
            }
            Level::Effective => self.delivery(seq, members).pending.is_empty(),
        }
    }

    /// Waits until the lease of another edge has run out that `level` waits for.
    ///
    /// Cancel safe.
    pub(super) async fn next_lapse(&self, level: &Level, seq: u64, members: &[Member]) {
        if *level != Level::Effective {
            return pending().await;
        }
        let known = self.progress().known_at(seq);
        let edges = self.delivery(seq, members).pending;
        let now = world::now();
        let next = {
            let leases = self.leases();
            edges.iter().filter_map(|edge| leases.lapses_at(edge, known)).min()
        };
        match next {
            Some(next) => {
                tokio::time::sleep(next.saturating_duration_since(now) + JUST_AFTER).await;
            }
            None => pending().await,
        }
    }
}
