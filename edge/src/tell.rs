//! What this edge, as a shield, tells another edge beside the answer itself: what its purges need
//! (tags), which purges it takes into account, and how long it is fresh here.
//!
//! What is served has been checked against every purge that the child needs: it is the child's
//! request that waited for these, or went past the store. So what stands is as good as fetched
//! then. Only what a soft purge has outdated is older than it might be: its own stamp says how old.
//!
//! # Invariants
//! - Nobody but another edge of this CDN is told anything here.

use http::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use meridian_edge_rules::stored::StoredHead;

use crate::collapse::Partial;
use crate::core::Core;
use crate::epochs::Standing;
use crate::nodes::{Asker, Child, FILL, LIFETIME};
use crate::store::Stored;

/// Of an answer that an origin gave to this very request.
pub(crate) fn of_origin<B>(asker: &Asker, response: &mut Response<B>) {
    if let Some(child) = asker {
        child.tell_enough(response.headers_mut());
    }
}

/// Of what is stored under `key`.
pub(crate) fn of_stored<B>(
    core: &Core,
    asker: Option<&Child>,
    key: &str,
    stored: &Stored,
    response: &mut Response<B>,
) {
    let Some(child) = asker else { return };
    let fields = response.headers_mut();
    if core.edge.store.standing(key, stored) == Standing::Current {
        child.tell_enough(fields);
    } else {
        tell_older(core, stored.mark().stamp(), fields);
    }
    tell_lifetime(stored.head(), fields);
    tell_labels(stored.surrogate(), fields);
}

/// Of what is still arriving.
pub(crate) fn of_partial<B>(asker: &Asker, partial: &Partial, response: &mut Response<B>) {
    let Some(child) = asker else { return };
    let fields = response.headers_mut();
    // Who waits for a flight gets what it brings only if that began after every purge that was
    // applied here when they came, and that matters to them.
    child.tell_enough(fields);
    tell_lifetime(&partial.head, fields);
    tell_labels(&partial.surrogate, fields);
}

fn tell_older(core: &Core, stamp: u64, fields: &mut HeaderMap) {
    let place = core.edge.cursors.of_stamp(stamp);
    if let Some(Ok(place)) = place.map(|place| HeaderValue::from_str(place.as_str())) {
        fields.insert(FILL, place);
    }
}

/// And by which fields: what rules made of these for clients, the other edge makes of them itself.
fn tell_lifetime(head: &StoredHead, fields: &mut HeaderMap) {
    if head.amended.is_some() {
        let original = head.original_headers();
        for name in [header::CACHE_CONTROL, header::EXPIRES] {
            fields.remove(&name);
            for value in original.get_all(&name) {
                fields.append(name.clone(), value.clone());
            }
        }
    }
    fields.insert(LIFETIME, HeaderValue::from(head.lifetime.as_secs()));
}

fn tell_labels(surrogate: &HeaderMap, fields: &mut HeaderMap) {
    let told: Vec<&HeaderName> =
        surrogate.keys().filter(|name| !fields.contains_key(*name)).collect();
    for name in told {
        for value in surrogate.get_all(name) {
            fields.append(name.clone(), value.clone());
        }
    }
}
