//! Every metric of an origin, by name, with what a rise means and what to do.

use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::connection::Overdue;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    Informational,
    Success,
    Redirection,
    ClientError,
    ServerError,
    /// Without an answer: the client left, or a fault or the drain ended it.
    Unanswered,
}

impl Outcome {
    const ALL: [Self; 6] = [
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
        Self::Unanswered,
    ];

    pub(crate) fn of(status: Option<StatusCode>) -> Self {
        match status.map(|status| status.as_u16() / 100) {
            None => Self::Unanswered,
            Some(1) => Self::Informational,
            Some(2) => Self::Success,
            Some(3) => Self::Redirection,
            Some(4) => Self::ClientError,
            Some(_) => Self::ServerError,
        }
    }

    const fn token(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Unanswered => "none",
        }
    }
}

/// What a fault did to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Harm {
    Delay,
    Hang,
    Status,
    CutAfter,
    LoseReply,
    Reset,
    /// The fault asked for more requests to be held than `max_held`.
    Shed,
}

impl Harm {
    const ALL: [Self; 7] = [
        Self::Delay,
        Self::Hang,
        Self::Status,
        Self::CutAfter,
        Self::LoseReply,
        Self::Reset,
        Self::Shed,
    ];

    const fn token(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Hang => "hang",
            Self::Status => "status",
            Self::CutAfter => "cut_after",
            Self::LoseReply => "lose_reply",
            Self::Reset => "reset",
            Self::Shed => "shed",
        }
    }
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ordered {
    /// It is in the book.
    Placed,
    /// It was there before, under its key.
    Replayed,
    /// The key was used otherwise or is at work, or there is no room.
    Refused,
}

impl Ordered {
    const ALL: [Self; 3] = [Self::Placed, Self::Replayed, Self::Refused];

    const fn token(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Replayed => "replayed",
            Self::Refused => "refused",
        }
    }
}

impl Overdue {
    const ALL: [Self; 3] = [Self::Head, Self::Idle, Self::Send];

    const fn token(self) -> &'static str {
        match self {
            Self::Head => "head_timeout",
            Self::Idle => "idle_timeout",
            Self::Send => "send_timeout",
        }
    }
}

macro_rules! label_by_token {
    ($($name:ident),*) => {$(
        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
                self.token().encode(encoder)
            }
        }
    )*};
}

label_by_token!(Outcome, Harm, Ordered, Overdue);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStatus {
    status: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFault {
    fault: Harm,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: Ordered,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByLimit {
    limit: Overdue,
}

/// What an origin counts of itself.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Family<ByStatus, Counter>,
    body_bytes: Counter,
    duration: Histogram,
    faults: Family<ByFault, Counter>,
    held: Gauge,
    orders: Family<ByResult, Counter>,
    connections: Gauge,
    accepted: Counter,
    overdue: Family<ByLimit, Counter>,
    hashes: Counter,
    hashed_bytes: Counter,
    registry: Registry,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // From a small file in the page cache to what a fault delays; seconds.
        let buckets = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];
        let mut metrics = Self {
            requests: Family::default(),
            body_bytes: Counter::default(),
            duration: Histogram::new(buckets),
            faults: Family::default(),
            held: Gauge::default(),
            orders: Family::default(),
            connections: Gauge::default(),
            accepted: Counter::default(),
            overdue: Family::default(),
            hashes: Counter::default(),
            hashed_bytes: Counter::default(),
            registry: Registry::with_prefix("origin"),
        };
        for status in Outcome::ALL {
            drop(metrics.requests.get_or_create(&ByStatus { status }));
        }
        for fault in Harm::ALL {
            drop(metrics.faults.get_or_create(&ByFault { fault }));
        }
        for result in Ordered::ALL {
            drop(metrics.orders.get_or_create(&ByResult { result }));
        }
        for limit in Overdue::ALL {
            drop(metrics.overdue.get_or_create(&ByLimit { limit }));
        }
        metrics.register_requests();
        metrics.register_connections();
        metrics
    }

    fn register_requests(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Requests by the class of their answer. 2xx rises with the edges' misses; for 5xx and \
             none look at origin_faults, then at the log",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "response_body",
            "Bytes of bodies sent. A rise without more requests: larger files are asked for",
            Unit::Bytes,
            self.body_bytes.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "From a request's head to the end of its answer. A rise: slow disk, slow readers, or \
             a delay on request",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "faults",
            "Faults that were carried out. Somebody asked for them at /v1/faults",
            self.faults.clone(),
        );
        registry.register(
            "held_requests",
            "Requests that faults delay or leave hanging now. At limits.max_held more are shed",
            self.held.clone(),
        );
        registry.register(
            "orders",
            "Orders by what became of them. replayed: replies were lost on the way and asked for \
             again; refused: keys are used twice, or raise orders.max_orders and orders.max_keys",
            self.orders.clone(),
        );
    }

    fn register_connections(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "connections",
            "Open connections, admin included. Near limits.max_connections new ones wait",
            self.connections.clone(),
        );
        registry.register(
            "connections_accepted",
            "Connections accepted. A rise beside steady requests: edges do not reuse theirs",
            self.accepted.clone(),
        );
        registry.register(
            "connections_overdue",
            "Connections ended by a limit. head_timeout: slow or hostile clients; send_timeout: \
             readers that stall; idle_timeout is harmless",
            self.overdue.clone(),
        );
        registry.register(
            "hashes",
            "Files hashed for their ETag. A steady rise over unchanged files: raise \
             limits.max_hashed_files",
            self.hashes.clone(),
        );
        registry.register_with_unit(
            "hashed",
            "Bytes hashed for ETags. See origin_hashes",
            Unit::Bytes,
            self.hashed_bytes.clone(),
        );
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn request(&self, status: Outcome, took: Duration) {
        self.requests.get_or_create(&ByStatus { status }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(crate) fn sends(&self, bytes: u64) {
        self.body_bytes.inc_by(bytes);
    }

    pub(crate) fn fault(&self, fault: Harm) {
        self.faults.get_or_create(&ByFault { fault }).inc();
    }

    pub(crate) fn ordered(&self, result: Ordered) {
        self.orders.get_or_create(&ByResult { result }).inc();
    }

    pub(crate) fn overdue(&self, limit: Overdue) {
        self.overdue.get_or_create(&ByLimit { limit }).inc();
    }

    pub(crate) fn hashed(&self, bytes: u64) {
        self.hashes.inc();
        self.hashed_bytes.inc_by(bytes);
    }

    /// A connection is open until the guard is gone.
    pub(crate) fn connection(&self) -> Held {
        self.accepted.inc();
        Held::raise(&self.connections)
    }

    /// A request is held by a fault until the guard is gone.
    pub(crate) fn held(&self) -> Held {
        Held::raise(&self.held)
    }
}

/// Keeps a gauge one higher.
#[derive(Debug)]
pub(crate) struct Held(Gauge);

impl Held {
    fn raise(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::Metrics;

    #[test]
    fn every_name_is_exported_from_zero() {
        let mut text = String::new();
        encode(&mut text, Metrics::new().registry()).unwrap();
        for line in [
            "origin_requests_total{status=\"2xx\"} 0",
            "origin_requests_total{status=\"none\"} 0",
            "origin_response_body_bytes_total 0",
            "origin_request_duration_seconds_count 0",
            "origin_faults_total{fault=\"cut_after\"} 0",
            "origin_held_requests 0",
            "origin_connections 0",
            "origin_connections_accepted_total 0",
            "origin_connections_overdue_total{limit=\"head_timeout\"} 0",
            "origin_hashes_total 0",
            "origin_hashed_bytes_total 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
