//! What the tests of the rules share: heads written as text, and times as seconds.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::exchange::{Exchange, RequestView, ResponseView};
use crate::policy::Policy;
use crate::storable::NotStorable;
use crate::stored::StoredHead;
use crate::time::Now;

/// Second 0 of all tests, a Sunday: 14 Nov 2027 00:00:00 GMT.
pub(crate) const START: Duration = Duration::from_secs(1_826_150_400);

#[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
static MONO: LazyLock<Instant> = LazyLock::new(Instant::now);

/// `seconds` after the start, on both clocks.
pub(crate) fn at(seconds: u64) -> Now {
    let since = Duration::from_secs(seconds);
    Now { wall: wall(0) + since, mono: *MONO + since }
}

/// `seconds` after the start, or before it.
pub(crate) fn wall(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH + START - since } else { UNIX_EPOCH + START + since }
}

/// An exchange that takes no time.
pub(crate) fn exchange_at(seconds: u64) -> Exchange {
    Exchange { sent: at(seconds), received: at(seconds) }
}

/// Fields, one a line; a value `@N` is the date N seconds after the start.
pub(crate) fn headers(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap();
        let value = value.trim();
        let value = match value.strip_prefix('@') {
            Some(seconds) => httpdate::fmt_http_date(wall(seconds.parse().unwrap())),
            None => value.to_owned(),
        };
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// What becomes of a 200 to a plain GET, arriving at second 0.
pub(crate) fn store(response: &str, policy: &Policy) -> Result<StoredHead, NotStorable> {
    store_for("", 200, response, policy)
}

/// What becomes of a response to a GET with these fields.
pub(crate) fn store_for(
    request: &str,
    status: u16,
    response: &str,
    policy: &Policy,
) -> Result<StoredHead, NotStorable> {
    StoredHead::of(
        &RequestView { method: &Method::GET, headers: &headers(request) },
        &ResponseView {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers(response),
        },
        policy,
        &exchange_at(0),
    )
}

/// Seconds as a duration.
pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
