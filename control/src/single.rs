//! A replica that is alone: it orders changes itself, and the disk is all it waits for.
//!
//! # Invariants
//! - One thread writes. Whatever waits when it looks is one batch, made durable by one write to
//!   disk: writers share it, and none is told before it.

use std::sync::Arc;
use std::time::Duration;

use meridian_config::control::Control;
use meridian_control_wire::cursor::Cursor;
use redb::Durability;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use crate::control_store::{
    Barrier, ControlStore, Denied, Entry, Lead, Promise, ReadLevel, Recent, Snapshot, Standing,
    StoreState,
};
use crate::disk::Folder;
use crate::error::StoreError;
use crate::machine::Machine;
use crate::machine::tables::Engine;
use crate::order::{
    Accepted, Batch, Bounds, Change, EdgeChange, Order, Outcome, PurgeRequest, Revision,
};
use crate::register::millis;
use crate::watcher::EdgeWatcher;
use crate::world;

/// Orders that one write to disk takes with it at most: bounds what the first of them waits for.
const MOST_AT_ONCE: usize = 1_024;

/// What somebody ordered, and where the answer goes.
#[derive(Debug)]
enum Waiting {
    Order(Order, oneshot::Sender<Result<Outcome, Denied>>),
    /// Nothing more will be written.
    End,
}

/// The store as the rest of the replica sees it.
#[derive(Debug)]
pub(crate) struct Single {
    orders: mpsc::Sender<Waiting>,
    machine: Arc<Machine>,
}

/// The thread that writes, before it runs.
#[derive(Debug)]
pub(crate) struct Writer {
    orders: mpsc::Receiver<Waiting>,
    machine: Arc<Machine>,
    bounds: Bounds,
}

/// Opens the store of a replica, and begins another life of it. Blocks.
pub(crate) fn open(
    config: &Control,
    watcher: Arc<dyn EdgeWatcher>,
) -> Result<(Single, Writer), StoreError> {
    let machine = Machine::open(&Folder(config.data.clone()), Engine::Single, watcher)?;
    let machine = Arc::new(machine);
    let most = config.journal.max_queue.get().try_into().unwrap_or(usize::MAX);
    let (inbox, orders) = mpsc::channel(most);
    let writer = Writer { orders, machine: Arc::clone(&machine), bounds: bounds(config) };
    writer.apply(vec![begin()])?;
    Ok((Single { orders: inbox, machine }, writer))
}

/// What the state may grow to under `config`.
pub(crate) fn bounds(config: &Control) -> Bounds {
    let journal = &config.journal;
    Bounds {
        keep: journal.keep.get(),
        folded: journal.max_folded.get(),
        keys: journal.max_keys.get(),
        key_expiry_ms: millis(journal.key_expiry.get()),
        registers: journal.max_registers.get(),
        edges: config.limits.max_edges.get(),
    }
}

/// A life that no other has been or will be.
pub(crate) fn begin() -> Order {
    let chance = world::random_key();
    let (cluster, rest) = chance.split_first_chunk::<16>().expect("32 bytes are more than 16");
    // The clock makes it grow, chance makes it the only one even if the clock was set back.
    let salt = rest.first_chunk::<2>().map_or(0, |bytes| u64::from(u16::from_le_bytes(*bytes)));
    Order::Begin { life: millis(world::wall()) << 16 | salt, cluster: *cluster }
}

impl Writer {
    /// Writes until it is told to end, or nobody can order anything any more. Blocks.
    pub(crate) fn run(mut self) {
        while let Some(first) = self.orders.blocking_recv() {
            let (mut orders, mut answers) = (Vec::new(), Vec::new());
            let mut next = Some(first);
            while let Some(waiting) = next {
                match waiting {
                    Waiting::Order(order, to) => {
                        orders.push(order);
                        answers.push(to);
                    }
                    Waiting::End => self.orders.close(), // what is in it already is still written
                }
                next = if orders.len() < MOST_AT_ONCE { self.orders.try_recv().ok() } else { None };
            }
            self.commit(orders, answers);
        }
    }

    fn apply(&self, orders: Vec<Order>) -> Result<Vec<Outcome>, StoreError> {
        let batch = Batch { at_ms: millis(world::wall()), bounds: self.bounds, orders };
        let outcomes = self.machine.apply(vec![batch], &Vec::new(), Durability::Immediate)?;
        Ok(outcomes.into_iter().next().unwrap_or_default())
    }

    /// Makes `orders` durable, and tells each who waits. Who does not wait any more does not hear.
    fn commit(&self, orders: Vec<Order>, answers: Vec<oneshot::Sender<Result<Outcome, Denied>>>) {
        if orders.is_empty() {
            return;
        }
        match self.apply(orders) {
            Ok(outcomes) => {
                for (outcome, to) in outcomes.into_iter().zip(answers) {
                    drop(to.send(match outcome {
                        Outcome::Refused(refused) => Err(Denied::Refused(refused)),
                        outcome => Ok(outcome),
                    }));
                }
            }
            Err(error) => {
                tracing::error!(%error, "changes cannot be made durable");
                for to in answers {
                    drop(to.send(Err(Denied::Unknown)));
                }
            }
        }
    }
}

impl Single {
    /// Waits until everything that was ordered is written, and lets nothing more come.
    pub(crate) async fn end(&self) {
        if self.orders.send(Waiting::End).await.is_ok() {
            self.orders.closed().await;
        }
    }

    async fn ordered(&self, order: Order) -> Result<Outcome, Denied> {
        let (to, answer) = oneshot::channel();
        let ending = |_closed| Denied::Ending;
        self.orders.send(Waiting::Order(order, to)).await.map_err(ending)?;
        answer.await.unwrap_or(Err(Denied::Unknown)) // the writer broke before this one's turn
    }
}

impl ControlStore for Single {
    fn purge(&self, request: PurgeRequest) -> Promise<'_, Accepted> {
        let order = Order::Purge { request, nonce: world::random_u64() };
        Box::pin(async move {
            match self.ordered(order).await? {
                Outcome::Purged(accepted) => Ok(accepted),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn change(&self, change: Change) -> Promise<'_, Arc<Revision>> {
        Box::pin(async move {
            match self.ordered(Order::Change(change)).await? {
                Outcome::Changed(revision) => Ok(revision),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn edge(&self, change: EdgeChange) -> Promise<'_, Outcome> {
        Box::pin(self.ordered(Order::Edge(change)))
    }

    fn register(&self, key: &str) -> Promise<'_, Option<Arc<Revision>>> {
        Box::pin(std::future::ready(Ok(self.machine.register(key))))
    }

    fn barrier(&self, level: ReadLevel) -> Promise<'_, Barrier> {
        let seq = self.machine.state().last;
        let barrier =
            Barrier { seq, basis: "single-replica", term: None, staleness: Some(Duration::ZERO) };
        Box::pin(std::future::ready(match level {
            // Its own memory is all there is to agree with: the stronger one costs nothing more.
            ReadLevel::Linearizable | ReadLevel::Local => Ok(barrier),
            ReadLevel::Lease | ReadLevel::Bounded(_) => {
                Err(Denied::NotOffered("this level is not offered by a replica that is alone"))
            }
        }))
    }

    fn lead(&self) -> Promise<'_, Lead> {
        Box::pin(std::future::ready(Ok(Lead::Here)))
    }

    fn leads(&self) -> Option<u64> {
        Some(0)
    }

    fn basis(&self) -> &'static str {
        "fsync"
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
        Box::pin(std::future::ready(Ok(self.machine.standing(cursor))))
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

/// The machine answers an order with an outcome of its own kind.
fn unexpected(outcome: &Outcome) -> Denied {
    tracing::error!(?outcome, "an order has the outcome of another one");
    Denied::Unknown
}

#[cfg(test)]
mod tests;
