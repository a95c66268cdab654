//! Counts what one edge answered.
//!
//! # Invariants
//! - Every request that was sent is counted once, either as served or under one kind of error.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use http::StatusCode;

use crate::cache_status::{Claim, Fwd};
use crate::client::{Answer, Failure};
use crate::workload::Job;

/// The counts of one edge, or of several together.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Requests that came to an end, good or bad.
    pub(crate) requests: u64,
    /// Whole answers without an error.
    pub(crate) served: u64,
    /// Body bytes of those.
    pub(crate) bytes: u64,
    /// Whole answers of any status and size: each is client traffic and may be origin traffic.
    pub(crate) answered: u64,
    /// Body bytes of those.
    pub(crate) answered_bytes: u64,
    /// Sent a second time because an idle connection had been closed.
    pub(crate) retried: u64,
    /// Different paths among all requests.
    pub(crate) asked: HashSet<u64>,
    pub(crate) hits: u64,
    pub(crate) collapsed: u64,
    pub(crate) forwarded: BTreeMap<Fwd, u64>,
    pub(crate) unclaimed: u64,
    pub(crate) errors: BTreeMap<Kind, u64>,
    /// Microseconds from sending to the last byte, of what was served.
    pub(crate) latency: Histogram<u64>,
}

/// A kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// No connection.
    Connect,
    /// The connection broke before the answer was whole.
    Broken,
    /// The answer was not whole in time.
    Timeout,
    /// The body has not the size that the workload gives.
    WrongSize,
    /// An answer of 400 or above.
    Status(StatusCode),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Broken => f.write_str("broken"),
            Self::Timeout => f.write_str("timeout"),
            Self::WrongSize => f.write_str("wrong-size"),
            Self::Status(status) => write!(f, "status-{}", status.as_u16()),
        }
    }
}

/// The longest latency told apart; more counts as this.
const LONGEST: u64 = 3_600_000_000; // an hour in microseconds: far above any sensible timeout

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            requests: 0,
            served: 0,
            bytes: 0,
            answered: 0,
            answered_bytes: 0,
            retried: 0,
            asked: HashSet::new(),
            hits: 0,
            collapsed: 0,
            forwarded: BTreeMap::new(),
            unclaimed: 0,
            errors: BTreeMap::new(),
            latency: Histogram::new_with_bounds(1, LONGEST, 3)
                .expect("1 us to an hour at three digits is a valid histogram"),
        }
    }

    /// Counts one request and how it ended.
    pub(crate) fn record(&mut self, job: &Job, took: Duration, outcome: Result<Answer, Failure>) {
        self.requests += 1;
        self.asked.insert(job.key);
        let answer = match outcome {
            Ok(answer) => answer,
            Err(failure) => return self.error(kind_of(&failure)),
        };
        self.retried += u64::from(answer.retried);
        self.answered += 1;
        self.answered_bytes += answer.bytes;
        match answer.claim {
            Claim::Hit => self.hits += 1,
            Claim::Collapsed(_) => self.collapsed += 1,
            Claim::Forwarded(fwd) => *self.forwarded.entry(fwd).or_default() += 1,
            Claim::Nothing => self.unclaimed += 1,
        }
        if answer.status.as_u16() >= 400 {
            return self.error(Kind::Status(answer.status));
        }
        let whole = answer.status == StatusCode::OK;
        if whole && job.size.is_some_and(|size| size != answer.bytes) {
            return self.error(Kind::WrongSize);
        }
        self.served += 1;
        self.bytes += answer.bytes;
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST);
        self.latency.saturating_record(micros.clamp(1, LONGEST));
    }

    fn error(&mut self, kind: Kind) {
        *self.errors.entry(kind).or_default() += 1;
    }

    /// How many requests ended badly.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Adds what another edge answered. Paths asked of both count twice: two stores are two.
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.served += other.served;
        self.bytes += other.bytes;
        self.answered += other.answered;
        self.answered_bytes += other.answered_bytes;
        self.retried += other.retried;
        self.hits += other.hits;
        self.collapsed += other.collapsed;
        self.unclaimed += other.unclaimed;
        for (fwd, count) in &other.forwarded {
            *self.forwarded.entry(*fwd).or_default() += count;
        }
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
    }
}

fn kind_of(failure: &Failure) -> Kind {
    match failure {
        Failure::Connect(_) => Kind::Connect,
        Failure::Broken(_) => Kind::Broken,
        Failure::Timeout => Kind::Timeout,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::{Kind, Tally};
    use crate::cache_status::{Claim, Fwd};
    use crate::client::{Answer, Failure};
    use crate::workload::Job;

    fn job(key: u64, size: Option<u64>) -> Job {
        Job { region: 0, edge: 0, path: "/".parse().unwrap(), size, key }
    }

    fn answer(status: u16, bytes: u64, claim: Claim) -> Result<Answer, Failure> {
        Ok(Answer {
            status: StatusCode::from_u16(status).unwrap(),
            bytes,
            claim,
            stale: false,
            retried: false,
        })
    }

    #[test]
    fn each_request_is_served_or_one_error() {
        let mut tally = Tally::new();
        let took = Duration::from_millis(2);
        tally.record(&job(1, Some(10)), took, answer(200, 10, Claim::Hit));
        tally.record(&job(1, None), took, answer(200, 7, Claim::Collapsed(Fwd::UriMiss)));
        tally.record(&job(2, Some(9)), took, answer(304, 0, Claim::Forwarded(Fwd::Stale)));
        tally.record(&job(3, Some(10)), took, answer(200, 9, Claim::Hit));
        tally.record(&job(3, Some(0)), took, answer(404, 80, Claim::Hit));
        tally.record(&job(4, None), took, answer(502, 0, Claim::Nothing));
        tally.record(&job(4, None), took, Err(Failure::Timeout));
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        tally.record(&job(5, None), took, Err(Failure::Connect(refused)));

        assert_eq!((tally.requests, tally.served, tally.bytes), (8, 3, 17));
        // An answer with an error status is client traffic, and origin traffic if it was a miss:
        // it counts on both sides, or the measured ratio would be below the truth.
        assert_eq!((tally.answered, tally.answered_bytes), (6, 106));
        assert_eq!((tally.hits, tally.collapsed, tally.unclaimed), (3, 1, 1));
        assert_eq!(tally.forwarded.get(&Fwd::Stale), Some(&1));
        assert_eq!(tally.asked.len(), 5);
        assert_eq!(tally.served + tally.failed(), tally.requests);
        let kinds: Vec<String> = tally.errors.keys().map(Kind::to_string).collect();
        assert_eq!(kinds, ["connect", "timeout", "wrong-size", "status-404", "status-502"]);
        assert_eq!(tally.latency.len(), 3);
    }

    #[test]
    fn adding_keeps_every_count() {
        let (mut one, mut other) = (Tally::new(), Tally::new());
        let took = Duration::from_micros(500);
        one.record(&job(1, None), took, answer(200, 1, Claim::Forwarded(Fwd::UriMiss)));
        other.record(&job(1, None), took, answer(200, 2, Claim::Forwarded(Fwd::UriMiss)));
        other.record(&job(2, None), took, Err(Failure::Timeout));
        one.add(&other);
        assert_eq!((one.requests, one.served, one.bytes, one.failed()), (3, 2, 3, 1));
        assert_eq!(one.forwarded.get(&Fwd::UriMiss), Some(&2));
        assert_eq!(one.latency.len(), 2);
    }
}
