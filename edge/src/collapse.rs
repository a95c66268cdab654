//! One forward request for many (RFC 9111 §4): who leads, who follows, and what they hear.
//!
//! A flight is one fetch in progress. It begins with a leader; whoever asks for the same key
//! meanwhile follows. As soon as the head of the answer is there, followers that its `Vary`
//! allows read the body while it arrives. An answer that may not be shared is the leader's alone:
//! the others go on by themselves, and for a while nobody waits for that key
//! ([`Collapse::keep_apart`]), so that uncacheable pages do not queue behind each other.
//!
//! # Invariants
//! - A flight always lands: when its task ends in whatever way, all who wait hear of it.
//! - Who waits holds a [`Seat`] until they read the body or have left, so that a body is never given
//!   up while somebody is about to read it.
//! - A flight leaves the table after its response is in the store, so that there is no moment in
//!   which it is in neither; who becomes leader looks into the store once more.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::ops::Deref;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use http::{HeaderMap, Response, StatusCode};
use meridian_edge_rules::partial::ContentRange;
use meridian_edge_rules::stored::StoredHead;
use tokio::sync::{Notify, watch};

use crate::body::UpstreamBody;
use crate::epochs::{Demand, Epochs, Stamp, Tags};
use crate::error::FetchError;
use crate::flow::Flow;
use crate::key::CacheKey;
use crate::store::Stored;

/// Tables that the keys are spread over; each has a lock of its own.
const SHARDS: usize = 16;
/// Keys that are remembered as not to be collapsed, per shard.
const MAX_APART: usize = 1_024;
/// For how long.
const APART: Duration = Duration::from_secs(30);
/// Failures that are remembered, per shard.
const MAX_FAILED: usize = 1_024;

/// A storable response whose body is still arriving.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) head: StoredHead,
    pub(crate) tags: Tags,
    pub(crate) surrogate: HeaderMap, // for edges
    pub(crate) flow: Arc<Flow>,
    /// How much is arriving, where the origin told.
    pub(crate) length: Option<u64>,
    /// Which part that is, if it is not the whole that `head` is about.
    pub(crate) part: Option<ContentRange>,
    /// Whether it will have other forms than the one that it comes in.
    pub(crate) has_forms: bool,
}

/// What a fetch came to.
#[derive(Debug, Clone)]
pub(crate) enum Landing {
    /// A response that may be shared; its body may still be arriving.
    Shared(Arc<Partial>),
    /// The stored response, validated (304).
    Validated(Stored),
    /// No fetch was needed: somebody else had stored it by then. Who waits looks into the store.
    Stored,
    /// The origin has another representation than the one of which a part was asked for.
    Changed,
    /// A response for the leader alone.
    Private,
    /// The upstream answered with a server error: the leader has the answer, the others share
    /// the failure (no stampede on a sick upstream).
    Refused { upstream: Arc<str>, status: StatusCode },
    /// No usable answer.
    Failed(Arc<FetchError>),
}

/// One fetch in progress.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Tells it from others under the same key.
    number: u64,
    began: Instant,
    /// Taken before its request leaves; alive as long as anybody may use what it brings.
    stamp: Stamp,
    landing: watch::Sender<Option<Landing>>,
    /// What only the leader gets.
    private: Mutex<Option<Response<UpstreamBody>>>,
    /// Seats taken.
    waiting: AtomicUsize,
    /// A seat was left.
    left: Notify,
    /// Until when its failure is the answer to all who ask, where it failed.
    fails_until: OnceLock<Instant>,
    /// The stamp that a shield's answer has.
    filled: OnceLock<u64>,
}

impl Flight {
    fn new(number: u64, stamp: Stamp, began: Instant) -> Arc<Self> {
        Arc::new(Self {
            number,
            began,
            stamp,
            landing: watch::Sender::new(None),
            private: Mutex::new(None),
            waiting: AtomicUsize::new(0),
            left: Notify::new(),
            fails_until: OnceLock::new(),
            filled: OnceLock::new(),
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// When it began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Purges applied before its request left.
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp.epoch()
    }

    /// Its answer knows of no purge beyond this one. To be said before it lands.
    pub(crate) fn fill(&self, stamp: u64) {
        let _first = self.filled.set(stamp);
    }

    /// The stamp of what it brings: its own, unless that is older.
    pub(crate) fn filled(&self) -> u64 {
        self.filled.get().map_or(self.stamp(), |filled| self.stamp().min(*filled))
    }

    /// Whether what it brings takes less into account than it could, as far as is known.
    pub(crate) fn is_older(&self) -> bool {
        self.filled.get().is_some_and(|filled| (1..self.stamp()).contains(filled))
    }

    /// Tells everybody.
    pub(crate) fn land(&self, landing: Landing) {
        self.landing.send_replace(Some(landing));
    }

    /// Leaves `response` for the leader.
    pub(crate) fn leave(&self, response: Response<UpstreamBody>) {
        *self.private.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
    }

    /// Takes what was left for the leader.
    pub(crate) fn take(&self) -> Option<Response<UpstreamBody>> {
        self.private.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for the landing. Bounded by the deadline of the fetch, whose end always lands.
    ///
    /// Cancel safe.
    pub(crate) async fn landed(&self) -> Landing {
        let mut landing = self.landing.subscribe();
        match landing.wait_for(Option::is_some).await {
            Ok(landing) => landing.clone().unwrap_or_else(lost),
            Err(_closed) => lost(),
        }
    }

    /// Lets its failure, if that is what it comes to, be the answer to all who ask until then: one
    /// dead URL costs one try, not one for each who asks.
    pub(crate) fn fail_until(&self, until: Instant) {
        let _first = self.fails_until.set(until);
    }

    /// Until when its failure is remembered, if it has failed.
    fn failure(&self) -> Option<Instant> {
        match &*self.landing.borrow() {
            Some(Landing::Refused { .. } | Landing::Failed(_)) => self.fails_until.get().copied(),
            Some(
                Landing::Shared(_)
                | Landing::Validated(_)
                | Landing::Stored
                | Landing::Changed
                | Landing::Private,
            )
            | None => None,
        }
    }

    /// Whether followers with these fields may still use it.
    fn suits(&self, request: &HeaderMap, now: Instant) -> bool {
        match &*self.landing.borrow() {
            None => true,
            Some(Landing::Shared(partial)) => partial.head.vary.matches(request),
            Some(Landing::Refused { .. } | Landing::Failed(_)) => {
                self.fails_until.get().is_some_and(|until| now < *until)
            }
            Some(Landing::Validated(_) | Landing::Stored | Landing::Changed | Landing::Private) => {
                false
            }
        }
    }
}

fn lost() -> Landing {
    Landing::Failed(Arc::new(FetchError::ProxyInternalError))
}

/// A place among those who wait for a flight, the leader's client included. It is kept until the
/// answer is taken.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Flight>);

impl Seat {
    fn on(flight: &Arc<Flight>) -> Self {
        flight.waiting.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(flight))
    }
}

impl Deref for Seat {
    type Target = Flight;

    fn deref(&self) -> &Flight {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.left.notify_one(); // kept for the pump if it does not wait for it now
    }
}

/// Who wants the body of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Clients: when the last has left, only as much goes on as is worth it.
    ByClients,
    /// The store, in the background: all of it.
    ByStore,
}

/// A leader's hold on its flight: when it is gone, the flight has landed and left the table.
pub(crate) struct Lead {
    pub(crate) flight: Arc<Flight>,
    pub(crate) wanted: Wanted,
    key: CacheKey,
    collapse: Arc<Collapse>,
}

impl Lead {
    pub(crate) fn key(&self) -> &CacheKey {
        &self.key
    }

    /// A seat for the leader's own client.
    pub(crate) fn seat(&self) -> Seat {
        Seat::on(&self.flight)
    }

    /// Whether somebody has a seat still. To be asked before whether somebody reads: who leaves
    /// their seat reads by then, or never will.
    pub(crate) fn is_awaited(&self) -> bool {
        self.flight.waiting.load(Ordering::SeqCst) > 0
    }

    /// Waits until nobody has a seat.
    ///
    /// Cancel safe.
    pub(crate) async fn forsaken(&self) {
        while self.is_awaited() {
            self.seat_left().await;
        }
    }

    /// Waits until somebody has left their seat since this was last asked.
    ///
    /// Cancel safe.
    pub(crate) async fn seat_left(&self) {
        self.flight.left.notified().await;
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flight.landing.send_if_modified(|landing| {
            let lost_it = landing.is_none();
            if lost_it {
                *landing = Some(lost());
            }
            lost_it
        });
        self.collapse.remove(&self.key, &self.flight);
    }
}

/// How a request may get its answer.
pub(crate) enum Role {
    /// It fetches.
    Leader(Lead),
    /// Somebody fetches already.
    Follower(Seat),
    /// Each for itself, as answers before could not be shared: it fetches, and nobody follows.
    Apart(Lead),
}

/// The fetches in progress, shared by all cores.
pub(crate) struct Collapse {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    flights: AtomicU64,
    /// The number of the next flight.
    next: AtomicU64,
    epochs: Arc<Epochs>,
}

#[derive(Default)]
struct Shard {
    flights: HashMap<CacheKey, Vec<Arc<Flight>>, RandomState>,
    apart: HashMap<CacheKey, Instant, RandomState>,
    /// Flights that have failed and are remembered, the first to be forgotten first.
    failed: VecDeque<(Instant, CacheKey, Arc<Flight>)>,
}

impl Shard {
    fn remove(&mut self, key: &CacheKey, flight: &Arc<Flight>) {
        if let Some(flights) = self.flights.get_mut(key) {
            flights.retain(|other| !Arc::ptr_eq(other, flight));
            if flights.is_empty() {
                self.flights.remove(key);
            }
        }
    }

    /// Forgets failures whose time is over.
    fn forget(&mut self, now: Instant) {
        while self.failed.front().is_some_and(|(until, _, _)| *until <= now)
            && let Some((_, key, flight)) = self.failed.pop_front()
        {
            self.remove(&key, &flight);
        }
    }
}

impl Collapse {
    pub(crate) fn new(epochs: Arc<Epochs>) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self {
            shards,
            hasher: RandomState::default(),
            flights: AtomicU64::new(0),
            next: AtomicU64::new(0),
            epochs,
        })
    }

    fn shard(&self, key: &CacheKey) -> MutexGuard<'_, Shard> {
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default();
        let shard = self.shards.get(hash % SHARDS).or(self.shards.first());
        shard.expect("there is at least one shard").lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a fetch for `key` that suits `request`, or begins one. `tried` are the numbers of the
    /// flights that this request has waited for in vain. A fetch that began before a purge which
    /// was applied before this request came (`demand`) is not for it.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &CacheKey,
        request: &HeaderMap,
        tried: &[u64],
        demand: Demand,
        now: Instant,
    ) -> Role {
        let mut shard = self.shard(key);
        shard.forget(now);
        if shard.apart.get(key).is_some_and(|until| now < *until) {
            drop(shard);
            return Role::Apart(self.lead(key, &self.flight(now)));
        }
        let flights = shard.flights.entry(key.clone()).or_default();
        let may_do = |flight: &&Arc<Flight>| {
            !tried.contains(&flight.number) && demand.is_met_by(flight.stamp())
        };
        if let Some(flight) =
            flights.iter().filter(may_do).find(|flight| flight.suits(request, now))
        {
            return Role::Follower(Seat::on(flight));
        }
        let flight = self.flight(now);
        flights.push(Arc::clone(&flight));
        drop(shard);
        Role::Leader(self.lead(key, &flight))
    }

    /// The lead of a fetch that nobody else may follow.
    pub(crate) fn lead_alone(self: &Arc<Self>, key: &CacheKey, now: Instant) -> Lead {
        self.lead(key, &self.flight(now))
    }

    fn flight(&self, now: Instant) -> Arc<Flight> {
        Flight::new(self.next.fetch_add(1, Relaxed), self.epochs.stamp(), now)
    }

    fn lead(self: &Arc<Self>, key: &CacheKey, flight: &Arc<Flight>) -> Lead {
        self.flights.fetch_add(1, Relaxed);
        let (flight, key, collapse) = (Arc::clone(flight), key.clone(), Arc::clone(self));
        Lead { flight, wanted: Wanted::ByClients, key, collapse }
    }

    fn remove(&self, key: &CacheKey, flight: &Arc<Flight>) {
        let mut shard = self.shard(key);
        let is_listed = shard
            .flights
            .get(key)
            .is_some_and(|flights| flights.iter().any(|other| Arc::ptr_eq(other, flight)));
        match flight.failure() {
            Some(until) if is_listed && shard.failed.len() < MAX_FAILED => {
                shard.failed.push_back((until, key.clone(), Arc::clone(flight)));
            }
            Some(_) | None => shard.remove(key, flight),
        }
        drop(shard);
        self.flights.fetch_sub(1, Relaxed);
    }

    /// What is arriving for `key` that `request` may read, if anything is.
    pub(crate) fn arriving(&self, key: &CacheKey, request: &HeaderMap) -> Option<Arc<Partial>> {
        let shard = self.shard(key);
        shard.flights.get(key)?.iter().find_map(|flight| match &*flight.landing.borrow() {
            Some(Landing::Shared(partial)) => {
                partial.head.vary.matches(request).then(|| Arc::clone(partial))
            }
            None
            | Some(
                Landing::Validated(_)
                | Landing::Stored
                | Landing::Changed
                | Landing::Private
                | Landing::Refused { .. }
                | Landing::Failed(_),
            ) => None,
        })
    }

    /// Remembers that answers under `key` may not be shared.
    pub(crate) fn keep_apart(&self, key: &CacheKey, now: Instant) {
        let mut shard = self.shard(key);
        if shard.apart.len() >= MAX_APART {
            shard.apart.retain(|_, until| now < *until);
        }
        if shard.apart.len() >= MAX_APART
            && let Some(some) = shard.apart.keys().next().cloned()
        {
            // Any will do: it costs one more round of waiting for a key that is asked for again.
            shard.apart.remove(&some);
        }
        shard.apart.insert(key.clone(), now + APART);
    }

    /// Forgets that, as an answer could be shared after all.
    pub(crate) fn bring_together(&self, key: &CacheKey) {
        let mut shard = self.shard(key);
        if !shard.apart.is_empty() {
            shard.apart.remove(key);
        }
    }

    /// Whether requests for `key` go each for themselves now.
    pub(crate) fn is_apart(&self, key: &CacheKey, now: Instant) -> bool {
        self.shard(key).apart.get(key).is_some_and(|until| now < *until)
    }

    /// Fetches in progress.
    pub(crate) fn flights(&self) -> u64 {
        self.flights.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epochs::Limits;
    use crate::scope::{Selector, Strength};

    #[expect(clippy::disallowed_methods, reason = "any point in time will do")]
    fn now() -> Instant {
        Instant::now()
    }

    fn join(collapse: &Arc<Collapse>, tried: &[u64]) -> Role {
        let key = CacheKey::from("s http  /k");
        let demand = collapse.epochs.demand(&key.place());
        collapse.join(&key, &HeaderMap::new(), tried, demand, now())
    }

    fn collapse() -> Arc<Collapse> {
        Collapse::new(Epochs::new(Limits { selectors: 100, shards: 1 }, 0))
    }

    fn lead(role: Role) -> Lead {
        match role {
            Role::Leader(lead) => lead,
            Role::Follower(_) | Role::Apart(_) => panic!("it should lead"),
        }
    }

    fn seat(role: Role) -> Seat {
        match role {
            Role::Follower(seat) => seat,
            Role::Leader(_) | Role::Apart(_) => panic!("it should follow"),
        }
    }

    #[tokio::test]
    async fn a_lead_that_is_gone_has_landed_and_left_the_table() {
        let collapse = collapse();
        let first = lead(join(&collapse, &[]));
        let follower = seat(join(&collapse, &[]));
        drop(first);
        assert!(matches!(follower.landed().await, Landing::Failed(_)));
        assert_eq!(collapse.flights(), 0);
        lead(join(&collapse, &[]));
    }

    #[tokio::test]
    async fn followers_of_a_lead_that_found_it_stored_are_told_to_look_there() {
        let collapse = collapse();
        let first = lead(join(&collapse, &[]));
        let follower = seat(join(&collapse, &[]));
        first.flight.land(Landing::Stored);
        drop(first);
        assert!(matches!(follower.landed().await, Landing::Stored));
    }

    #[tokio::test]
    async fn a_failure_is_remembered_for_its_while_and_then_forgotten() {
        let collapse = collapse();
        let key = CacheKey::from("s http  /k");
        let demand = collapse.epochs.demand(&key.place());
        let began = now();
        let at = |millis| began + Duration::from_millis(millis);
        let ask = |now| collapse.join(&key, &HeaderMap::new(), &[], demand, now);
        let refused = || Landing::Refused { upstream: "o".into(), status: StatusCode::BAD_GATEWAY };
        let first = lead(ask(began));
        first.flight.fail_until(at(1_000));
        first.flight.land(refused());
        drop(first);
        for late in [0, 999] {
            let landing = seat(ask(at(late))).landed().await;
            assert!(matches!(landing, Landing::Refused { .. }), "{late}");
        }
        let second = lead(ask(at(1_000)));
        second.flight.fail_until(at(2_000));
        second.flight.land(Landing::Private); // no failure: nothing to remember
        drop(second);
        let third = lead(ask(at(1_001)));
        third.flight.land(refused()); // nobody said that it is to be remembered
        drop(third);
        lead(ask(at(1_002)));
        assert_eq!(collapse.flights(), 0);
        assert!(collapse.shards.iter().all(|shard| shard.lock().unwrap().flights.is_empty()));
    }

    #[test]
    fn a_flight_is_awaited_until_the_last_seat_is_left() {
        let collapse = collapse();
        let first = lead(join(&collapse, &[]));
        assert!(!first.is_awaited());
        let (own, follower) = (first.seat(), seat(join(&collapse, &[])));
        drop(own);
        assert!(first.is_awaited());
        let number = follower.number();
        drop(follower);
        assert!(!first.is_awaited());
        lead(join(&collapse, &[number])); // who has tried it in vain does not follow it again
    }

    #[test]
    fn who_comes_after_a_purge_does_not_follow_a_fetch_that_began_before_it() {
        let collapse = collapse();
        let before = lead(join(&collapse, &[]));
        seat(join(&collapse, &[]));
        collapse.epochs.apply([Selector::Prefix { site: None, path: "/other" }], Strength::Hard);
        seat(join(&collapse, &[])); // that one does not matter here
        collapse.epochs.apply([Selector::Prefix { site: Some("s"), path: "/k" }], Strength::Soft);
        let after = lead(join(&collapse, &[]));
        assert_eq!((before.flight.stamp(), after.flight.stamp()), (0, 2));
        assert_eq!(seat(join(&collapse, &[])).number(), after.flight.number());
    }
}
