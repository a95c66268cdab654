//! The key under which responses are stored: site, scheme, method class, host where it counts,
//! path and normalised query. The variants that `Vary` selects share one key.
//!
//! # Invariants
//! - Two targets that RFC 3986 §6.2.2 calls equivalent have one key, and what is sent upstream is
//!   spelled as the key is (`meridian_edge_rules::target`): no other spelling's answer is stored.
//! - Different parts cannot run into each other: they are separated by bytes no target contains.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use meridian_config::query::Query;
use meridian_edge_rules::target::{normalise, write_path};
use percent_encoding::percent_decode_str;

use crate::route::folded;
use crate::scope::Place;

/// Between a key and the name of what belongs to what has it. No target contains it.
const WITHIN: char = '\n';

/// A key. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey(Arc<str>);

impl CacheKey {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of something that belongs to what has this key, and is stored at the same place.
    pub(crate) fn within(&self, name: impl fmt::Display) -> Self {
        Self(Arc::from(format!("{}{WITHIN}{name}", self.0)))
    }

    /// Where what has this key is stored.
    pub(crate) fn place(&self) -> Place<'_> {
        place(&self.0)
    }
}

/// Where what has the key `key` is stored. The scheme is no part of it: a purge means both.
pub(crate) fn place(key: &str) -> Place<'_> {
    let key = key.split(WITHIN).next().unwrap_or_default();
    let mut parts = key.splitn(4, ' ');
    let mut next = || parts.next().unwrap_or_default();
    let (site, _scheme, host, target) = (next(), next(), next(), next());
    Place { site, host, target }
}

/// Normalises the beginning of a path as keys have it. An encoding that is cut off at its end is
/// left out, so that the beginning stays one of whatever it was one of.
pub(crate) fn prefix(text: &str) -> String {
    let whole = text.len().saturating_sub(2);
    let cut = text.as_bytes().iter().skip(whole).position(|byte| *byte == b'%');
    let mut into = String::with_capacity(text.len());
    normalise(&mut into, cut.map_or(text, |cut| text.get(..whole + cut).unwrap_or(text)));
    into
}

impl From<&str> for CacheKey {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl Borrow<str> for CacheKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) site: &'a str,
    pub(crate) scheme: &'a str,
    /// Only where the site sends the client's own host upstream.
    pub(crate) host: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
}

/// Writes the key of `parts` into `into`, which is cleared first: a lookup then allocates nothing.
///
/// GET and HEAD are one class and the only one that is stored, so it is not written.
#[cfg(test)]
pub(crate) fn write_key(into: &mut String, parts: &Parts<'_>, rules: &Query) {
    write_key_with(into, parts, rules, |_| {});
}

/// The same with what `more` writes beside the scheme, which purges do not look at: no space.
pub(crate) fn write_key_with(
    into: &mut String,
    parts: &Parts<'_>,
    rules: &Query,
    more: impl FnOnce(&mut String),
) {
    into.clear();
    into.push_str(parts.site);
    into.push(' ');
    into.push_str(parts.scheme);
    more(into);
    into.push(' ');
    if let Some(host) = parts.host {
        into.push_str(&folded(host));
    }
    into.push(' ');
    write_path(into, parts.path);
    if let Some(query) = parts.query {
        write_query(into, query, rules);
    }
}

/// A path as keys spell it.
pub(crate) fn spelled(path: &str) -> Cow<'_, str> {
    if !path.contains('%') && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let mut into = String::with_capacity(path.len());
    write_path(&mut into, path);
    Cow::Owned(into)
}

fn write_query(into: &mut String, query: &str, rules: &Query) {
    if rules.keep.is_none() && rules.drop.is_empty() && !rules.sort {
        into.push('?');
        normalise(into, query);
        return;
    }
    // By what a name means to the origin, however it is spelled: `%69d` is `id`.
    let named = |parameter| (name(parameter), parameter);
    let mut parameters: Vec<_> =
        query.split('&').map(named).filter(|(name, text)| counts(rules, name, text)).collect();
    if rules.sort {
        // Stable: the order of equal names may mean something.
        parameters.sort_by(|(one, _), (other, _)| one.cmp(other));
    }
    for (n, (_, parameter)) in parameters.into_iter().enumerate() {
        into.push(if n == 0 { '?' } else { '&' });
        normalise(into, parameter);
    }
}

/// Whether a parameter is part of the key. What holds a `;` always is: to some origins it is several
/// parameters, and the first one's name would hide the others.
fn counts(rules: &Query, name: &[u8], parameter: &str) -> bool {
    let kept = rules.keep.as_ref().is_none_or(|keep| keep.iter().any(|p| names(p, name)));
    kept && !rules.drop.iter().any(|p| names(p, name)) || parameter.contains(';')
}

/// `target` without the parameters that the key does not hold, where the site has such.
pub(crate) fn counted(target: &str, rules: &Query) -> Option<String> {
    let (path, query) = target.split_once('?')?;
    if rules.keep.is_none() && rules.drop.is_empty() {
        return None;
    }
    let mut into = path.to_owned();
    let counting = query.split('&').filter(|text| counts(rules, &name(text), text));
    for (n, parameter) in counting.enumerate() {
        into.push(if n == 0 { '?' } else { '&' });
        into.push_str(parameter);
    }
    Some(into)
}

/// The name of a parameter, decoded.
fn name(parameter: &str) -> Cow<'_, [u8]> {
    percent_decode_str(parameter.split('=').next().unwrap_or_default()).into()
}

/// Whether `pattern` (a name, with `*` at its end for any rest) names the parameter `name`.
fn names(pattern: &str, name: &[u8]) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()),
        None => name == pattern.as_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy;

    use super::*;

    fn key(path: &str, query: Option<&str>, rules: &Query) -> String {
        let mut into = String::new();
        let parts = Parts { site: "s", scheme: "http", host: None, path, query };
        write_key(&mut into, &parts, rules);
        into
    }

    #[test]
    fn equivalent_targets_share_a_key_and_others_do_not() {
        let rows = [
            ("/a", "/a", true),
            ("/%61", "/a", true),
            ("/%7euser", "/~user", true),
            ("/%e2%82%ac", "/%E2%82%AC", true),
            ("/a%2fb", "/a/b", false), // an encoded slash is data, not structure
            ("/a%2Fb", "/a%2fb", true),
            ("/A", "/a", false),
            ("/a%zz", "/a%ZZ", false), // not an encoding: taken as it stands
            ("/a%", "/a%25", false),
            ("/a%+1", "/a%01", false), // a sign is no digit
            ("/a/%2e%2e/b", "/b", true),
            ("/a/..%2fb", "/b", false),
            ("/a/..%2fb", "/a/..%2Fb", true),
        ];
        for (one, other, same) in rows {
            let rules = Query::default();
            assert_eq!(key(one, None, &rules) == key(other, None, &rules), same, "{one} {other}");
        }
    }

    #[test]
    fn what_belongs_to_a_key_is_stored_at_its_place() {
        let key = CacheKey::from("s http h.example /a?b");
        let slice = key.within(format_args!("{}.{}", 1024, 7));
        assert_eq!(slice.place(), key.place());
        assert_ne!(slice, key);
        assert_eq!(slice.as_str(), "s http h.example /a?b\n1024.7");
    }

    #[test]
    fn a_query_is_dropped_kept_and_sorted_as_the_site_says() {
        let rules = |keep: Option<&[&str]>, drop: &[&str], sort| Query {
            keep: keep.map(|keep| keep.iter().map(ToString::to_string).collect()),
            drop: drop.iter().map(ToString::to_string).collect(),
            sort,
        };
        let rows = [
            (rules(None, &[], false), "b=2&a=1", "?b=2&a=1"),
            (rules(None, &[], true), "b=2&a=1", "?a=1&b=2"),
            (rules(None, &[], true), "a=2&b&a=1", "?a=2&a=1&b"),
            (rules(None, &["utm_*"], false), "utm_source=x&a=1&utm_id=7", "?a=1"),
            (rules(Some(&["id"]), &[], false), "id=1&session=2", "?id=1"),
            (rules(Some(&["id"]), &[], false), "session=2", ""),
            (rules(Some(&["id"]), &[], false), "%69d=1&%69D=2", "?id=1"), // the origin reads `id`
            (rules(None, &["utm_*"], false), "%75tm_id=7&a=1", "?a=1"),
            (rules(None, &["utm_*"], false), "utm_id=7;a=1&b=2", "?utm_id=7;a=1&b=2"),
            (rules(Some(&["id"]), &[], false), "x=7;id=1", "?x=7;id=1"),
            (rules(None, &[], true), "b=1&%61=2&a=3", "?a=2&a=3&b=1"),
        ];
        for (rules, query, want) in rows {
            assert_eq!(key("/", Some(query), &rules), format!("s http  /{want}"), "{query}");
        }
    }

    #[test]
    fn a_key_tells_where_it_is_stored_whatever_stands_in_its_target() {
        let rows = [
            ("/a", None, "/a"),
            ("/a b", Some("x=1 2"), "/a b?x=1 2"),
            ("/a", Some("x=?"), "/a?x=?"),
        ];
        for (path, query, target) in rows {
            let key = key(path, query, &Query::default());
            assert_eq!(place(&key), Place { site: "s", host: "", target }, "{key}");
            assert_eq!(place(&key).path(), path);
        }
    }

    #[test]
    fn the_beginning_of_a_path_is_normalised_to_the_beginning_of_its_key() {
        let rows = [
            ("/img/", "/img/"),
            ("/%69mg/", "/img/"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%2", "/a"), // whatever it would have become begins so
            ("/a%", "/a"),
            ("/a%2f", "/a%2F"),
            ("", ""),
        ];
        for (text, want) in rows {
            assert_eq!(prefix(text), want, "{text}");
        }
    }

    /// A character of a target, and how it is spelled in two places.
    fn spelled() -> impl Strategy<Value = (char, [u8; 2])> {
        let all = "abzAZ09-._~/:@!$&'()*+,;=".chars().collect::<Vec<_>>();
        (proptest::sample::select(all), [0..3_u8, 0..3_u8])
    }

    /// Plain where it may be, else encoded in lower or in upper case.
    fn write(character: char, spelling: u8, may_be_encoded: bool) -> String {
        match spelling {
            1 if may_be_encoded => format!("%{:02x}", u32::from(character)),
            2 if may_be_encoded => format!("%{:02X}", u32::from(character)),
            _ => character.into(),
        }
    }

    proptest::proptest! {
        #[test]
        fn equivalent_targets_have_one_key_and_an_encoded_delimiter_is_another(
            text in proptest::collection::vec(spelled(), 0..24),
            query in proptest::option::of(proptest::collection::vec(spelled(), 0..24)),
            sort: bool,
        ) {
            let rules = Query { sort, ..Query::default() };
            let unreserved = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
            let target = |which: usize| {
                let part = |text: &[(char, [u8; 2])]| {
                    let one = |(c, how): &(char, [u8; 2])| write(*c, how[which], unreserved(*c));
                    text.iter().map(one).collect::<String>()
                };
                (format!("/{}", part(&text)), query.as_deref().map(part))
            };
            let [(path, said), (other_path, other_said)] = [target(0), target(1)];
            let one = key(&path, said.as_deref(), &rules);
            let other = key(&other_path, other_said.as_deref(), &rules);
            proptest::prop_assert_eq!(one.clone(), other);
            let encoded = format!("{path}%2F");
            let plain = format!("{path}/");
            proptest::prop_assert_ne!(
                key(&encoded, said.as_deref(), &rules),
                key(&plain, said.as_deref(), &rules)
            );
        }

        #[test]
        fn every_beginning_of_a_path_is_one_of_its_key(
            text in "([a-zA-Z0-9/._~!-]|%[0-9a-fA-F]{2}|%){0,32}", at in 0_usize..32,
        ) {
            let mut whole = String::new();
            normalise(&mut whole, &text);
            let begins = prefix(text.get(..at.min(text.len())).unwrap());
            proptest::prop_assert!(whole.starts_with(&begins), "{whole} {begins}");
        }

        #[test]
        fn a_normalised_text_stays_as_it_is(
            text in "([a-zA-Z0-9/._~!-]|%[0-9a-fA-F]{2}){0,32}",
        ) {
            let mut once = String::new();
            normalise(&mut once, &text);
            let mut twice = String::new();
            normalise(&mut twice, &once);
            proptest::prop_assert_eq!(once, twice);
        }
    }
}
