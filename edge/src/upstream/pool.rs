//! Connections to one origin, kept open between requests: one pool per core, newest first.
//!
//! # Invariants
//! - A connection is in the pool only while no request is on it.
//! - At most `max_idle` per core, each for at most `idle_timeout`, and for less where the origin
//!   has said that it closes sooner: a request must not meet the end of its connection.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use hyper::client::conn::http1::SendRequest;

use crate::request_body::RequestBody;

/// How long before the origin closes a connection it is no longer used: its clock began when it
/// sent, ours when we had received, and a request takes its time on the way.
const MARGIN: Duration = Duration::from_secs(1);

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
    until: Instant,
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
        pool.retain(|idle| idle.lasts(now));
        let ready = pool.iter().rposition(|idle| idle.sender.is_ready())?;
        Some(pool.remove(ready).sender)
    }

    /// Keeps a connection for the next request, for as long as `kept` if there is room.
    pub(crate) fn put(
        &self,
        core: usize,
        sender: SendRequest<RequestBody>,
        kept: Duration,
        now: Instant,
    ) {
        let Some(mut pool) = self.of(core) else { return };
        let idle = Idle { sender, until: now + kept.min(self.idle_timeout) };
        if idle.lasts(now) && pool.len() < self.max_idle {
            pool.push(idle);
        }
    }

    /// Closes what has been idle for too long, whether or not anybody asks for a connection.
    pub(crate) fn reap(&self, now: Instant) {
        for core in 0..self.cores.len() {
            if let Some(mut pool) = self.of(core) {
                pool.retain(|idle| idle.lasts(now));
            }
        }
    }

    pub(crate) fn idle(&self) -> usize {
        (0..self.cores.len()).filter_map(|core| self.of(core)).map(|pool| pool.len()).sum()
    }
}

impl Idle {
    fn lasts(&self, now: Instant) -> bool {
        !self.sender.is_closed() && now < self.until
    }
}

/// How long an origin that answers with these fields keeps the connection for another request, as
/// far as it says (`Keep-Alive: timeout=5, max=100`, RFC 2068 §19.7.1.1), less a margin.
pub(crate) fn kept_for(answer: &HeaderMap) -> Option<Duration> {
    let fields = answer.get_all("keep-alive").iter().filter_map(|line| line.to_str().ok());
    let mut least: Option<Duration> = None;
    for parameter in fields.flat_map(|line| line.split(',')) {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let Ok(value) = value.trim().trim_matches('"').parse::<u32>() else { continue };
        let said = match name.trim() {
            name if name.eq_ignore_ascii_case("timeout") => {
                Duration::from_secs(value.into()).saturating_sub(MARGIN)
            }
            name if name.eq_ignore_ascii_case("max") && value == 0 => Duration::ZERO,
            _ => continue,
        };
        least = Some(least.map_or(said, |least| least.min(said)));
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_left_alone_before_its_origin_closes_it() {
        let rows = [
            (None, None),
            (Some("timeout=5"), Some(4)),
            (Some("timeout=5, max=100"), Some(4)),
            (Some("max=100"), None),
            (Some("max=0, timeout=60"), Some(0)),
            (Some("Timeout = \"15\" "), Some(14)),
            (Some("timeout=1"), Some(0)), // no time is left that could be relied on
            (Some("timeout=0"), Some(0)),
            (Some("timeout=soon"), None),
            (Some("timeout=-1, other"), None),
            (Some("timeout=99999999999999"), None),
        ];
        for (field, want) in rows {
            let mut fields = HeaderMap::new();
            if let Some(field) = field {
                fields.insert("keep-alive", field.parse().unwrap());
            }
            assert_eq!(kept_for(&fields), want.map(Duration::from_secs), "{field:?}");
        }
    }
}
