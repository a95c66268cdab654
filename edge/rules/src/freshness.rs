//! Freshness lifetime (§4.2.1), its heuristic stand-in (§4.2.2), and a site's defaults.
//!
//! Answers "for how long", never "is it fresh now": that comparison is [`crate::reusable`]'s.
//!
//! # Invariants
//! - What we cannot read counts as "already stale", never as "nothing was said".
//! - Where a lifetime is stated, neither heuristic nor default is asked; what the site says of a
//!   status goes before the default, and holds where there is no ground for a heuristic.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{EXPIRES, LAST_MODIFIED};

use crate::date;
use crate::exchange::ResponseView;
use crate::list;
use crate::policy::Policy;
use crate::targeted::{Governing, Source};
use crate::time::MAX_DELTA;

/// A freshness lifetime and its ground.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// How long, counted from age zero; at most 2^31 seconds.
    pub length: Duration,
    /// Who says so.
    pub from: LifetimeSource,
}

/// Where a freshness lifetime comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// A rule of the site.
    Rule,
    /// `CDN-Cache-Control` (RFC 9213).
    Targeted,
    /// `Surrogate-Control`.
    Surrogate,
    /// `s-maxage`.
    SMaxage,
    /// `max-age`.
    MaxAge,
    /// `Expires` less `Date`.
    Expires,
    /// A share of the time since `Last-Modified` (§4.2.2).
    Heuristic,
    /// The site's lifetime for such a status.
    Negative,
    /// The site's default.
    Default,
    /// Nobody: the lifetime is zero.
    Unsaid,
}

impl LifetimeSource {
    /// Whether a lifetime is stated (§3), by the response itself or by a rule in its place.
    pub fn is_explicit(self) -> bool {
        match self {
            Self::Rule
            | Self::Targeted
            | Self::Surrogate
            | Self::SMaxage
            | Self::MaxAge
            | Self::Expires => true,
            Self::Heuristic | Self::Negative | Self::Default | Self::Unsaid => false,
        }
    }

    /// The word for logs and `explain`.
    pub fn token(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Targeted => "cdn-cache-control",
            Self::Surrogate => "surrogate-control",
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
            Self::Negative => "negative",
            Self::Default => "default",
            Self::Unsaid => "none",
        }
    }
}

/// The freshness lifetime of `response` in this cache; that of a rule counts from its arrival, every
/// other from age zero. `date` is its `date_value`, `received` when
/// it arrived by the clock on the wall.
pub fn lifetime(
    response: &ResponseView<'_>,
    governing: &Governing,
    policy: &Policy,
    date: SystemTime,
    received: SystemTime,
) -> Lifetime {
    if let Some(length) = policy.ruled.lifetime {
        return Lifetime { length: length.min(MAX_DELTA), from: LifetimeSource::Rule };
    }
    if let Some(stated) = stated(response, governing, date, received) {
        return Lifetime { length: stated.length.min(MAX_DELTA), ..stated };
    }
    let negative = policy.negative.lifetime(response.status);
    // One that was last modified is no failure made up on the spot: §4.2.2 speaks for it.
    if let Some(length) = negative.filter(|_| !response.headers.contains_key(LAST_MODIFIED)) {
        return Lifetime { length: length.min(MAX_DELTA), from: LifetimeSource::Negative };
    }
    let unsaid = Lifetime { length: Duration::ZERO, from: LifetimeSource::Unsaid };
    if !is_heuristically_cacheable(response.status) && !governing.directives.public {
        return unsaid; // §4.2.2
    }
    if let Some(length) = heuristic(response, policy, date, received) {
        return Lifetime { length, from: LifetimeSource::Heuristic };
    }
    match policy.default_lifetime {
        Some(length) => Lifetime { length: length.min(MAX_DELTA), from: LifetimeSource::Default },
        None => unsaid,
    }
}

/// §4.2.1.
fn stated(
    response: &ResponseView<'_>,
    governing: &Governing,
    date: SystemTime,
    received: SystemTime,
) -> Option<Lifetime> {
    let said = &governing.directives;
    let (length, directive) = match (said.s_maxage, said.max_age) {
        (Some(length), _) => (length, LifetimeSource::SMaxage),
        (None, Some(length)) => (length, LifetimeSource::MaxAge),
        (None, None) => {
            let counts = governing.source == Source::CacheControl;
            let length = expires(response, date, received).filter(|_| counts)?;
            return Some(Lifetime { length, from: LifetimeSource::Expires });
        }
    };
    let from = match governing.source {
        Source::Targeted => LifetimeSource::Targeted,
        Source::Surrogate => LifetimeSource::Surrogate,
        Source::CacheControl => directive,
    };
    Some(Lifetime { length, from })
}

/// `Expires` less `Date`. Repeated or unreadable, it has expired (§4.2.1, §5.3).
fn expires(
    response: &ResponseView<'_>,
    date: SystemTime,
    received: SystemTime,
) -> Option<Duration> {
    response.headers.get(EXPIRES)?;
    let line = list::only(response.headers, &EXPIRES);
    let expires = line.and_then(|line| date::parse_at(line.as_bytes(), received));
    Some(expires.and_then(|time| time.duration_since(date).ok()).unwrap_or(Duration::ZERO))
}

/// §4.2.2; `None` if there is no ground for a guess.
fn heuristic(
    response: &ResponseView<'_>,
    policy: &Policy,
    date: SystemTime,
    received: SystemTime,
) -> Option<Duration> {
    let line = list::only(response.headers, &LAST_MODIFIED)?;
    let modified = date::parse_at(line.as_bytes(), received)?;
    let unchanged = date.duration_since(modified).unwrap_or(Duration::ZERO);
    let share = policy.heuristic_fraction.clamp(0.0, 1.0);
    (share > 0.0).then(|| unchanged.mul_f64(share).min(policy.heuristic_max).min(MAX_DELTA))
}

/// The statuses that are cacheable by default (RFC 9110 §15.1).
pub fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{headers, secs, wall};
    use crate::policy::Negative;

    fn lifetime_of(status: u16, response: &str, policy: &Policy) -> (u64, LifetimeSource) {
        let headers = headers(response);
        let response =
            ResponseView { status: StatusCode::from_u16(status).unwrap(), headers: &headers };
        let governing = Governing::of(&headers, policy);
        let Lifetime { length, from } = lifetime(&response, &governing, policy, wall(0), wall(0));
        (length.as_secs(), from)
    }

    #[test]
    fn cdn_cache_control_wins_over_s_maxage_over_max_age_over_expires() {
        let rows = [
            (
                "CDN-Cache-Control: max-age=1\nCache-Control: s-maxage=2, max-age=3",
                (1, LifetimeSource::Targeted),
            ),
            (
                "Surrogate-Control: max-age=9\nCache-Control: s-maxage=2",
                (9, LifetimeSource::Surrogate),
            ),
            ("Cache-Control: s-maxage=2, max-age=3\nExpires: @4", (2, LifetimeSource::SMaxage)),
            ("Cache-Control: s-maxage=20, max-age=3", (20, LifetimeSource::SMaxage)),
            ("Cache-Control: max-age=3\nExpires: @4", (3, LifetimeSource::MaxAge)),
            ("Cache-Control: max-age=3\nExpires: 0", (3, LifetimeSource::MaxAge)), // §5.3
            ("Cache-Control: max-age=0\nExpires: @4", (0, LifetimeSource::MaxAge)),
            ("Cache-Control: max-age=x\nExpires: @4", (0, LifetimeSource::MaxAge)),
            ("Cache-Control: public\nExpires: @4", (4, LifetimeSource::Expires)),
            // RFC 9213 §2.1: Expires is replaced as well, in both directions.
            ("CDN-Cache-Control: public\nExpires: @4", (0, LifetimeSource::Unsaid)),
            ("CDN-Cache-Control: max-age=7\nExpires: @-4", (7, LifetimeSource::Targeted)),
        ];
        for (response, want) in rows {
            assert_eq!(lifetime_of(200, response, &Policy::cdn()), want, "{response:?}");
        }
    }

    #[test]
    fn expires_that_is_past_repeated_or_unreadable_is_zero_and_not_unsaid() {
        let rows = [
            ("Expires: @100", 100),
            ("Expires: @0", 0),
            ("Expires: @-100", 0),
            ("Expires: 0", 0),
            ("Expires: -1", 0),
            ("Expires: tomorrow", 0),
            ("Expires:", 0),
            ("Expires: @100\nExpires: @100", 0),
            ("Expires: Thu, 18 Aug 2050 02:01:18 UTC", 0),
            ("Expires: Mon, 01 Jan 9999 00:00:00 GMT", 0), // it is a Friday
            ("Expires: Fri, 01 Jan 9999 00:00:00 GMT", 1 << 31),
            ("Expires: sunday, 14-NOV-27 00:01:00 gmt", 60),
            ("Expires: Sun Nov 14 00:01:00 2027", 60),
        ];
        for (response, want) in rows {
            let response = format!("{response}\nLast-Modified: @-1000");
            let want = (want, LifetimeSource::Expires);
            assert_eq!(lifetime_of(200, &response, &Policy::cdn()), want, "{response:?}");
        }
    }

    #[test]
    fn a_heuristic_takes_a_tenth_up_to_its_cap_where_nothing_is_said() {
        let day = 86_400;
        let rows = [
            ("Last-Modified: @-1000", 100, LifetimeSource::Heuristic),
            ("Last-Modified: @-36000", 3600, LifetimeSource::Heuristic),
            ("Last-Modified: @-36010", 3600, LifetimeSource::Heuristic), // capped
            ("Last-Modified: @0", 0, LifetimeSource::Heuristic),
            ("Last-Modified: @50", 0, LifetimeSource::Heuristic), // modified in the future
            ("Last-Modified: long ago", 0, LifetimeSource::Unsaid),
            ("ETag: \"a\"", 0, LifetimeSource::Unsaid),
            ("Last-Modified: @-1000\nCache-Control: foo", 100, LifetimeSource::Heuristic),
            ("Last-Modified: @-1000\nCache-Control: max-age=1", 1, LifetimeSource::MaxAge),
        ];
        for (response, want, from) in rows {
            assert_eq!(lifetime_of(200, response, &Policy::cdn()), (want, from), "{response:?}");
        }
        let old = "Last-Modified: @-100000000";
        assert_eq!(lifetime_of(200, old, &Policy::rfc()).0, day);
        let off = Policy { heuristic_fraction: 0.0, ..Policy::cdn() };
        assert_eq!(lifetime_of(200, old, &off), (0, LifetimeSource::Unsaid));
        for odd in [f64::NAN, -1.0, f64::NEG_INFINITY] {
            let odd = Policy { heuristic_fraction: odd, ..Policy::cdn() };
            assert_eq!(lifetime_of(200, old, &odd), (0, LifetimeSource::Unsaid));
        }
    }

    #[test]
    fn heuristics_hold_for_exactly_the_statuses_that_are_cacheable_by_default() {
        let by_default = [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501];
        let response = "Last-Modified: @-1000";
        for status in 200..600 {
            let from = lifetime_of(status, response, &Policy::rfc()).1;
            let want = by_default.contains(&status);
            assert_eq!(from == LifetimeSource::Heuristic, want, "{status}");
            // §4.2.2: or where the response is marked as cacheable.
            let marked = format!("{response}\nCache-Control: public");
            let from = lifetime_of(status, &marked, &Policy::rfc()).1;
            assert_eq!(from, LifetimeSource::Heuristic, "{status}");
        }
    }

    #[test]
    fn a_default_lifetime_comes_last_and_only_for_those_statuses() {
        let policy = Policy { default_lifetime: Some(secs(30)), ..Policy::cdn() };
        assert_eq!(lifetime_of(404, "", &policy), (3, LifetimeSource::Negative));
        let policy = Policy { negative: Negative::default(), ..policy };
        let rows = [
            (200, "", (30, LifetimeSource::Default)),
            (404, "", (30, LifetimeSource::Default)),
            (500, "", (0, LifetimeSource::Unsaid)),
            (302, "", (0, LifetimeSource::Unsaid)),
            (200, "Last-Modified: @-1000", (100, LifetimeSource::Heuristic)),
            (200, "Cache-Control: max-age=0", (0, LifetimeSource::MaxAge)),
        ];
        for (status, response, want) in rows {
            assert_eq!(lifetime_of(status, response, &policy), want, "{status} {response:?}");
        }
    }

    #[test]
    fn a_failure_that_was_last_modified_is_guessed_at_like_any_other() {
        let (cdn, modified) = (Policy::cdn(), "Last-Modified: @-1000");
        let rows = [
            (599, "", (1, LifetimeSource::Negative)),
            (599, modified, (0, LifetimeSource::Unsaid)),
            (404, "ETag: \"a\"", (3, LifetimeSource::Negative)),
            (404, modified, (100, LifetimeSource::Heuristic)),
        ];
        for (status, response, want) in rows {
            assert_eq!(lifetime_of(status, response, &cdn), want, "{status} {response:?}");
        }
        let public = format!("{modified}\nCache-Control: public");
        assert_eq!(lifetime_of(599, &public, &cdn), (100, LifetimeSource::Heuristic));
    }
}
