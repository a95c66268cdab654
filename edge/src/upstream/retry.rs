//! Whether a request that failed goes out once more, here or elsewhere.
//!
//! Not here: when ([`crate::upstream::backoff`]) and whether the origin can bear it
//! ([`crate::upstream::budget`]).
//!
//! # Invariants
//! - What may have been carried out goes out again only if it may be sent twice.

use http::header::{ETAG, EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};
use meridian_edge_rules::cache_control::CacheControl;

use crate::error::FetchError;
use crate::upstream::guard::Retry;

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ended<'a> {
    Answered(StatusCode, &'a HeaderMap),
    Failed(&'a FetchError),
}

/// What is known of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tries {
    /// Retries are wanted at all.
    pub(crate) is_on: bool,
    /// Retries so far.
    pub(crate) retries: u32,
    /// It may be sent twice.
    pub(crate) is_repeatable: bool,
    /// There is another origin that was not asked yet.
    pub(crate) has_others: bool,
    /// Somebody waits who has nothing else to get.
    pub(crate) is_needed: bool,
}

/// What now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// That is the answer.
    Stop,
    /// The next origin, at once: the one before saw nothing.
    Elsewhere,
    /// Once more, after a pause and within the budget.
    Again,
}

/// See the module.
pub(crate) fn next(retry: &Retry, tries: &Tries, ended: Ended<'_>) -> Next {
    let is_again = match ended {
        Ended::Answered(status, fields) => {
            let is_listed = retry.statuses.contains(&status.as_u16());
            is_listed && tries.is_repeatable && !is_meant(fields)
        }
        Ended::Failed(error) if error.nothing_was_sent() && tries.has_others => {
            return Next::Elsewhere;
        }
        Ended::Failed(error) => match error {
            FetchError::ConnectionRefused { .. }
            | FetchError::ConnectionTimeout { .. }
            | FetchError::DnsError { .. } => true,
            FetchError::ConnectionTerminated { .. } => tries.is_repeatable,
            FetchError::HttpResponseTimeout { .. } => tries.is_repeatable && retry.timeouts,
            FetchError::ConnectionLimitReached { .. }
            | FetchError::DestinationUnavailable { .. }
            | FetchError::HttpResponseIncomplete { .. }
            | FetchError::HttpProtocolError { .. }
            | FetchError::RequestTooLarge { .. }
            | FetchError::HttpRequestError { .. }
            | FetchError::SharedFailure { .. }
            | FetchError::ProxyInternalError => false,
        },
    };
    let may = tries.is_on && tries.is_needed && tries.retries < retry.retries;
    if is_again && may { Next::Again } else { Next::Stop }
}

/// Whether an answer is what the origin means to say, and no makeshift of something on the way that
/// is broken: it has validators, or says for how long it is fresh.
fn is_meant(fields: &HeaderMap) -> bool {
    let said = CacheControl::of(fields);
    let lifetime = said.s_maxage.or(said.max_age);
    let has_validators = fields.contains_key(ETAG) || fields.contains_key(LAST_MODIFIED);
    has_validators || lifetime.map_or(fields.contains_key(EXPIRES), |time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;
    use crate::upstream::backoff;

    const ZERO: Duration = Duration::ZERO;

    fn errors() -> [FetchError; 6] {
        let upstream = || "o".to_owned();
        [
            FetchError::ConnectionRefused { upstream: upstream(), source: io::Error::other("") },
            FetchError::HttpResponseTimeout { upstream: upstream(), limit: ZERO },
            FetchError::ConnectionLimitReached { upstream: upstream(), limit: 1 },
            FetchError::DestinationUnavailable { upstream: upstream(), retry_after: ZERO },
            FetchError::HttpRequestError { reason: "" },
            FetchError::HttpProtocolError { upstream: upstream(), reason: "" },
        ]
    }

    #[test]
    fn what_goes_out_once_more() {
        use Next::{Again, Elsewhere, Stop};
        let [refused, late, full, open, of_client, broken] = &errors();
        let none = HeaderMap::new();
        let status = |code| Ended::Answered(StatusCode::from_u16(code).unwrap(), &none);
        let tries = Tries {
            is_on: true,
            retries: 0,
            is_repeatable: true,
            has_others: false,
            is_needed: true,
        };
        let post = Tries { is_repeatable: false, ..tries };
        let others = Tries { has_others: true, ..tries };
        let post_others = Tries { has_others: true, ..post };
        let off = Tries { is_on: false, ..tries };
        let off_others = Tries { has_others: true, ..off };
        let covered = Tries { is_needed: false, ..tries };
        let spent = Tries { retries: 2, ..tries };
        let rows = [
            (tries, status(503), Again),
            (tries, status(500), Stop),
            (tries, status(200), Stop),
            (post, status(503), Stop),
            (others, status(503), Again),
            (off, status(503), Stop),
            (covered, status(503), Stop),
            (spent, status(503), Stop),
            (tries, Ended::Failed(refused), Again),
            (post, Ended::Failed(refused), Again), // nothing was sent
            (others, Ended::Failed(refused), Elsewhere),
            (post_others, Ended::Failed(refused), Elsewhere),
            (off, Ended::Failed(refused), Stop),
            (off_others, Ended::Failed(refused), Elsewhere),
            (covered, Ended::Failed(refused), Stop),
            (spent, Ended::Failed(refused), Stop),
            (tries, Ended::Failed(late), Stop), // who is slow gets slower by it
            (others, Ended::Failed(late), Stop),
            (tries, Ended::Failed(full), Stop),
            (others, Ended::Failed(full), Elsewhere),
            (tries, Ended::Failed(open), Stop),
            (others, Ended::Failed(open), Elsewhere),
            (others, Ended::Failed(of_client), Stop),
            (others, Ended::Failed(broken), Stop),
        ];
        let retry = Retry {
            enabled: None,
            retries: 2,
            statuses: vec![502, 503, 504],
            timeouts: false,
            backoff: backoff::Settings { base: ZERO, most: ZERO },
        };
        for (row, (tries, ended, want)) in rows.into_iter().enumerate() {
            assert_eq!(next(&retry, &tries, ended), want, "row {row}: {tries:?} {ended:?}");
        }
        let patient = Retry { timeouts: true, ..retry };
        assert_eq!(next(&patient, &tries, Ended::Failed(late)), Again);
        assert_eq!(next(&patient, &post, Ended::Failed(late)), Stop);
    }

    #[test]
    fn an_answer_that_is_meant_is_no_makeshift() {
        let rows = [
            ("content-type", "text/html", false),
            ("cache-control", "no-store", false),
            ("cache-control", "max-age=0", false),
            ("cache-control", "max-age=60", true),
            ("cache-control", "max-age=0, s-maxage=60", true),
            ("expires", "Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("etag", "\"1\"", true),
        ];
        for (name, value, want) in rows {
            let fields = [(name.parse().unwrap(), value.parse().unwrap())];
            assert_eq!(is_meant(&HeaderMap::from_iter(fields)), want, "{name}: {value}");
        }
    }
}
