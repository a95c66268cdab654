//! What the cores share ([`Edge`]) and what each has of its own ([`Core`]).

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::Response;
use meridian_config::edge::{Accept, Cache};
use meridian_edge_rules::time::Now;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::body::Body;
use crate::body_memory::BodyMemory;
use crate::clock::SharedClock;
use crate::collapse::Collapse;
use crate::compress::Compressor;
use crate::connection::Load;
use crate::control_lag::ControlLag;
use crate::counters::{EdgeCounters, Lagging};
use crate::cursors::Cursors;
use crate::epochs::Epochs;
use crate::flow::InFlight;
use crate::hops::{OwnLoop, Via};
use crate::nodes::Nodes;
use crate::not_stored::NotStored;
use crate::outcome::Outcome;
use crate::purge::Purges;
use crate::route::{Site, Sites, folded, without_port};
use crate::shields::Shields;
use crate::staleness::Staleness;
use crate::store::Store;
use crate::tunnel::Tunnels;
use crate::upstream::Upstream;
use crate::usage::Runtimes;

/// How long a new edge waits for the control plane before it calls itself ready without.
const ATTACH: Duration = Duration::from_secs(3);

/// An edge: what its cores share.
pub(crate) struct Edge {
    pub(crate) name: String,
    /// What `Via` says of it.
    pub(crate) via: Via,
    /// What `CDN-Loop` says of it.
    pub(crate) own_loop: OwnLoop,
    pub(crate) clock: SharedClock,
    /// Where clients reach it, `host:port`: its listener and its public URL.
    pub(crate) authorities: Vec<String>,
    /// Swapped whole; requests in flight keep what they began with.
    pub(crate) sites: ArcSwap<Sites>,
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// Those of them that are asked before the origins.
    pub(crate) shields: Shields,
    /// What it is to other edges of its CDN, if it has any.
    pub(crate) nodes: Option<Nodes>,
    /// Where in the stream of purges it is.
    pub(crate) cursors: Cursors,
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) purges: Purges,
    pub(crate) store: Store,
    pub(crate) collapse: Arc<Collapse>,
    /// Why answers were not stored lately.
    pub(crate) not_stored: NotStored,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) body_memory: BodyMemory,
    pub(crate) background: Arc<Semaphore>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) compressor: Compressor,
    pub(crate) cache: Cache,
    pub(crate) accept: Accept,
    pub(crate) counters: EdgeCounters,
    pub(crate) staleness: Mutex<Staleness>,
    /// What comes of that, where the hit path looks.
    pub(crate) lag: Arc<ControlLag>,
    /// When it began, on the monotonic clock.
    pub(crate) began: Instant,
    /// Whether there is a control plane to follow.
    pub(crate) follows: bool,
    /// Whether each request has a line in the log.
    pub(crate) access_log: bool,
    /// One per core.
    pub(crate) loads: Vec<Arc<Load>>,
    /// One per core, once it runs.
    pub(crate) runtimes: Arc<Runtimes>,
}

impl Edge {
    /// How old its knowledge of purges is.
    pub(crate) fn staleness(&self) -> MutexGuard<'_, Staleness> {
        self.staleness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it knows the purges, or has waited for them long enough: with the control plane gone
    /// it serves all the same.
    pub(crate) fn is_attached(&self) -> bool {
        let now = self.clock.now().mono;
        !self.follows
            || self.counters.attached.load(Ordering::Relaxed) == 1
            || now.saturating_duration_since(self.began) > ATTACH
    }

    /// Every purge that was acknowledged longer ago than this is applied; `None`: nothing is known.
    pub(crate) fn control_staleness(&self) -> Option<Duration> {
        self.lag.bound(self.clock.now().mono)
    }

    /// Whether `authority` is one that the configuration knows, this edge's own or a host of
    /// `site`: then it may be told to an origin whose answer others will get.
    pub(crate) fn knows(&self, site: &Site, authority: &str) -> bool {
        let folded = folded(authority);
        let host = without_port(&folded).unwrap_or_default();
        self.authorities.contains(&folded)
            || site.hosts.iter().any(|known| known == host || *known == folded)
    }

    /// Whether `peer` is one of `accept.trusted_proxies`.
    pub(crate) fn trusts(&self, peer: SocketAddr) -> bool {
        self.accept.trusted_proxies.iter().any(|network| network.contains(peer.ip()))
    }
}

/// One core: its number among the edge's, and the tasks that it runs beside connections.
pub(crate) struct Core {
    pub(crate) edge: Arc<Edge>,
    pub(crate) index: usize,
    /// Fetches, revalidations, upstream connections.
    pub(crate) tasks: TaskTracker,
}

impl Core {
    pub(crate) fn now(&self) -> Now {
        self.edge.clock.now()
    }

    /// Counts what was done for a request of `site` while purges may have been missed.
    pub(crate) fn lagging(&self, site: &Site, done: Lagging) {
        if let Some(counters) = site.counters.get(self.index) {
            counters.count_lagging(done);
        }
    }

    /// Counts how a request of `site` ended; the answer carries it to the access log, if there is
    /// one.
    pub(crate) fn counted(
        &self,
        site: &Site,
        outcome: Outcome,
        mut response: Response<Body>,
    ) -> Response<Body> {
        if self.edge.access_log {
            response.extensions_mut().insert(outcome);
        }
        if let Some(counters) = site.counters.get(self.index) {
            counters.count(outcome, response.status().is_server_error());
        }
        response
    }
}
