//! What a front door knows, and how it learns.
//!
//! # Invariants
//! - What was known of an edge stays until a replica knows better.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use meridian_config::control::Front;
use meridian_config::units::{Address, NodeName};
use meridian_control_wire::problem::ErrorCode;
use meridian_control_wire::{EdgeState, EdgeView};

use crate::answer::Refusal;
use crate::asker::Prefixes;
use crate::metrics::FrontMetrics;
use crate::steer::{Loads, Map};
use crate::world;

/// What the parts of a front door share.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) config: Front,
    /// The replicas by name, with their addresses of `[peers]`.
    pub(super) replicas: Vec<(NodeName, Address)>,
    pub(super) prefixes: Prefixes,
    pub(super) view: ArcSwap<View>,
    pub(super) loads: Mutex<Loads>,
    pub(super) metrics: FrontMetrics,
    /// Whether it has ever known a usable edge.
    pub(super) ready: AtomicBool,
}

/// What a front door knows of the edges.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) edges: Vec<EdgeView>,
    pub(super) map: Map,
    /// When a replica last told; `None`: none has yet.
    pub(super) heard: Option<Instant>,
}

impl Door {
    /// Takes in what a replica told.
    pub(super) fn learn(&self, mut edges: Vec<EdgeView>) {
        let known = self.view.load();
        for edge in &mut edges {
            keep_knowing(&known.edges, edge);
        }
        let map = Map::of(&edges);
        if map != known.map {
            let gone = known.map.regions().map(|(region, _)| region.as_str());
            let here = map.regions().map(|(region, usable)| (region.as_str(), usable));
            self.metrics.observe(gone, here);
            for (region, usable) in map.regions() {
                let before = known.map.regions().find(|(known, _)| *known == region);
                if before.is_none_or(|(_, before)| before != usable) {
                    tracing::info!(%region, usable, "region takes clients, or not");
                }
            }
        }
        if map.is_usable() {
            self.ready.store(true, Ordering::Relaxed);
        }
        self.view.store(Arc::new(View { edges, map, heard: Some(world::now()) }));
    }

    /// How many clients went where of late. Held for a choice's time only.
    pub(super) fn loads(&self) -> MutexGuard<'_, Loads> {
        // Counting is all that happens under it: what a panic left behind is still a count.
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        loads.age(world::now());
        loads
    }

    /// Whether it can do its work: it has known a usable edge, and of `least` edges at least it
    /// knows now that they are healthy, drained or not.
    pub(super) fn is_ready(&self, least: usize) -> Result<(), Refusal> {
        if !self.ready.load(Ordering::Relaxed) {
            let detail = "no replica has told of a usable edge yet";
            return Err(Refusal::new(ErrorCode::NotReady, detail));
        }
        let view = self.view.load();
        let healthy = view.edges.iter().filter(|edge| edge.state == EdgeState::Healthy).count();
        if healthy < least {
            let detail = format!("{healthy} edges are known to be healthy, {least} were asked for");
            return Err(Refusal::new(ErrorCode::NotReady, detail));
        }
        Ok(())
    }
}

/// A replica that started just now cannot know of an edge yet: what was known of it stays.
fn keep_knowing(known: &[EdgeView], edge: &mut EdgeView) {
    if edge.heard_ms_ago.is_some() || edge.state == EdgeState::Healthy {
        return;
    }
    let before = known.iter().find(|known| known.name == edge.name && known.url == edge.url);
    if let Some(before) = before {
        edge.state = before.state;
    }
}
