//! The narrated scenarios, in settings so short that times are measured and not judged.

use std::path::Path;
use std::time::Duration;

use meridian_tests::client::Client;
use meridian_tests::cluster::Cluster;
use meridian_tests::process::{Ended, Process, Signal, all_gone, children};
use meridian_tests::wait::eventually;
use serde_json::{Value, json};

/// A whole demo on a busy machine.
const DEMO_PATIENCE: Duration = Duration::from_secs(150);

/// Runs a demo to its end.
async fn play(arguments: &[&str]) -> Ended {
    let logs = tempfile::tempdir().unwrap();
    let mut all = vec!["demo"];
    all.extend(arguments);
    let mut demo = Process::start(logs.path(), &all);
    let mut seen = Vec::new();
    eventually("the demo has ended", DEMO_PATIENCE, async || {
        seen.extend(family(demo.pid()));
        (!demo.runs()).then_some(())
    })
    .await;
    all_gone(&seen).await;
    demo.end().await
}

/// Those whom a process has started, and those whom they have.
fn family(pid: u32) -> Vec<u32> {
    let direct = children(pid);
    let further: Vec<u32> = direct.iter().flat_map(|child| children(*child)).collect();
    direct.into_iter().chain(further).collect()
}

/// What it wrote as JSON.
fn document(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// The verdicts that are `word`.
fn claims(document: &Value, word: &str) -> Vec<String> {
    let verdicts = document["verdicts"].as_array().unwrap();
    let found = verdicts.iter().filter(|verdict| verdict["verdict"] == word);
    found.map(|verdict| verdict["claim"].as_str().unwrap().to_owned()).collect()
}

/// Plays a demo with a cluster of its own, and expects that every claim holds.
async fn holds(name: &str) -> Value {
    let ended = play(&[name, "--seconds", "2", "--json"]).await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let document = document(&ended);
    assert_eq!((&document["demo"], &document["ok"]), (&json!(name), &json!(true)), "{document}");
    assert_eq!(claims(&document, "FAILED"), Vec::<String>::new(), "{document}");
    assert!(claims(&document, "ok").len() >= 3, "{document}");
    assert!(ended.stderr.contains('['), "it narrates beside the document: {ended:?}");
    document
}

#[tokio::test]
async fn an_outage_costs_stored_paths_nothing() {
    let document = holds("outage").await;
    let seconds = document["timeline"].as_array().unwrap();
    let was = |state: &str| seconds.iter().any(|second| second["breaker"] == state);
    assert!(was("closed") && was("open"), "{document}");
    assert!(claims(&document, "measured").iter().any(|claim| claim.contains("p99")), "{document}");
}

#[tokio::test]
async fn a_slow_origin_holds_nobody_else_up() {
    holds("slow-origin").await;
}

#[tokio::test]
async fn an_origin_that_flaps_does_not_take_its_breaker_along() {
    let document = holds("flapping").await;
    for claim in
        ["errors on stored paths", "errors on other paths", "gone: requests that the origin"]
    {
        let ok = claims(&document, "ok");
        assert!(ok.iter().any(|said| said.contains(claim)), "{claim}: {ok:?}");
    }
}

#[tokio::test]
async fn a_retry_storm_is_one_only_without_a_budget() {
    holds("retry-storm").await;
}

#[tokio::test]
async fn a_herd_is_one_request_for_each_edge() {
    holds("herd").await;
}

#[tokio::test]
async fn a_lost_reply_makes_no_second_order() {
    holds("lost-reply").await;
}

/// The negative control: the claim fails where what is stale is not served.
#[tokio::test]
async fn an_outage_without_stale_responses_fails_its_claim_and_leaves_the_cluster_whole() {
    let home = tempfile::tempdir().unwrap();
    let (settings, report) = (home.path().join("origin.toml"), home.path().join("report.html"));
    let quick =
        "first_byte_timeout = \"1s\"\n[breaker]\ncool_down_max = \"2s\"\nramp_up = \"2s\"\n";
    std::fs::write(&settings, quick).unwrap();
    let settings = settings.to_str().unwrap();
    let cluster = Cluster::start(&["--regions", "fra", "--origin-settings", settings]).await;
    without_stale(&cluster).await;

    let (dir, file) = (cluster.dir().to_str().unwrap(), report.to_str().unwrap());
    let arguments = ["outage", "--seconds", "2", "--json", "--dir", dir, "--report", file];
    let ended = play(&arguments).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let failed = claims(&document(&ended), "FAILED");
    let claim = "while the origin was gone: errors on stored paths";
    assert!(failed.iter().any(|failed| failed == claim), "{failed:?}");
    assert!(std::fs::read_to_string(&report).unwrap().contains("Not every claim holds."));

    // Its links are whole again.
    let unstored = format!("{}/app.js?after-the-demo", cluster.edge("fra").url);
    eventually("the origin is reached again", DEMO_PATIENCE, async || {
        (Client::get(&unstored).await.status == 200).then_some(())
    })
    .await;
}

/// Turns off whatever lets stale responses stand in.
async fn without_stale(cluster: &Cluster) {
    let value = json!({ "value": {
        "name": "default",
        "default": true,
        "origins": ["origin-1"],
        "stale_if_error": "0s",
        "stale_if_disconnected": "0s",
        "stale_max": "0s",
    }});
    let control = &cluster.file().controls[0].url;
    let url = format!("{control}/v1/config/site/default");
    let token = cluster.token();
    let put = Client::put_json(&url, &value.to_string(), Some(&token)).await;
    assert_eq!(put.status, 200, "{put:?}");
    let admin = cluster.edge("fra").admin().to_owned();
    eventually("the edge obeys", DEMO_PATIENCE, async || {
        let metrics = Client::get(&format!("{admin}/metrics")).await;
        metrics.text().contains("edge_site_changes_total 1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_demo_that_is_interrupted_leaves_no_process_and_no_file() {
    let logs = tempfile::tempdir().unwrap();
    let mut demo = Process::start(logs.path(), &["demo", "outage", "--seconds", "60"]);
    let up = eventually("its clients ask", DEMO_PATIENCE, async || {
        assert!(demo.runs(), "{}", demo.stderr());
        demo.stdout().contains("p99 ms").then(|| family(demo.pid()))
    })
    .await;
    assert!(up.len() >= 5, "up, front, control, origin, edges: {up:?}");
    let home = folder(up[0]);
    assert!(home.exists(), "{home:?}");
    demo.signal(Signal::INT);
    let ended = demo.end().await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    all_gone(&up).await;
    assert!(!home.exists(), "{home:?} is left");
}

/// A demo that is killed cannot end its cluster: the cluster does that by itself.
#[tokio::test]
async fn a_demo_that_is_killed_leaves_no_process() {
    let logs = tempfile::tempdir().unwrap();
    let mut demo = Process::start(logs.path(), &["demo", "outage", "--seconds", "60"]);
    let up = eventually("its clients ask", DEMO_PATIENCE, async || {
        demo.stdout().contains("p99 ms").then(|| family(demo.pid()))
    })
    .await;
    let home = folder(up[0]);
    demo.signal(Signal::KILL);
    demo.end().await;
    all_gone(&up).await;
    std::fs::remove_dir_all(home).unwrap(); // nobody was left to do it
}

/// The folder of a demo, from the command line of its `up`.
fn folder(up: u32) -> std::path::PathBuf {
    let words = std::fs::read(format!("/proc/{up}/cmdline")).unwrap();
    let words = String::from_utf8(words).unwrap();
    let dir = words.split('\0').skip_while(|word| *word != "--dir").nth(1).unwrap();
    Path::new(dir).parent().unwrap().to_owned()
}

#[tokio::test]
async fn demos_are_listed_and_what_is_not_offered_says_so() {
    let list = Process::run(&["demo"]).await;
    assert_eq!(list.status.code(), Some(0), "{list:?}");
    for name in
        ["outage", "slow-origin", "flapping", "retry-storm", "herd", "lost-reply", "release"]
    {
        assert!(list.stdout.lines().any(|line| line.starts_with(name)), "{name}: {list:?}");
    }
    for name in ["stale-purge", "partition-cp", "partition-ap", "release", "cold-region"] {
        let refused = Process::run(&["demo", name]).await;
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(refused.stderr.contains("is not offered yet"), "{refused:?}");
    }
    let storm = Process::run(&["demo", "retry-storm", "--dir", "/nonexistent"]).await;
    assert_ne!(storm.status.code(), Some(0), "{storm:?}");
}
