//! The register without sockets, disk and clock.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use meridian_control_wire::EdgeState::{self, Healthy, Unhealthy};
use meridian_control_wire::{Intent, Ping, RegionState, Registration};

use super::{DeadBeat, Member, Register};
use crate::auth::Fingerprint;
use crate::health::Rules;
use crate::world;

const SECRET: &str = "0123456789abcdef";

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn register(most: usize) -> Register {
    let rules = Rules { lapse: ms(1_000), recovery: ms(500) };
    Register::new(rules, ms(10_000), most)
}

fn registration(name: &str, region: &str) -> Registration {
    let text = format!(
        r#"{{"name":"{name}","region":"{region}","city":"","location":[1.0,2.0],
            "url":"http://{name}","admin":"http://{name}:1"}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn restored(name: &str, recorded: EdgeState, unheard: Duration, now: Instant) -> Member {
    let secret = Fingerprint::of(SECRET);
    Member::restored(registration(name, "fra"), secret, recorded, unheard, now)
}

fn beat(register: &mut Register, sequence: u64, now: Instant) -> Result<bool, DeadBeat> {
    register.beat("a", SECRET, Ping { sequence, ..Ping::default() }, now)
}

fn state(register: &Register, now: Instant) -> (EdgeState, Option<u64>) {
    let edge = register.edges(now).remove(0);
    (edge.state, edge.heard_ms_ago)
}

#[test]
fn what_a_restart_cannot_know_is_neither_told_nor_recorded() {
    let t = world::now();
    let mut register = register(10);
    register.insert(restored("a", Healthy, ms(5_000), t));
    assert_eq!(state(&register, t + ms(1_000)), (Unhealthy, None));
    assert!(register.unrecorded(t + ms(1_000)).is_empty(), "a second restart knows no less");
    // Silent for a lapse: now it is certain.
    let later = t + ms(1_001);
    assert_eq!(state(&register, later), (Unhealthy, Some(1_001)));
    let unrecorded = register.unrecorded(later);
    assert_eq!(unrecorded.iter().map(|(_, state)| *state).collect::<Vec<_>>(), [Unhealthy]);
    register.recorded(&"a".parse().unwrap(), Unhealthy);
    assert!(register.unrecorded(later).is_empty());
    // From there on it has to recover like any other.
    assert_eq!(beat(&mut register, 1, later), Ok(true));
    assert_eq!(state(&register, later), (Unhealthy, Some(0)));
    assert_eq!(beat(&mut register, 2, later + ms(500)), Ok(true));
    assert_eq!(state(&register, later + ms(500)), (Healthy, Some(0)));
    assert_eq!(register.unrecorded(later + ms(500)).len(), 1);
}

#[test]
fn silence_counts_across_restarts_towards_expiry() {
    let t = world::now();
    let mut register = register(10);
    register.insert(restored("a", Unhealthy, ms(9_000), t));
    assert_eq!(state(&register, t), (Unhealthy, Some(9_000)));
    assert!(register.expired(t + ms(1_000)).is_empty());
    assert_eq!(register.expired(t + ms(1_001)), ["a".parse().unwrap()]);
    assert_eq!(beat(&mut register, 1, t + ms(1_001)), Ok(true));
    assert!(register.expired(t + ms(11_001)).is_empty(), "a beat starts it anew");
    assert_eq!(register.expired(t + ms(11_002)).len(), 1);
}

#[test]
fn each_turn_is_told_once() {
    let t = world::now();
    let mut register = register(10);
    let mut told = BTreeMap::new();
    let secret = Fingerprint::of(SECRET);
    register.insert(Member::new(registration("a", "fra"), secret, t));
    let mut turns = |register: &mut Register, at: u64| {
        let turns = register.settle(&mut told, t + ms(at));
        turns.into_iter().map(|turn| (turn.state, turn.unheard)).collect::<Vec<_>>()
    };
    assert_eq!(turns(&mut register, 0), [], "that it registered is told already");
    assert_eq!(turns(&mut register, 1_000), []);
    assert_eq!(turns(&mut register, 1_001), [(Unhealthy, ms(1_001))]);
    assert_eq!(turns(&mut register, 5_000), []);
    assert_eq!(beat(&mut register, 1, t + ms(5_000)), Ok(true));
    assert_eq!(beat(&mut register, 2, t + ms(5_500)), Ok(true));
    assert_eq!(turns(&mut register, 5_500), [(Healthy, ms(0))]);
    register.remove(&"a".parse().unwrap());
    assert_eq!(turns(&mut register, 9_000), [], "who left does not turn");
}

#[test]
fn a_region_is_known_by_an_edge_or_an_intent() {
    let t = world::now();
    let mut register = register(10);
    let (fra, lab) = ("fra".parse().unwrap(), "lab".parse().unwrap());
    assert!(register.regions(t).is_empty());
    for (name, region) in [("a", "fra"), ("b", "fra"), ("c", "lab")] {
        let secret = Fingerprint::of(SECRET);
        register.insert(Member::new(registration(name, region), secret, t));
    }
    register.intend("lab".parse().unwrap(), Intent::Drained);
    assert_eq!(beat(&mut register, 1, t + ms(900)), Ok(true));
    let regions = register.regions(t + ms(1_500)); // a was heard, b was not
    let told: Vec<_> = regions
        .iter()
        .map(|view| (view.region.as_str(), view.state, view.edges.total, view.edges.healthy))
        .collect();
    assert_eq!(told, [("fra", RegionState::Degraded, 2, 1), ("lab", RegionState::Drained, 1, 0)]);

    register.remove(&"c".parse().unwrap());
    let known = |register: &Register| register.regions(t).iter().any(|view| view.region == lab);
    assert!(known(&register), "the intent stays when the edge is gone");
    assert_eq!(register.region(&lab, t).location, None);
    register.intend("lab".parse().unwrap(), Intent::Active);
    assert!(!known(&register));
    for name in ["a", "b"] {
        register.remove(&name.parse().unwrap());
    }
    let empty = register.region(&fra, t);
    assert_eq!(empty.city, "Frankfurt", "the table of places knows where it is");
    assert_eq!(empty.state, RegionState::Down);
}

#[test]
fn the_register_has_room_up_to_its_limit() {
    let t = world::now();
    let mut register = register(2);
    for name in ["a", "b"] {
        assert!(register.has_room_for(&name.parse().unwrap()));
        let secret = Fingerprint::of(SECRET);
        register.insert(Member::new(registration(name, "fra"), secret, t));
    }
    assert!(register.has_room_for(&"a".parse().unwrap()));
    assert!(!register.has_room_for(&"c".parse().unwrap()));
}
