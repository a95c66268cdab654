//! Orders are placed and the answers get lost: with a key there is one order however often it is
//! sent, without a key there are as many as were sent.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Client, ClientError};
use crate::demo::stage::{Held, Stage};
use crate::demo::story::{Bound, Story};
use crate::error::CommandError;

/// Who orders, all at once.
const CLIENTS: usize = 100;

/// How often a client sends its order before it gives up; each time its answer is lost with a
/// chance of three in ten, or the edge's breaker finds that too much and refuses for a while.
const TRIES: u32 = 60;

/// Before a client sends again it waits up to this, at random.
const PAUSE: Duration = Duration::from_millis(600);

/// One exchange, retries of the edge included.
const PATIENCE: Duration = Duration::from_secs(40);

const ORDERS: &str = "/v1/orders";

/// What came of many who ordered.
#[derive(Debug, Default)]
struct Placed {
    /// Answers that say which order it is.
    answers: Vec<Value>,
    /// Further sendings by clients.
    repeats: u32,
    /// Attempts at the origin.
    attempts: u64,
    /// Orders that there are more than before.
    orders: u64,
}

impl Placed {
    /// Different orders among the answers.
    fn different(&self) -> usize {
        let mut ids: Vec<&str> =
            self.answers.iter().filter_map(|answer| text(answer, "id")).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    }

    /// What the origin did and nobody heard of.
    fn lost(&self) -> u64 {
        self.attempts.saturating_sub(self.answers.len() as u64)
    }
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

/// Plays it.
pub(crate) async fn play(running: Option<&Stage>, story: &mut Story) -> Result<(), CommandError> {
    let stage = Held::of(running, "fra,iad,nrt", "").await?;
    let edges = stage.cluster.edges.len();
    let lossy = json!([{ "path": ORDERS, "method": "POST", "share": 0.3, "lose_reply": true }]);
    stage.faults(&lossy).await?;
    story.narrate(
        "loss",
        "From now on the origin does its work, and then three of ten connections break before the \
         answer is out: nobody can tell a lost answer from lost work.",
    )?;

    story.narrate(
        "with a key",
        &format!(
            "{CLIENTS} clients send one and the same order through {edges} edges, all at once and \
             with one Idempotency-Key. Edges send again what got no answer; so do clients."
        ),
    )?;
    let key = format!("demo-{:032x}", rand::random::<u128>());
    let keyed = order(&stage, Some(key)).await?;
    tell(story, &keyed)?;

    story.narrate(
        "without a key",
        &format!(
            "The same without a key. No edge may send such an order twice, so clients do, who \
             believe that it failed: each of {CLIENTS} wants one order."
        ),
    )?;
    let bare = order(&stage, None).await?;
    tell(story, &bare)?;
    stage.faults(&json!([])).await?;

    let clients = CLIENTS as f64;
    let one = Bound::Exactly(1.0);
    story.count("with a key: orders made", keyed.orders as f64, "", one);
    let answers = keyed.answers.len() as f64;
    story.count("with a key: clients that have an answer", answers, "", Bound::Exactly(clients));
    story.count("with a key: different orders in those", keyed.different() as f64, "", one);
    let lost = keyed.lost() as f64;
    story.count("with a key: answers lost on the way", lost, "", Bound::AtLeast(1.0));
    let more = Bound::AtLeast(clients + 1.0);
    story.count("without a key: orders made, each wanted once", bare.orders as f64, "", more);
    Ok(())
}

fn tell(story: &Story, placed: &Placed) -> Result<(), CommandError> {
    story.show(&format!(
        "  {} answers, {} of them lost before and {} sent again by clients: {} new in the book",
        placed.answers.len(),
        placed.lost(),
        placed.repeats,
        placed.orders,
    ))
}

/// Everybody orders.
async fn order(stage: &Stage, key: Option<String>) -> Result<Placed, CommandError> {
    let before = (stage.pulse().await.attempts, book(stage).await?);
    let mut clients = JoinSet::new();
    for (_, edge) in (0..CLIENTS).zip(stage.cluster.edges.iter().cycle()) {
        let client = Client::new(&edge.url, None)?.within(PATIENCE);
        let key = key.clone();
        clients.spawn(async move { insist(&client, key.as_deref()).await });
    }
    let mut placed = Placed::default();
    while let Some(ended) = clients.join_next().await {
        let ended = ended.map_err(|error| CommandError::Failed(error.to_string()))?;
        let (answer, repeats) = ended?;
        placed.answers.extend(answer);
        placed.repeats += repeats;
    }
    placed.attempts = stage.pulse().await.attempts - before.0;
    placed.orders = book(stage).await? - before.1;
    Ok(placed)
}

/// A client that sends its order until it has an answer; what it got, and how often it sent again.
async fn insist(client: &Client, key: Option<&str>) -> Result<(Option<Value>, u32), ClientError> {
    let wish = json!({ "book": "RFC 9111", "count": 1 });
    for repeats in 0..TRIES {
        let answer = match key {
            Some(key) => {
                let body = Bytes::from(wish.to_string());
                client.post_once::<Value>(ORDERS, body, key).await
            }
            None => client.post::<Value>(ORDERS, &wish).await,
        };
        match answer {
            Ok(answer) => return Ok((Some(answer), repeats)),
            Err(error) if error.may_pass() => sleep(PAUSE.mul_f64(rand::random())).await,
            Err(error) => return Err(error),
        }
    }
    Ok((None, TRIES))
}

/// How many orders there are, as the origin itself says.
async fn book(stage: &Stage) -> Result<u64, CommandError> {
    let none = || CommandError::Usage("this cluster has no origin".to_owned());
    let origin = stage.cluster.origins.first().ok_or_else(none)?;
    let book: Value = Client::new(&origin.url, None)?.get(ORDERS).await?;
    Ok(book.get("count").and_then(Value::as_u64).unwrap_or_default())
}
