//! From orders to entries of the log, and from entries to the machine: one task, one at a time.
//!
//! # Invariants
//! - An order is answered once it has its effect here; or refused, and then it has none; or told to
//!   be unknown.
//! - The first batch of each term in which this replica hears the edges begins another life of the
//!   history: no cursor of it can be one of a history that was lost with an older copy of etcd.
//! - What a watch tells is a hint: entries are applied by number, and whoever waits for one that no
//!   watch tells of has the log read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_client::{EventType, WatchResponse, WatchStream};
use meridian_config::control::etcd::Etcd as Limits;
use meridian_config::units::NodeName;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::control_store::Denied;
use crate::etcd::entry::{Base, Proposal};
use crate::etcd::history::{History, denied};
use crate::etcd::inbox::{Outlet, Waiting};
use crate::etcd::log::{Appended, Fault};
use crate::etcd::snapshot::Maker;
use crate::order::{Batch, Bounds, Order, Outcome};
use crate::register::millis;
use crate::{single, world};

/// How soon etcd is tried again that did not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// How soon a snapshot is tried again that did not come about.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(10);

/// For how long an answer of etcd is taken to say that it has a majority still.
const CONFIRMED: Duration = Duration::from_millis(50);

/// The task.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) name: NodeName,
    pub(super) history: History,
    pub(super) outlet: Outlet,
    pub(super) limits: Limits,
    pub(super) bounds: Bounds,
    /// The term whose life has begun.
    pub(super) begun: Option<u64>,
    /// When etcd last answered with its majority: when that was asked for.
    pub(super) confirmed: Option<Instant>,
    /// Snapshots that are being made: at most one.
    pub(super) making: JoinSet<Result<Option<Base>, Fault>>,
    /// No snapshot is made before.
    pub(super) rest_until: Option<Instant>,
}

impl Driver {
    /// Follows the log until `stop`; then what waits is told.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let following = self.follow(&stop).await;
            if self.history.shared.is_broken() {
                stop.cancelled().await;
            }
            match following {
                Ok(()) => break,
                Err(fault @ Fault::Foreign(_)) => {
                    self.history.shared.breaks(&fault);
                    stop.cancelled().await;
                }
                Err(fault) => {
                    tracing::warn!(%fault, "etcd is not followed");
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
            }
        }
        self.outlet.close();
        let machine = Arc::clone(&self.history.machine);
        match world::blocking(move || machine.sync()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what was applied may be read again"),
            Err(error) => tracing::warn!(%error, "what was applied may be read again"),
        }
    }

    fn patience(&self) -> Duration {
        self.limits.quorum_timeout.get()
    }

    /// Follows the log as long as etcd answers.
    async fn follow(&mut self, stop: &CancellationToken) -> Result<(), Fault> {
        let begun = world::now();
        self.history.is_same(begun + self.patience()).await?;
        let revision = self.history.catch_up(self.patience()).await?;
        self.confirmed = Some(begun);
        if !self.history.shared.caught_up.swap(true, Ordering::Relaxed) {
            tracing::info!(index = self.history.at.index, "the log in etcd is followed");
        }
        let mut tail = self.history.log.tail(revision.saturating_add(1)).await?;
        let mut turns = self.history.shared.turns();
        let mut wanted = self.history.shared.wanted.subscribe();
        loop {
            // Dropping any of them loses nothing: an order or an answer that is not taken stays.
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                batch = self.outlet.batch() => match batch {
                    Some(batch) => self.propose(batch).await?,
                    None => return Ok(()),
                },
                told = tail.message() => self.hear(told, &mut tail).await?,
                _turned = turns.changed() => self.begin().await?,
                _wanted = wanted.changed() => self.fetch().await?,
                Some(made) = self.making.join_next() => self.made(made).await?,
            }
            self.tidy();
        }
    }

    /// Takes in what a watch tells.
    async fn hear(
        &mut self,
        told: Result<Option<WatchResponse>, etcd_client::Error>,
        tail: &mut WatchStream,
    ) -> Result<(), Fault> {
        let lost = |why: String| Fault::Nothing(format!("the watch ended: {why}"));
        let told = told.map_err(|error| lost(error.to_string()))?;
        let told = told.ok_or_else(|| lost("etcd closed it".to_owned()))?;
        if told.canceled() {
            // Revisions that were compacted are read from the log, or from the snapshot.
            drop(tail.cancel(told.watch_id()).await);
            return Err(lost(told.cancel_reason().to_owned()));
        }
        let mut entries = Vec::new();
        for event in told.events() {
            if let (EventType::Put, Some(pair)) = (event.event_type(), event.kv()) {
                let index = self.history.log.index_of(pair)?;
                entries.push((index, Bytes::copy_from_slice(pair.value())));
            }
        }
        let last = entries.last().map_or(0, |(index, _)| *index);
        self.history.apply(entries).await?;
        if last > self.history.at.index {
            self.history.catch_up(self.patience()).await?;
        }
        Ok(())
    }

    /// Reads what somebody is known to have and no watch has told of yet.
    async fn fetch(&mut self) -> Result<(), Fault> {
        if *self.history.shared.wanted.borrow() > self.history.at.index {
            self.history.catch_up(self.patience()).await?;
        }
        Ok(())
    }

    /// Begins the life of a term, if one has just begun.
    async fn begin(&mut self) -> Result<(), Fault> {
        let term = self.history.shared.hears(world::now());
        if term.is_some() && term != self.begun { self.propose(Vec::new()).await } else { Ok(()) }
    }

    /// Has `batch` written and applied, and answers each of it.
    async fn propose(&mut self, batch: Vec<Waiting>) -> Result<(), Fault> {
        let now = world::now();
        let (in_time, late): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|waiting| waiting.deadline > now);
        for waiting in late {
            drop(waiting.to.send(Err(Denied::NoQuorum)));
        }
        let deadline = in_time.iter().map(|waiting| waiting.deadline).min();
        let deadline = deadline.unwrap_or(now + self.patience());
        let (orders, answers): (Vec<_>, Vec<_>) =
            in_time.into_iter().map(|waiting| (waiting.order, waiting.to)).unzip();
        match self.agreed(orders, deadline).await {
            Ok(outcomes) => {
                for (outcome, to) in outcomes.into_iter().zip(answers) {
                    drop(to.send(match outcome {
                        Outcome::Refused(refused) => Err(Denied::Refused(refused)),
                        outcome => Ok(outcome),
                    }));
                }
                Ok(())
            }
            Err(fault) => {
                for to in answers {
                    drop(to.send(Err(denied(&fault))));
                }
                if fault == Fault::TooLarge { Ok(()) } else { Err(fault) }
            }
        }
    }

    /// What comes of `orders`, one for one.
    async fn agreed(
        &mut self,
        mut orders: Vec<Order>,
        deadline: Instant,
    ) -> Result<Vec<Outcome>, Fault> {
        let asked = world::now();
        let fresh = |at: Instant| asked.saturating_duration_since(at) < CONFIRMED;
        if !self.confirmed.is_some_and(fresh) {
            // What is written to an etcd without a majority would be neither done nor undone.
            let head = self.history.log.head(deadline).await?;
            self.history.shared.want(head);
            self.confirmed = Some(asked);
        }
        let term = self.history.shared.hears(world::now());
        let begins = (term.is_some() && term != self.begun)
            // Whoever writes first names the cluster.
            || self.history.machine.cluster().is_none();
        if begins {
            orders.insert(0, single::begin());
        }
        if orders.is_empty() {
            return Ok(Vec::new());
        }
        let batch = Batch { at_ms: millis(world::wall()), bounds: self.bounds, orders };
        let (nonce, by) = (world::random_u64(), self.name.clone());
        let bytes = serde_json::to_vec(&Proposal { nonce, by, batch });
        let bytes: Bytes = bytes.map_err(|error| Fault::Nothing(error.to_string()))?.into();
        let mut outcomes = loop {
            let asked = world::now();
            let index = self.history.at.index + 1;
            match self.history.log.append(index, &bytes, deadline).await? {
                Appended::Done => {
                    self.confirmed = Some(asked);
                    break self.written(index, bytes).await?;
                }
                Appended::Taken => {
                    // Its bytes stand nowhere: that this fails does nothing.
                    let caught_up = self.history.catch_up(self.patience()).await;
                    caught_up.map_err(certain)?;
                }
            }
        };
        if begins {
            self.begun = term;
            outcomes.drain(..1.min(outcomes.len()));
        }
        Ok(outcomes)
    }

    /// Applies what was just written as the entry `index`.
    async fn written(&mut self, index: u64, bytes: Bytes) -> Result<Vec<Outcome>, Fault> {
        let outcomes = self.history.apply(vec![(index, bytes)]).await;
        // It is in the log: whatever goes wrong here, its effect will be seen.
        let outcomes = outcomes.map_err(|fault| match fault {
            Fault::Foreign(why) => {
                self.history.shared.breaks(&why);
                Fault::Unknown(why)
            }
            other => Fault::Unknown(other.to_string()),
        })?;
        Ok(outcomes.into_iter().next().unwrap_or_default())
    }

    /// Has a snapshot made when the log has grown enough: by whoever hears the edges.
    fn tidy(&mut self) {
        let now = world::now();
        let base = self.history.base.as_ref().map_or(0, |base| base.index);
        let grown = self.history.at.index.saturating_sub(base);
        let heavy = self.history.bytes >= self.limits.log_size.to_usize();
        let rests = self.rest_until.is_some_and(|until| now < until);
        let enough = heavy || grown >= u64::from(self.limits.snapshot_every.get());
        if !enough || rests || !self.making.is_empty() || self.history.shared.hears(now).is_none() {
            return;
        }
        let keep = if heavy { 0 } else { u64::from(self.limits.keep_entries.get()) };
        let maker = Maker {
            log: Arc::clone(&self.history.log),
            machine: Arc::clone(&self.history.machine),
            folder: self.history.folder.clone(),
            piece: self.limits.request_size.to_usize(),
        };
        self.rest_until = Some(now + SNAPSHOT_PAUSE);
        self.making.spawn(maker.make(self.history.base.clone(), keep));
    }

    /// Notes that a snapshot is made, or is not.
    async fn made(
        &mut self,
        made: Result<Result<Option<Base>, Fault>, JoinError>,
    ) -> Result<(), Fault> {
        match made {
            Ok(Ok(Some(base))) => {
                self.history.rebased(Some(base));
                self.rest_until = None;
            }
            Ok(Ok(None)) => drop(self.history.catch_up(self.patience()).await?),
            Ok(Err(fault)) => tracing::warn!(%fault, "no snapshot is made"),
            Err(error) => tracing::error!(%error, "no snapshot is made"),
        }
        Ok(())
    }
}

/// The fault of a step before anything was written.
fn certain(fault: Fault) -> Fault {
    match fault {
        Fault::Unknown(why) => Fault::Nothing(why),
        other => other,
    }
}
