//! What is fetched where not all of a stored response is here, or nothing, and a client asks for a
//! range: the whole, that part, or slices.

use std::sync::Arc;

use http::header;
use meridian_config::edge::RangeFill;
use meridian_edge_rules::decide::{Forward, Fwd};
use meridian_edge_rules::ranges::{Spec, asked as asked_for};

use crate::asked::Asked;
use crate::control_doubt::doubts;
use crate::core::Core;
use crate::course::Course;
use crate::key::CacheKey;
use crate::parts;
use crate::respond::MAX_RANGES;
use crate::route::Site;
use crate::slices;
use crate::store::Stored;

/// Answers a request from less than the whole, if that is how the site wants it.
pub(crate) async fn serve(
    core: &Arc<Core>,
    site: &Arc<Site>,
    key: &CacheKey,
    asked: &Arc<Asked>,
    forward: &Forward<Stored>,
) -> Course {
    let specs = asked_for(&asked.headers, MAX_RANGES);
    if doubts(site, asked.matched, core.now().mono) {
        // Only the whole is validated as one; parts go past the store.
        let is_whole = match &forward.validate {
            Some(stored) => stored.body().is_whole(),
            None => specs.is_empty() && site.ranges.fill != RangeFill::Slices,
        };
        return if is_whole { Course::Whole } else { Course::Pass };
    }
    if forward.why != Fwd::Partial && core.edge.collapse.is_apart(key, core.now().mono) {
        return Course::Whole; // with parts of it stored, it was its size that kept it apart
    }
    if site.ranges.fill == RangeFill::Slices {
        return slices::serve(core, site, key, asked, forward).await;
    }
    let is_conditional = asked.headers.contains_key(header::IF_RANGE);
    let is_pass = site.ranges.fill == RangeFill::Pass;
    match specs[..] {
        [] => Course::Whole,
        [spec]
            if !is_conditional && (is_pass || is_deep(core, site, key, asked, forward, spec)) =>
        {
            parts::serve(core, site, key, asked, forward, spec).await
        }
        _ if is_pass => Course::Pass,
        _ => Course::Whole,
    }
}

/// Whether the whole would be a long time coming before the first byte of the range does.
fn is_deep(
    core: &Core,
    site: &Site,
    key: &CacheKey,
    asked: &Asked,
    forward: &Forward<Stored>,
    spec: Spec,
) -> bool {
    if forward.validate.as_ref().is_some_and(|stored| stored.body().is_whole()) {
        return false; // likely it is all here
    }
    let arriving = core.edge.collapse.arriving(key, &asked.headers);
    let received = arriving.as_ref().map_or(0, |partial| partial.flow.received());
    let length = arriving.and_then(|partial| partial.length);
    let first = match spec {
        Spec::From(first) | Spec::Between(first, _) => Some(first),
        Spec::Suffix(of) => length.map(|length| length.saturating_sub(of)),
    };
    first.is_none_or(|first| first > received.saturating_add(site.ranges.skip))
}
