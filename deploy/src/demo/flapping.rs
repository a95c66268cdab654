//! The origin comes and goes every few seconds: a breaker that believes it each time would let
//! everything through and turn everything away in turn.

use std::time::Duration;

use serde_json::json;

use crate::demo::pulse::Pulse;
use crate::demo::scene::{Paths, Phase, STORED, Scene, UNIQUE_SHARE};
use crate::demo::stage::Stage;
use crate::demo::story::{Bound, Second, Story};
use crate::error::CommandError;

const FAILURES: u64 = 10;
const PROBES: u64 = 2;
const CLOSES_WITHIN: u32 = 60;
const PATIENCE: Duration = Duration::from_secs(40);

/// How the origin flaps, and the breaker that is to bear it: all of it follows from half a flap.
#[derive(Debug, Clone, Copy)]
struct Rhythm {
    /// Seconds that it is there, and that it is gone.
    half: u32,
    flaps: u32,
    /// Requests per second.
    rate: f64,
}

impl Rhythm {
    fn cool_down(self) -> Duration {
        Duration::from_secs(self.half.into()) / 10
    }

    fn cool_down_max(self) -> Duration {
        self.cool_down() * 4
    }

    fn ramp_up(self) -> Duration {
        self.cool_down() * 6
    }

    fn settings(self) -> String {
        let millis = |time: Duration| time.as_millis();
        format!(
            "[breaker]\nconsecutive_failures = {FAILURES}\nprobes = {PROBES}\n\
             cool_down = \"{}ms\"\ncool_down_max = \"{}ms\"\nramp_up = \"{}ms\"\n",
            millis(self.cool_down()),
            millis(self.cool_down_max()),
            millis(self.ramp_up()),
        )
    }

    /// How often a breaker may try while the origin is gone: cool-downs double, up to their longest,
    /// and chance takes up to a quarter of each.
    fn trials(self) -> u64 {
        let (mut cool_down, mut passed, mut trials) = (self.cool_down(), Duration::ZERO, 0);
        loop {
            passed += cool_down.mul_f64(0.75);
            if passed > Duration::from_secs(self.half.into()) {
                return trials;
            }
            trials += 1;
            cool_down = (cool_down * 2).min(self.cool_down_max());
        }
    }

    /// Requests of one edge that reach the origin while it is gone: those that trip the breaker and
    /// as many that are under way then, each once more where the reset met a kept connection, and
    /// probes.
    fn in_vain(self) -> u64 {
        4 * FAILURES + PROBES * self.trials()
    }

    /// The share of all seconds in which the breaker lets requests through in any case: the longest
    /// cool-down may begin as the origin comes back, then the share grows; a tenth of the time is
    /// for probes on their way.
    fn served(self) -> f64 {
        let half = f64::from(self.half);
        let (open, ramp) = (self.cool_down_max().as_secs_f64(), self.ramp_up().as_secs_f64());
        let left = (half * 0.9 - open).max(0.0);
        let ramping = left.min(ramp);
        (ramping * ramping / ramp / 2.0 + (left - ramping)) / (2.0 * half)
    }

    /// Requests that a ramp lets through within its first second, with retries, and probes.
    fn first_second(self, edges: u64) -> f64 {
        let share = (1.0 / self.ramp_up().as_secs_f64()).clamp(0.1, 1.0);
        1.2 * share * self.rate + (PROBES * edges) as f64
    }
}

/// What came of the flaps.
#[derive(Debug, Default)]
struct Flaps {
    /// All of them.
    all: Phase,
    /// The most requests per second, as the origin counted them, of any time that it was gone.
    in_vain: f64,
    /// The most attempts in the first second after any return.
    return_rush: f64,
    /// The most that any flap cost.
    trips: u64,
    changes: u64,
    probes: u64,
}

/// Plays it.
pub(crate) async fn play(running: Option<&Stage>, story: &mut Story) -> Result<(), CommandError> {
    if running.is_some() {
        let text = "flapping judges a breaker by its settings and starts its own edges: no --dir";
        return Err(CommandError::Usage(text.to_owned()));
    }
    let rhythm = match story.is_long() {
        true => Rhythm { half: 5, flaps: 5, rate: 300.0 },
        false => Rhythm { half: 2, flaps: 3, rate: 150.0 },
    };
    let stage = Stage::open("fra,iad", &rhythm.settings()).await?;
    let edges = stage.cluster.edges.len() as u64;
    let paths = Paths::of(&stage).await?;
    paths.warm(&stage).await?;
    story.narrate("normal", &format!(
        "{edges} edges have {STORED} paths stored. {} requests arrive each second, one in five of \
         them for a path that nobody has asked for.", rhythm.rate
    ))?;
    let mut scene = Scene::begin(&stage, &paths, rhythm.rate, UNIQUE_SHARE, PATIENCE).await?;
    let normal = scene.watch(story, story.seconds.div_ceil(2)).await?;
    let before = stage.pulse().await;

    let mut flaps = Flaps::default();
    for number in 1..=rhythm.flaps {
        flap(&stage, &mut scene, story, rhythm, number, &mut flaps).await?;
    }
    let rest = stage.pulse().await;

    story.narrate("back", "The origin stays. The breakers close for good.")?;
    let (_, has_closed) =
        scene.watch_until(story, CLOSES_WITHIN, |phase| phase.end.all_closed()).await?;
    story.narrate("after", "All breakers are closed: everything is as it was.")?;
    let after = scene.watch(story, story.seconds.div_ceil(2)).await?;
    scene.end().await?;

    tell(story, rhythm, edges, &before, &rest)?;
    let none = Bound::Exactly(0.0);
    let errors = normal.seen.all().errors as f64;
    story.count("before: requests without a good answer", errors, "", none);
    judge(story, rhythm, edges, &flaps);
    let closed = f64::from(u8::from(has_closed));
    story.count("after: all breakers are closed", closed, "", Bound::Exactly(1.0));
    story.count("after: requests without a good answer", after.seen.all().errors as f64, "", none);
    Ok(())
}

/// The origin goes, and comes back.
async fn flap(
    stage: &Stage,
    scene: &mut Scene<'_>,
    story: &mut Story,
    rhythm: Rhythm,
    number: u32,
    flaps: &mut Flaps,
) -> Result<(), CommandError> {
    let Rhythm { half, flaps: all, .. } = rhythm;
    let (begun, asked) = (stage.pulse().await, stage.origin_requests().await?);
    stage.faults(&json!([{ "reset": true }])).await?;
    stage.expire_all().await?;
    story.narrate("down", &format!(
        "Flap {number} of {all}: everything stored is marked stale, and for {half} s the origin \
         resets every connection that brings it a request."
    ))?;
    let down = scene.watch(story, half).await?;
    let in_vain = (stage.origin_requests().await? - asked) as f64 / f64::from(half);
    flaps.in_vain = flaps.in_vain.max(in_vain);

    stage.faults(&json!([])).await?;
    story.narrate("up", &format!("It is back, for {half} s."))?;
    let up = scene.watch(story, half).await?;
    flaps.return_rush = flaps.return_rush.max(rush(&up.seconds));

    let end = stage.pulse().await;
    flaps.trips = flaps.trips.max(end.trips.saturating_sub(begun.trips));
    flaps.changes = flaps.changes.max(end.changes.saturating_sub(begun.changes));
    flaps.probes = flaps.probes.max(end.probes.saturating_sub(begun.probes));
    for phase in [down, up] {
        flaps.all.seen.add(&phase.seen);
        flaps.all.seconds.extend(phase.seconds);
    }
    Ok(())
}

/// Attempts in the first second that had any.
fn rush(up: &[Second]) -> f64 {
    up.iter().find(|second| second.attempts > 0).map_or(0.0, |second| second.attempts as f64)
}

fn tell(
    story: &Story,
    rhythm: Rhythm,
    edges: u64,
    before: &Pulse,
    rest: &Pulse,
) -> Result<(), CommandError> {
    let each = |after: u64, before: u64| {
        (after - before) as f64 / (u64::from(rhythm.flaps) * edges) as f64
    };
    story.show(&format!(
        "\n  each flap cost each edge {:.1} probes, {:.1} transitions of its breaker and {:.1} trips",
        each(rest.probes, before.probes),
        each(rest.changes, before.changes),
        each(rest.trips, before.trips),
    ))
}

fn judge(story: &mut Story, rhythm: Rhythm, edges: u64, flaps: &Flaps) {
    let Flaps { all, in_vain, return_rush, trips, changes, probes } = flaps;
    let at_most = |most: u64| Bound::AtMost((most * edges) as f64);
    let errors = all.seen.stored.errors as f64;
    story.count("flapping: errors on stored paths", errors, "", Bound::Exactly(0.0));
    let stale = all.seen.stored.stale as f64;
    story.count("flapping: stale answers in their place", stale, "", Bound::AtLeast(1.0));
    let share = 100.0 * all.seen.unique.errors as f64 / all.seen.unique.requests.max(1) as f64;
    let most = 100.0 * (1.0 - rhythm.served());
    story.count("flapping: errors on other paths", share, "%", Bound::AtMost(most));
    let claim = "flapping: how often breakers tripped in any flap";
    story.count(claim, *trips as f64, "times", at_most(1));
    // Each trial opens and closes once; it trips, closes, and is ramped up once.
    let most = 2 * (rhythm.trials() + 1) + 3;
    let claim = "flapping: transitions of breakers in any flap";
    story.count(claim, *changes as f64, "", at_most(most));
    let most = PROBES * (rhythm.trials() + 1);
    story.count("flapping: probes in any flap", *probes as f64, "", at_most(most));
    let most = (rhythm.in_vain() * edges) as f64 / f64::from(rhythm.half);
    let claim = "gone: requests that the origin saw, in the worst flap";
    story.count(claim, *in_vain, "per second", Bound::AtMost(most));
    let claim = "back: attempts in the first second of any return";
    let most = Bound::AtMost(rhythm.first_second(edges));
    story.count(claim, *return_rush, "", most);
}

#[cfg(test)]
mod tests {
    use super::Rhythm;

    #[test]
    fn the_bounds_follow_from_the_rhythm() {
        let rhythm = Rhythm { half: 5, flaps: 5, rate: 300.0 };
        // After 0.375, 1.125, 2.625, 4.125 s at the earliest.
        assert_eq!((rhythm.trials(), rhythm.in_vain()), (4, 48));
        // From 2.5 s on there is a ramp of 3 s: 2.5 s of it, up to five sixths.
        assert!((rhythm.served() - 2.5 * 2.5 / 3.0 / 2.0 / 10.0).abs() < 1e-9);
        assert!((rhythm.first_second(2) - 124.0).abs() < 1e-9);
        assert!(rhythm.settings().contains("cool_down_max = \"2000ms\"\nramp_up = \"3000ms\""));
    }
}
