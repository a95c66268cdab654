//! How long a retry waits: full jitter over an exponentially growing span, or as long as the origin
//! asks for.
//!
//! Not here: whether there may be a retry at all.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// The spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The first span.
    pub(crate) base: Duration,
    /// The longest, and the longest that an origin's wish is waited for.
    pub(crate) most: Duration,
}

/// How long the retry number `retry` (from 0) waits; `chance` is from 0 up to but without 1. `None`:
/// the origin wants it later than anybody should wait.
pub(crate) fn pause(
    settings: &Settings,
    retry: u32,
    asked: Option<Duration>,
    chance: f64,
) -> Option<Duration> {
    let span = settings.base.saturating_mul(1 << retry.min(20)).min(settings.most);
    let jittered = span.mul_f64(chance.clamp(0.0, 1.0));
    match asked {
        Some(asked) if asked > settings.most => None,
        Some(asked) => Some(asked + jittered.min(settings.base)), // not all at the same moment
        None => Some(jittered),
    }
}

/// What `Retry-After` asks for (RFC 9110 §10.2.3).
pub(crate) fn retry_after(answer: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let said = answer.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !said.is_empty() && said.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than fits is very long.
        return Some(Duration::from_secs(said.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(said).ok()?;
    Some(at.duration_since(wall).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn the_span_doubles_up_to_its_cap_and_all_of_it_is_jitter() {
        let settings = Settings { base: 100 * MILLI, most: 1_000 * MILLI };
        let rows = [
            (0, 0.0, 0),
            (0, 0.5, 50),
            (1, 0.5, 100),
            (2, 0.5, 200),
            (3, 0.5, 400),
            (4, 0.5, 500), // the cap
            (60, 0.5, 500),
            (u32::MAX, 0.0, 0),
        ];
        for (retry, chance, want) in rows {
            let got = pause(&settings, retry, None, chance);
            assert_eq!(got, Some(want * MILLI), "{retry}, {chance}");
        }
    }

    #[test]
    fn what_the_origin_asks_for_is_kept_or_there_is_no_retry() {
        let settings = Settings { base: 100 * MILLI, most: 2_000 * MILLI };
        let rows = [(0, Some(50)), (1_000, Some(1_050)), (2_000, Some(2_050)), (2_001, None)];
        for (asked, want) in rows {
            let got = pause(&settings, 0, Some(asked * MILLI), 0.5);
            assert_eq!(got, want.map(|want| want * MILLI), "{asked}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let rows = [
            (None, None),
            (Some("120"), Some(120)),
            (Some("0"), Some(0)),
            (Some("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10)),
            (Some("Sun, 06 Nov 1994 08:49:27 GMT"), Some(0)), // past
            (Some("99999999999999999999"), Some(u64::MAX)),
            (Some("-1"), None),
            (Some("+1"), None),
            (Some(""), None),
            (Some("soon"), None),
        ];
        for (field, want) in rows {
            let mut fields = HeaderMap::new();
            if let Some(field) = field {
                fields.insert(header::RETRY_AFTER, field.parse().unwrap());
            }
            assert_eq!(retry_after(&fields, wall), want.map(Duration::from_secs), "{field:?}");
        }
    }
}
