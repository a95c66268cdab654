//! May this response be stored (§3)? If not, why.
//!
//! Answers for a shared cache that keeps whole responses to GET; HEAD is answered from them.

use std::fmt;

use http::header::{AUTHORIZATION, SET_COOKIE};
use http::{HeaderName, Method, StatusCode};

use crate::cache_control::{CacheControl, RequestDirectives};
use crate::exchange::{RequestView, ResponseView};
use crate::policy::Policy;

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStorable {
    /// The request was not a GET.
    Method,
    /// The status is not final, is a 304, or needs a stated lifetime that is missing.
    Status,
    /// A part of a representation (206).
    Partial,
    /// `must-understand`, with a status that this cache does not (§5.2.2.3).
    MustUnderstand,
    /// `no-store` in the response.
    NoStore,
    /// `no-store` in the request, where the site obeys it.
    RequestNoStore,
    /// `private` (§5.2.2.7).
    Private,
    /// The request had `Authorization` and the response does not allow sharing (§3.5).
    Authorization,
    /// `Set-Cookie`, where the site does not store it.
    SetCookie,
    /// `Vary: *`: no request would ever match.
    VaryAny,
    /// No lifetime, no ground for one, and no validator to ask with.
    NoLifetime,
    /// Only to be reused after validation, and nothing to validate with.
    NoValidator,
}

impl NotStorable {
    /// The word for `Cache-Status`, the metric label and the log.
    pub fn token(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::MustUnderstand => "must-understand",
            Self::NoStore => "no-store",
            Self::RequestNoStore => "request-no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::VaryAny => "vary-any",
            Self::NoLifetime => "no-lifetime",
            Self::NoValidator => "no-validator",
        }
    }
}

impl fmt::Display for NotStorable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

impl std::error::Error for NotStorable {}

/// What forbids storing `response` whatever its lifetime; `said` is what its governing field says.
pub fn permitted(
    request: &RequestView<'_>,
    response: &ResponseView<'_>,
    said: &CacheControl,
    policy: &Policy,
) -> Result<(), NotStorable> {
    if *request.method != Method::GET {
        return Err(NotStorable::Method);
    }
    if policy.honour_client_directives && RequestDirectives::of(request.headers).no_store {
        return Err(NotStorable::RequestNoStore);
    }
    match response.status {
        StatusCode::PARTIAL_CONTENT => return Err(NotStorable::Partial),
        StatusCode::NOT_MODIFIED => return Err(NotStorable::Status),
        status if status.as_u16() < 200 || status.as_u16() > 599 => {
            return Err(NotStorable::Status);
        }
        _ => {}
    }
    allowed(said, response.status, request.headers.contains_key(AUTHORIZATION))?;
    let sets_cookie = response.headers.contains_key(SET_COOKIE) && !is_withheld(&SET_COOKIE, said);
    if sets_cookie && !policy.store_set_cookie {
        return Err(NotStorable::SetCookie);
    }
    Ok(())
}

/// What the directives allow; `authorized` says whether the request had `Authorization`.
pub(crate) fn allowed(
    said: &CacheControl,
    status: StatusCode,
    authorized: bool,
) -> Result<(), NotStorable> {
    let understood = is_understood(status);
    let shareable = said.public || said.must_revalidate || said.s_maxage.is_some(); // §3.5
    match () {
        () if said.must_understand && !understood => Err(NotStorable::MustUnderstand),
        // §5.2.2.3: who understands the status ignores the no-store that is meant for the others.
        () if said.no_store && !said.must_understand => Err(NotStorable::NoStore),
        () if said.private.is_everything() => Err(NotStorable::Private),
        () if authorized && !shareable => Err(NotStorable::Authorization),
        () => Ok(()),
    }
}

/// Whether `no-cache="..."` or `private="..."` names the field, which is then not stored.
fn is_withheld(name: &HeaderName, said: &CacheControl) -> bool {
    said.no_cache.fields().contains(name) || said.private.fields().contains(name)
}

/// The final statuses of RFC 9110 §15 and their kin whose demands on caches are met here.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 428 | 429 | 431
            | 451 | 500..=505 | 511
    )
}
