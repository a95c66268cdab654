//! What may not be shared is never answered to another client, whatever came before: a cache made of
//! the rules alone, and clients whose answers are told apart.

use std::time::Duration;

use http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use http::{Method, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::decide::{Decision, Lookup, decide};
use crate::exchange::{Exchange, RequestView, ResponseView};
use crate::fixtures::at;
use crate::policy::Policy;
use crate::reusable;
use crate::stored::StoredHead;

/// A request of one client, and what upstream answers should it be asked.
#[derive(Clone, Debug)]
struct Step {
    client: usize,
    authorized: bool,
    plan: u8,
    response: HeaderMap,
    status: StatusCode,
    later: u64,
}

impl Step {
    fn request(&self) -> HeaderMap {
        let mut request = HeaderMap::new();
        request.insert("foo", HeaderValue::from(u16::from(self.plan)));
        if self.authorized {
            request.insert(AUTHORIZATION, HeaderValue::from(self.client));
        }
        request
    }

    /// Read by hand, and not by what is under test.
    fn directives(&self) -> Vec<(String, Option<String>)> {
        let lines = self.response.get_all(CACHE_CONTROL).iter();
        let lines = lines.map(|line| line.to_str().unwrap().to_ascii_lowercase());
        let lines = lines.collect::<Vec<_>>();
        let each = lines.iter().flat_map(|line| line.split(", "));
        let parted = each.map(|one| match one.split_once('=') {
            Some((name, argument)) => (name.to_owned(), Some(argument.to_owned())),
            None => (one.to_owned(), None),
        });
        parted.collect()
    }

    fn says(&self, name: &str) -> bool {
        self.directives().iter().any(|(said, _)| said == name)
    }

    /// §3, §3.5, §5.2.2.5, §5.2.2.7.
    fn is_for_one(&self) -> bool {
        let private = self.directives().into_iter().any(|(name, argument)| {
            name == "private" && !argument.is_some_and(|fields| fields.starts_with('"'))
        });
        let shares = ["public", "must-revalidate", "s-maxage"];
        let owned = self.authorized && !shares.iter().any(|name| self.says(name));
        private || owned || (self.says("no-store") && !self.says("must-understand"))
    }
}

/// Which steps were answered with what was brought for another client, and may not be.
fn leaks(steps: &[Step], policy: &Policy, heard: impl Fn(&HeaderMap) -> HeaderMap) -> Vec<usize> {
    let mut stored: Vec<(StoredHead, usize)> = Vec::new();
    let (mut second, mut leaks) = (0, Vec::new());
    for (number, step) in steps.iter().enumerate() {
        second += step.later;
        let (now, request) = (at(second), step.request());
        let view = RequestView { method: &Method::GET, headers: &request };
        let heads: Vec<&StoredHead> = stored.iter().map(|(head, _)| head).collect();
        let chosen = reusable::select(&heads, &request);
        let lookup = match chosen {
            Some(chosen) => Lookup::Found(heads[chosen]),
            None => Lookup::VaryMiss,
        };
        if let Decision::Serve { .. } = decide(&view, lookup, policy, now) {
            let brought = &steps[stored[chosen.unwrap()].1];
            let fields = &stored[chosen.unwrap()].0.headers;
            let cookie = fields.contains_key(SET_COOKIE) && !policy.store_set_cookie;
            if brought.client != step.client && (brought.is_for_one() || cookie) {
                leaks.push(number);
            }
            continue;
        }
        let response = heard(&step.response);
        let response = ResponseView { status: step.status, headers: &response };
        let times = Exchange { sent: now, received: now };
        if let Ok(head) = StoredHead::of(&view, &response, policy, &times) {
            stored.retain(|(old, _)| old.vary != head.vary);
            stored.push((head, number));
        }
    }
    leaks
}

fn response() -> impl Strategy<Value = HeaderMap> {
    let sharing = vec![
        "max-age=60",
        "s-maxage=60",
        "public",
        "private",
        "Private",
        "private=\"x\"",
        "private=x",
        "no-store",
        "must-understand",
        "must-revalidate",
        "no-cache=\"set-cookie\"",
        "stale-while-revalidate=9",
    ];
    let others = vec![
        ("vary", "foo"),
        ("set-cookie", "a=b"),
        ("etag", "\"a\""),
        ("last-modified", "Mon, 01 Nov 2027 00:00:00 GMT"),
        ("pragma", "no-cache"),
    ];
    (subsequence(sharing, 0..5), any::<bool>(), subsequence(others, 0..4)).prop_map(
        |(directives, in_lines, others)| {
            let mut response = HeaderMap::new();
            let per_line = if in_lines { 1 } else { directives.len().max(1) };
            for line in directives.chunks(per_line) {
                let value = HeaderValue::from_str(&line.join(", ")).unwrap();
                response.append(CACHE_CONTROL, value);
            }
            for (name, value) in others {
                response.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            response
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let status = select(vec![200, 200, 200, 203, 404, 503, 599]);
    (0..3_usize, any::<bool>(), 0..2_u8, response(), status, 0..30_u64).prop_map(
        |(client, authorized, plan, response, status, later)| Step {
            client,
            authorized,
            plan,
            response,
            status: StatusCode::from_u16(status).unwrap(),
            later,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn what_may_not_be_shared_is_never_answered_to_another_client(
        steps in vec(step(), 1..12),
        rfc: bool,
        default in prop::option::of(1..60_u64),
    ) {
        let profile = if rfc { Policy::rfc() } else { Policy::cdn() };
        let policy = Policy { default_lifetime: default.map(Duration::from_secs), ..profile };
        prop_assert_eq!(leaks(&steps, &policy, HeaderMap::clone), Vec::<usize>::new());
    }
}

#[test]
fn a_cache_that_does_not_hear_what_forbids_sharing_is_caught() {
    let deaf = |said: &'static str| {
        move |response: &HeaderMap| {
            let mut heard = response.clone();
            heard.remove(CACHE_CONTROL);
            for line in response.get_all(CACHE_CONTROL) {
                let text = line.to_str().unwrap().replace(said, "x");
                heard.append(CACHE_CONTROL, HeaderValue::from_str(&text).unwrap());
            }
            heard
        }
    };
    for said in ["private", "no-store"] {
        let mut response = HeaderMap::new();
        let line = format!("max-age=60, {said}");
        response.insert(CACHE_CONTROL, HeaderValue::from_str(&line).unwrap());
        let status = StatusCode::OK;
        let step = |client| Step {
            client,
            authorized: false,
            plan: 0,
            response: response.clone(),
            status,
            later: 1,
        };
        let steps = [step(0), step(1)];
        assert!(leaks(&steps, &Policy::cdn(), HeaderMap::clone).is_empty(), "{said}");
        assert_eq!(leaks(&steps, &Policy::cdn(), deaf(said)), [1], "{said}");
    }
    // As is one that does not know who asked.
    let anonymous = Step {
        client: 0,
        authorized: false,
        plan: 0,
        response: crate::fixtures::headers("Cache-Control: max-age=60"),
        status: StatusCode::OK,
        later: 1,
    };
    let owner = Step { authorized: true, ..anonymous.clone() };
    assert!(!anonymous.is_for_one() && owner.is_for_one());
}
