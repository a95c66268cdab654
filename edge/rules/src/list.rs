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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_within_quotes_do_not_split() {
        let rows: [(&str, &[&str], bool); 7] = [
            ("a, b ,c", &["a", "b", "c"], true),
            ("", &[""], true),
            ("a,,b,", &["a", "", "b", ""], true),
            (r#"a="x, y", b"#, &[r#"a="x, y""#, "b"], true),
            (r#"a="x\", y", b"#, &[r#"a="x\", y""#, "b"], true),
            (r#"a="x, b"#, &[r#"a="x, b"#], false),
            (r"a\,b", &[r"a\", "b"], true), // no escapes outside quotes
        ];
        for (line, want, closed) in rows {
            let got = members(line.as_bytes()).collect::<Vec<_>>();
            let texts = got.iter().map(|m| str::from_utf8(m.text).unwrap()).collect::<Vec<_>>();
            assert_eq!(texts, want, "{line:?}");
            assert_eq!(got.iter().all(|member| member.closed), closed, "{line:?}");
        }
    }

    #[test]
    fn delta_seconds_are_digits_and_saturate() {
        let rows: [(&str, Option<u64>); 12] = [
            ("0", Some(0)),
            ("003600", Some(3600)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", Some(2_147_483_648)),
            ("2147483649", Some(2_147_483_648)),
            ("99999999999999999999999999", Some(2_147_483_648)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.0", None),
            ("1a", None),
            (" 1", None),
        ];
        for (text, want) in rows {
            assert_eq!(delta_seconds(text.as_bytes()).map(|d| d.as_secs()), want, "{text:?}");
        }
    }
}
