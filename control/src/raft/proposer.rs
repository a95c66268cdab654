//! Gathers orders into batches and proposes one after the other, on the replica that leads.
//!
//! # Invariants
//! - The first order of each leadership begins another life of the history: no cursor of it can be
//!   one of a history that was lost. A batch is proposed within the leadership that it was made
//!   for, or not at all.
//! - An order is answered once it has its effect; or refused, and then it has none; or told to be
//!   unknown. Each within `quorum_timeout` and a quarter.
//! - What one batch takes is bounded in orders and in bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian_config::control::raft::Raft as Limits;
use openraft::ReadPolicy;
use openraft::alias::CommittedLeaderIdOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::{Instant as _, LinearizerOption};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::control_store::Denied;
use crate::metrics::raft::RaftMetrics;
use crate::order::{Batch, Bounds, Order, Outcome};
use crate::raft::state::Raft;
use crate::raft::types::TypeConfig;
use crate::register::millis;
use crate::world;

/// Orders of one batch at most: bounds what the first of them waits for.
const MOST_AT_ONCE: usize = 1_024;

/// An order that waits, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Waiting {
    order: Order,
    size: usize,
    deadline: Instant,
    to: oneshot::Sender<Result<Outcome, Denied>>,
}

/// Where orders go in.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    waiting: mpsc::Sender<Waiting>,
    patience: Duration,
}

/// Whoever proposes.
#[derive(Debug)]
pub(crate) struct Proposer {
    raft: Raft,
    inbox: mpsc::Receiver<Waiting>,
    limits: Limits,
    bounds: Bounds,
    metrics: Arc<RaftMetrics>,
    /// The leadership whose life has begun.
    begun: Option<CommittedLeaderIdOf<TypeConfig>>,
}

/// Where orders go in, and who proposes them.
pub(crate) fn proposer(
    raft: Raft,
    limits: Limits,
    bounds: Bounds,
    most_waiting: usize,
    metrics: Arc<RaftMetrics>,
) -> (Inbox, Proposer) {
    let (waiting, inbox) = mpsc::channel(most_waiting);
    let patience = limits.quorum_timeout.get();
    (Inbox { waiting, patience }, Proposer { raft, inbox, limits, bounds, metrics, begun: None })
}

impl Inbox {
    /// What comes of `order`. Dropping the future does not take it back.
    pub(crate) async fn order(&self, order: Order) -> Result<Outcome, Denied> {
        let (to, answer) = oneshot::channel();
        let deadline = world::now() + self.patience;
        let waiting = Waiting { size: size_of(&order), order, deadline, to };
        match tokio::time::timeout(self.patience, self.waiting.send(waiting)).await {
            Ok(Ok(())) => {}
            Ok(Err(_closed)) => return Err(Denied::Ending),
            Err(_elapsed) => return Err(Denied::Busy),
        }
        answer.await.unwrap_or(Err(Denied::Unknown))
    }
}

/// The bytes of an order in the log.
fn size_of(order: &Order) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // What cannot be written cannot be proposed either, and is told there.
    drop(serde_json::to_writer(&mut counter, order));
    counter.0
}

impl Proposer {
    /// Proposes until nobody can order anything any more, or `stop`; then what is waiting is told.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut leadership = self.raft.server_metrics();
        let mut batch = Vec::new();
        loop {
            // Dropping any of them loses nothing: an order that is not taken stays in the inbox.
            let first = tokio::select! {
                () = stop.cancelled() => break,
                first = self.inbox.recv() => first,
                changed = leadership.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.begin().await;
                    continue;
                }
            };
            let Some(first) = first else { break };
            let mut size = first.size;
            batch.push(first);
            while batch.len() < MOST_AT_ONCE
                && size < self.limits.batch_size.to_usize()
                && let Ok(next) = self.inbox.try_recv()
            {
                size = size.saturating_add(next.size);
                batch.push(next);
            }
            self.propose(std::mem::take(&mut batch)).await;
        }
        self.inbox.close();
        while let Ok(waiting) = self.inbox.try_recv() {
            drop(waiting.to.send(Err(Denied::Ending)));
        }
    }

    /// Begins the life of a leadership that was just won, if one was.
    async fn begin(&mut self) {
        if let Ok(leader) = self.raft.as_leader()
            && self.begun != Some(leader.to_committed_leader_id())
        {
            self.propose(Vec::new()).await;
        }
    }

    async fn propose(&mut self, batch: Vec<Waiting>) {
        let now = world::now();
        let (in_time, late): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|waiting| waiting.deadline > now);
        refuse(late, &Denied::NoQuorum);
        let patience = self.limits.quorum_timeout.get();
        let deadline = in_time.iter().map(|waiting| waiting.deadline).min();
        let deadline = deadline.unwrap_or(now + patience);
        let (orders, answers): (Vec<_>, Vec<_>) =
            in_time.into_iter().map(|waiting| (waiting.order, waiting.to)).unzip();
        let outcome = self.agreed(orders, deadline).await;
        match outcome {
            Ok(outcomes) => {
                for (outcome, to) in outcomes.into_iter().zip(answers) {
                    drop(to.send(refused(outcome))); // who left does not hear it
                }
            }
            Err(denied) => {
                tracing::debug!(%denied, orders = answers.len(), "a batch came to nothing");
                for to in answers {
                    drop(to.send(Err(denied.clone())));
                }
            }
        }
    }

    /// What comes of `orders`, one for one.
    async fn agreed(
        &mut self,
        mut orders: Vec<Order>,
        deadline: Instant,
    ) -> Result<Vec<Outcome>, Denied> {
        let leader = self.raft.as_leader().map_err(|_forward| Denied::NotLeader)?;
        let leadership = leader.to_committed_leader_id();
        self.confirm(leader.last_quorum_acked().map(|at| at.elapsed()), deadline).await?;
        let begins = self.begun != Some(leadership);
        if begins {
            orders.insert(0, begin());
        }
        let (count, begun) = (orders.len(), world::now());
        let batch = Batch { at_ms: millis(world::wall()), bounds: self.bounds, orders };
        let (responder, answer) = ProgressResponder::complete_only();
        self.metrics.proposals.inc();
        let proposed = self.raft.write(batch).with_leader(leadership).responder(responder).await;
        proposed.map_err(|error| {
            tracing::error!(%error, "agreement has ended on this replica");
            Denied::Ending
        })?;
        let least = self.limits.quorum_timeout.get() / 4;
        let patience = deadline.saturating_duration_since(begun).max(least);
        // Dropped when the time is up: it may still have its effect, which is what unknown says.
        let answer = tokio::time::timeout(patience, answer).await;
        let mut outcomes = match answer {
            Ok(Ok(Ok(applied))) => applied.data,
            Ok(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => return Err(Denied::NotLeader),
            Ok(Ok(Err(error))) => {
                tracing::warn!(%error, "nobody knows what becomes of a batch");
                return Err(Denied::Unknown);
            }
            Ok(Err(_)) | Err(_) => return Err(Denied::Unknown),
        };
        self.metrics.committed(count, world::now().saturating_duration_since(begun));
        if begins {
            self.begun = Some(leadership);
            outcomes.drain(..1.min(outcomes.len()));
        }
        Ok(outcomes)
    }

    /// Makes sure, as far as can be known beforehand, that a majority hears this replica: what is
    /// proposed without it would be neither done nor undone.
    async fn confirm(&self, acked: Option<Duration>, deadline: Instant) -> Result<(), Denied> {
        if acked.is_some_and(|ago| ago < self.limits.heartbeat.get() / 4) {
            return Ok(());
        }
        let patience = deadline.saturating_duration_since(world::now());
        let option = LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(patience);
        match self.raft.get_read_linearizer(option).await {
            Ok(_confirmed) => Ok(()),
            Err(RaftError::APIError(_)) => Err(Denied::NoQuorum),
            Err(RaftError::Fatal(_)) => Err(Denied::Ending),
        }
    }
}

fn refuse(batch: Vec<Waiting>, denied: &Denied) {
    for waiting in batch {
        drop(waiting.to.send(Err(denied.clone())));
    }
}

/// An order that the machine refused is one that was denied.
fn refused(outcome: Outcome) -> Result<Outcome, Denied> {
    match outcome {
        Outcome::Refused(refused) => Err(Denied::Refused(refused)),
        outcome => Ok(outcome),
    }
}

/// A life that no other has been or will be.
fn begin() -> Order {
    let chance = world::random_key();
    let (cluster, rest) = chance.split_first_chunk::<16>().expect("32 bytes are more than 16");
    // The clock makes it grow, chance makes it the only one even if the clock was set back.
    let salt = rest.first_chunk::<2>().map_or(0, |bytes| u64::from(u16::from_le_bytes(*bytes)));
    Order::Begin { life: millis(world::wall()) << 16 | salt, cluster: *cluster }
}
