//! Hundreds ask for one cold object at once, and again when it has expired: the origin sees one
//! request for each edge.

use std::time::Duration;

use http::uri::PathAndQuery;
use meridian_tests_load::arrivals::{Asked, burst, unique_paths};
use serde_json::json;

use crate::demo::scene::Paths;
use crate::demo::stage::{Held, Stage};
use crate::demo::story::{Bound, Story};
use crate::error::CommandError;

/// Who asks, all at once.
const CLIENTS: usize = 500;

const PATIENCE: Duration = Duration::from_secs(40);

/// What came of one herd.
struct Herd {
    asked: Vec<Asked>,
    /// Requests, as the origin counted them.
    seen: u64,
}

/// Plays it.
pub(crate) async fn play(running: Option<&Stage>, story: &mut Story) -> Result<(), CommandError> {
    let stage = Held::of(running, "fra,iad,nrt", "").await?;
    let edges = stage.cluster.edges.len();
    let path = unique_paths(&Paths::of(&stage).await?.unique, rand::random(), 1)?;
    stage.faults(&json!([{ "delay": "500ms" }])).await?;

    story.narrate(
        "cold",
        &format!(
            "{CLIENTS} clients, each over a connection of its own, ask {edges} edges for one \
             object that nobody has asked for. The origin takes half a second for it."
        ),
    )?;
    let cold = herd(&stage, &path).await?;
    tell(story, &cold)?;

    stage.expire_all().await?;
    story.narrate("expired", "It is marked stale at every edge, and all ask again at once.")?;
    let expired = herd(&stage, &path).await?;
    tell(story, &expired)?;
    stage.faults(&json!([])).await?;

    for (when, herd) in [("cold", cold), ("expired", expired)] {
        let seen = herd.seen as f64;
        let claim = format!("{when}: requests that the origin saw");
        story.count(&claim, seen, "", Bound::Exactly(edges as f64));
        let good = herd.asked.iter().filter(|asked| asked.status == Some(200)).count() as f64;
        let claim = format!("{when}: clients with a good answer");
        story.count(&claim, good, "", Bound::Exactly(CLIENTS as f64));
        let slowest = herd.asked.iter().map(|asked| asked.took).max();
        let claim = format!("{when}: the last answer");
        story.time(&claim, slowest, Duration::from_secs(2));
    }
    Ok(())
}

async fn herd(stage: &Stage, path: &[PathAndQuery]) -> Result<Herd, CommandError> {
    let before = stage.origin_requests().await?;
    let asked = burst(&stage.edges()?, path, CLIENTS, Duration::ZERO, PATIENCE).await?;
    Ok(Herd { asked, seen: stage.origin_requests().await? - before })
}

fn tell(story: &Story, herd: &Herd) -> Result<(), CommandError> {
    let shared = herd.asked.iter().filter(|asked| asked.is_collapsed).count();
    let clients = herd.asked.len();
    story.show(&format!(
        "  {clients} answers, {shared} of them from somebody else's fetch; the origin saw {}",
        herd.seen
    ))
}
