//! The API: which resource a request names, and what it may do there.
//!
//! - `api/edges.rs`: the register, beats, `explain`. `api/regions.rs`: states and intents
//! - `api/steer.rs`: where a client would go. `api/status.rs`: the replica itself
//!
//! # Invariants
//! - Every call is answered within `limits.call_timeout`, also if a client's body or another node
//!   lets it wait. A change that is cut off may have happened: `outcome_unknown`.
//! - What the contract has and this version does not is refused by name (501), never as unknown.

mod edges;
mod regions;
mod status;
mod steer;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use meridian_control_wire::problem::ErrorCode;
use serde::de::DeserializeOwned;

use crate::answer::{Answer, Refusal, text, without_body};
use crate::replica::Replica;
use crate::server::Answers;
use crate::world;

/// Answers the API of one replica.
#[derive(Debug, Clone)]
pub(crate) struct Api(Arc<Replica>);

/// A thing that the API has. Names within a path are read later: a path says only which thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource<'p> {
    Edges,
    Edge(&'p str),
    Explain(&'p str),
    Ping(&'p str),
    Regions,
    Intent(&'p str),
    Steer,
    Status,
    Metrics,
    Healthz,
    Readyz,
    /// In the contract, not in this version.
    Later(&'static str),
    Unknown,
}

/// The labels of all resources in metrics.
pub(crate) const RESOURCES: &[&str] = &[
    "edges", "edge", "explain", "ping", "regions", "intent", "steer", "status", "metrics",
    "healthz", "readyz", "later", "unknown",
];

impl<'p> Resource<'p> {
    /// What `path` names. Paths are compared as they stand: no name of the API needs an escape.
    fn named(path: &'p str) -> Self {
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
        // One more than any resource has: a longer path matches nothing.
        let parts = [(); 5].map(|()| parts.next());
        match parts {
            [Some("metrics"), None, ..] => Self::Metrics,
            [Some("healthz"), None, ..] => Self::Healthz,
            [Some("readyz"), None, ..] => Self::Readyz,
            [Some("v1"), Some(collection), rest @ ..] => Self::within(collection, rest),
            _ => Self::Unknown,
        }
    }

    fn within(collection: &str, rest: [Option<&'p str>; 3]) -> Self {
        match (collection, rest) {
            ("edges", [None, ..]) => Self::Edges,
            ("edges", [Some(id), None, _]) => Self::Edge(id),
            ("edges", [Some(id), Some("explain"), None]) => Self::Explain(id),
            ("edge", [Some(id), Some("ping"), None]) => Self::Ping(id),
            ("regions", [None, ..]) => Self::Regions,
            ("regions", [Some(region), Some("intent"), None]) => Self::Intent(region),
            ("steer", [None, ..]) => Self::Steer,
            ("status", [None, ..]) => Self::Status,
            ("purges", [None, ..] | [Some(_), None, _]) => Self::Later("purges"),
            ("config", [Some(_), ..]) => Self::Later("configuration registers"),
            ("conflicts", [None, ..] | [Some(_), Some("resolve"), None]) => {
                Self::Later("conflicts of configuration registers")
            }
            ("seeds", [None, ..] | [Some(_), None, _]) => Self::Later("seeds"),
            ("pacelc", [None, ..]) => Self::Later("the table of consistency levels"),
            ("edge", [Some(_), Some("stream" | "ack"), None]) => Self::Later("the purge stream"),
            _ => Self::Unknown,
        }
    }

    /// Its label in metrics.
    fn label(self) -> &'static str {
        match self {
            Self::Edges => "edges",
            Self::Edge(_) => "edge",
            Self::Explain(_) => "explain",
            Self::Ping(_) => "ping",
            Self::Regions => "regions",
            Self::Intent(_) => "intent",
            Self::Steer => "steer",
            Self::Status => "status",
            Self::Metrics => "metrics",
            Self::Healthz => "healthz",
            Self::Readyz => "readyz",
            Self::Later(_) => "later",
            Self::Unknown => "unknown",
        }
    }
}

impl Answers for Api {
    fn answer(
        self,
        request: Request<Incoming>,
        _from: IpAddr,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let Self(replica) = self;
        async move {
            let is_head = *request.method() == Method::HEAD;
            let path = request.uri().path().to_owned();
            let resource = Resource::named(&path);
            let limit = replica.config.limits.call_timeout.get();
            let outcome = tokio::time::timeout(limit, answered(&replica, resource, request)).await;
            let outcome = outcome.unwrap_or_else(|_elapsed| Err(overdue(limit)));
            let refused = outcome.as_ref().err().map(Refusal::code);
            replica.metrics.count(resource.label(), refused);
            let answer = outcome.unwrap_or_else(Refusal::into_answer);
            if is_head { without_body(answer) } else { answer }
        }
    }
}

fn overdue(limit: Duration) -> Refusal {
    let detail = format!("not done within limits.call_timeout = {limit:?}; it may still be");
    Refusal::new(ErrorCode::OutcomeUnknown, detail)
}

/// Sends a request to the file of its resource. HEAD goes where GET goes.
async fn answered(
    replica: &Replica,
    resource: Resource<'_>,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let method = request.method().clone();
    let reads = method == Method::GET || method == Method::HEAD;
    match resource {
        Resource::Edges if reads => Ok(edges::list(replica)),
        Resource::Edges if method == Method::POST => edges::register(replica, request).await,
        Resource::Edges => Err(Refusal::method(&method, "GET, HEAD, POST")),
        Resource::Edge(id) if method == Method::DELETE => {
            edges::strike(replica, id, request.headers()).await
        }
        Resource::Edge(_) => Err(Refusal::method(&method, "DELETE")),
        Resource::Explain(id) if reads => edges::explain(replica, id, request.uri().query()).await,
        Resource::Ping(id) if method == Method::POST => edges::ping(replica, id, request).await,
        Resource::Ping(_) => Err(Refusal::method(&method, "POST")),
        Resource::Regions if reads => Ok(regions::list(replica)),
        Resource::Intent(region) if method == Method::PUT => {
            regions::intend(replica, region, request).await
        }
        Resource::Intent(_) => Err(Refusal::method(&method, "PUT")),
        Resource::Steer if reads => steer::steer(replica, request.uri().query()),
        Resource::Status if reads => Ok(status::status(replica)),
        Resource::Metrics if reads => Ok(status::metrics(replica)),
        Resource::Healthz if reads => Ok(text(StatusCode::OK, "ok\n")),
        Resource::Readyz if reads => status::readyz(replica),
        Resource::Explain(_)
        | Resource::Regions
        | Resource::Steer
        | Resource::Status
        | Resource::Metrics
        | Resource::Healthz
        | Resource::Readyz => Err(Refusal::method(&method, "GET, HEAD")),
        Resource::Later(what) => {
            Err(Refusal::new(ErrorCode::NotOffered, format!("{what}: not offered yet")))
        }
        Resource::Unknown => {
            let detail = format!("there is no {}", request.uri().path());
            Err(Refusal::new(ErrorCode::NotFound, detail))
        }
    }
}

impl Api {
    pub(crate) fn new(replica: Arc<Replica>) -> Self {
        Self(replica)
    }
}

/// The body of `request`, read as JSON within the limits of size and time.
async fn body_of<T: DeserializeOwned>(
    replica: &Replica,
    request: Request<Incoming>,
) -> Result<T, Refusal> {
    let limits = &replica.config.limits;
    let body = whole(request.into_body(), limits.body_size.to_usize());
    // Less than the whole call may take, so that it is this that is told.
    let patience = limits.call_timeout.get().mul_f64(0.9);
    let bytes = tokio::time::timeout(patience, body).await.map_err(|_elapsed| {
        Refusal::new(ErrorCode::RequestTimeout, format!("no whole body within {patience:?}"))
    })??;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::new(ErrorCode::BadRequest, format!("the body: {error}")))
}

async fn whole(body: Incoming, limit: usize) -> Result<Bytes, Refusal> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let detail = format!("the body is larger than limits.body_size = {limit} bytes");
            Err(Refusal::new(ErrorCode::TooLarge, detail))
        }
        Err(error) => Err(Refusal::new(ErrorCode::BadRequest, format!("the body broke: {error}"))),
    }
}

/// The value of the parameter `name` in `query`, without its escapes; the first if it is repeated.
fn parameter(query: Option<&str>, name: &str) -> Option<Result<String, Refusal>> {
    let value = query?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))?;
    let decoded = percent_encoding::percent_decode_str(value).decode_utf8();
    Some(decoded.map(std::borrow::Cow::into_owned).map_err(|error| {
        Refusal::new(ErrorCode::BadRequest, format!("the parameter {name} is no UTF-8: {error}"))
    }))
}

/// How long this replica has been running.
fn uptime(replica: &Replica) -> Duration {
    world::now().saturating_duration_since(replica.started)
}

#[cfg(test)]
mod tests {
    use super::{RESOURCES, Resource, parameter};

    #[test]
    fn a_path_names_one_resource() {
        let rows = [
            ("/v1/edges", Resource::Edges),
            ("/v1/edges/fra-1", Resource::Edge("fra-1")),
            ("/v1/edges/fra-1/explain", Resource::Explain("fra-1")),
            ("/v1/edges/fra-1/explain/x", Resource::Unknown),
            ("/v1/edges/fra-1/other", Resource::Unknown),
            ("/v1/edge/fra-1/ping", Resource::Ping("fra-1")),
            ("/v1/edge/fra-1", Resource::Unknown),
            ("/v1/edge/fra-1/stream", Resource::Later("the purge stream")),
            ("/v1/edge/fra-1/ack", Resource::Later("the purge stream")),
            ("/v1/regions", Resource::Regions),
            ("/v1/regions/fra", Resource::Unknown),
            ("/v1/regions/fra/intent", Resource::Intent("fra")),
            ("/v1/steer", Resource::Steer),
            ("/v1/status", Resource::Status),
            ("/v1/purges", Resource::Later("purges")),
            ("/v1/purges/7", Resource::Later("purges")),
            ("/v1/purges/7/8", Resource::Unknown),
            ("/v1/config/site/shop", Resource::Later("configuration registers")),
            ("/v1/config/a/b/c/d/e", Resource::Later("configuration registers")),
            ("/v1/config", Resource::Unknown),
            ("/v1/conflicts", Resource::Later("conflicts of configuration registers")),
            ("/v1/conflicts/a/resolve", Resource::Later("conflicts of configuration registers")),
            ("/v1/seeds", Resource::Later("seeds")),
            ("/v1/pacelc", Resource::Later("the table of consistency levels")),
            ("/metrics", Resource::Metrics),
            ("/healthz", Resource::Healthz),
            ("/readyz", Resource::Readyz),
            ("/v1/readyz", Resource::Unknown),
            ("/v2/edges", Resource::Unknown),
            ("/v1/edges/", Resource::Edge("")),
            ("//v1/edges", Resource::Unknown),
            ("/", Resource::Unknown),
            ("*", Resource::Unknown),
            ("", Resource::Unknown),
        ];
        for (path, want) in rows {
            let got = Resource::named(path);
            assert_eq!(got, want, "{path}");
            assert!(RESOURCES.contains(&got.label()), "{path}");
        }
    }

    #[test]
    fn a_parameter_is_the_first_of_its_name_without_escapes() {
        let rows = [
            (Some("from=fra"), Some("fra")),
            (Some("a=b&from=50.03%2C8.57&from=x"), Some("50.03,8.57")),
            (Some("from="), Some("")),
            (Some("from"), None),
            (Some("xfrom=a"), None),
            (Some("url=http%3A%2F%2Fa%2Fb%3Fc%3Dd&from=%E2%82%AC"), Some("€")),
            (None, None),
        ];
        for (query, want) in rows {
            let got = parameter(query, "from").map(|value| value.unwrap());
            assert_eq!(got.as_deref(), want, "{query:?}");
        }
        assert!(parameter(Some("from=%ff"), "from").unwrap().is_err());
    }
}
