//! Why one URL gets what it gets at this edge: the key, what is stored under it, the arithmetic
//! of freshness, and what the next request will get.
//!
//! Asks the very functions that the road asks, and changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, Method, Uri};
use meridian_edge_rules::decide::{Decision, Forward, Lookup};
use meridian_edge_rules::exchange::RequestView;
use meridian_edge_rules::groups::{CACHE_GROUPS, groups};
use meridian_edge_rules::target::write_target;
use meridian_edge_rules::time::Now;
use serde::Serialize;
use serde_json::json;

use crate::core::Edge;
use crate::epochs::{Newest, Standing};
use crate::key::{CacheKey, place};
use crate::respond::suffices;
use crate::reuse::missing;
use crate::route::{self, Site};
use crate::scope::{Group, Place, Selector};
use crate::settle;
use crate::site_rules::Matched;
use crate::store::Stored;
use crate::stored_body::StoredBody;
use crate::tags::tags;
use crate::upstream::Upstream;

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
    /// The site's rules that match such a request, in the order in which they apply.
    rules: Vec<RuleTold>,
    /// Every stored variant, the newest last.
    stored: Vec<Variant>,
    /// Whether a fetch for it may not be shared, as answers before it could not.
    kept_apart: bool,
    /// Why the last answer was not stored, as far as it is remembered.
    not_stored: Option<Unstored>,
    origins: Vec<Origin>,
    purges: Purging,
    next: Next,
}

/// A rule that matches.
#[derive(Debug, Serialize)]
struct RuleTold {
    name: String,
    /// It applies if the response is one that it asks for, too.
    asks_response: bool,
    does: Vec<String>,
}

/// The rules under which a response was stored.
#[derive(Debug, Serialize)]
struct StoredUnder {
    names: Vec<String>,
    /// Whether the rules of the site are still those: what is stored keeps what it was stored
    /// with, until it is fetched or validated again.
    current: bool,
}

/// Why an answer was not stored.
#[derive(Debug, Serialize)]
struct Unstored {
    /// As `detail` in `Cache-Status`.
    reason: &'static str,
    seconds_ago: u64,
}

/// One stored response.
#[derive(Debug, Serialize)]
struct Variant {
    status: u16,
    body_bytes: u64,
    /// Of these, what is held here: less, if only parts are, and none, if slices are stored.
    held_bytes: u64,
    /// Which parts, where it is not the whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<String>,
    /// The size of its slices, which are stored by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    slice_bytes: Option<u64>,
    /// What was made of it for clients that accept a coding, by its name.
    coded_bytes: BTreeMap<&'static str, u64>,
    memory_bytes: u32,
    /// Whether this request selects it.
    selected: bool,
    vary: String,
    /// RFC 9111 §4.2: fresh while `age` is below `lifetime`.
    fresh: bool,
    lifetime_seconds: u64,
    /// Where the lifetime comes from.
    lifetime_from: &'static str,
    /// The rules that took part; `null`: none did.
    rules: Option<StoredUnder>,
    age_seconds: u64,
    /// Of the age, what it had when it arrived.
    initial_age_seconds: u64,
    ttl_seconds: i64,
    /// Of that, what `Date` says: the time it arrived less the time it was made.
    apparent_age_seconds: u64,
    /// How long it has been here: the age is this and the initial age.
    resident_seconds: u64,
    /// `no-cache`: validated before each use.
    no_cache: bool,
    stale_while_revalidate_seconds: u64,
    stale_if_error_seconds: u64,
    /// From now, until when it is served on each occasion: while a new one is fetched, in the place
    /// of an error, and where no origin can be reached. 0: not, or no more.
    stale_while_revalidate_ends_in_seconds: u64,
    stale_if_error_ends_in_seconds: u64,
    stale_if_disconnected_ends_in_seconds: u64,
    arrived_unix_seconds: u64,
    etag: Option<String>,
    last_modified: Option<String>,
    cache_control: Option<String>,
    tags: Vec<String>,
    /// `current`, `outdated` (softly purged) or `purged`.
    standing: &'static str,
    /// Purges applied when its fetch began: those after it count.
    stamp: u64,
    /// What a purge can name it by, and the newest that did.
    selectors: Vec<Matching>,
}

/// A selector that matches a stored response.
#[derive(Debug, Serialize)]
struct Matching {
    selector: serde_json::Value,
    /// The newest hard purge that named it and is remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    hard: Option<Purge>,
    /// The newest soft one.
    #[serde(skip_serializing_if = "Option::is_none")]
    soft: Option<Purge>,
    /// What it has done to the stored response: `purged`, `outdated` or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<&'static str>,
}

/// A purge.
#[derive(Debug, Serialize)]
struct Purge {
    /// Its number at this edge.
    epoch: u64,
    /// Its id in the control plane, as long as it is remembered.
    id: Option<String>,
}

/// What this edge knows of purges.
#[derive(Debug, Serialize)]
struct Purging {
    /// Applied so far.
    epoch: u64,
    /// Every purge acknowledged longer ago than this is applied. `null`: nothing is known.
    staleness_seconds: Option<f64>,
    /// What the route does about that; `null`: the edge follows no control plane.
    control: Option<Control>,
}

/// What a route does while purges may have been missed.
#[derive(Debug, Serialize)]
struct Control {
    /// `serve_stale`, `revalidate` or `fail_closed`.
    loss: &'static str,
    /// It does so once the knowledge may be older than this.
    max_lag_seconds: f64,
    /// What is left of the lease, which closes a `fail_closed` route in any case; `null`: there is
    /// none.
    lease_seconds: Option<f64>,
    /// Whether that is so now.
    lagging: bool,
    /// The site was opened just now, and is closed until the control plane has heard of it.
    held: bool,
}

#[derive(Debug, Serialize)]
struct Origin {
    name: String,
    /// Another edge of this CDN, which is asked instead of an origin.
    shield: bool,
    address: String,
    in_flight: u32,
    waiting: u32,
    max_requests: u32,
    max_queue: u32,
    idle_connections: usize,
    /// Whether it looks alive.
    up: bool,
    breaker: Breaker,
    /// What half of its answers, and all but one in a hundred, take to begin.
    latency_seconds: [Option<f64>; 2],
    /// How long the next may take to begin.
    first_byte_timeout_seconds: f64,
    /// Whether a request that fails goes out once more.
    retries: bool,
}

/// A breaker.
#[derive(Debug, Serialize)]
struct Breaker {
    /// `closed`, `ramping-up`, `open` or `half-open`.
    state: &'static str,
    /// What an operator has said: `auto`, `open` or `closed`.
    set: &'static str,
    /// Whether requests of this site obey it.
    enabled: bool,
}

/// What the next such request gets.
#[derive(Debug, Serialize)]
struct Next {
    /// `hit`, `forward` or `unsatisfiable`.
    decision: &'static str,
    /// Which of `stored` the request selects, counted from 0.
    variant: Option<usize>,
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
pub(crate) fn explain(edge: &Edge, question: &mut Question) -> Option<Explanation> {
    let sites = edge.sites.load();
    let site = sites.route(route::host(&question.target, &question.headers))?;
    site.languages.settle(&mut question.headers);
    let question = &*question;
    let now = edge.clock.now();
    let matched = settle::matched(site, &Method::GET, &question.target, &question.headers);
    let mut key = String::new();
    settle::write_key(&mut key, site, "http", &question.target, &question.headers, matched);
    let variants = edge.store.variants(&key);
    Some(Explanation {
        edge: edge.name.clone(),
        url: question.url.clone(),
        site: site.name.clone(),
        rules: rules(site, matched),
        stored: variants
            .iter()
            .map(|stored| variant(edge, site, &key, stored, question, now))
            .collect(),
        purges: Purging {
            epoch: edge.epochs.current(),
            staleness_seconds: edge.control_staleness().map(|known| known.as_secs_f64()),
            control: site.control.as_ref().map(|control| {
                let plan = control.plan(&site.rules, matched);
                Control {
                    loss: plan.loss.token(),
                    max_lag_seconds: plan.limit.time().as_secs_f64(),
                    lease_seconds: edge.lag.lease_left(now.mono).map(|left| left.as_secs_f64()),
                    lagging: site.lost(matched, now.mono).is_some(),
                    held: control.held,
                }
            }),
        },
        not_stored: edge.not_stored.last(&CacheKey::from(key.as_str())).map(|(why, at)| Unstored {
            reason: why.0,
            seconds_ago: now.mono.saturating_duration_since(at).as_secs(),
        }),
        kept_apart: edge.collapse.is_apart(&CacheKey::from(key.as_str()), now.mono),
        origins: shields(edge, site, question, now)
            .into_iter()
            .chain(site.origins_for(matched))
            .map(|upstream| origin(upstream, site, now))
            .collect(),
        next: next(edge, site, &key, &variants, question, matched, now),
        key,
    })
}

/// The shields that are asked before the origins.
fn shields<'e>(
    edge: &'e Edge,
    site: &Site,
    question: &Question,
    now: Now,
) -> Vec<&'e Arc<Upstream>> {
    if !site.shielded {
        return Vec::new();
    }
    let mut target = String::new();
    write_target(&mut target, question.target.path(), question.target.query());
    edge.shields.in_order(&site.name, &target, now.mono)
}

fn next(
    edge: &Edge,
    site: &Site,
    key: &str,
    variants: &[Stored],
    question: &Question,
    matched: Matched,
    now: Now,
) -> Next {
    let request = RequestView { method: &Method::GET, headers: &question.headers };
    let found = edge.store.lookup(key, &question.headers, now);
    let selected = match &found {
        Lookup::Found(stored) => Some(stored.head().arrived),
        Lookup::UriMiss | Lookup::VaryMiss => None,
    };
    let variant = variants.iter().position(|stored| {
        Some(stored.head().arrived) == selected && stored.head().vary.matches(&question.headers)
    });
    let forwarded = |decision, forward: Option<&Forward<Stored>>, refreshes: bool| Next {
        decision,
        variant,
        fwd: forward.filter(|_| !refreshes).map(|forward| forward.why.token()),
        validates: forward.is_some_and(|forward| forward.validate.is_some()),
        refreshes,
        stale_may_stand_in: forward.is_some_and(|forward| forward.stale.is_some()),
    };
    match settle::decision(site, matched, &request, found, now) {
        Decision::Serve { stored, .. }
            if !suffices(&request, &stored)
                && !matches!(stored.body(), StoredBody::Sliced { .. }) =>
        {
            forwarded("forward", Some(&missing(None)), false)
        }
        Decision::Serve { revalidate, .. } => {
            forwarded("hit", revalidate.as_ref(), revalidate.is_some())
        }
        Decision::Forward(forward) => forwarded("forward", Some(&forward), false),
        Decision::Unsatisfiable => forwarded("unsatisfiable", None, false),
    }
}

fn rules(site: &Site, matched: Matched) -> Vec<RuleTold> {
    let told = site.rules.names(matched).map(|(name, asks_response)| RuleTold {
        name: name.to_owned(),
        asks_response,
        does: site.rules.does(name),
    });
    told.collect()
}

fn stored_under(site: &Site, stored: &Stored) -> Option<StoredUnder> {
    stored.head().amended.as_ref().map(|amended| StoredUnder {
        names: amended.rules.iter().map(ToString::to_string).collect(),
        current: amended.set == site.rules.set(),
    })
}

fn variant(
    edge: &Edge,
    site: &Site,
    key: &str,
    stored: &Stored,
    question: &Question,
    now: Now,
) -> Variant {
    let head = stored.head();
    let field = |name: &str| {
        head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let ttl = head.ttl(now);
    let ends_in = |limit: Duration| {
        let limit = limit.min(site.policy.stale_max);
        let ends = head.lifetime.saturating_add(limit).saturating_sub(head.current_age(now));
        if head.no_cache { 0 } else { ends.as_secs() }
    };
    let arrived = head.received.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Variant {
        status: head.status.as_u16(),
        body_bytes: stored.body().len(),
        held_bytes: stored.body().held(),
        parts: match stored.body() {
            StoredBody::Parts(parts) => {
                parts.ranges().map(|range| format!("{}-{}", range.first, range.last)).collect()
            }
            StoredBody::One(_) | StoredBody::Many { .. } | StoredBody::Sliced { .. } => Vec::new(),
        },
        slice_bytes: match stored.body() {
            StoredBody::Sliced { size, .. } => Some(*size),
            StoredBody::One(_) | StoredBody::Many { .. } | StoredBody::Parts(_) => None,
        },
        coded_bytes: coded_bytes(stored),
        memory_bytes: stored.weight(),
        selected: head.vary.matches(&question.headers),
        vary: field("vary").unwrap_or_default(),
        fresh: ttl > 0,
        lifetime_seconds: head.lifetime.as_secs(),
        lifetime_from: head.lifetime_from.token(),
        rules: stored_under(site, stored),
        age_seconds: head.current_age(now).as_secs(),
        initial_age_seconds: head.initial_age.as_secs(),
        ttl_seconds: ttl,
        apparent_age_seconds: head.received.duration_since(head.date).unwrap_or_default().as_secs(),
        resident_seconds: now.mono.saturating_duration_since(head.arrived).as_secs(),
        no_cache: head.no_cache,
        stale_while_revalidate_ends_in_seconds: ends_in(head.stale_while_revalidate),
        stale_if_error_ends_in_seconds: ends_in(head.stale_if_error),
        stale_if_disconnected_ends_in_seconds: ends_in(
            head.stale_if_error.max(head.stale_if_disconnected),
        ),
        stale_while_revalidate_seconds: head.stale_while_revalidate.as_secs(),
        stale_if_error_seconds: head.stale_if_error.as_secs(),
        arrived_unix_seconds: arrived.as_secs(),
        etag: field("etag"),
        last_modified: field("last-modified"),
        cache_control: field("cache-control"),
        tags: tags(stored.surrogate()).map(str::to_owned).collect(),
        standing: match edge.store.standing(key, stored) {
            Standing::Current => "current",
            Standing::Outdated => "outdated",
            Standing::Purged => "purged",
        },
        stamp: stored.mark().stamp(),
        selectors: selectors(edge, &place(key), stored),
    }
}

fn coded_bytes(stored: &Stored) -> BTreeMap<&'static str, u64> {
    let all = stored.forms().into_iter().flat_map(|forms| forms.bodies().all());
    all.map(|(coding, coded)| (coding.token(), coded.length)).collect()
}

/// What a purge can name `stored` by: what is always so, and what has ever been named.
fn selectors(edge: &Edge, place: &Place<'_>, stored: &Stored) -> Vec<Matching> {
    let always = [Selector::All, Selector::Site(place.site), Selector::Url(*place)];
    let mut all: Vec<(Selector<'_>, Newest)> =
        always.into_iter().map(|selector| (selector, edge.epochs.of(selector))).collect();
    let named = edge.epochs.prefixes(place).into_iter();
    all.extend(
        named.filter(|(selector, _)| !matches!(selector, Selector::Prefix { path: "", .. })),
    );
    let tags = tags(stored.surrogate()).map(Selector::Tag);
    all.extend(tags.map(|selector| (selector, edge.epochs.of(selector))));
    let groups = groups(&stored.head().headers, &CACHE_GROUPS);
    let Place { site, host, .. } = *place;
    let groups = groups.iter().map(|name| Selector::Group(Group { site, host, name }));
    all.extend(groups.map(|selector| (selector, edge.epochs.of(selector))));
    let purge = |epoch: u64| (epoch > 0).then(|| Purge { epoch, id: edge.purges.operation(epoch) });
    let stamp = stored.mark().stamp();
    let matching = all.into_iter().map(|(selector, newest)| Matching {
        selector: told(selector),
        hard: purge(newest.hard),
        soft: purge(newest.soft),
        effect: match newest {
            Newest { hard, .. } if hard > stamp => Some("purged"),
            Newest { soft, .. } if soft > stamp => Some("outdated"),
            Newest { .. } => None,
        },
    });
    matching.collect()
}

/// A selector as the control API takes it, with the site's name where it takes a host.
fn told(selector: Selector<'_>) -> serde_json::Value {
    match selector {
        Selector::All => json!({"all": true}),
        Selector::Site(site) => json!({"host": site}),
        Selector::Url(Place { host, target, .. }) => json!({"url": format!("{host}{target}")}),
        Selector::Prefix { site, path } => {
            json!({"prefix": format!("{}{path}", site.unwrap_or_default())})
        }
        Selector::Tag(tag) => json!({"tag": tag}),
        // Only the origin itself can name it (RFC 9875 §3).
        Selector::Group(Group { name, .. }) => json!({"group": name}),
    }
}

fn origin(upstream: &Upstream, site: &Site, now: Now) -> Origin {
    let guard = &upstream.guard;
    let (phase, forced, _probes) = guard.phase();
    let seconds = |share| guard.latency(share).map(|latency| latency.as_secs_f64());
    let (max_requests, max_queue) = upstream.bulkhead.limits();
    Origin {
        name: upstream.name.clone(),
        shield: upstream.is_shield,
        address: upstream.address.clone(),
        in_flight: upstream.bulkhead.in_flight(),
        waiting: upstream.bulkhead.waiting(),
        max_requests,
        max_queue,
        idle_connections: upstream.pools.idle(),
        up: guard.is_up(now.mono),
        breaker: Breaker {
            state: phase.token(),
            set: forced.token(),
            enabled: guard.has_breaker(site.resilience.is_on),
        },
        latency_seconds: [seconds(0.5), seconds(0.99)],
        first_byte_timeout_seconds: guard.first_byte(now.mono).as_secs_f64(),
        retries: guard.retry.enabled.unwrap_or(site.resilience.is_on),
    }
}
