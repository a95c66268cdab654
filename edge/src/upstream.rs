//! One origin server as this edge reaches it: address, deadlines, connections, places.
//!
//! - [`exchange`]: one request, until the head of its answer
//! - [`pool`]: connections kept open, per core
//! - [`repeat`]: which request may be sent more than once
//! - [`bulkhead`]: requests in flight and waiting, bounded
//! - [`deadline`]: one point in time that all waits share · [`drip`]: whether a body comes fast enough
//!
//! - [`guard`]: what stands between the edge and its failures; in it the machines, each on injected
//!   time and chance: [`breaker`] with [`window`], [`budget`], [`backoff`], [`latency`],
//!   [`health`], [`gradient`]
//! - [`retry`]: whether a request goes out once more · [`choice`]: which of several is asked
//! - [`checks`]: active checks · [`silence`]: whether nobody is answered at all

mod backoff;
pub(crate) mod breaker;
#[cfg(test)]
mod breaker_flaps;
#[cfg(test)]
mod breaker_laws;
mod budget;
pub(crate) mod bulkhead;
pub(crate) mod checks;
pub(crate) mod choice;
pub(crate) mod deadline;
pub(crate) mod drip;
pub(crate) mod exchange;
mod gradient;
pub(crate) mod guard;
pub(crate) mod health;
mod latency;
pub(crate) mod pool;
pub(crate) mod repeat;
pub(crate) mod retry;
pub(crate) mod silence;
mod window;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use meridian_config::edge::Upstream as UpstreamConfig;
use meridian_config::edge::resilience::Health;
use meridian_config::shared::Peers;
use meridian_config::units::NodeName;
use tracing::{info, warn};

use crate::clock::SharedClock;
use crate::error::{FetchError, RunError};
use crate::pace::LeastRate;
use crate::upstream::bulkhead::{Bulkhead, Size};
use crate::upstream::guard::Guard;
use crate::upstream::pool::Pools;
use crate::upstream::silence::Silence;

/// An origin server.
pub(crate) struct Upstream {
    pub(crate) name: String,
    /// Another edge of this CDN, which is asked instead of an origin.
    pub(crate) is_shield: bool,
    /// `host:port`, from the name table.
    pub(crate) address: String,
    /// What it gets as `Host`.
    pub(crate) authority: HeaderValue,
    pub(crate) limits: Limits,
    pub(crate) bulkhead: Arc<Bulkhead>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) silence: Silence,
    /// How it is checked, if it is.
    pub(crate) checks: Health,
    /// Tells it how long it may take to answer.
    pub(crate) deadline_field: Option<HeaderName>,
    pub(crate) pools: Pools,
    /// The longest request body that is held before it goes on.
    pub(crate) retry_buffer: u64,
    pub(crate) counters: Counters,
    pub(crate) clock: SharedClock,
    /// Whether the last exchange failed: changes are told once, not with every request.
    failing: AtomicBool,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    pub(crate) queue: Duration,
    pub(crate) between_bytes: Duration,
    pub(crate) total: Duration,
    /// What it has to keep up while it sends a body.
    pub(crate) least_rate: LeastRate,
}

/// What was asked of it and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: AtomicU64,
    pub(crate) body_bytes: AtomicU64,
    pub(crate) connections: AtomicU64,
    /// In the order of [`FetchError::TOKENS`].
    pub(crate) errors: [AtomicU64; FetchError::TOKENS.len()],
}

impl Counters {
    pub(crate) fn failed(&self, error: &FetchError) {
        let token = error.token();
        let counted = FetchError::TOKENS.iter().zip(&self.errors).find(|(name, _)| **name == token);
        if let Some((_, count)) = counted {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Upstream {
    /// # Errors
    /// When its name stands in no name table, or its authority cannot be a field value.
    pub(crate) fn new(
        config: &UpstreamConfig,
        peers: &Peers,
        shields: &[NodeName],
        cores: usize,
        clock: &SharedClock,
    ) -> Result<Arc<Self>, RunError> {
        let breaks = |rule| RunError::Config {
            key: "origin.name".to_owned(),
            value: config.name.to_string(),
            rule,
        };
        let address = peers.get(&config.name).ok_or_else(|| breaks("must stand in [peers]"))?;
        let authority = config.authority.as_ref().unwrap_or(address).as_str();
        Ok(Arc::new(Self {
            name: config.name.to_string(),
            is_shield: shields.contains(&config.name),
            address: address.to_string(),
            authority: HeaderValue::from_str(authority)
                .map_err(|_invalid| breaks("its authority cannot be sent as Host"))?,
            limits: Limits {
                connect: config.connect_timeout.get(),
                queue: config.queue_timeout.get(),
                between_bytes: config.between_bytes_timeout.get(),
                total: config.total_timeout.get(),
                least_rate: LeastRate {
                    bytes: config.least_rate.get(),
                    grace: config.rate_grace.get(),
                },
            },
            bulkhead: Bulkhead::new(Size {
                max_requests: config.max_requests.get(),
                max_queue: config.max_queue.get(),
                reserve: config.client_reserve.get(),
                uploads: config.upload_share.get(),
            }),
            guard: Guard::new(config, clock.now().mono),
            silence: Silence::new(clock.now().mono),
            checks: config.health.clone(),
            deadline_field: config
                .deadline_field
                .as_ref()
                .map(|name| HeaderName::try_from(name.as_str()))
                .transpose()
                .map_err(|_invalid| breaks("its deadline_field cannot be a field name"))?,
            pools: Pools::new(cores, config.max_idle.get(), config.idle_timeout.get()),
            retry_buffer: config.retry_buffer.get(),
            counters: Counters::default(),
            clock: Arc::clone(clock),
            failing: AtomicBool::new(false),
        }))
    }

    /// An exchange failed.
    pub(crate) fn failed(&self, error: &FetchError) {
        self.counters.failed(error);
        if !error.is_of_client() && !self.failing.swap(true, Ordering::Relaxed) {
            warn!(target: "event", origin = self.name, %error, "an origin began to fail");
        }
    }

    /// An exchange went well.
    pub(crate) fn recovered(&self) {
        if self.failing.load(Ordering::Relaxed) && self.failing.swap(false, Ordering::Relaxed) {
            info!(target: "event", origin = self.name, "an origin answers again");
        }
    }
}
