//! The origin takes 30 s for everything, which is worse than none: who asks for what is stored
//! notices nothing, nobody waits beyond the deadline, and nothing grows beyond its bound.
//!
//! Clients and edges share a machine, and a crowd of new connections keeps it busy whatever the
//! origin does. So the crowd comes three times: first while the origin is as ever, which shows what
//! the crowd alone costs those who ask for what is stored; then while it is slow, spread over a few
//! seconds; then all at one moment.

use std::time::Duration;

use meridian_tests_load::arrivals::{Asked, burst, unique_paths};
use serde_json::json;

use crate::demo::pulse::Pulse;
use crate::demo::scene::{Paths, Phase, STORED, Scene, UNIQUE_SHARE};
use crate::demo::stage::{Held, Stage};
use crate::demo::story::{Bound, Second, Story, milliseconds};
use crate::error::CommandError;
use crate::table::Table;

/// What holds in a cluster.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    deadline: Duration,
    max_requests: u64,
    max_queue: u64,
}

/// By default.
const DEFAULTS: Bounds =
    Bounds { deadline: Duration::from_secs(30), max_requests: 256, max_queue: 1_024 };

/// A deadline that shows within a minute what the default shows within five.
const LARGE: Bounds = Bounds { deadline: Duration::from_secs(4), ..DEFAULTS };

/// The same for a small crowd, which is to meet the bounds, too.
const SMALL: Bounds = Bounds { max_requests: 64, max_queue: 64, ..LARGE };

impl Bounds {
    fn settings(self) -> String {
        let Self { deadline, max_requests, max_queue } = self;
        format!(
            "first_byte_timeout = \"2s\"\ntotal_timeout = \"{}s\"\n\
             max_requests = {max_requests}\nmax_queue = {max_queue}\n\
             [breaker]\nslow_call = \"1s\"\ncool_down_max = \"2s\"\nramp_up = \"3s\"\n",
            deadline.as_secs()
        )
    }
}

/// The crowd comes within this, unless it comes at once.
const COMES_WITHIN: Duration = Duration::from_secs(4);

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

/// A connection is a task, and so is what it waits for: a fetch that is queued or under way.
const TASKS_FOR_CONNECTION: u64 = 2;
/// Listeners, connections that are kept to the origin, upkeep.
const TASKS_BESIDE: u64 = 128;

const CLOSES_WITHIN: u32 = 60;

/// A crowd and how it fared.
struct Crowd {
    phase: Phase,
    asked: Vec<Asked>,
}

impl Crowd {
    /// The p99 of those who ask for what is stored, all the while.
    fn p99(&self) -> Duration {
        self.phase.seen.stored.latency(0.99).unwrap_or_default()
    }
}

/// All that was seen.
struct Course {
    bounds: Bounds,
    clients: usize,
    /// Requests per second of those who come all the while.
    rate: f64,
    edges: u64,
    normal: Phase,
    crowd: Crowd,
    spread: Crowd,
    at_once: Crowd,
    has_closed: bool,
    after: Phase,
    rest: Pulse,
}

/// Plays it.
pub(crate) async fn play(running: Option<&Stage>, story: &mut Story) -> Result<(), CommandError> {
    let (seconds, is_long) = (story.seconds, story.is_long());
    let (rate, clients, own) = if is_long { (200.0, 2_000, LARGE) } else { (100.0, 200, SMALL) };
    let bounds = if running.is_some() { DEFAULTS } else { own };
    let stage = Held::of(running, "fra", &own.settings()).await?;
    let paths = Paths::of(&stage).await?;
    paths.warm(&stage).await?;

    story.narrate("normal", &format!(
        "{STORED} paths are stored. {rate} requests arrive each second, one in five of them for a \
         path that nobody has asked for."
    ))?;
    let patience = bounds.deadline * FORGOTTEN;
    let mut scene = Scene::begin(&stage, &paths, rate, UNIQUE_SHARE, patience).await?;
    let normal = scene.watch(story, seconds.div_ceil(2)).await?;
    let comes = Comes { paths: &paths, clients, patience, seconds: seconds.max(6) };

    story.narrate("crowd", &format!(
        "The origin is as ever, and {clients} more clients come within {} s, each over a connection \
         of its own and for a path that is not stored: what that alone costs the others.",
        COMES_WITHIN.as_secs()
    ))?;
    let crowd = comes.come(&mut scene, story, COMES_WITHIN).await?;

    stage.faults(&json!([{ "delay": "30s" }])).await?;
    story.narrate("slow", &format!(
        "The origin now takes 30 s for every answer, and {clients} more clients come in the same way."
    ))?;
    let spread = comes.come(&mut scene, story, COMES_WITHIN).await?;
    let mut has_closed = back(&stage, &mut scene, story).await?;

    stage.faults(&json!([{ "delay": "30s" }])).await?;
    story.narrate(
        "slow, at once",
        &format!("The same again, and {clients} clients come at one moment."),
    )?;
    let at_once = comes.come(&mut scene, story, Duration::ZERO).await?;
    has_closed &= back(&stage, &mut scene, story).await?;

    story.narrate("after", "Everything is as it was, and nobody has started anything again.")?;
    let after = scene.watch(story, seconds.div_ceil(2)).await?;
    scene.end().await?;
    let edges = stage.cluster.edges.len() as u64;
    let rest = stage.pulse().await;
    let course = Course {
        bounds,
        clients,
        rate,
        edges,
        normal,
        crowd,
        spread,
        at_once,
        has_closed,
        after,
        rest,
    };
    course.show(story)?;
    course.judge(story);
    Ok(())
}

/// The crowd before it comes.
struct Comes<'a> {
    paths: &'a Paths,
    clients: usize,
    patience: Duration,
    seconds: u32,
}

impl Comes<'_> {
    async fn come(
        &self,
        scene: &mut Scene<'_>,
        story: &mut Story,
        within: Duration,
    ) -> Result<Crowd, CommandError> {
        let Self { paths, clients, patience, seconds } = *self;
        let more = unique_paths(&paths.unique, rand::random(), clients)?;
        let edges = scene.stage.edges()?;
        let (asked, phase) = tokio::join!(
            burst(&edges, &more, clients, within, patience),
            scene.watch(story, seconds)
        );
        Ok(Crowd { phase: phase?, asked: asked? })
    }
}

/// The origin is as fast as ever; whether all breakers find out.
async fn back(
    stage: &Stage,
    scene: &mut Scene<'_>,
    story: &mut Story,
) -> Result<bool, CommandError> {
    stage.faults(&json!([])).await?;
    story.narrate("back", "The origin is as fast as ever. Probes find out, the breakers close.")?;
    Ok(scene.watch_until(story, CLOSES_WITHIN, |phase| phase.end.all_closed()).await?.1)
}

/// What of a second is looked at.
type Read = fn(&Second) -> u64;

/// What an edge holds, by name.
const HELD: [(&str, Read); 7] = [
    ("client connections", |second| second.connections),
    ("client requests under way", |second| second.clients),
    ("requests in flight to the origin", |second| second.in_flight),
    ("requests that wait for a place", |second| second.queue),
    ("tasks", |second| second.tasks),
    ("open files", |second| second.files),
    ("memory, MiB", |second| second.memory_mib.unwrap_or_default()),
];

impl Course {
    /// What the edges held, before, during and after.
    fn show(&self, story: &Story) -> Result<(), CommandError> {
        let mut table = Table::default()
            .words("the most of any second")
            .numbers("before")
            .numbers("crowd")
            .numbers("slow")
            .numbers("slow, at once")
            .numbers("after");
        let crowds = [&self.crowd, &self.spread, &self.at_once].map(|crowd| &crowd.phase);
        let [crowd, spread, at_once] = crowds;
        let phases = [&self.normal, crowd, spread, at_once, &self.after];
        for (name, of) in HELD {
            let [before, crowd, slow, at_once, after] =
                phases.map(|phase| phase.most(of).to_string());
            table.row([name.to_owned(), before, crowd, slow, at_once, after]);
        }
        let p99 = |phase: &Phase| {
            let p99 = phase.seen.stored.latency(0.99);
            p99.map_or("-".to_owned(), |time| format!("{:.2}", milliseconds(time)))
        };
        let [before, crowd, slow, at_once, after] = phases.map(p99);
        table.row(["p99 of stored paths, ms".to_owned(), before, crowd, slow, at_once, after]);
        story.show(&format!("\n{table}"))
    }

    fn judge(&self, story: &mut Story) {
        let Self { normal, spread, at_once, after, rest, .. } = self;
        let none = Bound::Exactly(0.0);
        let errors = spread.phase.seen.stored.errors + at_once.phase.seen.stored.errors;
        story.count("slow: errors on stored paths", errors as f64, "", none);
        // The crowd's own cost is no fault of the origin's; nor is it a reason to be slower.
        let before = normal.seen.stored.latency(0.99).unwrap_or_default();
        let usual = before.max(self.crowd.p99());
        let most = usual.mul_f64(1.5).max(usual + NOISE);
        let claim = "slow: p99 of stored paths, against 1.5 times the usual or 5 ms more";
        story.time(claim, Some(spread.p99()), most);
        self.waits(story);
        self.holds(story);

        let closed = f64::from(u8::from(self.has_closed));
        story.count("after: all breakers are closed", closed, "", Bound::Exactly(1.0));
        let errors = after.seen.all().errors as f64;
        story.count("after: requests without a good answer", errors, "", none);
        let left = (rest.in_flight + rest.queue + rest.clients) as f64;
        story.count("after: requests in flight or waiting", left, "", none);
        let most = self.most_connections() - self.clients as f64;
        let connections = after.end.connections as f64;
        story.count("after: client connections", connections, "", Bound::AtMost(most));
        let most = most * TASKS_FOR_CONNECTION as f64 + TASKS_BESIDE as f64;
        story.count("after: tasks", after.end.tasks as f64, "", Bound::AtMost(most));
    }

    /// Those who ask for what is not stored.
    fn waits(&self, story: &mut Story) {
        let asked = || self.spread.asked.iter().chain(&self.at_once.asked);
        let forgotten = asked().filter(|asked| asked.status.is_none()).count() as f64;
        story.count("slow: clients that never got an answer", forgotten, "", Bound::Exactly(0.0));
        let slowest = asked().map(|asked| asked.took).max();
        let most = self.bounds.deadline + SLACK;
        story.time("slow: the longest wait, against the deadline and 1 s", slowest, most);
    }

    /// One for each of the crowd, and one for each who comes all the while and waits.
    fn most_connections(&self) -> f64 {
        let waiting = self.rate * UNIQUE_SHARE * self.bounds.deadline.as_secs_f64();
        self.normal.most(|second| second.connections) + self.clients as f64 + waiting
    }

    /// What the edges hold meanwhile.
    fn holds(&self, story: &mut Story) {
        let slow = [&self.spread.phase, &self.at_once.phase];
        let most = |of: Read| slow.map(|phase| phase.most(of)).into_iter();
        let most = |of| most(of).fold(0.0, f64::max);
        let at_most = |bound: u64| Bound::AtMost((bound * self.edges) as f64);
        let connections = self.most_connections();
        let [by_clients, _, in_flight, queue, tasks, _, memory] = HELD.map(|(_, of)| most(of));
        story.count("slow: client connections", by_clients, "", Bound::AtMost(connections));
        let claim = "slow: requests in flight to the origin";
        story.count(claim, in_flight, "", at_most(self.bounds.max_requests));
        let claim = "slow: requests that wait for a place";
        story.count(claim, queue, "", at_most(self.bounds.max_queue));
        let bound = connections * TASKS_FOR_CONNECTION as f64 + TASKS_BESIDE as f64;
        story.count("slow: tasks", tasks, "", Bound::AtMost(bound));
        let before = self.normal.most(|second| second.memory_mib.unwrap_or_default());
        let bound = before + self.clients as f64 * MEMORY_FOR_CLIENT + MEMORY_BESIDE;
        let claim = "slow: memory of the edges, against 128 KiB for each client and 64 MiB more";
        story.count(claim, memory, "MiB", Bound::AtMost(bound));
    }
}
