//! Which stored response is the one (§4.1), and may it be used now (§4): fresh, or stale by one of
//! the grants of §4.2.4?
//!
//! # Invariants
//! - Fresh means lifetime greater than age; the moment they are equal it is stale (§4.2).
//! - What needs validation (`no-cache`) is never used by a grant.
//! - Nothing here allocates.

use std::time::Duration;

use http::HeaderMap;

use crate::policy::Policy;
use crate::stored::StoredHead;
use crate::time::Now;

/// Among the stored responses of one key, the most recent that answers `request` (§4.1): by
/// `Date`, then by arrival.
pub fn select<S: AsRef<StoredHead>>(variants: &[S], request: &HeaderMap) -> Option<usize> {
    let matching =
        variants.iter().enumerate().filter(|(_, stored)| stored.as_ref().vary.matches(request));
    let newest = matching.max_by_key(|(_, stored)| {
        let stored = stored.as_ref();
        (stored.date, stored.arrived)
    });
    newest.map(|(at, _)| at)
}

/// Fresh by §4.2. Not yet a permission: see [`may_serve_fresh`].
pub fn is_fresh(stored: &StoredHead, now: Now) -> bool {
    stored.lifetime > stored.current_age(now)
}

/// Fresh, and not bound to be validated first.
pub fn may_serve_fresh(stored: &StoredHead, now: Now) -> bool {
    !stored.no_cache && is_fresh(stored, now)
}

/// Stale by no more than its `stale-while-revalidate` (RFC 5861 §3).
pub fn may_serve_while_revalidate(stored: &StoredHead, policy: &Policy, now: Now) -> bool {
    is_stale_within(stored, stored.stale_while_revalidate.min(policy.stale_max), now)
}

/// Whether it may stand in for an error of upstream, a 5xx or none at all (RFC 5861 §4). What is
/// fresh may, too, where it was going to be validated at a client's wish.
pub fn may_serve_stale_on_error(stored: &StoredHead, policy: &Policy, now: Now) -> bool {
    may_serve_fresh(stored, now)
        || is_stale_within(stored, stored.stale_if_error.min(policy.stale_max), now)
}

/// Whether it may be served because upstream cannot be reached (§4.2.4 "disconnected").
pub fn may_serve_when_disconnected(stored: &StoredHead, policy: &Policy, now: Now) -> bool {
    may_serve_stale_on_error(stored, policy, now)
        || is_stale_within(stored, stored.stale_if_disconnected.min(policy.stale_max), now)
}

/// Stale by no more than a client's `max-stale` (§5.2.1.2), where nothing prohibits it.
pub fn may_serve_max_stale(
    stored: &StoredHead,
    max_stale: Duration,
    policy: &Policy,
    now: Now,
) -> bool {
    !stored.must_revalidate && is_stale_within(stored, max_stale.min(policy.stale_max), now)
}

fn is_stale_within(stored: &StoredHead, limit: Duration, now: Now) -> bool {
    let age = stored.current_age(now);
    !stored.no_cache && age >= stored.lifetime && age < stored.lifetime.saturating_add(limit)
}
