//! The figures of a run.
//!
//! Hit ratios come two ways: *measured* is what the client got minus what the origin gave,
//! *claimed* is what `Cache-Status` said of each answer. They differ where a revalidation costs a
//! request and no hit, where an edge refreshes in the background, and where somebody is wrong.
//!
//! # Invariants
//! - What was not measured is absent (`null`), never zero.
//! - Every row follows the same arithmetic, be it an edge, a region or the total.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use meridian_config::units::{NodeName, Region};
use serde::{Deserialize, Serialize};

use crate::cache_status::Fwd;
use crate::counts::Count;
use crate::tally::Tally;

/// The report of a run; its JSON form is stable within a `version`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of this form: 1.
    pub version: u32,
    /// What was asked for, in words.
    pub workload: String,
    /// The seed of every random choice.
    pub seed: u64,
    /// Connections per region.
    pub connections: u32,
    /// Ended by order before all requests were sent.
    pub stopped: bool,
    /// From the first request to the last answer.
    pub duration_seconds: f64,
    /// Who counted the requests to the origin.
    pub counted_by: CountedBy,
    /// What a reader of the figures must know; empty in a clean run.
    pub notes: Vec<String>,
    /// All regions together.
    pub total: Figures,
    /// Each region.
    pub regions: Vec<RegionFigures>,
}

/// Who counted the requests to the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CountedBy {
    /// The origin itself.
    Origin,
    /// The edges, for want of an origin that counts.
    Edges,
    /// Nobody: hit ratios are claimed only.
    Nobody,
}

/// One region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionFigures {
    /// Its label.
    pub region: Region,
    /// Its edges together.
    #[serde(flatten)]
    pub figures: Figures,
    /// Each edge.
    pub edges: Vec<EdgeFigures>,
}

/// One edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeFigures {
    /// Its name.
    pub edge: NodeName,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// The figures of an edge, a region or the whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Requests that came to an end, good or bad.
    pub requests: u64,
    /// Whole answers without an error.
    pub served: u64,
    /// Body bytes of those.
    pub bytes: u64,
    /// Whole answers of any status and size: what hit ratios are shares of.
    pub answered: u64,
    /// Body bytes of those.
    pub answered_bytes: u64,
    /// Requests sent a second time because the edge had closed an idle connection.
    pub retried: u64,
    /// Different paths asked for, each counted once per edge.
    pub distinct: u64,
    /// Requests that reached the origin.
    pub origin_requests: Option<u64>,
    /// Body bytes that the origin sent.
    pub origin_bytes: Option<u64>,
    /// Measured: 1 - requests to the origin / requests answered.
    pub hit_ratio: Option<f64>,
    /// Measured: 1 - body bytes from the origin / body bytes of the answers.
    pub byte_hit_ratio: Option<f64>,
    /// Claimed: share of the answers that says it needed no forward request of its own.
    pub claimed_hit_ratio: Option<f64>,
    /// What the answers said.
    pub claimed: Claimed,
    /// Requests ended per second of the run.
    pub requests_per_second: f64,
    /// From sending a request to the last byte of its answer, of what was served.
    pub latency_seconds: Option<Latency>,
    /// Errors by kind: `connect`, `broken`, `timeout`, `wrong-size`, `status-404` and so on.
    pub errors: BTreeMap<String, u64>,
}

/// What the answers said in `Cache-Status` (RFC 9211).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// `hit`.
    pub hit: u64,
    /// `fwd` with `collapsed`: answered by somebody else's forward request.
    pub collapsed: u64,
    /// `fwd`, by reason.
    pub forwarded: BTreeMap<Fwd, u64>,
    /// Nothing of the kind.
    pub nothing: u64,
}

/// Percentiles, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the requests were answered within this.
    pub p50: f64,
    /// 90 % were.
    pub p90: f64,
    /// 99 % were.
    pub p99: f64,
    /// 99.9 % were.
    pub p99_9: f64,
    /// All were.
    pub max: f64,
}

impl Figures {
    /// How many requests ended badly.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Works out the figures; `origin` is absent if nobody counted.
    pub(crate) fn new(tally: &Tally, distinct: u64, origin: Option<Count>, seconds: f64) -> Self {
        let claimed = Claimed {
            hit: tally.hits,
            collapsed: tally.collapsed,
            forwarded: tally.forwarded.clone(),
            nothing: tally.unclaimed,
        };
        let any_claim = tally.unclaimed < tally.answered;
        Self {
            requests: tally.requests,
            served: tally.served,
            bytes: tally.bytes,
            answered: tally.answered,
            answered_bytes: tally.answered_bytes,
            retried: tally.retried,
            distinct,
            origin_requests: origin.map(|count| count.requests),
            origin_bytes: origin.map(|count| count.bytes),
            hit_ratio: origin.and_then(|count| saved(count.requests, tally.answered)),
            byte_hit_ratio: origin.and_then(|count| saved(count.bytes, tally.answered_bytes)),
            claimed_hit_ratio: any_claim
                .then(|| share(claimed.hit + claimed.collapsed, tally.answered))
                .flatten(),
            claimed,
            requests_per_second: if seconds > 0.0 { tally.requests as f64 / seconds } else { 0.0 },
            latency_seconds: Latency::of(&tally.latency),
            errors: tally.errors.iter().map(|(kind, count)| (kind.to_string(), *count)).collect(),
        }
    }
}

impl Latency {
    fn of(micros: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1e6;
        (!micros.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: micros.max() as f64 / 1e6,
        })
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// What of `whole` did not cost a `part`. Below zero if upstream was asked more than was answered:
/// that is what happened, and it is not hidden.
fn saved(part: u64, whole: u64) -> Option<f64> {
    share(part, whole).map(|share| 1.0 - share)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Figures;
    use crate::cache_status::{Claim, Fwd};
    use crate::client::{Answer, Failure};
    use crate::counts::Count;
    use crate::tally::Tally;
    use crate::workload::Job;

    fn tally(claims: &[(u64, Claim)], timeouts: u64) -> Tally {
        let mut tally = Tally::new();
        let job = Job { region: 0, edge: 0, path: "/".parse().unwrap(), size: None, key: 1 };
        for (at, (bytes, claim)) in (1_u64..).zip(claims) {
            let answer = Answer {
                status: http::StatusCode::OK,
                bytes: *bytes,
                claim: *claim,
                stale: false,
                retried: false,
            };
            tally.record(&job, Duration::from_millis(at), Ok(answer));
        }
        for _ in 0..timeouts {
            tally.record(&job, Duration::from_secs(9), Err(Failure::Timeout));
        }
        tally
    }

    #[test]
    fn measured_is_client_minus_origin_and_claimed_is_what_was_said() {
        let forwarded = Claim::Forwarded(Fwd::UriMiss);
        let collapsed = Claim::Collapsed(Fwd::UriMiss);
        let tally =
            tally(&[(100, forwarded), (100, collapsed), (100, Claim::Hit), (700, Claim::Hit)], 1);
        let figures = Figures::new(&tally, 3, Some(Count { requests: 1, bytes: 100 }), 2.0);
        assert_eq!(figures.hit_ratio, Some(0.75));
        assert_eq!(figures.byte_hit_ratio, Some(0.9));
        assert_eq!(figures.claimed_hit_ratio, Some(0.75));
        assert_eq!((figures.requests, figures.served, figures.failed()), (5, 4, 1));
        assert_eq!(figures.requests_per_second, 2.5);
        let latency = figures.latency_seconds.unwrap();
        assert!((latency.p50 - 0.002).abs() < 1e-5 && (latency.max - 0.004).abs() < 1e-5);
    }

    #[test]
    fn what_was_not_measured_is_absent() {
        let silent = Figures::new(&tally(&[(1, Claim::Nothing)], 0), 1, None, 1.0);
        assert_eq!((silent.hit_ratio, silent.byte_hit_ratio), (None, None));
        assert_eq!((silent.origin_requests, silent.claimed_hit_ratio), (None, None));

        let nothing = Figures::new(&tally(&[], 3), 1, Some(Count { requests: 0, bytes: 0 }), 1.0);
        assert_eq!((nothing.hit_ratio, nothing.claimed_hit_ratio), (None, None));
        assert_eq!(nothing.latency_seconds, None, "no answer: no hit ratio of 100 %");
    }

    #[test]
    fn asking_upstream_more_than_serving_shows_below_zero() {
        let figures = Figures::new(
            &tally(&[(10, Claim::Hit)], 0),
            1,
            Some(Count { requests: 3, bytes: 10 }),
            1.0,
        );
        assert_eq!((figures.hit_ratio, figures.byte_hit_ratio), (Some(-2.0), Some(0.0)));
    }
}
