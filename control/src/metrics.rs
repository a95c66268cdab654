//! Every name that a replica (`control_`) and a front door (`front_`) export.
//!
//! # Invariants
//! - Labels come from enums and from the register of edges, which only tokens can fill; never
//!   from what a client sends.
//! - Whatever can be counted is there from the start, as zero.

pub(crate) mod raft;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use meridian_control_wire::frame::ByeReason;
use meridian_control_wire::problem::ErrorCode;
use meridian_control_wire::{EdgeState, EdgeView, RegionState, RegionView};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::answer::{self, Answer};
use crate::metrics::raft::RaftMetrics;

/// The media type of OpenMetrics text.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabel {
    resource: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegionLabel {
    region: String,
}

type Counted<L> = Family<L, Counter>;
type Gauged<L> = Family<L, Gauge>;

/// What a replica counts.
#[derive(Debug)]
pub(crate) struct ControlMetrics {
    registry: Registry,
    requests: Counted<ResourceLabel>,
    errors: Counted<CodeLabel>,
    edges: Gauged<StateLabel>,
    regions: Gauged<StateLabel>,
    position: Gauge,
    /// Registrations that were accepted.
    pub(crate) registrations: Counter,
    /// Beats that counted.
    pub(crate) beats: Counter,
    /// Beats that came late or twice.
    pub(crate) late_beats: Counter,
    /// Turns of an edge from one state to another.
    turns: Counted<StateLabel>,
    /// Purges that were accepted.
    pub(crate) purges: Counter,
    /// Purges that were answered from the record of an earlier one.
    pub(crate) replays: Counter,
    /// Streams that are open.
    pub(crate) streams: Gauge,
    /// Snapshots that were sent.
    pub(crate) snapshots: Counter,
    byes: Counted<ReasonLabel>,
    journal: Gauged<MarkLabel>,
    /// The agreement with other replicas.
    pub(crate) raft: Arc<RaftMetrics>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MarkLabel {
    mark: &'static str,
}

const EDGE_STATES: [EdgeState; 2] = [EdgeState::Healthy, EdgeState::Unhealthy];
const BYES: [ByeReason; 6] = [
    ByeReason::Slow,
    ByeReason::Stopping,
    ByeReason::Replaced,
    ByeReason::Unregistered,
    ByeReason::Broken,
    ByeReason::NoQuorum,
];
const REGION_STATES: [RegionState; 4] =
    [RegionState::Active, RegionState::Degraded, RegionState::Down, RegionState::Drained];

impl ControlMetrics {
    /// All of them, as zero. `resources` are the labels that requests are counted under.
    pub(crate) fn new(resources: &[&'static str]) -> Self {
        let mut all = Self {
            registry: Registry::with_prefix("control"),
            requests: Family::default(),
            errors: Family::default(),
            edges: Family::default(),
            regions: Family::default(),
            position: Gauge::default(),
            registrations: Counter::default(),
            beats: Counter::default(),
            late_beats: Counter::default(),
            turns: Family::default(),
            purges: Counter::default(),
            replays: Counter::default(),
            streams: Gauge::default(),
            snapshots: Counter::default(),
            byes: Family::default(),
            journal: Family::default(),
            raft: Arc::default(),
        };
        all.register();
        all.raft.register(&mut all.registry);
        all.register_streams();
        for resource in resources {
            drop(all.requests.get_or_create(&ResourceLabel { resource }));
        }
        for code in ErrorCode::ALL {
            drop(all.errors.get_or_create(&CodeLabel { code: code.token() }));
        }
        for state in EDGE_STATES.map(EdgeState::token) {
            drop(all.turns.get_or_create(&StateLabel { state }));
        }
        for reason in BYES {
            drop(all.byes.get_or_create(&ReasonLabel { reason: reason.token() }));
        }
        all.observe(&[], &[], 0);
        all.observe_journal(0, 0);
        all
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let help = "Requests to the API by resource. A rise: more edges, front doors or operators";
        registry.register("requests", help, self.requests.clone());
        let help = "Refused requests by code. `overloaded` or `internal`: a person is needed; \
                    `unknown_edge`: edges meet a replica that lost its register";
        registry.register("errors", help, self.errors.clone());
        let help = "Registered edges by state. A rise of `unhealthy`: edges are dead or cut off";
        registry.register("edges", help, self.edges.clone());
        let help = "Regions by state. A rise of `down`: clients are sent farther than they need";
        registry.register("regions", help, self.regions.clone());
        let help = "Durable changes so far. Standing still while operators write: the disk fails";
        registry.register("store_position", help, self.position.clone());
        let help = "Accepted registrations. A rise without new edges: edges restart in circles";
        registry.register("registrations", help, self.registrations.clone());
        let help = "Beats that counted. A fall: edges are gone, or the network is";
        registry.register("beats", help, self.beats.clone());
        let help = "Beats that came late or twice. A rise: the network delays or repeats";
        registry.register("late_beats", help, self.late_beats.clone());
        let help = "Turns of edges into a state. A rise: edges flap, look at the network";
        registry.register("edge_turns", help, self.turns.clone());
    }

    fn register_streams(&mut self) {
        let registry = &mut self.registry;
        let help = "Accepted purges. A rise: a release, or a client in a loop";
        registry.register("purges", help, self.purges.clone());
        let help =
            "Purges answered from the record of an earlier one. A rise: clients lose answers";
        registry.register("purge_replays", help, self.replays.clone());
        let help = "Open streams to edges. Fewer than healthy edges: some cannot follow";
        registry.register("streams", help, self.streams.clone());
        let help = "Snapshots sent. A rise: edges were away for longer than journal.keep reaches";
        registry.register("stream_snapshots", help, self.snapshots.clone());
        let help = "Ended streams by reason. A rise of `slow`: an edge or its link is overloaded; \
                    `broken`: look at the disk";
        registry.register("stream_byes", help, self.byes.clone());
        let help = "Entries of the journal: the last one, and the one before the oldest kept";
        registry.register("journal_entries", help, self.journal.clone());
    }

    /// Counts a stream that ends with a word.
    pub(crate) fn byes(&self, reason: ByeReason) {
        self.byes.get_or_create(&ReasonLabel { reason: reason.token() }).inc();
    }

    /// Notes how far the journal is.
    pub(crate) fn observe_journal(&self, last: u64, low_water: u64) {
        for (mark, seq) in [("last", last), ("low_water", low_water)] {
            let gauge = self.journal.get_or_create(&MarkLabel { mark });
            gauge.set(i64::try_from(seq).unwrap_or(i64::MAX));
        }
    }

    /// Counts a request to `resource`, and its refusal if it was.
    pub(crate) fn count(&self, resource: &'static str, refused: Option<ErrorCode>) {
        self.requests.get_or_create(&ResourceLabel { resource }).inc();
        if let Some(code) = refused {
            self.errors.get_or_create(&CodeLabel { code: code.token() }).inc();
        }
    }

    /// Counts an edge that turned into `state`.
    pub(crate) fn turned(&self, state: EdgeState) {
        self.turns.get_or_create(&StateLabel { state: state.token() }).inc();
    }

    /// Notes how things are.
    pub(crate) fn observe(&self, edges: &[EdgeView], regions: &[RegionView], position: u64) {
        for state in EDGE_STATES {
            let count = edges.iter().filter(|edge| edge.state == state).count();
            set(&self.edges, state.token(), count);
        }
        for state in REGION_STATES {
            let count = regions.iter().filter(|region| region.state == state).count();
            set(&self.regions, state.token(), count);
        }
        self.position.set(i64::try_from(position).unwrap_or(i64::MAX));
    }

    /// All of them as OpenMetrics text.
    pub(crate) fn text(&self) -> Answer {
        text(&self.registry)
    }
}

/// How a front door answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Sent to an edge.
    Redirected,
    /// The request makes no sense here.
    Refused,
    /// No edge can take it.
    NoEdge,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Redirected, Self::Refused, Self::NoEdge];

    /// The word in metrics.
    const fn token(self) -> &'static str {
        match self {
            Self::Redirected => "redirected",
            Self::Refused => "refused",
            Self::NoEdge => "no_edge",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// What a front door counts.
#[derive(Debug)]
pub(crate) struct FrontMetrics {
    registry: Registry,
    requests: Counted<OutcomeLabel>,
    redirects: Counted<RegionLabel>,
    usable: Gauged<RegionLabel>,
    /// Polls that were answered.
    pub(crate) polls: Counter,
    /// Polls that were not.
    pub(crate) poll_failures: Counter,
    view_age: Gauge<f64, std::sync::atomic::AtomicU64>,
}

impl FrontMetrics {
    /// All of them, as zero.
    pub(crate) fn new() -> Self {
        let mut all = Self {
            registry: Registry::with_prefix("front"),
            requests: Family::default(),
            redirects: Family::default(),
            usable: Family::default(),
            polls: Counter::default(),
            poll_failures: Counter::default(),
            view_age: Gauge::default(),
        };
        let registry = &mut all.registry;
        let help = "Requests by outcome. A rise of `no_edge`: every edge is dead or drained";
        registry.register("requests", help, all.requests.clone());
        let help = "Clients sent to a region. A shift: another region is down or drained";
        registry.register("redirects", help, all.redirects.clone());
        let help = "1 if a region takes clients. 0: it is down or drained";
        registry.register("region_usable", help, all.usable.clone());
        let help = "Answers of the control plane to the question for the edges";
        registry.register("polls", help, all.polls.clone());
        let help = "Questions that no replica answered. A rise: the control plane is out of reach; \
                    this front door goes on with what it knows";
        registry.register("poll_failures", help, all.poll_failures.clone());
        let help = "Age of what this front door knows. A rise: as for poll_failures";
        registry.register("view_age_seconds", help, all.view_age.clone());
        for outcome in Outcome::ALL {
            drop(all.requests.get_or_create(&OutcomeLabel { outcome: outcome.token() }));
        }
        all
    }

    /// Counts an answer.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.requests.get_or_create(&OutcomeLabel { outcome: outcome.token() }).inc();
    }

    /// Counts a client that is sent to `region`.
    pub(crate) fn sent_to(&self, region: &str) {
        self.redirects.get_or_create(&RegionLabel { region: region.to_owned() }).inc();
    }

    /// Notes which regions there are now, and which of them take clients; `known` were there.
    pub(crate) fn observe<'r>(
        &self,
        known: impl Iterator<Item = &'r str>,
        now: impl Iterator<Item = (&'r str, bool)>,
    ) {
        for region in known {
            self.usable.remove(&RegionLabel { region: region.to_owned() });
        }
        for (region, usable) in now {
            let label = RegionLabel { region: region.to_owned() };
            self.usable.get_or_create(&label).set(i64::from(usable));
            drop(self.redirects.get_or_create(&label));
        }
    }

    /// All of them as OpenMetrics text; the view is `age_seconds` old, if there is one.
    pub(crate) fn text(&self, age_seconds: Option<f64>) -> Answer {
        self.view_age.set(age_seconds.unwrap_or(f64::INFINITY));
        text(&self.registry)
    }
}

fn set(family: &Gauged<StateLabel>, state: &'static str, count: usize) {
    family.get_or_create(&StateLabel { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
}

fn text(registry: &Registry) -> Answer {
    let mut text = String::new();
    match encode(&mut text, registry) {
        Ok(()) => answer::bytes_of(StatusCode::OK, OPEN_METRICS, Bytes::from(text)),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            answer::empty(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::{Answer, ControlMetrics, FrontMetrics};

    async fn lines(answer: Answer) -> Vec<String> {
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap().lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn everything_is_exported_from_zero() {
        let control = lines(ControlMetrics::new(&["edges"]).text()).await;
        let front = lines(FrontMetrics::new().text(None)).await;
        for line in [
            r#"control_requests_total{resource="edges"} 0"#,
            r#"control_errors_total{code="overloaded"} 0"#,
            r#"control_edges{state="unhealthy"} 0"#,
            r#"control_regions{state="down"} 0"#,
            "control_beats_total 0",
            r#"control_edge_turns_total{state="healthy"} 0"#,
        ] {
            assert!(control.iter().any(|have| have == line), "{line} in {control:#?}");
        }
        for line in [r#"front_requests_total{outcome="no_edge"} 0"#, "front_poll_failures_total 0"]
        {
            assert!(front.iter().any(|have| have == line), "{line} in {front:#?}");
        }
        assert_eq!(control.last().map(String::as_str), Some("# EOF"));
    }
}
