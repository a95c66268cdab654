//! What this replica knows: the register in memory, and the part of it that is on disk.
//!
//! Answers reads from memory at once. Changes go to disk first, then to memory, one at a time and
//! off the async threads. Agreement with other replicas comes in here: a change is then agreed
//! upon before it is applied.
//!
//! # Invariants
//! - Nobody sees in memory what is not on disk, beats and what follows from them apart.
//! - A change that began ends, also if whoever asked for it has left: memory and disk stay equal.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use meridian_config::control::Control;
use meridian_config::units::{NodeName, Region};
use meridian_control_wire::problem::ErrorCode;
use meridian_control_wire::{EdgeState, Intent, RegionView, Registration};
use tokio::sync::Semaphore;

use crate::answer::Refusal;
use crate::auth::Fingerprint;
use crate::error::StoreError;
use crate::health::Rules;
use crate::register::{Member, Register, Turn, millis};
use crate::store::{Change, EdgeRow, Saved, Store};
use crate::world;

/// Register and store of a replica.
#[derive(Debug)]
pub(crate) struct Ledger {
    register: Mutex<Register>,
    store: Store,
    /// Changes go one at a time, in the order in which they came.
    turn: Arc<Semaphore>,
    position: AtomicU64,
    sound: AtomicBool,
}

impl Ledger {
    /// Opens the store and restores the register. Blocks.
    pub(crate) fn open(config: &Control) -> Result<Self, StoreError> {
        let rules = Rules {
            lapse: config.health.edge_lapse.get(),
            recovery: config.health.edge_recovery.get(),
        };
        let most = usize::try_from(config.limits.max_edges.get()).unwrap_or(usize::MAX);
        let register = Register::new(rules, config.health.edge_expiry.get(), most);
        Self::with(&config.data, register)
    }

    fn with(data: &Path, mut register: Register) -> Result<Self, StoreError> {
        let (store, saved) = Store::open(data)?;
        let Saved { edges, intents, position } = saved;
        let (now, wall) = (world::now(), world::wall());
        for row in edges {
            let unheard = row.unheard(wall);
            let EdgeRow { registration, secret, state, .. } = row;
            register.insert(Member::restored(registration, secret, state, unheard, now));
        }
        for (region, intent) in intents {
            register.intend(region, intent);
        }
        Ok(Self {
            register: Mutex::new(register),
            store,
            turn: Arc::new(Semaphore::new(1)),
            position: AtomicU64::new(position),
            sound: AtomicBool::new(true),
        })
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

    /// Whether the last change reached the disk.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound.load(Ordering::Relaxed)
    }

    /// Registers an edge with the fingerprint of its new secret; whether its name was known.
    ///
    /// Dropping the future does not undo what began.
    pub(crate) async fn enrol(
        self: &Arc<Self>,
        registration: Registration,
        secret: Fingerprint,
    ) -> Result<bool, Refusal> {
        self.in_turn(move |ledger| {
            let now = world::now();
            let (member, known) = {
                let register = ledger.register();
                if !register.has_room_for(&registration.name) {
                    let detail = "the register has limits.max_edges edges already";
                    return Err(Refusal::new(ErrorCode::RegisterFull, detail));
                }
                register.enrolled(registration, secret, now)
            };
            let row = Change::PutEdge(Box::new(row(&member, member.recorded, now)));
            ledger.durably(&[row])?;
            ledger.register().insert(member);
            Ok(known)
        })
        .await
    }

    /// Takes an edge out; `None` if there was none.
    pub(crate) async fn strike(
        self: &Arc<Self>,
        name: NodeName,
    ) -> Result<Option<Registration>, Refusal> {
        self.in_turn(move |ledger| {
            if ledger.register().member(name.as_str()).is_none() {
                return Ok(None);
            }
            ledger.durably(&[Change::RemoveEdge(name.clone())])?;
            Ok(ledger.register().remove(&name).map(|member| member.registration))
        })
        .await
    }

    /// Notes what an operator wants of a region; `None` if nothing is known of it.
    pub(crate) async fn intend(
        self: &Arc<Self>,
        region: Region,
        intent: Intent,
    ) -> Result<Option<RegionView>, Refusal> {
        self.in_turn(move |ledger| {
            if !ledger.register().knows(&region) {
                return Ok(None);
            }
            if ledger.register().intent(&region) != intent {
                ledger.durably(&[Change::Intend(region.clone(), intent)])?;
                ledger.register().intend(region.clone(), intent);
            }
            Ok(Some(ledger.register().region(&region, world::now())))
        })
        .await
    }

    /// Records how the edges are, and takes out those that have been unheard for too long.
    pub(crate) async fn keep(self: &Arc<Self>) -> Result<Vec<NodeName>, Refusal> {
        let now = world::now();
        {
            let register = self.register();
            if register.unrecorded(now).is_empty() && register.expired(now).is_empty() {
                return Ok(Vec::new());
            }
        }
        self.in_turn(|ledger| {
            let now = world::now();
            let (unrecorded, expired) = {
                let register = ledger.register();
                (register.unrecorded(now), register.expired(now))
            };
            let puts = unrecorded
                .iter()
                .map(|(member, state)| Change::PutEdge(Box::new(row(member, *state, now))));
            let removals = expired.iter().cloned().map(Change::RemoveEdge);
            ledger.durably(&puts.chain(removals).collect::<Vec<_>>())?;
            let mut register = ledger.register();
            for (member, state) in &unrecorded {
                register.recorded(&member.registration.name, *state);
            }
            for name in &expired {
                register.remove(name);
            }
            Ok(expired)
        })
        .await
    }

    /// Which edges changed their state since `told`.
    pub(crate) fn settle(&self, told: &mut BTreeMap<NodeName, EdgeState>) -> Vec<Turn> {
        self.register().settle(told, world::now())
    }

    /// Waits for the change that is being made, and lets no other begin.
    pub(crate) async fn end(&self) {
        let last = self.turn.acquire().await;
        self.turn.close();
        drop(last);
    }

    fn durably(&self, changes: &[Change]) -> Result<(), Refusal> {
        let applied = self.store.apply(changes);
        self.sound.store(applied.is_ok(), Ordering::Relaxed);
        match applied {
            Ok(position) => {
                self.position.store(position, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "a change cannot be made durable and is refused");
                Err(Refusal::new(ErrorCode::Internal, "the change cannot be made durable"))
            }
        }
    }

    /// Runs `change` off the async threads, after those that came before it.
    async fn in_turn<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let broke = |detail: &str| Refusal::new(ErrorCode::Internal, detail);
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else {
            return Err(broke("this replica is ending"));
        };
        let ledger = Arc::clone(self);
        let changed = tokio::task::spawn_blocking(move || {
            let changed = change(&ledger);
            drop(ledger);
            drop(turn); // here and last: who comes next waits for the change, not for its asker
            changed
        });
        changed.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a change broke");
            Err(broke("the change broke"))
        })
    }
}

fn row(member: &Member, state: EdgeState, now: Instant) -> EdgeRow {
    let heard_at = world::wall().saturating_sub(member.unheard(now));
    EdgeRow {
        registration: member.registration.clone(),
        secret: member.secret,
        state,
        heard_at_ms: millis(heard_at),
    }
}
