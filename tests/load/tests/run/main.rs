//! The load generator against scripted servers, over sockets.

#![expect(clippy::unwrap_used, reason = "a failing helper of a test fails the test")]

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use meridian_tests_load::catalogue::list_origin;
use meridian_tests_load::options::{EdgeTarget, Objects, Options, RegionTarget, Workload};
use meridian_tests_load::report::{CountedBy, Report};
use meridian_tests_load::run::{Progress, Silent, run};
use meridian_tests_load::spread::Shares;
use meridian_tests_load::table::render;
use tokio_util::sync::CancellationToken;

use crate::server::Server;

mod server;

fn edge(server: &Server) -> EdgeTarget {
    let name = server.name.parse().unwrap();
    EdgeTarget { name, url: server.url(), admin: Some(server.url()) }
}

fn region(name: &str, edges: &[&Server]) -> RegionTarget {
    RegionTarget {
        name: name.parse().unwrap(),
        edges: edges.iter().map(|server| edge(server)).collect(),
    }
}

fn options(regions: Vec<RegionTarget>, workload: Workload) -> Options {
    Options {
        regions,
        origins: Vec::new(),
        host: None,
        workload,
        requests: None,
        connections: NonZeroU32::new(4).unwrap(),
        shares: Shares::default(),
        seed: 1,
        timeout: Duration::from_secs(10),
    }
}

fn trace(folder: &tempfile::TempDir, text: &str) -> Workload {
    let file: PathBuf = folder.path().join("trace.csv");
    std::fs::write(&file, text).unwrap();
    Workload::Trace { file }
}

fn numbered(count: u64, sizes: &str) -> Workload {
    let count = NonZeroU64::new(count).unwrap();
    let objects = Objects::Numbered { count, sizes: Some(sizes.parse().unwrap()) };
    Workload::Zipf { objects, alpha: "0.9".parse().unwrap() }
}

async fn finish(options: Options) -> Report {
    let report = run(options, &Silent, CancellationToken::new()).await.unwrap();
    let json = serde_json::to_string(&report).unwrap();
    let read: Report = serde_json::from_str(&json).unwrap();
    assert_eq!(render(&read), render(&report), "{json}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_measured_equals_what_the_servers_did() {
    let (fra, iad) = (Server::start("fra-1").await, Server::start("iad-1").await);
    let origin = Server::origin(&[&fra, &iad]).await;
    let folder = tempfile::tempdir().unwrap();
    // 300 requests for 30 objects of 1 to 30 bytes, two thirds of them in fra.
    let rows: String = (0..300)
        .map(|at| {
            format!("{},{},{}\n", if at % 3 == 0 { "iad" } else { "fra" }, at % 30, at % 30 + 1)
        })
        .collect();
    let workload = trace(&folder, &format!("region,key,size\n{rows}"));
    let mut options = options(vec![region("fra", &[&fra]), region("iad", &[&iad])], workload);
    options.origins = vec![origin.url()];

    let report = finish(options).await;

    // fra sees the 20 objects whose number is no multiple of 3, iad the 10 others.
    let [in_fra, in_iad] = report.regions.as_slice() else { panic!("{report:?}") };
    assert_eq!((in_fra.figures.requests, in_iad.figures.requests), (200, 100));
    assert_eq!((in_fra.figures.distinct, in_iad.figures.distinct), (20, 10));
    assert_eq!(
        (in_fra.figures.origin_requests, in_iad.figures.origin_requests),
        (Some(20), Some(10))
    );
    assert_eq!((in_fra.figures.hit_ratio, in_iad.figures.hit_ratio), (Some(0.9), Some(0.9)));
    assert_eq!(report.counted_by, CountedBy::Origin);
    assert_eq!((report.total.requests, report.total.served, report.total.failed()), (300, 300, 0));
    assert_eq!(report.total.bytes, 10 * (1..=30).sum::<u64>());
    assert_eq!(report.total.origin_bytes, Some((1..=30).sum()));
    assert_eq!(report.total.hit_ratio, Some(0.9));
    assert_eq!(report.total.byte_hit_ratio, Some(0.9));
    assert_eq!(report.total.claimed_hit_ratio, Some(0.9));
    assert!(report.notes.is_empty() && !report.stopped, "{report:?}");
    assert_eq!((fra.asked(), iad.asked()), (200, 100));
    let text = render(&report);
    assert!(
        text.contains("fra          200       0  90.00 %   90.00 %  90.00 %          20"),
        "{text}"
    );
}

#[tokio::test]
async fn requests_for_one_path_stay_at_one_edge_of_a_region() {
    let (one, two) = (Server::sized("fra-1", 100).await, Server::sized("fra-2", 100).await);
    let mut options = options(vec![region("fra", &[&one, &two])], numbered(200, "100B"));
    options.requests = NonZeroU64::new(2_000);

    let report = finish(options).await;

    let [fra] = report.regions.as_slice() else { panic!("{report:?}") };
    let distinct: Vec<u64> = fra.edges.iter().map(|edge| edge.figures.distinct).collect();
    assert_eq!(distinct.iter().sum::<u64>(), one.stored().union(&two.stored()).count() as u64);
    assert!(one.stored().is_disjoint(&two.stored()) && distinct.iter().all(|count| *count > 40));
    assert_eq!(fra.figures.bytes, 2_000 * 100);
    let text = render(&report);
    assert!(text.contains("\n  fra-2 "), "{text}");
}

#[tokio::test]
async fn without_an_origin_the_counters_of_the_edges_are_taken() {
    let fra = Server::sized("fra-1", 10).await;
    let mut with_metrics = options(vec![region("fra", &[&fra])], numbered(50, "10B"));
    with_metrics.requests = NonZeroU64::new(500);
    let mut blind = with_metrics.clone();
    blind.regions[0].edges[0].admin = None;

    let report = finish(with_metrics).await;
    assert_eq!(report.counted_by, CountedBy::Edges);
    assert_eq!(report.total.origin_requests, Some(report.total.distinct));
    assert_eq!(report.total.origin_bytes, Some(report.total.distinct * 10));

    let report = finish(blind).await;
    assert_eq!(report.counted_by, CountedBy::Nobody);
    assert_eq!((report.total.hit_ratio, report.total.origin_requests), (None, None));
    assert_eq!(report.total.claimed_hit_ratio, Some(1.0), "everything is stored by now");
}

#[tokio::test]
async fn errors_are_counted_by_kind_and_spoil_no_figure() {
    let fra = Server::start("fra-1").await;
    let folder = tempfile::tempdir().unwrap();
    let rows =
        "key,size\n1,2\n/status/404,\n/status/502,\n/status/502,\n2,99\n/cut,\n/silent,\n1,2\n";
    let mut options = options(vec![region("fra", &[&fra])], trace(&folder, rows));
    options.timeout = Duration::from_millis(300);

    let report = finish(options).await;

    let errors: Vec<(&str, u64)> =
        report.total.errors.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    let want =
        [("broken", 1), ("status-404", 1), ("status-502", 2), ("timeout", 1), ("wrong-size", 1)];
    assert_eq!(errors, want);
    assert_eq!((report.total.requests, report.total.served, report.total.bytes), (8, 2, 4));
    assert!(report.total.latency_seconds.unwrap().max < 0.3);
    let text = render(&report);
    assert!(
        text.contains("1 broken, 1 status-404, 2 status-502, 1 timeout, 1 wrong-size"),
        "{text}"
    );
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_costs_no_error() {
    let fra = Server::closing("fra-1", 10).await; // closes without a word after 10 answers
    let mut options = options(vec![region("fra", &[&fra])], numbered(5, "10B"));
    options.requests = NonZeroU64::new(400);

    let report = finish(options).await;
    assert_eq!((report.total.served, report.total.failed()), (400, 0), "{:?}", report.total.errors);
}

/// Gives the order to stop when a hundred requests are done.
struct StopAt100(CancellationToken);

impl Progress for StopAt100 {
    fn advance(&self, done: u64, _failed: u64, _total: u64) {
        if done >= 100 {
            self.0.cancel();
        }
    }
}

#[tokio::test]
async fn an_order_to_stop_ends_the_run_with_a_report() {
    let fra = Server::sized("fra-1", 10).await;
    let mut options = options(vec![region("fra", &[&fra])], numbered(5, "10B"));
    options.requests = NonZeroU64::new(u64::MAX);
    let stop = CancellationToken::new();

    let report = run(options, &StopAt100(stop.clone()), stop).await.unwrap();

    assert!(report.stopped && report.total.requests >= 100);
    assert_eq!(report.total.failed(), 0, "{:?}", report.total.errors);
    assert_eq!(report.total.requests, fra.asked());
}

/// Ends the server when a hundred requests are done, and the run when ten have failed.
struct EndAt100(Mutex<Option<Server>>, CancellationToken);

impl Progress for EndAt100 {
    fn advance(&self, done: u64, failed: u64, _total: u64) {
        if done >= 100 {
            drop(self.0.lock().unwrap().take());
        }
        if failed >= 10 {
            self.1.cancel();
        }
    }
}

#[tokio::test]
async fn an_edge_that_is_gone_does_not_burn_the_workload() {
    let fra = Server::sized("fra-1", 10).await;
    let mut options = options(vec![region("fra", &[&fra])], numbered(5, "10B"));
    options.requests = NonZeroU64::new(u64::MAX);
    options.regions[0].edges[0].admin = None; // nobody is there to ask in the end
    let stop = CancellationToken::new();
    let end = EndAt100(Mutex::new(Some(fra)), stop.clone());

    let report = run(options, &end, stop).await.unwrap();

    let refused = report.total.errors.get("connect").copied().unwrap_or_default();
    // Four connections, each refused at most once in 50 ms.
    let most = 4.0 * (report.duration_seconds / 0.05 + 1.0);
    assert!(refused >= 6 && refused as f64 <= most, "{refused} in {} s", report.duration_seconds);
}

#[tokio::test]
async fn what_makes_a_run_impossible_is_told_before_it() {
    let fra = Server::start("fra-1").await;
    let gone = Server::start("iad-1").await;
    let nobody = region("iad", &[&gone]);
    drop(gone);
    let both = options(vec![region("fra", &[&fra]), nobody], numbered(5, "10B"));
    let mut no_origin = options(vec![region("fra", &[&fra])], numbered(5, "10B"));
    no_origin.origins = vec![both.regions[1].edges[0].url.clone()];
    let mut twice = both.clone();
    twice.regions[1] = twice.regions[0].clone();
    let none = options(Vec::new(), numbered(5, "10B"));
    let no_file = options(vec![region("fra", &[&fra])], Workload::Trace { file: "/none".into() });

    let rows = [
        (both, "edge iad-1 at http://127.0.0.1:"),
        (no_origin, "cannot read the origin's request counts from http://127.0.0.1:"),
        (twice, "two edges are named fra-1"),
        (none, "there is no region to ask"),
        (no_file, "cannot read /none"),
    ];
    for (options, want) in rows {
        let error = run(options, &Silent, CancellationToken::new()).await.unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}");
    }
    assert_eq!(fra.asked(), 0);
}

#[tokio::test]
async fn an_origin_lists_what_it_serves_page_by_page() {
    let origin = Server::start("origin-1").await;
    let listed = list_origin(&origin.url()).await.unwrap();
    let found: Vec<_> = listed.iter().map(|one| (one.path.as_str(), one.size)).collect();
    assert_eq!(found, [("/", Some(5)), ("/a", Some(6)), ("/b?c", None)]);
}
