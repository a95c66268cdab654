//! From the store: at once, or after all.
//!
//! What is held of a stored response may not be what a request asks for; it then goes forward
//! (`fwd=partial`), to be answered from elsewhere.

use std::time::Duration;

use http::Response;
use meridian_edge_rules::cache_status::CacheStatus;
use meridian_edge_rules::decide::{Decision, Forward, Fwd};
use meridian_edge_rules::exchange::RequestView;

use crate::asked::Asked;
use crate::body::Body;
use crate::core::Core;
use crate::key::CacheKey;
use crate::outcome::Outcome;
use crate::respond;
use crate::route::Site;
use crate::settle;
use crate::store::Stored;
use crate::tell;

/// From the store, at once.
pub(crate) fn hit(
    core: &Core,
    site: &Site,
    key: &str,
    request: &RequestView<'_>,
    stored: &Stored,
    age: Duration,
    ttl: i64,
) -> Response<Body> {
    let told = site.cache_status(&core.edge.name, Some(key));
    let status = CacheStatus { hit: true, ttl: Some(ttl), ..told };
    core.counted(
        site,
        outcome(ttl),
        respond::from_stored(core, site, request, stored, age, &status),
    )
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
            let mut response = hit(core, site, key.as_str(), &view, &stored, age, ttl);
            let asker = asked.asker.as_deref();
            tell::of_stored(core, asker, key.as_str(), &stored, &mut response);
            Ok(response)
        }
        Decision::Serve { revalidate, .. } => Err(Some(missing(revalidate))),
        Decision::Forward(again) => Err(Some(again)),
        Decision::Unsatisfiable => Err(None),
    }
}
