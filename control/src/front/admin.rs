//! The admin listener of a front door: `/metrics`, `/healthz`, `/readyz`. It changes nothing.
//!
//! `/readyz?edges=N` asks for more than readiness: that N edges at least are known to be healthy.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use meridian_control_wire::problem::ErrorCode;

use crate::answer::{Answer, Refusal, text, without_body};
use crate::front::door::Door;
use crate::server::Answers;
use crate::world;

/// Answers the admin listener.
#[derive(Debug, Clone)]
pub(super) struct Admin(pub(super) Arc<Door>);

impl Answers for Admin {
    fn answer(
        self,
        request: Request<Incoming>,
        _from: IpAddr,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let answer = answered(&self.0, &request);
        let answer = answer.unwrap_or_else(Refusal::into_answer);
        let is_head = *request.method() == Method::HEAD;
        async move { if is_head { without_body(answer) } else { answer } }
    }
}

fn answered<B>(door: &Door, request: &Request<B>) -> Result<Answer, Refusal> {
    let (method, path) = (request.method(), request.uri().path());
    if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
        return Err(Refusal::new(ErrorCode::NotFound, format!("there is no {path}")));
    }
    if *method != Method::GET && *method != Method::HEAD {
        return Err(Refusal::method(method, "GET, HEAD"));
    }
    match path {
        "/metrics" => {
            let heard = door.view.load().heard;
            let age = heard.map(|heard| world::now().saturating_duration_since(heard));
            Ok(door.metrics.text(age.map(|age| age.as_secs_f64())))
        }
        "/readyz" => {
            let least = least_edges(request.uri().query())?;
            door.is_ready(least).map(|()| text(StatusCode::OK, "ready\n"))
        }
        _ => Ok(text(StatusCode::OK, "ok\n")),
    }
}

/// How many healthy edges are asked for: `edges=N`, or none in particular.
fn least_edges(query: Option<&str>) -> Result<usize, Refusal> {
    let Some(wanted) = query.and_then(|query| query.strip_prefix("edges=")) else { return Ok(0) };
    wanted.parse().map_err(|error| {
        Refusal::new(ErrorCode::BadRequest, format!("edges = {wanted:?}: must be a count: {error}"))
    })
}
