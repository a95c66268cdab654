//! Which edges have stopped by now to serve what they stored, though nobody hears from them. Pure.
//!
//! An edge with routes that are `fail_closed` gets a lease with the answer to each ping, for what
//! it knows then. It counts from the moment when it *sent* the ping, and only once it has applied
//! the cursor beside the lease; when that time is over its `fail_closed` routes use nothing that is
//! stored. This side counts from when it *heard* the ping, which is later, and adds what clocks may
//! differ by: whoever has lapsed here has stopped there. That holds for edges all of whose routes
//! are `fail_closed`; others go on serving.
//!
//! A lease that is renewed after a purge was ordered comes with a cursor behind that purge, so it
//! counts only at an edge that has applied it. So for a purge, no edge goes on for longer than a
//! lease after the order, whether it still pings or not.
//!
//! # Invariants
//! - Reads no clock.
//! - Nobody has lapsed before one lease has passed since this replica began to lead: the one before
//!   may have granted until then.
//! - What a ping says of its routes is believed only if it names a grant of this leadership: an edge
//!   says so only after an answer from here, so no copy of an older ping does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use meridian_config::units::NodeName;
use meridian_control_wire::FailClosed;
use meridian_control_wire::operation::Lease;

/// A clock gains or loses less than one part in this many. An edge assumes the same of its own.
const DRIFT: u32 = 5_000;

/// The leases of one leadership after the other.
#[derive(Debug)]
pub(crate) struct Leases {
    length: Duration,
    lead: Option<Lead>,
    grants: BTreeMap<NodeName, Grant>,
}

/// A leadership.
#[derive(Debug, Clone, Copy)]
struct Lead {
    term: u64,
    /// Names it towards edges.
    by: u64,
    /// At the earliest, as far as this replica has noticed.
    began: Instant,
}

/// The latest of an edge.
#[derive(Debug, Clone, Copy)]
struct Grant {
    /// When its ping was heard, at the earliest.
    heard: Instant,
    /// All of its routes are `fail_closed`, as far as this leadership was told.
    all: bool,
}

impl Leases {
    /// Leases of this length, by a replica that does not lead yet.
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, lead: None, grants: BTreeMap::new() }
    }

    /// Whether these are of the leadership `term`.
    pub(crate) fn are_of(&self, term: Option<u64>) -> bool {
        self.lead.map(|lead| lead.term) == term
    }

    /// The replica leads in `term` from `now` on, or does not; what was granted before is gone.
    pub(crate) fn begin(&mut self, term: Option<u64>, by: u64, now: Instant) {
        self.grants.clear();
        self.lead = term.map(|term| Lead { term, by, began: now });
    }

    /// Grants what a ping asks for that was heard at or before `now`. The barrier beside it must be
    /// one that was asked for after the ping came, and was made while this replica led.
    pub(crate) fn grant(
        &mut self,
        edge: &NodeName,
        asks: FailClosed,
        named: Option<u64>,
        now: Instant,
    ) -> Option<Lease> {
        let lead = self.lead?;
        let all = match asks {
            FailClosed::None => {
                self.grants.remove(edge);
                return None;
            }
            FailClosed::Some => false,
            FailClosed::All => named == Some(lead.by),
        };
        self.grants.insert(edge.clone(), Grant { heard: now, all });
        let ms = u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX);
        Some(Lease { by: lead.by, ms })
    }

    /// Forgets an edge that starts anew, or is gone.
    pub(crate) fn forget(&mut self, edge: &str) {
        self.grants.remove(edge);
    }

    /// From when on an edge that has not applied a purge serves nothing that the purge concerns.
    /// `ordered`: when this leadership knew it to be in the log. `None`: that moment never comes.
    pub(crate) fn lapses_at(&self, edge: &NodeName, ordered: Option<Instant>) -> Option<Instant> {
        let grant = self.grants.get(edge).filter(|grant| grant.all)?;
        let last = ordered.map_or(grant.heard, |ordered| grant.heard.min(ordered));
        last.max(self.lead?.began).checked_add(self.length + self.length / DRIFT)
    }

    /// Whether that moment has come.
    pub(crate) fn has_lapsed(
        &self,
        edge: &NodeName,
        ordered: Option<Instant>,
        now: Instant,
    ) -> bool {
        self.lapses_at(edge, ordered).is_some_and(|lapses| now > lapses)
    }
}

#[cfg(test)]
mod tests {
    use meridian_control_wire::FailClosed::{All, None as NoRoute, Some as SomeRoutes};

    use super::*;

    fn edge() -> NodeName {
        "a".parse().unwrap()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Leases of a second, by the leadership 7 that began at the instant.
    fn leases() -> (Leases, Instant) {
        let start = crate::world::now();
        let mut leases = Leases::new(ms(1_000));
        leases.begin(Some(1), 7, start);
        (leases, start)
    }

    #[test]
    fn only_an_edge_that_is_closed_altogether_and_said_so_to_this_leader_lapses() {
        let rows = [
            // what it says, whose grant it names, whether it gets a lease, whether that lapses
            (NoRoute, Some(7), false, false),
            (SomeRoutes, Some(7), true, false),
            (All, Some(7), true, true),
            (All, None, true, false),
            (All, Some(6), true, false), // a late copy, or the first ping to this leader
        ];
        for (asks, named, gets, lapses) in rows {
            let (mut leases, start) = leases();
            let lease = leases.grant(&edge(), asks, named, start);
            assert_eq!(lease, gets.then_some(Lease { by: 7, ms: 1_000 }), "{asks:?} {named:?}");
            assert_eq!(leases.has_lapsed(&edge(), None, start + ms(9_000)), lapses, "{asks:?}");
        }
    }

    #[test]
    fn a_lease_lapses_one_lease_and_the_drift_after_the_last_ping_or_the_order() {
        let (mut leases, start) = leases();
        let at = |n: u64| start + Duration::from_micros(n * 100);
        leases.grant(&edge(), All, Some(7), at(20_000));
        let lapses = |leases: &Leases, ordered, now| leases.has_lapsed(&edge(), ordered, now);
        assert!(!lapses(&leases, None, at(30_002)) && lapses(&leases, None, at(30_003)));
        // It goes on pinging; for a purge before that only the order counts.
        leases.grant(&edge(), All, Some(7), at(50_000));
        assert!(!lapses(&leases, None, at(60_002)));
        let ordered = Some(at(25_000));
        assert!(!lapses(&leases, ordered, at(35_002)) && lapses(&leases, ordered, at(35_003)));
        // It opened a route.
        leases.grant(&edge(), SomeRoutes, Some(7), at(51_000));
        assert!(!lapses(&leases, ordered, at(90_000)));
    }

    #[test]
    fn a_new_leader_waits_for_what_the_one_before_may_have_granted() {
        let (mut leases, start) = leases();
        leases.grant(&edge(), All, Some(7), start);
        assert!(leases.are_of(Some(1)) && !leases.are_of(Some(2)) && !leases.are_of(None));
        leases.begin(None, 0, start + ms(4_000));
        assert_eq!(
            leases.grant(&edge(), All, Some(7), start + ms(4_000)),
            None,
            "it does not lead"
        );
        leases.begin(Some(2), 8, start + ms(5_000));
        assert!(!leases.has_lapsed(&edge(), None, start + ms(60_000)), "it knows nothing of it");
        leases.grant(&edge(), All, Some(7), start + ms(5_001));
        assert!(!leases.has_lapsed(&edge(), None, start + ms(60_000)), "that was said to another");
        leases.grant(&edge(), All, Some(8), start + ms(5_002));
        let ordered = Some(start + ms(100)); // whoever remembers that, did not lead then
        assert!(!leases.has_lapsed(&edge(), ordered, start + ms(6_000)));
        assert!(leases.has_lapsed(&edge(), ordered, start + ms(6_003)));
        leases.forget("a");
        assert!(!leases.has_lapsed(&edge(), ordered, start + ms(60_000)));
    }
}
