//! Members of comma-separated field values (RFC 9110 §5.6.1), over all lines of a field.
//!
//! Entity-tags are not read here: they know no escapes within their quotes.

use http::{HeaderMap, HeaderName, HeaderValue};

/// One member, and whether its quotes are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) closed: bool,
}

/// Members of one line, empty ones too, whitespace around them removed.
#[derive(Clone, Debug)]
pub(crate) struct Members<'a> {
    rest: Option<&'a [u8]>,
}

/// Splits one line at its commas outside quoted strings.
pub(crate) fn members(line: &[u8]) -> Members<'_> {
    Members { rest: Some(line) }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let line = self.rest.take()?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, byte) in line.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b',' if !quoted => {
                    let (text, rest) = line.split_at(at);
                    self.rest = rest.get(1..);
                    return Some(Member { text: text.trim_ascii(), closed: true });
                }
                _ => {}
            }
        }
        Some(Member { text: line.trim_ascii(), closed: !quoted })
    }
}

/// The only line of a field; `None` if it is absent or repeated.
pub(crate) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

/// Delta-seconds (§1.2.2): digits and nothing else, saturating at 2^31.
pub(crate) fn delta_seconds(text: &[u8]) -> Option<std::time::Duration> {
    let seconds = decimal(text)?.min(crate::time::MAX_SECONDS);
    Some(std::time::Duration::from_secs(seconds))
}

/// Digits and nothing else, saturating.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0_u64, |number, digit| {
        number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
    }))
}

/// A byte that a token may hold (RFC 9110 §5.6.2).
pub(crate) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
