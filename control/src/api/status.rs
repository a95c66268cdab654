//! The replica itself: `/v1/status`, `/metrics`, `/readyz`.

use http::StatusCode;
use meridian_config::control::Consistency;
use meridian_config::units::{NodeName, Region};
use meridian_control_wire::cursor::Position;
use meridian_control_wire::problem::ErrorCode;
use meridian_control_wire::{EdgeCount, EdgeState, RegionState};
use serde::Serialize;

use crate::agreement::AgreementView;
use crate::answer::{Answer, Refusal, json, text};
use crate::context::Context;
use crate::register::millis;
use crate::world;

#[derive(Debug, Serialize)]
struct Status<'r> {
    name: &'r NodeName,
    region: &'r Region,
    version: &'static str,
    /// `single`: alone, and so the one who decides. Else `leader`, `follower`, `candidate`,
    /// `learner`, or `stopped` after a fault.
    role: &'static str,
    /// Grows with each election.
    term: u64,
    /// Who leads, as far as this replica knows.
    leader: Option<&'r NodeName>,
    consistency: &'r Consistency,
    uptime_ms: u64,
    peers: Vec<Peer<'r>>,
    positions: Positions,
    edges: EdgeCount,
    regions: RegionCount,
    journal: JournalStatus,
    store: StoreStatus,
}

/// The log of purges and configuration changes.
#[derive(Debug, Serialize)]
struct JournalStatus {
    /// Whether the last write reached the disk.
    sound: bool,
    /// Which life of it this is.
    incarnation: u64,
    last: Position,
    /// The history goes back to here.
    low_water: Position,
}

/// A replica, this one among them.
#[derive(Debug, Serialize)]
struct Peer<'r> {
    name: &'r NodeName,
    /// The number of its disk's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'r str>,
    role: &'static str,
    /// `null`: this replica does not know; the leader does.
    reachable: Option<bool>,
    /// Entries of the agreed log that it has not got yet. `null`: this replica does not know.
    lag: Option<u64>,
}

/// How far this replica is: alone in purges and configuration changes, else in entries of the
/// agreed log.
#[derive(Debug, Serialize)]
struct Positions {
    agreed: u64,
    applied: u64,
}

#[derive(Debug, Default, Serialize)]
struct RegionCount {
    total: u32,
    active: u32,
    degraded: u32,
    down: u32,
    drained: u32,
}

#[derive(Debug, Serialize)]
struct StoreStatus {
    /// Whether the last change reached the disk.
    sound: bool,
    position: u64,
}

/// `GET /v1/status`.
pub(super) fn status(context: &Context) -> Answer {
    let now = world::now();
    let (edges, regions) = {
        let register = context.ledger.register();
        (register.edges(now), register.regions(now))
    };
    let mut edge_count = EdgeCount::default();
    for edge in &edges {
        edge_count.total = edge_count.total.saturating_add(1);
        if edge.state == EdgeState::Healthy {
            edge_count.healthy = edge_count.healthy.saturating_add(1);
        }
    }
    let mut region_count = RegionCount::default();
    for region in &regions {
        let count = match region.state {
            RegionState::Active => &mut region_count.active,
            RegionState::Degraded => &mut region_count.degraded,
            RegionState::Down => &mut region_count.down,
            RegionState::Drained => &mut region_count.drained,
        };
        *count = count.saturating_add(1);
        region_count.total = region_count.total.saturating_add(1);
    }
    let position = context.ledger.position();
    let journal = context.store.state();
    let config = &context.config;
    let agreement = context.agreement();
    let alone = || Peer {
        name: &config.name,
        node: None,
        role: "single",
        reachable: Some(true),
        lag: Some(0),
    };
    let status = Status {
        name: &config.name,
        region: &config.region,
        version: env!("CARGO_PKG_VERSION"),
        role: agreement.as_ref().map_or("single", |view| view.role),
        term: agreement.as_ref().map_or(0, |view| view.term),
        leader: match &agreement {
            Some(view) => view.leader.as_ref(),
            None => Some(&config.name),
        },
        consistency: &config.consistency,
        uptime_ms: millis(world::now().saturating_duration_since(context.started)),
        peers: agreement.as_ref().map_or_else(|| vec![alone()], peers),
        positions: match &agreement {
            Some(view) => Positions { agreed: view.committed, applied: view.applied },
            None => Positions { agreed: journal.last, applied: journal.last },
        },
        edges: edge_count,
        regions: region_count,
        journal: JournalStatus {
            sound: journal.sound,
            incarnation: journal.incarnation,
            last: Position::of(journal.last),
            low_water: Position::of(journal.low_water),
        },
        store: StoreStatus { sound: journal.sound, position },
    };
    json(StatusCode::OK, &status)
}

fn peers(view: &AgreementView) -> Vec<Peer<'_>> {
    let shown = view.peers.iter().map(|peer| Peer {
        name: &peer.name,
        node: peer.node.as_deref(),
        role: peer.role,
        reachable: peer.reachable,
        lag: peer.lag,
    });
    shown.collect()
}

/// `GET /metrics`.
pub(super) fn metrics(context: &Context) -> Answer {
    let now = world::now();
    let (edges, regions) = {
        let register = context.ledger.register();
        (register.edges(now), register.regions(now))
    };
    let journal = context.store.state();
    context.metrics.observe_journal(journal.last, journal.low_water);
    if let Some(view) = context.agreement() {
        context.metrics.raft.observe(view.role, view.term, view.applied);
    }
    context.metrics.observe(&edges, &regions, context.ledger.position());
    context.metrics.text()
}

/// `GET /readyz`: it can make a change durable, as far as the last one tells.
pub(super) fn readyz(context: &Context) -> Result<Answer, Refusal> {
    if context.store.state().sound {
        return Ok(text(StatusCode::OK, "ready\n"));
    }
    let detail = "the last change could not be made durable: look at the disk under `data`";
    Err(Refusal::new(ErrorCode::NotReady, detail))
}
