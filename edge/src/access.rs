//! One wide line per request, at its end, where `log.access` asks for it.
//!
//! No query, cookie or credential: they may hold what is nobody's business.

use std::net::SocketAddr;
use std::time::Instant;

use http::{Method, Request, StatusCode};
use tracing::info;

use crate::clock::SharedClock;
use crate::outcome::Outcome;

/// A request that will have its line when the last of its answer is gone.
#[derive(Debug)]
pub(crate) struct Line {
    method: Method,
    path: String,
    peer: SocketAddr,
    status: u16,
    cache: &'static str,
    /// Body bytes handed on to the connection.
    pub(crate) sent: u64,
    began: Instant,
    clock: SharedClock,
}

impl Line {
    pub(crate) fn begin<B>(request: &Request<B>, peer: SocketAddr, clock: &SharedClock) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            peer,
            status: 0,
            cache: "-",
            sent: 0,
            began: clock.now().mono,
            clock: SharedClock::clone(clock),
        }
    }

    /// The head of the answer is there: what it says, and how the cache took part.
    pub(crate) fn answered(&mut self, status: StatusCode, outcome: Option<Outcome>) {
        self.status = status.as_u16();
        self.cache = outcome.map_or("refused", Outcome::token);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let took = self.clock.now().mono.saturating_duration_since(self.began);
        info!(
            target: "access",
            peer = %self.peer.ip(),
            method = %self.method,
            path = self.path,
            status = self.status,
            cache = self.cache,
            bytes = self.sent,
            milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "request",
        );
    }
}
