//! The head of an origin's answer, made one that can be read in one way only.
//!
//! The HTTP library finds the end of a body as RFC 9112 §6.3 says, and leaves the fields as they
//! came: several equal lengths, a list of them, a length beside a transfer coding, codings that it
//! has not undone. A client, or a cache in between, might read these differently.

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};

/// Whether the connection that an answer came over may carry another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Allowed,
    /// It named two ends of its body: what follows is not to be trusted.
    Never,
}

/// Leaves one plain length in the head, or none.
///
/// # Errors
/// The rule that the head breaks: such an answer is not used.
pub(crate) fn settle(status: StatusCode, headers: &mut HeaderMap) -> Result<Next, &'static str> {
    match coding(headers)? {
        Coding::None => {}
        Coding::Chunked => {
            headers.remove(header::TRANSFER_ENCODING);
            let named_two = headers.remove(header::CONTENT_LENGTH).is_some();
            return Ok(if named_two { Next::Never } else { Next::Allowed });
        }
        Coding::Unknown => {
            // Its end is that of the connection, whatever else it says (RFC 9112 §6.3).
            headers.remove(header::TRANSFER_ENCODING);
            headers.remove(header::CONTENT_LENGTH);
            headers.remove(header::TRAILER);
            return Ok(Next::Never);
        }
    }
    headers.remove(header::TRAILER); // none can follow
    if let Some(length) = length(headers)? {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH); // RFC 9110 §8.6: it has none
    }
    Ok(Next::Allowed)
}

/// How a body is framed by its transfer coding.
enum Coding {
    None,
    Chunked,
    /// By something that is no coding of HTTP's (RFC 9112 §7): a mere word, nothing to undo.
    Unknown,
}

/// Codings whose bytes are not those of the representation, as parts of names: an "xchunked" is one, too.
const CODINGS: [&[u8]; 6] =
    [b"chunked", b"compress", b"deflate", b"gzip", b"x-compress", b"x-gzip"];

fn coding(headers: &HeaderMap) -> Result<Coding, &'static str> {
    let mut lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(Coding::None),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Ok(Coding::Chunked)
        }
        (Some(only), None) if is_one_unknown(only.as_bytes()) => Ok(Coding::Unknown),
        (Some(_), _) => Err("its transfer coding is not chunked alone"),
    }
}

/// Whether `line` is one word, and looks like no coding.
fn is_one_unknown(line: &[u8]) -> bool {
    let stands =
        |coding: &[u8]| line.windows(coding.len()).any(|part| part.eq_ignore_ascii_case(coding));
    line.iter().all(u8::is_ascii_alphanumeric) && !CODINGS.into_iter().any(stands)
}

/// The length that all lines and members of lists agree on.
fn length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut said = None;
    for member in lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
        let member = member.trim_ascii();
        let digits = member.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(member).ok().filter(|_| digits);
        let number: Option<u64> = number.and_then(|number| number.parse().ok());
        match (number, said) {
            (None, _) => return Err("its length is no number"),
            (Some(number), Some(before)) if number != before => return Err("its lengths differ"),
            (Some(number), _) => said = Some(number),
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plain_length_is_left_or_none() {
        // Status, lengths, codings, what of the connection, what length is left.
        type Lines = &'static [&'static str];
        type Row = (u16, Lines, Lines, Result<Next, ()>, Option<&'static str>);
        let rows: [Row; 16] = [
            (200, &["4"], &[], Ok(Next::Allowed), Some("4")),
            (200, &["4", "4"], &[], Ok(Next::Allowed), Some("4")),
            (200, &["4, 4", "004"], &[], Ok(Next::Allowed), Some("4")),
            (200, &[], &[], Ok(Next::Allowed), None),
            (200, &[], &["Chunked"], Ok(Next::Allowed), None),
            (200, &["4"], &["chunked"], Ok(Next::Never), None),
            (204, &["4"], &[], Ok(Next::Allowed), None),
            (200, &["4", "5"], &[], Err(()), None),
            (200, &["+4"], &[], Err(()), None),
            (200, &["99999999999999999999"], &[], Err(()), None),
            (200, &[], &["gzip, chunked"], Err(()), None),
            (200, &[], &["chunked", "chunked"], Err(()), None),
            (200, &["4"], &["nonsense"], Ok(Next::Never), None),
            (200, &[], &["xchunked"], Err(()), None),
            (200, &[], &["gzip"], Err(()), None),
            (200, &[], &["nonsense, chunked"], Err(()), None),
        ];
        for (status, lengths, codings, want, left) in rows {
            let mut headers = HeaderMap::new();
            for length in lengths {
                headers.append(header::CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            for coding in codings {
                headers.append(header::TRANSFER_ENCODING, HeaderValue::from_static(coding));
            }
            let settled = settle(StatusCode::from_u16(status).unwrap(), &mut headers);
            assert_eq!(settled.map_err(drop), want, "{lengths:?} {codings:?}");
            if want.is_ok() {
                let lines: Vec<_> = headers.get_all(header::CONTENT_LENGTH).iter().collect();
                assert_eq!(lines, left.as_slice(), "{lengths:?} {codings:?}");
            }
        }
    }
}
