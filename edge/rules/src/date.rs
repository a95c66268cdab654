//! Dates in the three forms of RFC 9110 §5.6.7, in any case (§4.2), and nothing else.
//!
//! # Invariants
//! - A zone other than GMT, a wrong weekday, or a number out of range is no date.
//! - A two-digit year is the one that is at most 50 years ahead of the time it is read at.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// The mean Gregorian year.
const YEAR: Duration = Duration::from_secs(31_556_952);

/// The last second of the year 9999, beyond which no HTTP-date reaches.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// The longest form: `Wednesday, 09-Nov-94 08:49:37 GMT`.
const LONGEST: usize = 33;

/// Reads a date where no clock is at hand: two-digit years become 1970 to 2069.
pub(crate) fn parse(value: &[u8]) -> Option<SystemTime> {
    parse_at(value, UNIX_EPOCH + YEAR * 50)
}

/// Reads a date at `now`, which only a two-digit year needs.
pub(crate) fn parse_at(value: &[u8], now: SystemTime) -> Option<SystemTime> {
    let mut buffer = [0; LONGEST];
    let canonical = in_canonical_case(value, &mut buffer)?;
    match rfc850(canonical) {
        Some(parts) => parts.nearest(now),
        None => httpdate::parse_http_date(canonical).ok(),
    }
}

/// The preferred form, IMF-fixdate. Times out of its range become the nearest within.
pub(crate) fn format(time: SystemTime) -> HeaderValue {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).min(LAST);
    HeaderValue::from_str(&httpdate::fmt_http_date(UNIX_EPOCH + since))
        .unwrap_or_else(|_| HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))
}

/// Words as `Thu` or `Thursday`, the zone as `GMT`.
fn in_canonical_case<'a>(value: &[u8], buffer: &'a mut [u8; LONGEST]) -> Option<&'a str> {
    let canonical = buffer.get_mut(..value.len())?;
    let mut within_word = false;
    for (to, from) in canonical.iter_mut().zip(value) {
        *to = if within_word { from.to_ascii_lowercase() } else { from.to_ascii_uppercase() };
        within_word = from.is_ascii_alphabetic();
    }
    if let Some(zone) = canonical.last_chunk_mut::<3>()
        && zone == b"Gmt"
    {
        zone.make_ascii_uppercase();
    }
    str::from_utf8(canonical).ok().filter(|text| text.is_ascii() && text.trim() == *text)
}

/// The parts of `Sunday, 06-Nov-94 08:49:37 GMT` around its century.
struct Rfc850<'a> {
    weekday: &'a str,
    day: &'a str,
    month: &'a str,
    year: u64,
    time: &'a str,
}

fn rfc850(text: &str) -> Option<Rfc850<'_>> {
    const WEEKDAYS: [&str; 7] =
        ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    let (weekday, rest) = text.split_once(", ")?;
    let (date, time) = rest.split_once(' ')?;
    let (day, date) = date.split_once('-')?;
    let (month, year) = date.split_once('-')?;
    let two_digits = year.len() == 2 && year.bytes().all(|byte| byte.is_ascii_digit());
    (WEEKDAYS.contains(&weekday) && two_digits).then_some(())?;
    Some(Rfc850 { weekday: weekday.get(..3)?, day, month, year: year.parse().ok()?, time })
}

impl Rfc850<'_> {
    /// The date in the latest century that does not put it more than 50 years ahead.
    fn nearest(&self, now: SystemTime) -> Option<SystemTime> {
        let this_year = 1970 + now.duration_since(UNIX_EPOCH).ok()?.as_secs() / YEAR.as_secs();
        let this_century = this_year / 100 * 100;
        let latest = now.checked_add(YEAR * 50)?;
        [this_century + 100, this_century, this_century - 100].into_iter().find_map(|century| {
            let Self { weekday, day, month, year, time } = self;
            let text = format!("{weekday}, {day} {month} {} {time}", century + year);
            httpdate::parse_http_date(&text).ok().filter(|date| *date <= latest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::wall;

    #[test]
    fn three_forms_in_any_case_and_nothing_else_are_dates() {
        let rows = [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)), // IMF-fixdate
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)), // RFC 850
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),      // asctime
            ("SUN, 06 nov 1994 08:49:37 gMT", Some(784_111_777)), // §4.2
            ("sunday, 06-NOV-94 08:49:37 gmt", Some(784_111_777)),
            ("SUN NOV  6 08:49:37 1994", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Mon, 06 Nov 1994 08:49:37 GMT", None), // it was a Sunday
            ("Sun, 06 Nov 1994 08:49:37 UTC", None),
            ("Sun, 06 Nov 1994 08:49:37 +0000", None),
            ("Sun, 06 Nov 94 08:49:37 GMT", None),
            ("Sun 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06  Nov  1994 08:49:37 GMT", None),
            ("Sun, 06-Nov-1994 08:49:37 GMT", None),
            ("Sun, 06-Nov-94 08:49:37 GMT", None), // RFC 850 writes the weekday out
            ("Sun, 06 Nov 1994 08.49.37 GMT", None),
            ("Sun, 06 Nov 1994 8:49:37 GMT", None),
            ("Sun, 31 Feb 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("0", None),
            ("-1", None),
            ("", None),
        ];
        for (text, want) in rows {
            let read = parse(text.as_bytes())
                .map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs());
            assert_eq!(read, want, "{text:?}");
        }
    }

    #[test]
    fn a_two_digit_year_is_at_most_fifty_years_ahead() {
        let year = |time: Option<SystemTime>| {
            time.map(|time| httpdate::fmt_http_date(time).split(' ').nth(3).unwrap().to_owned())
        };
        let rows = [
            ("Thursday, 18-Aug-50 02:01:18 GMT", Some("2050")),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some("1994")),
            ("Saturday, 13-Nov-77 00:00:00 GMT", Some("2077")), // 50 years less a day ahead
            ("Wednesday, 01-Dec-77 00:00:00 GMT", None),        // a Wednesday in 2077, not 1977
            ("Thursday, 01-Dec-77 00:00:00 GMT", Some("1977")),
        ];
        for (text, want) in rows {
            assert_eq!(year(parse_at(text.as_bytes(), wall(0))).as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn times_out_of_range_are_formatted_as_the_nearest_date() {
        let rows = [
            (UNIX_EPOCH, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (UNIX_EPOCH - Duration::from_secs(1), "Thu, 01 Jan 1970 00:00:00 GMT"),
            (UNIX_EPOCH + LAST, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (UNIX_EPOCH + LAST + YEAR, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (time, want) in rows {
            assert_eq!(format(time), want);
        }
    }
}
