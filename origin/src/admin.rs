//! The admin listener: faults, counts, what is served, metrics, health.
//!
//! # Invariants
//! - Whoever changes something beyond loopback shows a token with the scope `operate`.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, SERVER, WWW_AUTHENTICATE};
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use meridian_config::shared::Scope;
use meridian_config::units::{ByteSize, HumanDuration};
use percent_encoding::percent_decode_str;
use prometheus_client::encoding::text::encode;
use serde::Serialize;

use crate::accept::Serve;
use crate::body::Body;
use crate::connection::{Connection, InFlight};
use crate::faults::{FaultError, FaultList};
use crate::problem::{Code, Problem};
use crate::received::whole;
use crate::serve::{SERVER_NAME, Site};
use crate::tokens::Tokens;

/// What the admin listener needs to answer.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) site: Arc<Site>,
    pub(crate) tokens: Tokens,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    pub(crate) max_faults: usize,
    pub(crate) body_size: ByteSize,
    /// Until a body has arrived in whole.
    pub(crate) body_timeout: HumanDuration,
}

impl Serve for Admin {
    async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Response<Body> {
        let mut in_flight: InFlight = connection.begin(!request.body().is_end_stream());
        let answer = self.answer(request).await;
        let mut response = answer.unwrap_or_else(|problem| refuse(&problem));
        response.headers_mut().insert(SERVER, SERVER_NAME);
        in_flight.sends();
        response
    }
}

fn refuse(problem: &Problem) -> Response<Body> {
    let mut response = problem.response();
    if problem.code == Code::Unauthorized {
        // RFC 9110 §15.5.2
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

impl Admin {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let (path, method) = (request.uri().path().to_owned(), request.method().clone());
        match (&*path, &method) {
            ("/healthz", &(Method::GET | Method::HEAD)) => Ok(plain("ok\n")),
            ("/readyz", &(Method::GET | Method::HEAD)) => self.ready().await,
            ("/metrics", &(Method::GET | Method::HEAD)) => self.metrics(),
            ("/v1/requests", &(Method::GET | Method::HEAD)) => self.requests(request.uri().query()),
            ("/v1/paths", &(Method::GET | Method::HEAD)) => self.paths(request.uri().query()).await,
            ("/v1/faults", &(Method::GET | Method::HEAD)) => json(&self.site.faults.list()),
            ("/v1/faults", &Method::PUT) => self.put_faults(request).await,
            ("/v1/faults", &Method::DELETE) => self.delete_faults(&request),
            ("/v1/releases", _) => {
                Err(Problem::new(Code::NotOffered, "releases are not offered yet"))
            }
            ("/healthz" | "/readyz" | "/metrics" | "/v1/requests" | "/v1/paths", _) => {
                Ok(not_allowed(&method, "GET, HEAD"))
            }
            ("/v1/faults", _) => Ok(not_allowed(&method, "GET, HEAD, PUT, DELETE")),
            _ => Err(Problem::new(Code::NotFound, format!("there is nothing at {path}"))),
        }
    }

    async fn ready(&self) -> Result<Response<Body>, Problem> {
        if self.site.stop.is_cancelled() {
            return Err(Problem::new(Code::NotReady, "the origin is stopping"));
        }
        match self.site.content.trouble().await {
            None => Ok(plain("ready\n")),
            Some(detail) => Err(Problem::new(Code::NotReady, detail)),
        }
    }

    fn metrics(&self) -> Result<Response<Body>, Problem> {
        let mut text = String::new();
        encode(&mut text, self.site.metrics.registry()).map_err(|error| {
            tracing::error!(%error, "the metrics could not be written");
            Problem::new(Code::Internal, "the metrics could not be written")
        })?;
        let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Ok(with_type(open_metrics, text))
    }

    fn requests(&self, query: Option<&str>) -> Result<Response<Body>, Problem> {
        let path = path_in(query.unwrap_or_default(), "path")?;
        let report = self.site.counts.report(path.as_deref()).map_err(|uncounted| {
            let limit = uncounted.limit;
            let detail =
                format!("this path is one of those beyond the {limit} of limits.max_counted_paths");
            Problem::new(Code::NotFound, detail)
        })?;
        json(&report)
    }

    async fn paths(&self, query: Option<&str>) -> Result<Response<Body>, Problem> {
        let after = path_in(query.unwrap_or_default(), "after")?;
        json(&self.site.content.list(after).await?)
    }

    async fn put_faults(&self, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        let by = self.authorize(&request)?.to_owned();
        let body = whole(request.into_body(), self.body_size, self.body_timeout).await?;
        let list = FaultList::read(&body, self.max_faults).map_err(|error| {
            let code = match error {
                FaultError::Malformed { .. } => Code::BadRequest,
                FaultError::TooMany { .. } => Code::TooLarge,
            };
            Problem::new(code, error.to_string())
        })?;
        self.site.faults.replace(&list);
        tracing::info!(by, faults = list.faults.len(), "faults were set");
        json(&list)
    }

    fn delete_faults(&self, request: &Request<Incoming>) -> Result<Response<Body>, Problem> {
        let by = self.authorize(request)?;
        self.site.faults.replace(&FaultList::default());
        tracing::info!(by, "faults were lifted");
        json(&FaultList::default())
    }

    /// Who changes something. On loopback nobody needs to say.
    fn authorize(&self, request: &Request<Incoming>) -> Result<&str, Problem> {
        if self.address.ip().to_canonical().is_loopback() {
            return Ok("loopback");
        }
        self.tokens.authorize(request.headers(), Scope::Operate)
    }
}

/// The path that the member `name` of a query holds, decoded; nothing else may stand there.
fn path_in(query: &str, name: &str) -> Result<Option<String>, Problem> {
    let mut path = None;
    for member in query.split('&').filter(|member| !member.is_empty()) {
        let bad = |rule: String| Err(Problem::new(Code::BadRequest, format!("{member:?}: {rule}")));
        let Some((_, value)) = member.split_once('=').filter(|(before, _)| *before == name) else {
            return bad(format!("only {name}=PATH may stand here"));
        };
        let Ok(decoded) = percent_decode_str(value).decode_utf8() else {
            return bad(format!("{name} must be UTF-8"));
        };
        if !decoded.starts_with('/') {
            return bad(format!("{name} must start with '/'"));
        }
        if path.replace(decoded.into_owned()).is_some() {
            return bad(format!("{name} must stand once; write '&' in it as %26"));
        }
    }
    Ok(path)
}

fn not_allowed(method: &Method, allowed: &'static str) -> Response<Body> {
    let detail = format!("{method} is not offered here; {allowed} are");
    let mut response = Problem::new(Code::MethodNotAllowed, detail).response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn plain(text: &'static str) -> Response<Body> {
    with_type("text/plain; charset=utf-8", text)
}

fn json(value: &impl Serialize) -> Result<Response<Body>, Problem> {
    let text = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        Problem::new(Code::Internal, "the answer could not be written")
    })?;
    Ok(with_type("application/json", text))
}

fn with_type(content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::of(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::path_in;

    #[test]
    fn the_query_of_counts_names_one_path_or_none() {
        let rows = [
            ("", Ok(None)),
            ("path=/a", Ok(Some("/a"))),
            ("path=%2Fa%3Fq%3D1%26r%3D2", Ok(Some("/a?q=1&r=2"))),
            ("path=/a?q=1", Ok(Some("/a?q=1"))),
            ("path=a", Err("\"path=a\": path must start with '/'")),
            ("path=/a&q=1", Err("\"q=1\": only path=PATH may stand here")),
            ("path=/a&path=/b", Err("\"path=/b\": path must stand once; write '&' in it as %26")),
            ("path=/%ff", Err("\"path=/%ff\": path must be UTF-8")),
        ];
        for (query, want) in rows {
            let got = path_in(query, "path").map_err(|problem| problem.detail);
            assert_eq!(got.as_ref().map(Option::as_deref).map_err(|e| &**e), want, "{query}");
        }
    }
}
