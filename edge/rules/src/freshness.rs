//! Freshness lifetime (§4.2.1), its heuristic stand-in (§4.2.2), and a site's default.
//!
//! Answers "for how long", never "is it fresh now": that comparison is [`crate::reusable`]'s.
//!
//! # Invariants
//! - What we cannot read counts as "already stale", never as "nothing was said".
//! - Where a lifetime is stated, neither heuristic nor default is asked.

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
    /// The site's default.
    Default,
    /// Nobody: the lifetime is zero.
    Unsaid,
}

impl LifetimeSource {
    /// Whether the response itself states a lifetime (§3).
    pub fn is_explicit(self) -> bool {
        match self {
            Self::Targeted | Self::Surrogate | Self::SMaxage | Self::MaxAge | Self::Expires => true,
            Self::Heuristic | Self::Default | Self::Unsaid => false,
        }
    }

    /// The word for logs and `explain`.
    pub fn token(self) -> &'static str {
        match self {
            Self::Targeted => "cdn-cache-control",
            Self::Surrogate => "surrogate-control",
            Self::SMaxage => "s-maxage",
            Self::MaxAge => "max-age",
            Self::Expires => "expires",
            Self::Heuristic => "heuristic",
            Self::Default => "default",
            Self::Unsaid => "none",
        }
    }
}

/// The freshness lifetime of `response` in this cache. `date` is its `date_value`, `received` when
/// it arrived by the clock on the wall.
pub fn lifetime(
    response: &ResponseView<'_>,
    governing: &Governing,
    policy: &Policy,
    date: SystemTime,
    received: SystemTime,
) -> Lifetime {
    if let Some(stated) = stated(response, governing, date, received) {
        return Lifetime { length: stated.length.min(MAX_DELTA), ..stated };
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
