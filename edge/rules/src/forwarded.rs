//! Who a request came from, as the next node is told: `Forwarded` (RFC 7239) and the
//! `X-Forwarded-*` fields that came before it.
//!
//! What others said is kept only where the caller trusts them, and only so much of it: the oldest
//! members go first, since anybody may have written those.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::HeaderValue;

use crate::list;

/// The longest field that is made of what others said and of what is added.
pub const MAX_LENGTH: usize = 2048;

/// What one node says of the one that it has a request from.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// Its address.
    pub address: IpAddr,
    /// `http` or `https`.
    pub proto: &'a str,
    /// The host that it asked for, if that may be told.
    pub host: Option<&'a str>,
}

impl Hop<'_> {
    /// Its element of `Forwarded` (RFC 7239 §4).
    pub fn element(&self) -> String {
        let mut text = String::with_capacity(64);
        // Writing to a String cannot fail.
        let _written = match self.address.to_canonical() {
            IpAddr::V4(address) => write!(text, "for={address};proto={}", self.proto),
            IpAddr::V6(address) => write!(text, "for=\"[{address}]\";proto={}", self.proto),
        };
        if let Some(host) = self.host {
            text.push_str(";host=");
            push_value(&mut text, host);
        }
        text
    }

    /// Its member of `X-Forwarded-For`.
    pub fn member(&self) -> String {
        self.address.to_canonical().to_string()
    }
}

/// A token as it stands, anything else quoted (RFC 7239 §4, RFC 9110 §5.6.4).
fn push_value(text: &mut String, value: &str) {
    if !value.is_empty() && value.bytes().all(list::is_tchar) {
        text.push_str(value);
        return;
    }
    text.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
}

/// The list of all `lines` with `own` behind it, without its oldest members where it would be
/// longer than [`MAX_LENGTH`]. A line that is no list, by an open quote, is left out, and so is
/// what no field may hold.
pub fn appended<'a>(lines: impl Iterator<Item = &'a [u8]>, own: &str) -> Option<HeaderValue> {
    let members = lines.flat_map(|line| {
        let members: Vec<_> = list::members(line).collect();
        let is_list = members.iter().all(|member| member.closed);
        members.into_iter().filter(move |member| is_list && !member.text.is_empty())
    });
    let mut kept: Vec<&[u8]> = members.map(|member| member.text).collect();
    kept.push(own.as_bytes());
    let mut length = 0;
    let fits = kept.iter().rev().take_while(|member| {
        length += member.len() + 2;
        length <= MAX_LENGTH + 2
    });
    let fits = fits.count();
    let newest = kept.get(kept.len() - fits..).unwrap_or_default();
    HeaderValue::from_bytes(&newest.join(&b", "[..])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_quotes_what_is_no_token() {
        let rows = [
            ("192.0.2.7", Some("shop.example"), "for=192.0.2.7;proto=http;host=shop.example"),
            ("192.0.2.7", Some("h:81"), "for=192.0.2.7;proto=http;host=\"h:81\""),
            ("2001:db8::7", None, "for=\"[2001:db8::7]\";proto=http"),
            ("::ffff:192.0.2.7", None, "for=192.0.2.7;proto=http"),
            ("::1", Some("[::1]:81"), "for=\"[::1]\";proto=http;host=\"[::1]:81\""),
            ("::1", Some("a\"b\\c"), "for=\"[::1]\";proto=http;host=\"a\\\"b\\\\c\""),
        ];
        for (address, host, want) in rows {
            let hop = Hop { address: address.parse().unwrap(), proto: "http", host };
            assert_eq!(hop.element(), want);
        }
    }

    #[test]
    fn what_is_kept_stands_before_what_is_added() {
        let rows: [(&[&str], &str); 6] = [
            (&[], "own"),
            (&["a"], "a, own"),
            (&["a,b", " c "], "a, b, c, own"),
            (&["for=\"[::1]:1,2\""], "for=\"[::1]:1,2\", own"),
            (&["a, \"open"], "own"), // its quote would swallow what is added
            (&[",,"], "own"),
        ];
        for (lines, want) in rows {
            let value = appended(lines.iter().map(|line| line.as_bytes()), "own").unwrap();
            assert_eq!(value, want, "{lines:?}");
        }
    }

    #[test]
    fn a_list_at_its_limit_is_kept_whole_and_one_past_it_loses_its_oldest() {
        let rest = MAX_LENGTH - "x, , own".len();
        for (length, whole) in [(rest, true), (rest + 1, false)] {
            let long = "y".repeat(length);
            let line = format!("x, {long}");
            let value = appended([line.as_bytes()].into_iter(), "own").unwrap();
            let want = if whole { format!("x, {long}, own") } else { format!("{long}, own") };
            assert_eq!(value, want.as_str());
            assert!(value.len() <= MAX_LENGTH);
        }
    }
}
