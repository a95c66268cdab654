//! `meridian purge`: one order, sent until it is answered, and how far it got.
//!
//! # Invariants
//! - Whatever is sent again bears the same `Idempotency-Key`: it is one purge.
//! - The command ends soon after its timeout, whoever does not answer.
//! - It succeeds if and only if the edges that it waits for have applied the purge.

mod history;
mod words;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use meridian_config::units::NodeName;
use meridian_control_wire::purge::{
    Delivery, DeliveryState, EdgeDelivery, PurgeOrder, PurgeReceipt, PurgeView,
};
use meridian_control_wire::selector::{Selector, check_batch};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::cli::purge::{PurgeArgs, PurgeCommand, PurgeOrderArgs, Wait};
use crate::client::{Client, ClientError};
use crate::error::{CommandError, chain};
use crate::output::{Format, write_result};
use crate::purge::history::history;
use crate::purge::words::listed;
use crate::run::runtime;
use crate::table::Table;
use crate::target::Target;

/// How long the control plane may hold an answer back until edges have acknowledged. Longer waits
/// are asked for piece by piece, so that there is something to tell meanwhile.
const HOLD: Duration = Duration::from_millis(250);

/// What an answer may take beyond the time that it is held back.
const GRACE: Duration = Duration::from_secs(1);

/// Before the first repetition; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// Before any repetition.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// How often is asked how far a purge got.
const LOOK: Duration = Duration::from_millis(50);

/// Purges, or shows what was purged.
pub(crate) fn purge(args: &PurgeArgs) -> Result<(), CommandError> {
    match &args.command {
        Some(PurgeCommand::History(args)) => history(args),
        None => order(&args.order),
    }
}

fn order(args: &PurgeOrderArgs) -> Result<(), CommandError> {
    let order = PurgeOrder { selectors: selectors(args)?, soft: args.soft };
    let target = Target::find(&args.target)?;
    let outcome = runtime(1)?.block_on(async {
        let names = match &args.wait {
            Wait::Region(region) => {
                let edges = target.edges_in(Some(region.as_str())).await?;
                edges.into_iter().map(|edge| edge.name).collect()
            }
            Wait::None | Wait::Quorum | Wait::Effective => BTreeSet::new(),
        };
        let sent = Sent {
            control: &target.control,
            order: &order,
            key: args.idempotency_key.clone().unwrap_or_else(random_key),
            goal: Goal { wait: args.wait.clone(), region: names },
            deadline: Instant::now() + args.timeout.get(),
        };
        sent.outcome().await
    })?;
    write_result(&outcome, Format::of(args.target.json), |outcome| text(&order, outcome))?;
    judge(&outcome, &args.timeout.to_string())
}

/// What the command line selects, checked as the control plane would.
fn selectors(args: &PurgeOrderArgs) -> Result<Vec<Selector>, CommandError> {
    let all = args.all.then_some(Ok(Selector::All));
    let urls = args.urls.iter().cloned().map(Selector::url);
    let prefixes = args.prefixes.iter().map(|prefix| Selector::prefix(prefix));
    let tags = args.tags.iter().cloned().map(Selector::tag);
    let hosts = args.hosts.iter().cloned().map(Selector::host);
    let selectors: Result<Vec<_>, _> =
        all.into_iter().chain(urls).chain(prefixes).chain(tags).chain(hosts).collect();
    let selectors = selectors.map_err(CommandError::Usage)?;
    check_batch(&selectors).map_err(CommandError::Usage)?;
    Ok(selectors)
}

fn random_key() -> String {
    format!("meridian-{:032x}", rand::random::<u128>())
}

/// Which edges must have applied a purge.
#[derive(Debug)]
struct Goal {
    wait: Wait,
    /// The edges of the region that is waited for.
    region: BTreeSet<String>,
}

impl Goal {
    /// Who is waited for still; nobody: the goal is reached.
    fn missing(&self, edges: &Delivery) -> Vec<String> {
        let late = || edges.pending.iter().map(ToString::to_string);
        // An edge whose lease has run out serves nothing of it, but has not applied it either.
        let unapplied = || late().chain(edges.lapsed.iter().map(ToString::to_string));
        match self.wait {
            Wait::None => Vec::new(),
            Wait::Quorum if edges.acked * 2 > edges.total => Vec::new(),
            Wait::Quorum => unapplied().collect(),
            Wait::Region(_) => unapplied().filter(|name| self.region.contains(name)).collect(),
            Wait::Effective => late().collect(),
        }
    }
}

/// What came of an order.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    receipt: PurgeReceipt,
    /// Each edge, where the control plane could be asked.
    delivery: Vec<EdgeDelivery>,
    idempotency_key: String,
    wait: String,
    /// Those that the command waited for in vain.
    missing: Vec<String>,
}

/// An order on its way.
struct Sent<'a> {
    control: &'a Client,
    order: &'a PurgeOrder,
    key: String,
    goal: Goal,
    deadline: Instant,
}

impl Sent<'_> {
    async fn outcome(&self) -> Result<Outcome, CommandError> {
        let mut receipt = self.accepted().await?;
        let bar = bar(receipt.edges.total);
        let mut delivery = Vec::new();
        loop {
            bar.set_position(u64::try_from(receipt.edges.acked).unwrap_or(u64::MAX));
            // What is not told now may be told when it is asked for again.
            if let Ok(view) = self.view(&receipt.id).await {
                receipt.edges = view.edges;
                delivery = view.delivery;
            }
            let missing = self.goal.missing(&receipt.edges);
            if missing.is_empty() || self.left() < LOOK {
                bar.finish_and_clear();
                return Ok(Outcome {
                    receipt,
                    delivery,
                    idempotency_key: self.key.clone(),
                    wait: self.goal.wait.to_string(),
                    missing,
                });
            }
            sleep(LOOK).await;
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Sends the order until it is accepted or refused.
    async fn accepted(&self) -> Result<PurgeReceipt, CommandError> {
        let body = serde_json::to_vec(self.order)
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        let body = Bytes::from(body);
        let mut pause = FIRST_PAUSE;
        let mut unsure = false;
        loop {
            let hold = self.left().clamp(Duration::from_millis(1), HOLD);
            let target =
                format!("/v1/purges?ack={}&timeout={}ms", self.goal.wait, hold.as_millis());
            let control = self.control.clone().within(hold + GRACE);
            let error = match control.post_once(&target, body.clone(), &self.key).await {
                Ok(receipt) => return Ok(receipt),
                Err(error) => error,
            };
            unsure |= error.may_have_happened();
            if !error.may_pass() || self.left() < pause {
                return Err(if unsure { self.unknown(&error) } else { error.into() });
            }
            sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The order may have been obeyed or not.
    fn unknown(&self, error: &ClientError) -> CommandError {
        CommandError::Failed(format!(
            "it is unknown whether this was purged: {}; the same command with --idempotency-key \
             {} purges it, and not twice",
            chain(error),
            self.key
        ))
    }

    async fn view(&self, id: &str) -> Result<PurgeView, ClientError> {
        self.control.clone().within(GRACE).get(&format!("/v1/purges/{id}")).await
    }
}

/// A bar on standard error; nothing if that is no terminal.
fn bar(edges: usize) -> ProgressBar {
    let length = u64::try_from(edges).unwrap_or(u64::MAX);
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len} edges") {
        bar.set_style(style);
    }
    bar
}

fn text(order: &PurgeOrder, outcome: &Outcome) -> String {
    let receipt = &outcome.receipt;
    let verb = if order.soft { "softly purged" } else { "purged" };
    let replayed = if receipt.replayed { " (ordered before: not done again)" } else { "" };
    let mut table = Table::default().words("state").numbers("edges").words("names");
    let edges = &receipt.edges;
    table.row(["acked".to_owned(), edges.acked.to_string(), acked(&outcome.delivery)]);
    for (state, names) in [("pending", &edges.pending), ("lapsed", &edges.lapsed)] {
        table.row([state.to_owned(), names.len().to_string(), joined(names)]);
    }
    format!(
        "{verb} {}{replayed}\nid {}, position {}\n\n{table}",
        listed(&order.selectors),
        receipt.id,
        receipt.position
    )
}

fn joined(names: &[NodeName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The edges that have applied it, each with how long that took.
fn acked(delivery: &[EdgeDelivery]) -> String {
    let acked = delivery.iter().filter(|edge| edge.state == DeliveryState::Acked);
    let told = acked.map(|edge| match edge.latency_ms {
        Some(latency) => format!("{} ({latency:.1} ms)", edge.edge),
        None => edge.edge.to_string(),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// An acknowledgement that was wished for and did not come is a failure, although the purge stands.
fn judge(outcome: &Outcome, timeout: &str) -> Result<(), CommandError> {
    if outcome.missing.is_empty() {
        return Ok(());
    }
    Err(CommandError::Failed(format!(
        "the purge is durable, but `--wait {}` was not reached within {timeout}: it has not been \
         applied by {}",
        outcome.wait,
        outcome.missing.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use meridian_control_wire::purge::{Delivery, PurgeOrder};
    use meridian_control_wire::selector::Selector;
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::{Goal, Outcome, Sent, judge, text};
    use crate::client::Client;
    use crate::error::CommandError;
    use crate::scripted::{Reaction, Scripted, ok};

    fn goal(wait: &str) -> Goal {
        let region = ["fra-1".to_owned(), "fra-2".to_owned()].into();
        Goal { wait: wait.parse().unwrap(), region }
    }

    fn edges(acked: usize, pending: &[&str], lapsed: &[&str]) -> Value {
        let total = acked + pending.len() + lapsed.len();
        json!({"total": total, "acked": acked, "pending": pending, "lapsed": lapsed})
    }

    fn receipt(edges: &Value) -> Reaction {
        let body = json!({"id": "p1", "position": "01", "replayed": false, "edges": edges});
        Reaction::Answer(202, "", body)
    }

    fn view(edges: &Value) -> Reaction {
        ok(json!({
            "id": "p1", "position": "01", "selectors": [{"tag": "a"}], "soft": false,
            "at": "2026-01-01T00:00:00Z", "by": "test", "edges": edges,
            "delivery": [{"edge": "fra-1", "state": "acked", "latency_ms": 3.25}]
        }))
    }

    fn refused(status: u16, code: &str) -> Reaction {
        Reaction::Answer(status, "", json!({"code": code, "detail": "the scripted reason"}))
    }

    fn tag() -> PurgeOrder {
        PurgeOrder { selectors: vec![Selector::Tag("a".to_owned())], soft: false }
    }

    async fn send(
        control: &Scripted,
        wait: &str,
        timeout: Duration,
    ) -> Result<Outcome, CommandError> {
        let sent = Sent {
            control: &Client::new(control.url(), Some("the-token".to_owned())).unwrap(),
            order: &tag(),
            key: "the-key".to_owned(),
            goal: goal(wait),
            deadline: Instant::now() + timeout,
        };
        sent.outcome().await
    }

    #[test]
    fn each_wish_misses_whom_it_waits_for() {
        let rows = [
            ("none", edges(0, &["fra-1", "iad-1"], &[]), vec![]),
            ("quorum", edges(2, &["iad-1"], &[]), vec![]),
            ("quorum", edges(1, &["iad-1"], &[]), vec!["iad-1"]), // half is no majority
            ("quorum", edges(1, &[], &["iad-1"]), vec!["iad-1"]),
            ("quorum", edges(0, &[], &[]), vec![]),
            ("region:fra", edges(1, &["iad-1"], &[]), vec![]),
            ("region:fra", edges(0, &["fra-2", "iad-1"], &[]), vec!["fra-2"]),
            ("effective", edges(2, &["iad-1"], &[]), vec!["iad-1"]),
            ("effective", edges(2, &[], &["iad-1"]), vec![]),
        ];
        for (wait, edges, want) in rows {
            let delivery: Delivery = serde_json::from_value(edges.clone()).unwrap();
            assert_eq!(goal(wait).missing(&delivery), want, "{wait}, {edges}");
        }
    }

    #[tokio::test]
    async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
        let all = edges(1, &[], &[]);
        let reactions =
            [Reaction::Lost, refused(504, "outcome_unknown"), receipt(&all), view(&all)];
        let control = Scripted::start(reactions).await;
        let outcome = send(&control, "effective", Duration::from_secs(10)).await.unwrap();
        assert!(outcome.missing.is_empty() && outcome.receipt.id == "p1");
        let asked = control.asked();
        let posts: Vec<_> = asked.iter().filter(|text| text.starts_with("POST")).collect();
        assert_eq!(posts.len(), 3, "{asked:?}");
        for post in posts {
            assert!(post.starts_with("POST /v1/purges?ack=effective&timeout=250ms "), "{post}");
            for part in [
                "idempotency-key: the-key\r\n",
                "authorization: Bearer the-token\r\n",
                r#"{"selectors":[{"tag":"a"}],"soft":false}"#,
            ] {
                assert!(post.contains(part), "{part} is not in {post}");
            }
        }
    }

    #[tokio::test]
    async fn what_stays_unknown_is_told_with_the_key() {
        let control = Scripted::start([Reaction::Lost]).await;
        let error = send(&control, "none", Duration::from_millis(200)).await.unwrap_err();
        assert!(error.to_string().contains("--idempotency-key the-key"), "{error}");
        assert!(control.asked().len() > 1, "it was not tried again");
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_happened_not() {
        for (status, code) in [(403, "forbidden"), (422, "idempotency_mismatch")] {
            let control = Scripted::start([refused(status, code)]).await;
            let error = send(&control, "none", Duration::from_secs(10)).await.unwrap_err();
            assert!(matches!(error, CommandError::Client(_)), "{error}");
            assert!(error.to_string().contains("the scripted reason"), "{error}");
            assert_eq!(control.asked().len(), 1);
        }
    }

    #[tokio::test]
    async fn edges_are_waited_for_until_they_have_applied_it() {
        let (one, all) = (edges(1, &["iad-1"], &[]), edges(2, &[], &[]));
        let reactions = [receipt(&one), view(&one), refused(503, "overloaded"), view(&all)];
        let control = Scripted::start(reactions).await;
        let outcome = send(&control, "effective", Duration::from_secs(10)).await.unwrap();
        assert!(judge(&outcome, "10s").is_ok());
        assert_eq!(control.asked().len(), 4, "{:?}", control.asked());
    }

    #[tokio::test]
    async fn who_has_not_applied_it_in_time_is_named_and_the_command_fails() {
        let one = edges(1, &["iad-1"], &[]);
        let control = Scripted::start([receipt(&one), view(&one)]).await;
        let outcome = send(&control, "effective", Duration::from_millis(150)).await.unwrap();
        let error = judge(&outcome, "150ms").unwrap_err();
        assert!(error.to_string().contains("iad-1"), "{error}");
        assert_eq!(error.exit_code(), 1.into());
        let told = text(&tag(), &outcome);
        assert!(told.contains("purged tag:a\nid p1, position 01\n"), "{told}");
        assert!(told.contains("acked        1  fra-1 (3.2 ms)\n"), "{told}");
        assert!(told.contains("pending      1  iad-1\n"), "{told}");
    }
}
