//! Which requests a stored response answers (§4.1).
//!
//! # Invariants
//! - A field that the first request did not have must be absent from the next one too.
//! - [`Vary::matches`] does not allocate.
//!
//! # Deviations
//! - `Accept-Encoding` is compared by the codings among [`Codings`] that it accepts, without their
//!   weights. That is more than §4.1 calls identical semantics; it is right if upstream is asked
//!   with [`Codings::token`] too, so that it never sees the difference.

use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderMap, HeaderName, HeaderValue, VARY};

use crate::coding::{Accepted, Coding};
use crate::language::{Languages, Reading};
use crate::list;

/// `Vary: *`, or one that cannot be read: no later request matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaryAny;

/// The selecting fields of a response, with what its request had in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vary {
    fields: Box<[(HeaderName, Presented)]>,
}

/// What a request had in one selecting field.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Presented {
    Absent,
    Codings(Codings),
    Languages(Languages),
    /// The canonical text.
    Text(Box<[u8]>),
}

impl Vary {
    /// Reads `Vary` of `response` and keeps what `request` has in the fields it names.
    pub fn of(
        request: &HeaderMap,
        response: &HeaderMap,
        reading: Reading,
    ) -> Result<Self, VaryAny> {
        let mut fields: Vec<(HeaderName, Presented)> = Vec::new();
        for member in response.get_all(VARY).iter().flat_map(|line| list::members(line.as_bytes()))
        {
            if member.text.is_empty() {
                continue;
            }
            // `*` is a valid name in the eyes of `HeaderName`.
            let name = HeaderName::from_bytes(member.text).ok().filter(|name| name != "*");
            let name = name.ok_or(VaryAny)?;
            if !fields.iter().any(|(known, _)| *known == name) {
                let presented = if name == ACCEPT_LANGUAGE {
                    Presented::Languages(Languages::of(request, response, reading))
                } else {
                    Presented::of(&name, request)
                };
                fields.push((name, presented));
            }
        }
        Ok(Self { fields: fields.into() })
    }

    /// Whether `request` has the same in every selecting field.
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.fields.iter().all(|(name, presented)| presented.is_in(name, request))
    }

    /// Whether no field selects: any request matches.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The names of the selecting fields.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.fields.iter().map(|(name, _)| name)
    }
}

impl Presented {
    fn of(name: &HeaderName, request: &HeaderMap) -> Self {
        if *name == ACCEPT_ENCODING {
            Self::Codings(Codings::of(request))
        } else if request.contains_key(name) {
            Self::Text(canonical(name, request).collect())
        } else {
            Self::Absent
        }
    }

    fn is_in(&self, name: &HeaderName, request: &HeaderMap) -> bool {
        match self {
            Self::Absent => !request.contains_key(name),
            Self::Codings(codings) => *codings == Codings::of(request),
            Self::Languages(languages) => languages.matches(request),
            // An absent field has no member at all, an empty one has one.
            Self::Text(text) => canonical(name, request).eq(text.iter().copied()),
        }
    }
}

/// Lines combined, whitespace around commas removed.
fn canonical<'a>(name: &HeaderName, request: &'a HeaderMap) -> impl Iterator<Item = u8> + 'a {
    let lines = request.get_all(name).iter();
    let members = lines.flat_map(|line: &'a HeaderValue| list::members(line.as_bytes()));
    members.flat_map(|member| member.text.iter().copied().chain([b',']))
}

/// The content codings that a request accepts, as far as they matter here.
///
/// An absent or empty `Accept-Encoding` accepts none: RFC 9110 §12.5.3 would let any be sent to a
/// client that says nothing, but such clients do not decode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Codings {
    /// `gzip`, also as `x-gzip`.
    pub gzip: bool,
    /// `br`.
    pub br: bool,
    /// `zstd`.
    pub zstd: bool,
    /// The unencoded form is refused (`identity;q=0`, or `*;q=0` without `identity`).
    pub no_identity: bool,
}

impl Codings {
    /// Reads `Accept-Encoding`. What cannot be read is not accepted.
    pub fn of(request: &HeaderMap) -> Self {
        let accepted = Accepted::of(request);
        Self {
            gzip: accepted.accepts(Coding::Gzip),
            br: accepted.accepts(Coding::Br),
            zstd: accepted.accepts(Coding::Zstd),
            no_identity: !accepted.accepts_identity(),
        }
    }

    /// The `Accept-Encoding` that says just this; what upstream is to be asked with.
    pub fn token(self) -> &'static str {
        match (self.gzip, self.br, self.zstd, self.no_identity) {
            (false, false, false, false) => "identity",
            (true, false, false, false) => "gzip",
            (false, true, false, false) => "br",
            (false, false, true, false) => "zstd",
            (true, true, false, false) => "gzip, br",
            (true, false, true, false) => "gzip, zstd",
            (false, true, true, false) => "br, zstd",
            (true, true, true, false) => "gzip, br, zstd",
            (false, false, false, true) => "identity;q=0",
            (true, false, false, true) => "gzip, identity;q=0",
            (false, true, false, true) => "br, identity;q=0",
            (false, false, true, true) => "zstd, identity;q=0",
            (true, true, false, true) => "gzip, br, identity;q=0",
            (true, false, true, true) => "gzip, zstd, identity;q=0",
            (false, true, true, true) => "br, zstd, identity;q=0",
            (true, true, true, true) => "gzip, br, zstd, identity;q=0",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::headers;

    const READING: Reading = Reading { order: true, content: false };

    #[test]
    fn a_request_matches_if_it_has_the_same_in_every_selecting_field() {
        let rows = [
            // Vary, first request, next request
            ("", "Foo: 1", "Foo: 2", true),
            ("Foo", "Foo: 1", "Foo: 1", true),
            ("Foo", "Foo: 1", "Foo: 2", false),
            ("Foo", "Foo: 1", "", false),
            ("Foo", "", "Foo: 1", false),
            ("Foo", "", "", true),
            ("Foo", "", "Foo:", false), // absent is not empty
            ("Foo", "Foo:", "", false),
            ("Foo", "Foo:", "Foo:", true),
            ("Foo", "Foo: 1\nOther: 2", "Foo: 1\nOther: 3", true),
            ("foo", "Foo: 1", "FOO: 1", true),
            ("Foo", "Foo: a", "Foo: A", false),
            ("Foo, Bar", "Foo: 1\nBar: 2", "Bar: 2\nFoo: 1", true),
            ("Foo, Bar", "Foo: 1\nBar: 2", "Foo: 1\nBar: 3", false),
            ("Foo, Bar", "Foo: 1", "Foo: 1", true),
            ("Foo\nVary: Bar", "Foo: 1\nBar: 2", "Foo: 1\nBar: 3", false), // over several lines
            (", ,Foo,", "Foo: 1", "Foo: 2", false),
            // §4.1: whitespace and lines make no difference, order and quotes do
            ("Foo", "Foo: 1, 2", "Foo: 1,2", true),
            ("Foo", "Foo: 1, 2", "Foo: 1\nFoo: 2", true),
            ("Foo", "Foo: 1, 2", "Foo: 2, 1", false),
            ("Foo", "Foo: 1, 2", "Foo: 1", false),
            ("Foo", "Foo: 1", "Foo: 1, 2", false),
            ("Foo", "Foo: \"1, 2\"", "Foo: \"1,2\"", false),
            ("Foo", "Foo: 12", "Foo: 1\nFoo: 2", false),
            ("Accept-Language", "Accept-Language: en-GB, de", "Accept-Language: EN-gb,DE", true),
            ("Accept-Language", "Accept-Language: en, de", "Accept-Language: de, en", false),
            (
                "Accept-Encoding",
                "Accept-Encoding: gzip, br",
                "Accept-Encoding: br;q=0.5,gzip",
                true,
            ),
            ("Accept-Encoding", "Accept-Encoding: gzip", "Accept-Encoding: gzip, br", false),
            ("Accept-Encoding", "Accept-Encoding: gzip", "", false),
            ("Accept-Encoding", "", "Accept-Encoding: identity", true),
        ];
        for (vary, first, next, want) in rows {
            let vary = headers(&format!("Vary: {vary}"));
            let stored = Vary::of(&headers(first), &vary, READING).unwrap();
            assert_eq!(stored.matches(&headers(next)), want, "{vary:?}: {first:?}, {next:?}");
        }
    }

    #[test]
    fn a_star_anywhere_or_a_name_that_is_none_selects_nothing_ever() {
        for any in ["*", "*, Foo", "Foo, *", "Foo\nVary: *", " ,*", "\"Foo\"", "a b"] {
            let vary = headers(&format!("Vary: {any}"));
            assert_eq!(Vary::of(&HeaderMap::new(), &vary, READING), Err(VaryAny), "{any:?}");
        }
        assert!(Vary::of(&HeaderMap::new(), &headers("Vary: ,"), READING).unwrap().is_empty());
        let named = Vary::of(&HeaderMap::new(), &headers("Vary: Foo, foo, Bar"), READING).unwrap();
        assert_eq!(named.names().collect::<Vec<_>>(), ["foo", "bar"]);
    }

    #[test]
    fn accepted_codings_are_told_apart_only_where_it_matters() {
        let rows = [
            (None, "identity"),
            (Some(""), "identity"),
            (Some("deflate, compress"), "identity"),
            (Some("gzip"), "gzip"),
            (Some("x-gzip"), "gzip"),
            (Some("GZIP;Q=1"), "gzip"),
            (Some("gzip, deflate, br, zstd"), "gzip, br, zstd"),
            (Some("zstd;q=0.1,br;q=0.001 , gzip ; q=1.0"), "gzip, br, zstd"),
            (Some("br, gzip;q=0"), "br"),
            (Some("br, gzip;q=0.000"), "br"),
            (Some("br, gzip;q=x"), "br"),
            (Some("*"), "gzip, br, zstd"),
            (Some("*, br;q=0"), "gzip, zstd"),
            (Some("gzip, identity;q=0"), "gzip, identity;q=0"),
            (Some("gzip, *;q=0"), "gzip, identity;q=0"),
            (Some("gzip, identity;q=0.5, *;q=0"), "gzip"),
        ];
        for (field, want) in rows {
            let line = field.map(|field| format!("Accept-Encoding: {field}")).unwrap_or_default();
            assert_eq!(Codings::of(&headers(&line)).token(), want, "{field:?}");
        }
    }

    #[test]
    fn the_token_of_codings_reads_back_as_the_same() {
        for bits in 0..16_u8 {
            let [gzip, br, zstd, no_identity] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            let codings = Codings { gzip, br, zstd, no_identity };
            let line = format!("Accept-Encoding: {}", codings.token());
            assert_eq!(Codings::of(&headers(&line)), codings);
        }
    }
}
