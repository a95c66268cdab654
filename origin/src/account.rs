//! One request from its head to the last byte of its answer, for everyone who counts it.

use std::sync::Arc;

use http::{Method, StatusCode};
use tokio::time::Instant;

use crate::connection::{Connection, InFlight};
use crate::counts::Tally;
use crate::metrics::{Metrics, Outcome};

/// Keeps a request in flight and counts what is sent for it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Account {
    in_flight: InFlight,
    tally: Arc<Tally>,
    metrics: Arc<Metrics>,
    began: Instant,
    body_bytes: u64,
    status: Option<StatusCode>,
    /// What the access log says of the request, if there is one.
    line: Option<Line>,
}

/// A request in the access log. No query: it may hold what is nobody's business.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) method: Method,
    pub(crate) path: String,
}

impl Account {
    pub(crate) fn open(
        in_flight: InFlight,
        tally: Arc<Tally>,
        metrics: Arc<Metrics>,
        line: Option<Line>,
    ) -> Self {
        let began = Instant::now();
        Self { in_flight, tally, metrics, began, body_bytes: 0, status: None, line }
    }

    pub(crate) fn connection(&self) -> &Connection {
        self.in_flight.connection()
    }

    /// The head of the answer is decided, and on its way.
    pub(crate) fn answers(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.in_flight.sends();
    }

    /// `bytes` more of the body are handed over.
    pub(crate) fn sends(&mut self, bytes: u64) {
        self.body_bytes += bytes;
        self.tally.sends(bytes);
        self.metrics.sends(bytes);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        self.metrics.request(Outcome::of(self.status), took);
        if let Some(Line { method, path }) = &self.line {
            let status = self.status.map(|status| status.as_u16());
            let (body_bytes, seconds) = (self.body_bytes, took.as_secs_f64());
            tracing::info!(%method, %path, status, body_bytes, seconds, "request");
        }
    }
}
