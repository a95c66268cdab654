//! From a place to an edge: regions by round trip, inside a region by the URL. Pure.
//!
//! Answers where a client should go and why. Who is healthy and where clients are, others say.
//!
//! # Invariants
//! - Only an edge that is healthy in a region that is not drained is ever chosen.
//! - The nearest region with such an edge takes the client, the next nearest if it has none.
//! - Inside a region a URL has one order of preference over the edges (rendezvous hashing), equal
//!   in every process: an edge that comes or goes moves only the URLs that it takes or had.
//! - No edge takes more than [`Loads::cap`] of the recent assignments of its region.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use meridian_config::places::{estimate, great_circle_km, measured, place, round_trip};
use meridian_config::shared::Location;
use meridian_config::units::{NodeName, Region};
use meridian_control_wire::base_url::BaseUrl;
use meridian_control_wire::{EdgeState, EdgeView, Intent};
use serde::Serialize;

use crate::asker::Asker;

/// The edges by region.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Map {
    regions: Vec<Area>,
}

/// A region and its edges.
#[derive(Debug, PartialEq)]
pub(crate) struct Area {
    pub(crate) region: Region,
    location: Location,
    edges: Vec<Candidate>,
}

/// An edge.
#[derive(Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) name: NodeName,
    pub(crate) url: BaseUrl,
    standing: Standing,
}

/// Whether an edge may be chosen, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Usable,
    Unhealthy,
    Drained,
}

/// How far a region is from a client.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reach {
    /// The length of the great circle.
    km: f64,
    /// The round trip, measured or estimated.
    round_trip: Duration,
    basis: Basis,
}

/// What a round trip is based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Basis {
    /// Both ends stand in the table.
    #[serde(rename = "round-trip table")]
    Table,
    /// Estimated from the distance.
    #[serde(rename = "great circle")]
    GreatCircle,
}

/// One line of a ranking.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Ranked {
    edge: NodeName,
    region: Region,
    url: BaseUrl,
    distance_km: f64,
    /// Estimated where the basis is the great circle.
    rtt_ms: f64,
    basis: Basis,
    pub(crate) usable: bool,
    reason: &'static str,
}

impl Map {
    /// The edges of `views`, by region.
    pub(crate) fn of(views: &[EdgeView]) -> Self {
        let mut regions: BTreeMap<&Region, Vec<&EdgeView>> = BTreeMap::new();
        for view in views {
            regions.entry(&view.region).or_default().push(view);
        }
        let areas = regions.into_iter().filter_map(|(region, mut views)| {
            views.sort_by(|a, b| a.name.cmp(&b.name));
            let stated = views.first()?.location;
            let location = place(region.as_str()).map_or(stated, |place| place.location);
            let edges = views.into_iter().map(Candidate::of).collect();
            Some(Area { region: region.clone(), location, edges })
        });
        Self { regions: areas.collect() }
    }

    /// Where a region is.
    pub(crate) fn locate(&self, region: &Region) -> Option<Location> {
        self.regions.iter().find(|area| area.region == *region).map(|area| area.location)
    }

    /// The first region by label: where a client is taken to be of whom nothing is known.
    pub(crate) fn first(&self) -> Option<Asker> {
        let area = self.regions.first()?;
        Some(Asker { label: Some(area.region.clone()), location: area.location })
    }

    /// The regions, by label, and whether an edge of each is usable.
    pub(crate) fn regions(&self) -> impl Iterator<Item = (&Region, bool)> {
        self.regions.iter().map(|area| (&area.region, area.is_usable()))
    }

    /// Whether any edge is usable.
    pub(crate) fn is_usable(&self) -> bool {
        self.regions.iter().any(Area::is_usable)
    }

    /// The edge for `asker` and the URL `key` (path and query), and its region. Counts it in
    /// `loads`; `None` if no edge is usable.
    pub(crate) fn choose(
        &self,
        asker: &Asker,
        key: &str,
        loads: &mut Loads,
    ) -> Option<(&Area, &Candidate)> {
        let area = self
            .regions
            .iter()
            .filter(|area| area.is_usable())
            .map(|area| (reach(asker, area).round_trip, area))
            .min_by(|(a, left), (b, right)| a.cmp(b).then_with(|| left.region.cmp(&right.region)))
            .map(|(_, area)| area)?;
        let cap = Loads::cap(
            area.usable().map(|edge| loads.of(edge)).fold(0, u64::saturating_add),
            area.usable().count(),
        );
        let chosen = area
            .usable()
            .filter(|edge| loads.of(edge) < cap)
            .max_by_key(|edge| (preference(edge.name.as_str(), key), &edge.name))?;
        loads.count(chosen);
        Some((area, chosen))
    }

    /// Every edge, best first, with what speaks for and against it. Loads do not count here: it is
    /// what is chosen as long as nothing is crowded.
    pub(crate) fn ranking(&self, asker: &Asker, key: &str) -> Vec<Ranked> {
        let mut areas: Vec<_> =
            self.regions.iter().map(|area| (reach(asker, area), area)).collect();
        areas.sort_by(|(a, left), (b, right)| {
            a.round_trip.cmp(&b.round_trip).then_with(|| left.region.cmp(&right.region))
        });
        let mut chosen_from: Option<&Region> = None;
        let mut ranking = Vec::new();
        for (reach, area) in areas {
            let mut edges: Vec<_> = area.edges.iter().collect();
            edges.sort_by_key(|edge| {
                std::cmp::Reverse((preference(edge.name.as_str(), key), &edge.name))
            });
            for edge in edges {
                let reason = match (edge.standing, chosen_from) {
                    (Standing::Unhealthy, _) => "unhealthy",
                    (Standing::Drained, _) => "its region is drained",
                    (Standing::Usable, None) => "chosen: nearest, and first for this URL",
                    (Standing::Usable, Some(region)) if *region == area.region => {
                        "another edge of the region comes first for this URL"
                    }
                    (Standing::Usable, Some(_)) => "farther",
                };
                let usable = edge.standing == Standing::Usable;
                if usable {
                    chosen_from = chosen_from.or(Some(&area.region));
                }
                ranking.push(Ranked {
                    edge: edge.name.clone(),
                    region: area.region.clone(),
                    url: edge.url.clone(),
                    distance_km: tenths(reach.km),
                    rtt_ms: tenths(reach.round_trip.as_secs_f64() * 1_000.0),
                    basis: reach.basis,
                    usable,
                    reason,
                });
            }
        }
        ranking
    }
}

impl Ranked {
    /// Which edge it is, where, and how to reach it.
    pub(crate) fn whereabouts(&self) -> (&NodeName, &BaseUrl, &Region) {
        (&self.edge, &self.url, &self.region)
    }
}

impl Area {
    fn usable(&self) -> impl Iterator<Item = &Candidate> {
        self.edges.iter().filter(|edge| edge.standing == Standing::Usable)
    }

    fn is_usable(&self) -> bool {
        self.usable().next().is_some()
    }
}

impl Candidate {
    fn of(view: &EdgeView) -> Self {
        let standing = match (view.intent, view.state) {
            (Intent::Drained, _) => Standing::Drained,
            (Intent::Active, EdgeState::Unhealthy) => Standing::Unhealthy,
            (Intent::Active, EdgeState::Healthy) => Standing::Usable,
        };
        Self { name: view.name.clone(), url: view.url.clone(), standing }
    }
}

/// How far `area` is from `asker`: by the table where both ends stand in it.
fn reach(asker: &Asker, area: &Area) -> Reach {
    let km = great_circle_km(asker.location, area.location);
    let from = asker.label.as_ref().map(Region::as_str);
    let to = area.region.as_str();
    let by_table =
        from.and_then(|from| if from == to { round_trip(from, to) } else { measured(from, to) });
    match by_table {
        Some(round_trip) => Reach { km, round_trip, basis: Basis::Table },
        None => Reach { km, round_trip: estimate(km), basis: Basis::GreatCircle },
    }
}

/// How much the URL `key` prefers `edge` (rendezvous, or highest random weight): FNV-1a over both,
/// then the finalizer of splitmix64, because FNV-1a alone mixes its last bytes poorly.
///
/// Fixed for ever: front doors and replicas of two versions must agree.
fn preference(edge: &str, key: &str) -> u64 {
    let separated = edge.bytes().chain([0]).chain(key.bytes());
    let mut hash = separated.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// How many clients were sent to each edge recently, so that one popular URL does not crowd one
/// edge while its neighbours idle.
#[derive(Debug)]
pub(crate) struct Loads {
    recent: BTreeMap<NodeName, u64>,
    halved: Instant,
}

impl Loads {
    /// Assignments are forgotten by half in this time.
    const HALF_LIFE: Duration = Duration::from_secs(1);

    /// Up to so many recent assignments an edge is not crowded, whatever its neighbours have:
    /// with less traffic the same edge for the same URL is worth more than even loads.
    const FLOOR: u64 = 128;

    pub(crate) fn new(now: Instant) -> Self {
        Self { recent: BTreeMap::new(), halved: now }
    }

    /// Forgets what is no longer recent.
    pub(crate) fn age(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.halved).as_millis();
        let halvings = u32::try_from(passed / Self::HALF_LIFE.as_millis()).unwrap_or(u32::MAX);
        if halvings == 0 {
            return;
        }
        self.halved = now;
        for count in self.recent.values_mut() {
            *count = count.checked_shr(halvings).unwrap_or(0);
        }
        self.recent.retain(|_, count| *count > 0);
    }

    /// The most that one of `edges` edges may have once one more than `total` is assigned to all:
    /// five quarters of the average, rounded up.
    fn cap(total: u64, edges: usize) -> u64 {
        let edges = u64::try_from(edges).unwrap_or(u64::MAX).max(1);
        let five_quarters = total.saturating_add(1).saturating_mul(5);
        Self::FLOOR.max(five_quarters.div_ceil(edges.saturating_mul(4)))
    }

    fn of(&self, edge: &Candidate) -> u64 {
        self.recent.get(&edge.name).copied().unwrap_or(0)
    }

    fn count(&mut self, edge: &Candidate) {
        match self.recent.get_mut(&edge.name) {
            Some(count) => *count = count.saturating_add(1),
            None => drop(self.recent.insert(edge.name.clone(), 1)),
        }
    }
}

#[cfg(test)]
mod tests;
