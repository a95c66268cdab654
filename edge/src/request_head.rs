//! The head of a request on its way upstream.
//!
//! Fields that could make an answer depend on what the key does not hold are dropped
//! (web cache poisoning), as are the client's own claims about who it is and the fields that only
//! Meridian's nodes may speak. What is said of the client, the edge says itself.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use meridian_edge_rules::cdn_loop::CDN_LOOP;
use meridian_edge_rules::forwarded::{Hop, appended};
use meridian_edge_rules::hop_by_hop::max_forwards;
use meridian_edge_rules::partial::if_range;
use meridian_edge_rules::validate::Validators;
use meridian_edge_rules::vary::Codings;

use crate::asked::Asked;
use crate::error::FetchError;
use crate::hops::{OwnLoop, Via};
use crate::nodes::remove_internal;
use crate::refuse::SENSITIVE;
use crate::request_body::RequestBody;
use crate::route::folded;
use crate::unkeyed;
use crate::upstream::Upstream;

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Never sent on: unkeyed fields that frameworks take for the target, the method or the client.
const DROPPED: [&str; 15] = [
    "x-original-url",
    "x-rewrite-url",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-scheme",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-host",
    "forwarded",
    "expect",
];

/// What the edge itself writes into a request. An answer that varies by one of these cannot be
/// selected by what clients send.
const EDGE_MADE: [HeaderName; 8] = [
    header::HOST,
    header::TE,
    header::VIA,
    CDN_LOOP,
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
];

/// Whether an answer with these fields varies by what only the edge said.
pub(crate) fn varies_by_edge(answer: &HeaderMap) -> bool {
    let lines = answer.get_all(header::VARY).iter().filter_map(|line| line.to_str().ok());
    let mut names = lines.flat_map(|line| line.split(','));
    names.any(|name| EDGE_MADE.iter().any(|made| made.as_str().eq_ignore_ascii_case(name.trim())))
}

/// Who sends it on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    pub(crate) via: &'a Via,
    pub(crate) own_loop: &'a OwnLoop,
    pub(crate) preserve_host: bool,
    /// Whether the client's host may be told: not where the answer is for others too and the key
    /// does not hold the host, unless the configuration knows it.
    pub(crate) tells_host: bool,
}

/// What the request is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// The client's own, conditions and ranges included.
    Pass,
    /// The client's own, to change to this protocol.
    Upgrade(&'a str),
    /// For the store: the whole, whatever part or condition the client named.
    Store,
    /// To validate what is stored.
    Validate(&'a Validators),
    /// For the store: a part.
    Part(&'a HeaderValue, Condition<'a>),
}

/// On which condition a part is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Condition<'a> {
    /// On none.
    Always,
    /// If it is of the representation with these validators (RFC 9110 §13.1.5).
    Same(&'a Validators),
    /// If the representation is another one than that with these validators; else that is
    /// confirmed (304).
    Other(&'a Validators),
}

/// Writes the request for `upstream`.
///
/// # Errors
/// When the target or a field cannot be written as HTTP/1.1.
pub(crate) fn request_head(
    asked: &Asked,
    body: RequestBody,
    upstream: &Upstream,
    sender: &Sender<'_>,
    purpose: Purpose<'_>,
) -> Result<Request<RequestBody>, FetchError> {
    let mut fields = asked.headers.clone();
    let before = Before::of(&fields, asked);
    for name in DROPPED {
        fields.remove(name);
    }
    unkeyed::remove(&mut fields);
    remove_internal(&mut fields);
    join_cookies(&mut fields);
    match purpose {
        Purpose::Pass | Purpose::Upgrade(_) => {}
        Purpose::Store => generalise(&mut fields),
        Purpose::Validate(validators) => {
            generalise(&mut fields);
            validators.apply_to(&mut fields);
        }
        Purpose::Part(range, condition) => {
            generalise(&mut fields);
            match condition {
                Condition::Always => {}
                Condition::Same(validators) => {
                    if let Some(tag_or_date) = if_range(validators) {
                        fields.insert(header::IF_RANGE, tag_or_date);
                    }
                }
                Condition::Other(validators) => validators.apply_to(&mut fields),
            }
            fields.insert(header::RANGE, range.clone());
        }
    }
    introduce(&mut fields, asked, sender, &before);
    connect(&mut fields, asked, purpose)?;
    count_down(&mut fields, asked);
    let host = match &asked.authority {
        // A shield knows sites by their hosts, as this edge does.
        Some(authority) if sender.preserve_host || upstream.is_shield => {
            HeaderValue::from_str(&folded(authority)).map_err(|_invalid| {
                FetchError::HttpRequestError { reason: "its host is malformed" }
            })?
        }
        _ => upstream.authority.clone(),
    };
    fields.insert(header::HOST, host);
    body.announce(&mut fields);
    let mut request = Request::new(body);
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = asked
        .target
        .parse()
        .map_err(|_invalid| FetchError::HttpRequestError { reason: "its target is malformed" })?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = fields;
    Ok(request)
}

/// HTTP/2 clients may send each cookie in a line of its own, which HTTP/1.1 does not know
/// (RFC 9113 §8.2.3).
fn join_cookies(fields: &mut HeaderMap) {
    if fields.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> =
        fields.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        fields.insert(header::COOKIE, joined);
    }
}

/// Makes the request one for all who share its answer: the whole, without a client's own condition
/// (RFC 9111 §4.3.1), and in the codings that `Vary` is judged by.
fn generalise(fields: &mut HeaderMap) {
    let codings = Codings::of(fields).token();
    fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(codings));
    for name in [
        header::TRAILER,
        header::RANGE,
        header::IF_RANGE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
    ] {
        fields.remove(name);
    }
}

/// What trusted proxies before this edge said of the client.
struct Before {
    forwarded: Vec<HeaderValue>,
    addresses: Vec<HeaderValue>,
}

impl Before {
    fn of(fields: &HeaderMap, asked: &Asked) -> Self {
        let kept = |name: &HeaderName| {
            let lines = fields.get_all(name).iter().filter(|_| asked.trusted);
            lines.cloned().collect()
        };
        Self { forwarded: kept(&FORWARDED), addresses: kept(&X_FORWARDED_FOR) }
    }
}

/// `Via` (RFC 9110 §7.6.3), `CDN-Loop` (RFC 8586), `Forwarded` (RFC 7239) and its forerunners.
fn introduce(fields: &mut HeaderMap, asked: &Asked, sender: &Sender<'_>, before: &Before) {
    let told = asked.told_host().filter(|_| sender.tells_host);
    let hop = Hop { address: asked.address, proto: asked.scheme, host: told };
    // Hosts that others name in `Forwarded` are told where this edge's own would be.
    let forwarded = before.forwarded.iter().filter(|_| sender.tells_host);
    let lists = [
        (FORWARDED, appended(forwarded.map(HeaderValue::as_bytes), &hop.element())),
        (
            X_FORWARDED_FOR,
            appended(before.addresses.iter().map(HeaderValue::as_bytes), &hop.member()),
        ),
    ];
    for (name, list) in lists {
        if let Some(list) = list {
            fields.insert(name, list);
        }
    }
    if let Some(Ok(host)) = told.map(HeaderValue::from_str) {
        fields.insert(X_FORWARDED_HOST, host);
    }
    fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static(asked.scheme));
    sender.via.add(fields, asked.version);
    sender.own_loop.add(fields);
}

/// What is said to the next node alone. Trailers are wanted where they can go on (RFC 9110
/// §10.1.4): by a client that takes them, and by this edge wherever the answer may be for others, so
/// that nobody's wish shows in it.
fn connect(fields: &mut HeaderMap, asked: &Asked, purpose: Purpose<'_>) -> Result<(), FetchError> {
    let takes_trailers = match purpose {
        Purpose::Upgrade(protocol) => {
            let protocol = HeaderValue::from_str(protocol).map_err(|_invalid| {
                FetchError::HttpRequestError { reason: "its protocol is malformed" }
            })?;
            fields.insert(header::UPGRADE, protocol);
            fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            false
        }
        Purpose::Pass => asked.takes_trailers,
        Purpose::Store | Purpose::Validate(_) => true,
        Purpose::Part(..) => false, // what follows the whole does not follow a part
    };
    if takes_trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
        fields.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    Ok(())
}

/// One forward less (RFC 9110 §7.6.2); and `TRACE` carries no secrets any further (§9.3.8).
fn count_down(fields: &mut HeaderMap, asked: &Asked) {
    if !matches!(asked.method, Method::OPTIONS | Method::TRACE) {
        return;
    }
    if let Some(left) = max_forwards(fields) {
        fields.insert(header::MAX_FORWARDS, HeaderValue::from(left.saturating_sub(1)));
    }
    if asked.method == Method::TRACE {
        for name in SENSITIVE {
            fields.remove(name);
        }
    }
}
