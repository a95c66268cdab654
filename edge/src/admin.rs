//! The admin listener: metrics, health, `explain`, what the store holds.
//!
//! # Invariants
//! - Whoever changes something beyond loopback shows a token with the scope `operate`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use meridian_config::shared::Scope;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::accept::Handler;
use crate::body::Body;
use crate::connection::Connection;
use crate::core::Edge;
use crate::explain::{Question, explain};
use crate::respond::problem;
use crate::serve::Answer;
use crate::tokens::{Denial, Tokens};
use crate::upstream::Upstream;
use crate::upstream::breaker::Forced;

/// The longest body of an order.
const MAX_BODY: usize = 4_096;
/// Until it has arrived.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// `PUT /v1/origins/{name}/breaker`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    state: String,
}

/// Answers operators.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) edge: Arc<Edge>,
    pub(crate) registry: Arc<Registry>,
    /// Cancelled when the edge stops: it is then no longer ready.
    pub(crate) stop: CancellationToken,
    pub(crate) tokens: Arc<Tokens>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Handler for Admin {
    type Answer = Answer;

    fn answer(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
        _peer: SocketAddr,
    ) -> Self::Answer {
        let busy = connection.begin();
        if let Some(upstream) = self.breaker_of(request.uri().path()) {
            let (admin, upstream) = (self.clone(), Arc::clone(upstream));
            return Answer::Later(Box::pin(async move {
                let response = admin.breaker(&upstream, request).await;
                response.map(|body| body.busy(busy))
            }));
        }
        let query = request.uri().query().unwrap_or_default();
        let response = self.route(request.method(), request.uri().path(), query);
        Answer::Ready(Some(response.map(|body| body.busy(busy))))
    }
}

impl Admin {
    fn route(&self, method: &Method, path: &str, query: &str) -> Response<Body> {
        let answer: fn(&Self, &Method, &str) -> Response<Body> = match path {
            "/healthz" => |_, _, _| text("text/plain", "ok\n".to_owned()),
            "/readyz" => Self::ready,
            "/metrics" => Self::metrics,
            "/v1/store" => Self::store,
            "/v1/explain" => Self::explain,
            _ => {
                let detail = format!("there is nothing at {path}");
                return problem(method, StatusCode::NOT_FOUND, "not_found", &detail);
            }
        };
        if *method == Method::GET || *method == Method::HEAD {
            return answer(self, method, query);
        }
        not_allowed(method, path, "GET, HEAD")
    }

    /// The origin whose breaker `path` names.
    fn breaker_of(&self, path: &str) -> Option<&Arc<Upstream>> {
        let name = path.strip_prefix("/v1/origins/")?.strip_suffix("/breaker")?;
        self.edge.upstreams.iter().find(|upstream| upstream.name == name)
    }

    /// Shows a breaker, or forces it.
    async fn breaker(&self, upstream: &Upstream, request: Request<Incoming>) -> Response<Body> {
        let method = request.method().clone();
        if method != Method::GET && method != Method::HEAD {
            if method != Method::PUT {
                return not_allowed(&method, request.uri().path(), "GET, HEAD, PUT");
            }
            let by = match self.authorize(request.headers()) {
                Ok(by) => by.to_owned(),
                Err(denial) => return denied(&method, &denial),
            };
            let rule = "must be {\"state\":\"auto\"}, \"open\" or \"closed\"";
            let forced = ordered(request.into_body()).await;
            let Some(forced) = forced.and_then(|order| Forced::of(&order.state)) else {
                return problem(&method, StatusCode::BAD_REQUEST, "bad_request", rule);
            };
            tracing::info!(by, origin = upstream.name, state = forced.token(), "a breaker was set");
            upstream.guard.force(forced, self.edge.clock.now().mono);
        }
        let (phase, forced, probes) = upstream.guard.phase();
        as_json(&json!({
            "origin": upstream.name,
            "state": forced.token(),
            "phase": phase.token(),
            "probes": probes,
        }))
    }

    /// Who changes something. On loopback nobody needs to say.
    fn authorize(&self, fields: &HeaderMap) -> Result<&str, Denial> {
        if self.address.ip().to_canonical().is_loopback() {
            return Ok("loopback");
        }
        self.tokens.authorize(fields, Scope::Operate)
    }

    fn ready(&self, method: &Method, _query: &str) -> Response<Body> {
        if self.stop.is_cancelled() {
            let detail = "this edge is stopping";
            return problem(method, StatusCode::SERVICE_UNAVAILABLE, "stopping", detail);
        }
        if !self.edge.is_attached() {
            let detail = "this edge does not know the purges yet: it waits for the control plane";
            return problem(method, StatusCode::SERVICE_UNAVAILABLE, "attaching", detail);
        }
        text("text/plain", "ready\n".to_owned())
    }

    fn metrics(&self, method: &Method, _query: &str) -> Response<Body> {
        let mut encoded = String::new();
        match prometheus_client::encoding::text::encode(&mut encoded, &self.registry) {
            Ok(()) => text("application/openmetrics-text; version=1.0.0; charset=utf-8", encoded),
            Err(error) => {
                tracing::error!(%error, "cannot encode the metrics");
                let detail = "the metrics cannot be encoded";
                problem(method, StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
            }
        }
    }

    fn store(&self, _method: &Method, _query: &str) -> Response<Body> {
        let counts = self.edge.store.counts();
        let answer = json!({
            "urls": counts.urls,
            "bytes": counts.bytes,
            "capacity": self.edge.cache.capacity.get(),
            "evicted": counts.evicted,
            "in_flight_bytes": self.edge.in_flight.used(),
            "fetches": self.edge.collapse.flights(),
        });
        as_json(&answer)
    }

    fn explain(&self, method: &Method, query: &str) -> Response<Body> {
        match question(query) {
            Ok(mut question) => match explain(&self.edge, &mut question) {
                Some(answer) => as_json(&answer),
                None => {
                    let detail = format!("no site here answers to the host of {}", question.url);
                    problem(method, StatusCode::MISDIRECTED_REQUEST, "misdirected", &detail)
                }
            },
            Err(detail) => problem(method, StatusCode::BAD_REQUEST, "bad_request", &detail),
        }
    }
}

/// `?url=U[&header=Name: value]...`
fn question(query: &str) -> Result<Question, String> {
    let mut url = None;
    let mut headers = HeaderMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.replace('+', " ");
        let value = percent_encoding::percent_decode_str(&value)
            .decode_utf8()
            .map_err(|_invalid| format!("{name} is not UTF-8"))?;
        match name {
            "url" => url = Some(value.into_owned()),
            "header" => {
                let (field, value) = value
                    .split_once(':')
                    .ok_or_else(|| format!("header = {value:?}: must be \"Name: value\""))?;
                let bad = |_| format!("header = {field:?}: is not a field name");
                let field = header::HeaderName::try_from(field.trim()).map_err(bad)?;
                let value = HeaderValue::from_str(value.trim())
                    .map_err(|_invalid| format!("header {field}: the value has control bytes"))?;
                headers.append(field, value);
            }
            _ => return Err(format!("{name:?} is not known here: use url and header")),
        }
    }
    let url = url.ok_or("url is missing: ask /v1/explain?url=http://host/path")?;
    let target = match url.starts_with('/') {
        true => url.parse(),
        false if url.contains("://") => url.parse(),
        false => format!("/{url}").parse(),
    };
    let target = target.map_err(|error| format!("url = {url:?}: {error}"))?;
    Ok(Question { url, target, headers })
}

/// The order in `body`, if it is one.
async fn ordered(body: Incoming) -> Option<Order> {
    let body = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await.ok()?.ok()?;
    let bytes: Bytes = body.to_bytes();
    serde_json::from_slice(&bytes).ok()
}

fn denied(method: &Method, denial: &Denial) -> Response<Body> {
    let (status, code) = match denial {
        Denial::Unknown => (StatusCode::UNAUTHORIZED, "unauthorized"),
        Denial::Scope { .. } => (StatusCode::FORBIDDEN, "forbidden"),
    };
    let mut response = problem(method, status, code, &denial.to_string());
    if status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Bearer"); // RFC 9110 §15.5.2
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

fn not_allowed(method: &Method, path: &str, allow: &'static str) -> Response<Body> {
    let detail = format!("{path} takes {allow}");
    let mut response =
        problem(method, StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &detail);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

fn text(content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::whole(text.into()));
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn as_json(answer: &impl Serialize) -> Response<Body> {
    match serde_json::to_string(answer) {
        Ok(answer) => text("application/json", answer),
        Err(error) => {
            tracing::error!(%error, "cannot encode an answer");
            let detail = "the answer cannot be encoded";
            problem(&Method::GET, StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
        }
    }
}
