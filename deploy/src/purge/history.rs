//! `meridian purge history`: the newest purges, and how far each got.

use std::collections::{BTreeMap, VecDeque};

use meridian_control_wire::purge::{Delivery, PurgeEntry, PurgeHistory, PurgeView};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::cli::purge::HistoryArgs;
use crate::client::{Client, ClientError, query_value};
use crate::error::{CommandError, chain};
use crate::output::{Format, tell, write_result};
use crate::purge::words::listed;
use crate::run::runtime;
use crate::table::Table;
use crate::target::Target;

/// So many purges are asked about at the same time.
const TOGETHER: usize = 16;

/// One purge of the past.
#[derive(Debug, Serialize)]
struct Past {
    #[serde(flatten)]
    purge: PurgeEntry,
    /// How far it got; `null` where that is not known any more.
    edges: Option<Delivery>,
}

/// Asks and shows.
pub(crate) fn history(args: &HistoryArgs) -> Result<(), CommandError> {
    let target = Target::find(&args.target)?;
    let past = runtime(1)?.block_on(gather(&target.control, args.after.as_deref(), args.last))?;
    write_result(&past, Format::of(args.target.json), |past| text(past))
}

async fn gather(
    control: &Client,
    after: Option<&str>,
    last: usize,
) -> Result<Vec<Past>, CommandError> {
    let newest = newest(control, after, last).await?;
    let mut past = Vec::new();
    let mut rest = newest.into_iter().peekable();
    while rest.peek().is_some() {
        past.extend(followed(control, rest.by_ref().take(TOGETHER).collect()).await?);
    }
    Ok(past)
}

/// The newest purges, at most `last`, oldest first: the pages from `after` to the end.
async fn newest(
    control: &Client,
    after: Option<&str>,
    last: usize,
) -> Result<VecDeque<PurgeEntry>, ClientError> {
    let mut newest = VecDeque::new();
    let mut after = after.map(str::to_owned);
    loop {
        let query = after.map(|after| format!("?after={}", query_value(&after)));
        let page: PurgeHistory =
            control.get(&format!("/v1/purges{}", query.unwrap_or_default())).await?;
        newest.extend(page.purges);
        newest.drain(..newest.len().saturating_sub(last));
        match page.next {
            Some(next) => after = Some(next.to_string()),
            None => return Ok(newest),
        }
    }
}

/// The purges with how far they got, in their order.
async fn followed(
    control: &Client,
    purges: Vec<PurgeEntry>,
) -> Result<impl Iterator<Item = Past>, CommandError> {
    let mut asking = JoinSet::new();
    for (at, purge) in purges.into_iter().enumerate() {
        let control = control.clone();
        asking.spawn(async move {
            let view: Result<PurgeView, _> = control.get(&format!("/v1/purges/{}", purge.id)).await;
            (at, purge, view)
        });
    }
    let mut past = BTreeMap::new();
    while let Some(joined) = asking.join_next().await {
        let (at, purge, view) = joined.map_err(|error| CommandError::Failed(error.to_string()))?;
        let edges = match view {
            Ok(view) => Some(view.edges),
            Err(error) => {
                tell(&format!("how far {} got is not known: {}", purge.id, chain(&error)));
                None
            }
        };
        past.insert(at, Past { purge, edges });
    }
    Ok(past.into_values())
}

fn text(past: &[Past]) -> String {
    if past.is_empty() {
        return "nothing was purged".to_owned();
    }
    let mut table = Table::default()
        .words("position")
        .words("id")
        .words("at")
        .words("by")
        .words("kind")
        .words("edges")
        .words("selectors");
    for Past { purge, edges } in past {
        table.row([
            purge.position.to_string(),
            purge.id.clone(),
            purge.at.clone(),
            purge.by.clone(),
            if purge.soft { "soft" } else { "hard" }.to_owned(),
            edges.as_ref().map_or("unknown".to_owned(), reached),
            listed(&purge.selectors),
        ]);
    }
    table.to_string()
}

/// `2 of 3, not iad-1`.
fn reached(edges: &Delivery) -> String {
    let missing: Vec<_> =
        edges.pending.iter().chain(&edges.lapsed).map(ToString::to_string).collect();
    let count = format!("{} of {}", edges.acked, edges.total);
    if missing.is_empty() { count } else { format!("{count}, not {}", missing.join(" ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{gather, text};
    use crate::client::Client;
    use crate::scripted::{Reaction, Scripted, ok};

    fn entry(id: &str) -> Value {
        json!({"id": id, "position": id, "selectors": [{"url": "/a"}], "soft": true,
            "at": "2026-01-01T00:00:00Z", "by": "ops"})
    }

    fn page(ids: &[&str], next: Option<&str>) -> Reaction {
        let purges: Vec<_> = ids.iter().map(|id| entry(id)).collect();
        ok(json!({"purges": purges, "next": next}))
    }

    #[tokio::test]
    async fn pages_are_followed_and_the_newest_are_shown_with_how_far_they_got() {
        let mut view = entry("03");
        view["edges"] = json!({"total": 2, "acked": 1, "pending": ["iad-1"], "lapsed": []});
        view["delivery"] = json!([]);
        let gone = Reaction::Answer(404, "", json!({"code": "not_found", "detail": "gone"}));
        let reactions =
            [page(&["01", "02"], Some("02")), page(&["03"], None), ok(view), gone.clone()];
        let control = Scripted::start(reactions).await;
        let client = Client::new(control.url(), None).unwrap();
        let past = gather(&client, Some("00"), 2).await.unwrap();
        let ids: Vec<_> = past.iter().map(|past| past.purge.id.as_str()).collect();
        assert_eq!(ids, ["02", "03"], "oldest first");
        let told = text(&past);
        assert!(told.contains("soft") && told.contains("url:/a"), "{told}");
        assert!(told.contains("1 of 2, not iad-1") && told.contains("unknown"), "{told}");
        let asked = control.asked();
        let targets: Vec<_> = asked.iter().filter_map(|text| text.split(' ').nth(1)).collect();
        assert_eq!(targets[..2], ["/v1/purges?after=00", "/v1/purges?after=02"]);
        assert_eq!(targets.len(), 4, "{targets:?}");
    }

    #[tokio::test]
    async fn an_empty_history_is_said_in_words() {
        let control = Scripted::start([page(&[], None)]).await;
        let client = Client::new(control.url(), None).unwrap();
        assert_eq!(text(&gather(&client, None, 20).await.unwrap()), "nothing was purged");
    }
}
