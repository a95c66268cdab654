//! Deadlines are points in time: each step gets what its own limit and the whole leave it.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

/// The end of all waiting for one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    /// How long the whole may take, for messages.
    total: Duration,
}

impl Deadline {
    /// `total` from `now` on.
    pub(crate) fn after(now: Instant, total: Duration) -> Self {
        Self { at: now + total, total }
    }

    /// What is left.
    pub(crate) fn left(self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }

    /// Waits for `step`, at most `limit` from `now` on and never past the deadline. On time-out
    /// the error is the limit that struck.
    pub(crate) async fn bound<F: Future>(
        self,
        now: Instant,
        limit: Duration,
        step: F,
    ) -> Result<F::Output, Duration> {
        let (at, struck) = match now + limit {
            at if at < self.at => (at, limit),
            _ => (self.at, self.total),
        };
        timeout_at(at.into(), step).await.map_err(|_elapsed| struck)
    }
}
