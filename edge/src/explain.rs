//! Why one URL gets what it gets at this edge: the key, what is stored under it, the arithmetic
//! of freshness, and what the next request will get.
//!
//! Asks the very functions that the road asks, and changes nothing.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, Method, Uri};
use meridian_edge_rules::decide::{Decision, Forward, decide};
use meridian_edge_rules::exchange::RequestView;
use meridian_edge_rules::time::Now;
use serde::Serialize;

use crate::core::Edge;
use crate::key::{CacheKey, Parts, write_key};
use crate::route::{self, Site};
use crate::store::Stored;

/// What is asked.
pub(crate) struct Question {
    /// As it was written.
    pub(crate) url: String,
    pub(crate) target: Uri,
    /// Fields that the request would have.
    pub(crate) headers: HeaderMap,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    edge: String,
    url: String,
    site: String,
    key: String,
    /// Every stored variant, the newest last.
    stored: Vec<Variant>,
    /// Whether a fetch for it may not be shared, as answers before it could not.
    kept_apart: bool,
    origins: Vec<Origin>,
    next: Next,
    /// What this edge does not tell yet.
    not_offered: [&'static str; 3],
}

/// One stored response.
#[derive(Debug, Serialize)]
struct Variant {
    status: u16,
    body_bytes: u64,
    memory_bytes: u32,
    /// Whether this request selects it.
    selected: bool,
    vary: String,
    /// RFC 9111 §4.2: fresh while `age` is below `lifetime`.
    fresh: bool,
    lifetime_seconds: u64,
    /// Where the lifetime comes from.
    lifetime_from: String,
    age_seconds: u64,
    /// Of the age, what it had when it arrived.
    initial_age_seconds: u64,
    ttl_seconds: i64,
    stale_while_revalidate_seconds: u64,
    stale_if_error_seconds: u64,
    arrived_unix_seconds: u64,
    etag: Option<String>,
    last_modified: Option<String>,
    cache_control: Option<String>,
    tags: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Origin {
    name: String,
    address: String,
    in_flight: u32,
    waiting: u32,
    max_requests: u32,
    max_queue: u32,
    idle_connections: usize,
}

/// What the next such request gets.
#[derive(Debug, Serialize)]
struct Next {
    /// `hit`, `forward` or `unsatisfiable`.
    decision: &'static str,
    /// Why it goes forward (RFC 9211 §2.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    fwd: Option<&'static str>,
    /// Whether the stored response is validated upstream.
    validates: bool,
    /// Whether it is refreshed behind the client's back.
    refreshes: bool,
    /// Whether something stale may stand in for an error.
    stale_may_stand_in: bool,
}

/// `None`: no site answers to the host.
pub(crate) fn explain(edge: &Edge, question: &Question) -> Option<Explanation> {
    let sites = edge.sites.load();
    let site = sites.route(route::host(&question.target, &question.headers))?;
    let now = edge.clock.now();
    let host = route::authority(&question.target, &question.headers);
    let parts = Parts {
        site: &site.name,
        scheme: "http",
        host: host.filter(|_| site.preserve_host),
        path: question.target.path(),
        query: question.target.query(),
    };
    let mut key = String::new();
    write_key(&mut key, &parts, &site.query);
    let variants = edge.store.variants(&key);
    Some(Explanation {
        edge: edge.name.clone(),
        url: question.url.clone(),
        site: site.name.clone(),
        stored: variants.iter().map(|stored| variant(stored, question, now)).collect(),
        kept_apart: edge.collapse.is_apart(&CacheKey::from(key.as_str()), now.mono),
        origins: site.origins.iter().map(|upstream| origin(upstream)).collect(),
        next: next(edge, site, &key, question, now),
        key,
        not_offered: ["rule", "purge", "breaker"],
    })
}

fn next(edge: &Edge, site: &Site, key: &str, question: &Question, now: Now) -> Next {
    let request = RequestView { method: &Method::GET, headers: &question.headers };
    let found = edge.store.lookup(key, &question.headers);
    let forwarded = |decision, forward: Option<&Forward<Stored>>, refreshes: bool| Next {
        decision,
        fwd: forward.filter(|_| !refreshes).map(|forward| forward.why.token()),
        validates: forward.is_some_and(|forward| forward.validate.is_some()),
        refreshes,
        stale_may_stand_in: forward.is_some_and(|forward| forward.stale.is_some()),
    };
    match decide(&request, found, &site.policy, now) {
        Decision::Serve { revalidate, .. } => {
            forwarded("hit", revalidate.as_ref(), revalidate.is_some())
        }
        Decision::Forward(forward) => forwarded("forward", Some(&forward), false),
        Decision::Unsatisfiable => forwarded("unsatisfiable", None, false),
    }
}

fn variant(stored: &Stored, question: &Question, now: Now) -> Variant {
    let head = stored.head();
    let field = |name: &str| {
        head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let ttl = head.ttl(now);
    let arrived = head.received.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Variant {
        status: head.status.as_u16(),
        body_bytes: stored.body().len(),
        memory_bytes: stored.weight(),
        selected: head.vary.matches(&question.headers),
        vary: field("vary").unwrap_or_default(),
        fresh: ttl > 0,
        lifetime_seconds: head.lifetime.as_secs(),
        lifetime_from: format!("{:?}", head.lifetime_from),
        age_seconds: head.current_age(now).as_secs(),
        initial_age_seconds: head.initial_age.as_secs(),
        ttl_seconds: ttl,
        stale_while_revalidate_seconds: head.stale_while_revalidate.as_secs(),
        stale_if_error_seconds: head.stale_if_error.as_secs(),
        arrived_unix_seconds: arrived.as_secs(),
        etag: field("etag"),
        last_modified: field("last-modified"),
        cache_control: field("cache-control"),
        tags: tags(stored.surrogate()),
    }
}

/// Labels for purging: `Surrogate-Key` is separated by spaces, `Cache-Tag` by commas.
fn tags(surrogate: &HeaderMap) -> Vec<String> {
    let of = |name: &str, separator: fn(char) -> bool| {
        surrogate
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|line| line.split(separator).map(str::trim).map(str::to_owned))
            .filter(|tag| !tag.is_empty())
            .collect::<Vec<_>>()
    };
    let mut tags = of("surrogate-key", |c| c == ' ');
    tags.extend(of("cache-tag", |c| c == ','));
    tags
}

fn origin(upstream: &crate::upstream::Upstream) -> Origin {
    let (max_requests, max_queue) = upstream.bulkhead.limits();
    Origin {
        name: upstream.name.clone(),
        address: upstream.address.clone(),
        in_flight: upstream.bulkhead.in_flight(),
        waiting: upstream.bulkhead.waiting(),
        max_requests,
        max_queue,
        idle_connections: upstream.pools.idle(),
    }
}
