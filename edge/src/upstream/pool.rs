//! Connections to one origin, kept open between requests: one pool per core, newest first.
//!
//! # Invariants
//! - A connection is in the pool only while no request is on it.
//! - At most `max_idle` per core, each for at most `idle_timeout`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;

use crate::request_body::RequestBody;

/// The pools of all cores.
#[derive(Debug)]
pub(crate) struct Pools {
    cores: Vec<Mutex<Vec<Idle>>>,
    max_idle: usize,
    idle_timeout: Duration,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
}

impl Pools {
    pub(crate) fn new(cores: usize, max_idle: u32, idle_timeout: Duration) -> Self {
        let cores = (0..cores).map(|_| Mutex::default()).collect();
        Self { cores, max_idle: max_idle as usize, idle_timeout }
    }

    fn of(&self, core: usize) -> Option<MutexGuard<'_, Vec<Idle>>> {
        Some(self.cores.get(core)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A connection that can take a request now.
    pub(crate) fn take(&self, core: usize, now: Instant) -> Option<SendRequest<RequestBody>> {
        let mut pool = self.of(core)?;
        pool.retain(|idle| {
            !idle.sender.is_closed()
                && now.saturating_duration_since(idle.since) < self.idle_timeout
        });
        let ready = pool.iter().rposition(|idle| idle.sender.is_ready())?;
        Some(pool.remove(ready).sender)
    }

    /// Keeps a connection for the next request, if there is room.
    pub(crate) fn put(&self, core: usize, sender: SendRequest<RequestBody>, now: Instant) {
        let Some(mut pool) = self.of(core) else { return };
        if !sender.is_closed() && pool.len() < self.max_idle {
            pool.push(Idle { sender, since: now });
        }
    }

    pub(crate) fn idle(&self) -> usize {
        (0..self.cores.len()).filter_map(|core| self.of(core)).map(|pool| pool.len()).sum()
    }
}
