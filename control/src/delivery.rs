//! How far each edge has applied the log, and how long single purges took. Pure state.
//!
//! # Invariants
//! - Reads no clock.
//! - An edge counts only with what it said itself since it registered.
//! - Never more than `most` purges are tracked, nor more edges than are registered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use meridian_config::units::{NodeName, Region};
use meridian_control_wire::purge::{Delivery, DeliveryState, EdgeDelivery};

/// When a purge's answer may be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Level {
    /// At once: it is durable.
    None,
    /// A majority of the registered edges has applied it.
    Quorum,
    /// Every registered edge of a region has.
    Region(Region),
    /// Every registered edge has.
    Effective,
}

/// An edge that is registered.
pub(crate) type Member = (NodeName, Region);

/// How far the edges are.
#[derive(Debug)]
pub(crate) struct Progress {
    applied: BTreeMap<NodeName, u64>,
    tracked: BTreeMap<u64, Track>,
    most: usize,
}

#[derive(Debug)]
struct Track {
    ordered: Instant,
    /// When it was known to be in the log.
    known: Instant,
    took: BTreeMap<NodeName, Duration>,
}

impl Progress {
    pub(crate) fn new(most: usize) -> Self {
        Self { applied: BTreeMap::new(), tracked: BTreeMap::new(), most }
    }

    /// Tracks the purge of the entry `seq`, ordered at `ordered`. Edges may have been faster.
    pub(crate) fn track(&mut self, seq: u64, ordered: Instant, now: Instant) {
        let took = now.saturating_duration_since(ordered);
        let there = self.applied.iter().filter(|(_, applied)| **applied >= seq);
        let took = there.map(|(edge, _)| (edge.clone(), took)).collect();
        self.tracked.insert(seq, Track { ordered, known: now, took });
        while self.tracked.len() > self.most {
            self.tracked.pop_first();
        }
    }

    /// Notes that `edge` has applied everything up to `seq`.
    pub(crate) fn acked(&mut self, edge: &NodeName, seq: u64, now: Instant) {
        let before = self.applied.get(edge).copied();
        if before.is_some_and(|before| before >= seq) {
            return; // a late copy
        }
        self.applied.insert(edge.clone(), seq);
        let from = before.map_or(0, |before| before.saturating_add(1));
        for (_, track) in self.tracked.range_mut(from..=seq) {
            let took = now.saturating_duration_since(track.ordered);
            track.took.entry(edge.clone()).or_insert(took);
        }
    }

    /// Forgets what `edge` said: it starts anew, or is gone.
    pub(crate) fn forget(&mut self, edge: &str) {
        self.applied.remove(edge);
    }

    /// When the purge of the entry `seq` was known to be in the log, as long as it is remembered.
    pub(crate) fn known_at(&self, seq: u64) -> Option<Instant> {
        self.tracked.get(&seq).map(|track| track.known)
    }

    fn has(&self, edge: &NodeName, seq: u64) -> bool {
        self.applied.get(edge).is_some_and(|applied| *applied >= seq)
    }

    /// How far the purge of the entry `seq` got.
    pub(crate) fn delivery(&self, seq: u64, members: &[Member]) -> Delivery {
        let pending: Vec<NodeName> = members
            .iter()
            .filter(|(edge, _)| !self.has(edge, seq))
            .map(|(edge, _)| edge.clone())
            .collect();
        let (total, acked) = (members.len(), members.len() - pending.len());
        Delivery { total, acked, pending, lapsed: Vec::new() }
    }

    /// The same, edge by edge.
    pub(crate) fn by_edge(&self, seq: u64, members: &[Member]) -> Vec<EdgeDelivery> {
        let track = self.tracked.get(&seq);
        let one = |(edge, _): &Member| {
            let acked = self.has(edge, seq);
            let took = track.and_then(|track| track.took.get(edge)).filter(|_| acked);
            let state = if acked { DeliveryState::Acked } else { DeliveryState::Pending };
            let latency_ms = took.map(|took| took.as_secs_f64() * 1_000.0);
            EdgeDelivery { edge: edge.clone(), state, latency_ms }
        };
        members.iter().map(one).collect()
    }

    /// Whether the purge of the entry `seq` got as far as `level` asks for.
    pub(crate) fn reached(&self, level: &Level, seq: u64, members: &[Member]) -> bool {
        let has = |member: &Member| self.has(&member.0, seq);
        match level {
            Level::None => true,
            Level::Quorum => {
                let acked = members.iter().filter(|member| has(member)).count();
                members.is_empty() || acked * 2 > members.len()
            }
            Level::Region(region) => members.iter().filter(|(_, home)| home == region).all(has),
            Level::Effective => members.iter().all(has),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use meridian_config::units::NodeName;

    use super::{Level, Member, Progress};

    fn members() -> Vec<Member> {
        [("a-1", "fra"), ("a-2", "fra"), ("b-1", "nrt")]
            .map(|(edge, region)| (edge.parse().unwrap(), region.parse().unwrap()))
            .to_vec()
    }

    fn edge(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    fn a_level_is_reached_by_the_edges_that_it_names() {
        let (now, mut progress) = (Instant::now(), Progress::new(2));
        let region = |name: &str| Level::Region(name.parse().unwrap());
        let levels = [Level::None, region("nrt"), Level::Quorum, region("fra"), Level::Effective];
        let reached = |progress: &Progress| {
            levels.clone().map(|level| progress.reached(&level, 5, &members()))
        };
        assert_eq!(reached(&progress), [true, false, false, false, false]);
        progress.acked(&edge("b-1"), 9, now);
        assert_eq!(reached(&progress), [true, true, false, false, false]);
        progress.acked(&edge("a-1"), 4, now); // not far enough
        assert_eq!(reached(&progress), [true, true, false, false, false]);
        progress.acked(&edge("a-1"), 5, now);
        assert_eq!(reached(&progress), [true, true, true, false, false]);
        assert_eq!(progress.delivery(5, &members()).pending, [edge("a-2")]);
        progress.acked(&edge("a-2"), 5, now);
        progress.acked(&edge("a-2"), 3, now); // a late copy takes nothing back
        assert_eq!(reached(&progress), [true; 5]);
        progress.forget("b-1");
        assert_eq!(reached(&progress), [true, false, true, true, false]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    fn latency_counts_from_the_order_whoever_is_faster() {
        let (start, mut progress) = (Instant::now(), Progress::new(2));
        let at = |ms: u64| start + Duration::from_millis(ms);
        progress.acked(&edge("a-1"), 1, at(10)); // before the order is tracked
        progress.track(1, start, at(20));
        progress.acked(&edge("a-2"), 1, at(30));
        let took: Vec<_> =
            progress.by_edge(1, &members()).into_iter().map(|one| one.latency_ms).collect();
        assert_eq!(took, [Some(20.0), Some(30.0), None]);
        progress.track(2, start, at(40));
        progress.track(3, start, at(40));
        assert_eq!(progress.tracked.len(), 2);
        assert_eq!(progress.by_edge(1, &members())[0].latency_ms, None);
    }
}
