//! Random purges through two tiers: a child, its shield and an origin, slow fetches, and purges that
//! reach child and shield each in their own time.
//!
//! The law: a request that begins at an edge when that has applied a purge never gets a body from
//! before it. Bodies are numbers of versions, so any breach shows. What the test was tried
//! against, each a breach within its seeds: a shield that does not heed what the child needs.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's verdict")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use meridian_tests::client::Client;
use meridian_tests::origin::ok;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::replica::Replica;
use crate::shield::{Tiers, tiers};

const PATHS: [&str; 6] = ["/p/0", "/p/1", "/p/2", "/q/0", "/q/1", "/q/2"];
const TAGS: [&str; 6] = ["a", "b", "a b", "b", "c", "a c"];
/// One selector of each kind, twice, and the paths that it names.
const SELECTORS: [(&str, [bool; 6]); 8] = [
    (r#"{"all":true}"#, [true; 6]),
    (r#"{"host":"any.example"}"#, [true; 6]),
    (r#"{"url":"/p/1"}"#, [false, true, false, false, false, false]),
    (r#"{"url":"/q/0"}"#, [false, false, false, true, false, false]),
    (r#"{"prefix":"/p/"}"#, [true, true, true, false, false, false]),
    (r#"{"prefix":"/q"}"#, [false, false, false, true, true, true]),
    (r#"{"tag":"a"}"#, [true, false, true, false, false, true]),
    (r#"{"tag":"b"}"#, [false, true, true, true, false, false]),
];
const STEPS: usize = 400;
const SEEDS: [u64; 3] = [1, 2, 3];

/// An edge as the test knows it: its log, what is still on the way there, and which versions requests
/// must get that begin now.
struct Known<'t> {
    replica: &'t Replica,
    url: String,
    coming: VecDeque<(usize, usize, [usize; 6])>,
    floor: [usize; 6],
}

impl Known<'_> {
    /// The next purge arrives and is applied.
    async fn hears(&mut self) {
        let Some((id, selector, versions)) = self.coming.pop_front() else { return };
        self.replica.purged(&format!("p{id}"), SELECTORS[selector].0, false).await;
        for (at, version) in versions.into_iter().enumerate() {
            if SELECTORS[selector].1[at] {
                self.floor[at] = self.floor[at].max(version);
            }
        }
    }

    /// A client asks, beside all that goes on.
    fn asks(&self, path: usize, clients: &mut JoinSet<(usize, usize, String, String)>) {
        let (url, floor) = (format!("{}{}", self.url, PATHS[path]), self.floor[path]);
        clients.spawn(async move {
            let reply = Client::get(&url).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            let told = format!("{url}: {:?}", reply.headers.get_all("cache-status"));
            (path, floor, reply.text().to_owned(), told)
        });
    }
}

#[tokio::test]
async fn no_request_that_begins_after_a_purge_was_applied_gets_an_older_body() {
    for seed in SEEDS {
        race(seed).await;
    }
}

async fn race(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let tiers = tiers(|edge| {
        if let Some(shield) = &mut edge.shield {
            shield.catch_up = "5ms".parse().unwrap();
        }
    })
    .await;
    let versions = serve(&tiers, seed);
    let known = |replica, url: &str| Known {
        replica,
        url: url.to_owned(),
        coming: VecDeque::new(),
        floor: [0; 6],
    };
    let mut child = known(&tiers.below, tiers.child.url());
    let mut shield = known(&tiers.above, tiers.shield.url());
    let mut clients = JoinSet::new();
    let mut purges = 0;
    let mut answers = 0;
    for _ in 0..STEPS {
        match rng.random_range(0..12) {
            0 => {
                let selector = rng.random_range(0..SELECTORS.len());
                for (at, version) in versions.iter().enumerate() {
                    if SELECTORS[selector].1[at] {
                        version.fetch_add(1, Ordering::SeqCst);
                    }
                }
                let now = std::array::from_fn(|at| versions[at].load(Ordering::SeqCst));
                purges += 1;
                child.coming.push_back((purges, selector, now));
                shield.coming.push_back((purges, selector, now));
            }
            1 | 2 => child.hears().await,
            3 => shield.hears().await,
            4 => shield.asks(rng.random_range(0..PATHS.len()), &mut clients),
            5 => {
                if let Some(answer) = clients.join_next().await {
                    answers += judge(seed, answer.unwrap());
                }
            }
            _ => child.asks(rng.random_range(0..PATHS.len()), &mut clients),
        }
    }
    while let Some(answer) = clients.join_next().await {
        answers += judge(seed, answer.unwrap());
    }
    assert!(answers > STEPS / 3 && purges > 5, "seed {seed}: {answers} answers, {purges} purges");
    let bypassed = tiers.shield.metric("edge_shield_needs_total").await;
    assert!(bypassed > 0.0, "seed {seed}: the shield was never asked");
}

/// Each answer has the version of the moment in which its request arrived, and takes its time.
fn serve(tiers: &Tiers, seed: u64) -> Arc<[AtomicUsize; 6]> {
    let versions: Arc<[AtomicUsize; 6]> = Arc::default();
    for (at, path) in PATHS.into_iter().enumerate() {
        let (versions, asked) = (Arc::clone(&versions), AtomicU64::new(0));
        tiers.origin.script_fn(path, move |_| {
            let n = asked.fetch_add(1, Ordering::SeqCst);
            let mut rng = StdRng::seed_from_u64(seed ^ (n << 8) ^ (at as u64));
            let millis = [0, 0, 1, 10, 60].choose(&mut rng).copied().unwrap();
            let body = versions[at].load(Ordering::SeqCst).to_string();
            let script = ok(body).after(Duration::from_millis(millis));
            script.header("cache-control", "max-age=60").header("surrogate-key", TAGS[at])
        });
    }
    versions
}

fn judge(seed: u64, (path, floor, body, told): (usize, usize, String, String)) -> usize {
    let version: usize = body.parse().unwrap();
    assert!(
        version >= floor,
        "seed {seed}: {} of version {version}, when version {floor} was purged for: {told}",
        PATHS[path]
    );
    1
}
