//! The store of a replica that follows etcd: orders go into its log, reads wait until this replica
//! has seen what they must see.
//!
//! # Invariants
//! - A read that must be fresh is answered after a majority of etcd told the head, or refused; it
//!   is never answered from what happens to be here.
//! - A cursor that is not known here is judged again after such a read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use meridian_config::control::etcd::Etcd as Limits;
use meridian_config::units::NodeName;
use meridian_control_wire::cursor::Cursor;
use serde_json::Value;
use tokio::sync::watch;

use crate::agreement::{AgreementView, PeerView};
use crate::control_store::{
    Barrier, ControlStore, Denied, Entry, Lead, Promise, ReadLevel, Recent, Snapshot, Standing,
    StoreState,
};
use crate::etcd::hearing::Candidate;
use crate::etcd::inbox::Inbox;
use crate::etcd::log::Log;
use crate::etcd::shared::Shared;
use crate::machine::Machine;
use crate::order::{Accepted, Change, EdgeChange, Order, Outcome, PurgeRequest, Revision};
use crate::raft::store::{judge, unexpected};
use crate::world;

/// How soon it is asked again who hears the edges, after nobody did.
const PAUSE: Duration = Duration::from_millis(25);

/// The store as the rest of the replica sees it.
#[derive(Debug)]
pub(crate) struct EtcdStore {
    pub(super) name: NodeName,
    pub(super) replicas: Vec<NodeName>,
    pub(super) log: Arc<Log>,
    pub(super) machine: Arc<Machine>,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Inbox,
    pub(super) limits: Limits,
}

impl EtcdStore {
    fn deadline(&self) -> Instant {
        world::now() + self.limits.quorum_timeout.get()
    }

    /// Waits until everything is applied here that was in the log when this began.
    async fn fresh(&self) -> Result<(), Denied> {
        let (begun, deadline) = (world::now(), self.deadline());
        if self.shared.is_broken() {
            return Err(Denied::NoQuorum);
        }
        let head = self.log.head(deadline).await.map_err(|fault| {
            tracing::debug!(%fault, "a read finds no majority");
            Denied::NoQuorum
        })?;
        self.shared.want(head);
        let mut applied = self.shared.applied.subscribe();
        let left = deadline.saturating_duration_since(world::now());
        match tokio::time::timeout(left, applied.wait_for(|applied| *applied >= head)).await {
            Ok(Ok(_applied)) => {}
            Ok(Err(_)) | Err(_) => return Err(Denied::NoQuorum),
        }
        self.shared.note_seen(begun);
        Ok(())
    }

    async fn barred(&self, level: ReadLevel) -> Result<Barrier, Denied> {
        let (basis, staleness) = match level {
            ReadLevel::Linearizable => {
                self.fresh().await?;
                ("range", Some(Duration::ZERO))
            }
            ReadLevel::Lease | ReadLevel::Bounded(_) => {
                return Err(Denied::NotOffered("this level is not offered where etcd orders"));
            }
            ReadLevel::Local if !self.limits.allow_local_reads => {
                return Err(Denied::NotOffered(
                    "Consistency: local is offered where etcd.allow_local_reads = true",
                ));
            }
            ReadLevel::Local if !self.has_caught_up() => return Err(Denied::NoQuorum),
            ReadLevel::Local => ("this-replica", self.shared.staleness(world::now())),
        };
        let seq = self.machine.state().last;
        Ok(Barrier { seq, basis, term: self.leads(), staleness })
    }

    fn has_caught_up(&self) -> bool {
        self.shared.caught_up.load(Ordering::Relaxed)
    }

    async fn judged(&self, cursor: &Cursor) -> Result<Standing, Denied> {
        if !self.has_caught_up() {
            self.fresh().await?;
        }
        judge(|| self.machine.standing(cursor), || self.fresh()).await
    }

    /// Who hears the edges, as a majority of etcd has just said.
    async fn led(&self) -> Result<Lead, Denied> {
        let (deadline, fresh) = (self.deadline(), Candidate::period(self.limits.lease.get()) * 2);
        loop {
            let now = world::now();
            if self.leads().is_some() {
                return Ok(Lead::Here);
            }
            match self.shared.hearer() {
                Some((name, at))
                    if name != self.name && now.saturating_duration_since(at) < fresh =>
                {
                    return Ok(Lead::There(name));
                }
                Some(_) | None => {}
            }
            if now >= deadline {
                return Err(Denied::NoQuorum);
            }
            match self.log.hearer(deadline).await {
                Ok(Some(hearer)) if hearer.name != self.name => {
                    return Ok(Lead::There(hearer.name));
                }
                // Nobody, or an earlier run of this replica: it will be seen to.
                Ok(_) => {}
                Err(fault) => {
                    tracing::debug!(%fault, "nobody knows who hears the edges");
                    return Err(Denied::NoQuorum);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl ControlStore for EtcdStore {
    fn purge(&self, request: PurgeRequest) -> Promise<'_, Accepted> {
        Box::pin(async move {
            let order = Order::Purge { request, nonce: world::random_u64() };
            match self.inbox.order(order).await? {
                Outcome::Purged(accepted) => Ok(accepted),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn change(&self, change: Change) -> Promise<'_, Arc<Revision>> {
        Box::pin(async move {
            match self.inbox.order(Order::Change(change)).await? {
                Outcome::Changed(revision) => Ok(revision),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn edge(&self, change: EdgeChange) -> Promise<'_, Outcome> {
        Box::pin(self.inbox.order(Order::Edge(change)))
    }

    fn register(&self, key: &str) -> Promise<'_, Option<Arc<Revision>>> {
        Box::pin(std::future::ready(Ok(self.machine.register(key))))
    }

    fn barrier(&self, level: ReadLevel) -> Promise<'_, Barrier> {
        Box::pin(self.barred(level))
    }

    fn lead(&self) -> Promise<'_, Lead> {
        Box::pin(self.led())
    }

    fn leads(&self) -> Option<u64> {
        self.shared.hears(world::now())
    }

    fn basis(&self) -> &'static str {
        "etcd"
    }

    fn entries(&self, after: u64, most: usize) -> Promise<'_, Vec<Entry>> {
        Box::pin(self.machine.entries(after, most))
    }

    fn recent(&self, after: u64) -> Recent {
        self.machine.recent(after)
    }

    fn snapshot(&self, after: u64) -> Snapshot {
        self.machine.snapshot(after)
    }

    fn sites(&self, upto: u64) -> Vec<(String, Option<Value>)> {
        self.machine.sites(upto)
    }

    fn standing<'s>(&'s self, cursor: &'s Cursor) -> Promise<'s, Standing> {
        Box::pin(self.judged(cursor))
    }

    fn cursor(&self, seq: u64) -> Cursor {
        self.machine.cursor(seq)
    }

    fn state(&self) -> StoreState {
        let state = self.machine.state();
        StoreState { sound: state.sound && !self.shared.is_broken(), ..state }
    }

    fn last(&self) -> watch::Receiver<u64> {
        self.machine.last()
    }

    fn agreement(&self) -> Option<AgreementView> {
        let hearer = self.shared.hearer().map(|(name, _)| name);
        let applied = *self.shared.applied.borrow();
        let committed = (*self.shared.wanted.borrow()).max(applied);
        let role =
            |name: &NodeName| if hearer.as_ref() == Some(name) { "leader" } else { "follower" };
        let peer = |name: &NodeName| {
            let me = *name == self.name;
            PeerView {
                name: name.clone(),
                node: None,
                role: role(name),
                reachable: me.then_some(true),
                lag: me.then_some(committed - applied),
            }
        };
        let mut peers: Vec<PeerView> = self.replicas.iter().map(peer).collect();
        if peers.is_empty() {
            peers.push(peer(&self.name));
        }
        Some(AgreementView {
            role: if self.leads().is_some() { "leader" } else { "follower" },
            term: self.leads().unwrap_or(0),
            leader: hearer.clone(),
            peers,
            committed,
            applied,
            snapshot: self.shared.base.load(Ordering::Relaxed),
            sound: !self.shared.is_broken(),
        })
    }
}
