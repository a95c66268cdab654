//! Purges, and what clients of the edges get from then on.

use std::time::{Duration, Instant};

use meridian_tests::client::{Client, Reply, get, metric};
use meridian_tests::cluster::Cluster;
use meridian_tests::control::Control;
use meridian_tests::origin::{Gate, Script, ScriptedOrigin, Seen, ok, status};
use meridian_tests::process::Process;
use meridian_tests::wait::eventually;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// From the acceptance of a purge to the first request that it is seen by. It takes a few
/// milliseconds; the rest is for machines that do other things as well.
const SOON: Duration = Duration::from_secs(2);

/// An origin, and three edges in front of it.
struct World {
    origin: ScriptedOrigin,
    cluster: Cluster,
    control: Control,
    /// One open connection to each edge.
    edges: Vec<Client>,
}

impl World {
    async fn start() -> Self {
        let origin = ScriptedOrigin::start().await;
        let cluster = Cluster::start(&[&origin.url(), "--regions", "fra,iad,nrt"]).await;
        let control = Control::of(&cluster);
        let mut edges = Vec::new();
        for edge in cluster.file().edges {
            edges.push(Client::http1(&edge.url).await.unwrap());
        }
        Self { origin, cluster, control, edges }
    }

    /// Has every page stored at every edge.
    async fn warm(&mut self) {
        for edge in &mut self.edges {
            for (path, _) in PAGES {
                edge.path(path).await;
                let warm = edge.path(path).await;
                assert!(is_hit(&warm), "{path}: {warm:?}");
            }
        }
    }
}

/// Paths and their tags.
const PAGES: [(&str, &str); 4] =
    [("/a/one", "red blue"), ("/a/two", "blue"), ("/b/one", "red"), ("/b/two?x=1", "")];

/// A page that can be revalidated, or is sent as a whole.
fn page(tags: &'static str) -> impl Fn(&Seen) -> Script {
    move |asked| {
        let script = match asked.header("if-none-match") {
            Some("\"same\"") => status(304),
            _ => ok("the page"),
        };
        let script = script.header("cache-control", "max-age=600").header("etag", "\"same\"");
        if tags.is_empty() { script } else { script.header("surrogate-key", tags) }
    }
}

fn is_hit(reply: &Reply) -> bool {
    reply.cache_status().contains("; hit")
}

/// Orders, and the pages that they are about.
fn orders(host: &str) -> Vec<(Value, Vec<&'static str>)> {
    let all = || PAGES.iter().map(|(path, _)| *path).collect::<Vec<_>>();
    vec![
        (json!({"url": "/a/one"}), vec!["/a/one"]),
        (json!({"url": format!("http://{host}/b/two?x=1")}), vec!["/b/two?x=1"]),
        (json!({"url": "/b/two"}), vec![]), // another query is another URL
        (json!({"prefix": "/a/"}), vec!["/a/one", "/a/two"]),
        (json!({"prefix": "/b/t"}), vec!["/b/two?x=1"]), // it need not end at a slash
        (json!({"prefix": format!("{host}/b/")}), vec!["/b/one", "/b/two?x=1"]),
        (json!({"tag": "red"}), vec!["/a/one", "/b/one"]),
        (json!({"tag": "re"}), vec![]),
        (
            json!({"selectors": [{"tag": "blue"}, {"url": "/b/one"}]}),
            vec!["/a/one", "/a/two", "/b/one"],
        ),
        (json!({"host": host}), all()),
        (json!({"all": true}), all()),
    ]
}

#[tokio::test]
async fn what_is_purged_is_fetched_again_at_every_edge_and_nothing_else_is() {
    let mut world = World::start().await;
    for (path, tags) in PAGES {
        world.origin.script_fn(path, page(tags));
    }
    let host = world.cluster.edge("fra").url.trim_start_matches("http://").to_owned();
    let mut slowest = Duration::ZERO;
    for soft in [false, true] {
        for (mut order, about) in orders(&host) {
            world.warm().await;
            let before = PAGES.map(|(path, _)| world.origin.count(path));
            order["soft"] = json!(soft);
            let receipt = world.control.purge(&order, "ack=none").await;
            let accepted = Instant::now();
            for edge in &mut world.edges {
                for path in &about {
                    let what = format!("{order} is seen for {path}");
                    let reply = eventually(what, SOON, async || {
                        let reply = edge.path(path).await;
                        (!is_hit(&reply)).then_some(reply)
                    })
                    .await;
                    assert_eq!((reply.status.as_u16(), reply.text()), (200, "the page"));
                    let asked = world.origin.requests(path);
                    let validated = asked.last().unwrap().header("if-none-match").is_some();
                    assert_eq!(validated, soft, "{order}, {path}: {reply:?}");
                }
            }
            slowest = slowest.max(accepted.elapsed());
            world.control.applied_everywhere(receipt["id"].as_str().unwrap(), SOON).await;
            for edge in &mut world.edges {
                for (path, _) in PAGES {
                    let reply = edge.path(path).await;
                    assert!(is_hit(&reply), "{order} is about {path}: {reply:?}");
                }
            }
            for ((path, _), before) in PAGES.into_iter().zip(before) {
                let fetches = if about.contains(&path) { world.edges.len() } else { 0 };
                let after = world.origin.count(path) - before;
                assert_eq!(after, fetches, "{order}: fetches of {path}");
            }
        }
    }
    eprintln!("all that was purged was fetched again within {slowest:?} of the 202");
}

/// How far a fetch is when the purge comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// The origin has got the request and has not answered.
    BeforeTheHead,
    /// Clients have the head and the beginning of the body.
    WithinTheBody,
}

/// The content changes and is purged while every edge fetches it. Whoever asks after the purge is
/// applied never gets the old bytes: not from that fetch, and not from what it left in the store.
#[tokio::test]
async fn a_fetch_in_flight_never_brings_purged_bytes_back() {
    let world = World::start().await;
    let host = world.cluster.edge("fra").url.trim_start_matches("http://").to_owned();
    for point in [Point::BeforeTheHead, Point::WithinTheBody] {
        for (at, kind) in ["url", "prefix", "tag", "host", "all"].into_iter().enumerate() {
            let path = format!("/{point:?}/{at}");
            let order = match kind {
                "url" => json!({"url": path}),
                "prefix" => json!({"prefix": path}),
                "tag" => json!({"tag": format!("race-{at}")}),
                "host" => json!({"host": host}),
                _ => json!({"all": true}),
            };
            race(&world, point, &path, &format!("race-{at}"), &order).await;
        }
    }
}

async fn race(world: &World, point: Point, path: &str, tag: &str, order: &Value) {
    let edges: Vec<_> =
        world.cluster.file().edges.iter().map(|edge| format!("{}{path}", edge.url)).collect();
    let gate = Gate::closed();
    let tagged =
        |script: Script| script.header("cache-control", "max-age=600").header("surrogate-key", tag);
    world.origin.script(
        path,
        tagged(match point {
            Point::BeforeTheHead => ok("old bytes").behind(&gate),
            Point::WithinTheBody => ok("old ").then_behind(&gate, "bytes"),
        }),
    );
    let mut early = JoinSet::new();
    for url in &edges {
        let url = url.clone();
        early.spawn(async move { Client::get(&url).await });
    }
    eventually("every edge fetches", SOON, async || {
        (world.origin.count(path) == edges.len()).then_some(())
    })
    .await;
    if point == Point::WithinTheBody {
        for url in &edges {
            // A follower has the head: so the leader has it, and the tags in it.
            let mut follower = Client::http1(url).await.unwrap();
            assert_eq!(follower.open(get(path)).await.unwrap().status(), 200);
        }
    }

    world.origin.script(path, tagged(ok("new bytes")));
    world.control.purge_everywhere(order).await;

    let mut late = JoinSet::new();
    for url in edges.iter().cycle().take(2 * edges.len()) {
        let url = url.clone();
        late.spawn(async move { Client::get(&url).await });
    }
    // Only a tag is unknown before the head is there, so only then may they wait for the old fetch.
    let waits = point == Point::BeforeTheHead && order.get("tag").is_some();
    if waits {
        for edge in world.cluster.file().edges {
            eventually("two more wait for the fetch", SOON, async || {
                (metric(edge.admin(), "edge_requests_in_flight").await >= 3.0).then_some(())
            })
            .await;
        }
        gate.open();
    }
    for reply in late.join_all().await {
        assert_eq!(reply.text(), "new bytes", "{order}, {point:?}: {reply:?}");
    }
    gate.open();
    early.join_all().await; // they asked before the purge, and may have got either
    for url in &edges {
        let reply = Client::get(url).await;
        assert_eq!(reply.text(), "new bytes", "{order}, {point:?}: {reply:?}");
        assert!(is_hit(&reply), "{order}, {point:?}: {reply:?}");
    }
}

#[tokio::test]
async fn the_command_waits_for_the_edges_and_the_history_tells_what_was_done() {
    let mut world = World::start().await;
    for (path, tags) in PAGES {
        world.origin.script_fn(path, page(tags));
    }
    world.warm().await;
    let dir = world.cluster.dir().to_str().unwrap().to_owned();
    let run =
        async |words: &[&str]| Process::run(&[words, &["--dir", dir.as_str()]].concat()).await;

    let purged = run(&["purge", "--tag", "red", "--url", "/a/two", "--wait", "effective"]).await;
    assert_eq!(purged.status.code(), Some(0), "{purged:?}");
    for word in ["tag:red", "url:/a/two", "fra-1", "iad-1", "nrt-1", "pending      0"] {
        assert!(purged.stdout.contains(word), "{word} is not in {}", purged.stdout);
    }
    for edge in &mut world.edges {
        for (path, again) in [("/a/one", true), ("/a/two", true), ("/b/one", true)] {
            assert_eq!(is_hit(&edge.path(path).await), !again, "{path}");
        }
        assert!(is_hit(&edge.path("/b/two?x=1").await));
    }

    let soft = run(&["purge", "--all", "--soft", "--wait", "quorum", "--json"]).await;
    assert_eq!(soft.status.code(), Some(0), "{soft:?}");
    let soft: Value = serde_json::from_str(&soft.stdout).unwrap();
    assert_eq!((&soft["missing"], &soft["replayed"]), (&json!([]), &json!(false)), "{soft}");

    let again = ["purge", "--all", "--soft", "--json", "--idempotency-key"];
    let key = soft["idempotency_key"].as_str().unwrap();
    let again = run(&[&again, [key].as_slice()].concat()).await;
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((&again["id"], &again["replayed"]), (&soft["id"], &json!(true)), "{again}");

    let history = run(&["purge", "history"]).await;
    let lines: Vec<_> = history.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{}", history.stdout);
    assert!(lines[1].contains("hard") && lines[1].contains("tag:red"), "{}", history.stdout);
    assert!(lines[2].contains("soft") && lines[2].ends_with("all"), "{}", history.stdout);

    let wrong = run(&["purge", "--tag", "two words"]).await;
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}
