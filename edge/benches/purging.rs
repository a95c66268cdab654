//! What a purge costs at an edge with a million stored small responses, and what it costs hits.
//!
//! `cargo bench -p meridian-edge --bench purging`. Each row names an operation, how often it was
//! done, and the time of one in the middle, of the slowest of a hundred, and of the slowest.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark asks the clock and tells what it found"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meridian_edge::epochs::{Epochs, Limits, Mark, Standing};
use meridian_edge::scope::{Place, Selector, Strength};
use moka::sync::Cache;

const STORED: usize = 1_000_000;
const LIMITS: Limits = Limits { selectors: 500_000, shards: 256 };

struct Response {
    mark: Mark,
    _body: Bytes,
}

type Store = Cache<Arc<str>, Arc<Response>>;

fn target(n: usize) -> String {
    format!("/img/{}/{}/photo-{n}.jpg?w=640", n % 100, n % 10_000)
}

fn place(target: &str) -> Place<'_> {
    Place { site: "shop", host: "", target }
}

fn filled(epochs: &Arc<Epochs>) -> Store {
    let store = Cache::builder().max_capacity(2 * STORED as u64).build();
    for n in 0..STORED {
        let tags = ["everything".to_owned(), format!("group-{}", n % 1_000)];
        let mark = Mark::new(epochs.stamp().epoch(), epochs.tags(tags.iter().map(String::as_str)));
        let response = Response { mark, _body: Bytes::from(vec![0; 64]) };
        store.insert(target(n).into(), Arc::new(response));
    }
    store.run_pending_tasks();
    store
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| {
        let index = times.len() * share / 100;
        times.get(index.min(times.len() - 1)).copied().unwrap_or_default()
    };
    let (median, slow, worst) = (at(50), at(99), at(100));
    println!("{what:52} {:>8} x {median:>10.2?} {slow:>10.2?} {worst:>10.2?}", times.len());
}

fn timed(rounds: usize, mut work: impl FnMut(usize)) -> Vec<Duration> {
    let time = |n| {
        let begin = Instant::now();
        work(n);
        begin.elapsed()
    };
    (0..rounds).map(time).collect()
}

fn applying(epochs: &Epochs) {
    println!("applying one purge, {STORED} stored");
    let rounds = 10_000;
    report(
        "all",
        timed(rounds, |_| {
            epochs.apply([Selector::All], Strength::Hard);
        }),
    );
    report(
        "host",
        timed(rounds, |_| {
            epochs.apply([Selector::Site("shop")], Strength::Hard);
        }),
    );
    report(
        "tag that every response bears",
        timed(rounds, |_| {
            epochs.apply([Selector::Tag("everything")], Strength::Hard);
        }),
    );
    report(
        "tag, a new one each time",
        timed(rounds, |n| {
            epochs.apply([Selector::Tag(&format!("group-{n}"))], Strength::Soft);
        }),
    );
    report(
        "prefix that matches every path",
        timed(rounds, |_| {
            epochs.apply([Selector::Prefix { site: None, path: "/img/" }], Strength::Hard);
        }),
    );
    report(
        "prefix, a new one each time",
        timed(rounds, |n| {
            let path = format!("/img/{}/{n}/", n % 100);
            epochs.apply([Selector::Prefix { site: Some("shop"), path: &path }], Strength::Hard);
        }),
    );
    report(
        "url, a new one each time",
        timed(rounds, |n| {
            epochs.apply([Selector::Url(place(&target(n)))], Strength::Hard);
        }),
    );
}

/// The time of one check, on average over all that is stored.
fn check(store: &Store, epochs: &Epochs, want: Option<Standing>) -> Duration {
    let targets: Vec<Arc<str>> = (0..STORED).step_by(10).map(|n| target(n).into()).collect();
    let found: Vec<Arc<Response>> = targets.iter().map(|key| store.get(key).unwrap()).collect();
    let begin = Instant::now();
    for (target, response) in targets.iter().zip(&found) {
        let standing = epochs.standing(&response.mark, || place(target));
        assert!(want.is_none_or(|want| black_box(standing) == want));
    }
    begin.elapsed() / u32::try_from(targets.len()).unwrap()
}

fn checking() {
    println!("\nchecking one stored response with two tags, on average over 100000");
    for selectors in [0, 1_000, 100_000] {
        let epochs = Epochs::new(LIMITS, 1);
        let store = filled(&epochs);
        for n in 0..selectors {
            let unmatched = format!("/none/{n}");
            epochs.apply([Selector::Url(place(&unmatched))], Strength::Hard);
        }
        epochs.apply([Selector::Prefix { site: None, path: "/video/" }], Strength::Hard);
        epochs.apply([Selector::Prefix { site: Some("shop"), path: "/css/" }], Strength::Hard);
        let first = check(&store, &epochs, Some(Standing::Current));
        let again = check(&store, &epochs, Some(Standing::Current));
        println!(
            "{selectors:>7} purges since it was stored: {first:.0?}; again, none since: {again:.0?}"
        );
    }
    let epochs = Epochs::new(LIMITS, 1);
    let store = filled(&epochs);
    epochs.apply([Selector::Tag("everything")], Strength::Hard);
    println!("        purged by its tag: {:.0?}", check(&store, &epochs, Some(Standing::Purged)));
}

fn sweeping() {
    let epochs = Epochs::new(LIMITS, 1);
    let store = filled(&epochs);
    let catch_up = timed(1, |_| {
        for n in 0..100_000 {
            epochs.apply([Selector::Url(place(&target(n)))], Strength::Hard);
        }
    });
    println!("\napplying 100000 purges in a row: {:.2?}", catch_up.iter().sum::<Duration>());
    let swept = timed(1, |_| {
        let sweep = epochs.begin_sweep();
        for (key, response) in &store {
            epochs.settle(&response.mark, || place(&key));
        }
        assert_eq!(epochs.end_sweep(sweep), 100_000);
    });
    println!(
        "a look at all that is stored, then forgetting them: {:.2?}",
        swept.iter().sum::<Duration>()
    );
}

fn main() {
    let epochs = Epochs::new(LIMITS, 1);
    let _store = filled(&epochs);
    applying(&epochs);
    checking();
    sweeping();
}
