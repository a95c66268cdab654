//! The one spelling of a path and a query that stands for all equivalent ones
//! (RFC 3986 §6.2.2).
//!
//! What is a key and what goes upstream are both made here: two spellings with one key are one
//! and the same to the origin too, so that nobody can have the answer to one stored as that to the
//! other.
//!
//! - Percent-encodings of unreserved characters are decoded, the others are in upper case.
//! - `.` and `..` as whole segments are resolved, also where they were encoded.
//! - Everything else counts as it stands: reserved characters encoded or not, empty segments, an
//!   empty query against none, and what merely looks like an encoding.

use std::fmt::Write as _;

/// Appends `path` with `query` to `into`.
pub fn write_target(into: &mut String, path: &str, query: Option<&str>) {
    write_path(into, path);
    if let Some(query) = query {
        into.push('?');
        normalise(into, query);
    }
}

/// Appends `path` to `into`, which may already hold something else.
pub fn write_path(into: &mut String, path: &str) {
    let start = into.len();
    normalise(into, path);
    let written = into.get(start..).unwrap_or_default();
    if written.contains("/.")
        && let Some(resolved) = resolved(written)
    {
        into.truncate(start);
        into.push_str(&resolved);
    }
}

/// `path` without its dot segments (RFC 3986 §5.2.4); `None`: it has none.
fn resolved(path: &str) -> Option<String> {
    let segments = path.strip_prefix('/')?;
    if !segments.split('/').any(|segment| matches!(segment, "." | "..")) {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in segments.split('/') {
        ends_open = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    if ends_open {
        kept.push("");
    }
    Some(format!("/{}", kept.join("/")))
}

/// Appends `text` with percent-encodings in upper case and without those that need not be
/// (RFC 3986 §6.2.2.1-2).
pub fn normalise(into: &mut String, text: &str) {
    let mut rest = text;
    // Where a percent sign stands that begins no encoding: what is decoded close behind it would
    // make it begin one.
    let mut stray: Option<usize> = None;
    while let Some((before, after)) = rest.split_once('%') {
        into.push_str(before);
        let is_clear = stray.is_none_or(|at| into.len() - at > 2);
        match after.get(..2).and_then(encoded) {
            Some(byte) if is_clear && is_unreserved(byte) => {
                into.push(char::from(byte));
                rest = after.get(2..).unwrap_or_default();
            }
            Some(byte) => {
                // Writing to a String cannot fail.
                let _written = write!(into, "%{byte:02X}");
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                stray = Some(into.len());
                into.push('%');
                rest = after;
            }
        }
    }
    into.push_str(rest);
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The byte that two hexadecimal digits stand for.
fn encoded(hex: &str) -> Option<u8> {
    // `from_str_radix` would take a sign for a digit.
    let digits = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn target(path: &str, query: Option<&str>) -> String {
        let mut into = String::from("before");
        write_target(&mut into, path, query);
        into.strip_prefix("before").unwrap().to_owned()
    }

    #[test]
    fn equivalent_paths_have_one_spelling_and_others_keep_theirs() {
        let rows = [
            ("/", "/"),
            ("*", "*"),
            ("/%61", "/a"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%zz%", "/a%zz%"),
            ("/a%+1", "/a%+1"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/../../a", "/a"),
            ("/..", "/"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a//../b", "/a/b"), // an empty segment is one
            ("//a", "//a"),
            ("/a//b", "/a//b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/..b/.c/...", "/a/..b/.c/..."),
            ("/a/..%2Fb", "/a/..%2Fb"), // an encoded slash ends no segment
            ("/a/..;x/b", "/a/..;x/b"),
            ("/a\\..\\b", "/a\\..\\b"),
            ("/%2%65/a", "/%2%65/a"), // not decoded into an encoding
            ("/%%32e", "/%%32e"),
            ("/%2%2%65", "/%2%2%65"),
            ("/%zzz%65", "/%zzze"),
            ("/%252e%252e/a", "/%252e%252e/a"), // decoded once and no more
        ];
        for (path, want) in rows {
            assert_eq!(target(path, None), want, "{path}");
        }
    }

    #[test]
    fn dots_of_a_query_are_no_segments_and_an_empty_query_is_one() {
        assert_eq!(target("/a", Some("x=/../%2e")), "/a?x=/../.");
        assert_eq!(target("/a", Some("")), "/a?");
        assert_eq!(target("/a", None), "/a");
    }

    proptest! {
        #[test]
        fn what_is_in_its_one_spelling_stays_as_it_is(path in "/[a-c./%2eE561-]{0,24}") {
            let once = target(&path, None);
            prop_assert_eq!(target(&once, None), once.clone());
            prop_assert!(once.starts_with('/'));
            prop_assert!(!once.split('/').any(|segment| matches!(segment, "." | "..")));
        }
    }
}
