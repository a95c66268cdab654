//! Which replica hears the edges: one at a time, by a key under a lease of etcd.
//!
//! Beats, leases of edges and how far each edge has applied the log are kept in the memory of one
//! replica, as they are by the leader of any other engine. The order of changes does not depend on
//! it: two that both believed to hear the edges would still write one log.
//!
//! # Invariants
//! - A replica ceases to believe that it hears the edges before etcd would let another one, as far
//!   as their clocks run alike within a quarter of the lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian_config::units::NodeName;
use tokio_util::sync::CancellationToken;

use crate::etcd::entry::Hearer;
use crate::etcd::log::{Fault, Hearing, Log};
use crate::etcd::shared::Shared;
use crate::world;

/// How often in the time of a lease a replica looks who has it.
const LOOKS: u32 = 8;

/// The part of a lease that is believed in.
const BELIEVED: f64 = 0.75;

/// Whoever looks after it.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) log: Arc<Log>,
    pub(super) shared: Arc<Shared>,
    pub(super) name: NodeName,
    /// The lease as it is configured.
    pub(super) lease: Duration,
}

/// A lease as etcd granted it.
#[derive(Debug, Clone, Copy)]
struct Lease {
    id: i64,
    time: Duration,
}

impl Candidate {
    /// How often it looks.
    pub(super) fn period(lease: Duration) -> Duration {
        lease / LOOKS
    }

    /// Hears the edges whenever nobody else does, until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let me = Hearer { name: self.name.clone(), run: world::random_u64() };
        let mut lease: Option<Lease> = None;
        let period = Self::period(self.lease);
        loop {
            if self.shared.is_broken() {
                break; // whoever follows another history is no good to them
            }
            let looked = self.look(&me, &mut lease).await;
            if let Err(fault) = looked {
                tracing::debug!(%fault, "nobody knows who hears the edges");
            }
            let pause = tokio::time::sleep(period);
            if stop.run_until_cancelled(pause).await.is_none() {
                break;
            }
        }
        // Another one may at once.
        self.shared.hear(None);
        if let Some(lease) = lease
            && let Err(fault) = self.log.revoke(lease.id).await
        {
            tracing::debug!(%fault, "the lease lasts on");
        }
    }

    async fn look(&self, me: &Hearer, lease: &mut Option<Lease>) -> Result<(), Fault> {
        let asked = world::now();
        let held = match *lease {
            Some(held) => {
                if !self.log.prolong(held.id).await? {
                    *lease = None;
                    self.lost();
                    return Ok(());
                }
                held
            }
            None => {
                let seconds = self.lease.as_secs_f64().ceil();
                #[expect(clippy::cast_possible_truncation, reason = "a minute at most")]
                let (id, time) = self.log.grant(seconds as i64).await?;
                *lease.insert(Lease { id, time })
            }
        };
        let mut heard = self.log.hear(me, held.id, None).await?;
        if let Hearing::Others(other, revision) = &heard
            && other.name == me.name
        {
            // An earlier run of this very replica, which is no more.
            heard = self.log.hear(me, held.id, Some(*revision)).await?;
        }
        match heard {
            Hearing::Mine(revision) => self.won(revision, asked + held.time.mul_f64(BELIEVED)),
            Hearing::Others(other, _) => {
                self.shared.hear(None);
                self.shared.note_hearer(other.name, asked);
            }
        }
        Ok(())
    }

    fn won(&self, revision: i64, until: Instant) {
        let term = u64::try_from(revision).unwrap_or(0);
        if self.shared.hears(world::now()) != Some(term) {
            tracing::info!(term, "this replica hears the edges");
        }
        self.shared.hear(Some((term, until)));
        self.shared.note_hearer(self.name.clone(), world::now());
    }

    fn lost(&self) {
        tracing::warn!("the lease has run out");
        self.shared.hear(None);
    }
}
