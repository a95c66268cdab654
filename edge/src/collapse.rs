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
//! - A flight leaves the table after its response is in the store, so that there is no moment in
//!   which it is in neither; who becomes leader looks into the store once more.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use http::{HeaderMap, Response, StatusCode};
use meridian_edge_rules::stored::StoredHead;
use tokio::sync::watch;

use crate::body::UpstreamBody;
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

/// A storable response whose body is still arriving.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) head: StoredHead,
    pub(crate) flow: Arc<Flow>,
    /// Its length, where the origin told.
    pub(crate) length: Option<u64>,
}

/// What a fetch came to.
#[derive(Debug, Clone)]
pub(crate) enum Landing {
    /// A response that may be shared; its body may still be arriving.
    Shared(Arc<Partial>),
    /// The stored response, validated (304).
    Validated(Stored),
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
    landing: watch::Sender<Option<Landing>>,
    /// What only the leader gets.
    private: Mutex<Option<Response<UpstreamBody>>>,
}

impl Flight {
    fn new() -> Arc<Self> {
        Arc::new(Self { landing: watch::Sender::new(None), private: Mutex::new(None) })
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

    /// Whether followers with these fields may still use it.
    fn suits(&self, request: &HeaderMap) -> bool {
        match &*self.landing.borrow() {
            None => true,
            Some(Landing::Shared(partial)) => partial.head.vary.matches(request),
            Some(
                Landing::Validated(_)
                | Landing::Private
                | Landing::Refused { .. }
                | Landing::Failed(_),
            ) => false,
        }
    }
}

fn lost() -> Landing {
    Landing::Failed(Arc::new(FetchError::ProxyInternalError))
}

/// A leader's hold on its flight: when it is gone, the flight has landed and left the table.
pub(crate) struct Lead {
    pub(crate) flight: Arc<Flight>,
    key: CacheKey,
    collapse: Arc<Collapse>,
}

impl Lead {
    pub(crate) fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Whether nobody waits for the landing: only this lead and the table know the flight.
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.flight) <= 2
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
    Follower(Arc<Flight>),
    /// Each for itself.
    Apart,
}

/// The fetches in progress, shared by all cores.
pub(crate) struct Collapse {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    flights: AtomicU64,
}

#[derive(Default)]
struct Shard {
    flights: HashMap<CacheKey, Vec<Arc<Flight>>, RandomState>,
    apart: HashMap<CacheKey, Instant, RandomState>,
}

impl Collapse {
    pub(crate) fn new() -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self { shards, hasher: RandomState::default(), flights: AtomicU64::new(0) })
    }

    fn shard(&self, key: &CacheKey) -> MutexGuard<'_, Shard> {
        let hash = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default();
        let shard = self.shards.get(hash % SHARDS).or(self.shards.first());
        shard.expect("there is at least one shard").lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a fetch for `key` that suits `request`, or begins one. `tried` are flights that this
    /// request has waited for in vain.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &CacheKey,
        request: &HeaderMap,
        tried: &[Arc<Flight>],
        now: Instant,
    ) -> Role {
        let mut shard = self.shard(key);
        if shard.apart.get(key).is_some_and(|until| now < *until) {
            return Role::Apart;
        }
        let flights = shard.flights.entry(key.clone()).or_default();
        let is_new = |flight: &&Arc<Flight>| !tried.iter().any(|t| Arc::ptr_eq(t, flight));
        if let Some(flight) = flights.iter().filter(is_new).find(|flight| flight.suits(request)) {
            return Role::Follower(Arc::clone(flight));
        }
        let flight = Flight::new();
        flights.push(Arc::clone(&flight));
        drop(shard);
        self.flights.fetch_add(1, Ordering::Relaxed);
        Role::Leader(Lead { flight, key: key.clone(), collapse: Arc::clone(self) })
    }

    fn remove(&self, key: &CacheKey, flight: &Arc<Flight>) {
        let mut shard = self.shard(key);
        if let Some(flights) = shard.flights.get_mut(key) {
            flights.retain(|other| !Arc::ptr_eq(other, flight));
            if flights.is_empty() {
                shard.flights.remove(key);
            }
        }
        drop(shard);
        self.flights.fetch_sub(1, Ordering::Relaxed);
    }

    /// Remembers that answers under `key` may not be shared.
    pub(crate) fn keep_apart(&self, key: &CacheKey, now: Instant) {
        let mut shard = self.shard(key);
        if shard.apart.len() >= MAX_APART {
            shard.apart.retain(|_, until| now < *until);
        }
        if shard.apart.len() < MAX_APART {
            shard.apart.insert(key.clone(), now + APART);
        }
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
        self.flights.load(Ordering::Relaxed)
    }
}
