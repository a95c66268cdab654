//! Laws that hold for arbitrary messages, policies and times.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::cache_control::{CacheControl, Reach};
use crate::cache_status::CacheStatus;
use crate::decide::{Decision, Fwd, Lookup, decide};
use crate::exchange::{Exchange, RequestView, ResponseView};
use crate::fixtures::{START, at, secs, wall};
use crate::policy::Policy;
use crate::ranges::{Ranges, ranges};
use crate::storable::NotStorable;
use crate::stored::StoredHead;
use crate::structured::{Bare, Parser};
use crate::time::Now;
use crate::validate::{EntityTag, Validators, precondition, precondition_at_cache};
use crate::vary::Vary;
use crate::{date, groups, hop_by_hop, invalidate};

/// Every field that some rule reads.
const FIELDS: [&str; 31] = [
    "cache-control",
    "cdn-cache-control",
    "surrogate-control",
    "pragma",
    "expires",
    "date",
    "age",
    "last-modified",
    "etag",
    "vary",
    "set-cookie",
    "authorization",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "location",
    "content-location",
    "content-length",
    "content-type",
    "content-encoding",
    "content-range",
    "accept-encoding",
    "accept-language",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "if-range",
    "range",
    "foo",
    "te",
];

/// What forbids sharing, in shapes that occur.
const FORBIDDING: [&str; 6] =
    ["no-store", "private", "No-Store", "PRIVATE", "private=x", "no-store=\"\""];

/// Anything that a field may hold.
fn any_value() -> impl Strategy<Value = HeaderValue> {
    let byte = prop_oneof![
        4 => select(b" \t,;=\"\\*-/0123456789".to_vec()),
        4 => 0x20..0x7f_u8,
        1 => 0x80..=0xff_u8,
    ];
    vec(byte, 0..40).prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap())
}

fn directive() -> impl Strategy<Value = String> {
    let name = select(vec![
        "max-age",
        "s-maxage",
        "no-cache",
        "public",
        "must-revalidate",
        "proxy-revalidate",
        "immutable",
        "stale-while-revalidate",
        "stale-if-error",
        "min-fresh",
        "max-stale",
        "no-transform",
        "foo",
    ]);
    let argument = prop_oneof![
        3 => Just(String::new()),
        6 => (0..200_u32).prop_map(|seconds| format!("={seconds}")),
        1 => any::<u64>().prop_map(|seconds| format!("={seconds}")),
        1 => (0..200_u32).prop_map(|seconds| format!("=\"{seconds}\"")),
        1 => Just("=\"set-cookie, x\"".to_owned()),
        1 => Just("=x".to_owned()),
    ];
    (name, argument).prop_map(|(name, argument)| format!("{name}{argument}"))
}

fn date_value() -> impl Strategy<Value = HeaderValue> {
    (-1000..1000_i64).prop_map(|seconds| date::format(wall(seconds)))
}

/// A value that makes sense in the field, mostly.
fn value_of(name: &'static str) -> BoxedStrategy<HeaderValue> {
    let text = |text: String| HeaderValue::from_str(&text).unwrap();
    let sound = match name {
        "cache-control" | "cdn-cache-control" | "surrogate-control" => {
            vec(directive(), 0..5).prop_map(move |all| text(all.join(", "))).boxed()
        }
        "expires" | "date" | "last-modified" | "if-modified-since" | "if-unmodified-since" => {
            date_value().boxed()
        }
        "age" | "content-length" => (0..300_u32).prop_map(HeaderValue::from).boxed(),
        "etag" | "if-none-match" | "if-match" | "if-range" => {
            "(W/)?\"[ab]\"".prop_map(text).boxed()
        }
        "vary" => select(vec!["Foo", "Accept-Encoding, Foo", "Accept-Language", "*", "foo,,"])
            .prop_map(HeaderValue::from_static)
            .boxed(),
        "range" => {
            "bytes=[0-9]{0,2}-[0-9]{0,2}(, ?[0-9]{0,2}-[0-9]{0,2}){0,3}".prop_map(text).boxed()
        }
        "connection" => select(FIELDS.to_vec()).prop_map(HeaderValue::from_static).boxed(),
        "accept-encoding" => {
            "(gzip|br|zstd|identity|\\*)(;q=0(\\.[05])?)?(, ?(br|gzip))?".prop_map(text).boxed()
        }
        _ => "[a-z/:.?]{0,8}".prop_map(text).boxed(),
    };
    prop_oneof![9 => sound, 1 => any_value()].boxed()
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    let line = select(FIELDS.to_vec())
        .prop_flat_map(|name| value_of(name).prop_map(move |value| (name, value)));
    vec(line, 0..9).prop_map(|lines| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let profile = prop_oneof![Just(Policy::cdn()), Just(Policy::rfc())];
    let limits = (0..300_u64, 0..300_u64, option::of(0..100_u64));
    (profile, any::<bool>(), limits).prop_map(|(profile, honour, (error, max, default))| Policy {
        honour_client_directives: honour,
        stale_if_error: secs(error),
        stale_max: secs(max),
        default_lifetime: default.map(secs),
        ..profile
    })
}

fn status() -> impl Strategy<Value = StatusCode> {
    prop_oneof![3 => Just(200), 1 => 100..=999_u16]
        .prop_map(|status| StatusCode::from_u16(status).unwrap())
}

fn method() -> impl Strategy<Value = Method> {
    select(vec![Method::GET, Method::GET, Method::GET, Method::HEAD, Method::POST])
}

/// Stores the response to a GET sent `delay` seconds before second 10.
fn stored(
    request: &HeaderMap,
    status: StatusCode,
    response: &HeaderMap,
    policy: &Policy,
    delay: u64,
) -> Result<StoredHead, NotStorable> {
    StoredHead::of(
        &RequestView { method: &Method::GET, headers: request },
        &ResponseView { status, headers: response },
        policy,
        &Exchange { sent: at(10 - delay), received: at(10) },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_in_any_field_panic(
        lines in vec((select(FIELDS.to_vec()), any_value()), 0..40),
        status in status(),
        method in method(),
    ) {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(HeaderName::from_static(name), value);
        }
        let policy = Policy { honour_client_directives: true, ..Policy::cdn() };
        let request = RequestView { method: &method, headers: &fields };
        if let Ok(head) = stored(&fields, status, &fields, &policy, 1) {
            let freshened =
                head.freshened(&fields, &policy, &Exchange { sent: at(10), received: at(11) });
            head.validators.apply_to(&mut fields.clone());
            prop_assert!(head.current_age(at(12)) >= head.initial_age);
            prop_assert!(freshened.lifetime <= secs(1 << 31));
        }
        let validators = Validators::of(&fields);
        let at_origin = precondition(&method, &fields, &validators);
        prop_assert_eq!(at_origin, precondition(&method, &fields, &validators));
        precondition_at_cache(&method, &fields, &validators);
        ranges(&method, &fields, &validators, 1000, 8);
        prop_assert!(!invalidate::invalidated(&Uri::from_static("http://a/b"), &fields).is_empty());
        hop_by_hop::remove_hop_by_hop(&mut fields.clone());
        let missed = decide(&request, Lookup::<StoredHead>::UriMiss, &policy, at(0));
        let served = matches!(missed, Decision::Serve { .. });
        prop_assert!(!served);
    }

    #[test]
    fn age_never_falls_whatever_the_clock_on_the_wall_does(
        response in fields(),
        delay in 0..10_u64,
        (first, second) in (0..10_000_u64, 0..10_000_u64),
        stepped in -100_000..100_000_i64,
    ) {
        let Ok(head) = stored(&HeaderMap::new(), StatusCode::OK, &response, &Policy::cdn(), delay)
        else { return Ok(()) };
        let (earlier, later) = (first.min(second), first.max(second));
        let later_stepped = Now { wall: wall(stepped), ..at(later) };
        prop_assert!(head.current_age(at(earlier)) <= head.current_age(later_stepped));
        prop_assert!(head.ttl(at(earlier)) >= head.ttl(later_stepped));
        prop_assert!(head.current_age(at(10)) >= secs(delay)); // §4.2.3: the delay always counts
    }

    #[test]
    fn nothing_is_served_past_its_lifetime_and_its_grants(
        (first, request, response, not_modified) in (fields(), fields(), fields(), fields()),
        (status, method, policy) in (status(), method(), policy()),
        (second, freshen) in (10..700_u64, any::<bool>()),
    ) {
        let Ok(mut head) = stored(&first, status, &response, &policy, 0) else { return Ok(()) };
        if freshen {
            let times = Exchange { sent: at(10), received: at(10) };
            head = head.freshened(&not_modified, &policy, &times);
        }
        let now = at(second);
        let view = RequestView { method: &method, headers: &request };
        let decision = decide(&view, Lookup::Found(&head), &policy, now);
        if let Decision::Serve { stored, age, ttl, revalidate } = decision {
            prop_assert!(!stored.no_cache);
            prop_assert_eq!(age, stored.current_age(now));
            let may_be_stale = match &revalidate {
                Some(_) => stored.stale_while_revalidate,
                None if policy.honour_client_directives && !stored.must_revalidate => {
                    policy.stale_max
                }
                None => Duration::ZERO,
            };
            prop_assert!(may_be_stale <= policy.stale_max);
            prop_assert!(age < stored.lifetime + may_be_stale);
            prop_assert_eq!(ttl > 0, age < stored.lifetime);
        }
    }

    #[test]
    fn a_site_that_does_not_obey_clients_decides_as_if_they_had_said_nothing(
        (request, response) in (fields(), fields()),
        second in 10..700_u64,
    ) {
        let policy = Policy::cdn();
        let Ok(head) = stored(&HeaderMap::new(), StatusCode::OK, &response, &policy, 0)
        else { return Ok(()) };
        let outcome = |request: &HeaderMap| {
            let view = RequestView { method: &Method::GET, headers: request };
            match decide(&view, Lookup::Found(&head), &policy, at(second)) {
                Decision::Serve { revalidate, .. } => Some(revalidate.is_some()),
                Decision::Forward(forward) => {
                    assert!(forward.store && forward.why == Fwd::Stale);
                    None
                }
                Decision::Unsatisfiable => None,
            }
        };
        prop_assert_eq!(outcome(&request), outcome(&HeaderMap::new()));
    }

    #[test]
    fn what_forbids_sharing_is_heard_anywhere_in_any_case(
        mut directives in vec(directive(), 0..5),
        forbids in select(FORBIDDING.to_vec()),
        place in any::<prop::sample::Index>(),
        per_line in 1..4_usize,
        (rest, policy, delay) in (fields(), policy(), 0..10_u64),
    ) {
        directives.insert(place.index(directives.len() + 1), forbids.to_owned());
        let mut response = rest;
        for other in ["cache-control", "cdn-cache-control", "surrogate-control"] {
            response.remove(other);
        }
        for line in directives.chunks(per_line) {
            let value = HeaderValue::from_str(&line.join(", ")).unwrap();
            response.append("cache-control", value);
        }
        let outcome = stored(&HeaderMap::new(), StatusCode::OK, &response, &policy, delay);
        prop_assert!(matches!(outcome, Err(NotStorable::NoStore | NotStorable::Private)));
    }

    #[test]
    fn what_may_be_used_without_asking_was_allowed_to_be_shared(
        (request, response, status, policy) in (fields(), fields(), status(), policy()),
    ) {
        let Ok(head) = stored(&request, status, &response, &policy, 0) else { return Ok(()) };
        prop_assert_eq!(head.authorized, request.contains_key("authorization"));
        prop_assert!(policy.store_set_cookie || !head.headers.contains_key("set-cookie"));
        prop_assert!(!head.headers.contains_key("age"));
        prop_assert_eq!(head.headers.get_all("date").iter().count(), 1);
        prop_assert!(head.vary.matches(&request), "its own request does not match");
        let unusable = head.no_cache && head.validators.is_empty();
        prop_assert!(!unusable, "stored for nothing");
    }

    #[test]
    fn a_variant_is_found_by_every_spelling_of_its_request(
        members in vec("[a-z]{1,4}", 1..4),
        (padding, split) in (" {0,2}\t?", any::<prop::sample::Index>()),
    ) {
        let vary = crate::fixtures::headers("Vary: Foo");
        let mut plain = HeaderMap::new();
        plain.insert("foo", HeaderValue::from_str(&members.join(",")).unwrap());
        let mut spaced = HeaderMap::new();
        let (front, back) = members.split_at(split.index(members.len()));
        for line in [front, back].into_iter().filter(|line| !line.is_empty()) {
            let text = line.join(&format!("{padding},{padding}"));
            spaced.append("foo", HeaderValue::from_str(&text).unwrap());
        }
        prop_assert!(Vary::of(&plain, &vary, Policy::cdn().language).unwrap().matches(&spaced));
        prop_assert!(Vary::of(&spaced, &vary, Policy::cdn().language).unwrap().matches(&plain));
    }

    #[test]
    fn ranges_lie_within_the_representation_and_do_not_overlap(
        range in value_of("range"),
        length in 0..120_u64,
        max in 0..6_usize,
    ) {
        let mut request = HeaderMap::new();
        request.insert("range", range);
        let mut parts = match ranges(&Method::GET, &request, &Validators::default(), length, max) {
            Ranges::Whole | Ranges::Unsatisfiable => vec![],
            Ranges::One(range) => vec![range],
            Ranges::Several(parts) => {
                prop_assert!(parts.len() >= 2);
                parts
            }
        };
        prop_assert!(parts.len() <= max);
        prop_assert!(parts.iter().all(|part| part.first <= part.last && part.last < length));
        parts.sort_unstable();
        let apart = |pair: &[crate::ranges::ByteRange]| pair[0].last < pair[1].first;
        prop_assert!(parts.windows(2).all(apart));
    }

    #[test]
    fn an_entity_tag_reads_back_as_written(weak: bool, opaque in vec(any::<u8>(), 0..20)) {
        let opaque: Box<[u8]> =
            opaque.into_iter().filter(|b| *b == 0x21 || (*b >= 0x23 && *b != 0x7f)).collect();
        let tag = EntityTag { weak, opaque };
        let value = tag.to_value();
        prop_assert_eq!(EntityTag::parse(value.as_bytes()), Some(tag));
    }

    #[test]
    fn a_date_reads_back_as_written(seconds in 0..253_402_300_800_u64) {
        let time = std::time::UNIX_EPOCH + secs(seconds);
        prop_assert_eq!(date::parse(date::format(time).as_bytes()), Some(time));
        let near = std::time::UNIX_EPOCH + START;
        prop_assert_eq!(date::parse_at(date::format(time).as_bytes(), near), Some(time));
    }

    #[test]
    fn cache_status_reads_back_as_written(
        cache in "[ -~]{0,12}",
        (key, detail) in (option::of("[ -~]{0,12}"), option::of("[ -~]{0,12}")),
        flags in subsequence(vec!["hit", "stored", "collapsed"], 0..=3),
        fwd in option::of(select(vec![Fwd::Bypass, Fwd::UriMiss, Fwd::VaryMiss, Fwd::Stale])),
        (ttl, fwd_status) in (option::of(-999_i64..999), option::of(100..999_u16)),
    ) {
        let status = CacheStatus {
            hidden: false,
            cache: &cache,
            hit: flags.contains(&"hit"),
            fwd: fwd.filter(|_| !flags.contains(&"hit")),
            fwd_status: fwd_status.map(|status| StatusCode::from_u16(status).unwrap()),
            ttl,
            stored: flags.contains(&"stored"),
            collapsed: flags.contains(&"collapsed"),
            key: key.as_deref(),
            detail: detail.as_deref(),
        };
        let written = status.to_string();
        let mut parser = Parser { rest: written.as_bytes() };
        let text = |bare: &Bare| match bare {
            Bare::String(text) | Bare::Token(text) => Some(text.clone()),
            Bare::Integer(_) | Bare::Boolean(_) | Bare::Other => None,
        };
        let name = parser.bare().as_ref().and_then(text);
        let parameters = parser.parameters().unwrap();
        prop_assert!(parser.rest.is_empty());
        let find = |name| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let number = |name| match find(name) {
            Some(Bare::Integer(number)) => Some(*number),
            Some(_) | None => None,
        };
        prop_assert_eq!(name.as_deref(), Some(cache.as_str()));
        prop_assert_eq!(find("hit").is_some(), status.hit);
        prop_assert_eq!(find("stored").is_some(), status.stored);
        prop_assert_eq!(find("collapsed").is_some(), status.collapsed);
        let fwd_token = status.fwd.map(|fwd| fwd.token().to_owned());
        prop_assert_eq!(find("fwd").and_then(text), fwd_token);
        prop_assert_eq!(number("ttl"), ttl);
        prop_assert_eq!(number("fwd-status"), fwd_status.map(i64::from));
        prop_assert_eq!(find("key").and_then(text), key);
        prop_assert_eq!(find("detail").and_then(text), detail);
    }

    #[test]
    fn directives_of_a_response_read_back_as_written(
        (max_age, s_maxage) in (option::of(0..=1_u64 << 31), option::of(0..=1_u64 << 31)),
        (swr, sie) in (option::of(0..=1_u64 << 31), option::of(0..=1_u64 << 31)),
        set in subsequence(FLAGS.to_vec(), 0..=FLAGS.len()),
        (no_cache, private) in (reach(), reach()),
        (quoted, upper, lines) in (any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        let said = CacheControl {
            max_age: max_age.map(secs),
            s_maxage: s_maxage.map(secs),
            stale_while_revalidate: swr.map(secs),
            stale_if_error: sie.map(secs),
            no_store: set.contains(&"no-store"),
            public: set.contains(&"public"),
            must_revalidate: set.contains(&"must-revalidate"),
            proxy_revalidate: set.contains(&"proxy-revalidate"),
            must_understand: set.contains(&"must-understand"),
            no_transform: set.contains(&"no-transform"),
            immutable: set.contains(&"immutable"),
            no_cache: no_cache.clone(),
            private: private.clone(),
        };
        let mut written: Vec<String> = set.iter().map(|flag| (*flag).to_owned()).collect();
        let times = [
            ("max-age", max_age),
            ("s-maxage", s_maxage),
            ("stale-while-revalidate", swr),
            ("stale-if-error", sie),
        ];
        for (name, seconds) in times {
            let quote = if quoted { "\"" } else { "" };
            written.extend(seconds.map(|seconds| format!("{name}={quote}{seconds}{quote}")));
        }
        for (name, reach) in [("no-cache", no_cache), ("private", private)] {
            let names = reach.fields().iter().map(HeaderName::as_str).collect::<Vec<_>>();
            match reach {
                Reach::Nothing => {}
                Reach::Everything => written.push(name.to_owned()),
                Reach::Fields(_) => written.push(format!("{name}=\"{}\"", names.join(", "))),
            }
        }
        let mut response = HeaderMap::new();
        let per_line = if lines { 1 } else { written.len().max(1) };
        for line in written.chunks(per_line) {
            let line = line.join(" ,");
            let line = if upper { line.to_ascii_uppercase() } else { line };
            response.append("cache-control", HeaderValue::from_str(&line).unwrap());
        }
        prop_assert_eq!(CacheControl::of(&response), said);
    }

    #[test]
    fn groups_read_back_as_written(names in vec("[ -~]{0,40}", 0..8), lines: bool) {
        let quoted = |name: &String| {
            format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
        };
        let written: Vec<String> = names.iter().map(quoted).collect();
        let mut response = HeaderMap::new();
        for line in written.chunks(if lines { 1 } else { written.len().max(1) }) {
            let line = HeaderValue::from_str(&line.join(",\t")).unwrap();
            response.append(groups::CACHE_GROUPS, line);
        }
        prop_assert_eq!(groups::groups(&response, &groups::CACHE_GROUPS), names);
    }

    #[test]
    fn lists_of_languages_are_the_same_in_every_equivalent_spelling(
        ranges in vec(("[a-z]{2,3}(-[A-Z]{2})?", 0..=1000_u16), 1..8),
        shuffled in any::<prop::sample::Index>(),
        upper: bool,
    ) {
        let spelled = |ranges: &[(String, u16)], spaces: &str| {
            let one = |(tag, weight): &(String, u16)| {
                format!("{tag}{spaces};{spaces}q={}.{:03}", weight / 1000, weight % 1000)
            };
            let text = ranges.iter().map(one).collect::<Vec<_>>().join(&format!("{spaces},"));
            let mut request = HeaderMap::new();
            request.insert("accept-language", HeaderValue::from_str(&text).unwrap());
            request
        };
        // Sorted by weight, as upstream would; turned, as nobody may rely upon.
        let mut sorted = ranges.clone();
        sorted.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
        let mut turned = ranges.clone();
        turned.rotate_left(shuffled.index(ranges.len()));
        if upper {
            sorted.iter_mut().chain(&mut turned).for_each(|(tag, _)| tag.make_ascii_uppercase());
        }
        let vary = crate::fixtures::headers("Vary: Accept-Language");
        for (policy, other) in [(Policy::cdn(), &sorted), (Policy::rfc(), &turned)] {
            let stored = Vary::of(&spelled(&ranges, ""), &vary, policy.language).unwrap();
            prop_assert!(stored.matches(&spelled(other, " ")));
            let mut changed = other.clone();
            changed[0].1 = if changed[0].1 == 0 { 1 } else { changed[0].1 - 1 };
            prop_assert!(!stored.matches(&spelled(&changed, "")));
            prop_assert!(!stored.matches(&HeaderMap::new()));
        }
    }
}

/// Directives without an argument.
const FLAGS: [&str; 7] = [
    "no-store",
    "public",
    "must-revalidate",
    "proxy-revalidate",
    "must-understand",
    "no-transform",
    "immutable",
];

fn reach() -> impl Strategy<Value = Reach> {
    let fields = subsequence(vec!["set-cookie", "x-a", "b"], 1..=3)
        .prop_map(|names| Reach::Fields(names.into_iter().map(HeaderName::from_static).collect()));
    prop_oneof![Just(Reach::Nothing), Just(Reach::Everything), fields]
}
