//! Where a listener is reached: `http://host:port`, without path, query or user.
//!
//! Answers whether a text is one. It never resolves nor dials.
//!
//! # Invariants
//! - What it holds is safe to put in front of an origin-form target (RFC 9112 §3.2.1) in a
//!   `Location` field: visible ASCII, no slash after the authority, no `@`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest base URL, in bytes.
pub const MAX_URL: usize = 512;

const RULE: &str = "must be scheme://host or scheme://host:port, scheme http or https, \
                    without user, path, query and fragment, at most 512 bytes";

/// `http://` or `https://`, a host and perhaps a port; at most [`MAX_URL`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// The text, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the scheme is `https`.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// The port that it names, if it names one.
    pub fn port(&self) -> Option<u16> {
        let authority = self.authority();
        let after_host = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
        after_host.rsplit_once(':')?.1.parse().ok()
    }

    /// Host and, if it has one, port (RFC 3986 §3.2): what `Host` carries.
    pub fn authority(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, authority)| authority)
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    /// Takes one slash at the end for the empty path that it is, and drops it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let authority = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        match authority {
            Some(authority) if text.len() <= MAX_URL && is_authority(authority) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(RULE.to_owned()),
        }
    }
}

/// Host and optional port, with no user before them.
fn is_authority(text: &str) -> bool {
    match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').is_some_and(|(host, port)| {
            host.parse::<std::net::Ipv6Addr>().is_ok() && is_port_or_nothing(port)
        }),
        None => {
            let (host, port) = text.find(':').map_or((text, ""), |at| text.split_at(at));
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
                && is_port_or_nothing(port)
        }
    }
}

fn is_port_or_nothing(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(':').is_some_and(|port| {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|n| n > 0)
        })
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BaseUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for BaseUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{BaseUrl, MAX_URL};

    #[test]
    fn only_scheme_and_authority_make_a_base_url() {
        let rows = [
            ("http://127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("http://127.0.0.1:8080/", Some("127.0.0.1:8080")),
            ("https://cdn.example", Some("cdn.example")),
            ("http://[::1]:80", Some("[::1]:80")),
            ("http://[::1]", Some("[::1]")),
            ("http://[::1", None),
            ("http://[::1]80", None),
            ("http://[nonsense]:80", None),
            ("http://a//", None),
            ("http://a/b", None),
            ("http://a?b", None),
            ("http://a#b", None),
            ("http://user@a", None),
            ("http://a:0", None),
            ("http://a:65536", None),
            ("http://a:+80", None),
            ("http://a:", None),
            ("http://a:80:80", None),
            ("http://", None),
            ("http:///", None),
            ("HTTP://a", None),
            ("ftp://a", None),
            ("a:80", None),
            ("http://a\r\nSet-Cookie: b", None),
            ("http://ä", None),
            ("", None),
        ];
        for (text, want) in rows {
            let read = text.parse::<BaseUrl>().ok();
            assert_eq!(read.as_ref().map(BaseUrl::authority), want, "{text:?}");
        }
        let port = |text: &str| text.parse::<BaseUrl>().unwrap().port();
        assert_eq!(port("http://a:80"), Some(80));
        assert_eq!(port("http://a"), None);
        assert_eq!(port("http://[::1]"), None);
        assert_eq!(port("http://[::1]:8080"), Some(8080));
        let long = |n: usize| format!("http://{}", "a".repeat(n - 7)).parse::<BaseUrl>();
        assert!(long(MAX_URL).is_ok());
        assert!(long(MAX_URL + 1).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_safe_before_a_path(text in any::<String>(), tail in "[ -~]*") {
            for text in [text, format!("http://{tail}")] {
                if let Ok(url) = text.parse::<BaseUrl>() {
                    let authority = url.authority();
                    assert!(!authority.is_empty());
                    assert!(authority.bytes().all(|b| b.is_ascii_graphic()));
                    assert!(!authority.contains(['/', '@', '?', '#', '\\']));
                    assert_eq!(url.as_str().parse::<BaseUrl>().as_ref(), Ok(&url));
                }
            }
        }
    }
}
