//! The store of a replica that agrees with others: orders go to the leader's log, reads wait until
//! this replica has seen what they must see.
//!
//! # Invariants
//! - A read that must be fresh is answered after a majority confirmed its leader, or refused; it
//!   is never answered from what happens to be here.
//! - A cursor that is not known here is judged again after such a read: a replica that lags takes
//!   no good cursor for one of another history.
//! - Before the entries that this replica had before it restarted are applied again, nothing is
//!   told from it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use meridian_config::control::raft::Raft as Limits;
use meridian_config::units::NodeName;
use meridian_control_wire::cursor::Cursor;
use openraft::alias::LogIdOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::RaftError;
use openraft::{Instant as _, ServerState};
use serde_json::Value;
use tokio::sync::watch;

use crate::control_store::{
    Barrier, ControlStore, Denied, Entry, Lead, Promise, ReadLevel, Recent, Snapshot, Standing,
    StoreState,
};
use crate::machine::Machine;
use crate::order::{Accepted, Change, EdgeChange, Order, Outcome, PurgeRequest, Revision};
use crate::raft::listener::{Listener, option};
use crate::raft::network::Speaker;
use crate::raft::proposer::Inbox;
use crate::raft::rpc::{self, Freshness, ReadAnswer, ReadQuestion, Rpc};
use crate::raft::state::Raft;
use crate::raft::types::TypeConfig;
use crate::register::millis;
use crate::world;

/// How soon somebody else is asked who leads, after one who should did not know.
const PAUSE: Duration = Duration::from_millis(15);

/// The store as the rest of the replica sees it.
#[derive(Debug)]
pub(crate) struct RaftStore {
    pub(crate) raft: Raft,
    pub(crate) machine: Arc<Machine>,
    pub(crate) speaker: Arc<Speaker>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) inbox: Inbox,
    pub(crate) limits: Limits,
    /// What was applied before the last restart is applied again.
    pub(crate) recovered: AtomicBool,
    /// When the last confirmed read began: everything before it has been seen here.
    pub(crate) seen: Mutex<Option<Instant>>,
}

impl RaftStore {
    /// Notes that what was applied before the last restart is applied again.
    pub(crate) fn recovered(&self) {
        self.recovered.store(true, Ordering::Relaxed);
    }

    /// Whether this replica takes itself for the leader.
    pub(crate) fn leads_now(&self) -> bool {
        self.raft.as_leader().is_ok()
    }

    /// Who leads, as far as this replica knows.
    pub(crate) fn leader(&self) -> Option<(u64, NodeName)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        let member = metrics.membership_config.membership().get_node(&leader)?;
        Some((leader, member.name.clone()))
    }

    fn deadline(&self) -> Instant {
        world::now() + self.limits.quorum_timeout.get()
    }

    /// Up to where a read of this freshness has to see the log.
    async fn read_index(
        &self,
        freshness: Freshness,
        deadline: Instant,
    ) -> Result<LogIdOf<TypeConfig>, Denied> {
        loop {
            let patience = deadline.saturating_duration_since(world::now());
            if patience.is_zero() {
                return Err(Denied::NoQuorum);
            }
            let mut leadership = self.raft.server_metrics();
            tokio::select! { // what was told before does not count
                biased;
                _told = leadership.changed() => {}
                () = std::future::ready(()) => {}
            }
            let asked = self.ask_leader(freshness, patience);
            // A question to one who does not lead any more is given up.
            let answer = tokio::select! {
                answer = asked => answer?,
                _changed = leadership.changed() => None,
            };
            if let Some(log) = answer {
                return Ok(log);
            }
            let pause = PAUSE.min(deadline.saturating_duration_since(world::now()));
            drop(tokio::time::timeout(pause, leadership.changed()).await);
        }
    }

    /// None: whoever was asked does not lead, or there is nobody to ask.
    async fn ask_leader(
        &self,
        freshness: Freshness,
        patience: Duration,
    ) -> Result<Option<LogIdOf<TypeConfig>>, Denied> {
        let Some((node, name)) = self.leader() else { return Ok(None) };
        if node == self.speaker.node {
            return match self.raft.get_read_linearizer(option(freshness, patience)).await {
                Ok(confirmed) => Ok(Some(*confirmed.read_log_id().log_id())),
                Err(RaftError::APIError(_)) => Ok(None),
                Err(RaftError::Fatal(_)) => Err(Denied::Ending),
            };
        }
        let question = ReadQuestion { freshness, patience_ms: millis(patience) };
        let question = (Rpc::ReadIndex, "", rpc::body_of(&question));
        match self.speaker.say(&name, Some(node), question, patience).await {
            Ok(ReadAnswer::At { log, .. }) => Ok(Some(log)),
            Ok(ReadAnswer::No) | Err(_) => Ok(None),
        }
    }

    /// Waits until everything up to `log` is applied here.
    async fn applied(&self, log: LogIdOf<TypeConfig>, deadline: Instant) -> Result<(), Denied> {
        let patience = deadline.saturating_duration_since(world::now());
        let wait = self.raft.wait(Some(patience));
        match wait.applied_index_at_least(Some(log.index), "a read").await {
            Ok(_applied) => Ok(()),
            Err(_late) => Err(Denied::NoQuorum),
        }
    }

    async fn fresh(&self, freshness: Freshness) -> Result<(), Denied> {
        let (begun, deadline) = (world::now(), self.deadline());
        let log = self.read_index(freshness, deadline).await?;
        self.applied(log, deadline).await?;
        if freshness == Freshness::ReadIndex {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = (*seen).max(Some(begun));
        }
        Ok(())
    }

    /// For how long at most this replica has not seen what was acknowledged.
    fn staleness(&self) -> Option<Duration> {
        let now = world::now();
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.map(|at| now.saturating_duration_since(at));
        // A leader has everything up to the last time when a majority followed it.
        let led = self.raft.as_leader().ok().and_then(|leader| leader.last_quorum_acked());
        let led = led.map(|at| at.elapsed());
        match (seen, led) {
            (Some(seen), Some(led)) => Some(seen.min(led)),
            (seen, led) => seen.or(led),
        }
    }

    fn term(&self) -> u64 {
        self.raft.metrics().borrow_watched().current_term
    }

    /// What this replica is to the others.
    pub(crate) fn role(&self) -> &'static str {
        match self.raft.metrics().borrow_watched().state {
            ServerState::Learner => "learner",
            ServerState::Follower => "follower",
            ServerState::Candidate => "candidate",
            ServerState::Leader => "leader",
            ServerState::Shutdown => "stopped",
        }
    }

    async fn judged(&self, cursor: &Cursor) -> Result<Standing, Denied> {
        if !self.recovered.load(Ordering::Relaxed) {
            self.fresh(Freshness::ReadIndex).await?;
        }
        judge(|| self.machine.standing(cursor), || self.fresh(Freshness::ReadIndex)).await
    }

    async fn barred(&self, level: ReadLevel) -> Result<Barrier, Denied> {
        let (basis, staleness) = match level {
            ReadLevel::Linearizable => {
                self.fresh(Freshness::ReadIndex).await?;
                ("read-index", Some(Duration::ZERO))
            }
            ReadLevel::Lease => {
                self.fresh(Freshness::Lease).await?;
                ("lease", Some(Duration::ZERO))
            }
            ReadLevel::Bounded(bound) => {
                self.fresh(Freshness::Bounded(millis(bound))).await?;
                ("quorum-ack", Some(bound))
            }
            ReadLevel::Local if !self.limits.allow_local_reads => {
                return Err(Denied::NotOffered(
                    "Consistency: local is offered where raft.allow_local_reads = true",
                ));
            }
            ReadLevel::Local if !self.recovered.load(Ordering::Relaxed) => {
                return Err(Denied::NoQuorum);
            }
            ReadLevel::Local => ("this-replica", self.staleness()),
        };
        let seq = self.machine.state().last;
        Ok(Barrier { seq, basis, term: Some(self.term()), staleness })
    }

    /// Who leads, once that one is known to hear this replica and a majority.
    async fn led(&self) -> Result<Lead, Denied> {
        let deadline = self.deadline();
        loop {
            let fresh = self.limits.heartbeat.get() / 4;
            match self.leader() {
                Some((node, _)) if node == self.speaker.node => return Ok(Lead::Here),
                Some((node, name)) => {
                    let heard = self.listener.heard_ago(node, world::now());
                    if heard.is_some_and(|ago| ago < fresh) {
                        return Ok(Lead::There(name));
                    }
                    // What is sent to a leader that is cut off would be neither done nor undone.
                    self.read_index(Freshness::Bounded(millis(fresh)), deadline).await?;
                    if self.leader() == Some((node, name.clone())) {
                        return Ok(Lead::There(name));
                    }
                }
                None => {
                    let patience = deadline.saturating_duration_since(world::now());
                    if patience.is_zero() {
                        return Err(Denied::NoQuorum);
                    }
                    let mut leadership = self.raft.server_metrics();
                    let changed = leadership.changed();
                    drop(tokio::time::timeout(patience.min(PAUSE), changed).await);
                }
            }
        }
    }
}

impl ControlStore for RaftStore {
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

    fn basis(&self) -> &'static str {
        "quorum"
    }

    fn leads(&self) -> Option<u64> {
        let leader = self.raft.as_leader().ok()?;
        Some(leader.to_committed_leader_id().term)
    }

    fn entries(&self, after: u64, most: usize) -> Promise<'_, Vec<Entry>> {
        let machine = Arc::clone(&self.machine);
        Box::pin(async move { machine.entries(after, most).await })
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
        self.machine.state()
    }

    fn last(&self) -> watch::Receiver<u64> {
        self.machine.last()
    }
}

/// What `look` says, once and for all: what it does not know it is asked again after `catch_up`.
pub(crate) async fn judge(
    look: impl Fn() -> Standing,
    catch_up: impl AsyncFnOnce() -> Result<(), Denied>,
) -> Result<Standing, Denied> {
    match look() {
        known @ Standing::Known(_) => Ok(known),
        Standing::Foreign => {
            catch_up().await?;
            Ok(look())
        }
    }
}

/// The machine answers an order with an outcome of its own kind.
pub(crate) fn unexpected(outcome: &Outcome) -> Denied {
    tracing::error!(?outcome, "an order has the outcome of another one");
    Denied::Unknown
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::judge;
    use crate::control_store::{Denied, Standing};
    use crate::lives::Lives;

    #[tokio::test]
    async fn a_cursor_is_foreign_only_to_one_who_has_caught_up() {
        let (mut lives, mut others) = (Lives::default(), Lives::default());
        lives.begin([1; 16], 0, 10);
        others.begin([2; 16], 0, 10);
        let (mine, other) = (lives.cursor(9), others.cursor(1));
        let last = Cell::new(5); // it lags: the log is at 9 elsewhere
        let look = |cursor: &_| lives.standing(cursor, last.get());
        // As it would be without catching up: a good cursor is taken for a foreign one, and its
        // edge drops everything that it stored.
        let hasty = judge(|| look(&mine), async || Ok(())).await;
        assert_eq!(hasty, Ok(Standing::Foreign));
        let alone = judge(|| look(&mine), async || Err(Denied::NoQuorum)).await;
        assert_eq!(alone, Err(Denied::NoQuorum));
        let caught_up = async || {
            last.set(9);
            Ok(())
        };
        assert_eq!(judge(|| look(&mine), caught_up).await, Ok(Standing::Known(9)));
        assert_eq!(judge(|| look(&other), caught_up).await, Ok(Standing::Foreign));
    }
}
