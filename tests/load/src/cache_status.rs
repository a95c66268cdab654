//! What an answer claims about itself in `Cache-Status` (RFC 9211).
//!
//! Only the last member counts: the list runs from the cache nearest the origin to the one nearest
//! the client (§2), and the latter is the one under test.
//!
//! # Invariants
//! - Whatever the field holds, there is an answer: what cannot be read claims nothing.

use serde::{Deserialize, Serialize};

/// What the cache that answered says it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// Answered from its store, without asking upstream.
    Hit,
    /// Waited for the answer to somebody else's forward request (§2.6).
    Collapsed(Fwd),
    /// Asked upstream (§2.2).
    Forwarded(Fwd),
    /// No `Cache-Status`, or one that says none of this.
    Nothing,
}

/// Why a request went forward (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fwd {
    /// Configured not to handle it.
    Bypass,
    /// The method asks for it.
    Method,
    /// Nothing stored for the URI.
    UriMiss,
    /// Something stored, but no variant that matches.
    VaryMiss,
    /// Nothing stored that could be used, for whatever reason.
    Miss,
    /// The request's own directives forbid what is stored.
    Request,
    /// Something stored, but stale.
    Stale,
    /// Something stored, but not the whole of it.
    Partial,
    /// A word that the standard does not know.
    Other,
}

impl Fwd {
    fn of(token: &str) -> Self {
        match token {
            "bypass" => Self::Bypass,
            "method" => Self::Method,
            "uri-miss" => Self::UriMiss,
            "vary-miss" => Self::VaryMiss,
            "miss" => Self::Miss,
            "request" => Self::Request,
            "stale" => Self::Stale,
            "partial" => Self::Partial,
            _ => Self::Other,
        }
    }
}

/// Reads the values of all `Cache-Status` lines of an answer, in their order.
pub fn claim<'a>(lines: impl Iterator<Item = &'a str>) -> Claim {
    let Some(member) = lines.filter_map(last_member).last() else { return Claim::Nothing };
    let (mut hit, mut collapsed, mut fwd) = (false, false, None);
    for parameter in split_outside_strings(member, ';').skip(1) {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (parameter.trim(), None),
        };
        match (name, value) {
            ("hit", None | Some("?1")) => hit = true,
            ("collapsed", None | Some("?1")) => collapsed = true,
            ("fwd", Some(token)) => fwd = Some(Fwd::of(token)),
            _ => {}
        }
    }
    match (fwd, hit) {
        (Some(fwd), _) if collapsed => Claim::Collapsed(fwd),
        (Some(fwd), _) => Claim::Forwarded(fwd),
        (None, true) => Claim::Hit,
        (None, false) => Claim::Nothing,
    }
}

/// Whether these lines say that what came is stale: the cache nearest the client gives it no
/// lifetime any more (RFC 9211 §2.4, a negative `ttl`).
pub fn is_stale<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
    let Some(member) = lines.filter_map(last_member).last() else { return false };
    let mut parameters = split_outside_strings(member, ';').skip(1);
    let ttl = parameters.find_map(|parameter| parameter.trim().strip_prefix("ttl="));
    ttl.and_then(|ttl| ttl.trim().parse::<i64>().ok()).is_some_and(|ttl| ttl < 0)
}

fn last_member(line: &str) -> Option<&str> {
    split_outside_strings(line, ',').map(str::trim).filter(|member| !member.is_empty()).last()
}

/// Splits where `at` stands outside quoted strings (RFC 9651 §3.3.3).
fn split_outside_strings(text: &str, at: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |next: char| {
        if escaped {
            escaped = false;
        } else if quoted && next == '\\' {
            escaped = true;
        } else if next == '"' {
            quoted = !quoted;
        } else {
            return next == at && !quoted;
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::{Claim, Fwd, claim, is_stale};

    #[test]
    fn the_cache_nearest_the_client_is_believed() {
        let rows: [(&[&str], Claim); 15] = [
            (&["fra-1; hit; ttl=41"], Claim::Hit),
            (&["fra-1;hit"], Claim::Hit),
            (&["fra-1; hit=?1"], Claim::Hit),
            (&["fra-1; hit=?0"], Claim::Nothing),
            (
                &["fra-1; fwd=uri-miss; fwd-status=200; stored; ttl=60"],
                Claim::Forwarded(Fwd::UriMiss),
            ),
            (&["fra-1; fwd=uri-miss; collapsed"], Claim::Collapsed(Fwd::UriMiss)),
            (&["fra-1; fwd=stale; fwd-status=304"], Claim::Forwarded(Fwd::Stale)),
            (&["fra-1; fwd=because"], Claim::Forwarded(Fwd::Other)),
            (&["shield-1; fwd=stale, fra-1; hit"], Claim::Hit),
            (&["shield-1; hit", "fra-1; fwd=miss"], Claim::Forwarded(Fwd::Miss)),
            (
                &["shield-1; hit, \"fra, 1; hit\"; fwd=miss; detail=\"a, b; hit\""],
                Claim::Forwarded(Fwd::Miss),
            ),
            (&["fra-1; detail=\"\\\", x; hit\"; fwd=vary-miss"], Claim::Forwarded(Fwd::VaryMiss)),
            (&["fra-1; detail=\"never closed, x; hit"], Claim::Nothing),
            (&["", " , "], Claim::Nothing),
            (&[], Claim::Nothing),
        ];
        for (lines, want) in rows {
            assert_eq!(claim(lines.iter().copied()), want, "{lines:?}");
        }
    }

    #[test]
    fn a_lifetime_below_nothing_is_stale() {
        let rows: [(&[&str], bool); 6] = [
            (&["fra-1; fwd=stale; ttl=-2; detail=slow-upstream"], true),
            (&["fra-1; hit; ttl=-40"], true),
            (&["fra-1; fwd=stale; fwd-status=304; stored; ttl=60"], false),
            (&["shield-1; hit; ttl=-3, fra-1; hit; ttl=5"], false),
            (&["fra-1; hit; detail=\"ttl=-1\""], false),
            (&[], false),
        ];
        for (lines, want) in rows {
            assert_eq!(is_stale(lines.iter().copied()), want, "{lines:?}");
        }
    }
}
