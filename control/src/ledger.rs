//! What this replica knows of the edges, in memory; changes of it are ordered like any other.
//!
//! Answers reads from memory at once. The machine tells it of every change that was applied, in
//! their order; who asks for one here is answered after that.
//!
//! # Invariants
//! - Nobody sees in memory what was not applied, beats and what follows from them apart.
//! - A change that began ends, also if whoever asked for it has left.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use meridian_config::control::Control;
use meridian_config::units::{NodeName, Region};
use meridian_control_wire::frame::ByeReason;
use meridian_control_wire::{EdgeState, Intent, RegionView, Registration};

use crate::auth::Fingerprint;
use crate::control_store::{ControlStore, Denied};
use crate::feed::Hub;
use crate::health::Rules;
use crate::order::{EdgeChange, EdgeRecord, Outcome, Refused};
use crate::register::{Member, Register, Turn, millis};
use crate::watcher::{EdgeEvent, EdgeRow, EdgeWatcher, EdgesSaved};
use crate::world;

/// Records that one order takes with it at most.
const RECORDS: usize = 1_000;

/// What is known of the edges.
#[derive(Debug)]
pub(crate) struct Ledger {
    register: Mutex<Register>,
    position: AtomicU64,
    /// Whose streams end when an edge registers anew or goes, wherever that was asked for.
    hub: OnceLock<Weak<Hub>>,
}

impl Ledger {
    /// Knows nothing until it is told.
    pub(crate) fn new(config: &Control) -> Self {
        let rules = Rules {
            lapse: config.health.edge_lapse.get(),
            recovery: config.health.edge_recovery.get(),
        };
        let most = usize::try_from(config.limits.max_edges.get()).unwrap_or(usize::MAX);
        let register = Register::new(rules, config.health.edge_expiry.get(), most);
        Self { register: Mutex::new(register), position: AtomicU64::new(0), hub: OnceLock::new() }
    }

    /// Has the streams of `hub` end with the registration that they belong to.
    pub(crate) fn govern(&self, hub: &Arc<Hub>) {
        drop(self.hub.set(Arc::downgrade(hub)));
    }

    fn forget(&self, edge: &NodeName, reason: ByeReason) {
        if let Some(hub) = self.hub.get().and_then(Weak::upgrade) {
            hub.forget(edge.as_str(), reason);
        }
    }

    /// The register. Held for memory's time only, never across an await.
    pub(crate) fn register(&self) -> MutexGuard<'_, Register> {
        // Every change to it is complete before the lock is let go: what a panic left is whole.
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many changes have been made durable, ever.
    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Registers an edge with the fingerprint of its new secret; whether its name was known.
    ///
    /// Dropping the future does not undo what began.
    pub(crate) async fn enrol(
        &self,
        store: &dyn ControlStore,
        registration: Registration,
        secret: Fingerprint,
    ) -> Result<bool, Denied> {
        if !self.register().has_room_for(&registration.name) {
            return Err(Refused::EdgesFull.into()); // without a word to the disk
        }
        let enrol = EdgeChange::Enrol { registration: Box::new(registration), secret };
        Ok(matches!(store.edge(enrol).await?, Outcome::Enrolled { known: true }))
    }

    /// Takes an edge out; `None` if there was none.
    pub(crate) async fn strike(
        &self,
        store: &dyn ControlStore,
        name: NodeName,
    ) -> Result<Option<Registration>, Denied> {
        match store.edge(EdgeChange::Remove(name)).await? {
            Outcome::Removed(registration) => Ok(registration.map(|registration| *registration)),
            _ => Err(Denied::Unknown),
        }
    }

    /// Notes what an operator wants of a region.
    pub(crate) async fn intend(
        &self,
        store: &dyn ControlStore,
        region: Region,
        intent: Intent,
    ) -> Result<RegionView, Denied> {
        store.edge(EdgeChange::Intend { region: region.clone(), intent }).await?;
        Ok(self.register().region(&region, world::now()))
    }

    /// Records how the edges are, and takes out those that have been unheard for too long.
    pub(crate) async fn keep(&self, store: &dyn ControlStore) -> Result<Vec<NodeName>, Denied> {
        let (now, wall) = (world::now(), world::wall());
        let (states, expired) = {
            let register = self.register();
            let record = |(member, state): (Member, EdgeState)| EdgeRecord {
                name: member.registration.name.clone(),
                state,
                heard_at_ms: millis(wall.saturating_sub(member.unheard(now))),
            };
            let states = register.unrecorded(now).into_iter().map(record).take(RECORDS);
            let secret = |name: NodeName| {
                let secret = register.member(name.as_str())?.secret;
                Some((name, secret))
            };
            let expired = register.expired(now).into_iter().filter_map(secret).take(RECORDS);
            (states.collect::<Vec<_>>(), expired.collect::<Vec<_>>())
        };
        if states.is_empty() && expired.is_empty() {
            return Ok(Vec::new());
        }
        match store.edge(EdgeChange::Keep { states, expired }).await? {
            Outcome::Kept(gone) => Ok(gone),
            _ => Err(Denied::Unknown),
        }
    }

    /// Which edges changed their state since `told`.
    pub(crate) fn settle(&self, told: &mut BTreeMap<NodeName, EdgeState>) -> Vec<Turn> {
        self.register().settle(told, world::now())
    }
}

impl EdgeWatcher for Ledger {
    fn restored(&self, saved: EdgesSaved) {
        let (now, wall) = (world::now(), world::wall());
        let mut register = self.register();
        register.clear();
        for row in saved.edges {
            let unheard = row.unheard(wall);
            let EdgeRow { registration, secret, state, .. } = row;
            register.insert(Member::restored(registration, secret, state, unheard, now));
        }
        for (region, intent) in saved.intents {
            register.intend(region, intent);
        }
        self.position.store(saved.position, Ordering::Relaxed);
    }

    fn happened(&self, events: Vec<EdgeEvent>, position: u64) {
        let now = world::now();
        let mut register = self.register();
        for event in events {
            match event {
                EdgeEvent::Enrolled { registration, secret } => {
                    self.forget(&registration.name, ByeReason::Replaced); // it starts empty
                    let (member, _known) = register.enrolled(*registration, secret, now);
                    register.insert(member);
                }
                EdgeEvent::Removed(name) => {
                    self.forget(&name, ByeReason::Unregistered);
                    drop(register.remove(&name));
                }
                EdgeEvent::Intended { region, intent } => register.intend(region, intent),
                EdgeEvent::Recorded { name, state } => register.recorded(&name, state),
            }
        }
        self.position.store(position, Ordering::Relaxed);
    }
}
