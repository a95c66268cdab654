//! Groups of responses that go together (RFC 9875).
//!
//! Answers which groups a field names. They are groups of one origin: who compares them brings it.
//!
//! # Invariants
//! - Compared byte for byte: case counts (RFC 9875 §2.1).
//! - A field that is no list of strings names none (RFC 9651 §4.2).

use http::{HeaderMap, HeaderName};

use crate::structured::{self, Bare, Member};

/// The groups that a stored response is of (RFC 9875 §2).
pub const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// The groups that the answer to an unsafe request invalidates (RFC 9875 §3).
pub const CACHE_GROUP_INVALIDATION: HeaderName =
    HeaderName::from_static("cache-group-invalidation");

/// Groups of one field that are heard; RFC 9875 §2 asks for 32 at least.
const MAX_GROUPS: usize = 128;

/// The groups that `name` names in `response`.
pub fn groups(response: &HeaderMap, name: &HeaderName) -> Vec<String> {
    if !response.contains_key(name) {
        return Vec::new();
    }
    let text = |member| match member {
        Member::Item(Bare::String(group)) => Some(group),
        Member::Item(Bare::Integer(_) | Bare::Boolean(_) | Bare::Token(_) | Bare::Other)
        | Member::InnerList => None,
    };
    let members = structured::list(response.get_all(name).iter()).unwrap_or_default();
    let groups = members.into_iter().map(text).collect::<Option<Vec<_>>>();
    let mut groups = groups.unwrap_or_default();
    groups.truncate(MAX_GROUPS);
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::headers;

    #[test]
    fn a_list_of_strings_names_groups_and_nothing_else_does() {
        let rows: [(&str, &[&str]); 12] = [
            ("\"a\"", &["a"]),
            ("\"a\", \"B c\";x=1", &["a", "B c"]), // parameters are not heard
            ("\"a\"\nCache-Groups: \"b\"", &["a", "b"]),
            ("\"a\\\"b\"", &["a\"b"]),
            ("\"\"", &[""]),
            ("", &[]),
            ("a", &[]),
            ("\"a\", b", &[]), // one wrong member, and the whole field is nothing
            ("\"a\", (\"b\")", &[]),
            ("\"a\",", &[]),
            ("\"a", &[]),
            ("\"a\" \"b\"", &[]),
        ];
        for (field, want) in rows {
            let response = headers(&format!("Cache-Groups: {field}"));
            assert_eq!(groups(&response, &CACHE_GROUPS), want, "{field}");
            assert!(groups(&response, &CACHE_GROUP_INVALIDATION).is_empty());
        }
        let many = (0..200).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ");
        let response = headers(&format!("Cache-Groups: {many}"));
        assert_eq!(groups(&response, &CACHE_GROUPS).len(), MAX_GROUPS);
    }
}
