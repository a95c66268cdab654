//! Requests that the leader answers, asked of another replica: passed on as they are.
//!
//! # Invariants
//! - A request is passed on once: whoever gets one that was passed on answers it itself.
//! - What changes something is sent only to a leader that was just heard, and only once unless it
//!   is certain that it was not taken. What was sent and not answered is unknown.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use meridian_config::units::NodeName;

use crate::answer::{Answer, Body, Refusal};
use crate::api::input::whole_body;
use crate::api::levels::{NOT_LEADER, denied};
use crate::context::Context;
use crate::control_store::{Denied, Lead};
use crate::peers::CallError;
use crate::world;

/// Who passed a request on.
pub(super) const FORWARDED: HeaderName = HeaderName::from_static("meridian-forwarded");

/// The longest answer of the leader: a register of 100,000 edges.
const ANSWER_SIZE: usize = 64 << 20;

/// How soon the leader is looked for again after one who should be it was not.
const PAUSE: Duration = Duration::from_millis(15);

/// Who has to answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Whoever is asked.
    Here,
    /// The leader.
    Leader,
    /// The leader; without one, whoever is asked from what it knows.
    LeaderOrHere,
}

/// What becomes of a request here.
pub(super) enum Passed {
    /// It is to be answered here; with certainty that this replica leads, or without.
    Here(Request<Incoming>, Certainty),
    /// The leader has answered.
    There(Answer),
}

/// Whether this replica is known to lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Certainty {
    Leads,
    Unknown,
}

/// Passes `request` on to the leader if it is the leader's to answer and this one is not it. The
/// leader answers within the time that it has for a majority, and `wait` that it waits for edges.
pub(super) async fn pass(
    context: &Context,
    place: Place,
    request: Request<Incoming>,
    wait: Duration,
) -> Result<Passed, Refusal> {
    if place == Place::Here || context.is_alone() {
        return Ok(Passed::Here(request, Certainty::Leads));
    }
    let lead = context.store.lead().await;
    let deadline = world::now() + context.config.quorum_timeout() + wait;
    match (lead, place) {
        (Ok(Lead::Here), _) => Ok(Passed::Here(request, Certainty::Leads)),
        (Ok(Lead::There(_)), _) if request.headers().contains_key(FORWARDED) => match place {
            Place::LeaderOrHere => Ok(Passed::Here(request, Certainty::Unknown)),
            Place::Leader | Place::Here => Err(denied(Denied::NotLeader)),
        },
        (Ok(Lead::There(name)), Place::LeaderOrHere) => {
            let (head, body) = request.into_parts();
            let again = Request::from_parts(head.clone(), Bytes::new());
            match send(context, &name, again, deadline).await {
                Ok(answer) if !is_not_leader(&answer) => Ok(Passed::There(answered(answer))),
                Ok(_) | Err(_) => {
                    Ok(Passed::Here(Request::from_parts(head, body), Certainty::Unknown))
                }
            }
        }
        (Ok(Lead::There(name)), _) => pass_on(context, name, request, deadline).await,
        (Err(_), Place::LeaderOrHere) => Ok(Passed::Here(request, Certainty::Unknown)),
        (Err(error), _) => Err(denied(error)),
    }
}

/// Passes a request on, again as long as nobody took it.
async fn pass_on(
    context: &Context,
    name: NodeName,
    request: Request<Incoming>,
    deadline: Instant,
) -> Result<Passed, Refusal> {
    let (head, body) = request.into_parts();
    let body = whole_body(context, body).await?;
    let patience = world::now() + context.config.quorum_timeout();
    let mut name = name;
    loop {
        let again = Request::from_parts(head.clone(), body.clone());
        let harmless = matches!(head.method, Method::GET | Method::HEAD);
        match send(context, &name, again, deadline).await {
            Ok(answer) if !is_not_leader(&answer) => return Ok(Passed::There(answered(answer))),
            Ok(_) => {}
            Err(error) if harmless || !error.was_sent() => {}
            Err(error) => {
                tracing::warn!(%error, leader = %name, "the leader did not answer a request");
                return Err(denied(Denied::Unknown));
            }
        }
        if world::now() >= patience {
            return Err(denied(Denied::NoQuorum));
        }
        tokio::time::sleep(PAUSE).await;
        match context.store.lead().await.map_err(denied)? {
            Lead::There(other) => name = other,
            // The body is read already; whoever asks comes again.
            Lead::Here => return Err(denied(Denied::NotLeader)),
        }
    }
}

async fn send(
    context: &Context,
    name: &NodeName,
    mut request: Request<Bytes>,
    deadline: Instant,
) -> Result<Response<Bytes>, CallError> {
    context.metrics.raft.forwards.inc();
    let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if let Ok(target) = target.parse() {
        *request.uri_mut() = target;
    }
    if *request.method() == Method::HEAD {
        *request.method_mut() = Method::GET; // whoever answers the client takes the body away
    }
    *request.version_mut() = http::Version::HTTP_11;
    let fields = request.headers_mut();
    for name in [HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH, EXPECT] {
        fields.remove(name);
    }
    if let Ok(value) = HeaderValue::from_str(context.config.name.as_str()) {
        fields.insert(FORWARDED, value);
    }
    let limit = deadline.saturating_duration_since(world::now());
    context.peers.call(name, request, ANSWER_SIZE, limit).await
}

fn is_not_leader(answer: &Response<Bytes>) -> bool {
    answer.status() == StatusCode::SERVICE_UNAVAILABLE && answer.headers().contains_key(NOT_LEADER)
}

/// The leader's answer as this replica gives it.
fn answered(answer: Response<Bytes>) -> Answer {
    let mut answer = answer.map(|bytes| Body::Whole(Full::new(bytes)));
    let fields = answer.headers_mut();
    for name in [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH, DATE] {
        fields.remove(name);
    }
    answer
}
