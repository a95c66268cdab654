//! Whether a body comes fast enough while its origin is what is waited for.
//!
//! A limit between two bytes alone lets an origin keep a connection, a place and a client for as long
//! as it likes. A limit in time for the whole would end large bodies that slow clients read. So it is
//! its rate that has a bound, and only while the edge is ready to take more.
//!
//! # Invariants
//! - Time in which nobody asks for the next part does not count: it is the client who is slow.
//! - What has no end by its nature (`text/event-stream`) keeps up no rate.

use std::time::Instant;

use http::{HeaderMap, header};

use crate::clock::SharedClock;
use crate::error::BodyError;
use crate::pace::{LeastRate, Pace};
use crate::upstream::Upstream;

/// Comes when there is news.
const EVENTS: &str = "text/event-stream";

/// See the module.
#[derive(Debug)]
pub(crate) struct Drip {
    pace: Pace,
    least: LeastRate,
    clock: SharedClock,
    began: Instant,
    waits: bool,
}

impl Drip {
    /// For a body with these fields; `None`: it may come as slowly as it likes.
    pub(crate) fn of(upstream: &Upstream, fields: &HeaderMap) -> Option<Self> {
        let (least, clock) = (upstream.limits.least_rate, &upstream.clock);
        let has_rate = least.bytes > 0 && !are_events(fields);
        has_rate.then(|| Self::new(least, clock.clone()))
    }

    fn new(least: LeastRate, clock: SharedClock) -> Self {
        let began = clock.now().mono;
        Self { pace: Pace::default(), least, clock, began, waits: false }
    }

    /// The next part was asked for, and is not there.
    pub(crate) fn wait(&mut self) {
        if !self.waits {
            self.waits = true;
            self.pace.wait(self.now());
        }
    }

    /// So many bytes are there.
    ///
    /// # Errors
    /// When they came too slowly.
    pub(crate) fn came(&mut self, bytes: usize) -> Result<(), BodyError> {
        self.pace.count(bytes);
        if !self.waits {
            return Ok(());
        }
        let now = self.now();
        let is_below = self.pace.is_below(self.least, now);
        self.waits = false;
        self.pace.go_on(now);
        if is_below { Err(BodyError::TooSlow(self.least.bytes, self.least.grace)) } else { Ok(()) }
    }

    /// Milliseconds since the head came.
    fn now(&self) -> u64 {
        let since = self.clock.now().mono.saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

fn are_events(fields: &HeaderMap) -> bool {
    let said = fields.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = said.and_then(|said| said.split(';').next()).unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case(EVENTS)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_stream_of_events_has_no_rate() {
        let rows = [
            ("text/event-stream", true),
            ("Text/Event-Stream; charset=utf-8", true),
            ("text/event-streams", false),
            ("text/html", false),
            ("", false),
        ];
        for (value, want) in rows {
            let fields =
                HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(are_events(&fields), want, "{value}");
        }
        assert!(!are_events(&HeaderMap::new()));
    }
}
