//! Which field speaks to this cache: `CDN-Cache-Control` (RFC 9213), `Surrogate-Control`, or
//! `Cache-Control`, in this order.
//!
//! # Invariants
//! - Exactly one field governs; `CDN-Cache-Control` replaces `Cache-Control` and `Expires` whole.
//! - A field that cannot be read, is empty, or has a directive of the wrong type does not govern.
//! - `Surrogate-Control`, which no standard defines, replaces lifetimes, `no-store` and `no-cache`,
//!   but never `private`: a page for one person stays with that person.
//! - Only a rule of the site that says so in as many words lifts `no-store`, `no-cache`, `private`.

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
        let mut governing = Self::found(response, policy);
        if policy.ruled.unheard {
            let said = &mut governing.directives;
            said.no_store = false;
            for reach in [&mut said.no_cache, &mut said.private] {
                if reach.is_everything() {
                    *reach = Reach::Nothing;
                }
            }
        }
        governing
    }

    fn found(response: &HeaderMap, policy: &Policy) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{headers, secs};

    fn governing(response: &str) -> (Source, Option<u64>, bool) {
        let Governing { source, directives } = Governing::of(&headers(response), &Policy::cdn());
        (source, directives.max_age.map(|age| age.as_secs()), directives.no_store)
    }

    #[test]
    fn cdn_cache_control_governs_if_it_is_a_dictionary_that_says_something() {
        // Beside `Cache-Control: no-store` each time (RFC 9213 §2.1).
        let rows = [
            ("max-age=60", (Source::Targeted, Some(60), false)),
            ("max-age=99999999999", (Source::Targeted, Some(1 << 31), false)),
            ("max-age=-1", (Source::Targeted, Some(0), false)),
            ("max-age=60;x=1, foo=(1 2)", (Source::Targeted, Some(60), false)),
            ("max-age=1, max-age=60", (Source::Targeted, Some(60), false)),
            ("no-store=?0, max-age=60", (Source::Targeted, Some(60), false)),
            ("no-store", (Source::Targeted, None, true)),
            ("foo", (Source::Targeted, None, false)),
            ("", (Source::CacheControl, None, true)),
            ("max-age=\"60\"", (Source::CacheControl, None, true)),
            ("max-age=60.0", (Source::CacheControl, None, true)),
            ("max-age", (Source::CacheControl, None, true)),
            ("no-store=1", (Source::CacheControl, None, true)),
            ("MaX-aGe=60", (Source::CacheControl, None, true)),
            ("max-age =60", (Source::CacheControl, None, true)),
            ("max-age= 60", (Source::CacheControl, None, true)),
            ("max-age=60, &&&&&", (Source::CacheControl, None, true)),
        ];
        for (field, want) in rows {
            let response = format!("Cache-Control: no-store\nCDN-Cache-Control: {field}");
            assert_eq!(governing(&response), want, "{field:?}");
        }
    }

    #[test]
    fn directives_of_cdn_cache_control_have_their_types() {
        let response = headers(
            "CDN-Cache-Control: s-maxage=1, no-cache=\"set-cookie\", private=\"a, b\", public
             CDN-Cache-Control: must-revalidate, proxy-revalidate, must-understand
             CDN-Cache-Control: no-transform, immutable, stale-while-revalidate=2
             CDN-Cache-Control: stale-if-error=3",
        );
        let said = Governing::of(&response, &Policy::cdn()).directives;
        let want = CacheControl {
            s_maxage: Some(secs(1)),
            no_cache: Reach::Fields(vec![http::header::SET_COOKIE]),
            private: Reach::Fields(vec![
                HeaderName::from_static("a"),
                HeaderName::from_static("b"),
            ]),
            public: true,
            must_revalidate: true,
            proxy_revalidate: true,
            must_understand: true,
            no_transform: true,
            immutable: true,
            stale_while_revalidate: Some(secs(2)),
            stale_if_error: Some(secs(3)),
            ..CacheControl::default()
        };
        assert_eq!(said, want);
        for all in ["no-cache", "no-cache=token", "no-cache=\"\""] {
            let response = headers(&format!("CDN-Cache-Control: {all}"));
            let said = Governing::of(&response, &Policy::cdn()).directives;
            assert_eq!(said.no_cache, Reach::Everything, "{all}");
        }
    }

    #[test]
    fn surrogate_control_stands_between_the_two_and_never_lifts_private() {
        let rows = [
            ("Surrogate-Control: max-age=60", (Source::Surrogate, Some(60), false)),
            ("Surrogate-Control: max-age=60+600", (Source::Surrogate, Some(60), false)),
            ("Surrogate-Control: no-store", (Source::Surrogate, None, true)),
            ("Surrogate-Control: max-age=60, No-Store", (Source::Surrogate, Some(60), true)),
            ("Surrogate-Control: max-age=x", (Source::Surrogate, Some(0), false)),
            ("Surrogate-Control: max-age=60;one", (Source::CacheControl, Some(5), false)),
            ("Surrogate-Control: content=\"ESI/1.0\"", (Source::CacheControl, Some(5), false)),
            (
                "Surrogate-Control: max-age=60\nCDN-Cache-Control: max-age=7",
                (Source::Targeted, Some(7), false),
            ),
        ];
        for (field, want) in rows {
            let response = format!("Cache-Control: max-age=5\n{field}");
            assert_eq!(governing(&response), want, "{field:?}");
        }
        let private = headers("Cache-Control: private\nSurrogate-Control: max-age=60");
        assert!(Governing::of(&private, &Policy::cdn()).directives.private.is_everything());
    }

    #[test]
    fn a_site_may_turn_either_field_off() {
        let response = headers(
            "Cache-Control: max-age=1\nSurrogate-Control: max-age=2\nCDN-Cache-Control: max-age=3",
        );
        let max_age = |policy: &Policy| Governing::of(&response, policy).directives.max_age;
        let untargeted = Policy { targeted: false, ..Policy::cdn() };
        let neither = Policy { surrogate_control: false, ..untargeted.clone() };
        assert_eq!(max_age(&Policy::cdn()), Some(secs(3)));
        assert_eq!(max_age(&untargeted), Some(secs(2)));
        assert_eq!(max_age(&neither), Some(secs(1)));
    }
}
