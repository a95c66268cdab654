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

impl Policy {
    /// The careful side where users expect it of a CDN.
    pub fn cdn() -> Self {
        Self {
            heuristic_fraction: 0.1,         // what §4.2.2 names as typical
            heuristic_max: HOUR,             // a wrong guess is gone before the shift ends
            default_lifetime: None,          // what says nothing is asked for every time
            store_set_cookie: false, // a session handed to strangers is the worst that can happen
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
        }
    }

    /// RFC 9111 to the letter, with every switch the standards allow.
    pub fn rfc() -> Self {
        Self {
            heuristic_max: DAY,
            store_set_cookie: true,
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
}
