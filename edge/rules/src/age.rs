//! How old a response is when it arrives (§4.2.3), and what its `Age` field says (§5.1).
//!
//! What it becomes from then on is [`crate::stored::StoredHead::current_age`].

use std::time::{Duration, SystemTime};

use http::header::{AGE, DATE, HeaderMap};

use crate::date;
use crate::exchange::Exchange;
use crate::list::{self, delta_seconds};
use crate::time::MAX_DELTA;

/// `age_value`: the first member of the first `Age`, zero if that cannot be read (§5.1).
pub fn age_value(response: &HeaderMap) -> Duration {
    let first = response.get(AGE).and_then(|line| list::members(line.as_bytes()).next());
    first.and_then(|member| delta_seconds(member.text)).unwrap_or(Duration::ZERO)
}

/// `date_value`: when the response was made; when it was received, if `Date` is absent, repeated
/// or cannot be read (RFC 9110 §6.6.1).
pub fn date_value(response: &HeaderMap, received: SystemTime) -> SystemTime {
    let line = list::only(response, &DATE);
    line.and_then(|line| date::parse_at(line.as_bytes(), received)).unwrap_or(received)
}

/// `corrected_initial_age`: the age of the response at the moment it was received.
pub fn initial_age(response: &HeaderMap, times: &Exchange) -> Duration {
    let date = date_value(response, times.received.wall);
    let apparent_age = times.received.wall.duration_since(date).unwrap_or(Duration::ZERO);
    let response_delay = times.received.mono.saturating_duration_since(times.sent.mono);
    let corrected_age_value = age_value(response).saturating_add(response_delay);
    apparent_age.max(corrected_age_value).min(MAX_DELTA)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, exchange_at, headers, secs, wall};

    #[test]
    fn the_first_member_of_age_counts_and_a_malformed_one_does_not() {
        // §5.1; a cache that reads a malformed Age as "very old" would refuse what it may reuse.
        let rows = [
            ("", 0),
            ("Age: 0", 0),
            ("Age: 7200", 7200),
            ("Age: 007200", 7200),
            ("Age: 2147483649", 1 << 31),
            ("Age: 99999999999999999999", 1 << 31),
            ("Age: 7200, 0", 7200),
            ("Age: 0, 7200", 0),
            ("Age: 7200\nAge: 0", 7200),
            ("Age: 0\nAge: 7200", 0),
            ("Age: abc, 7200", 0),
            ("Age: -7200", 0),
            ("Age: 7200.0", 0),
            ("Age: 7200;foo=bar", 0),
            ("Age: ", 0),
        ];
        for (response, want) in rows {
            assert_eq!(age_value(&headers(response)), secs(want), "{response:?}");
        }
    }

    #[test]
    fn the_initial_age_is_the_greater_of_apparent_age_and_age_with_its_delay() {
        // §4.2.3; response at second 10, Date relative to second 0
        let rows = [
            ("Date: @10", 10, 0),
            ("Date: @10", 7, 3), // the delay counts even if nothing else does
            ("Date: @4", 10, 6), // apparent age
            ("Date: @4\nAge: 5", 10, 6), // apparent age is greater
            ("Date: @4\nAge: 5", 8, 7), // Age and delay are greater
            ("Date: @90", 10, 0), // a clock ahead of ours makes nothing younger than new
            ("Date: @90\nAge: 5", 10, 5),
            ("Date: rubbish\nAge: 5", 10, 5),
            ("Age: 5", 10, 5),
            ("Date: @-9999\nDate: @10", 10, 0), // two dates are none
            ("Date: @10\nAge: 2147483648", 0, 1 << 31),
        ];
        for (response, sent, want) in rows {
            let times = Exchange { sent: at(sent), ..exchange_at(10) };
            assert_eq!(initial_age(&headers(response), &times), secs(want), "{response:?}, {sent}");
        }
    }

    #[test]
    fn a_missing_date_is_the_time_of_arrival() {
        assert_eq!(date_value(&headers("Date: @-5"), wall(0)), wall(-5));
        assert_eq!(date_value(&headers(""), wall(0)), wall(0));
        assert_eq!(date_value(&headers("Date: yesterday"), wall(0)), wall(0));
    }
}
