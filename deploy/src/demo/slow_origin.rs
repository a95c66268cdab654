//! The origin takes 30 s for everything, which is worse than none: who asks for what is stored
//! notices nothing, nobody waits beyond the deadline, and nothing grows beyond its bound.

use std::time::Duration;

use meridian_tests_load::arrivals::{Asked, burst, unique_paths};
use serde_json::json;

use crate::demo::scene::{Paths, Phase, STORED, Scene, UNIQUE_SHARE};
use crate::demo::stage::{Held, Stage};
use crate::demo::story::{Bound, Story};
use crate::error::CommandError;

/// Deadlines and bounds that show within a minute what the defaults show within five.
const SETTINGS: &str = "\
first_byte_timeout = \"2s\"
total_timeout = \"4s\"
max_requests = 64
max_queue = 128
[breaker]
slow_call = \"1s\"
cool_down_max = \"2s\"
ramp_up = \"3s\"
";

/// What holds in a cluster: of [`SETTINGS`], or by default.
struct Bounds {
    deadline: Duration,
    max_requests: u64,
    max_queue: u64,
}

const OWN: Bounds = Bounds { deadline: Duration::from_secs(4), max_requests: 64, max_queue: 128 };

const DEFAULTS: Bounds =
    Bounds { deadline: Duration::from_secs(30), max_requests: 256, max_queue: 1_024 };

/// The many clients come within this: all at once they would measure how fast this machine accepts
/// connections, and not what a slow origin does.
const COME_WITHIN: Duration = Duration::from_secs(4);

/// A client whose answer comes so much after the deadline was held up by the machine.
const SLACK: Duration = Duration::from_secs(1);

/// How much longer a client waits than any edge should let it, before it counts as forgotten.
const FORGOTTEN: u32 = 4;

/// Latencies of what is stored are below a millisecond, where half as much again is noise: this
/// much more is allowed in any case.
const NOISE: Duration = Duration::from_millis(5);

/// Memory that one waiting client may cost, and all together beside it, in MiB.
const MEMORY_FOR_CLIENT: f64 = 0.125;
const MEMORY_BESIDE: f64 = 64.0;

const CLOSES_WITHIN: u32 = 60;

/// Plays it.
pub(crate) async fn play(running: Option<&Stage>, story: &mut Story) -> Result<(), CommandError> {
    let stage = Held::of(running, "fra", SETTINGS).await?;
    let bounds = if running.is_some() { DEFAULTS } else { OWN };
    let (seconds, is_long) = (story.seconds, story.is_long());
    let (rate, clients) = if is_long { (200.0, 2_000) } else { (100.0, 200) };
    let paths = Paths::of(&stage).await?;
    paths.warm(&stage).await?;
    let patience = bounds.deadline * FORGOTTEN;

    story.narrate("normal", &format!(
        "{STORED} paths are stored. {rate} requests arrive each second, one in five of them for a \
         path that nobody has asked for."
    ))?;
    let mut scene = Scene::begin(&stage, &paths, rate, UNIQUE_SHARE, patience).await?;
    let normal = scene.watch(story, seconds.div_ceil(2)).await?;

    stage.faults(&json!([{ "delay": "30s" }])).await?;
    story.narrate("slow", &format!(
        "The origin now takes 30 s for every answer, and {clients} more clients come within {} s, \
         each over a connection of its own and for a path that is not stored.",
        COME_WITHIN.as_secs()
    ))?;
    let more = unique_paths(&paths.unique, rand::random(), clients)?;
    let edges = stage.edges()?;
    let (asked, slow) = tokio::join!(
        burst(&edges, &more, clients, COME_WITHIN, patience),
        scene.watch(story, seconds.max(6))
    );
    let (asked, slow) = (asked?, slow?);

    stage.faults(&json!([])).await?;
    story.narrate("back", "The origin is as fast as ever. Probes find out, the breakers close.")?;
    let (_, has_closed) =
        scene.watch_until(story, CLOSES_WITHIN, |phase| phase.end.all_closed()).await?;
    story.narrate("after", "Everything is as it was, and nobody has started anything again.")?;
    let after = scene.watch(story, seconds.div_ceil(2)).await?;
    scene.end().await?;
    let rest = stage.pulse().await;

    let none = Bound::Exactly(0.0);
    story.count("slow: errors on stored paths", slow.seen.stored.errors as f64, "", none);
    latencies(story, &normal, &slow);
    waits(story, &asked, &bounds);
    let nodes = stage.cluster.edges.len() as u64;
    let at_most = |most: u64| Bound::AtMost((most * nodes) as f64);
    let in_flight = slow.most(|second| second.in_flight);
    story.count(
        "slow: requests in flight to the origin",
        in_flight,
        "",
        at_most(bounds.max_requests),
    );
    let queue = slow.most(|second| second.queue);
    story.count("slow: requests that wait for a place", queue, "", at_most(bounds.max_queue));
    memory(story, &normal, &slow, clients);
    let closed = f64::from(u8::from(has_closed));
    story.count("after: all breakers are closed", closed, "", Bound::Exactly(1.0));
    story.count("after: requests without a good answer", after.seen.all().errors as f64, "", none);
    let left = (rest.in_flight + rest.queue) as f64;
    story.count("after: requests in flight or waiting", left, "", none);
    let most = Bound::AtMost(normal.most(|second| second.connections) + in_flight_clients(&slow));
    story.count("after: client connections", after.end.connections as f64, "", most);
    Ok(())
}

/// Connections that the steady clients opened as others were busy, and keep.
fn in_flight_clients(slow: &Phase) -> f64 {
    slow.seen.unique.requests as f64
}

/// Those who ask for what is stored.
fn latencies(story: &mut Story, normal: &Phase, slow: &Phase) {
    let before = normal.seen.stored.latency(0.99).unwrap_or_default();
    let during = slow.seen.stored.latency(0.99);
    let most = before.mul_f64(1.5).max(before + NOISE);
    story.time("slow: p99 of stored paths, against 1.5 times before or 5 ms more", during, most);
}

/// Those who ask for what is not.
fn waits(story: &mut Story, asked: &[Asked], bounds: &Bounds) {
    let forgotten = asked.iter().filter(|asked| asked.status.is_none()).count() as f64;
    story.count("slow: clients that never got an answer", forgotten, "", Bound::Exactly(0.0));
    let slowest = asked.iter().map(|asked| asked.took).max();
    let most = bounds.deadline + SLACK;
    story.time("slow: the longest wait, against the deadline and 1 s", slowest, most);
}

/// What the edges hold.
fn memory(story: &mut Story, normal: &Phase, slow: &Phase, clients: usize) {
    let memory = |phase: &Phase| phase.seconds.iter().filter_map(|second| second.memory_mib).max();
    let (Some(before), Some(during)) = (memory(normal), memory(slow)) else { return };
    let most = before as f64 + clients as f64 * MEMORY_FOR_CLIENT + MEMORY_BESIDE;
    let claim = "slow: memory of the edges, against 128 KiB for each client and 64 MiB more";
    story.count(claim, during as f64, "MiB", Bound::AtMost(most));
}
