//! The laws of [`crate::epochs`], against a list of all purges that forgets nothing; and the race of
//! a purge with a fetch, in every order of events.

use std::sync::Arc;

use proptest::prelude::*;

use crate::epochs::{Demand, Epochs, Limits, Mark, Newest, Stamp, Standing, Tags};
use crate::scope::{Group, Place, Selector, Strength};

const ROOMY: Limits = Limits { selectors: 10_000, shards: 3 };

fn place(target: &'static str) -> Place<'static> {
    Place { site: "shop", host: "", target }
}

fn tagged(epochs: &Epochs, tags: &[&str]) -> Tags {
    epochs.tags(tags.iter().copied())
}

#[test]
fn a_selector_matches_what_it_names_and_nothing_else() {
    let stored = place("/img/a.png?v=1");
    let rows = [
        (Selector::All, true),
        (Selector::Site("shop"), true),
        (Selector::Site("sho"), false),
        (Selector::Url(stored), true),
        (Selector::Url(place("/img/a.png")), false),
        (Selector::Url(Place { site: "other", ..stored }), false),
        (Selector::Url(Place { host: "a", ..stored }), false),
        (Selector::Prefix { site: None, path: "" }, true),
        (Selector::Prefix { site: None, path: "/" }, true),
        (Selector::Prefix { site: None, path: "/im" }, true), // need not end at a segment
        (Selector::Prefix { site: Some("shop"), path: "/img/" }, true),
        (Selector::Prefix { site: Some("shop"), path: "" }, true),
        (Selector::Prefix { site: Some("other"), path: "/img/" }, false),
        (Selector::Prefix { site: None, path: "/img/a.png" }, true),
        (Selector::Prefix { site: None, path: "/img/a.png?" }, false), // compares paths
        (Selector::Prefix { site: None, path: "/img/b" }, false),
        (Selector::Prefix { site: None, path: "img/" }, false),
        (Selector::Tag("red"), true),
        (Selector::Tag("re"), false),
        (Selector::Tag("Red"), false),
        (Selector::Tag("/img/a.png?v=1"), false),
    ];
    for (selector, matches) in rows {
        for strength in [Strength::Hard, Strength::Soft] {
            let epochs = Epochs::new(ROOMY, 7);
            let tags = tagged(&epochs, &["blue", "red"]);
            let mark = Mark::new(epochs.stamp().epoch(), tags.clone());
            epochs.apply([selector], strength);
            let want = match (matches, strength) {
                (false, _) => Standing::Current,
                (true, Strength::Hard) => Standing::Purged,
                (true, Strength::Soft) => Standing::Outdated,
            };
            for _ in 0..2 {
                assert_eq!(epochs.standing(&mark, || stored), want, "{selector:?} {strength:?}");
            }
            let after = Mark::new(epochs.stamp().epoch(), tags);
            assert_eq!(epochs.standing(&after, || stored), Standing::Current, "{selector:?}");
        }
    }
}

#[test]
fn a_group_is_one_of_its_origin_and_no_tag() {
    let group = |site, host, name| Selector::Group(Group { site, host, name });
    let rows = [
        (group("shop", "", "g"), true),
        (group("shop", "", "G"), false),
        (group("shop", "a.example", "g"), false),
        (group("other", "", "g"), false),
        (group("shop", "", "red"), false),
        (Selector::Tag("g"), false),
        (Selector::Tag("red"), true),
    ];
    let stored = place("/a");
    for (selector, matches) in rows {
        let epochs = Epochs::new(ROOMY, 7);
        let labels = epochs.labels(["red"].into_iter(), &stored, ["g"].into_iter());
        let mark = Mark::new(epochs.stamp().epoch(), labels);
        epochs.apply([selector], Strength::Hard);
        let purged = epochs.standing(&mark, || stored) == Standing::Purged;
        assert_eq!(purged, matches, "{selector:?}");
    }
}

#[test]
fn nothing_is_looked_up_while_there_was_no_purge_since_the_last_check() {
    let epochs = Epochs::new(ROOMY, 7);
    let mark = Mark::new(0, Tags::default());
    let never = || -> Place<'static> { panic!("this is a look into the table") };
    assert_eq!(epochs.standing(&mark, never), Standing::Current);
    epochs.apply([Selector::Tag("red")], Strength::Hard);
    assert_eq!(epochs.standing(&mark, || place("/")), Standing::Current);
    assert_eq!(epochs.standing(&mark, never), Standing::Current);
}

#[test]
fn a_prefix_longer_than_any_that_is_kept_is_cut_and_so_purges_more() {
    let epochs = Epochs::new(ROOMY, 7);
    let long = format!("/{}", "a".repeat(8 * 1024 - 1));
    let longer = format!("{long}b");
    epochs.apply([Selector::Prefix { site: None, path: &longer }], Strength::Hard);
    let at = |target| epochs.newest(&Place { site: "s", host: "", target }, &Tags::default()).hard;
    assert_eq!((at(&long), at(&longer)), (1, 1));
    assert_eq!(at(&long[..long.len() - 1]), 0);
}

#[test]
fn what_is_matched_is_told_by_name() {
    let epochs = Epochs::new(ROOMY, 7);
    epochs.apply([Selector::Prefix { site: None, path: "/im" }], Strength::Soft);
    epochs.apply(
        [Selector::Site("shop"), Selector::Prefix { site: None, path: "/x" }],
        Strength::Hard,
    );
    let told = epochs.prefixes(&place("/img/a"));
    let want = [
        (Selector::Prefix { site: Some("shop"), path: "" }, Newest { hard: 2, soft: 0 }),
        (Selector::Prefix { site: None, path: "/im" }, Newest { hard: 0, soft: 1 }),
    ];
    assert_eq!(told, want);
}

#[test]
fn a_full_table_is_folded_into_sites_and_stays_within_its_bound() {
    let epochs = Epochs::new(Limits { selectors: 100, shards: 1 }, 7);
    let stamp = epochs.stamp().epoch();
    let mark =
        |site| (Mark::new(stamp, Tags::default()), Place { site, host: "", target: "/none" });
    let (shop, other) = (mark("shop"), mark("other"));
    for n in 0..1_000 {
        let target = format!("/{n}");
        let url = Place { site: "shop", host: "", target: &target };
        epochs.apply([Selector::Url(url)], Strength::Hard);
        assert!(epochs.selectors() <= 101, "{n}: {}", epochs.selectors());
    }
    assert!(epochs.folded() >= 900);
    assert_eq!(epochs.standing(&shop.0, || shop.1), Standing::Purged, "its site was folded into");
    assert_eq!(epochs.standing(&other.0, || other.1), Standing::Current);
}

#[test]
fn a_sweep_forgets_nothing_that_a_fetch_under_way_is_too_old_for() {
    let epochs = Epochs::new(ROOMY, 7);
    let slow = epochs.stamp();
    epochs.apply([Selector::Tag("red")], Strength::Hard);
    let quick = epochs.stamp();
    epochs.apply([Selector::Tag("blue")], Strength::Hard);
    assert_eq!(epochs.end_sweep(epochs.begin_sweep()), 0);
    let began_meanwhile = epochs.begin_sweep();
    drop(slow);
    assert_eq!(epochs.end_sweep(began_meanwhile), 0, "it may have been stored behind the look");
    assert_eq!(epochs.end_sweep(epochs.begin_sweep()), 1, "red");
    assert_eq!(epochs.of(Selector::Tag("blue")).hard, 2);
    drop(quick);
    assert_eq!(epochs.end_sweep(epochs.begin_sweep()), 1);
    assert_eq!(epochs.selectors(), 0);
}

/// A selector that owns its text.
#[derive(Debug, Clone)]
enum Owned {
    All,
    Site(String),
    Url(String, String),
    Prefix(Option<String>, String),
    Tag(String),
}

impl Owned {
    fn selector(&self) -> Selector<'_> {
        match self {
            Self::All => Selector::All,
            Self::Site(site) => Selector::Site(site),
            Self::Url(site, target) => Selector::Url(Place { site, host: "", target }),
            Self::Prefix(site, path) => Selector::Prefix { site: site.as_deref(), path },
            Self::Tag(tag) => Selector::Tag(tag),
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Purge(Vec<Owned>, bool),
    Begin,
    /// Of the fetches under way, which; where it is stored, with which tags.
    Store(usize, String, String, Vec<String>),
    /// A look through everything stored; whether more events come before it ends.
    BeginSweep,
    EndSweep,
}

fn site() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b"]).prop_map(str::to_owned)
}

fn event() -> impl Strategy<Value = Event> {
    let (target, prefix, tag) = ("/[xy/]{0,4}(\\?[xy])?", "(/[xy/]{0,3})?", "[tuv]");
    let selector = prop_oneof![
        1 => Just(Owned::All),
        1 => site().prop_map(Owned::Site),
        4 => (site(), target).prop_map(|(site, target)| Owned::Url(site, target)),
        4 => (prop::option::of(site()), prefix).prop_map(|(site, path)| Owned::Prefix(site, path)),
        4 => tag.prop_map(Owned::Tag),
    ];
    let tags = prop::collection::vec(tag, 0..3);
    prop_oneof![
        6 => (prop::collection::vec(selector, 1..3), any::<bool>())
            .prop_map(|(selectors, soft)| Event::Purge(selectors, soft)),
        4 => Just(Event::Begin),
        6 => (any::<usize>(), site(), target, tags)
            .prop_map(|(which, site, target, tags)| Event::Store(which, site, target, tags)),
        1 => Just(Event::BeginSweep),
        1 => Just(Event::EndSweep),
    ]
}

/// Everything that was ever purged, and what is stored.
#[derive(Default)]
struct Naive {
    purges: Vec<(Vec<Owned>, Strength)>,
    stored: Vec<(Mark, String, String, Vec<String>)>,
}

impl Naive {
    fn standing(&self, n: usize) -> Standing {
        let (mark, site, target, tags) = &self.stored[n];
        let path = target.split('?').next().unwrap();
        let later = self.purges.iter().skip(usize::try_from(mark.stamp()).unwrap());
        let mut standing = Standing::Current;
        for (selectors, strength) in later {
            let matches = selectors.iter().any(|selector| match selector {
                Owned::All => true,
                Owned::Site(named) => named == site,
                Owned::Url(named, url) => named == site && url == target,
                Owned::Prefix(named, prefix) => {
                    named.as_ref().is_none_or(|named| named == site) && path.starts_with(prefix)
                }
                Owned::Tag(tag) => tags.contains(tag),
            });
            match (matches, strength) {
                (true, Strength::Hard) => return Standing::Purged,
                (true, Strength::Soft) => standing = Standing::Outdated,
                (false, _) => {}
            }
        }
        standing
    }
}

/// Plays `events`, and asks `law` of each stored response after each: what the table says of it,
/// what it should.
fn play(limits: Limits, events: Vec<Event>, law: impl Fn(Standing, Standing) -> bool) {
    let epochs = Epochs::new(limits, 99);
    let (mut naive, mut flights, mut sweep) = (Naive::default(), Vec::<Stamp>::new(), None);
    for event in events {
        match event {
            Event::Purge(selectors, soft) => {
                let strength = if soft { Strength::Soft } else { Strength::Hard };
                epochs.apply(selectors.iter().map(Owned::selector), strength);
                naive.purges.push((selectors, strength));
            }
            Event::Begin => flights.push(epochs.stamp()),
            Event::Store(which, site, target, tags) => {
                if flights.is_empty() {
                    continue;
                }
                let stamp = flights.swap_remove(which % flights.len());
                let mark = Mark::new(stamp.epoch(), epochs.tags(tags.iter().map(String::as_str)));
                naive.stored.push((mark, site, target, tags));
            }
            Event::BeginSweep => {
                // The worst order: what comes later is not looked at any more.
                sweep = Some(epochs.begin_sweep());
                for (mark, site, target, _) in &naive.stored {
                    epochs.settle(mark, || Place { site, host: "", target });
                }
            }
            Event::EndSweep => {
                sweep.take().map(|sweep| epochs.end_sweep(sweep));
            }
        }
        for (n, (mark, site, target, tags)) in naive.stored.iter().enumerate() {
            let found = epochs.standing(mark, || Place { site, host: "", target });
            let want = naive.standing(n);
            assert!(law(found, want), "{site} {target} {tags:?}: {found:?}, not {want:?}");
        }
    }
}

proptest! {
    #[test]
    fn with_room_the_table_says_what_a_list_of_all_purges_says(
        events in prop::collection::vec(event(), 0..60),
    ) {
        play(ROOMY, events, |found, want| found == want);
    }

    #[test]
    fn without_room_it_purges_more_and_never_less(
        events in prop::collection::vec(event(), 0..60),
    ) {
        let rank = |standing| match standing {
            Standing::Current => 0,
            Standing::Outdated => 1,
            Standing::Purged => 2,
        };
        play(Limits { selectors: 2, shards: 1 }, events, |found, want| rank(found) >= rank(want));
    }
}

/// What raising a site into a full shard folds is folded once: the length of the prefixes that stay is
/// known still.
#[test]
fn folding_within_folding_forgets_no_length() {
    let prefix = |path: &str| Event::Purge(vec![Owned::Prefix(None, path.into())], false);
    let events = vec![
        Event::Purge(vec![Owned::Url("a".into(), "/".into())], false),
        prefix("/x"),
        Event::Begin,
        Event::Store(0, "a".into(), "//".into(), Vec::new()),
        prefix("//"),
    ];
    play(Limits { selectors: 2, shards: 1 }, events, |found, want| found == want);
}

/// When a fetch gets its stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamped {
    AtItsBeginning,
    AtItsEnd,
}

/// Which fetch a request may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joins {
    ThatMeetsItsDemand,
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The origin's content changes from 0 to 1.
    Change,
    /// Then it is purged here.
    Purge,
    Request,
    /// The origin answers a fetch.
    Answer(usize),
    /// Its answer is stored and given to who waits.
    Land(usize),
}

struct Flight {
    stamp: Stamp,
    content: Option<u8>,
    waiting: Vec<Request>,
}

struct Request {
    demand: Demand,
    after_purge: bool,
}

/// An edge with one URL, before an origin.
struct Race {
    epochs: Arc<Epochs>,
    selector: Selector<'static>,
    stamped: Stamped,
    joins: Joins,
    origin: u8,
    is_purged: bool,
    stored: Option<(u8, Mark)>,
    flights: Vec<Flight>,
    requests: usize,
    /// A request that came after the purge got what was there before.
    is_broken: bool,
}

impl Race {
    const URL: Place<'static> = Place { site: "shop", host: "", target: "/a" };

    fn new(selector: Selector<'static>, stamped: Stamped, joins: Joins) -> Self {
        let epochs = Epochs::new(Limits { selectors: 16, shards: 1 }, 1);
        let (stored, flights) = (None, Vec::new());
        let (origin, is_purged, requests, is_broken) = (0, false, 0, false);
        Self {
            epochs,
            selector,
            stamped,
            joins,
            origin,
            is_purged,
            stored,
            flights,
            requests,
            is_broken,
        }
    }

    fn enabled(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        match (self.origin, self.is_purged) {
            (0, _) => steps.push(Step::Change),
            (_, false) => steps.push(Step::Purge),
            (_, true) => {}
        }
        if self.requests < 4 {
            steps.push(Step::Request);
        }
        steps.extend(self.flights.iter().enumerate().map(|(n, flight)| match flight.content {
            None => Step::Answer(n),
            Some(_) => Step::Land(n),
        }));
        steps
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Change => self.origin = 1,
            Step::Purge => {
                self.is_purged = true;
                self.epochs.apply([self.selector], Strength::Hard);
            }
            Step::Request => {
                self.requests += 1;
                let demand = self.epochs.demand(&Self::URL);
                self.ask(Request { demand, after_purge: self.is_purged });
            }
            Step::Answer(n) => self.flights[n].content = Some(self.origin),
            Step::Land(n) => self.land(n),
        }
    }

    fn give(&mut self, content: u8, request: &Request) {
        self.is_broken |= request.after_purge && content == 0;
    }

    fn ask(&mut self, request: Request) {
        if let Some((content, mark)) = &self.stored
            && self.epochs.standing(mark, || Self::URL) == Standing::Current
        {
            return self.give(*content, &request);
        }
        let suits = |flight: &&mut Flight| {
            self.joins == Joins::Any || request.demand.is_met_by(flight.stamp.epoch())
        };
        match self.flights.iter_mut().find(suits) {
            Some(flight) => flight.waiting.push(request),
            None => self.fetch(request),
        }
    }

    fn fetch(&mut self, request: Request) {
        let (stamp, waiting) = (self.epochs.stamp(), vec![request]);
        self.flights.push(Flight { stamp, content: None, waiting });
    }

    fn land(&mut self, n: usize) {
        let Flight { stamp, content, waiting } = self.flights.remove(n);
        let (content, tags) = (content.unwrap(), tagged(&self.epochs, &["red"]));
        for request in waiting {
            let may = |demand| self.epochs.may_share(demand, stamp.epoch(), &Self::URL, &tags);
            if self.joins == Joins::Any || may(request.demand) {
                self.give(content, &request);
            } else {
                self.fetch(request);
            }
        }
        let epoch = match self.stamped {
            Stamped::AtItsBeginning => stamp.epoch(),
            Stamped::AtItsEnd => self.epochs.current(),
        };
        self.stored = Some((content, Mark::new(epoch, tags)));
    }
}

/// The shortest order of events in which a request after the purge gets the old content, of all
/// orders of up to nine events; and how many orders there are.
fn explored(
    selector: Selector<'static>,
    stamped: Stamped,
    joins: Joins,
) -> (Option<Vec<Step>>, usize) {
    let (mut orders, mut count) = (vec![Vec::new()], 0);
    for _ in 0..10 {
        let mut longer = Vec::new();
        for order in orders {
            let mut race = Race::new(selector, stamped, joins);
            order.iter().for_each(|step| race.step(*step));
            count += 1;
            if race.is_broken {
                return (Some(order), count);
            }
            longer.extend(
                race.enabled().into_iter().map(|step| [order.as_slice(), &[step]].concat()),
            );
        }
        orders = longer;
    }
    (None, count)
}

#[test]
fn in_no_order_of_events_does_a_request_after_a_purge_get_what_was_there_before() {
    let url = Selector::Url(Race::URL);
    let prefix = Selector::Prefix { site: None, path: "/" };
    for selector in [Selector::All, Selector::Site("shop"), url, prefix, Selector::Tag("red")] {
        let (found, orders) =
            explored(selector, Stamped::AtItsBeginning, Joins::ThatMeetsItsDemand);
        assert_eq!(found, None, "{selector:?}");
        assert!(orders > 1_000, "{orders}");
    }
}

/// That the search finds what is wrong: with either half of the defence taken away, it does.
#[test]
fn with_the_stamp_taken_at_the_end_or_any_fetch_joined_the_race_is_lost() {
    let url = Selector::Url(Race::URL);
    for selector in [Selector::All, url, Selector::Tag("red")] {
        let (found, _) = explored(selector, Stamped::AtItsEnd, Joins::ThatMeetsItsDemand);
        let want = [
            Step::Request,
            Step::Answer(0),
            Step::Change,
            Step::Purge,
            Step::Land(0),
            Step::Request,
        ];
        let found = found.expect("the race is lost");
        assert_eq!(found.len(), want.len(), "{selector:?}: {found:?}");
        let (found, _) = explored(selector, Stamped::AtItsBeginning, Joins::Any);
        assert!(found.is_some(), "{selector:?}");
    }
}
