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

/// The same of what has to be taken for stale although it may be fresh: whether it could stand in
/// for an error of upstream at all.
pub fn has_grant_on_error(stored: &StoredHead, policy: &Policy) -> bool {
    !stored.no_cache && !stored.stale_if_error.min(policy.stale_max).is_zero()
}

/// The same where upstream cannot be reached.
pub fn has_grant_when_disconnected(stored: &StoredHead, policy: &Policy) -> bool {
    let limit = stored.stale_if_error.max(stored.stale_if_disconnected);
    !stored.no_cache && !limit.min(policy.stale_max).is_zero()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, exchange_at, headers, secs, store, store_for};

    #[test]
    fn the_moment_age_reaches_the_lifetime_it_is_stale() {
        let stored = store("Cache-Control: max-age=60", &Policy::cdn()).unwrap();
        assert!(is_fresh(&stored, at(59)));
        assert!(!is_fresh(&stored, at(60))); // §4.2: lifetime > age
    }

    #[test]
    fn no_cache_is_fresh_and_yet_not_served_without_asking() {
        let stored = store("Cache-Control: max-age=60, no-cache\nETag: \"a\"", &Policy::cdn());
        let stored = stored.unwrap();
        assert!(is_fresh(&stored, at(0)));
        assert!(!may_serve_fresh(&stored, at(0)));
        assert!(!may_serve_when_disconnected(&stored, &Policy::cdn(), at(0)));
    }

    #[test]
    fn each_grant_ends_at_its_limit() {
        let response = "Cache-Control: max-age=60, stale-while-revalidate=5, stale-if-error=10";
        let policy = Policy::cdn();
        let stored = store(response, &policy).unwrap();
        let rows = [
            // second; while revalidating, on error
            (59, false, true), // fresh: needs no grant, and is good on error
            (60, true, true),
            (64, true, true),
            (65, false, true),
            (69, false, true),
            (70, false, false),
        ];
        for (second, revalidating, on_error) in rows {
            let now = at(second);
            assert_eq!(may_serve_while_revalidate(&stored, &policy, now), revalidating, "{second}");
            assert_eq!(may_serve_stale_on_error(&stored, &policy, now), on_error, "{second}");
            assert_eq!(may_serve_when_disconnected(&stored, &policy, now), on_error, "{second}");
        }
    }

    #[test]
    fn what_is_taken_for_stale_stands_in_only_by_a_grant() {
        let rows = [
            // profile, response; on error, when disconnected
            (Policy::cdn(), "Cache-Control: max-age=60", true, true),
            (Policy::cdn(), "Cache-Control: max-age=60, stale-if-error=0", false, false),
            (Policy::cdn(), "Cache-Control: max-age=60, must-revalidate", false, false),
            (Policy::cdn(), "Cache-Control: max-age=60, no-cache\nETag: \"a\"", false, false),
            (Policy::rfc(), "Cache-Control: max-age=60", false, true),
            (Policy::rfc(), "Cache-Control: max-age=60, stale-if-error=9", true, true),
        ];
        for (policy, response, on_error, disconnected) in rows {
            let stored = store(response, &policy).unwrap();
            assert_eq!(has_grant_on_error(&stored, &policy), on_error, "{response}");
            assert_eq!(has_grant_when_disconnected(&stored, &policy), disconnected, "{response}");
        }
    }

    #[test]
    fn profiles_differ_in_what_an_error_is() {
        let stored = |policy: &Policy| store("Cache-Control: max-age=60", policy).unwrap();
        let (cdn, rfc) = (Policy::cdn(), Policy::rfc());
        let hour_later = at(3_660);
        assert!(may_serve_stale_on_error(&stored(&cdn), &cdn, hour_later));
        assert!(!may_serve_stale_on_error(&stored(&rfc), &rfc, hour_later));
        assert!(may_serve_when_disconnected(&stored(&cdn), &cdn, hour_later));
        assert!(may_serve_when_disconnected(&stored(&rfc), &rfc, hour_later));
        let after_stale_max = at(60 + 7 * 86_400);
        assert!(!may_serve_when_disconnected(&stored(&rfc), &rfc, after_stale_max));
    }

    #[test]
    fn max_stale_stops_at_must_revalidate_and_at_the_cap() {
        let policy = Policy { stale_max: secs(20), ..Policy::cdn() };
        let may = |response: &str, second, max_stale| {
            let stored = store(response, &policy).unwrap();
            may_serve_max_stale(&stored, secs(max_stale), &policy, at(second))
        };
        assert!(may("Cache-Control: max-age=60\nETag: \"a\"", 69, 10));
        assert!(!may("Cache-Control: max-age=60\nETag: \"a\"", 70, 10));
        assert!(!may("Cache-Control: max-age=60\nETag: \"a\"", 80, 999));
        for strict in ["must-revalidate", "proxy-revalidate", "s-maxage=60"] {
            let response = format!("Cache-Control: max-age=60, {strict}\nETag: \"a\"");
            assert!(!may(&response, 61, 10), "{strict}");
        }
    }

    #[test]
    fn of_matching_variants_the_most_recent_is_selected() {
        let stored = |request, response: &str| {
            let response = format!("Cache-Control: max-age=60\n{response}");
            store_for(request, 200, &response, &Policy::cdn()).unwrap()
        };
        let late = exchange_at(1);
        let mut variants = [
            stored("Foo: 1", "Vary: Foo\nDate: @-5"),
            stored("Foo: 2", "Vary: Foo\nDate: @-3"),
            stored("Bar: 9", "Vary: Bar\nDate: @-4"),
        ];
        let rows = [
            ("Foo: 1", Some(0)),
            ("Foo: 2", Some(1)),
            ("Foo: 3", None),
            ("Foo: 1\nBar: 9", Some(2)), // matches two: §4.1, by Date
            ("Foo: 2\nBar: 9", Some(1)),
        ];
        for (request, want) in rows {
            assert_eq!(select(&variants, &headers(request)), want, "{request:?}");
        }
        // Equal dates: by arrival. An older date stays older, however late it comes.
        (variants[0].date, variants[0].arrived) = (variants[2].date, late.received.mono);
        assert_eq!(select(&variants, &headers("Foo: 1\nBar: 9")), Some(0));
        variants[0].date -= secs(1);
        assert_eq!(select(&variants, &headers("Foo: 1\nBar: 9")), Some(2));
        assert_eq!(select::<StoredHead>(&[], &HeaderMap::new()), None);
    }
}
