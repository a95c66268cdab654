//! Links between the nodes of a cluster are cut, delayed and healed, as a person does it.

use std::time::{Duration, Instant};

use meridian_tests::client::{Client, Reply};
use meridian_tests::cluster::{Cluster, Node};
use meridian_tests::origin::{ScriptedOrigin, ok};
use meridian_tests::process::{Ended, Process};
use meridian_tests::site::Site;
use meridian_tests::wait::{PATIENCE, eventually};
use serde_json::Value;

/// What an edge gives a fetch at most, and a little.
const DEADLINE: Duration = Duration::from_secs(32);

/// A front door sends nobody to an edge that has been silent for this long.
const STEERED_AWAY: Duration = Duration::from_secs(2);

/// Runs `meridian net`.
async fn net(cluster: &Cluster, words: &str) -> Ended {
    let dir = cluster.dir().to_str().unwrap();
    let mut all = vec!["net"];
    all.extend(words.split(' '));
    all.extend(["--dir", dir]);
    Process::run(&all).await
}

/// Runs `meridian net`, which must succeed.
async fn order(cluster: &Cluster, words: &str) -> Ended {
    let ended = net(cluster, words).await;
    assert!(ended.status.success(), "{words}: {}", ended.stderr);
    ended
}

async fn get(edge: &Node, path: &str) -> Reply {
    Client::get(&format!("{}{path}", edge.url)).await
}

/// The edge that the front door sends clients of `from` to.
async fn steered(cluster: &Cluster, from: &str) -> String {
    let url = format!("{}/", cluster.file().front);
    let reply = Client::get_with(&url, &[("meridian-from", from)]).await;
    reply.header("location").unwrap_or_default().trim_end_matches('/').to_owned()
}

async fn is_steered_to(cluster: &Cluster, from: &str, region: &str, within: Duration) {
    let want = cluster.edge(region).url;
    eventually(format!("clients of {from} are sent to {region}"), within, async || {
        (steered(cluster, from).await == want).then_some(())
    })
    .await;
}

/// A server whose answers last a second or a minute.
async fn origin() -> ScriptedOrigin {
    let origin = ScriptedOrigin::start().await;
    let close = |body: &str| ok(body.to_owned()).header("connection", "close");
    origin.script("/fresh", close("fresh").header("cache-control", "max-age=600"));
    let short = "max-age=1, stale-if-error=600";
    origin.script("/stale", close("stale").header("cache-control", short));
    origin.script("/miss", close("miss").header("cache-control", "max-age=600"));
    origin.script("/other", close("other").header("cache-control", "max-age=600"));
    origin
}

/// Waits until what is stored for `path` is stale.
async fn is_stale(edge: &Node, path: &str) {
    let explain = format!("{}/v1/explain?url={path}", edge.admin());
    eventually(format!("{path} is stale at {}", edge.name), PATIENCE, async || {
        let told = Client::get(&explain).await.json().to_string();
        told.contains("\"fresh\":false").then_some(())
    })
    .await;
}

#[tokio::test]
async fn cut_off_from_the_origin_an_edge_serves_what_it_has_and_misses_fail_in_time() {
    let origin = origin().await;
    let cluster = Cluster::start(&[&origin.url(), "--regions", "fra,iad"]).await;
    let (edge, other) = (cluster.edge("fra"), cluster.edge("iad"));
    for path in ["/fresh", "/stale"] {
        assert_eq!(get(&edge, path).await.status, 200);
    }
    order(&cluster, "cut fra origin").await;

    let fresh = get(&edge, "/fresh").await;
    assert!(fresh.cache_status().contains("; hit"), "{fresh:?}");
    let start = Instant::now();
    let miss = get(&edge, "/miss").await;
    assert_eq!(miss.status, 504, "{miss:?}");
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
    is_stale(&edge, "/stale").await;
    let start = Instant::now();
    let stale = get(&edge, "/stale").await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, "stale"), "{stale:?}");
    assert!(stale.cache_status().contains("fwd=stale"), "{stale:?}");
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
    assert_eq!((origin.count("/stale"), origin.count("/miss")), (1, 0), "nothing got through");
    assert_eq!(get(&other, "/other").await.status, 200, "another edge's link is whole");

    order(&cluster, "heal").await;
    let healed = get(&edge, "/miss").await;
    assert_eq!((healed.status.as_u16(), healed.text()), (200, "miss"), "{healed:?}");
    assert_eq!(origin.count("/miss"), 1, "what was asked during the cut is not delivered later");
    let seen = origin.requests("/miss");
    assert_eq!(seen.first().unwrap().header("host"), Some(origin.address().as_str()));
}

#[tokio::test]
async fn cut_off_from_control_an_edge_loses_its_clients_and_goes_on_serving() {
    let site = Site::small();
    let cluster = Cluster::start(&[site.argument(), "--regions", "iad,fra"]).await;
    is_steered_to(&cluster, "fra", "fra", PATIENCE).await;
    let edge = cluster.edge("fra");
    // Both ways, and each alone: beats that are not heard, and answers that are not.
    for cut in ["cut fra-1 control", "cut fra-1 control --one-way", "cut control fra-1 --one-way"] {
        order(&cluster, cut).await;
        is_steered_to(&cluster, "fra", "iad", STEERED_AWAY).await;
        assert_eq!(get(&edge, "/style.css").await.status, 200);
        order(&cluster, "heal").await;
        is_steered_to(&cluster, "fra", "fra", PATIENCE).await;
    }
}

#[tokio::test]
async fn a_front_door_without_control_goes_on_with_what_it_knows() {
    let cluster = Cluster::start(&["--regions", "iad,fra"]).await;
    order(&cluster, "cut front control").await;
    for region in ["iad", "fra"] {
        assert_eq!(steered(&cluster, region).await, cluster.edge(region).url);
    }
    order(&cluster, "cut edge control").await;
    assert_eq!(steered(&cluster, "fra").await, cluster.edge("fra").url, "it cannot know better");
    order(&cluster, "heal front control").await;
    is_steered_to(&cluster, "fra", "fra", PATIENCE).await;
}

#[tokio::test]
async fn a_slow_origin_link_delays_misses_alone_until_it_is_healed() {
    let origin = origin().await;
    let cluster = Cluster::start(&[&origin.url(), "--regions", "fra"]).await;
    let edge = cluster.edge("fra");
    assert_eq!(get(&edge, "/fresh").await.status, 200);
    order(&cluster, "delay edge origin 30s").await;
    let start = Instant::now();
    assert!(get(&edge, "/fresh").await.cache_status().contains("; hit"));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let start = Instant::now();
    let miss = get(&edge, "/miss").await;
    assert_eq!(miss.status, 504, "{miss:?}");
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
    order(&cluster, "heal edge origin").await;
    assert_eq!(get(&edge, "/other").await.status, 200);
}

#[tokio::test]
async fn a_region_that_is_cut_from_everything_else_serves_what_it_has() {
    let site = Site::small();
    let cluster = Cluster::start(&[site.argument(), "--regions", "iad,fra"]).await;
    let edge = cluster.edge("fra");
    assert_eq!(get(&edge, "/style.css").await.status, 200);
    let cut = order(&cluster, "cut fra rest --json").await;
    let told: Value = serde_json::from_str(&cut.stdout).unwrap();
    let links = told.get("links").and_then(Value::as_array).unwrap();
    assert_eq!(links.len(), 3, "to origin and control, and from control: {}", cut.stdout);
    is_steered_to(&cluster, "fra", "iad", STEERED_AWAY).await;
    assert!(get(&edge, "/style.css").await.cache_status().contains("; hit"));
    assert_eq!(get(&cluster.edge("iad"), "/img/all.png").await.status, 200);
    order(&cluster, "heal fra rest").await;
    is_steered_to(&cluster, "fra", "fra", PATIENCE).await;
    assert_eq!(get(&edge, "/img/all.png").await.status, 200);
}

#[tokio::test]
async fn a_node_that_is_started_again_is_found_through_the_same_links() {
    let site = Site::small();
    let mut cluster = Cluster::start(&[site.argument(), "--regions", "fra"]).await;
    let edge = cluster.edge("fra");
    let before = order(&cluster, "show --json").await.stdout;
    let killed = cluster.kill("origin-1");
    cluster.restarted(&killed).await;
    assert_eq!(get(&edge, "/style.css").await.status, 200);
    let listens = |text: &str| -> Vec<Value> {
        let told: Value = serde_json::from_str(text).unwrap();
        let links = told.get("links").and_then(Value::as_array).unwrap();
        links.iter().map(|link| link.get("listen").unwrap().clone()).collect()
    };
    assert_eq!(listens(&before), listens(&order(&cluster, "show --json").await.stdout));
}

#[tokio::test]
async fn links_are_shown_and_unknown_names_are_refused_with_the_known_ones() {
    let cluster = Cluster::start(&["--regions", "iad,fra"]).await;
    let shown = order(&cluster, "show").await.stdout;
    for pair in ["fra-1      control-1", "fra-1      origin-1", "control-1  fra-1"] {
        assert!(shown.contains(pair), "no {pair} in\n{shown}");
    }
    let told = order(&cluster, "delay iad-1 origin-1 20ms --jitter 5ms").await.stdout;
    assert!(told.contains("+20ms, jitter 5ms"), "{told}");
    assert!(!told.contains("fra-1"), "only what was changed is told: {told}");
    let rows = [
        ("cut fre origin", "no node, region or role \"fre\""),
        ("cut fra-1 iad-1", "no link leads between fra-1 and iad-1"),
        ("delay fra origin 2h", "must be at most 1h"),
        ("rate fra origin 0B", "must be above 0"),
    ];
    for (words, why) in rows {
        let refused = net(&cluster, words).await;
        assert_eq!(refused.status.code(), Some(2), "{words}: {}", refused.stderr);
        assert!(refused.stderr.contains(why), "{words}: {}", refused.stderr);
        assert_eq!(refused.stdout, "", "{words}");
    }
    let url = format!("{}/v1/links", cluster.file().net.unwrap());
    let body = br#"{"action":"heal"}"#.as_slice().into();
    let refused = Client::request(http::Method::POST, &url, &[], body).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (401, "unauthorized"));
}

#[tokio::test]
async fn direct_links_cannot_be_changed_and_say_so() {
    let cluster = Cluster::start(&["--regions", "fra", "--direct"]).await;
    assert_eq!(cluster.file().net, None);
    assert_eq!(get(&cluster.edge("fra"), "/").await.status, 200);
    let refused = net(&cluster, "show").await;
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("started with --direct"), "{}", refused.stderr);
}

#[tokio::test]
async fn real_round_trips_show_in_what_a_miss_takes() {
    let site = Site::small();
    let cluster = Cluster::start(&[site.argument(), "--regions", "iad,fra", "--rtt", "real"]).await;
    let took = async |edge: &Node| {
        let start = Instant::now();
        assert_eq!(get(edge, "/style.css").await.status, 200);
        start.elapsed()
    };
    // Frankfurt to Washington and back takes some 90 ms, once to connect and once to ask.
    let far = took(&cluster.edge("fra")).await;
    assert!(far > Duration::from_millis(120), "{far:?}");
    order(&cluster, "heal").await;
    let shown = order(&cluster, "show").await.stdout;
    assert!(shown.contains("+4"), "healing returns to the distance, not to nothing: {shown}");
}
