//! The race between a purge and a fetch in flight, in every order in which it can happen.
//!
//! The world: an origin that publishes versions, an edge, perhaps a shield between them, clients of
//! both, and purges that edge and shield apply each in their own time. Purge `n` is accepted after
//! version `n` was published. The law: a request that begins at the edge when it has applied `n`
//! purges is never answered with a version before `n`.
//!
//! Left out on purpose: soft purges (they allow stale answers), several selectors (they only choose
//! which purges count), time, and lost messages (a fetch that fails answers nobody).

#![expect(
    clippy::indexing_slicing,
    reason = "a step points at a flight of the world it is taken in"
)]

use stateright::{Checker, Model, Property};

/// How many purges were accepted or applied, and with which one a stamp was taken.
type Epoch = u8;

/// A whole design: how a node keeps purged bytes from being used.
#[derive(Debug, Clone, Copy)]
struct Design {
    purging: Purging,
    joining: Joining,
    tiers: Tiers,
}

/// What applying a purge does, and what a stored response remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purging {
    /// A purge deletes what is stored; what arrives later is stored, whatever it is.
    Deletes,
    /// A stored response bears the epoch at which its fetch ended.
    StampsAtTheEnd,
    /// A stored response bears the epoch that was applied before its fetch left.
    StampsAtTheStart,
}

/// Which fetch in flight a request may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joining {
    /// Any.
    Any,
    /// One whose stamp covers every purge applied when the request arrived.
    Covered,
    /// Any, as a tag is unknown before the answer is there; then whoever the stamp does not cover
    /// asks again.
    CheckedAtTheEnd,
}

/// Whom the edge asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tiers {
    /// The origin.
    One,
    /// A shield, with this agreement.
    Two(Agreement),
}

/// What edge and shield tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agreement {
    /// Nothing: each stamps by itself.
    Nothing,
    /// The shield tells the stamp of what it answers; the edge keeps the lesser one.
    Stamp,
    /// Besides, the edge tells how far it is, or is about to be; a shield that is behind asks the
    /// origin for it.
    StampAndNeed,
    /// The same, but a purge counts for what the edge tells only once it has been applied.
    StampAndLateNeed,
    /// The edge tells how far it is, and does not look at the shield's stamp.
    NeedAlone,
}

impl Tiers {
    /// What the edge tells of how far it is, if it does, changes before what is applied does.
    fn announces(self) -> Option<bool> {
        match self {
            Self::Two(Agreement::StampAndNeed | Agreement::NeedAlone) => Some(true),
            Self::Two(Agreement::StampAndLateNeed) => Some(false),
            Self::One | Self::Two(Agreement::Nothing | Agreement::Stamp) => None,
        }
    }
}

/// A design in a world of a certain size.
#[derive(Debug, Clone, Copy)]
struct Race {
    design: Design,
    /// How many versions are published, each with a purge.
    purges: Epoch,
    /// How many clients ask the edge.
    requests: u8,
}

/// One state of the world.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    /// The version that the origin gives now.
    published: Epoch,
    /// How many purges were accepted.
    accepted: Epoch,
    edge: Cache,
    /// How far the edge says that it is.
    edge_tells: Epoch,
    shield: Cache,
    edge_flights: Vec<EdgeFlight>,
    /// At most one for each stamp.
    shield_flights: Vec<ShieldFlight>,
    requests_left: u8,
    /// How the law was broken so far.
    wrong: Wrong,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Cache {
    applied: Epoch,
    stored: Option<Stored>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stored {
    version: Epoch,
    stamp: Epoch,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct EdgeFlight {
    /// What was applied at the edge before it left.
    stamp: Epoch,
    /// What the edge told then.
    need: Epoch,
    at: Stage,
    /// Who waits: what was applied when each arrived, sorted.
    waiters: Vec<Epoch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Stage {
    Sent,
    /// Waits for the shield's flight of that stamp; `required` was applied when it arrived there.
    AtShield {
        flight: Epoch,
        required: Epoch,
    },
    Answered {
        version: Epoch,
        /// What the shield says, or the origin's: as good as the flight's own.
        stamp: Epoch,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct ShieldFlight {
    stamp: Epoch,
    /// What the origin gave, once it has.
    version: Option<Epoch>,
}

/// Who was answered with a version before what was purged when the request began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Wrong {
    from_the_store: bool,
    from_a_flight: bool,
}

/// What may happen next. A number is a place in a list of flights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Publish,
    AcceptPurge,
    EdgeTells,
    EdgeApplies,
    ShieldApplies,
    ClientAsksEdge,
    StrangerAsksShield,
    ReachesUpstream(usize),
    AnswerReachesEdge(usize),
    OriginAnswersShield(usize),
    AnswerReachesShield(usize),
}

const NOTHING_OLD_FROM_THE_STORE: &str = "nothing purged is served from the store";
const NOTHING_OLD_FROM_A_FLIGHT: &str = "nothing purged is served from a flight";
const OVERTAKEN: &str = "a purge is applied while an older fetch is in flight";
const USABLE: &str = "after the last purge the edge has a response that it may use";

impl Model for Race {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            published: 0,
            accepted: 0,
            edge: Cache::default(),
            edge_tells: 0,
            shield: Cache::default(),
            edge_flights: Vec::new(),
            shield_flights: Vec::new(),
            requests_left: self.requests,
            wrong: Wrong::default(),
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        let shielded = self.design.tiers != Tiers::One;
        let rows = [
            (world.published < self.purges, Step::Publish),
            (world.accepted < world.published, Step::AcceptPurge),
            (self.edge_may_tell(world), Step::EdgeTells),
            (self.edge_may_apply(world), Step::EdgeApplies),
            (shielded && world.shield.applied < world.accepted, Step::ShieldApplies),
            (world.requests_left > 0, Step::ClientAsksEdge),
            (shielded && self.shield_would_fetch(world), Step::StrangerAsksShield),
        ];
        steps.extend(rows.iter().filter(|(possible, _)| *possible).map(|(_, step)| *step));
        steps.extend(world.edge_flights.iter().enumerate().filter_map(
            |(at, flight)| match flight.at {
                Stage::Sent => Some(Step::ReachesUpstream(at)),
                Stage::AtShield { .. } => None,
                Stage::Answered { .. } => Some(Step::AnswerReachesEdge(at)),
            },
        ));
        steps.extend(world.shield_flights.iter().enumerate().map(
            |(at, flight)| match flight.version {
                None => Step::OriginAnswersShield(at),
                Some(_) => Step::AnswerReachesShield(at),
            },
        ));
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut world = world.clone();
        match step {
            Step::Publish => world.published += 1,
            Step::AcceptPurge => world.accepted += 1,
            Step::EdgeTells => world.edge_tells += 1,
            Step::EdgeApplies => {
                self.apply(&mut world.edge);
                if self.design.tiers.announces().is_none() {
                    world.edge_tells = world.edge.applied;
                }
            }
            Step::ShieldApplies => self.apply(&mut world.shield),
            Step::ClientAsksEdge => self.client_asks(&mut world),
            Step::StrangerAsksShield => {
                let stamp = world.shield.applied;
                world.shield_flights.push(ShieldFlight { stamp, version: None });
            }
            Step::ReachesUpstream(at) => self.reach_upstream(&mut world, at),
            Step::AnswerReachesEdge(at) => self.answer_edge(&mut world, at),
            Step::OriginAnswersShield(at) => {
                world.shield_flights[at].version = Some(world.published);
            }
            Step::AnswerReachesShield(at) => self.answer_shield(&mut world, at),
        }
        // Flights have no names: worlds that differ in their order are one.
        world.edge_flights.sort_unstable();
        world.shield_flights.sort_unstable();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(NOTHING_OLD_FROM_THE_STORE, |_, world: &World| {
                !world.wrong.from_the_store
            }),
            Property::always(NOTHING_OLD_FROM_A_FLIGHT, |_, world: &World| {
                !world.wrong.from_a_flight
            }),
            // Without these two the laws above could hold because nothing ever happens.
            Property::sometimes(OVERTAKEN, |_, world: &World| {
                world.edge_flights.iter().any(|flight| flight.stamp < world.edge.applied)
            }),
            Property::sometimes(USABLE, |race: &Race, world: &World| {
                world.edge.applied == race.purges && race.usable(world.edge)
            }),
        ]
    }
}

impl Race {
    fn apply(&self, cache: &mut Cache) {
        cache.applied += 1;
        if self.design.purging == Purging::Deletes {
            cache.stored = None;
        }
    }

    fn edge_may_tell(&self, world: &World) -> bool {
        match self.design.tiers.announces() {
            None => false,
            Some(true) => world.edge_tells < world.accepted,
            Some(false) => world.edge_tells < world.edge.applied,
        }
    }

    fn edge_may_apply(&self, world: &World) -> bool {
        match self.design.tiers.announces() {
            Some(true) => world.edge.applied < world.edge_tells,
            None | Some(false) => world.edge.applied < world.accepted,
        }
    }

    /// Whether what is stored may answer a request that arrives now.
    fn usable(&self, cache: Cache) -> bool {
        match (self.design.purging, cache.stored) {
            (_, None) => false,
            (Purging::Deletes, Some(_)) => true,
            (_, Some(stored)) => stored.stamp >= cache.applied,
        }
    }

    /// Whether a request that arrives when `applied` purges were applied may wait for a flight.
    fn may_join(&self, flight_stamp: Epoch, applied: Epoch) -> bool {
        match self.design.joining {
            Joining::Any | Joining::CheckedAtTheEnd => true,
            Joining::Covered => flight_stamp >= applied,
        }
    }

    fn client_asks(&self, world: &mut World) {
        world.requests_left -= 1;
        let need = world.edge.applied;
        match world.edge.stored.filter(|_| self.usable(world.edge)) {
            Some(stored) => world.wrong.from_the_store |= stored.version < need,
            None => self.wait_at_edge(world, need),
        }
    }

    /// Whoever needs what `need` purges leave waits for a flight that it may join, or starts one.
    fn wait_at_edge(&self, world: &mut World, need: Epoch) {
        let joined = world.edge_flights.iter_mut().find(|flight| self.may_join(flight.stamp, need));
        match joined {
            Some(flight) => {
                flight.waiters.push(need);
                flight.waiters.sort_unstable();
            }
            None => {
                let (stamp, tells) = (world.edge.applied, world.edge_tells);
                let (at, waiters) = (Stage::Sent, vec![need]);
                world.edge_flights.push(EdgeFlight { stamp, need: tells, at, waiters });
            }
        }
    }

    fn joinable_at_shield(&self, world: &World) -> Option<Epoch> {
        let stamps = world.shield_flights.iter().map(|flight| flight.stamp);
        stamps.into_iter().find(|stamp| self.may_join(*stamp, world.shield.applied))
    }

    fn shield_would_fetch(&self, world: &World) -> bool {
        !self.usable(world.shield) && self.joinable_at_shield(world).is_none()
    }

    fn reach_upstream(&self, world: &mut World, at: usize) {
        let EdgeFlight { stamp, need, .. } = world.edge_flights[at];
        let from_origin = Stage::Answered { version: world.published, stamp };
        world.edge_flights[at].at = match (self.design.tiers, world.shield.stored) {
            (Tiers::One, _) => from_origin,
            // Past its store, and past its flights too.
            (tiers, _) if tiers.announces().is_some() && world.shield.applied < need => from_origin,
            (Tiers::Two(_), Some(stored)) if self.usable(world.shield) => {
                Stage::Answered { version: stored.version, stamp: stored.stamp }
            }
            (Tiers::Two(_), _) => {
                let required = world.shield.applied;
                let flight = self.joinable_at_shield(world).unwrap_or_else(|| {
                    world.shield_flights.push(ShieldFlight { stamp: required, version: None });
                    required
                });
                Stage::AtShield { flight, required }
            }
        };
    }

    fn answer_edge(&self, world: &mut World, at: usize) {
        let flight = world.edge_flights.remove(at);
        let Stage::Answered { version, stamp: upstream } = flight.at else {
            unreachable!("only an answered flight lands")
        };
        let stamp = match (self.design.purging, self.design.tiers) {
            (Purging::Deletes | Purging::StampsAtTheEnd, _) => world.edge.applied,
            (
                Purging::StampsAtTheStart,
                Tiers::One | Tiers::Two(Agreement::Nothing | Agreement::NeedAlone),
            ) => flight.stamp,
            (Purging::StampsAtTheStart, Tiers::Two(_)) => flight.stamp.min(upstream),
        };
        world.edge.stored = Some(Stored { version, stamp });
        for need in flight.waiters {
            if self.design.joining == Joining::CheckedAtTheEnd && stamp < need {
                self.wait_at_edge(world, need);
            } else {
                world.wrong.from_a_flight |= version < need;
            }
        }
    }

    fn answer_shield(&self, world: &mut World, at: usize) {
        let landed = world.shield_flights.remove(at);
        let version = landed.version.expect("only an answered flight lands");
        let stamp = match self.design.purging {
            Purging::Deletes | Purging::StampsAtTheEnd => world.shield.applied,
            Purging::StampsAtTheStart => landed.stamp,
        };
        world.shield.stored = Some(Stored { version, stamp });
        for waiter in &mut world.edge_flights {
            let Stage::AtShield { flight, required } = waiter.at else { continue };
            if flight != landed.stamp {
                continue;
            }
            let late = self.design.joining == Joining::CheckedAtTheEnd && stamp < required;
            waiter.at = if late { Stage::Sent } else { Stage::Answered { version, stamp } };
        }
    }
}

/// The laws that `design` breaks in some order of events, none if it is safe.
fn broken_laws(design: Design, purges: Epoch) -> Vec<&'static str> {
    let race = Race { design, purges, requests: 3 };
    let checker = race.checker().spawn_bfs().join();
    let found = checker.discoveries();
    for example in [OVERTAKEN, USABLE] {
        assert!(found.contains_key(example), "{design:?}: it never happens that {example}");
    }
    let mut broken: Vec<_> =
        found.into_iter().filter(|(law, _)| law.starts_with("nothing")).collect();
    broken.sort_by_key(|(law, _)| *law);
    for (law, path) in &broken {
        eprintln!("{design:?} breaks \"{law}\": {:?}", path.clone().into_actions());
    }
    eprintln!("{design:?}, {purges} purges: {} states", checker.unique_state_count());
    broken.into_iter().map(|(law, _)| law).collect()
}

const SAFE: [&str; 0] = [];
const BOTH: [&str; 2] = [NOTHING_OLD_FROM_A_FLIGHT, NOTHING_OLD_FROM_THE_STORE];

fn one_tier(purging: Purging, joining: Joining) -> Design {
    Design { purging, joining, tiers: Tiers::One }
}

fn two_tiers(joining: Joining, agreement: Agreement) -> Design {
    Design { purging: Purging::StampsAtTheStart, joining, tiers: Tiers::Two(agreement) }
}

/// The design that the edge has. No insert needs a lock or a check: what was fetched too early
/// bears the stamp that says so.
#[test]
fn stamps_from_before_the_fetch_and_joining_only_what_they_cover_are_safe() {
    for joining in [Joining::Covered, Joining::CheckedAtTheEnd] {
        let design = one_tier(Purging::StampsAtTheStart, joining);
        for purges in 1..=3 {
            assert_eq!(broken_laws(design, purges), SAFE, "{design:?}, {purges} purges");
        }
    }
}

/// The edge's request says how far the edge is: a shield that has heard less cannot know what it
/// must not serve, so it asks the origin. Its answer says how old it is at least.
#[test]
fn a_shield_that_obeys_what_the_edge_needs_is_safe() {
    for joining in [Joining::Covered, Joining::CheckedAtTheEnd] {
        let design = two_tiers(joining, Agreement::StampAndNeed);
        for purges in 1..=2 {
            assert_eq!(broken_laws(design, purges), SAFE, "{design:?}, {purges} purges");
        }
    }
}

/// What the edge tells is taken after the stamp, so it must count a purge before anybody can have seen
/// it applied: in between a shield that is behind would be asked for less than who asks may expect.
#[test]
fn a_need_that_lags_behind_what_is_applied_lets_old_bytes_through() {
    let design = two_tiers(Joining::Covered, Agreement::StampAndLateNeed);
    assert_eq!(broken_laws(design, 1), [NOTHING_OLD_FROM_A_FLIGHT]);
}

/// A shield that heeds the need and checks what it serves has nothing older to give: the lesser stamp
/// guards against one that errs, and tells what a soft purge made stale, which is left out here.
#[test]
fn a_shield_that_heeds_the_need_leaves_nothing_for_its_stamp_to_catch() {
    let design = two_tiers(Joining::Covered, Agreement::NeedAlone);
    assert_eq!(broken_laws(design, 1), SAFE);
}

/// The purge deletes, then the fetch that left before it brings the old bytes back for good.
#[test]
fn deleting_is_undone_by_a_fetch_in_flight() {
    let design = one_tier(Purging::Deletes, Joining::Covered);
    assert_eq!(broken_laws(design, 1), [NOTHING_OLD_FROM_THE_STORE]);
}

/// As above, and whoever comes between purge and answer gets the old bytes from the fetch itself.
#[test]
fn deleting_and_joining_any_flight_is_wrong_twice() {
    let design = one_tier(Purging::Deletes, Joining::Any);
    assert_eq!(broken_laws(design, 1), BOTH);
}

/// The stamp says when the bytes arrived, not when the origin gave them: the purge in between is
/// taken for older than them.
#[test]
fn a_stamp_taken_when_the_fetch_ends_hides_the_purge_that_came_during_it() {
    let design = one_tier(Purging::StampsAtTheEnd, Joining::Covered);
    assert_eq!(broken_laws(design, 1), [NOTHING_OLD_FROM_THE_STORE]);
}

/// What is stored is right, but a request that came after the purge waits for a fetch that left
/// before it and is given its bytes.
#[test]
fn joining_any_flight_gives_late_waiters_old_bytes() {
    let design = one_tier(Purging::StampsAtTheStart, Joining::Any);
    assert_eq!(broken_laws(design, 1), [NOTHING_OLD_FROM_A_FLIGHT]);
}

/// The shield, behind the edge, serves what it has; the edge stamps it as if the origin had just
/// given it.
#[test]
fn a_shield_that_tells_nothing_brings_old_bytes_back() {
    let design = two_tiers(Joining::Covered, Agreement::Nothing);
    assert_eq!(broken_laws(design, 1), BOTH);
}

/// The lesser stamp keeps the edge from reusing what a late shield gave, but whoever asked has got
/// it already.
#[test]
fn a_stamp_from_the_shield_alone_comes_too_late_for_who_asked() {
    let design = two_tiers(Joining::Covered, Agreement::Stamp);
    assert_eq!(broken_laws(design, 1), [NOTHING_OLD_FROM_A_FLIGHT]);
}

/// The agreement between the tiers does not help within one.
#[test]
fn joining_any_flight_is_wrong_behind_a_shield_too() {
    let design = two_tiers(Joining::Any, Agreement::StampAndNeed);
    assert_eq!(broken_laws(design, 1), [NOTHING_OLD_FROM_A_FLIGHT]);
}
