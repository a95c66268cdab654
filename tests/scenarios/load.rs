//! The load generator against a whole cluster: what it measures is what happened.

use std::fmt::Write;

use meridian_tests::client::Client;
use meridian_tests::cluster::Cluster;
use meridian_tests::process::Process;
use meridian_tests_load::report::Report;

/// 3,000 requests of 40 clients for 200 objects of 1 to 19,901 bytes, the popular ones often.
fn trace() -> String {
    let mut text = "t,client,key,size\n".to_owned();
    for at in 0_u64..3_000 {
        let key = (at * 7_919 % 200) * (at * 104_729 % 200) / 200;
        writeln!(text, "{},{},{key},{}", at / 10, at % 40, key * 100 + 1).unwrap();
    }
    text
}

async fn load(cluster: &Cluster, arguments: &[&str]) -> Report {
    let mut all = vec!["load", "run", "--json", "--dir", cluster.dir().to_str().unwrap()];
    all.extend(arguments);
    let ended = Process::run(&all).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

#[tokio::test]
async fn with_room_for_everything_the_misses_are_the_distinct_keys() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("trace.csv");
    std::fs::write(&file, trace()).unwrap();
    let file = file.to_str().unwrap();
    let cluster = Cluster::start(&["--trace", file, "--regions", "iad,fra,nrt"]).await;

    let report = load(&cluster, &["--trace", file]).await;

    assert_eq!((report.total.requests, report.total.failed()), (3_000, 0), "{report:?}");
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    for region in &report.regions {
        let figures = &region.figures;
        assert!(figures.requests > 500, "{region:?}");
        assert_eq!(figures.origin_requests, Some(figures.distinct), "{region:?}");
        let expected = 1.0 - figures.distinct as f64 / figures.requests as f64;
        assert!((figures.hit_ratio.unwrap() - expected).abs() < 1e-9, "{region:?}");
        let claimed = figures.claimed_hit_ratio.unwrap();
        assert!((claimed - expected).abs() < 1e-9, "{region:?}");
    }
    assert_eq!(report.total.origin_requests, Some(cluster.origin_requests(None).await));

    // Again: everything is stored.
    let warm = load(&cluster, &["--trace", file]).await;
    assert_eq!((warm.total.hit_ratio, warm.total.byte_hit_ratio), (Some(1.0), Some(1.0)));
    assert_eq!(warm.total.bytes, report.total.bytes);
}

/// A day of a real web server, if `MERIDIAN_TRACES` names a folder that has it.
#[tokio::test]
async fn a_real_trace_over_three_regions_measures_as_it_must() {
    let name = "nasa_1995-08-01.csv";
    let folder = std::env::var_os("MERIDIAN_TRACES").map(std::path::PathBuf::from);
    let Some(file) = folder.map(|folder| folder.join(name)).filter(|file| file.is_file()) else {
        println!("skipped: MERIDIAN_TRACES names no folder with {name}");
        return;
    };
    let file = file.to_str().unwrap();
    let cluster = Cluster::start(&["--trace", file, "--regions", "iad,fra,nrt"]).await;

    let report = load(&cluster, &["--trace", file]).await;

    assert_eq!((report.total.requests, report.total.failed()), (30_286, 0), "{report:?}");
    assert_eq!(report.total.bytes, 553_347_136);
    for region in &report.regions {
        // 256 MiB hold the 109 MB of all objects: what misses is what was never seen.
        assert_eq!(region.figures.origin_requests, Some(region.figures.distinct), "{region:?}");
    }
    assert_eq!(report.total.origin_requests, Some(cluster.origin_requests(None).await));
    let (measured, claimed) = (report.total.hit_ratio, report.total.claimed_hit_ratio);
    assert!((measured.unwrap() - claimed.unwrap()).abs() < 1e-9, "{measured:?} {claimed:?}");
}

#[tokio::test]
async fn without_options_it_asks_for_what_the_origin_lists() {
    let cluster = Cluster::start(&["--regions", "fra,iad"]).await;
    let report = load(&cluster, &["--requests", "500"]).await;
    assert_eq!((report.total.requests, report.total.failed()), (500, 0), "{report:?}");
    assert!(report.total.distinct >= 4, "{report:?}");
    assert_eq!(report.total.origin_requests, Some(report.total.distinct), "{report:?}");
}

#[tokio::test]
async fn objects_of_a_chosen_law_exist_once_their_file_is_served() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("objects.csv");
    let (file, sizes) = (file.to_str().unwrap(), "lognormal:median=2KiB,p99=20KiB");
    let written =
        Process::run(&["load", "objects", file, "--objects", "300", "--sizes", sizes]).await;
    assert_eq!(written.status.code(), Some(0), "{written:?}");
    let cluster = Cluster::start(&["--trace", file, "--regions", "fra"]).await;

    let arguments = ["--objects", "300", "--sizes", sizes, "--requests", "2000", "--seed", "7"];
    let report = load(&cluster, &arguments).await;
    assert_eq!((report.total.requests, report.total.failed()), (2_000, 0), "{report:?}");
    assert_eq!(report.total.origin_requests, Some(report.total.distinct));

    // One object more than there is: it is asked for sooner or later, and told.
    let missing = load(&cluster, &["--objects", "600", "--requests", "2000"]).await;
    assert!(missing.total.errors.get("status-404").is_some_and(|count| *count > 0), "{missing:?}");
}

#[tokio::test]
async fn the_table_is_for_people_and_shows_no_bar_in_a_pipe() {
    let cluster = Cluster::start(&["--regions", "fra"]).await;
    let dir = cluster.dir().to_str().unwrap();
    let ended = Process::run(&["load", "--requests", "200", "--dir", dir]).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    for word in ["fra", "total", "hit", "claimed", "p99.9"] {
        assert!(ended.stdout.contains(word), "{word} is missing: {}", ended.stdout);
    }
    assert!(!ended.stderr.contains('\r') && !ended.stdout.contains('\r'), "{ended:?}");
    assert_eq!(Client::get(&format!("{}/", cluster.edge("fra").url)).await.status, 200);
}
