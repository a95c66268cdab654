//! Directives of `Cache-Control` in responses and requests (§5.2).
//!
//! Answers what was said, not what follows from it. All lines of the field count as one.
//!
//! # Invariants
//! - What forbids is heard also where it is malformed; what allows only where it is well formed.
//! - A lifetime that cannot be read is zero (§4.2.1); of several, the shortest counts.
//! - Reading a request's directives does not allocate, unless an argument has escapes.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, PRAGMA};

use crate::list::{self, delta_seconds, is_tchar};
use crate::time::MAX_DELTA;

/// How far `no-cache` or `private` reaches (§5.2.2.4, §5.2.2.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// The directive is absent.
    #[default]
    Nothing,
    /// It names these fields, and binds only them.
    Fields(Vec<HeaderName>),
    /// It binds the whole response.
    Everything,
}

impl Reach {
    /// Whether it binds the whole response.
    pub fn is_everything(&self) -> bool {
        *self == Self::Everything
    }

    /// The fields it names.
    pub fn fields(&self) -> &[HeaderName] {
        match self {
            Self::Fields(names) => names,
            Self::Nothing | Self::Everything => &[],
        }
    }

    fn widen(&mut self, other: Self) {
        *self = match (std::mem::take(self), other) {
            (Self::Everything, _) | (_, Self::Everything) => Self::Everything,
            (Self::Nothing, other) => other,
            (before, Self::Nothing) => before,
            (Self::Fields(mut names), Self::Fields(more)) => {
                names.extend(more);
                Self::Fields(names)
            }
        }
    }
}

/// What a response says to caches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// `max-age`; zero if unreadable.
    pub max_age: Option<Duration>,
    /// `s-maxage`; zero if unreadable.
    pub s_maxage: Option<Duration>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache`, perhaps for named fields only.
    pub no_cache: Reach,
    /// `private`, perhaps for named fields only.
    pub private: Reach,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `no-transform`.
    pub no_transform: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// `stale-while-revalidate` (RFC 5861 §3); zero if unreadable.
    pub stale_while_revalidate: Option<Duration>,
    /// `stale-if-error` (RFC 5861 §4); zero if unreadable.
    pub stale_if_error: Option<Duration>,
}

impl CacheControl {
    /// Reads `Cache-Control` of a response.
    pub fn of(response: &HeaderMap) -> Self {
        let mut said = Self::default();
        for directive in directives(response.get_all(CACHE_CONTROL).iter()) {
            said.hear(&directive);
        }
        said
    }

    fn hear(&mut self, directive: &Directive<'_>) {
        let granted = directive.argument == Argument::None;
        let shorten = |limit: &mut Option<Duration>| {
            let read = directive.argument.seconds().unwrap_or(Duration::ZERO);
            *limit = Some(limit.map_or(read, |before| before.min(read)));
        };
        match directive.known() {
            Some(Known::MaxAge) => shorten(&mut self.max_age),
            Some(Known::SMaxage) => shorten(&mut self.s_maxage),
            Some(Known::StaleWhileRevalidate) => shorten(&mut self.stale_while_revalidate),
            Some(Known::StaleIfError) => shorten(&mut self.stale_if_error),
            Some(Known::NoStore) => self.no_store = true,
            Some(Known::NoCache) => self.no_cache.widen(directive.argument.reach()),
            Some(Known::Private) => self.private.widen(directive.argument.reach()),
            Some(Known::MustRevalidate) => self.must_revalidate = true,
            Some(Known::ProxyRevalidate) => self.proxy_revalidate = true,
            Some(Known::NoTransform) => self.no_transform = true,
            Some(Known::Public) => self.public |= granted,
            Some(Known::MustUnderstand) => self.must_understand |= granted,
            Some(Known::Immutable) => self.immutable |= granted,
            Some(Known::MinFresh | Known::MaxStale | Known::OnlyIfCached) | None => {}
        }
    }
}

/// What a request says to caches (§5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// `no-cache`, or `Pragma: no-cache` where there is no `Cache-Control` (§5.4).
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
    /// `max-age`; zero if unreadable.
    pub max_age: Option<Duration>,
    /// `min-fresh`; out of reach if unreadable.
    pub min_fresh: Option<Duration>,
    /// `max-stale`; without an argument any age will do, with an unreadable one it is not heard.
    pub max_stale: Option<Duration>,
}

impl RequestDirectives {
    /// Reads `Cache-Control`, else `Pragma`, of a request.
    pub fn of(request: &HeaderMap) -> Self {
        let mut said = Self::default();
        if !request.contains_key(CACHE_CONTROL) {
            said.no_cache = pragma_no_cache(request);
            return said;
        }
        for directive in directives(request.get_all(CACHE_CONTROL).iter()) {
            said.hear(&directive);
        }
        said
    }

    fn hear(&mut self, directive: &Directive<'_>) {
        let seconds = directive.argument.seconds();
        match directive.known() {
            Some(Known::NoCache) => self.no_cache = true,
            Some(Known::NoStore) => self.no_store = true,
            Some(Known::OnlyIfCached) => self.only_if_cached = true,
            Some(Known::MaxAge) => {
                let read = seconds.unwrap_or(Duration::ZERO);
                self.max_age = Some(self.max_age.map_or(read, |before| before.min(read)));
            }
            Some(Known::MinFresh) => {
                let read = seconds.unwrap_or(Duration::MAX);
                self.min_fresh = Some(self.min_fresh.map_or(read, |before| before.max(read)));
            }
            Some(Known::MaxStale) => {
                let read = match directive.argument {
                    Argument::None => Some(MAX_DELTA),
                    Argument::Token(_) | Argument::Quoted(_) | Argument::Broken => seconds,
                };
                self.max_stale = match (self.max_stale, read) {
                    (Some(before), Some(read)) => Some(before.min(read)),
                    (before, read) => before.or(read),
                };
            }
            Some(
                Known::SMaxage
                | Known::StaleWhileRevalidate
                | Known::StaleIfError
                | Known::Private
                | Known::MustRevalidate
                | Known::ProxyRevalidate
                | Known::NoTransform
                | Known::Public
                | Known::MustUnderstand
                | Known::Immutable,
            )
            | None => {}
        }
    }
}

fn pragma_no_cache(request: &HeaderMap) -> bool {
    let mut lines = request.get_all(PRAGMA).iter();
    lines.any(|line| {
        list::members(line.as_bytes()).any(|member| member.text.eq_ignore_ascii_case(b"no-cache"))
    })
}

/// The directives that some rule knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    MaxAge,
    SMaxage,
    StaleWhileRevalidate,
    StaleIfError,
    NoStore,
    NoCache,
    Private,
    Public,
    MustRevalidate,
    ProxyRevalidate,
    MustUnderstand,
    NoTransform,
    Immutable,
    MinFresh,
    MaxStale,
    OnlyIfCached,
}

impl Known {
    pub(crate) const ALL: [(&'static str, Self); 16] = [
        ("max-age", Self::MaxAge),
        ("s-maxage", Self::SMaxage),
        ("stale-while-revalidate", Self::StaleWhileRevalidate),
        ("stale-if-error", Self::StaleIfError),
        ("no-store", Self::NoStore),
        ("no-cache", Self::NoCache),
        ("private", Self::Private),
        ("public", Self::Public),
        ("must-revalidate", Self::MustRevalidate),
        ("proxy-revalidate", Self::ProxyRevalidate),
        ("must-understand", Self::MustUnderstand),
        ("no-transform", Self::NoTransform),
        ("immutable", Self::Immutable),
        ("min-fresh", Self::MinFresh),
        ("max-stale", Self::MaxStale),
        ("only-if-cached", Self::OnlyIfCached),
    ];
}

/// One directive as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) argument: Argument<'a>,
}

/// What stands behind the `=` of a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Argument<'a> {
    None,
    Token(&'a [u8]),
    Quoted(Cow<'a, [u8]>),
    /// Neither, or in a stretch of the line where the quotes do not close.
    Broken,
}

impl Directive<'_> {
    fn known(&self) -> Option<Known> {
        let mut all = Known::ALL.iter();
        all.find(|(name, _)| self.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, known)| *known)
    }
}

impl Argument<'_> {
    fn seconds(&self) -> Option<Duration> {
        match self {
            Self::Token(text) => delta_seconds(text),
            Self::Quoted(text) => delta_seconds(text), // §5.2: both forms are accepted
            Self::None | Self::Broken => None,
        }
    }

    fn reach(&self) -> Reach {
        match self {
            Self::Quoted(names) => reach_of(names),
            // A token is not the form that §5.2.2.4 gives a list of names: take no chance.
            Self::None | Self::Token(_) | Self::Broken => Reach::Everything,
        }
    }
}

/// The fields that `no-cache="..."` or `private="..."` names; everything, if that cannot be read.
pub(crate) fn reach_of(names: &[u8]) -> Reach {
    let names = names.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let names = names.filter(|name| !name.is_empty()).map(HeaderName::from_bytes);
    match names.collect::<Result<Vec<_>, _>>() {
        Ok(names) if !names.is_empty() => Reach::Fields(names),
        Ok(_) | Err(_) => Reach::Everything,
    }
}

/// The directives of all lines of a field.
pub(crate) fn directives<'a>(
    lines: impl Iterator<Item = &'a HeaderValue>,
) -> impl Iterator<Item = Directive<'a>> {
    lines.flat_map(|line| list::members(line.as_bytes())).flat_map(|member| {
        let sound = member.closed && !has_bare_semicolon(member.text);
        let whole = sound.then(|| directive(member.text)).into_iter();
        // Quotes that never close, or a `;` where a comma is due: whoever wrote this may mean any
        // word in it, so each is heard, and none is trusted with an argument.
        let parts = (!sound).then(|| member.text.split(|byte| b",;".contains(byte))).into_iter();
        let parts = parts
            .flatten()
            .map(|part| Directive { name: name(part.trim_ascii()), argument: Argument::Broken });
        whole.chain(parts)
    })
}

fn has_bare_semicolon(text: &[u8]) -> bool {
    let mut quoted = false;
    text.iter().any(|byte| {
        quoted ^= *byte == b'"';
        *byte == b';' && !quoted
    })
}

/// The leading token.
fn name(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| !is_tchar(*byte)).unwrap_or(text.len());
    text.split_at_checked(end).map_or(text, |(name, _)| name)
}

fn directive(text: &[u8]) -> Directive<'_> {
    let name = name(text);
    let rest = text.get(name.len()..).unwrap_or_default();
    let argument = match rest.split_first() {
        None => Argument::None,
        Some((b'=', [b'"', quoted @ .., b'"'])) => unescape(quoted),
        Some((b'=', token)) if !token.is_empty() && token.iter().all(|byte| is_tchar(*byte)) => {
            Argument::Token(token)
        }
        Some(_) => Argument::Broken,
    };
    Directive { name, argument }
}

/// The text of a quoted string (RFC 9110 §5.6.4) between its quotes.
fn unescape(quoted: &[u8]) -> Argument<'_> {
    if !quoted.iter().any(|byte| b"\\\"".contains(byte)) {
        return Argument::Quoted(Cow::Borrowed(quoted));
    }
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(escaped) => text.push(*escaped),
                None => return Argument::Broken,
            },
            b'"' => return Argument::Broken,
            _ => text.push(*byte),
        }
    }
    Argument::Quoted(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{headers, secs};

    fn said(lines: &[&str]) -> CacheControl {
        let text = lines.iter().map(|line| format!("Cache-Control: {line}\n")).collect::<String>();
        CacheControl::of(&headers(&text))
    }

    #[test]
    fn lifetimes_are_read_in_both_forms_and_what_cannot_be_read_is_zero() {
        let rows: [(&[&str], Option<u64>); 24] = [
            (&[], None),
            (&[""], None),
            (&["max-age=60"], Some(60)),
            (&["MaX-aGe=60"], Some(60)), // §5.2: names are case-insensitive
            (&["max-age=\"60\""], Some(60)),
            (&["max-age=\"6\\0\""], Some(60)), // RFC 9110 §5.6.4
            (&["max-age=99999999999"], Some(1 << 31)), // §1.2.2
            (&["foo, ,, max-age=60 , bar=1"], Some(60)),
            (&["foo", "max-age=60"], Some(60)),
            (&["max-age=60, max-age=1"], Some(1)), // §4.2.1: the shortest is on the safe side
            (&["max-age=1", "max-age=60"], Some(1)),
            (&["x=\"max-age=60\""], None),
            (&["x=\"max-age=60\", max-age=1"], Some(1)),
            (&["x=\"\\\", max-age=60\""], None),
            (&["max-age"], Some(0)),
            (&["max-age="], Some(0)),
            (&["max-age=-1"], Some(0)),
            (&["max-age='60'"], Some(0)),
            (&["max-age=60.0"], Some(0)),
            (&["max-age =60"], Some(0)),
            (&["max-age= 60"], Some(0)),
            (&["max-age 60"], Some(0)),
            (&["max-age=60; x=1"], Some(0)),   // not a comma
            (&["x=\"y, max-age=60"], Some(0)), // quotes that never close
        ];
        for (lines, want) in rows {
            assert_eq!(said(lines).max_age, want.map(secs), "{lines:?}");
        }
    }

    #[test]
    fn what_forbids_is_heard_malformed_too_and_what_allows_is_not() {
        let rows = [
            // field, no-store, private, no-cache, public
            ("no-store", true, false, false, false),
            ("NO-STORE, Private, no-CACHE, PUBLIC", true, true, true, true),
            ("no-store=1", true, false, false, false),
            ("no-store=\"x\"", true, false, false, false),
            ("no-store foo", true, false, false, false),
            ("public=1", false, false, false, false),
            ("private=x", false, true, false, false),
            ("private=\"\"", false, true, false, false),
            ("no-cache=\"b c\"", false, false, true, false),
            ("max-age=1; private", false, true, false, false),
            ("x=\"y, no-store, private, public", true, true, false, false),
            ("x=\"no-store, private\"", false, false, false, false),
            ("no-storefoo, xprivate", false, false, false, false),
        ];
        for (field, no_store, private, no_cache, public) in rows {
            let said = said(&[field]);
            assert_eq!(said.no_store, no_store, "no-store of {field:?}");
            assert_eq!(said.private.is_everything(), private, "private of {field:?}");
            assert_eq!(said.no_cache.is_everything(), no_cache, "no-cache of {field:?}");
            assert_eq!(said.public, public, "public of {field:?}");
        }
    }

    #[test]
    fn named_fields_add_up_until_a_bare_directive_takes_everything() {
        let rows: [(&str, Option<&[&str]>); 5] = [
            ("no-cache=\"Set-Cookie\"", Some(&["set-cookie"])),
            ("no-cache=\"A, b\", no-cache=\"c\"", Some(&["a", "b", "c"])),
            ("no-cache=\"a\", no-cache", None),
            ("no-cache, no-cache=\"a\"", None),
            ("max-age=1", Some(&[])),
        ];
        for (field, want) in rows {
            let reach = said(&[field]).no_cache;
            assert_eq!(reach.is_everything(), want.is_none(), "{field:?}");
            assert_eq!(reach.fields(), want.unwrap_or_default(), "{field:?}");
        }
    }

    #[test]
    fn every_directive_of_a_response_has_its_place() {
        let all = said(&["s-maxage=1, must-revalidate, proxy-revalidate, must-understand, \
             no-transform, immutable, stale-while-revalidate=2, stale-if-error=3"]);
        let want = CacheControl {
            s_maxage: Some(secs(1)),
            must_revalidate: true,
            proxy_revalidate: true,
            must_understand: true,
            no_transform: true,
            immutable: true,
            stale_while_revalidate: Some(secs(2)),
            stale_if_error: Some(secs(3)),
            ..CacheControl::default()
        };
        assert_eq!(all, want);
    }

    #[test]
    fn a_request_that_cannot_be_read_gets_the_stricter_reading() {
        let asked = |text: &str| RequestDirectives::of(&headers(text));
        let none = RequestDirectives::default();
        let rows = [
            ("", none),
            ("Cache-Control: no-cache", RequestDirectives { no_cache: true, ..none }),
            ("Cache-Control: no-store", RequestDirectives { no_store: true, ..none }),
            ("Cache-Control: Only-If-Cached", RequestDirectives { only_if_cached: true, ..none }),
            ("Cache-Control: max-age=5", RequestDirectives { max_age: Some(secs(5)), ..none }),
            ("Cache-Control: max-age=x", RequestDirectives { max_age: Some(secs(0)), ..none }),
            ("Cache-Control: min-fresh=5", RequestDirectives { min_fresh: Some(secs(5)), ..none }),
            (
                "Cache-Control: min-fresh=x",
                RequestDirectives { min_fresh: Some(Duration::MAX), ..none },
            ),
            (
                "Cache-Control: max-stale",
                RequestDirectives { max_stale: Some(secs(1 << 31)), ..none },
            ),
            (
                "Cache-Control: max-stale=5, max-stale",
                RequestDirectives { max_stale: Some(secs(5)), ..none },
            ),
            ("Cache-Control: max-stale=x", none),
            ("Pragma: x, No-Cache", RequestDirectives { no_cache: true, ..none }), // §5.4
            ("Pragma: no-cache\nCache-Control: x", none),
            ("Pragma: no-cachex", none),
        ];
        for (request, want) in rows {
            assert_eq!(asked(request), want, "{request:?}");
        }
    }
}
