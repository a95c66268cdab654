//! Everything fails: how many attempts one miss costs the origin, without retry budget and breaker,
//! with the budget, and with both.

use std::time::Duration;

use serde_json::json;

use crate::demo::scene::{Paths, Scene};
use crate::demo::stage::Stage;
use crate::demo::story::{Bound, Story};
use crate::error::CommandError;

/// An edge that asks four times for everything, as if it alone counted.
const WITHOUT: &str = "\
[retry]
retries = 3
budget_floor = 1000000.0
[breaker]
enabled = false
";

/// The same edge, held to the default budget.
const BUDGET: &str = "\
[retry]
retries = 3
[breaker]
enabled = false
";

/// The same with a breaker.
const BOTH: &str = "\
[retry]
retries = 3
";

/// Requests per second, each for a path that is not stored.
const RATE: f64 = 60.0;

/// What one miss may cost with a budget.
const MOST: f64 = 1.2;

const PATIENCE: Duration = Duration::from_secs(40);

/// What came of one setting.
struct Arm {
    /// Requests of clients, as they counted them.
    misses: u64,
    /// Requests, as the origin counted them.
    attempts: u64,
}

impl Arm {
    fn ratio(&self) -> f64 {
        self.attempts as f64 / self.misses.max(1) as f64
    }
}

/// Plays it.
pub(crate) async fn play(running: Option<&Stage>, story: &mut Story) -> Result<(), CommandError> {
    if running.is_some() {
        let text = "retry-storm compares edges of different settings and starts its own: no --dir";
        return Err(CommandError::Usage(text.to_owned()));
    }
    let without = arm(
        story,
        "neither",
        "The origin answers 503 to everything. The edge may try again three times for each \
         request, without a budget and without a breaker.",
        WITHOUT,
    )
    .await?;
    let budget = arm(
        story,
        "budget",
        "The same with the default budget: retries may be a fifth of the requests.",
        BUDGET,
    )
    .await?;
    let both = arm(
        story,
        "both",
        "The same with budget and breaker: soon the origin is hardly asked at all.",
        BOTH,
    )
    .await?;

    story.show(&format!(
        "\n  attempts per miss: {:.2} with neither, {:.2} with the budget, {:.2} with both",
        without.ratio(),
        budget.ratio(),
        both.ratio(),
    ))?;
    let misses = without.misses.min(budget.misses).min(both.misses);
    story.count("misses in each setting", misses as f64, "", Bound::AtLeast(50.0));
    let claim = "neither budget nor breaker: attempts per miss";
    story.count(claim, without.ratio(), "", Bound::AtLeast(2.0));
    story.count("budget: attempts per miss", budget.ratio(), "", Bound::AtMost(MOST));
    story.count("budget and breaker: attempts per miss", both.ratio(), "", Bound::AtMost(MOST));
    Ok(())
}

/// A cluster with these settings, while everything fails.
async fn arm(
    story: &mut Story,
    phase: &str,
    text: &str,
    settings: &str,
) -> Result<Arm, CommandError> {
    let stage = Stage::open("fra", settings).await?;
    let paths = Paths::of(&stage).await?;
    stage.faults(&json!([{ "status": 503 }])).await?;
    let before = stage.origin_requests().await?;
    story.narrate(phase, text)?;
    let mut scene = Scene::begin(&stage, &paths, RATE, 1.0, PATIENCE).await?;
    let seen = scene.watch(story, story.seconds.max(2)).await?.seen;
    let rest = scene.end().await?;
    let attempts = stage.origin_requests().await? - before;
    Ok(Arm { misses: seen.unique.requests + rest.unique.requests, attempts })
}
