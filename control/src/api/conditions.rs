//! What a request says about repeats and about what it found before: `Idempotency-Key`, `If-Match`,
//! `If-None-Match`.

use http::HeaderMap;
use http::header::{IF_MATCH, IF_NONE_MATCH};
use meridian_control_wire::problem::ErrorCode;
use sha2::{Digest, Sha256};

use crate::answer::Refusal;
use crate::order::Condition;

/// The longest `Idempotency-Key`, in characters.
const MAX_KEY: usize = 255;

/// The hash of the `Idempotency-Key`, bare or as a quoted string (RFC 9110 §5.6.4), if there is one.
pub(super) fn repeat_key(headers: &HeaderMap) -> Result<Option<[u8; 32]>, Refusal> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = match values.next() {
        None => key_in(value.as_bytes()),
        Some(_) => None,
    };
    let rule = "Idempotency-Key must be one key of 1 to 255 visible characters, bare or quoted";
    let key = key.ok_or_else(|| Refusal::new(ErrorCode::BadRequest, rule))?;
    Ok(Some(Sha256::digest(key).into()))
}

fn key_in(value: &[u8]) -> Option<Vec<u8>> {
    let key = match value.strip_prefix(b"\"") {
        None => value.to_vec(),
        Some(rest) => unquoted(rest)?,
    };
    let fits = (1..=MAX_KEY).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    fits.then_some(key)
}

/// What stands before the closing quote, which ends the text; without escapes.
fn unquoted(rest: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    let mut bytes = rest.iter();
    loop {
        match bytes.next()? {
            b'\\' => key.push(*bytes.next()?),
            b'"' => return bytes.next().is_none().then_some(key),
            byte => key.push(*byte),
        }
    }
}

/// What must hold of a register (RFC 9110 §13.1.1, §13.1.2).
pub(super) fn condition(headers: &HeaderMap) -> Result<Condition, Refusal> {
    let lines = |name| -> Option<String> {
        let values: Vec<_> = headers.get_all(name).iter().map(|v| v.to_str().ok()).collect();
        let values: Option<Vec<&str>> = values.into_iter().collect();
        Some(values.unwrap_or_else(|| vec!["?"]).join(",")).filter(|line| !line.is_empty())
    };
    let bad = |rule: &str| Err(Refusal::new(ErrorCode::BadRequest, rule));
    match (lines(IF_MATCH), lines(IF_NONE_MATCH).as_deref().map(str::trim)) {
        (None, None) => Ok(Condition::Any),
        (None, Some("*")) => Ok(Condition::Absent),
        (_, Some(_)) => bad("If-None-Match must be * here, without If-Match"),
        (Some(line), None) if line.trim() == "*" => Ok(Condition::Exists),
        (Some(line), None) => {
            let tags: Option<Vec<&str>> = line
                .split(',')
                .map(|tag| tag.trim().strip_prefix('"')?.strip_suffix('"'))
                .collect();
            match tags {
                // A tag that no register can have matches none.
                Some(tags) => Ok(Condition::Revisions(
                    tags.into_iter().filter_map(|tag| tag.parse().ok()).collect(),
                )),
                None => bad("If-Match must be * or entity tags such as \"17\""),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{condition, key_in, repeat_key};
    use crate::order::Condition;

    #[test]
    fn a_key_is_bare_or_quoted() {
        let long = "x".repeat(255);
        let rows: [(&str, Option<&str>); 14] = [
            ("a", Some("a")),
            ("\"a\"", Some("a")),
            ("\"a\\\"b\\\\c\"", Some("a\"b\\c")),
            ("a\"b", Some("a\"b")),
            (&long, Some(&long)),
            ("", None),
            ("\"\"", None),
            ("\"a", None),
            ("\"a\"b", None),
            ("\"a\\\"", None),
            ("a b", None),
            ("\"a b\"", None),
            ("a\u{e9}", None),
            ("\"", None),
        ];
        for (value, want) in rows {
            let got = key_in(value.as_bytes()).map(|key| String::from_utf8(key).unwrap());
            assert_eq!(got.as_deref(), want, "{value:?}");
        }
        assert!(key_in(format!("{long}x").as_bytes()).is_none());
        let mut headers = HeaderMap::new();
        assert!(matches!(repeat_key(&headers), Ok(None)));
        headers.insert("idempotency-key", HeaderValue::from_static("a"));
        let bare = repeat_key(&headers).unwrap();
        headers.insert("idempotency-key", HeaderValue::from_static("\"a\""));
        assert!(bare.is_some() && repeat_key(&headers).unwrap() == bare);
        headers.append("idempotency-key", HeaderValue::from_static("b"));
        assert!(repeat_key(&headers).is_err());
    }

    #[test]
    fn conditions_are_read_as_http_writes_them() {
        type Fields<'f> = &'f [(&'f str, &'f str)];
        let rows: [(Fields<'_>, Option<Condition>); 9] = [
            (&[], Some(Condition::Any)),
            (&[("if-match", "*")], Some(Condition::Exists)),
            (&[("if-match", "\"3\"")], Some(Condition::Revisions(vec![3]))),
            (&[("if-match", "\"3\", \"4\"")], Some(Condition::Revisions(vec![3, 4]))),
            (&[("if-match", "\"x\"")], Some(Condition::Revisions(vec![]))),
            (&[("if-none-match", "*")], Some(Condition::Absent)),
            (&[("if-none-match", "\"3\"")], None),
            (&[("if-match", "3")], None),
            (&[("if-match", "*"), ("if-none-match", "*")], None),
        ];
        for (fields, want) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let name = HeaderName::try_from(*name).unwrap();
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(condition(&headers).ok(), want, "{fields:?}");
        }
    }
}
