//! `/v1/edges` and `/v1/edge/{id}/...`: edges register, beat, follow, leave; what one would do.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use meridian_config::shared::Scope;
use meridian_config::units::{Address, NodeName};
use meridian_control_wire::cursor::Cursor;
use meridian_control_wire::frame::ByeReason;
use meridian_control_wire::operation::{Ack, Pong};
use meridian_control_wire::problem::{ErrorCode, PROBLEM_JSON};
use meridian_control_wire::secret::Secret;
use meridian_control_wire::{Edges, MAX_BEAT, Ping, Registered, Registration};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::answer::{Answer, Refusal, bytes_of, empty, json};
use crate::api::input::{body_of, parameter};
use crate::api::levels::denied;
use crate::auth::{Fingerprint, bearer};
use crate::context::Context;
use crate::control_store::ReadLevel;
use crate::dial::Link;
use crate::register::{DeadBeat, millis};
use crate::server::Busy;
use crate::world;

/// `GET /v1/edges`.
pub(super) fn list(context: &Context) -> Answer {
    let edges = context.ledger.register().edges(world::now());
    json(StatusCode::OK, &Edges { edges })
}

/// `POST /v1/edges`: 201 for a new name, 200 for a known one, whose secret is void from now on.
pub(super) async fn register(
    context: &Context,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let token = context.tokens.authorize(request.headers(), Scope::Edge)?.to_owned();
    let registration: Registration = body_of(context, request).await?;
    let secret = new_secret()?;
    let (id, region) = (registration.name.clone(), registration.region.clone());
    let url = registration.url.clone();
    let fingerprint = Fingerprint::of(secret.expose());
    let enrolled = context.ledger.enrol(&*context.store, registration, fingerprint);
    let known = enrolled.await.map_err(denied)?;
    context.hub.forget(id.as_str(), ByeReason::Replaced); // it starts empty, and says so anew
    context.metrics.registrations.inc();
    tracing::info!(token, edge = %id, %region, %url, known, "edge registered");
    let status = if known { StatusCode::OK } else { StatusCode::CREATED };
    Ok(json(status, &Registered { id, secret, beat_ms: beat_ms(context) }))
}

/// Four beats in a lapse: three may be lost before an edge counts as gone.
fn beat_ms(context: &Context) -> u64 {
    millis(context.config.health.edge_lapse.get() / 4).clamp(1, millis(MAX_BEAT))
}

fn new_secret() -> Result<Secret, Refusal> {
    let text: String = world::random_key().iter().map(|byte| format!("{byte:02x}")).collect();
    Secret::new(text).map_err(|rule| Refusal::new(ErrorCode::Internal, rule))
}

/// `POST /v1/edge/{id}/ping`.
pub(super) async fn ping(
    context: &Context,
    id: &str,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let secret = bearer(request.headers())?.to_owned();
    let ping: Ping = body_of(context, request).await?;
    // After the ping came, before its answer: what was acknowledged to anybody until now.
    let barrier = context.store.barrier(ReadLevel::Linearizable).await.map_err(denied)?.seq;
    let (cursor, asks, named) = (ping.cursor.clone(), ping.fail_closed, ping.lease_by);
    let beaten = context.ledger.register().beat(id, &secret, ping, world::now());
    let is_new = beaten.map_err(unheard)?;
    let counter = if is_new { &context.metrics.beats } else { &context.metrics.late_beats };
    counter.inc();
    let mut lease = None;
    if let (true, Ok(edge)) = (is_new, id.parse()) {
        if let Some(cursor) = cursor {
            // One of another history says nothing: its stream will tell it.
            context.hub.acked(&edge, &cursor).await.map_err(denied)?;
        }
        lease = context.hub.grant(&edge, asks, named);
    }
    Ok(json(StatusCode::OK, &Pong { cursor: context.store.cursor(barrier), lease }))
}

/// Why an edge is not listened to.
fn unheard(dead: DeadBeat) -> Refusal {
    match dead {
        DeadBeat::UnknownEdge => {
            let detail = "no edge of this name is registered here: it has to register again";
            Refusal::new(ErrorCode::UnknownEdge, detail)
        }
        DeadBeat::WrongSecret => {
            let detail = "this is not the secret of the latest registration under this name";
            Refusal::new(ErrorCode::Forbidden, detail)
        }
    }
}

/// The edge `id`, if `headers` show its own secret. A replica that lags asks before it says no:
/// an edge that it does not know yet would register again, and start empty.
async fn authentic(context: &Context, id: &str, headers: &HeaderMap) -> Result<NodeName, Refusal> {
    if let Ok(edge) = known(context, id, headers) {
        return Ok(edge);
    }
    context.store.barrier(ReadLevel::Linearizable).await.map_err(denied)?;
    known(context, id, headers)
}

fn known(context: &Context, id: &str, headers: &HeaderMap) -> Result<NodeName, Refusal> {
    let secret = bearer(headers)?;
    let register = context.ledger.register();
    let member = register.member(id).ok_or_else(|| unheard(DeadBeat::UnknownEdge))?;
    if member.secret.fits(secret) {
        Ok(member.registration.name.clone())
    } else {
        Err(unheard(DeadBeat::WrongSecret))
    }
}

/// `GET /v1/edge/{id}/stream`: frames without end, from where `Last-Event-ID` says.
pub(super) async fn stream(
    context: &Context,
    id: &str,
    request: &Request<Incoming>,
) -> Result<Answer, Refusal> {
    let edge = authentic(context, id, request.headers()).await?;
    let cursor = match request.headers().get("last-event-id") {
        None => None,
        Some(value) => {
            let cursor = value.to_str().ok().and_then(|text| text.parse::<Cursor>().ok());
            Some(cursor.ok_or_else(|| bad_cursor("Last-Event-ID is no cursor"))?)
        }
    };
    let busy = request.extensions().get::<Busy>().cloned().ok_or_else(|| {
        Refusal::new(ErrorCode::Internal, "the connection does not say that it is busy")
    })?;
    let start = context.hub.start(cursor).await.map_err(denied)?;
    let mut answer = Response::new(context.hub.open(edge, start, busy));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// `POST /v1/edge/{id}/ack`.
pub(super) async fn ack(
    context: &Context,
    id: &str,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let edge = authentic(context, id, request.headers()).await?;
    let ack: Ack = body_of(context, request).await?;
    if !context.hub.acked(&edge, &ack.cursor).await.map_err(denied)? {
        return Err(bad_cursor("the cursor is not of this history: nothing is acknowledged"));
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

fn bad_cursor(detail: &str) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, detail)
}

/// `DELETE /v1/edges/{id}`. An edge that lives registers again at its next beat: stop it first.
pub(super) async fn strike(
    context: &Context,
    id: &str,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    let token = context.tokens.authorize(headers, Scope::Operate)?;
    let name: NodeName = id.parse().map_err(|_rule: String| unknown(id))?;
    let struck = context
        .ledger
        .strike(&*context.store, name)
        .await
        .map_err(denied)?
        .ok_or_else(|| unknown(id))?;
    context.hub.forget(struck.name.as_str(), ByeReason::Unregistered);
    tracing::info!(token, edge = %struck.name, region = %struck.region, "edge removed");
    Ok(empty(StatusCode::NO_CONTENT))
}

fn unknown(id: &str) -> Refusal {
    Refusal::new(ErrorCode::NotFound, format!("no edge {id} is registered"))
}

/// `GET /v1/edges/{id}/explain?url=U[&header=N:V...]`: what that edge says of `U`.
///
/// Asked at the address that `[peers]` has for its name, else at the one that it registered with.
pub(super) async fn explain(
    context: &Context,
    id: &str,
    query: Option<&str>,
) -> Result<Answer, Refusal> {
    let url = parameter(query, "url").ok_or_else(|| {
        Refusal::new(ErrorCode::BadRequest, "the parameter url is missing: ?url=U")
    })??;
    let registration = {
        let register = context.ledger.register();
        register.member(id).ok_or_else(|| unknown(id))?.registration.clone()
    };
    let address = match context.config.peers.get(id) {
        Some(address) => address.clone(),
        None => registered_address(&registration)?,
    };
    let mut target = format!("/v1/explain?url={}", utf8_percent_encode(&url, NON_ALPHANUMERIC));
    // Fields of the request that is explained, as they were written: the edge reads them.
    let pairs = query.unwrap_or_default().split('&');
    for field in pairs.filter(|pair| pair.starts_with("header=")) {
        target.push('&');
        target.push_str(field);
    }
    let limits = &context.config.limits;
    // Less than the whole call may take, so that it is this that is told.
    let patience = limits.call_timeout.get().mul_f64(0.8);
    let asked = async {
        let mut link = Link::to(&address).await?;
        link.get(&target, limits.body_size.to_usize()).await
    };
    match tokio::time::timeout(patience, asked).await {
        Ok(Ok(answer)) => passed_on(id, answer),
        Ok(Err(error)) => {
            tracing::warn!(edge = id, %error, "an edge gave no explanation");
            let code = if error.is_too_large() {
                ErrorCode::UpstreamBadAnswer
            } else {
                ErrorCode::UpstreamUnreachable
            };
            Err(Refusal::new(code, format!("edge {id} gave no usable answer at its admin address")))
        }
        Err(_elapsed) => {
            let detail = format!("edge {id} did not answer within {patience:?}");
            Err(Refusal::new(ErrorCode::UpstreamTimeout, detail))
        }
    }
}

fn registered_address(registration: &Registration) -> Result<Address, Refusal> {
    let admin = &registration.admin;
    let with_port = if admin.port().is_some() {
        admin.authority().to_owned()
    } else {
        format!("{}:80", admin.authority())
    };
    with_port.parse().ok().filter(|_| !admin.is_https()).ok_or_else(|| {
        let detail = format!("{admin}: only http is offered towards an edge's admin listener");
        Refusal::new(ErrorCode::NotOffered, detail)
    })
}

/// What an edge said, as far as it is JSON: nothing else comes from its admin listener.
fn passed_on(id: &str, answer: Response<bytes::Bytes>) -> Result<Answer, Refusal> {
    let kind = answer.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let media_type = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let kind = if media_type.eq_ignore_ascii_case(b"application/json") {
        HeaderValue::from_static("application/json")
    } else if media_type.eq_ignore_ascii_case(PROBLEM_JSON.as_bytes()) {
        HeaderValue::from_static(PROBLEM_JSON)
    } else {
        let detail = format!("edge {id} answered {} without JSON", answer.status());
        return Err(Refusal::new(ErrorCode::UpstreamBadAnswer, detail));
    };
    Ok(bytes_of(answer.status(), kind, answer.into_body()))
}
