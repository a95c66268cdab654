//! The replica itself: `/v1/status`, `/metrics`, `/readyz`.

use http::StatusCode;
use meridian_config::control::Consistency;
use meridian_config::units::{NodeName, Region};
use meridian_control_wire::problem::ErrorCode;
use meridian_control_wire::{EdgeCount, EdgeState, RegionState};
use serde::Serialize;

use crate::answer::{Answer, Refusal, json, text};
use crate::api::uptime;
use crate::register::millis;
use crate::replica::Replica;
use crate::world;

#[derive(Debug, Serialize)]
struct Status<'r> {
    name: &'r NodeName,
    region: &'r Region,
    version: &'static str,
    /// `single`: alone, and so the one who decides.
    role: &'static str,
    /// Grows with each election; there are none yet.
    term: u64,
    consistency: &'r Consistency,
    uptime_ms: u64,
    peers: Vec<Peer<'r>>,
    positions: Positions,
    edges: EdgeCount,
    regions: RegionCount,
    store: StoreStatus,
}

/// A replica, this one among them.
#[derive(Debug, Serialize)]
struct Peer<'r> {
    name: &'r NodeName,
    role: &'static str,
    reachable: bool,
    /// Changes that it has not got yet.
    lag: u64,
}

/// How far this replica is, in durable changes.
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
pub(super) fn status(replica: &Replica) -> Answer {
    let now = world::now();
    let (edges, regions) = {
        let register = replica.ledger.register();
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
    let position = replica.ledger.position();
    let (config, role) = (&replica.config, "single");
    let status = Status {
        name: &config.name,
        region: &config.region,
        version: env!("CARGO_PKG_VERSION"),
        role,
        term: 0,
        consistency: &config.consistency,
        uptime_ms: millis(uptime(replica)),
        peers: vec![Peer { name: &config.name, role, reachable: true, lag: 0 }],
        positions: Positions { agreed: position, applied: position },
        edges: edge_count,
        regions: region_count,
        store: StoreStatus { sound: replica.ledger.is_sound(), position },
    };
    json(StatusCode::OK, &status)
}

/// `GET /metrics`.
pub(super) fn metrics(replica: &Replica) -> Answer {
    let now = world::now();
    let (edges, regions) = {
        let register = replica.ledger.register();
        (register.edges(now), register.regions(now))
    };
    replica.metrics.observe(&edges, &regions, replica.ledger.position());
    replica.metrics.text()
}

/// `GET /readyz`: it can make a change durable, as far as the last one tells.
pub(super) fn readyz(replica: &Replica) -> Result<Answer, Refusal> {
    if replica.ledger.is_sound() {
        return Ok(text(StatusCode::OK, "ready\n"));
    }
    let detail = "the last change could not be made durable: look at the disk under `data`";
    Err(Refusal::new(ErrorCode::NotReady, detail))
}
