//! Laws of every reader of bytes from outside: for arbitrary bytes, and for values that were right
//! until something bent them, nothing panics, what comes out is bounded by what went in, and it
//! says the same in every spelling. `PROPTEST_CASES` makes them try more.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::authority::is_authority;
use crate::cache_control::{Argument, CacheControl, RequestDirectives, directives};
use crate::cache_status::CacheStatus;
use crate::cdn_loop::{CDN_LOOP, is_loop};
use crate::coding::Accepted;
use crate::fixtures::START;
use crate::forwarded::{self, Hop};
use crate::partial::ContentRange;
use crate::policy::Policy;
use crate::proxy_status::ProxyStatus;
use crate::ranges::{Spec, asked};
use crate::structured::{self, Bare, Member, Parser};
use crate::targeted::{Governing, SURROGATE_CONTROL};
use crate::validate::{EntityTag, Validators, any_tag};
use crate::vary::{Codings, Vary};
use crate::{date, hop_by_hop, language, list, target, trailers};

/// Values that are right for some reader.
const SOUND: [&str; 35] = [
    "max-age=60, s-maxage=\"5\", no-cache=\"set-cookie, x-a\", private",
    "no-store, stale-while-revalidate=30;x=\"a;,b\", public",
    "max-age=60+30, no-store",
    "min-fresh=1, max-stale, only-if-cached",
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "W/\"a,b\", \"c\", \"\"",
    "\"xyzzy\"",
    "W/\"a\"",
    "*",
    "bytes=0-9, 20-29, -5, 40-",
    "bytes 0-99/1000",
    "bytes */1000",
    "Accept-Encoding, foo, Accept-Language",
    "gzip;q=0.5, br, identity;q=0, *;q=0.001",
    "de-CH, de;q=0.8, *;q=0.1, en;q=0",
    "close, x-hop, keep-alive",
    "a=1, b=?0, c=\"x\\\"y\", d=tok/en, e=(1 2.5);p, f=:YQ==:, g=@5, h=%\"x\"",
    "\"one\", two, (a b), 3;q=1",
    "for=192.0.2.1;proto=http;host=\"a:80\", for=\"[2001:db8::1]\"",
    "192.0.2.1, 2001:db8::1",
    "meridian; id=\"fra-1\", other;x=\"a,b;c\"",
    "/a/b/../c/./d%2e%2E/%7euser/%2F?x=%41&y",
    "/%2e%2e/..%2f/%25%34%31",
    "www.example.com:8080",
    "[2001:db8::1]:443",
    "8589934592",
    "18446744073709551616",
    "chunked",
    "100-continue",
    "trailers",
    "ExampleCache; hit; ttl=376",
    "",
];

/// What may happen to bytes on their way.
#[derive(Clone, Debug)]
enum Bend {
    Replace(Index, u8),
    Insert(Index, u8),
    CutOff(Index),
    Remove(Index, usize),
    Repeat(Index, usize),
}

impl Bend {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match self {
            Self::Replace(at, byte) => {
                let at = place(at);
                bytes.splice(at..(at + 1).min(bytes.len()), [*byte]);
            }
            Self::Insert(at, byte) => bytes.insert(place(at), *byte),
            Self::CutOff(at) => bytes.truncate(place(at)),
            Self::Remove(at, count) => {
                let at = place(at);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Repeat(at, count) => {
                let at = place(at);
                let again = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        6 => select(b" \t,;=\"\\*-/()%:.?@0123456789GWbq\n\r".to_vec()),
        2 => 0x20..0x7f_u8,
        1 => any::<u8>(),
    ]
}

fn bend() -> impl Strategy<Value = Bend> {
    let at = any::<Index>;
    prop_oneof![
        2 => (at(), byte()).prop_map(|(at, byte)| Bend::Replace(at, byte)),
        2 => (at(), byte()).prop_map(|(at, byte)| Bend::Insert(at, byte)),
        1 => at().prop_map(Bend::CutOff),
        1 => (at(), 1..8_usize).prop_map(|(at, count)| Bend::Remove(at, count)),
        1 => (at(), 1..20_usize).prop_map(|(at, count)| Bend::Repeat(at, count)),
    ]
}

/// Arbitrary bytes, and bytes that were right for some reader before they were bent: most of them
/// for the reader whose values hold `mark`.
fn bytes(mark: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let own: Vec<&str> = SOUND.into_iter().filter(|sound| sound.contains(mark)).collect();
    let sound = prop_oneof![3 => select(own), 1 => select(SOUND.to_vec())];
    let bent = (sound, vec(bend(), 0..4)).prop_map(|(sound, bends)| {
        let mut bytes = sound.as_bytes().to_vec();
        bends.iter().for_each(|bend| bend.apply(&mut bytes));
        bytes
    });
    prop_oneof![5 => bent, 1 => vec(byte(), 0..60)]
}

/// The same without what no field can hold.
fn value(mark: &'static str) -> impl Strategy<Value = HeaderValue> {
    bytes(mark).prop_map(|mut bytes| {
        bytes.retain(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f));
        HeaderValue::from_bytes(&bytes).unwrap()
    })
}

fn fields(name: &HeaderName, lines: impl IntoIterator<Item = HeaderValue>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in lines {
        fields.append(name, line);
    }
    fields
}

fn commas(line: &[u8]) -> usize {
    line.iter().filter(|byte| **byte == b',').count()
}

/// A member as RFC 9651 §4.1 writes it; one of the values that are not kept stands for all of them.
fn written(member: &Member) -> String {
    match member {
        Member::InnerList => "()".to_owned(),
        Member::Item(Bare::Integer(number)) => number.to_string(),
        Member::Item(Bare::Boolean(set)) => format!("?{}", u8::from(*set)),
        Member::Item(Bare::String(text)) => {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }
        Member::Item(Bare::Token(text)) => text.clone(),
        Member::Item(Bare::Other) => "1.5".to_owned(),
    }
}

/// Text with what no string of a structured field can hold.
fn told() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ -~\u{0}-\u{1f}\u{7f}é]{0,20}"]
}

/// Whether the written member is an item with parameters, to the last byte.
fn is_item(text: &str) -> bool {
    let mut parser = Parser { rest: text.as_bytes() };
    parser.bare().is_some() && parser.parameters().is_some() && parser.rest.is_empty()
}

proptest! {
    #[test]
    fn members_of_a_list_join_to_the_same_list(line in bytes("")) {
        let members: Vec<_> = list::members(&line).collect();
        prop_assert!((1..=commas(&line) + 1).contains(&members.len()));
        let texts: Vec<&[u8]> = members.iter().map(|member| member.text).collect();
        let joined = texts.join(&b","[..]);
        prop_assert_eq!(list::members(&joined).collect::<Vec<_>>(), members);
        let bytes = |text: &[u8]| text.iter().filter(|b| !b.is_ascii_whitespace()).count();
        prop_assert_eq!(bytes(&joined), bytes(&line), "nothing but white space goes");
    }

    #[test]
    fn directives_are_no_more_and_no_longer_than_what_was_written(line in value("=")) {
        let text = line.as_bytes();
        let read: Vec<_> = directives([&line].into_iter()).collect();
        let ends = text.iter().filter(|byte| b",;".contains(byte)).count();
        prop_assert!(read.len() <= ends + 1);
        let length = |argument: &Argument<'_>| match argument {
            Argument::None | Argument::Broken => 0,
            Argument::Token(text) => text.len(),
            Argument::Quoted(text) => text.len(),
        };
        let total: usize = read.iter().map(|d| d.name.len() + length(&d.argument)).sum();
        prop_assert!(total <= text.len());
        prop_assert!(read.iter().all(|d| d.name.iter().all(|byte| list::is_tchar(*byte))));
    }

    #[test]
    fn a_list_says_the_same_on_one_line_and_on_several(line in value(","), others in value(",")) {
        let split = || {
            let members = list::members(line.as_bytes());
            members.map(|member| HeaderValue::from_bytes(member.text).unwrap())
        };
        let read = |name: &HeaderName| (fields(name, [line.clone()]), fields(name, split()));
        let (one, several) = read(&header::CACHE_CONTROL);
        prop_assert_eq!(CacheControl::of(&one), CacheControl::of(&several));
        prop_assert_eq!(RequestDirectives::of(&one), RequestDirectives::of(&several));
        let (one, several) = read(&header::PRAGMA);
        prop_assert_eq!(RequestDirectives::of(&one), RequestDirectives::of(&several));
        let (one, several) = read(&SURROGATE_CONTROL);
        let policy = Policy { surrogate_control: true, ..Policy::cdn() };
        prop_assert_eq!(Governing::of(&one, &policy), Governing::of(&several, &policy));
        let (one, several) = read(&header::ACCEPT_ENCODING);
        prop_assert_eq!(Accepted::of(&one), Accepted::of(&several));
        let (one, several) = read(&CDN_LOOP);
        let looped = |fields| is_loop(fields, "meridian", "fra-1");
        prop_assert_eq!(looped(&one), looped(&several));
        for name in [header::ACCEPT_LANGUAGE, HeaderName::from_static("foo")] {
            let vary = fields(&header::VARY, [HeaderValue::from(name.clone())]);
            let (one, several) = read(&name);
            let stored = Vary::of(&one, &vary, Policy::rfc().language).unwrap();
            prop_assert!(stored.matches(&several), "{}: {:?}", name, line);
        }
        let (one, several) = read(&header::VARY);
        let request = fields(&HeaderName::from_static("foo"), [others.clone()]);
        let vary = |response| Vary::of(&request, response, Policy::cdn().language);
        prop_assert_eq!(vary(&one), vary(&several));
        if let Ok(vary) = vary(&one) {
            prop_assert!(vary.names().count() <= commas(line.as_bytes()) + 1);
            prop_assert!(vary.matches(&request));
        }
    }

    #[test]
    fn what_connection_names_goes_and_nothing_else(
        line in value("x-hop"),
        rest in proptest::sample::subsequence(
            vec!["x-hop", "x-a", "foo", "content-length", "host"], 0..=5),
    ) {
        let mut fields = fields(&header::CONNECTION, [line.clone()]);
        for name in &rest {
            fields.insert(*name, HeaderValue::from_static("1"));
        }
        hop_by_hop::remove_hop_by_hop(&mut fields);
        let text = String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase();
        for name in rest {
            // A quote within makes it another list; that list is told apart elsewhere.
            let named = text.split(',').any(|member| member.trim_matches([' ', '\t']) == name);
            prop_assert!(text.contains('"') || fields.contains_key(name) != named, "{name}: {text}");
        }
        prop_assert!(!fields.contains_key(header::CONNECTION));
    }

    #[test]
    fn a_dictionary_and_a_list_read_back_as_read(line in value("(")) {
        if let Some(read) = structured::dictionary([&line].into_iter()) {
            prop_assert!(read.len() <= commas(line.as_bytes()) + 1);
            let members = read.iter().map(|(key, member)| format!("{key}={}", written(member)));
            let text = members.collect::<Vec<_>>().join(", ");
            let again = HeaderValue::from_str(&text).unwrap();
            prop_assert_eq!(structured::dictionary([&again].into_iter()), Some(read));
        }
        if let Some(read) = structured::list([&line].into_iter()) {
            prop_assert!(read.len() <= commas(line.as_bytes()) + 1);
            let text = read.iter().map(written).collect::<Vec<_>>().join(", ");
            let again = HeaderValue::from_str(&text).unwrap();
            prop_assert_eq!(structured::list([&again].into_iter()), Some(read));
        }
    }

    #[test]
    fn a_date_that_is_read_is_written_to_the_same_instant(text in bytes(":")) {
        let now = UNIX_EPOCH + START;
        for time in [date::parse(&text), date::parse_at(&text, now)].into_iter().flatten() {
            let written = date::format(time);
            prop_assert_eq!(date::parse(written.as_bytes()), Some(time));
            if text.len() == written.len() && text.get(3) == Some(&b',') {
                prop_assert!(text.eq_ignore_ascii_case(written.as_bytes()), "{:?}", written);
            }
        }
    }

    #[test]
    fn a_tag_that_is_read_is_written_byte_for_byte(line in value("\"")) {
        let text = line.as_bytes();
        if let Some(tag) = EntityTag::parse(text) {
            let written = tag.to_value();
            prop_assert_eq!(written.as_bytes(), text);
        }
        let mut bytes = 0;
        let request = fields(&header::IF_NONE_MATCH, [line.clone()]);
        any_tag(&request, &header::IF_NONE_MATCH, |tag| {
            bytes += tag.opaque.len() + 2;
            false
        });
        prop_assert!(bytes <= text.len(), "no byte is read twice");
        Validators::of(&fields(&header::ETAG, [line.clone()])).apply_to(&mut HeaderMap::new());
    }

    #[test]
    fn a_range_set_never_names_a_byte_beyond_the_length(line in value("bytes="), length in 0..100_u64) {
        let ask = |line| asked(&fields(&header::RANGE, [line]), 8);
        let specs = ask(line.clone());
        prop_assert!(specs.len() <= 8.min(commas(line.as_bytes()) + 1));
        for range in specs.iter().filter_map(|spec| spec.of(length)) {
            prop_assert!(range.first <= range.last && range.last < length);
        }
        let text = specs.iter().map(Spec::to_string).collect::<Vec<_>>().join(",");
        let again = HeaderValue::from_str(&format!("bytes={text}")).unwrap();
        prop_assert_eq!(ask(again), specs);
    }

    #[test]
    fn a_content_range_that_is_read_is_written_and_within(
        line in value("bytes "),
        (first, last, complete) in (0..9_u64, 0..9_u64, 0..9_u64),
    ) {
        let read = |line| ContentRange::of(&fields(&header::CONTENT_RANGE, [line]));
        let near = HeaderValue::from_str(&format!("bytes {first}-{last}/{complete}")).unwrap();
        for range in [line, near].into_iter().filter_map(read) {
            prop_assert!(range.range.first <= range.range.last);
            prop_assert!(range.range.last < range.complete_length);
            prop_assert_eq!(read(range.to_value()), Some(range));
        }
    }

    #[test]
    fn the_spelling_of_a_target_is_its_own_and_never_longer(text in bytes("%")) {
        let text = String::from_utf8_lossy(&text);
        let spelled = |path: &str, query: Option<&str>| {
            let mut into = String::new();
            target::write_target(&mut into, path, query);
            into
        };
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (format!("/{path}"), Some(query)),
            None => (format!("/{text}"), None),
        };
        let once = spelled(&path, query);
        prop_assert!(once.len() <= path.len() + query.map_or(0, |query| query.len() + 1));
        let (path, query) = once.split_once('?').map_or((&*once, None), |(p, q)| (p, Some(q)));
        prop_assert_eq!(&spelled(path, query), &once);
        prop_assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{}", once);
    }

    #[test]
    fn an_authority_is_that_of_its_url(text in bytes(".")) {
        if is_authority(&text) {
            let text = String::from_utf8(text).unwrap();
            let url: Uri = format!("http://{text}/").parse().unwrap();
            prop_assert_eq!(url.authority().map(http::uri::Authority::as_str), Some(&*text));
            prop_assert_eq!(url.path(), "/");
        }
    }

    #[test]
    fn what_is_asked_upstream_is_what_was_accepted(
        line in value(";q="),
        (gzip, br, zstd, no_identity) in any::<(bool, bool, bool, bool)>(),
        tags in vec("[a-z]{2}", 0..5),
    ) {
        let read = Codings::of(&fields(&header::ACCEPT_ENCODING, [line.clone()]));
        for codings in [read, Codings { gzip, br, zstd, no_identity }] {
            let token = HeaderValue::from_static(codings.token());
            prop_assert_eq!(Codings::of(&fields(&header::ACCEPT_ENCODING, [token])), codings);
        }
        let request = fields(&header::ACCEPT_LANGUAGE, [line.clone()]);
        if let Some(at) = language::lookup(&request, tags.iter().map(String::as_str)) {
            let text = String::from_utf8_lossy(line.as_bytes()).to_ascii_lowercase();
            let asked = text.contains(&tags[at]) || text.contains('*');
            prop_assert!(asked, "{} is not in {text}", tags[at]);
        }
    }

    #[test]
    fn whatever_others_wrote_this_node_is_told_and_heard(
        lines in vec(value("\""), 0..8),
        copies in 1..300_usize,
        (address, host) in (any::<u128>(), any::<String>()),
    ) {
        let address = IpAddr::V6(address.into());
        let own = Hop { address, proto: "http", host: Some(&host) }.element();
        let members: Vec<_> = list::members(own.as_bytes()).collect();
        prop_assert!(members.len() == 1 && members[0].closed, "{own}");
        let own = Hop { address, proto: "http", host: None }.element();
        let others = lines.iter().flat_map(|line| std::iter::repeat_n(line.as_bytes(), copies));
        let value = forwarded::appended(others, &own).unwrap();
        prop_assert!(value.len() <= forwarded::MAX_LENGTH);
        let last = list::members(value.as_bytes()).last().unwrap();
        prop_assert!(last.closed && last.text == own.as_bytes(), "{:?}", value);
        let mut fields = fields(&CDN_LOOP, lines);
        fields.append(&CDN_LOOP, HeaderValue::from_static("Meridian; id=\"fra-1\""));
        prop_assert!(is_loop(&fields, "meridian", "fra-1"));
    }

    #[test]
    fn trailers_keep_their_own_and_lose_what_a_head_is_read_by(
        name in select(vec!["content-length", "Transfer-Encoding", "cdn-x", "If-Foo", "x-sum"]),
        value in value(""),
    ) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        let mut left = fields(&name, [value.clone(), value]);
        trailers::remove_forbidden(&mut left);
        prop_assert_eq!(left.len(), if name == "x-sum" { 2 } else { 0 });
        hop_by_hop::max_forwards(&left);
    }

    #[test]
    fn whatever_a_status_is_to_tell_it_is_a_structured_field(
        (cache, key, detail) in (any::<String>(), told(), told()),
        status in 100..1000_u16,
    ) {
        let fwd_status = StatusCode::from_u16(status).ok();
        let status = CacheStatus {
            cache: &cache,
            fwd_status,
            key: Some(&key),
            detail: Some(&detail),
            ..CacheStatus::default()
        };
        let error = ProxyStatus {
            proxy: &cache,
            error: Some("dns_error"),
            next_hop: Some(&key),
            received_status: fwd_status,
            details: Some(&detail),
            ..ProxyStatus::default()
        };
        for text in [status.to_string(), error.to_string()] {
            prop_assert!(is_item(&text), "{text}");
            prop_assert!(HeaderValue::from_str(&text).is_ok(), "{text}");
            let most = 3 * (cache.len() + key.len() + detail.len()) + 120;
            prop_assert!(text.len() <= most, "{text}");
        }
    }
}
