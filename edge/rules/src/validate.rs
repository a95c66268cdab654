//! Validators (RFC 9110 §8.8), preconditions (RFC 9110 §13), and what a 304 carries.
//!
//! # Invariants
//! - A tag or date that cannot be read is no validator and matches nothing.
//! - A cache evaluates only `If-None-Match` and `If-Modified-Since` (§4.3.2); an origin all.

use std::time::{Duration, SystemTime};

use http::Method;
use http::header::{
    self, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
};

use crate::{date, list};

/// An entity-tag (RFC 9110 §8.8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityTag {
    /// `W/`: equivalent, perhaps not equal byte for byte.
    pub weak: bool,
    /// What stands between the quotes. It has no escapes.
    pub opaque: Box<[u8]>,
}

impl EntityTag {
    /// A strong tag. `None` if `opaque` holds what a tag may not: quotes, spaces, controls.
    pub fn strong(opaque: &str) -> Option<Self> {
        let opaque = opaque.as_bytes();
        opaque
            .iter()
            .all(|byte| is_etagc(*byte))
            .then(|| Self { weak: false, opaque: opaque.into() })
    }

    /// Reads one tag, and nothing behind it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (tag, rest) = Tag::first(text)?;
        rest.is_empty().then(|| Self { weak: tag.weak, opaque: tag.opaque.into() })
    }

    /// Both strong, and equal (RFC 9110 §8.8.3.2).
    pub fn strong_eq(&self, other: &Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Equal, weak or not (RFC 9110 §8.8.3.2).
    pub fn weak_eq(&self, other: &Self) -> bool {
        self.opaque == other.opaque
    }

    /// As it stands in a field.
    pub fn to_value(&self) -> HeaderValue {
        let mut text = Vec::with_capacity(self.opaque.len() + 4);
        text.extend_from_slice(if self.weak { b"W/\"" } else { b"\"" });
        text.extend_from_slice(&self.opaque);
        text.push(b'"');
        // Only a tag built by hand out of bytes that no field may hold fails here.
        HeaderValue::from_maybe_shared(text).unwrap_or_else(|_| HeaderValue::from_static("W/\"\""))
    }
}

/// A tag that is still part of a field.
#[derive(Clone, Copy)]
pub(crate) struct Tag<'a> {
    pub(crate) weak: bool,
    pub(crate) opaque: &'a [u8],
}

impl<'a> Tag<'a> {
    fn first(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (weak, quoted) = match text.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, text),
        };
        let opened = quoted.strip_prefix(b"\"")?;
        let end = opened.iter().position(|byte| *byte == b'"')?;
        let (opaque, closing) = opened.split_at_checked(end)?;
        let sound = opaque.iter().all(|byte| is_etagc(*byte));
        sound.then_some((Self { weak, opaque }, closing.get(1..)?))
    }
}

fn is_etagc(byte: u8) -> bool {
    byte == 0x21 || (0x23..=0x7e).contains(&byte) || byte >= 0x80
}

/// What a later request can compare a representation by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`.
    pub etag: Option<EntityTag>,
    /// `Last-Modified`.
    pub last_modified: Option<SystemTime>,
    /// `Date`: when the representation was seen to be so. It makes `last_modified` strong if that
    /// lies at least a second before (RFC 9110 §8.8.2.2), and stands in for it where a cache needs
    /// one (§4.3.2). An origin that reads its own files puts the present time here.
    pub date: Option<SystemTime>,
}

impl Validators {
    /// Reads them from a response's fields. What is repeated or malformed is left out.
    pub fn of(response: &HeaderMap) -> Self {
        let time = |name| list::only(response, &name).and_then(|line| date::parse(line.as_bytes()));
        Self {
            etag: list::only(response, &ETAG).and_then(|line| EntityTag::parse(line.as_bytes())),
            last_modified: time(LAST_MODIFIED),
            date: time(DATE),
        }
    }

    /// Whether there is nothing to validate with.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }

    /// Makes a request to upstream conditional on these (§4.3.1). The client's own conditions go:
    /// they are about the client's copy, not about ours.
    pub fn apply_to(&self, request: &mut HeaderMap) {
        for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE] {
            request.remove(name);
        }
        if let Some(etag) = &self.etag {
            request.insert(IF_NONE_MATCH, etag.to_value());
        }
        if let Some(time) = self.last_modified {
            request.insert(IF_MODIFIED_SINCE, date::format(time));
        }
    }

    /// Whether a 304 to a request that bore these speaks of this representation (§4.3.4). If not,
    /// it must not freshen it: forget the stored response and ask without conditions.
    ///
    /// Tags are compared weakly: the request bore one tag, so upstream meant that one, and servers
    /// that compress on the fly are known to weaken a tag in one answer and not in the next.
    pub fn confirmed_by(&self, not_modified: &HeaderMap) -> bool {
        let theirs = Self::of(not_modified);
        match (&self.etag, &theirs.etag) {
            (Some(ours), Some(theirs)) => ours.weak_eq(theirs),
            (None, Some(_)) => false,
            (_, None) => match (self.last_modified, theirs.last_modified) {
                (Some(ours), Some(theirs)) => ours == theirs,
                (None, _) | (_, None) => true,
            },
        }
    }

    /// Whether a 200 to HEAD speaks of the representation with these validators and `length`
    /// (§4.3.5): whatever it says of tag, date and length is so here too.
    pub fn told_by_head(&self, response: &HeaderMap, length: u64) -> bool {
        let theirs = Self::of(response);
        let same_tag = match (&self.etag, &theirs.etag) {
            (Some(ours), Some(theirs)) => ours.weak_eq(theirs),
            (None, Some(_)) => false,
            (_, None) => !response.contains_key(ETAG),
        };
        let same_date = !response.contains_key(LAST_MODIFIED)
            || (theirs.last_modified.is_some() && self.last_modified == theirs.last_modified);
        let said = list::only(response, &header::CONTENT_LENGTH);
        let same_length = !response.contains_key(header::CONTENT_LENGTH)
            || said.and_then(|said| list::decimal(said.as_bytes())) == Some(length);
        same_tag && same_date && same_length
    }

    /// Whether `time` is the modification date, and that date a strong validator.
    pub(crate) fn is_strong_date(&self, time: SystemTime) -> bool {
        let settled = |modified: SystemTime| {
            self.date.is_some_and(|date| date >= modified + Duration::from_secs(1))
        };
        self.last_modified == Some(time) && settled(time)
    }
}

/// What a request's conditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Answer as if there were none.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Evaluates a request's conditions as an origin does, in the order of RFC 9110 §13.2.2. To be
/// asked only where the answer would otherwise be 2xx (RFC 9110 §13.2.1).
pub fn precondition(method: &Method, request: &HeaderMap, validators: &Validators) -> Precondition {
    if request.contains_key(IF_MATCH) {
        if !any_tag(request, &IF_MATCH, |tag| strong_match(validators, tag)) {
            return Precondition::Failed;
        }
    } else if let Some(since) = condition_date(request, &IF_UNMODIFIED_SINCE, validators)
        && validators.last_modified.is_some_and(|modified| seconds(modified) > seconds(since))
    {
        return Precondition::Failed;
    }
    none_match(method, request, validators, validators.last_modified)
}

/// Evaluates a request's conditions as a cache does: `If-Match` and `If-Unmodified-Since` are the
/// origin's, and `Date` stands in for an absent `Last-Modified` (§4.3.2).
pub fn precondition_at_cache(
    method: &Method,
    request: &HeaderMap,
    validators: &Validators,
) -> Precondition {
    none_match(method, request, validators, validators.last_modified.or(validators.date))
}

/// Steps 3 and 4 of RFC 9110 §13.2.2.
fn none_match(
    method: &Method,
    request: &HeaderMap,
    validators: &Validators,
    modified: Option<SystemTime>,
) -> Precondition {
    let retrieves = *method == Method::GET || *method == Method::HEAD;
    if request.contains_key(IF_NONE_MATCH) {
        return match any_tag(request, &IF_NONE_MATCH, |tag| weak_match(validators, tag)) {
            false => Precondition::Proceed,
            true if retrieves => Precondition::NotModified,
            true => Precondition::Failed,
        };
    }
    let Some(since) = condition_date(request, &IF_MODIFIED_SINCE, validators) else {
        return Precondition::Proceed;
    };
    match modified {
        Some(modified) if retrieves && seconds(modified) <= seconds(since) => {
            Precondition::NotModified
        }
        Some(_) | None => Precondition::Proceed,
    }
}

/// HTTP-dates know no fractions: a file changed half a second ago equals the date that names it.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A two-digit year is read around the time that the date will be compared with.
fn condition_date(
    request: &HeaderMap,
    name: &HeaderName,
    validators: &Validators,
) -> Option<SystemTime> {
    let line = list::only(request, name)?.as_bytes();
    match validators.date.or(validators.last_modified) {
        Some(near) => date::parse_at(line, near),
        None => date::parse(line),
    }
}

fn strong_match(validators: &Validators, tag: Tag<'_>) -> bool {
    let ours = validators.etag.as_ref();
    ours.is_some_and(|ours| !ours.weak && !tag.weak && *ours.opaque == *tag.opaque)
}

fn weak_match(validators: &Validators, tag: Tag<'_>) -> bool {
    validators.etag.as_ref().is_some_and(|ours| *ours.opaque == *tag.opaque)
}

/// Whether a tag of the list matches; `*` matches any representation, and there is one.
pub(crate) fn any_tag(
    request: &HeaderMap,
    name: &HeaderName,
    mut matches: impl FnMut(Tag<'_>) -> bool,
) -> bool {
    request.get_all(name).iter().any(|line| {
        let mut rest = line.as_bytes().trim_ascii();
        if rest == b"*" {
            return true;
        }
        while !rest.is_empty() {
            match Tag::first(rest) {
                Some((tag, _)) if matches(tag) => return true,
                Some((_, behind)) => rest = behind,
                // Not a tag: go on behind the next comma.
                None => {
                    let comma = rest.iter().position(|byte| *byte == b',');
                    rest = comma.and_then(|at| rest.get(at + 1..)).unwrap_or_default();
                }
            }
            let skipped = rest.iter().position(|byte| !b", \t".contains(byte));
            rest = skipped.and_then(|at| rest.get(at..)).unwrap_or_default();
        }
        false
    })
}

/// The fields of a 304 for a stored response (RFC 9110 §15.4.5): all but those that describe a
/// representation that is not sent. `Last-Modified` stays where there is no `ETag` to go by.
pub fn not_modified_fields(stored: &HeaderMap) -> HeaderMap {
    let mut fields = stored.clone();
    for name in [
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_LANGUAGE,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("repr-digest"),
        HeaderName::from_static("digest"),
        header::ACCEPT_RANGES,
    ] {
        fields.remove(name);
    }
    if fields.contains_key(ETAG) {
        fields.remove(LAST_MODIFIED);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{headers, wall};

    fn validators(text: &str) -> Validators {
        Validators::of(&headers(text))
    }

    #[test]
    fn a_tag_is_quoted_and_what_is_not_is_no_tag() {
        let tag = |weak, opaque: &str| Some(EntityTag { weak, opaque: opaque.as_bytes().into() });
        let rows = [
            ("\"abc\"", tag(false, "abc")),
            ("W/\"abc\"", tag(true, "abc")),
            ("\"\"", tag(false, "")),
            ("\"a,b\\\"", tag(false, "a,b\\")), // RFC 9110 §8.8.3: no escapes
            ("\"ü\"", tag(false, "ü")),
            ("abc", None),
            ("w/\"abc\"", None),
            ("W\"abc\"", None),
            ("\"abc", None),
            ("\"a b\"", None),
            ("\"abc\" ", None),
            ("\"abc\", \"d\"", None),
            ("*", None),
            ("", None),
        ];
        for (text, want) in rows {
            assert_eq!(EntityTag::parse(text.as_bytes()), want, "{text:?}");
        }
        assert_eq!(EntityTag::strong("abc"), tag(false, "abc"));
        assert_eq!(EntityTag::strong("a\"c"), None);
    }

    #[test]
    fn strong_comparison_takes_no_weak_tag() {
        // The table of RFC 9110 §8.8.3.2.
        let rows = [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ];
        for (one, other, strong, weak) in rows {
            let [a, b] = [one, other].map(|text| EntityTag::parse(text.as_bytes()).unwrap());
            assert_eq!((a.strong_eq(&b), b.strong_eq(&a)), (strong, strong), "{one} {other}");
            assert_eq!((a.weak_eq(&b), b.weak_eq(&a)), (weak, weak), "{one} {other}");
        }
    }

    #[test]
    fn an_origin_evaluates_conditions_in_the_order_of_rfc_9110_13_2_2() {
        use Precondition::{Failed, NotModified, Proceed};
        let ours = validators("ETag: \"a\"\nLast-Modified: @-100\nDate: @0");
        let rows = [
            // conditions, of a GET, of a PUT
            ("", Proceed, Proceed),
            ("If-Match: \"a\"", Proceed, Proceed),
            ("If-Match: \"x\", \"a\"", Proceed, Proceed),
            ("If-Match: *", Proceed, Proceed),
            ("If-Match: W/\"a\"", Failed, Failed), // strong comparison
            ("If-Match: \"x\"", Failed, Failed),
            ("If-Match: a", Failed, Failed),
            ("If-Match: \"a\"\nIf-Unmodified-Since: @-200", Proceed, Proceed), // step 1 over 2
            ("If-Unmodified-Since: @-100", Proceed, Proceed),
            ("If-Unmodified-Since: @-101", Failed, Failed),
            ("If-Unmodified-Since: rubbish", Proceed, Proceed),
            ("If-None-Match: \"a\"", NotModified, Failed),
            ("If-None-Match: W/\"a\"", NotModified, Failed), // weak comparison
            ("If-None-Match: *", NotModified, Failed),
            ("If-None-Match: \"x\"", Proceed, Proceed),
            ("If-None-Match: \"x\"\nIf-None-Match: \"a\"", NotModified, Failed),
            ("If-None-Match: \"x\",, W/\"y\" ,\t\"a\"", NotModified, Failed),
            ("If-None-Match: \"x, a\"", Proceed, Proceed),
            ("If-None-Match: a", Proceed, Proceed),
            ("If-None-Match: a, \"a\"", NotModified, Failed),
            ("If-None-Match: \"x\"\nIf-Modified-Since: @0", Proceed, Proceed), // step 3 over 4
            ("If-None-Match: \"a\"\nIf-Modified-Since: @-200", NotModified, Failed),
            ("If-Modified-Since: @-100", NotModified, Proceed),
            ("If-Modified-Since: @0", NotModified, Proceed),
            ("If-Modified-Since: @-101", Proceed, Proceed),
            ("If-Modified-Since: Saturday, 13-Nov-27 23:58:20 GMT", NotModified, Proceed),
            ("If-Modified-Since: Sat Nov 13 23:58:19 2027", Proceed, Proceed),
            ("If-Modified-Since: rubbish", Proceed, Proceed),
            ("If-Modified-Since: @0\nIf-Modified-Since: @0", Proceed, Proceed),
            ("If-Match: \"a\"\nIf-None-Match: \"a\"", NotModified, Failed),
            ("If-Match: \"x\"\nIf-None-Match: \"a\"", Failed, Failed),
        ];
        for (request, get, put) in rows {
            let request = headers(request);
            assert_eq!(precondition(&Method::GET, &request, &ours), get, "GET {request:?}");
            assert_eq!(precondition(&Method::HEAD, &request, &ours), get, "HEAD {request:?}");
            assert_eq!(precondition(&Method::PUT, &request, &ours), put, "PUT {request:?}");
        }
    }

    #[test]
    fn a_file_changed_within_a_second_equals_the_date_that_names_it() {
        let modified = wall(-100) + Duration::from_millis(900);
        let ours = Validators { last_modified: Some(modified), ..Validators::default() };
        let asked = |text| precondition(&Method::GET, &headers(text), &ours);
        assert_eq!(asked("If-Modified-Since: @-100"), Precondition::NotModified);
        assert_eq!(asked("If-Unmodified-Since: @-100"), Precondition::Proceed);
    }

    #[test]
    fn a_cache_leaves_the_origins_conditions_alone_and_falls_back_on_date() {
        use Precondition::{NotModified, Proceed};
        let rows = [
            // stored, conditions
            ("ETag: \"a\"", "If-Match: \"x\"", Proceed), // §4.3.2
            ("Last-Modified: @-100", "If-Unmodified-Since: @-200", Proceed),
            ("ETag: \"a\"", "If-None-Match: \"a\"", NotModified),
            ("Date: @0", "If-Modified-Since: @0", NotModified),
            ("Date: @0", "If-Modified-Since: @5", NotModified),
            ("Date: @0", "If-Modified-Since: @-3000", Proceed), // the client's copy is older
            ("Date: @0\nLast-Modified: @-100", "If-Modified-Since: @-50", NotModified),
        ];
        for (stored, request, want) in rows {
            let got = precondition_at_cache(&Method::GET, &headers(request), &validators(stored));
            assert_eq!(got, want, "{stored:?} {request:?}");
        }
        let origin =
            precondition(&Method::GET, &headers("If-Modified-Since: @0"), &validators("Date: @0"));
        assert_eq!(origin, Proceed, "RFC 9110 §13.1.3: no modification date, no condition");
    }

    #[test]
    fn what_goes_upstream_are_our_conditions_only() {
        let mut request = headers(
            "If-None-Match: \"client\"\nIf-Modified-Since: @-9\nIf-Match: \"c\"
             If-Unmodified-Since: @-9\nIf-Range: \"c\"\nAccept: */*",
        );
        validators("ETag: W/\"ours\"").apply_to(&mut request);
        assert_eq!(request, headers("Accept: */*\nIf-None-Match: W/\"ours\""));
        validators("Last-Modified: @-7").apply_to(&mut request);
        assert_eq!(request, headers("Accept: */*\nIf-Modified-Since: @-7"));
        Validators::default().apply_to(&mut request);
        assert_eq!(request, headers("Accept: */*"));
    }

    #[test]
    fn repeated_or_malformed_validators_are_none() {
        for none in ["", "ETag: abc", "ETag: \"a\"\nETag: \"a\"", "Last-Modified: 0"] {
            assert!(validators(none).is_empty(), "{none:?}");
        }
    }

    #[test]
    fn a_304_about_something_else_confirms_nothing() {
        let rows = [
            ("ETag: \"a\"", "ETag: \"a\"", true),
            ("ETag: \"a\"", "ETag: W/\"a\"", true),
            ("ETag: \"a\"", "ETag: \"b\"", false),
            ("ETag: \"a\"", "", true),
            ("Last-Modified: @-9", "ETag: \"b\"", false),
            ("Last-Modified: @-9", "Last-Modified: @-9", true),
            ("Last-Modified: @-9", "Last-Modified: @-8", false),
            ("ETag: \"a\"\nLast-Modified: @-9", "ETag: \"a\"\nLast-Modified: @-8", true),
        ];
        for (stored, not_modified, want) in rows {
            let got = validators(stored).confirmed_by(&headers(not_modified));
            assert_eq!(got, want, "{stored:?} {not_modified:?}");
        }
    }

    #[test]
    fn a_head_is_about_the_same_if_nothing_that_it_says_differs() {
        let rows = [
            // stored, 200 to HEAD, the same
            ("ETag: \"a\"", "", true),
            ("ETag: \"a\"", "ETag: \"a\"", true),
            ("ETag: \"a\"", "ETag: W/\"a\"", true),
            ("ETag: \"a\"", "ETag: \"b\"", false),
            ("ETag: \"a\"", "ETag: b", false), // unreadable: not the same
            ("", "ETag: \"a\"", false),
            ("Last-Modified: @-9", "Last-Modified: @-9", true),
            ("Last-Modified: @-9", "Last-Modified: @-8", false),
            ("Last-Modified: @-9", "Last-Modified: 0", false),
            ("", "Last-Modified: @-9", false),
            ("ETag: \"a\"", "ETag: \"a\"\nContent-Length: 7", true),
            ("ETag: \"a\"", "ETag: \"a\"\nContent-Length: 8", false),
            ("", "Content-Length: 7", true),
            ("", "Content-Length: x", false),
            ("", "", true),
        ];
        for (stored, response, want) in rows {
            let got = validators(stored).told_by_head(&headers(response), 7);
            assert_eq!(got, want, "{stored:?} {response:?}");
        }
    }

    #[test]
    fn a_304_describes_no_representation() {
        let stored = headers(
            "ETag: \"a\"\nLast-Modified: @-9\nDate: @0\nExpires: @9\nCache-Control: max-age=9
             Vary: Accept\nContent-Location: /a\nContent-Security-Policy: x\nX-Any: y
             Content-Type: text/html\nContent-Length: 3\nContent-Encoding: gzip
             Content-Language: de\nContent-Range: bytes 0-1/2\nAccept-Ranges: bytes",
        );
        let want = headers(
            "ETag: \"a\"\nDate: @0\nExpires: @9\nCache-Control: max-age=9
             Vary: Accept\nContent-Location: /a\nContent-Security-Policy: x\nX-Any: y",
        );
        assert_eq!(not_modified_fields(&stored), want);
        let untagged = headers("Last-Modified: @-9\nContent-Type: text/html");
        assert_eq!(not_modified_fields(&untagged), headers("Last-Modified: @-9"));
    }
}
