//! How often each edge went upstream, as somebody else than the client counted it.
//!
//! The origin's own count is preferred: it is what the edges cannot embellish. Without an origin
//! that counts, the edges' counters of upstream requests are taken, and the report says so.
//!
//! # Invariants
//! - Only differences are used: what happened before the run is not counted.
//! - Other traffic during the run cannot be told from the run's own when it comes through the same
//!   edges; requests that reach the origin by another way are counted apart.

use std::collections::BTreeMap;
use std::time::Duration;

use http::uri::PathAndQuery;
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::client::fetch;
use crate::endpoint::Endpoint;
use crate::error::LoadError;
use crate::options::Options;

/// An admin answer is read up to this size: metrics of a node with thousands of series.
const LARGEST: usize = 16 << 20;

/// An admin listener answers within this.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Counts are read again at this pace after the run until they stand still, ...
const SETTLE_STEP: Duration = Duration::from_millis(50);

/// ... but no longer than this: somebody else may be asking.
const SETTLE: Duration = Duration::from_secs(2);

/// Upstream traffic of one edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Count {
    pub(crate) requests: u64,
    #[serde(rename = "body_bytes")]
    pub(crate) bytes: u64,
}

/// Who counts.
#[derive(Debug)]
pub(crate) enum Counter {
    /// Admin listeners of origins.
    Origins(Vec<Endpoint>),
    /// Admin listeners of edges, by name.
    Edges(Vec<(String, Endpoint)>),
    /// Nobody.
    Nobody,
}

/// One reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    by: BTreeMap<String, Count>,
    /// By nobody in particular, or by somebody who said no name.
    rest: Count,
}

/// What an origin answers to `GET /v1/requests`.
#[derive(Deserialize)]
struct OriginRequests {
    #[serde(flatten)]
    total: Count,
    #[serde(default)]
    by: BTreeMap<String, Count>,
}

impl Counter {
    pub(crate) fn of(options: &Options) -> Self {
        if !options.origins.is_empty() {
            return Self::Origins(options.origins.clone());
        }
        let edges = options.regions.iter().flat_map(|region| &region.edges);
        let admins: Option<Vec<_>> = edges
            .map(|edge| edge.admin.clone().map(|admin| (edge.name.to_string(), admin)))
            .collect();
        admins.map_or(Self::Nobody, Self::Edges)
    }

    /// Reads all counts now.
    pub(crate) async fn read(&self) -> Result<Reading, LoadError> {
        let mut reading = Reading::default();
        match self {
            Self::Origins(origins) => {
                for origin in origins {
                    reading.add_origin(&origin_requests(origin).await?);
                }
            }
            Self::Edges(edges) => {
                for (name, admin) in edges {
                    reading.by.insert(name.clone(), edge_counters(admin).await?);
                }
            }
            Self::Nobody => {}
        }
        Ok(reading)
    }

    /// Reads all counts when they have stopped moving: an origin may count a request a moment
    /// after its last byte has reached the client.
    pub(crate) async fn read_settled(&self) -> Result<Reading, LoadError> {
        let end = Instant::now() + SETTLE;
        let mut pace = interval(SETTLE_STEP);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace.tick().await; // the first comes at once
        let mut last = self.read().await?;
        loop {
            pace.tick().await;
            let reading = self.read().await?;
            if reading == last || Instant::now() >= end {
                return Ok(reading);
            }
            last = reading;
        }
    }
}

impl Reading {
    fn add_origin(&mut self, counted: &OriginRequests) {
        let mut named = Count::default();
        for (edge, count) in &counted.by {
            self.by.entry(edge.clone()).or_default().add(*count);
            named.add(*count);
        }
        self.rest.requests += counted.total.requests.saturating_sub(named.requests);
        self.rest.bytes += counted.total.bytes.saturating_sub(named.bytes);
    }

    /// What `edge` has asked since `before`; `None` if the counts have gone back meanwhile (who
    /// counts was restarted).
    pub(crate) fn since(&self, before: &Self, edge: &str) -> Option<Count> {
        let count = |reading: &Self| reading.by.get(edge).copied().unwrap_or_default();
        count(self).minus(count(before))
    }

    /// What all others than `edges` have asked since `before`; zero if the counts have gone back.
    pub(crate) fn others_since(&self, before: &Self, edges: &[&str]) -> u64 {
        let of = |reading: &Self| -> u64 {
            let strangers = reading.by.iter().filter(|(name, _)| !edges.contains(&name.as_str()));
            strangers.map(|(_, count)| count.requests).sum::<u64>() + reading.rest.requests
        };
        of(self).saturating_sub(of(before))
    }
}

impl Count {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
    }

    fn minus(self, before: Self) -> Option<Self> {
        Some(Self {
            requests: self.requests.checked_sub(before.requests)?,
            bytes: self.bytes.checked_sub(before.bytes)?,
        })
    }
}

async fn origin_requests(origin: &Endpoint) -> Result<OriginRequests, LoadError> {
    let what = "the origin's request counts";
    let path = PathAndQuery::from_static("/v1/requests");
    let failed = |reason| LoadError::Admin { what, url: origin.clone(), reason };
    let body = fetch(origin, &path, LARGEST, ADMIN_TIMEOUT).await.map_err(failed)?;
    serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))
}

async fn edge_counters(admin: &Endpoint) -> Result<Count, LoadError> {
    let what = "the edge's counters";
    let path = PathAndQuery::from_static("/metrics");
    let failed = |reason| LoadError::Admin { what, url: admin.clone(), reason };
    let body = fetch(admin, &path, LARGEST, ADMIN_TIMEOUT).await.map_err(failed)?;
    let text = String::from_utf8_lossy(&body);
    let sum = |name| sum_of(&text, name).ok_or_else(|| failed(format!("there is no {name}")));
    Ok(Count {
        requests: sum("edge_upstream_requests_total")?,
        bytes: sum("edge_upstream_body_bytes_total")?,
    })
}

/// The sum of a counter over all its labels, in OpenMetrics text.
fn sum_of(text: &str, name: &str) -> Option<u64> {
    let mut sum = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}').map(|(_, value)| value),
            None => rest.strip_prefix(' '),
        };
        let number = value.and_then(|value| value.split_whitespace().next());
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            sum = Some(sum.unwrap_or(0) + number);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::{Count, OriginRequests, Reading, sum_of};

    fn reading(json: &str) -> Reading {
        let counted: OriginRequests = serde_json::from_str(json).unwrap();
        let mut reading = Reading::default();
        reading.add_origin(&counted);
        reading
    }

    #[test]
    fn differences_are_taken_edge_by_edge() {
        let before = reading(
            r#"{"path":null,"requests":5,"body_bytes":50,
                "by":{"fra-1":{"requests":2,"body_bytes":20}}}"#,
        );
        let after = reading(
            r#"{"path":null,"requests":16,"body_bytes":150,
                "by":{"fra-1":{"requests":6,"body_bytes":60},"iad-1":{"requests":5,"body_bytes":9},
                "probe":{"requests":1,"body_bytes":1}}}"#,
        );
        let count = |requests, bytes| Some(Count { requests, bytes });
        assert_eq!(after.since(&before, "fra-1"), count(4, 40));
        assert_eq!(after.since(&before, "iad-1"), count(5, 9));
        assert_eq!(after.since(&before, "nrt-1"), count(0, 0));
        // 11 more in all, 9 of them by the two edges.
        assert_eq!(after.others_since(&before, &["fra-1", "iad-1"]), 2);
        assert_eq!(before.since(&after, "fra-1"), None, "the counts have gone back");
    }

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        let text = "# TYPE a counter\na_total{x=\"} 9\"} 3\na_total{x=\"b\"} 4 1520879607.789\n\
                    a_total_more{x=\"b\"} 5\nb_total 6\n# EOF\n";
        assert_eq!(sum_of(text, "a_total"), Some(7));
        assert_eq!(sum_of(text, "b_total"), Some(6));
        assert_eq!(sum_of(text, "c_total"), None);
    }
}
