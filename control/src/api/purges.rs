//! `/v1/purges`: ordered, told to the edges, and how far each of them is.

use std::time::{Duration, Instant, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use meridian_config::shared::Scope;
use meridian_config::units::HumanDuration;
use meridian_control_wire::cursor::Position;
use meridian_control_wire::problem::ErrorCode;
use meridian_control_wire::purge::{PurgeEntry, PurgeHistory, PurgeOrder, PurgeReceipt, PurgeView};
use sha2::{Digest, Sha256};

use crate::answer::{Answer, Refusal, json};
use crate::api::conditions::repeat_key;
use crate::api::input::{body_of, parameter};
use crate::api::levels::denied;
use crate::context::Context;
use crate::control_store::{Denied, Entry, What};
use crate::delivery::Level;
use crate::machine::draft::seq_of;
use crate::order::{Accepted, PurgeRequest, RepeatKey};
use crate::world;

/// Purges of one page of the history.
const PAGE: usize = 1_000;

/// How long a purge waits for edges if it does not say.
const DEFAULT_WAIT: Duration = Duration::from_secs(2);

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// By how much an order may take longer than another call, because it waits for edges.
pub(super) fn wait_of(context: &Context, request: &Request<Incoming>) -> Duration {
    let wait = wait(context, request.uri().query());
    wait.map_or(Duration::ZERO, |(level, wait)| match level {
        Level::None => Duration::ZERO,
        Level::Quorum | Level::Region(_) | Level::Effective => wait,
    })
}

/// What `?ack=` and `?timeout=` ask for.
fn wait(context: &Context, query: Option<&str>) -> Result<(Level, Duration), Refusal> {
    let bad = |detail: String| Refusal::new(ErrorCode::BadRequest, detail);
    let level = match parameter(query, "ack").transpose()?.as_deref() {
        None | Some("none") => Level::None,
        Some("quorum") => Level::Quorum,
        Some("effective") => Level::Effective,
        Some(other) => match other.strip_prefix("region:").map(str::parse) {
            Some(Ok(region)) => Level::Region(region),
            Some(Err(rule)) => return Err(bad(format!("ack={other}: the region {rule}"))),
            None => {
                let rule = "must be none, quorum, region:R or effective";
                return Err(bad(format!("ack={other}: {rule}")));
            }
        },
    };
    let wait = match parameter(query, "timeout").transpose()? {
        None => DEFAULT_WAIT.min(context.config.stream.max_wait.get()),
        Some(text) => {
            let wait: HumanDuration =
                text.parse().map_err(|rule| bad(format!("timeout={text}: {rule}")))?;
            let most = context.config.stream.max_wait;
            if wait > most {
                let rule = format!("must be at most stream.max_wait = {most}");
                return Err(bad(format!("timeout={text}: {rule}")));
            }
            wait.get()
        }
    };
    Ok((level, wait))
}

/// `POST /v1/purges`: durable when it is answered, and as far as `?ack=` asks for unless that takes
/// too long: `edges` says which.
pub(super) async fn order(
    context: &Context,
    request: Request<Incoming>,
    begun: Instant,
) -> Result<Answer, Refusal> {
    let by = context.tokens.authorize(request.headers(), Scope::Purge)?.to_owned();
    let (level, patience) = wait(context, request.uri().query())?;
    if let Level::Region(region) = &level
        && !context.ledger.register().members().iter().any(|(_, home)| home == region)
    {
        let detail = format!("ack=region:{region}: no edge of that region is registered");
        return Err(Refusal::new(ErrorCode::BadRequest, detail));
    }
    let key = repeat_key(request.headers())?;
    let order: PurgeOrder = body_of(context, request).await?;
    let key = key.map(|key| RepeatKey { key, fingerprint: fingerprint(&order) });
    let (selectors, soft) = (order.selectors.len(), order.soft);
    let purge = PurgeRequest { order, by: by.clone(), key };
    let Accepted { id, seq, replayed } = context.store.purge(purge).await.map_err(denied)?;
    if replayed {
        context.metrics.replays.inc();
    } else {
        context.metrics.purges.inc();
        context.hub.progress().track(seq, begun, world::now());
    }
    tracing::info!(token = by, purge = id, selectors, soft, replayed, "purge accepted");
    let members = || context.ledger.register().members();
    context.hub.reached(&level, seq, members, patience).await;
    let edges = context.hub.delivery(seq, &members());
    let receipt = PurgeReceipt { id, position: Position::of(seq), replayed, edges };
    let mut answer = json(StatusCode::ACCEPTED, &receipt);
    if replayed {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// The hash of what an order means, however it was written.
fn fingerprint(order: &PurgeOrder) -> [u8; 32] {
    Sha256::digest(serde_json::to_vec(order).unwrap_or_default()).into()
}

/// `GET /v1/purges/{id}`.
pub(super) async fn one(context: &Context, id: &str) -> Result<Answer, Refusal> {
    let none = || {
        let detail = format!("no purge {id} is in the history");
        Refusal::new(ErrorCode::NotFound, detail)
    };
    let seq = seq_of(id).and_then(|seq| seq.checked_sub(1)).ok_or_else(none)?;
    let entries = match context.store.entries(seq, 1).await {
        Err(Denied::Compacted { .. }) => return Err(none()),
        entries => entries.map_err(denied)?,
    };
    let (seq, purge) = entries
        .into_iter()
        .find_map(|entry| Some((entry.seq, purge_of(entry)?)))
        .filter(|(_, purge)| purge.id == id)
        .ok_or_else(none)?;
    let members = context.ledger.register().members();
    let edges = context.hub.delivery(seq, &members);
    let delivery = context.hub.progress().by_edge(seq, &members);
    Ok(json(StatusCode::OK, &PurgeView { purge, edges, delivery }))
}

/// `GET /v1/purges?after=POSITION`.
pub(super) async fn history(context: &Context, query: Option<&str>) -> Result<Answer, Refusal> {
    let after = match parameter(query, "after").transpose()? {
        None => context.store.state().low_water,
        Some(text) => {
            let position: Option<Position> = text.parse().ok();
            position.and_then(|position| position.seq()).ok_or_else(|| {
                Refusal::new(ErrorCode::BadRequest, "after must be a position from this history")
            })?
        }
    };
    let mut purges: Vec<PurgeEntry> = Vec::new();
    let mut at = after;
    while purges.len() <= PAGE {
        let entries = context.store.entries(at, PAGE + 1).await.map_err(denied)?;
        let Some(last) = entries.last() else { break };
        at = last.seq;
        purges.extend(entries.into_iter().filter_map(purge_of));
    }
    let more = purges.len() > PAGE;
    purges.truncate(PAGE);
    let next = purges.last().map(|purge| purge.position.clone()).filter(|_| more);
    Ok(json(StatusCode::OK, &PurgeHistory { purges, next }))
}

fn purge_of(entry: Entry) -> Option<PurgeEntry> {
    let What::Purge(operation) = entry.row.what else { return None };
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(operation.at_ms));
    let at = humantime::format_rfc3339_millis(at.unwrap_or(UNIX_EPOCH)).to_string();
    Some(PurgeEntry {
        id: operation.id,
        position: Position::of(entry.seq),
        selectors: operation.selectors,
        soft: operation.soft,
        at,
        by: entry.row.by,
    })
}
