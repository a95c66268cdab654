//! What a host with or without a port looks like where a client names the one that it means
//! (RFC 9110 §4.2, §7.2, RFC 9112 §3.2).
//!
//! # Deviations
//! - RFC 3986 §3.2.2 lets a registered name hold percent-encodings and `!$&'()*+,;=`. No name of
//!   DNS does, and what copies them into a page, a link or a log is easily misled: refused.
//! - Userinfo in an `http` URL is no part of what is asked, and a way to pass one host off as
//!   another (RFC 9110 §4.2.4): refused.

use std::net::Ipv6Addr;

/// Whether these bytes are a host, perhaps with a port. Empty they are none.
pub fn is_authority(bytes: &[u8]) -> bool {
    let (host, port) = match bytes.strip_prefix(b"[") {
        Some(inner) => {
            let Some(end) = inner.iter().position(|byte| *byte == b']') else { return false };
            let (host, rest) = inner.split_at(end);
            if !is_ipv6(host) {
                return false;
            }
            (None, rest.get(1..).unwrap_or_default())
        }
        None => {
            let end = bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len());
            let (host, rest) = bytes.split_at(end);
            (Some(host), rest)
        }
    };
    host.is_none_or(is_name) && is_port(port)
}

fn is_ipv6(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// Labels with a dot between two, and perhaps one behind the last. Underscores stand in names that
/// are in use, whatever RFC 952 says.
fn is_name(bytes: &[u8]) -> bool {
    let mut previous = b'.';
    for byte in bytes {
        let fits = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !fits || (*byte == b'.' && previous == b'.') {
            return false;
        }
        previous = *byte;
    }
    !bytes.is_empty()
}

/// Nothing, or a colon with at most a port (RFC 3986 §3.2.3).
fn is_port(bytes: &[u8]) -> bool {
    let digits = match bytes.split_first() {
        None => return true,
        Some((b':', digits)) => digits,
        Some(_) => return false,
    };
    let number = crate::list::decimal(digits);
    digits.is_empty() || number.is_some_and(|port| port <= u64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        let rows = [
            ("shop.example", true),
            ("SHOP.example.", true),
            ("a_b.example:8080", true),
            ("127.0.0.1", true),
            ("h:", true), // RFC 3986 §3.2.3: an empty port is none
            ("h:65535", true),
            ("[::1]", true),
            ("[2001:DB8::1]:443", true),
            ("[::ffff:10.0.0.1]", true),
            ("", false),
            (".", false),
            (".example", false),
            ("a..b", false),
            ("h..", false),
            ("h:65536", false),
            ("h:+80", false),
            ("h:80:80", false),
            ("h:99999999999999999999999", false),
            (":80", false),
            ("::1", false),
            ("[::1", false),
            ("[::1]x", false),
            ("[::g]", false),
            ("[fe80::1%25eth0]", false),
            ("[127.0.0.1]", false),
            ("user@shop.example", false),
            ("shop.example/x", false),
            ("shop.example?x", false),
            ("shop example", false),
            ("shop%2eexample", false),
            ("shop.example,evil.example", false),
            ("shop'example", false),
            ("sh\u{f6}p.example", false),
        ];
        for (text, want) in rows {
            assert_eq!(is_authority(text.as_bytes()), want, "{text}");
        }
    }
}
