//! What becomes of a stored response whose content an edge puts into a coding (RFC 9110 §7.7,
//! §8.4): whether it may, and the head of what comes of it.
//!
//! # Invariants
//! - Forms of one response have different strong validators (RFC 9110 §8.8.3): a derived tag holds
//!   the coding and a digest of the coded bytes, so that not even two edges give two bodies one
//!   tag.
//! - No field of a derived head says something that was true of the unencoded content only.
//! - Upstream never hears of a derived tag: validation goes by the stored head.

use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_NONE_MATCH, VARY,
};
use http::{Method, StatusCode};

use crate::coding::{Accepted, Coding};
use crate::exchange::RequestView;
use crate::list;
use crate::stored::StoredHead;
use crate::validate::{EntityTag, any_tag};

/// Fields in which an origin may forbid transformations.
const FORBIDDING: [HeaderName; 3] = [
    CACHE_CONTROL,
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("surrogate-control"),
];

/// Fields that hold a digest of the content or of the representation (RFC 9530, RFC 3230,
/// RFC 1864).
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// The media type of a response whose content may be put into a coding: its type and subtype in
/// lower case. `None`: it may not, as it is coded already, is a part, has an ending that nobody
/// knows, or forbids it.
pub fn transformable(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    let coded = codings
        .flat_map(|line| list::members(line.as_bytes()))
        .any(|member| !member.text.is_empty() && !member.text.eq_ignore_ascii_case(b"identity"));
    if status != StatusCode::OK
        || coded
        || headers.contains_key(CONTENT_RANGE)
        || FORBIDDING.iter().any(|name| forbids_transformation(headers, name))
    {
        return None;
    }
    let text = list::only(headers, &CONTENT_TYPE)?.to_str().ok()?;
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // A stream of events is to be read while it is written.
    (essence != "text/event-stream" && !essence.starts_with("multipart/")).then_some(essence)
}

/// Whether a field of a message has the directive `no-transform` (RFC 9111 §5.2.1.6, §5.2.2.6).
pub fn forbids_transformation(headers: &HeaderMap, name: &HeaderName) -> bool {
    let lines = headers.get_all(name).iter();
    let mut members = lines.flat_map(|line| list::members(line.as_bytes()));
    members.any(|member| {
        let directive = member.text.split(|byte| b"=;".contains(byte)).next().unwrap_or_default();
        directive.trim_ascii().eq_ignore_ascii_case(b"no-transform")
    })
}

/// Says that the answer depends on `Accept-Encoding`, if nothing says so yet: of every form of a
/// response that may be coded here, of the unencoded one too.
pub fn vary_by_coding(headers: &mut HeaderMap) {
    let mut names: Vec<u8> = Vec::new();
    for member in headers.get_all(VARY).iter().flat_map(|line| list::members(line.as_bytes())) {
        if member.text == b"*" || member.text.eq_ignore_ascii_case(b"accept-encoding") {
            return;
        }
        if !member.text.is_empty() {
            names.extend_from_slice(member.text);
            names.extend_from_slice(b", ");
        }
    }
    names.extend_from_slice(b"Accept-Encoding");
    if let Ok(value) = HeaderValue::from_maybe_shared(names) {
        headers.insert(VARY, value);
    }
}

/// The head of `base` in `coding`, with `tag` in the place of its own and the length of the coded
/// content.
pub fn derived(
    base: &StoredHead,
    coding: Coding,
    tag: Option<EntityTag>,
    length: u64,
) -> StoredHead {
    let mut head = base.clone();
    let fields = &mut head.headers;
    for name in DIGESTS {
        fields.remove(name);
    }
    fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.token()));
    fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    // A tag that could not be read is no validator; handed on it would stand for two forms.
    fields.remove(ETAG);
    if let Some(tag) = &tag {
        fields.insert(ETAG, tag.to_value());
    }
    head.validators.etag = tag;
    head
}

/// The tag of the form of `base` in `coding` whose bytes have this digest: strong where `base` is.
pub fn derived_tag(base: &EntityTag, coding: Coding, digest: u64) -> EntityTag {
    let mut opaque = base.opaque.to_vec();
    opaque.extend_from_slice(format!("-{}-{digest:016x}", coding.token()).as_bytes());
    EntityTag { weak: base.weak, opaque: opaque.into() }
}

/// The coding of the form that `opaque` is a tag of, if it is derived from `base`.
fn derived_coding(base: &EntityTag, opaque: &[u8]) -> Option<Coding> {
    let rest = opaque.strip_prefix(&*base.opaque)?.strip_prefix(b"-")?;
    let at = rest.iter().position(|byte| *byte == b'-')?;
    let (name, digest) = (rest.get(..at)?, rest.get(at + 1..)?);
    let coding = Coding::named(name).filter(|coding| coding.token().as_bytes() == name)?;
    let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    (digest.len() == 16 && digest.iter().all(is_hex)).then_some(coding)
}

/// A form of a stored response that the client has a copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// The unencoded form.
    Identity,
    /// A form derived from it, here or at another edge, with its tag as the client wrote it.
    Coded(Coding, EntityTag),
}

/// The form that `If-None-Match` says the client has, if it is one of `base` as it is now and the
/// client still accepts it. That form may be chosen for it, whichever it would otherwise get: then
/// nothing need be sent.
///
/// A derived tag names the content that `base` names, whatever the digest in it: the client's copy
/// is as good as one that would be made here.
pub fn held(request: &RequestView<'_>, base: &StoredHead, accepted: Accepted) -> Option<Held> {
    let retrieves = *request.method == Method::GET || *request.method == Method::HEAD;
    let ours = base.validators.etag.as_ref().filter(|_| retrieves)?;
    let mut held = None;
    any_tag(request.headers, &IF_NONE_MATCH, |tag| {
        let found = if *tag.opaque == *ours.opaque {
            accepted.accepts_identity().then_some(Held::Identity)
        } else {
            let coding = derived_coding(ours, tag.opaque);
            coding.filter(|coding| accepted.accepts(*coding)).map(|coding| {
                Held::Coded(coding, EntityTag { weak: tag.weak, opaque: tag.opaque.into() })
            })
        };
        let is_found = found.is_some();
        held = held.take().or(found);
        is_found
    });
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{headers, store};
    use crate::policy::Policy;
    use crate::validate::Validators;

    fn stored(response: &str) -> StoredHead {
        store(&format!("Cache-Control: max-age=60\n{response}"), &Policy::cdn()).unwrap()
    }

    fn tag(text: &str) -> EntityTag {
        EntityTag::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_whole_unencoded_responses_that_allow_it_are_transformed() {
        let rows = [
            (200, "Content-Type: text/html", Some("text/html")),
            (200, "Content-Type: Text/HTML; charset=utf-8", Some("text/html")),
            (200, "Content-Type: image/png", Some("image/png")), // which types is the site's
            (200, "", None),
            (200, "Content-Type: text/html\nContent-Type: text/plain", None),
            (206, "Content-Type: text/html\nContent-Range: bytes 0-1/9", None),
            (404, "Content-Type: text/html", None),
            (304, "Content-Type: text/html", None),
            (200, "Content-Type: text/html\nContent-Encoding: gzip", None),
            (200, "Content-Type: text/html\nContent-Encoding: aes128gcm", None),
            (200, "Content-Type: text/html\nContent-Encoding: identity, br", None),
            (200, "Content-Type: text/html\nContent-Encoding: identity", Some("text/html")),
            (200, "Content-Type: text/html\nContent-Range: bytes 0-1/9", None),
            (200, "Content-Type: text/html\nCache-Control: public, No-Transform", None),
            (200, "Content-Type: text/html\nCache-Control: a=\"no-transform\"", Some("text/html")),
            (200, "Content-Type: text/html\nCDN-Cache-Control: max-age=1, no-transform", None),
            (200, "Content-Type: text/html\nSurrogate-Control: no-transform", None),
            (200, "Content-Type: text/event-stream", None),
            (200, "Content-Type: multipart/mixed; boundary=x", None),
        ];
        for (status, response, want) in rows {
            let status = StatusCode::from_u16(status).unwrap();
            let got = transformable(status, &headers(response));
            assert_eq!(got.as_deref(), want, "{status} {response:?}");
        }
    }

    #[test]
    fn vary_names_accept_encoding_once() {
        let rows = [
            ("", "Accept-Encoding"),
            ("Vary: Accept-Language", "Accept-Language, Accept-Encoding"),
            ("Vary: Origin\nVary: Foo", "Origin, Foo, Accept-Encoding"),
            ("Vary: accept-encoding, Foo", "accept-encoding, Foo"),
            ("Vary: Foo,,", "Foo, Accept-Encoding"),
            ("Vary: *", "*"),
        ];
        for (response, want) in rows {
            let mut fields = headers(response);
            vary_by_coding(&mut fields);
            assert_eq!(fields.get_all(VARY).iter().collect::<Vec<_>>(), [want], "{response:?}");
            let once = fields.clone();
            vary_by_coding(&mut fields);
            assert_eq!(fields, once);
        }
    }

    #[test]
    fn a_derived_head_says_nothing_that_was_true_of_the_unencoded_content_only() {
        let base = stored(
            "Content-Type: text/css\nContent-Length: 1000\nETag: \"a\"\nContent-MD5: x\nDigest: y
             Repr-Digest: z\nContent-Digest: z\nContent-Encoding: identity\nX-Kept: 1\nDate: @0
             Last-Modified: @-9",
        );
        let tag = derived_tag(&tag("\"a\""), Coding::Br, 0xfe);
        let head = derived(&base, Coding::Br, Some(tag.clone()), 7);
        let want = headers(
            "Cache-Control: max-age=60\nContent-Type: text/css\nContent-Length: 7\nX-Kept: 1
             ETag: \"a-br-00000000000000fe\"\nContent-Encoding: br\nDate: @0\nLast-Modified: @-9",
        );
        assert_eq!(head.headers, want);
        assert_eq!(head.validators, Validators { etag: Some(tag), ..base.validators.clone() });
        assert_eq!((head.lifetime, head.arrived), (base.lifetime, base.arrived));
        let untagged = derived(&stored("ETag: \"a\"\nETag: \"b\""), Coding::Gzip, None, 7);
        assert!(!untagged.headers.contains_key(ETAG));
    }

    #[test]
    fn a_tag_is_known_as_derived_from_its_base_and_from_no_other() {
        for base in [tag("\"a\""), tag("W/\"a-gzip\""), tag("\"\"")] {
            for coding in Coding::ALL {
                let derived = derived_tag(&base, coding, 0x0123_4567_89ab_cdef);
                assert_eq!(derived.weak, base.weak);
                assert!(!derived.weak_eq(&base));
                assert_eq!(derived_coding(&base, &derived.opaque), Some(coding));
                assert_eq!(derived_coding(&tag("\"b\""), &derived.opaque), None);
            }
        }
        let base = tag("\"a\"");
        let no = ["a", "a-gzip", "a-gzip-", "a-gzip-0123", "a-GZIP-0123456789abcdef", "b"];
        for opaque in no.into_iter().chain(["a-x-0123456789abcdef", "a-br-0123456789ABCDEF"]) {
            assert_eq!(derived_coding(&base, opaque.as_bytes()), None, "{opaque}");
        }
    }

    #[test]
    fn the_form_that_a_client_holds_is_found_if_it_still_accepts_it() {
        let base = stored("ETag: \"a\"");
        let digest = "0123456789abcdef";
        let gzip = format!("\"a-gzip-{digest}\"");
        let coded = Some(Held::Coded(Coding::Gzip, tag(&gzip)));
        let rows = [
            // If-None-Match, Accept-Encoding, form
            ("\"a\"", "gzip", Some(Held::Identity)),
            ("W/\"a\"", "gzip", Some(Held::Identity)),
            ("\"a\"", "gzip, identity;q=0", None),
            (&gzip, "gzip", coded.clone()),
            (&gzip, "br", None),
            (&format!("\"x\", {gzip}, \"a\""), "gzip", coded.clone()),
            (&format!("{gzip}, \"a\""), "br", Some(Held::Identity)),
            ("\"b\"", "gzip", None),
            ("*", "gzip", None),
            ("", "gzip", None),
        ];
        for (none_match, accept, want) in rows {
            let text = format!("If-None-Match: {none_match}\nAccept-Encoding: {accept}");
            let fields = headers(&text);
            let view = RequestView { method: &Method::GET, headers: &fields };
            assert_eq!(held(&view, &base, Accepted::of(&fields)), want, "{none_match} {accept}");
        }
        let fields = headers(&format!("If-None-Match: {gzip}\nAccept-Encoding: gzip"));
        let view = RequestView { method: &Method::GET, headers: &fields };
        assert_eq!(held(&view, &stored(""), Accepted::of(&fields)), None);
        let put = RequestView { method: &Method::PUT, headers: &fields };
        assert_eq!(held(&put, &base, Accepted::of(&fields)), None);
    }
}
