//! The machine on a disk: what is there after opening again, and what a batch does.

use std::path::Path;
use std::sync::{Arc, Mutex};

use meridian_control_wire::purge::PurgeOrder;
use meridian_control_wire::selector::Selector;
use meridian_control_wire::{EdgeState, Intent};
use proptest::prelude::{any, proptest};
use proptest::strategy::Strategy;
use proptest::{prop_oneof, test_runner::Config};
use redb::{Database, Durability};

use super::Machine;
use crate::auth::Fingerprint;
use crate::disk::Folder;
use crate::error::StoreError;
use crate::machine::tables::{EDGES, Engine, FILE_META};
use crate::order::{
    Batch, Bounds, Change, Condition, EdgeChange, EdgeRecord, Order, Outcome, PurgeRequest,
    Refused, RepeatKey,
};
use crate::watcher::{EdgeEvent, EdgeWatcher, EdgesSaved, Unwatched};

pub(crate) const BOUNDS: Bounds =
    Bounds { keep: 16, folded: 5, keys: 6, key_expiry_ms: 1_000, registers: 3, edges: 2 };

/// What was told, as text; the latest of what was restored.
#[derive(Debug, Default)]
struct Told {
    restored: Mutex<EdgesSaved>,
    happened: Mutex<Vec<EdgeEvent>>,
}

impl EdgeWatcher for Told {
    fn restored(&self, saved: EdgesSaved) {
        *self.restored.lock().unwrap() = saved;
    }

    fn happened(&self, events: Vec<EdgeEvent>, _position: u64) {
        self.happened.lock().unwrap().extend(events);
    }
}

fn open(folder: &Path) -> Result<Machine, StoreError> {
    Machine::open(&Folder(folder.to_owned()), Engine::Single, Arc::new(Unwatched))
}

fn batch(at_ms: u64, orders: Vec<Order>) -> Batch {
    Batch { at_ms, bounds: BOUNDS, orders }
}

fn apply(machine: &Machine, at_ms: u64, orders: Vec<Order>) -> Vec<Outcome> {
    let batches = vec![batch(at_ms, orders)];
    machine.apply(batches, &Vec::new(), Durability::Immediate).unwrap().remove(0)
}

fn enrol(name: &str, secret: &str) -> Order {
    let text = format!(
        r#"{{"name":"{name}","region":"fra","city":"Frankfurt","location":[50.0,8.5],
            "url":"http://127.0.0.1:1","admin":"http://127.0.0.1:2"}}"#
    );
    let registration = serde_json::from_str(&text).unwrap();
    Order::Edge(EdgeChange::Enrol { registration, secret: Fingerprint::of(secret) })
}

fn intend(region: &str, intent: Intent) -> Order {
    Order::Edge(EdgeChange::Intend { region: region.parse().unwrap(), intent })
}

fn purge(tag: &str, key: Option<u8>) -> Order {
    let order = PurgeOrder { selectors: vec![Selector::Tag(tag.to_owned())], soft: false };
    let mut fingerprint = [0; 32];
    fingerprint[..tag.len()].copy_from_slice(tag.as_bytes());
    let key = key.map(|key| RepeatKey { key: [key; 32], fingerprint });
    Order::Purge { request: PurgeRequest { order, by: "ci".to_owned(), key }, nonce: 7 }
}

#[test]
fn edges_are_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("made/on/the/way");
    let machine = open(&data).unwrap();
    apply(&machine, 5, vec![enrol("a", "x"), enrol("b", "y"), intend("fra", Intent::Drained)]);
    let remove = Order::Edge(EdgeChange::Remove("a".parse().unwrap()));
    let record =
        EdgeRecord { name: "b".parse().unwrap(), state: EdgeState::Unhealthy, heard_at_ms: 3 };
    let keep = EdgeChange::Keep { states: vec![record], expired: Vec::new() };
    apply(&machine, 6, vec![remove, Order::Edge(keep)]);
    drop(machine);
    let told = Arc::new(Told::default());
    let disk = Folder(data);
    let _machine = Machine::open(&disk, Engine::Single, Arc::clone(&told) as _).unwrap();
    let saved = told.restored.lock().unwrap();
    let edge = &saved.edges[0];
    assert_eq!((saved.edges.len(), edge.registration.name.as_str()), (1, "b"));
    assert_eq!((edge.state, edge.heard_at_ms), (EdgeState::Unhealthy, 3));
    assert_eq!(saved.intents, [("fra".parse().unwrap(), Intent::Drained)]);
    assert_eq!(saved.position, 5);
}

#[test]
fn what_was_ordered_of_an_edge_that_registered_again_does_not_touch_it() {
    let folder = tempfile::tempdir().unwrap();
    let told = Arc::new(Told::default());
    let disk = Folder(folder.path().to_owned());
    let machine = Machine::open(&disk, Engine::Single, Arc::clone(&told) as _).unwrap();
    let expire = |secret: &str| {
        let expired = vec![("a".parse().unwrap(), Fingerprint::of(secret))];
        Order::Edge(EdgeChange::Keep { states: Vec::new(), expired })
    };
    let outcomes = apply(&machine, 1, vec![enrol("a", "x"), enrol("a", "y"), expire("x")]);
    let known = |known| Outcome::Enrolled { known };
    assert_eq!(outcomes, [known(false), known(true), Outcome::Kept(Vec::new())]);
    let gone = Outcome::Kept(vec!["a".parse().unwrap()]);
    assert_eq!(apply(&machine, 1, vec![expire("y")]), [gone]);
    let happened = told.happened.lock().unwrap();
    assert!(matches!(happened[..], [_, _, EdgeEvent::Removed(_)]), "{happened:?}");
}

#[test]
fn edges_are_bounded_and_an_intent_needs_a_region_that_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let machine = open(folder.path()).unwrap();
    let full = Outcome::Refused(Refused::EdgesFull);
    let unknown = Outcome::Refused(Refused::UnknownRegion);
    let known = |known| Outcome::Enrolled { known };
    let orders = vec![intend("fra", Intent::Drained), enrol("a", "x"), enrol("b", "x")];
    assert_eq!(apply(&machine, 1, orders), [unknown.clone(), known(false), known(false)]);
    let orders = vec![enrol("c", "x"), enrol("b", "x"), intend("fra", Intent::Drained)];
    assert_eq!(apply(&machine, 1, orders), [full, known(true), Outcome::Intended]);
    // what is drained is known, also without an edge
    let remove = |name: &str| Order::Edge(EdgeChange::Remove(name.parse().unwrap()));
    let orders = vec![remove("a"), remove("b"), remove("b"), intend("fra", Intent::Drained)];
    assert_eq!(apply(&machine, 1, orders)[2..], [Outcome::Removed(None), Outcome::Intended]);
    let orders = vec![intend("fra", Intent::Active), intend("fra", Intent::Active)];
    assert_eq!(apply(&machine, 1, orders), [Outcome::Intended, unknown]);
}

#[test]
fn keys_expire_by_the_time_that_batches_bring_and_it_never_steps_back() {
    let folder = tempfile::tempdir().unwrap();
    let machine = open(folder.path()).unwrap();
    let order = |at_ms, tag| apply(&machine, at_ms, vec![purge(tag, Some(1))]).remove(0);
    let seq = |outcome| match outcome {
        Outcome::Purged(accepted) => (accepted.seq, accepted.replayed),
        other => panic!("{other:?}"),
    };
    assert_eq!(seq(order(10_000, "a")), (1, false));
    assert_eq!(seq(order(11_000, "a")), (1, true)); // at the limit
    assert_eq!(order(11_000, "b"), Outcome::Refused(Refused::Mismatch));
    assert_eq!(seq(order(11_001, "b")), (2, false)); // one past it
    assert_eq!(seq(order(0, "b")), (2, true)); // a clock that stepped back
    drop(machine);
    let machine = open(folder.path()).unwrap();
    let outcome = apply(&machine, 0, vec![purge("b", Some(1))]).remove(0);
    assert_eq!(seq(outcome), (2, true));
}

fn stream_of(machine: &Machine) -> Vec<u8> {
    let mut bytes = Vec::new();
    machine.copy(&mut bytes).unwrap();
    bytes
}

fn any_order() -> impl Strategy<Value = Order> {
    prop_oneof![
        6 => (0..4_u8, proptest::option::of(0..9_u8))
            .prop_map(|(tag, key)| purge(&format!("t{tag}"), key)),
        3 => (0..5_u8, any::<bool>()).prop_map(|(key, there)| Order::Change(Change {
            key: format!("site/k{key}"),
            value: there.then(|| key.into()),
            condition: Condition::Any,
            by: "ops".to_owned(),
        })),
        2 => (0..4_u8, 0..2_u8).prop_map(|(name, secret)| {
            enrol(&format!("e{name}"), &format!("s{secret}"))
        }),
        1 => (0..4_u8).prop_map(|name| {
            Order::Edge(EdgeChange::Remove(format!("e{name}").parse().unwrap()))
        }),
        1 => any::<bool>().prop_map(|drained| {
            intend("fra", if drained { Intent::Drained } else { Intent::Active })
        }),
        1 => (1..9_u64).prop_map(|life| Order::Begin { life, cluster: [4; 16] }),
    ]
}

proptest! {
    #![proptest_config(Config { cases: 16, ..Config::default() })]
    #[test]
    fn machines_that_applied_the_same_batches_are_equal_however_they_were_gathered(
        batches in proptest::collection::vec(
            (0..4_000_u64, proptest::collection::vec(any_order(), 0..6)), 1..25),
        cuts in proptest::collection::vec(any::<bool>(), 25),
    ) {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, other) = (open(here.path()).unwrap(), open(there.path()).unwrap());
        let mut outcomes = Vec::new();
        for (at_ms, orders) in &batches {
            outcomes.push(apply(&one, *at_ms, orders.clone()));
        }
        let (mut run, mut gathered) = (Vec::new(), Vec::new());
        for ((at_ms, orders), cut) in batches.into_iter().zip(cuts) {
            run.push(batch(at_ms, orders));
            if cut {
                let run = std::mem::take(&mut run);
                gathered.extend(other.apply(run, &Vec::new(), Durability::None).unwrap());
            }
        }
        gathered.extend(other.apply(run, &Vec::new(), Durability::None).unwrap());
        assert_eq!(outcomes, gathered);
        assert!(stream_of(&one) == stream_of(&other));
        // and so is one that took the rows over
        let third = tempfile::tempdir().unwrap();
        let third = open(third.path()).unwrap();
        third.install(&stream_of(&one)[..]).unwrap();
        assert!(stream_of(&third) == stream_of(&one));
        assert_eq!(third.state(), one.state());
    }
}

#[test]
fn a_batch_that_changes_nothing_costs_no_write() {
    let folder = tempfile::tempdir().unwrap();
    let machine = open(folder.path()).unwrap();
    apply(&machine, 1, vec![purge("a", Some(1))]);
    let file = folder.path().join("journal.redb");
    let before = std::fs::read(&file).unwrap();
    apply(&machine, 2, vec![purge("a", Some(1)), purge("b", Some(1))]);
    assert_eq!(machine.state().last, 1);
    assert!(std::fs::read(&file).unwrap() == before);
    apply(&machine, 2, vec![purge("b", None)]);
    assert!(std::fs::read(&file).unwrap() != before); // it would have been seen
}

#[test]
fn what_the_engine_notes_is_there_with_the_rows_that_it_is_about() {
    let folder = tempfile::tempdir().unwrap();
    let machine = open(folder.path()).unwrap();
    assert_eq!((machine.cluster(), machine.note("applied").unwrap()), (None, None));
    let begin = Order::Begin { life: 3, cluster: [9; 16] };
    let notes = vec![("applied".to_owned(), b"7".to_vec())];
    machine.apply(vec![batch(1, vec![begin])], &notes, Durability::None).unwrap();
    machine.sync().unwrap();
    drop(machine);
    let machine = open(folder.path()).unwrap();
    assert_eq!((machine.cluster(), machine.state().incarnation), (Some([9; 16]), 3));
    assert_eq!(machine.note("applied").unwrap(), Some(b"7".to_vec()));
}

#[test]
fn a_file_that_is_open_elsewhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _open = open(folder.path()).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::Taken { .. }), "{error}");
}

#[test]
fn a_file_of_another_format_or_engine_or_with_nonsense_is_refused_and_says_where() {
    let spoilt = |spoil: &dyn Fn(&redb::WriteTransaction)| {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()).unwrap());
        let database = Database::open(folder.path().join("journal.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        spoil(&transaction);
        transaction.commit().unwrap();
        drop(database);
        open(folder.path()).unwrap_err().to_string()
    };
    let error = spoilt(&|t| drop(t.open_table(FILE_META).unwrap().insert("format", 9).unwrap()));
    assert!(error.contains("has format 9, this version reads format 3"), "{error}");
    let error = spoilt(&|t| drop(t.open_table(FILE_META).unwrap().insert("engine", 2).unwrap()));
    assert!(error.contains("of a replica that was alone"), "{error}");
    let error = spoilt(&|t| drop(t.open_table(EDGES).unwrap().insert("x", &b"{"[..]).unwrap()));
    assert!(error.contains("table edges, row x"), "{error}");
}

#[test]
fn a_file_of_the_first_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::create(folder.path().join("journal.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    transaction.open_table(meta).unwrap().insert("format", 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("has format 1, this version reads format 3"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let error = open(Path::new("/dev/null/data")).unwrap_err().to_string();
    assert!(error.contains("data = /dev/null/data"), "{error}");
}
