//! What a site decides where the standards leave a choice.
//!
//! Both profiles are sets of defaults, nothing else; no rule asks which profile it is in.

use std::time::Duration;

use http::StatusCode;

use crate::language::Reading;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// The choices of one site.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Share of the time since `Last-Modified` that a response without a stated lifetime stays
    /// fresh (§4.2.2). 0 turns heuristics off.
    pub heuristic_fraction: f64,
    /// Cap of heuristic lifetimes.
    pub heuristic_max: Duration,
    /// Lifetime of a response that states none and gives no ground for a heuristic, if its status
    /// is cacheable by default. `None`: such a response is never reused without asking.
    pub default_lifetime: Option<Duration>,
    /// Stores responses with `Set-Cookie`, as §7.3 allows.
    pub store_set_cookie: bool,
    /// Stores errors that speak of the request that provoked them, such as 400 and 431, where they
    /// state a lifetime: one client's fields then decide what all get.
    pub store_provoked_errors: bool,
    /// Obeys `Cache-Control` and `Pragma` of requests. `only-if-cached` is always obeyed.
    pub honour_client_directives: bool,
    /// How long past its lifetime a response is used instead of an error, where it does not say
    /// (RFC 5861 §4).
    pub stale_if_error: Duration,
    /// The same where upstream cannot be reached at all (§4.2.4 "disconnected"); the greater of
    /// the two counts then.
    pub stale_if_disconnected: Duration,
    /// Cap on every use of a stale response, whoever allows it.
    pub stale_max: Duration,
    /// Lets a `stale-while-revalidate` or `stale-if-error` that a response states itself hold
    /// beside `s-maxage`, which alone forbids stale use in shared caches (§5.2.2.10).
    pub stale_beside_s_maxage: bool,
    /// Obeys `Surrogate-Control`, below `CDN-Cache-Control` and above `Cache-Control`.
    pub surrogate_control: bool,
    /// Obeys `CDN-Cache-Control` (RFC 9213).
    pub targeted: bool,
    /// Stores the answer to a POST for later GETs, where it says that it stands for its own target
    /// and for how long (RFC 9110 §9.3.3).
    pub store_post: bool,
    /// How requests are told apart by `Accept-Language`.
    pub language: Reading,
    /// Lifetimes of responses that state none, by their status.
    pub negative: Negative,
    /// What rules of the site say in the place of the response.
    pub ruled: Ruled,
}

/// Lifetimes by status, for responses that state none: what fails is not asked for all over again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Negative {
    /// First and last status, and how long. The narrowest range that holds a status counts.
    ranges: Vec<(u16, u16, Duration)>,
}

impl Negative {
    /// For each range of statuses, both ends included, a lifetime.
    pub fn new(ranges: impl IntoIterator<Item = (u16, u16, Duration)>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_by_key(|(first, last, _)| (last.saturating_sub(*first), *first));
        Self { ranges }
    }

    /// How long a response with `status` that states no lifetime is reused.
    pub fn lifetime(&self, status: StatusCode) -> Option<Duration> {
        let code = status.as_u16();
        let found = self.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&code));
        found.map(|(_, _, lifetime)| *lifetime)
    }
}

/// What rules of a site say of one response, above whatever it says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ruled {
    /// It is not stored.
    pub bypass: bool,
    /// How long it is fresh, from its arrival on.
    pub lifetime: Option<Duration>,
    /// Its `no-store`, `no-cache` and `private`, where they mean all of it, are not heard.
    pub unheard: bool,
    /// How long past its lifetime it is served while a new one is fetched.
    pub stale_while_revalidate: Option<Duration>,
    /// How long past its lifetime it is served in the place of an error.
    pub stale_if_error: Option<Duration>,
}

impl Policy {
    /// The careful side where users expect it of a CDN.
    pub fn cdn() -> Self {
        Self {
            heuristic_fraction: 0.1,         // what §4.2.2 names as typical
            heuristic_max: HOUR,             // a wrong guess is gone before the shift ends
            default_lifetime: None,          // what says nothing is asked for every time
            store_set_cookie: false, // a session handed to strangers is the worst that can happen
            store_provoked_errors: false, // a field too many must not take a page from everybody
            honour_client_directives: false, // a reload is no reason to load the origin
            stale_if_error: DAY,     // a night's outage
            stale_if_disconnected: DAY,
            stale_max: 7 * DAY, // beyond a week nobody expects the old page
            stale_beside_s_maxage: true, // an origin that writes both means both
            surrogate_control: true,
            targeted: true,
            store_post: false, // whoever posts does not expect to publish
            // Frameworks break ties by order, and label pages with languages of templates.
            language: Reading { order: true, content: false },
            negative: Negative::new([
                (404, 404, 3 * SECOND), // a missing file is asked for in bursts
                (410, 410, 3 * SECOND),
                (500, 599, SECOND), // one answer a second tells that it is still down
            ]),
            ruled: Ruled::default(),
        }
    }

    /// RFC 9111 to the letter, with every switch the standards allow.
    pub fn rfc() -> Self {
        Self {
            heuristic_max: DAY,
            store_set_cookie: true,
            store_provoked_errors: true,
            stale_if_error: Duration::ZERO, // a 5xx passes unless the response says otherwise
            stale_if_disconnected: 7 * DAY, // §4.2.4 allows it without a bound
            stale_beside_s_maxage: false,   // §4.2.4: s-maxage prohibits
            surrogate_control: false,       // no standard
            store_post: true,
            // RFC 9110 §12.5.4: order cannot be relied upon, weights can.
            language: Reading { order: false, content: true },
            negative: Negative::default(), // §3 asks for a reason that the response gives
            ..Self::cdn()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, headers, secs, store, store_for};
    use crate::freshness::LifetimeSource;
    use crate::storable::NotStorable;

    #[test]
    fn the_narrowest_range_of_statuses_counts() {
        let negative = Negative::new([
            (500, 599, SECOND),
            (503, 503, Duration::ZERO),
            (400, 499, 2 * SECOND),
            (404, 404, 3 * SECOND),
        ]);
        let rows = [(500, Some(1)), (503, Some(0)), (404, Some(3)), (403, Some(2)), (200, None)];
        for (status, want) in rows {
            let got = negative.lifetime(StatusCode::from_u16(status).unwrap());
            assert_eq!(got.map(|lifetime| lifetime.as_secs()), want, "{status}");
        }
    }

    fn ruled(ruled: Ruled) -> Policy {
        Policy { ruled, ..Policy::cdn() }
    }

    fn for_a_minute() -> Policy {
        ruled(Ruled { lifetime: Some(secs(60)), ..Ruled::default() })
    }

    #[test]
    fn a_rules_lifetime_stands_above_whatever_the_response_says_of_lifetimes() {
        let rows = [
            "CDN-Cache-Control: max-age=1",
            "Surrogate-Control: max-age=1",
            "Cache-Control: s-maxage=1, max-age=2",
            "Cache-Control: max-age=0",
            "Expires: @-5",
            "Last-Modified: @-1000",
            "",
        ];
        for response in rows {
            let head = store(response, &for_a_minute()).unwrap();
            let got = (head.lifetime, head.lifetime_from);
            assert_eq!(got, (secs(60), LifetimeSource::Rule), "{response}");
        }
        // It counts from the arrival, however old the response was by then.
        let old = store("Age: 1000\nCache-Control: max-age=2000", &for_a_minute()).unwrap();
        assert_eq!((old.current_age(at(5)), old.ttl(at(5))), (secs(1005), 55));
        // A status that is not cacheable by default has a stated lifetime now.
        assert!(store_for("", 302, "", &for_a_minute()).is_ok());
    }

    #[test]
    fn what_forbids_storing_still_does_until_a_rule_lifts_it_in_words() {
        let lifted =
            Policy { ruled: Ruled { unheard: true, ..for_a_minute().ruled }, ..Policy::cdn() };
        let rows = [
            // response, without and with `unheard`
            ("Cache-Control: no-store", Err(NotStorable::NoStore), Ok(())),
            ("Cache-Control: private", Err(NotStorable::Private), Ok(())),
            ("CDN-Cache-Control: no-store", Err(NotStorable::NoStore), Ok(())),
            ("Cache-Control: private=\"x-a\"", Ok(()), Ok(())),
            ("Set-Cookie: a=b", Err(NotStorable::SetCookie), Err(NotStorable::SetCookie)),
            ("Vary: *", Err(NotStorable::VaryAny), Err(NotStorable::VaryAny)),
        ];
        for (response, heard, unheard) in rows {
            assert_eq!(store(response, &for_a_minute()).map(drop), heard, "{response}");
            assert_eq!(store(response, &lifted).map(drop), unheard, "{response}");
        }
        // Nor does a rule make what was made for credentials everybody's.
        let with_credentials = store_for("Authorization: x", 200, "", &lifted).map(drop);
        assert_eq!(with_credentials, Err(NotStorable::Authorization));
        let no_cache = "Cache-Control: no-cache\nETag: \"a\"";
        assert!(store(no_cache, &for_a_minute()).unwrap().no_cache);
        assert!(!store(no_cache, &lifted).unwrap().no_cache);
        let named = store("Cache-Control: private=\"x-a\"\nX-A: 1", &lifted).unwrap();
        assert!(!named.headers.contains_key("x-a"), "a field that is private is never stored");
    }

    #[test]
    fn a_rules_stale_limits_stand_above_the_responses_but_below_what_forbids_stale_use() {
        let policy = ruled(Ruled {
            lifetime: Some(secs(60)),
            stale_while_revalidate: Some(secs(5)),
            stale_if_error: Some(secs(7)),
            ..Ruled::default()
        });
        let rows = [
            ("Cache-Control: stale-while-revalidate=50, stale-if-error=70", (5, 7)),
            ("", (5, 7)),
            ("Cache-Control: s-maxage=9", (5, 7)),
            ("Cache-Control: must-revalidate", (0, 0)),
        ];
        for (response, want) in rows {
            let head = store(response, &policy).unwrap();
            let got = (head.stale_while_revalidate.as_secs(), head.stale_if_error.as_secs());
            assert_eq!(got, want, "{response}");
        }
        let capped = Policy { stale_max: secs(3), ..policy };
        assert_eq!(store("", &capped).unwrap().stale_if_error, secs(3));
    }

    #[test]
    fn a_rule_keeps_a_response_out_and_a_304_under_it_leaves_nothing_to_reuse() {
        let bypass = ruled(Ruled { bypass: true, ..Ruled::default() });
        let refused = store("Cache-Control: max-age=60", &bypass).map(drop);
        assert_eq!(refused, Err(NotStorable::Rule));
        let head = store("Cache-Control: max-age=60\nETag: \"a\"", &Policy::cdn()).unwrap();
        let times = crate::fixtures::exchange_at(70);
        let freshened = head.freshened(&headers("ETag: \"a\""), &bypass, &times);
        assert!(freshened.no_cache);
    }
}
