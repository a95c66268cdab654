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
