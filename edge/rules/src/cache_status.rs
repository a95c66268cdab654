//! How a cache tells what it did: `Cache-Status` (RFC 9211).

use std::fmt::{self, Write};

use http::{HeaderName, StatusCode};

use crate::decide::Fwd;
use crate::list::is_tchar;

/// `Cache-Status`.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The greatest integer of a structured field (RFC 9651 §3.3.1).
const MAX_INTEGER: i64 = 999_999_999_999_999;

/// One member of `Cache-Status`; `Display` writes it.
///
/// `hit` and `fwd` exclude each other (RFC 9211 §2.1, §2.2): with `hit`, `fwd` is not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus<'a> {
    /// Clients are not told: the field is taken out instead.
    pub hidden: bool,
    /// The name of this cache.
    pub cache: &'a str,
    /// Answered without going forward.
    pub hit: bool,
    /// Why it went forward.
    pub fwd: Option<Fwd>,
    /// What came back from there.
    pub fwd_status: Option<StatusCode>,
    /// What is left of the lifetime, in seconds.
    pub ttl: Option<i64>,
    /// The answer was stored.
    pub stored: bool,
    /// Shared another request's exchange.
    pub collapsed: bool,
    /// The cache key.
    pub key: Option<&'a str>,
    /// Anything else worth a word.
    pub detail: Option<&'a str>,
}

impl fmt::Display for CacheStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_token_or_string(f, self.cache)?;
        if self.hit {
            f.write_str("; hit")?;
        } else if let Some(fwd) = self.fwd {
            write!(f, "; fwd={}", fwd.token())?;
        }
        if let Some(status) = self.fwd_status {
            write!(f, "; fwd-status={}", status.as_u16())?;
        }
        if self.stored {
            f.write_str("; stored")?;
        }
        if self.collapsed {
            f.write_str("; collapsed")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, "; ttl={}", ttl.clamp(-MAX_INTEGER, MAX_INTEGER))?;
        }
        if let Some(key) = self.key {
            f.write_str("; key=")?;
            write_string(f, key)?; // RFC 9211 §2.7: a string, always
        }
        if let Some(detail) = self.detail {
            f.write_str("; detail=")?;
            write_token_or_string(f, detail)?;
        }
        Ok(())
    }
}

pub(crate) fn write_token_or_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let starts = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*');
    if starts && text.bytes().all(|byte| is_tchar(byte) || byte == b':' || byte == b'/') {
        f.write_str(text)
    } else {
        write_string(f, text)
    }
}

/// A string of RFC 9651 §3.3.3. What it cannot hold is percent-encoded.
pub(crate) fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => write!(f, "\\{}", char::from(byte))?,
            b' '..=b'~' => f.write_char(char::from(byte))?,
            _ => write!(f, "%{byte:02X}")?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_read_as_rfc_9211_writes_them() {
        let base = CacheStatus { cache: "fra-1", ..CacheStatus::default() };
        let rows = [
            (CacheStatus { hit: true, ttl: Some(41), ..base }, "fra-1; hit; ttl=41"),
            (
                CacheStatus {
                    fwd: Some(Fwd::UriMiss),
                    fwd_status: Some(StatusCode::OK),
                    stored: true,
                    ttl: Some(60),
                    ..base
                },
                "fra-1; fwd=uri-miss; fwd-status=200; stored; ttl=60",
            ),
            (
                CacheStatus { fwd: Some(Fwd::UriMiss), collapsed: true, ..base },
                "fra-1; fwd=uri-miss; collapsed",
            ),
            (
                CacheStatus {
                    fwd: Some(Fwd::Stale),
                    fwd_status: Some(StatusCode::SERVICE_UNAVAILABLE),
                    ttl: Some(-12),
                    ..base
                },
                "fra-1; fwd=stale; fwd-status=503; ttl=-12",
            ),
            (
                CacheStatus { hit: true, ttl: Some(-12), detail: Some("breaker-open"), ..base },
                "fra-1; hit; ttl=-12; detail=breaker-open",
            ),
            (
                CacheStatus { cache: "a cache", key: Some("k\"\\ü"), detail: Some("a b"), ..base },
                r#""a cache"; key="k\"\\%C3%BC"; detail="a b""#,
            ),
            (CacheStatus { cache: "", detail: Some("1x"), ..base }, r#"""; detail="1x""#),
            (CacheStatus { hit: true, fwd: Some(Fwd::Miss), ..base }, "fra-1; hit"),
            (CacheStatus { ttl: Some(i64::MIN), ..base }, "fra-1; ttl=-999999999999999"),
        ];
        for (status, want) in rows {
            assert_eq!(status.to_string(), want);
        }
    }
}
