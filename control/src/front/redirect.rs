//! From a request to its `Location`.
//!
//! Who asks from where: `?meridian-from=` (an explicit wish: nonsense is refused, and it is taken
//! out of the URL), `Meridian-From` (only if `trust_from`; nonsense is ignored), the client's
//! address in `[[prefix]]`, `default_from`, the first region by label.
//!
//! # Invariants
//! - `Location` is the URL of an edge followed by a path: whatever the client sent, it stays after
//!   the authority, so `//evil.example/` and `/\evil.example` stay paths of the edge.
//! - Nothing that a client sent reaches a header field unescaped, other than visible ASCII.

use std::net::IpAddr;

use http::header::{CACHE_CONTROL, CONTENT_LENGTH, HOST, LOCATION, VARY};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, Version};
use meridian_config::units::Region;
use meridian_control_wire::problem::ErrorCode;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::answer::{Answer, Refusal, empty};
use crate::asker::{Asker, Prefixes, Said, located, said};
use crate::front::door::Door;
use crate::steer::Map;

/// What may not stand in a URI as it is (RFC 3986 §2), and the backslash, which browsers take for
/// a slash. Escapes that are there already stay.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The parameter with which a client says where it is.
const FROM_PARAMETER: &str = "meridian-from";

/// The header field with which a trusted client says where it is.
const FROM_FIELD: &str = "meridian-from";

/// The 307 for `request` from a client at `from`. Counts the client towards its edge.
pub(super) fn redirect<B>(
    door: &Door,
    request: &Request<B>,
    from: IpAddr,
) -> Result<Answer, Refusal> {
    named_host(request.version(), request.headers())?;
    let target = Target::of(request.uri())?;
    let view = door.view.load();
    let sources = Sources {
        prefixes: &door.prefixes,
        trust_from: door.config.trust_from,
        default_from: door.config.default_from.as_ref(),
        map: &view.map,
    };
    let said = target.from.as_deref();
    let asker = sources.asker(said, request.headers(), from)?.ok_or_else(no_edge)?;
    let chosen = view.map.choose(&asker, &target.path, &mut door.loads());
    let (area, edge) = chosen.ok_or_else(no_edge)?;
    door.metrics.sent_to(area.region.as_str());
    located_at(edge.url.as_str(), &target.path)
}

fn no_edge() -> Refusal {
    let detail = "no edge can take clients: none is known, or all are unhealthy or drained";
    Refusal::new(ErrorCode::NoEdge, detail)
}

/// RFC 9112 §3.2: an HTTP/1.1 request names its host exactly once, and well-formed.
fn named_host(version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let fits = match (first, second) {
        (None, _) => version != Version::HTTP_11,
        (Some(host), None) => host.is_empty() || is_host(host),
        (Some(_), Some(_)) => false,
    };
    let rule = "an HTTP/1.1 request needs exactly one well-formed Host (RFC 9112 §3.2)";
    if fits { Ok(()) } else { Err(Refusal::new(ErrorCode::BadRequest, rule)) }
}

fn is_host(value: &HeaderValue) -> bool {
    let authority = Authority::try_from(value.as_bytes());
    authority.is_ok_and(|authority| !authority.as_str().contains('@'))
}

/// What a request asks for, whatever the form of its target (RFC 9112 §3.2).
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// Path and query, without [`FROM_PARAMETER`].
    path: String,
    /// The first value of that parameter, without escapes.
    from: Option<String>,
}

impl Target {
    fn of(uri: &Uri) -> Result<Self, Refusal> {
        if !uri.path().starts_with('/') {
            let detail = "the target names no path, and only paths lead to an edge";
            return Err(Refusal::new(ErrorCode::BadRequest, detail));
        }
        let (mut path, mut from) = (uri.path().to_owned(), None);
        if let Some(query) = uri.query() {
            let (mut rest, mut taken) = (Vec::new(), false);
            for pair in query.split('&') {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                if name == FROM_PARAMETER {
                    taken = true;
                    from.get_or_insert_with(|| {
                        percent_decode_str(value).decode_utf8_lossy().into_owned()
                    });
                } else {
                    rest.push(pair);
                }
            }
            if !taken || !rest.is_empty() {
                path.push('?');
                path.push_str(&rest.join("&"));
            }
        }
        Ok(Self { path, from })
    }
}

/// What may tell where a client is.
struct Sources<'d> {
    prefixes: &'d Prefixes,
    trust_from: bool,
    default_from: Option<&'d Region>,
    map: &'d Map,
}

impl Sources<'_> {
    /// Where the client is; `None` if nothing tells and no region is known.
    fn asker(
        &self,
        parameter: Option<&str>,
        headers: &HeaderMap,
        from: IpAddr,
    ) -> Result<Option<Asker>, Refusal> {
        match parameter.map(|text| self.said(text)) {
            Some(Said::Place(asker)) => return Ok(Some(asker)),
            Some(Said::Nonsense) => {
                let detail = "meridian-from must be a label such as fra, lat,lon such as \
                              50.03,8.57, or an IP address";
                return Err(Refusal::new(ErrorCode::BadRequest, detail));
            }
            Some(Said::Uncharted(_)) | None => {}
        }
        let field = headers.get(FROM_FIELD).filter(|_| self.trust_from);
        if let Some(text) = field.and_then(|value| value.to_str().ok())
            && let Said::Place(asker) = self.said(text.trim())
        {
            return Ok(Some(asker));
        }
        let charted = self.prefixes.find(from).cloned();
        Ok(charted.or_else(|| self.by_default()))
    }

    fn said(&self, text: &str) -> Said {
        said(text, self.prefixes, |region| self.map.locate(region))
    }

    fn by_default(&self) -> Option<Asker> {
        let configured = self.default_from;
        configured
            .and_then(|label| located(label, |region| self.map.locate(region)))
            .or_else(|| self.map.first())
    }
}

/// The 307 to `path` at `edge`. Caches must not keep it: the next client may stand elsewhere, and
/// the edge may be gone.
fn located_at(edge: &str, path: &str) -> Result<Answer, Refusal> {
    let location = format!("{edge}{}", utf8_percent_encode(path, ESCAPED));
    let location = HeaderValue::try_from(location).map_err(|error| {
        Refusal::new(ErrorCode::BadRequest, format!("the target fits no Location: {error}"))
    })?;
    let mut answer = empty(StatusCode::TEMPORARY_REDIRECT);
    let headers = answer.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(VARY, HeaderValue::from_static("*"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(answer)
}

#[cfg(test)]
mod tests;
