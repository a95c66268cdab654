//! The API: which resource a request names, and what it may do there.
//!
//! - `api/edges.rs`: the register, beats, `explain`. `api/regions.rs`: states and intents
//! - `api/purges.rs`: purges and how far they got. `api/config.rs`: registers. `api/levels.rs`: how
//!   consistent an answer is. `api/conditions.rs`: `Idempotency-Key`, `If-Match`
//! - `api/steer.rs`: where a client would go. `api/status.rs`: the replica itself
//! - `api/admin.rs`: the replicas themselves. `api/forward.rs`: what the leader answers
//! - `api/input.rs`: bodies and parameters, within their limits
//!
//! # Invariants
//! - Every call is answered within `limits.call_timeout`, also if a client's body or another node
//!   lets it wait. A change that is cut off may have happened: `outcome_unknown`.
//! - What the contract has and this version does not is refused by name (501), never as unknown.

mod admin;
mod conditions;
mod config;
mod edges;
mod forward;
mod input;
mod levels;
mod purges;
mod regions;
mod status;
mod steer;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use meridian_control_wire::problem::ErrorCode;

use crate::answer::{Answer, Refusal, text, without_body};
use crate::api::forward::{Certainty, Passed, Place};
use crate::api::levels::{Level, baseless, changed, denied, unconfirmed};
use crate::context::Context;
use crate::control_store::ReadLevel;
use crate::raft::rpc::Rpc;
use crate::server::Answers;
use crate::world;

/// Answers the API of one context.
#[derive(Debug, Clone)]
pub(crate) struct Api(pub(crate) Arc<Context>);

/// A thing that the API has. Names within a path are read later: a path says only which thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource<'p> {
    Edges,
    Edge(&'p str),
    Explain(&'p str),
    Ping(&'p str),
    Stream(&'p str),
    Ack(&'p str),
    Purges,
    Purge(&'p str),
    Config(&'p str),
    Regions,
    Intent(&'p str),
    Steer,
    Status,
    Metrics,
    Healthz,
    Readyz,
    /// What other replicas say.
    Raft(Rpc),
    Members,
    Transfer,
    Snapshot,
    /// In the contract, not in this version.
    Later(&'static str),
    Unknown,
}

/// The labels of all resources in metrics.
pub(crate) const RESOURCES: &[&str] = &[
    "edges", "edge", "explain", "ping", "stream", "ack", "purges", "purge", "config", "regions",
    "intent", "steer", "status", "metrics", "healthz", "readyz", "raft", "members", "transfer",
    "snapshot", "later", "unknown",
];

impl<'p> Resource<'p> {
    /// What `path` names. Paths are compared as they stand: no name of the API needs an escape.
    fn named(path: &'p str) -> Self {
        // The key of a register may itself have parts.
        if let Some(key) = path.strip_prefix("/v1/config/") {
            return Self::Config(key);
        }
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
        // One more than any resource has: a longer path matches nothing.
        let parts = [(); 5].map(|()| parts.next());
        match parts {
            [Some("metrics"), None, ..] => Self::Metrics,
            [Some("healthz"), None, ..] => Self::Healthz,
            [Some("readyz"), None, ..] => Self::Readyz,
            [Some("raft"), Some(rpc), None, ..] => {
                Rpc::named(rpc).map_or(Self::Unknown, Self::Raft)
            }
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
            ("admin", [Some("members"), None, _]) => Self::Members,
            ("admin", [Some("transfer-leader"), None, _]) => Self::Transfer,
            ("admin", [Some("snapshot"), None, _]) => Self::Snapshot,
            ("purges", [None, ..]) => Self::Purges,
            ("purges", [Some(id), None, _]) => Self::Purge(id),
            ("edge", [Some(id), Some("stream"), None]) => Self::Stream(id),
            ("edge", [Some(id), Some("ack"), None]) => Self::Ack(id),
            ("conflicts", [None, ..] | [Some(_), Some("resolve"), None]) => {
                Self::Later("conflicts of configuration registers")
            }
            ("seeds", [None, ..] | [Some(_), None, _]) => Self::Later("seeds"),
            ("pacelc", [None, ..]) => Self::Later("the table of consistency levels"),
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
            Self::Stream(_) => "stream",
            Self::Ack(_) => "ack",
            Self::Purges => "purges",
            Self::Purge(_) => "purge",
            Self::Config(_) => "config",
            Self::Regions => "regions",
            Self::Intent(_) => "intent",
            Self::Steer => "steer",
            Self::Status => "status",
            Self::Metrics => "metrics",
            Self::Healthz => "healthz",
            Self::Readyz => "readyz",
            Self::Raft(_) => "raft",
            Self::Members => "members",
            Self::Transfer => "transfer",
            Self::Snapshot => "snapshot",
            Self::Later(_) => "later",
            Self::Unknown => "unknown",
        }
    }
}

impl Answers for Api {
    fn answer(
        self,
        request: Request<Incoming>,
        from: IpAddr,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let Self(context) = self;
        async move {
            let is_head = *request.method() == Method::HEAD;
            let path = request.uri().path().to_owned();
            let resource = Resource::named(&path);
            let (limit, wait) = match resource {
                Resource::Purges => {
                    (context.config.limits.call_timeout.get(), purges::wait_of(&context, &request))
                }
                Resource::Raft(_) => (context.config.raft.snapshot_timeout.get(), Duration::ZERO),
                _ => (context.config.limits.call_timeout.get(), Duration::ZERO),
            };
            let limit = limit.saturating_add(wait);
            let answering = placed(&context, resource, request, from, wait);
            let outcome = tokio::time::timeout(limit, answering).await;
            let outcome = outcome.unwrap_or_else(|_elapsed| Err(overdue(limit)));
            let refused = outcome.as_ref().err().map(Refusal::code);
            context.metrics.count(resource.label(), refused);
            let answer = outcome.unwrap_or_else(Refusal::into_answer);
            if is_head { without_body(answer) } else { answer }
        }
    }
}

fn overdue(limit: Duration) -> Refusal {
    let detail = format!("not done within limits.call_timeout = {limit:?}; it may still be");
    Refusal::new(ErrorCode::OutcomeUnknown, detail)
}

/// Who answers `method` on a resource, where replicas agree: what changes something is the
/// leader's, and so is what only the leader hears.
fn place(resource: Resource<'_>, method: &Method) -> Place {
    let reads = *method == Method::GET || *method == Method::HEAD;
    match resource {
        Resource::Edges | Resource::Regions | Resource::Steer if reads => Place::LeaderOrHere,
        Resource::Purges | Resource::Config(_) if reads => Place::Here,
        Resource::Members if reads => Place::Here,
        Resource::Edges
        | Resource::Edge(_)
        | Resource::Ping(_)
        | Resource::Ack(_)
        | Resource::Purges
        | Resource::Purge(_)
        | Resource::Config(_)
        | Resource::Intent(_)
        | Resource::Members
        | Resource::Transfer => Place::Leader,
        Resource::Explain(_)
        | Resource::Stream(_)
        | Resource::Regions
        | Resource::Steer
        | Resource::Status
        | Resource::Metrics
        | Resource::Healthz
        | Resource::Readyz
        | Resource::Raft(_)
        | Resource::Snapshot
        | Resource::Later(_)
        | Resource::Unknown => Place::Here,
    }
}

/// Has a request answered where it has to be.
async fn placed(
    context: &Context,
    resource: Resource<'_>,
    request: Request<Incoming>,
    from: IpAddr,
    wait: Duration,
) -> Result<Answer, Refusal> {
    if let Resource::Raft(rpc) = resource {
        return admin::hear(context, rpc, request, from).await;
    }
    let begun = world::now();
    let place = place(resource, request.method());
    match forward::pass(context, place, request, wait).await {
        Ok(Passed::There(answer)) => Ok(answer),
        Ok(Passed::Here(request, certainty)) => {
            if place == Place::LeaderOrHere {
                known(context, resource, &request, certainty, begun).await
            } else {
                answered(context, resource, request).await
            }
        }
        Err(refusal) => {
            let waited = world::now().saturating_duration_since(begun);
            let field = Level::Committed.field(&baseless(&*context.store), waited);
            Err(refusal.with(levels::FIELD, field))
        }
    }
}

/// What is known of the edges: confirmed by a majority where one can be asked, and marked where
/// not. A front door goes on with either.
async fn known(
    context: &Context,
    resource: Resource<'_>,
    request: &Request<Incoming>,
    certainty: Certainty,
    begun: Instant,
) -> Result<Answer, Refusal> {
    let confirmed = match certainty {
        Certainty::Leads => context.store.barrier(ReadLevel::Linearizable).await.ok(),
        Certainty::Unknown => None,
    };
    let mut answer = match resource {
        Resource::Regions => regions::list(context),
        Resource::Steer => steer::steer(context, request.uri().query())?,
        _ => edges::list(context),
    };
    let level = if confirmed.is_some() { ReadLevel::Linearizable } else { ReadLevel::Local };
    let barrier = confirmed.unwrap_or_else(|| unconfirmed(&*context.store));
    let waited = world::now().saturating_duration_since(begun);
    answer.headers_mut().insert(levels::FIELD, Level::Read(level).field(&barrier, waited));
    Ok(answer)
}

/// Sends a request to the file of its resource. HEAD goes where GET goes.
async fn answered(
    context: &Context,
    resource: Resource<'_>,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let method = request.method().clone();
    let reads = method == Method::GET || method == Method::HEAD;
    match resource {
        Resource::Edges if method == Method::POST => edges::register(context, request).await,
        Resource::Edges => Err(Refusal::method(&method, "GET, HEAD, POST")),
        Resource::Edge(id) if method == Method::DELETE => {
            edges::strike(context, id, request.headers()).await
        }
        Resource::Edge(_) => Err(Refusal::method(&method, "DELETE")),
        Resource::Explain(id) if reads => edges::explain(context, id, request.uri().query()).await,
        Resource::Ping(id) if method == Method::POST => edges::ping(context, id, request).await,
        Resource::Ping(_) => Err(Refusal::method(&method, "POST")),
        Resource::Stream(_) | Resource::Ack(_) => followed(context, resource, request).await,
        Resource::Purges | Resource::Purge(_) | Resource::Config(_) => {
            stored(context, resource, request).await
        }
        Resource::Intent(region) if method == Method::PUT => {
            regions::intend(context, region, request).await
        }
        Resource::Intent(_) => Err(Refusal::method(&method, "PUT")),
        Resource::Status if reads => Ok(status::status(context)),
        Resource::Metrics if reads => Ok(status::metrics(context)),
        Resource::Healthz if reads => Ok(text(StatusCode::OK, "ok\n")),
        Resource::Readyz if reads => status::readyz(context),
        Resource::Explain(_)
        | Resource::Regions
        | Resource::Steer
        | Resource::Status
        | Resource::Metrics
        | Resource::Healthz
        | Resource::Readyz => Err(Refusal::method(&method, "GET, HEAD")),
        Resource::Members | Resource::Transfer | Resource::Snapshot => {
            agreed(context, resource, request).await
        }
        Resource::Raft(_) => Err(Refusal::method(&method, "POST")),
        Resource::Later(what) => {
            Err(Refusal::new(ErrorCode::NotOffered, format!("{what}: not offered yet")))
        }
        Resource::Unknown => {
            let detail = format!("there is no {}", request.uri().path());
            Err(Refusal::new(ErrorCode::NotFound, detail))
        }
    }
}

/// What operators do with the replicas themselves.
async fn agreed(
    context: &Context,
    resource: Resource<'_>,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let method = request.method().clone();
    let posts = method == Method::POST;
    match resource {
        Resource::Members if posts => admin::change(context, request).await,
        Resource::Members if method == Method::GET || method == Method::HEAD => {
            admin::list(context, request.headers())
        }
        Resource::Members => Err(Refusal::method(&method, "GET, HEAD, POST")),
        Resource::Transfer if posts => admin::transfer(context, request).await,
        Resource::Snapshot if posts => admin::snapshot(context, request.headers()).await,
        _ => Err(Refusal::method(&method, "POST")),
    }
}

/// What edges do beside beating.
async fn followed(
    context: &Context,
    resource: Resource<'_>,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let method = request.method().clone();
    match resource {
        Resource::Stream(id) if method == Method::GET => edges::stream(context, id, &request).await,
        Resource::Ack(id) if method == Method::POST => edges::ack(context, id, request).await,
        Resource::Ack(_) => Err(Refusal::method(&method, "POST")),
        _ => Err(Refusal::method(&method, "GET")),
    }
}

/// Purges and registers: each answer says how consistent it is.
async fn stored(
    context: &Context,
    resource: Resource<'_>,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let begun = world::now();
    let method = request.method().clone();
    let reads = method == Method::GET || method == Method::HEAD;
    let level =
        if reads { Level::read(request.headers())? } else { Level::write(request.headers())? };
    let barrier = match level {
        Level::Read(level) => context.store.barrier(level).await.map(Some),
        Level::Committed => Ok(None),
    };
    let (outcome, barrier) = match barrier {
        Ok(barrier) => (ordered(context, resource, request, begun).await, barrier),
        Err(error) => (Err(denied(error)), Some(baseless(&*context.store))),
    };
    let barrier = barrier.unwrap_or_else(|| match &outcome {
        Err(refusal) if refusal.code().status() >= 500 => baseless(&*context.store),
        Ok(_) | Err(_) => changed(&*context.store),
    });
    let field = level.field(&barrier, world::now().saturating_duration_since(begun));
    match outcome {
        Ok(mut answer) => {
            answer.headers_mut().insert(levels::FIELD, field);
            Ok(answer)
        }
        Err(refusal) => Err(refusal.with(levels::FIELD, field)),
    }
}

/// The same, once a read is as fresh as it has to be.
async fn ordered(
    context: &Context,
    resource: Resource<'_>,
    request: Request<Incoming>,
    begun: Instant,
) -> Result<Answer, Refusal> {
    let method = request.method().clone();
    let reads = method == Method::GET || method == Method::HEAD;
    match resource {
        Resource::Purges if reads => purges::history(context, request.uri().query()).await,
        Resource::Purges if method == Method::POST => purges::order(context, request, begun).await,
        Resource::Purges => Err(Refusal::method(&method, "GET, HEAD, POST")),
        Resource::Purge(id) if reads => purges::one(context, id).await,
        Resource::Config(key) if reads => config::read(context, key).await,
        Resource::Config(key) if method == Method::PUT => config::put(context, key, request).await,
        Resource::Config(key) if method == Method::DELETE => {
            config::delete(context, key, request.headers()).await
        }
        Resource::Config(_) => Err(Refusal::method(&method, "GET, HEAD, PUT, DELETE")),
        _ => Err(Refusal::method(&method, "GET, HEAD")),
    }
}

#[cfg(test)]
mod tests {
    use super::{RESOURCES, Resource};

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
            ("/v1/edge/fra-1/stream", Resource::Stream("fra-1")),
            ("/v1/edge/fra-1/ack", Resource::Ack("fra-1")),
            ("/v1/regions", Resource::Regions),
            ("/v1/regions/fra", Resource::Unknown),
            ("/v1/regions/fra/intent", Resource::Intent("fra")),
            ("/v1/steer", Resource::Steer),
            ("/v1/status", Resource::Status),
            ("/v1/purges", Resource::Purges),
            ("/v1/purges/7", Resource::Purge("7")),
            ("/v1/purges/7/8", Resource::Unknown),
            ("/v1/config/site/shop", Resource::Config("site/shop")),
            ("/v1/config/a/b/c/d/e", Resource::Config("a/b/c/d/e")),
            ("/v1/config/", Resource::Config("")),
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
}
