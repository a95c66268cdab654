//! What clients saw within a while: counts and latencies, of what is stored and of what is not.
//!
//! # Invariants
//! - Every request that was sent is counted once, when it came to its end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::cache_status::Claim;
use crate::client::{Answer, Failure};

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A path that the edges were asked for before.
    Stored,
    /// A path that nobody has asked for yet.
    Unique,
}

/// What came of the requests of one kind.
#[derive(Debug, Clone)]
pub struct Class {
    /// Requests that came to an end.
    pub requests: u64,
    /// Whole answers that the edge says came from its store, fresh or stale.
    pub hits: u64,
    /// Answers that the edge says are no longer fresh.
    pub stale: u64,
    /// Answers to somebody else's fetch.
    pub collapsed: u64,
    /// Answers of 500 and above, and no whole answer at all.
    pub errors: u64,
    /// Whole answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// No whole answer.
    pub broken: u64,
    latency: Histogram<u64>,
    failed: Histogram<u64>,
}

impl Default for Class {
    fn default() -> Self {
        Self {
            requests: 0,
            hits: 0,
            stale: 0,
            collapsed: 0,
            errors: 0,
            statuses: BTreeMap::new(),
            broken: 0,
            latency: histogram(),
            failed: histogram(),
        }
    }
}

/// Microseconds up to an hour, to three digits; what is longer counts as an hour.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are constants that fit")
}

const LONGEST: u64 = 3_600_000_000;

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(LONGEST)
}

fn quantile(of: &Histogram<u64>, quantile: f64) -> Option<Duration> {
    (!of.is_empty()).then(|| Duration::from_micros(of.value_at_quantile(quantile)))
}

impl Class {
    pub(crate) fn count(&mut self, outcome: &Result<Answer, Failure>, took: Duration) {
        self.requests += 1;
        self.latency.saturating_record(micros(took));
        let is_error = match outcome {
            Ok(answer) => {
                *self.statuses.entry(answer.status.as_u16()).or_default() += 1;
                self.stale += u64::from(answer.stale);
                match answer.claim {
                    Claim::Hit => self.hits += 1,
                    Claim::Collapsed(_) => self.collapsed += 1,
                    Claim::Forwarded(_) | Claim::Nothing => {}
                }
                answer.status.is_server_error()
            }
            Err(_) => {
                self.broken += 1;
                true
            }
        };
        if is_error {
            self.errors += 1;
            self.failed.saturating_record(micros(took));
        }
    }

    /// Takes the counts of another while in.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.hits += other.hits;
        self.stale += other.stale;
        self.collapsed += other.collapsed;
        self.errors += other.errors;
        self.broken += other.broken;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        let fits = "both histograms have the same bounds";
        self.latency.add(&other.latency).expect(fits);
        self.failed.add(&other.failed).expect(fits);
    }

    /// The latency that this share of the requests did not exceed.
    pub fn latency(&self, share: f64) -> Option<Duration> {
        quantile(&self.latency, share)
    }

    /// The same of those that failed.
    pub fn failure_latency(&self, share: f64) -> Option<Duration> {
        quantile(&self.failed, share)
    }
}

/// What came of all requests within a while.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// For what is stored.
    pub stored: Class,
    /// For what is not.
    pub unique: Class,
    /// Requests that were due and not sent: too many were under way.
    pub unsent: u64,
}

impl Seen {
    /// Takes the counts of another while in.
    pub fn add(&mut self, other: &Self) {
        self.stored.add(&other.stored);
        self.unique.add(&other.unique);
        self.unsent += other.unsent;
    }

    /// Both kinds together.
    pub fn all(&self) -> Class {
        let mut all = self.stored.clone();
        all.add(&self.unique);
        all
    }

    pub(crate) fn count(&mut self, kind: Kind, outcome: &Result<Answer, Failure>, took: Duration) {
        match kind {
            Kind::Stored => self.stored.count(outcome, took),
            Kind::Unique => self.unique.count(outcome, took),
        }
    }
}

/// Where those who ask write and whoever watches reads.
#[derive(Debug, Default)]
pub struct Board(Mutex<Seen>);

impl Board {
    /// What came since the last time.
    pub fn take(&self) -> Seen {
        std::mem::take(&mut *self.lock())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::{Board, Kind};
    use crate::cache_status::{Claim, Fwd};
    use crate::client::{Answer, Failure};

    fn answer(status: u16, claim: Claim, stale: bool) -> Result<Answer, Failure> {
        let status = StatusCode::from_u16(status).unwrap();
        Ok(Answer { status, bytes: 1, claim, stale, retried: false })
    }

    #[test]
    fn each_request_counts_once_under_its_kind_and_a_taken_board_is_empty() {
        let board = Board::default();
        let ms = Duration::from_millis;
        board.lock().count(Kind::Stored, &answer(200, Claim::Hit, false), ms(1));
        board.lock().count(Kind::Stored, &answer(200, Claim::Forwarded(Fwd::Stale), true), ms(2));
        board.lock().count(
            Kind::Unique,
            &answer(503, Claim::Forwarded(Fwd::UriMiss), false),
            ms(3),
        );
        board.lock().count(Kind::Unique, &answer(404, Claim::Nothing, false), ms(4));
        board.lock().count(Kind::Unique, &Err(Failure::Timeout), ms(500));
        let mut seen = board.take();
        assert_eq!((seen.stored.requests, seen.stored.hits, seen.stored.stale), (2, 1, 1));
        assert_eq!((seen.stored.errors, seen.unique.errors, seen.unique.broken), (0, 2, 1));
        assert_eq!(seen.unique.statuses.get(&404), Some(&1));
        assert!(seen.unique.failure_latency(1.0).unwrap() >= ms(500));
        assert!(seen.unique.failure_latency(0.1).unwrap() < ms(4), "404 is no failure");
        assert_eq!(board.take().all().requests, 0);
        let other = seen.clone();
        seen.add(&other);
        assert_eq!((seen.all().requests, seen.all().errors), (10, 4));
        assert_eq!(board.take().stored.latency(0.5), None);
    }
}
