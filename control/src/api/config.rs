//! `/v1/config/{key}`: registers, with revisions. `site/<name>` is obeyed by the edges.

use http::header::ETAG;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use meridian_config::edge::site_value::site_from_json;
use meridian_config::shared::Scope;
use meridian_control_wire::cursor::Position;
use meridian_control_wire::problem::{Broken, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::answer::{Answer, Refusal, empty, json};
use crate::api::conditions::condition;
use crate::api::input::body_of;
use crate::api::levels::denied;
use crate::context::Context;
use crate::order::{Change, Revision};

/// The longest key, in bytes.
const MAX_KEY: usize = 255;

/// What a PUT brings. `null` is a value like any other.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    #[serde(deserialize_with = "Value::deserialize")]
    value: Value,
}

#[derive(Debug, Serialize)]
struct RegisterView<'r> {
    key: &'r str,
    value: &'r Option<Value>,
    position: Position,
}

/// `GET /v1/config/{key}`.
pub(super) async fn read(context: &Context, key: &str) -> Result<Answer, Refusal> {
    check_key(key)?;
    let found = context.store.register(key).await.map_err(denied)?;
    let none = || Refusal::new(ErrorCode::NotFound, format!("there is no register {key}"));
    Ok(view(key, &*found.ok_or_else(none)?))
}

/// `PUT /v1/config/{key}`.
pub(super) async fn put(
    context: &Context,
    key: &str,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let by = context.tokens.authorize(request.headers(), Scope::Config)?.to_owned();
    check_key(key)?;
    let condition = condition(request.headers())?;
    let Put { value } = body_of(context, request).await?;
    check_value(context, key, &value)?;
    let change = Change { key: key.to_owned(), value: Some(value), condition, by: by.clone() };
    let revision = context.store.change(change).await.map_err(denied)?;
    tracing::info!(token = by, key, revision = revision.seq, "register set");
    Ok(view(key, &revision))
}

/// `DELETE /v1/config/{key}`.
pub(super) async fn delete(
    context: &Context,
    key: &str,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    let by = context.tokens.authorize(headers, Scope::Config)?.to_owned();
    check_key(key)?;
    let condition = condition(headers)?;
    let change = Change { key: key.to_owned(), value: None, condition, by: by.clone() };
    let revision = context.store.change(change).await.map_err(denied)?;
    tracing::info!(token = by, key, revision = revision.seq, "register removed");
    Ok(empty(StatusCode::NO_CONTENT))
}

fn view(key: &str, revision: &Revision) -> Answer {
    let position = Position::of(revision.seq);
    let mut answer = json(StatusCode::OK, &RegisterView { key, value: &revision.value, position });
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", revision.seq)) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}

/// Names with slashes between them; no name that a path could mean something else by.
fn check_key(key: &str) -> Result<(), Refusal> {
    let is_name = |name: &str| {
        !matches!(name, "" | "." | "..")
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    if key.len() <= MAX_KEY && key.split('/').all(is_name) {
        return Ok(());
    }
    let rule = "a key is names of letters, digits, '-', '.' and '_' with '/' between them, at most \
                255 bytes";
    Err(Refusal::new(ErrorCode::BadRequest, rule))
}

fn check_value(context: &Context, key: &str, value: &Value) -> Result<(), Refusal> {
    let most = context.config.journal.register_size;
    if value.to_string().len() > most.to_usize() {
        let detail = format!("the value is larger than journal.register_size = {most}");
        return Err(Refusal::new(ErrorCode::TooLarge, detail));
    }
    let Some(name) = key.strip_prefix("site/") else { return Ok(()) };
    let Err(found) = site_from_json(name, value) else { return Ok(()) };
    let violations: Vec<Broken> = found
        .into_iter()
        .map(|one| Broken { key: one.key, value: one.value, rule: one.rule })
        .collect();
    let detail = format!("{key} is no site that an edge would take: see violations");
    Err(Refusal::new(ErrorCode::InvalidValue, detail).because(violations))
}
