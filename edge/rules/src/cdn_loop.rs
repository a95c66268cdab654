//! `CDN-Loop` (RFC 8586): which nodes a request has passed.
//!
//! Members are parsed, not searched for: what stands in quotes of somebody else's parameter is no
//! member, and neither other spacing nor parameters that were added make a member another one.

use http::HeaderMap;
use http::header::HeaderName;

use crate::list;

/// Its name.
pub const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Members beyond which a request has gone round, whoever they are.
pub const MAX_HOPS: usize = 32;

/// Whether the request has been sent on by the node `name` with this `id` before, or by so many
/// that somebody on the way does not look.
pub fn is_loop(fields: &HeaderMap, name: &str, id: &str) -> bool {
    let lines = fields.get_all(CDN_LOOP).iter();
    let mut members = lines.flat_map(|line| list::members(line.as_bytes()));
    let mut hops = 0_usize;
    members.any(|member| {
        hops += usize::from(!member.text.is_empty());
        hops > MAX_HOPS || (member.closed && is_own(member.text, name, id))
    })
}

/// Whether this member is `name` with a parameter `id`.
fn is_own(member: &[u8], name: &str, id: &str) -> bool {
    let mut parts = parameters(member);
    // Names of hosts, which `cdn-id` may be, know no case.
    let is_named = parts.next().is_some_and(|first| first.eq_ignore_ascii_case(name.as_bytes()));
    is_named
        && parts.any(|parameter| {
            let Some(equals) = parameter.iter().position(|byte| *byte == b'=') else {
                return false;
            };
            let (key, value) = parameter.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            key.eq_ignore_ascii_case(b"id") && bare.unwrap_or(value) == id.as_bytes()
        })
}

/// Splits at semicolons outside quoted strings.
fn parameters(member: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = member.split(move |byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        *byte == b';' && !quoted
    });
    parts.map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::headers;

    #[test]
    fn a_node_knows_its_own_member_and_no_other() {
        let rows = [
            ("fra-1; id=00ff", true),
            ("fra-1;id=00ff", true),
            ("FRA-1 ; ID=\"00ff\" ; hops=2", true),
            ("other, fra-1; id=00ff", true),
            ("other; x=\"a,b\", fra-1; id=00ff", true),
            ("fra-1", false), // another CDN may have a node of that name
            ("fra-1; id=00fe", false),
            ("fra-10; id=00ff", false),
            ("other; x=\"y, fra-1; id=00ff\"", false),
            ("other; x=\"y; id=00ff", false),
            ("\"fra-1\"; id=00ff", false),
            ("fra-1; x=\"; id=00ff\"", false),
            ("", false),
            (",,;;=,\"", false),
        ];
        for (line, want) in rows {
            let fields = headers(&format!("CDN-Loop: {line}"));
            assert_eq!(is_loop(&fields, "fra-1", "00ff"), want, "{line}");
        }
        let two = headers("CDN-Loop: other\nCDN-Loop: fra-1; id=00ff");
        assert!(is_loop(&two, "fra-1", "00ff"), "any line counts");
        assert!(!is_loop(&HeaderMap::new(), "fra-1", "00ff"));
    }

    #[test]
    fn a_request_that_passed_too_many_nodes_goes_round() {
        for (hops, want) in [(MAX_HOPS, false), (MAX_HOPS + 1, true)] {
            let fields = headers(&format!("CDN-Loop: {}", vec!["cdn.example"; hops].join(", ")));
            assert_eq!(is_loop(&fields, "fra-1", "00ff"), want, "{hops}");
        }
    }
}
