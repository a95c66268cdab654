//! An answer that may not be stored: why, and who gets it.

use std::sync::Arc;

use http::Response;
use meridian_edge_rules::storable::NotStorable;
use meridian_edge_rules::time::Now;

use crate::body::UpstreamBody;
use crate::collapse::{Landing, Lead};
use crate::core::Core;
use crate::key::CacheKey;
use crate::not_stored::Reason;
use crate::upstream::Upstream;

/// Why an answer is not stored: by HTTP or a rule, because what is stored stands in for it, because
/// it does not fit, or else because it varies by what only the edge says.
pub(crate) fn reason(by: Option<NotStorable>, refused: bool, fits: bool) -> Reason {
    match by {
        Some(why) => Reason(why.token()),
        None if refused => Reason::SERVER_ERROR,
        None if !fits => Reason::MAX_BODY,
        None => Reason::VARY_BY_EDGE,
    }
}

/// Leaves an answer to the leader of which a shield did not tell how old it is. The next may be of
/// known age: nobody is kept apart.
pub(crate) fn leave_unknown(
    core: &Core,
    (lead, key): (&Lead, &CacheKey),
    mut response: Response<UpstreamBody>,
    received: Now,
) {
    core.edge.not_stored.note(key, Reason::UNKNOWN_AGE, received.mono);
    response.extensions_mut().insert(Reason::UNKNOWN_AGE);
    lead.flight.leave(response);
    lead.flight.land(Landing::Private);
}

/// Leaves an answer that is not stored, for this reason, to the leader.
pub(crate) fn leave(
    core: &Core,
    (lead, key): (&Lead, &CacheKey),
    upstream: &Upstream,
    mut response: Response<UpstreamBody>,
    why: Reason,
    received: Now,
) {
    core.edge.not_stored.note(key, why, received.mono);
    response.extensions_mut().insert(why);
    let status = response.status();
    lead.flight.leave(response);
    if status.is_server_error() {
        let upstream = Arc::from(upstream.name.as_str());
        lead.flight.land(Landing::Refused { upstream, status });
    } else {
        core.edge.collapse.keep_apart(key, received.mono);
        lead.flight.land(Landing::Private);
    }
}
