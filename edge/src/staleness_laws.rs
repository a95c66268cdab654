//! The bound on staleness is sound whatever clocks and networks do: a simulation that knows the true
//! time, and clocks that err.
//!
//! One control plane acknowledges purges; pings, their answers and the stream each take as long as
//! they like. At each moment the truth is compared with what the edge believes. Two edges that count
//! wrongly, each in its own way, show that the simulation would see it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian_config::control_loss::ControlLoss;
use meridian_control_wire::cursor::Cursor;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::control_lag::{ControlLag, Fresh, Limit, Plan};
use crate::staleness::Staleness;

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A purge is acknowledged.
    Purge,
    /// The edge sends a ping.
    Ping,
    /// A ping that is under way arrives at the replica: which.
    Heard(usize),
    /// An answer that is under way arrives at the edge: which.
    Answered(usize),
    /// The stream brings as many entries.
    Stream(usize),
    /// Nothing but time.
    Pass,
}

/// From when on the edge counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    /// When it sent the ping.
    Sent,
    /// When the answer came: wrong.
    Received,
    /// When it sent the ping, whether or not the stream has brought what the answer names: wrong.
    Unapplied,
}

const LEASE: Duration = Duration::from_secs(3);

struct World {
    start: Instant,
    /// Nanoseconds.
    truth: u64,
    /// How much the edge's clock gains, in millionths.
    rate: i64,
    count: Count,
    /// When each purge was acknowledged.
    acknowledged: Vec<u64>,
    applied: usize,
    to_replica: Vec<Instant>,
    to_edge: VecDeque<(Instant, usize)>,
    staleness: Staleness,
    lag: Arc<ControlLag>,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "any point in time will do")]
    fn new(rate: i64, count: Count) -> Self {
        let start = Instant::now();
        let lag = Arc::new(ControlLag::new(start));
        Self {
            start,
            truth: 0,
            rate,
            count,
            acknowledged: Vec::new(),
            applied: 0,
            to_replica: Vec::new(),
            to_edge: VecDeque::new(),
            staleness: Staleness::new(Arc::clone(&lag)),
            lag,
        }
    }

    /// What the edge's clock shows.
    fn now(&self) -> Instant {
        let gained = i128::from(self.truth) * i128::from(self.rate) / 1_000_000;
        let shown = i128::from(self.truth) + gained;
        self.start + Duration::from_nanos(u64::try_from(shown).unwrap())
    }

    fn step(&mut self, after: u64, event: Event) {
        self.truth += after;
        match event {
            Event::Purge => self.acknowledged.push(self.truth),
            Event::Ping => self.to_replica.push(self.now()),
            Event::Heard(which) => {
                if !self.to_replica.is_empty() {
                    let asked = self.to_replica.remove(which % self.to_replica.len());
                    self.to_edge.push_back((asked, self.acknowledged.len()));
                }
            }
            Event::Answered(which) => {
                if !self.to_edge.is_empty() {
                    let which = which % self.to_edge.len();
                    let (asked, at) = self.to_edge.remove(which).unwrap();
                    self.answered(asked, at);
                }
            }
            Event::Stream(count) => {
                let upto = (self.applied + count).min(self.acknowledged.len());
                for at in self.applied + 1..=upto {
                    self.staleness.passed(&cursor(at));
                }
                self.applied = upto;
                self.staleness.passed(&cursor(upto)); // a bookmark
            }
            Event::Pass => {}
        }
    }

    fn answered(&mut self, asked: Instant, at: usize) {
        let lease = Some(LEASE);
        match self.count {
            Count::Sent => self.staleness.answered(cursor(at), Fresh { at: asked, lease }),
            Count::Received => {
                let fresh = Fresh { at: self.now(), lease };
                self.staleness.answered(cursor(at), fresh);
            }
            Count::Unapplied => self.lag.set(Fresh { at: asked, lease }),
        }
    }

    /// How long ago the first purge was acknowledged that is not applied.
    fn truly_stale(&self) -> Option<u64> {
        self.acknowledged.get(self.applied).map(|acknowledged| self.truth - acknowledged)
    }

    /// What is wrong now.
    fn wrong(&self) -> Option<String> {
        let (now, truth) = (self.now(), Duration::from_nanos(self.truly_stale()?));
        let bound = self.lag.bound(now);
        if bound.is_some_and(|bound| bound < truth) {
            return Some(format!("a bound of {bound:?} where a purge of {truth:?} ago is missing"));
        }
        let plan = |limit| Plan { loss: ControlLoss::FailClosed, limit: Limit::of(limit) };
        let most = Duration::from_secs(10);
        for (limit, ends) in [(most, LEASE), (LEASE / 2, LEASE / 2)] {
            if truth > ends && self.lag.is_within(plan(limit), now) {
                return Some(format!("open {truth:?} after a purge, with {ends:?} to go on"));
            }
        }
        None
    }
}

fn cursor(at: usize) -> Cursor {
    format!("c{at}").parse().unwrap()
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => Just(Event::Purge),
        3 => Just(Event::Ping),
        3 => any::<usize>().prop_map(Event::Heard),
        3 => any::<usize>().prop_map(Event::Answered),
        3 => (0..4_usize).prop_map(Event::Stream),
        1 => Just(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_clocks_and_networks_do_no_purge_is_missing_for_longer_than_the_bound(
        rate in -200_i64..=200,
        events in proptest::collection::vec((0..2_000_000_000_u64, event()), 1..120),
    ) {
        let mut world = World::new(rate, Count::Sent);
        for (after, event) in events {
            world.step(after, event);
            assert_eq!(world.wrong(), None);
        }
    }
}

/// Something that is wrong with an edge that counts so, in one of many runs.
fn found(count: Count) -> Option<String> {
    (0..200).find_map(|seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(rng.random_range(-200..=200), count);
        (0..120).find_map(|_| {
            let which = rng.random_range(0..8);
            let events = [
                Event::Purge,
                Event::Ping,
                Event::Heard(which),
                Event::Answered(which),
                Event::Stream(which % 4),
                Event::Pass,
            ];
            let event = events[rng.random_range(0..events.len())];
            world.step(rng.random_range(0..2_000_000_000), event);
            world.wrong()
        })
    })
}

#[test]
fn the_simulation_sees_an_edge_that_counts_wrongly() {
    assert_eq!(found(Count::Sent), None);
    let received = found(Count::Received).expect("the bound counts from when the answer came");
    assert!(received.contains("bound"), "{received}");
    assert!(found(Count::Unapplied).is_some(), "what was not applied was taken for known");
}

#[test]
fn a_clock_that_is_slow_beyond_what_is_allowed_for_is_seen() {
    let mut world = World::new(-1_000, Count::Sent);
    for (after, event) in [
        (0, Event::Ping),
        (0, Event::Heard(0)),
        (0, Event::Answered(0)),
        (0, Event::Stream(0)),
        (0, Event::Purge),
        (2_999_000_000, Event::Pass),
    ] {
        world.step(after, event);
    }
    assert!(world.wrong().is_some(), "the bound allows for more than it says");
}
