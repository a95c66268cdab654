//! Purges against checks in every interleaving that the memory model allows: the very source of the
//! edge's epochs, made of loom's primitives.
//!
//! Each test is a claim about two threads; loom runs them in all their orders.

#![expect(unused, unreachable_pub, reason = "the edge uses what is not used here")]

#[path = "../src/epochs.rs"]
mod epochs;
#[path = "../src/lengths.rs"]
mod lengths;
#[path = "../src/scope.rs"]
mod scope;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard, RwLock};
}

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::epochs::{Epochs, Limits, Mark, Standing, Tags};
use crate::scope::{Place, Selector, Strength};

const PLACE: Place<'static> = Place { site: "s", host: "", target: "/a" };
const PREFIX: Selector<'static> = Selector::Prefix { site: Some("s"), path: "/" };

fn epochs() -> Arc<Epochs> {
    Epochs::new(Limits { selectors: 8, shards: 1 }, 3)
}

/// Runs `test` in its interleavings, with at most three switches where none is needed: beyond
/// that hardly any fault hides, and it would take hours.
fn in_every_order(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(test);
}

#[test]
fn who_knows_that_a_purge_is_applied_never_finds_what_it_matches_current() {
    for selector in [Selector::All, Selector::Url(PLACE), PREFIX] {
        in_every_order(move || {
            let (epochs, told) = (epochs(), Arc::new(AtomicBool::new(false)));
            let mark = Arc::new(Mark::new(epochs.stamp().epoch(), Tags::default()));
            let (applying, tells) = (Arc::clone(&epochs), Arc::clone(&told));
            let purge = thread::spawn(move || {
                applying.apply([selector], Strength::Hard);
                tells.store(true, Ordering::Release);
            });
            for _ in 0..2 {
                let knows = told.load(Ordering::Acquire);
                let standing = epochs.standing(&mark, || PLACE);
                assert!(!knows || standing == Standing::Purged, "{selector:?}");
            }
            purge.join().unwrap();
            assert_eq!(epochs.standing(&mark, || PLACE), Standing::Purged);
        });
    }
}

#[test]
fn a_fetch_that_begins_when_a_purge_is_known_outlives_it() {
    in_every_order(|| {
        let (epochs, told) = (epochs(), Arc::new(AtomicBool::new(false)));
        let (applying, tells) = (Arc::clone(&epochs), Arc::clone(&told));
        let purge = thread::spawn(move || {
            applying.apply([PREFIX], Strength::Hard);
            tells.store(true, Ordering::Release);
        });
        let knows = told.load(Ordering::Acquire);
        let stamp = epochs.stamp();
        let mark = Mark::new(stamp.epoch(), Tags::default());
        purge.join().unwrap();
        let standing = epochs.standing(&mark, || PLACE);
        assert!(!knows || standing == Standing::Current);
        assert_eq!(standing == Standing::Current, stamp.epoch() == 1);
    });
}

#[test]
fn a_sweep_hides_no_purge_from_who_checks_meanwhile() {
    for (strength, want) in
        [(Strength::Hard, Standing::Purged), (Strength::Soft, Standing::Outdated)]
    {
        in_every_order(move || {
            let epochs = epochs();
            let mark = Arc::new(Mark::new(epochs.stamp().epoch(), Tags::default()));
            epochs.apply([PREFIX], strength);
            let (sweeping, stored) = (Arc::clone(&epochs), Arc::clone(&mark));
            let sweep = thread::spawn(move || {
                let sweep = sweeping.begin_sweep();
                sweeping.settle(&stored, || PLACE);
                assert_eq!(sweeping.end_sweep(sweep), 1);
            });
            assert_eq!(epochs.standing(&mark, || PLACE), want);
            sweep.join().unwrap();
            assert_eq!(epochs.standing(&mark, || PLACE), want);
        });
    }
}

#[test]
fn a_sweep_forgets_nothing_that_matters_to_a_fetch_under_way() {
    in_every_order(|| {
        let epochs = epochs();
        let stamp = epochs.stamp();
        epochs.apply([PREFIX], Strength::Hard);
        let sweeping = Arc::clone(&epochs);
        let sweep = thread::spawn(move || {
            // Nothing is stored yet that could be looked at.
            sweeping.end_sweep(sweeping.begin_sweep());
        });
        let mark = Mark::new(stamp.epoch(), Tags::default());
        assert_eq!(epochs.standing(&mark, || PLACE), Standing::Purged);
        sweep.join().unwrap();
        assert_eq!(epochs.standing(&mark, || PLACE), Standing::Purged);
        drop(stamp);
    });
}

#[test]
fn folding_hides_no_purge_from_who_checks_meanwhile() {
    in_every_order(|| {
        let epochs = Epochs::new(Limits { selectors: 2, shards: 1 }, 3);
        let mark = Mark::new(epochs.stamp().epoch(), Tags::default());
        epochs.apply([Selector::Url(PLACE)], Strength::Hard);
        let applying = Arc::clone(&epochs);
        let fold = thread::spawn(move || {
            applying.apply([Selector::Tag("b"), Selector::Tag("c")], Strength::Hard);
            assert!(applying.folded() > 0);
        });
        assert_eq!(epochs.standing(&mark, || PLACE), Standing::Purged);
        fold.join().unwrap();
        assert_eq!(epochs.standing(&mark, || PLACE), Standing::Purged);
    });
}
