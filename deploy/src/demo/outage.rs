//! The origin is gone under load: what is stored is served on, the rest fails fast, and the way
//! back is no stampede.

use std::time::Duration;

use crate::demo::scene::{Paths, Phase, STORED, Scene, UNIQUE_SHARE};
use crate::demo::stage::{Held, Stage};
use crate::demo::story::{Bound, Second, Story};
use crate::error::CommandError;

/// Shorter than the defaults, so that the whole course fits into a minute.
const SETTINGS: &str = "\
connect_timeout = \"1s\"
first_byte_timeout = \"1s\"
total_timeout = \"3s\"
[breaker]
probes = 2
ramp_up = \"3s\"
";

/// What the ramp of [`SETTINGS`], or that by default, lets through within its first second.
const FIRST_SHARE: f64 = 1.0 / 3.0;

/// A breaker with default settings has seen enough after this many seconds of silence.
const OPENS_WITHIN: u32 = 45;

/// The longest cool-down, a probe that hangs, the ramp, and as much again.
const CLOSES_WITHIN: u32 = 60;

/// A client gives up after this: longer than any deadline of an edge.
const PATIENCE: Duration = Duration::from_secs(40);

/// Failures are answered within this once the breaker is open.
const FAST: Duration = Duration::from_millis(50);

/// Requests that a half-open breaker lets through each time, at most.
const PROBES: u64 = 3;

/// Plays it.
pub(crate) async fn play(running: Option<&Stage>, story: &mut Story) -> Result<(), CommandError> {
    let stage = Held::of(running, "fra,iad", SETTINGS).await?;
    let edges = stage.cluster.edges.len() as u64;
    let paths = Paths::of(&stage).await?;
    paths.warm(&stage).await?;
    let (seconds, rate) = (story.seconds, if story.is_long() { 300.0 } else { 150.0 });

    story.narrate("normal", &format!(
        "{edges} edges have {STORED} paths stored. {rate} requests arrive each second, one in five \
         of them for a path that nobody has asked for."
    ))?;
    let mut scene = Scene::begin(&stage, &paths, rate, UNIQUE_SHARE, PATIENCE).await?;
    let normal = scene.watch(story, seconds.div_ceil(2)).await?;

    stage.expire_all().await?;
    stage.cut_origin().await?;
    story.narrate(
        "gone",
        "Everything stored is marked stale, and the links to the origin are cut: what is sent \
         there vanishes. Stored paths are served stale, the others wait for their deadline until \
         the breakers have seen enough.",
    )?;
    // Until the last who waits for a deadline has met it, but for a probe now and then.
    let is_over = |phase: &Phase| phase.end.all_broken() && phase.end.in_flight <= PROBES * edges;
    let (mut gone, has_opened) = scene.watch_until(story, OPENS_WITHIN, is_over).await?;
    let rest = scene.watch(story, 1).await?; // those whose deadline came within that second
    gone.seen.add(&rest.seen);

    story.narrate(
        "open",
        "The breakers are open: nobody waits for the origin any more. Now and then a request goes \
         through to see whether it is back.",
    )?;
    let open = scene.watch(story, seconds.max(3)).await?;

    stage.heal().await?;
    story.narrate(
        "back",
        "The links are whole again. A probe finds out, the breakers close, and let more through \
         from moment to moment.",
    )?;
    let (back, has_closed) =
        scene.watch_until(story, CLOSES_WITHIN, |phase| phase.end.all_closed()).await?;
    story.narrate("after", "All breakers are closed: everything is as it was.")?;
    let after = scene.watch(story, seconds.div_ceil(2)).await?;
    scene.end().await?;

    let course = Course { edges, rate, normal, gone, open, back, after };
    course.judge(story, has_opened, has_closed);
    Ok(())
}

struct Course {
    edges: u64,
    rate: f64,
    normal: Phase,
    gone: Phase,
    open: Phase,
    back: Phase,
    after: Phase,
}

impl Course {
    fn judge(&self, story: &mut Story, has_opened: bool, has_closed: bool) {
        let Self { normal, gone, open, back, after, .. } = self;
        let none = Bound::Exactly(0.0);
        let errors = normal.seen.all().errors;
        story.count("before: requests without a good answer", errors as f64, "", none);

        let without = [gone, open, back];
        let stored: u64 = without.iter().map(|phase| phase.seen.stored.errors).sum();
        let claim = "while the origin was gone: errors on stored paths";
        story.count(claim, stored as f64, "", none);
        let stale = gone.seen.stored.stale + open.seen.stored.stale;
        let claim = "while the origin was gone: stale answers in their place";
        story.count(claim, stale as f64, "", Bound::AtLeast(1.0));

        let all = Bound::Exactly(self.edges as f64);
        let edges = |all: bool| if all { self.edges as f64 } else { 0.0 };
        story.count("breakers opened", edges(has_opened), "edges", all);
        let p99 = open.seen.unique.failure_latency(0.99);
        story.time("breakers open: p99 of failures, probes included", p99, FAST);
        let refused = open.seen.unique.errors as f64;
        story.count("breakers open: failures", refused, "", Bound::AtLeast(1.0));
        let attempts: u64 = open.seconds.iter().map(|second| second.attempts).sum();
        let seconds = open.seconds.len() as u64 + 2;
        let most = Bound::AtMost((PROBES * self.edges * seconds) as f64);
        story.count("breakers open: attempts at the origin", attempts as f64, "", most);

        story.count("breakers closed again", edges(has_closed), "edges", all);
        // Every path that is not stored, with retries, and each stored one once at each edge.
        let most = 1.2 * UNIQUE_SHARE * self.rate + (STORED as u64 * self.edges) as f64;
        let busiest = busiest(back.seconds.iter().chain(&after.seconds));
        let claim = "on return: attempts at the origin in the busiest second";
        story.count(claim, busiest, "per second", Bound::AtMost(most));
        // Everything stored is stale: without the ramp every request would go to the origin.
        let most = 1.2 * FIRST_SHARE * self.rate + (PROBES * self.edges) as f64;
        let first = back.seconds.iter().chain(&after.seconds).find(|second| second.attempts > 0);
        let first = first.map_or(0.0, |second| second.attempts as f64);
        let claim = "on return: attempts in the first second, of a ramp";
        story.count(claim, first, "", Bound::AtMost(most));
        let errors = after.seen.all().errors;
        story.count("after: requests without a good answer", errors as f64, "", none);
    }
}

/// Attempts per second in the busiest span between two looks.
fn busiest<'a>(seconds: impl Iterator<Item = &'a Second>) -> f64 {
    let mut last: Option<f64> = None;
    let mut most: f64 = 0.0;
    for second in seconds {
        let span = last.map_or(1.0, |last| (second.at - last).max(1.0));
        most = most.max(second.attempts as f64 / span);
        last = Some(second.at);
    }
    most
}
