//! From the store: at once, or after all.
//!
//! What is held of a stored response may not be what a request asks for; it then goes forward
//! (`fwd=partial`), to be answered from elsewhere.

use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use meridian_edge_rules::cache_status::CacheStatus;
use meridian_edge_rules::decide::{Decision, Forward, Fwd};
use meridian_edge_rules::exchange::RequestView;

use crate::asked::Asked;
use crate::body::Body;
use crate::core::Core;
use crate::counters::Lagging;
use crate::key::CacheKey;
use crate::outcome::Outcome;
use crate::respond;
use crate::route::Site;
use crate::settle;
use crate::site_rules::Matched;
use crate::store::Stored;
use crate::tell;

/// From the store, at once.
pub(crate) fn hit(
    core: &Core,
    site: &Site,
    key: &str,
    request: &RequestView<'_>,
    stored: &Stored,
    (age, ttl): (Duration, i64),
    (matched, now): (Matched, Instant),
) -> Response<Body> {
    let told = site.cache_status(&core.edge.name, Some(key));
    let lag = site.lost(matched, now).and_then(|_| {
        core.lagging(site, Lagging::Served);
        site.lag_in_words(now)
    });
    let status = CacheStatus { hit: true, ttl: Some(ttl), detail: lag.as_deref(), ..told };
    core.counted(
        site,
        outcome(ttl),
        respond::from_stored(core, site, request, stored, age, &status),
    )
}

/// `only-if-cached`, and it is not (RFC 9111 §5.2.1.7).
pub(crate) fn unsatisfiable(core: &Core, site: &Site, request: &RequestView<'_>) -> Response<Body> {
    let detail = "only-if-cached was asked for, and nothing usable is stored";
    let status = StatusCode::GATEWAY_TIMEOUT;
    let (edge, told) = (&core.edge.name, ("only_if_cached", detail));
    let error = "proxy_internal_response"; // without asking anybody
    let mut response = respond::own_error(edge, error, request.method, status, told);
    let told = site.cache_status(&core.edge.name, None);
    let told = CacheStatus { detail: Some("only-if-cached"), ..told };
    respond::add_cache_status(response.headers_mut(), &told);
    core.counted(site, Outcome::Refused, response)
}

/// How a request ended that the store answered.
pub(crate) const fn outcome(ttl: i64) -> Outcome {
    if ttl > 0 { Outcome::Hit } else { Outcome::HitStale }
}

/// How to ask upstream for what is missing of a stored response. What is to be refreshed in the
/// background is rather validated at once.
pub(crate) fn missing(revalidate: Option<Forward<Stored>>) -> Forward<Stored> {
    revalidate.unwrap_or(Forward { why: Fwd::Partial, validate: None, stale: None, store: true })
}

/// From the store after all; else how to ask upstream by now.
pub(crate) fn stored_meanwhile(
    core: &Core,
    site: &Site,
    key: &CacheKey,
    asked: &Asked,
) -> Result<Response<Body>, Option<Forward<Stored>>> {
    let view = RequestView { method: &asked.method, headers: &asked.headers };
    let now = core.now();
    let found = core.edge.store.lookup(key.as_str(), &asked.headers, now);
    match settle::decision(site, asked.matched, &view, found, now) {
        Decision::Serve { stored, age, ttl, .. } if respond::suffices(&view, &stored) => {
            let place = (asked.matched, now.mono);
            let mut response = hit(core, site, key.as_str(), &view, &stored, (age, ttl), place);
            let asker = asked.asker.as_deref();
            tell::of_stored(core, asker, key.as_str(), &stored, &mut response);
            Ok(response)
        }
        Decision::Serve { revalidate, .. } => Err(Some(missing(revalidate))),
        Decision::Forward(again) => Err(Some(again)),
        Decision::Unsatisfiable => Err(None),
    }
}
