//! Which field speaks to this cache: `CDN-Cache-Control` (RFC 9213), `Surrogate-Control`, or
//! `Cache-Control`, in this order.
//!
//! # Invariants
//! - Exactly one field governs; `CDN-Cache-Control` replaces `Cache-Control` and `Expires` whole.
//! - A field that cannot be read, is empty, or has a directive of the wrong type does not govern.
//! - `Surrogate-Control`, which no standard defines, replaces lifetimes, `no-store` and `no-cache`,
//!   but never `private`: a page for one person stays with that person.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};

use crate::cache_control::{CacheControl, Known, Reach, reach_of};
use crate::list::{self, delta_seconds};
use crate::policy::Policy;
use crate::structured::{self, Bare, Member};
use crate::time::MAX_SECONDS;

/// `CDN-Cache-Control` (RFC 9213 §3).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// `Surrogate-Control` (Edge Architecture Specification 1.0).
pub const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// Which field governs a response here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `CDN-Cache-Control`.
    Targeted,
    /// `Surrogate-Control`.
    Surrogate,
    /// `Cache-Control` and `Expires`.
    CacheControl,
}

/// The directives that hold for this cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Governing {
    /// Where they come from. Only with [`Source::CacheControl`] does `Expires` count.
    pub source: Source,
    /// What they say.
    pub directives: CacheControl,
}

impl Governing {
    /// Finds the field that governs `response` under `policy`.
    pub fn of(response: &HeaderMap, policy: &Policy) -> Self {
        if policy.targeted
            && response.contains_key(CDN_CACHE_CONTROL)
            && let Some(directives) = targeted(response)
        {
            return Self { source: Source::Targeted, directives };
        }
        let general = CacheControl::of(response);
        if policy.surrogate_control
            && response.contains_key(SURROGATE_CONTROL)
            && let Some(directives) = surrogate(response, &general)
        {
            return Self { source: Source::Surrogate, directives };
        }
        Self { source: Source::CacheControl, directives: general }
    }
}

/// RFC 9213 §2.1: a dictionary, valid and not empty, with directives of their proper types.
fn targeted(response: &HeaderMap) -> Option<CacheControl> {
    let members = structured::dictionary(response.get_all(CDN_CACHE_CONTROL).iter())?;
    if members.is_empty() {
        return None;
    }
    let mut said = CacheControl::default();
    for (name, value) in &members {
        hear(&mut said, name, value)?;
    }
    Some(said)
}

/// `None` if a known directive has a value that is not its type.
fn hear(said: &mut CacheControl, name: &str, value: &Member) -> Option<()> {
    let Some((_, known)) = Known::ALL.iter().find(|(known, _)| *known == name) else {
        return Some(());
    };
    match known {
        Known::MaxAge => said.max_age = Some(seconds(value)?),
        Known::SMaxage => said.s_maxage = Some(seconds(value)?),
        Known::StaleWhileRevalidate => said.stale_while_revalidate = Some(seconds(value)?),
        Known::StaleIfError => said.stale_if_error = Some(seconds(value)?),
        Known::NoStore => said.no_store = flag(value)?,
        Known::NoCache => said.no_cache = reach(value)?,
        Known::Private => said.private = reach(value)?,
        Known::Public => said.public = flag(value)?,
        Known::MustRevalidate => said.must_revalidate = flag(value)?,
        Known::ProxyRevalidate => said.proxy_revalidate = flag(value)?,
        Known::MustUnderstand => said.must_understand = flag(value)?,
        Known::NoTransform => said.no_transform = flag(value)?,
        Known::Immutable => said.immutable = flag(value)?,
        Known::MinFresh | Known::MaxStale | Known::OnlyIfCached => {}
    }
    Some(())
}

fn seconds(value: &Member) -> Option<Duration> {
    match value {
        Member::Item(Bare::Integer(number)) => {
            // What is negative is over already.
            Some(Duration::from_secs(u64::try_from(*number).unwrap_or(0).min(MAX_SECONDS)))
        }
        Member::Item(Bare::Boolean(_) | Bare::String(_) | Bare::Token(_) | Bare::Other)
        | Member::InnerList => None,
    }
}

fn flag(value: &Member) -> Option<bool> {
    match value {
        Member::Item(Bare::Boolean(set)) => Some(*set),
        Member::Item(Bare::Integer(_) | Bare::String(_) | Bare::Token(_) | Bare::Other)
        | Member::InnerList => None,
    }
}

fn reach(value: &Member) -> Option<Reach> {
    match value {
        Member::Item(Bare::Boolean(true)) => Some(Reach::Everything),
        Member::Item(Bare::Boolean(false)) => Some(Reach::Nothing),
        Member::Item(Bare::String(names)) => Some(reach_of(names.as_bytes())),
        Member::Item(Bare::Token(_)) => Some(Reach::Everything),
        Member::Item(Bare::Integer(_) | Bare::Other) | Member::InnerList => None,
    }
}

/// `max-age=60`, `max-age=60+30` (the second part, a grace, is not used), `no-store`, and what
/// RFC 5861 adds; a directive for one surrogate (`max-age=60;name`) is not for us. `None` if it
/// says neither how long nor not at all.
fn surrogate(response: &HeaderMap, general: &CacheControl) -> Option<CacheControl> {
    let mut said = CacheControl {
        private: general.private.clone(),
        must_understand: general.must_understand,
        no_transform: general.no_transform,
        ..CacheControl::default()
    };
    let lines = response.get_all(SURROGATE_CONTROL).iter();
    for member in lines.flat_map(|line| list::members(line.as_bytes())) {
        let text = member.text.to_ascii_lowercase();
        let (name, argument) = match text.iter().position(|byte| *byte == b'=') {
            Some(at) => (text.get(..at), text.get(at + 1..)),
            None => (Some(&text[..]), None),
        };
        let shorten = |limit: &mut Option<Duration>| {
            let argument = argument.unwrap_or_default().split(|byte| *byte == b'+').next();
            let read = argument.and_then(delta_seconds).unwrap_or(Duration::ZERO);
            *limit = Some(limit.map_or(read, |before| before.min(read)));
        };
        match name.unwrap_or_default() {
            _ if text.contains(&b';') => {}
            b"no-store" => said.no_store = true,
            b"max-age" => shorten(&mut said.max_age),
            b"stale-while-revalidate" => shorten(&mut said.stale_while_revalidate),
            b"stale-if-error" => shorten(&mut said.stale_if_error),
            _ => {}
        }
    }
    (said.no_store || said.max_age.is_some()).then_some(said)
}
