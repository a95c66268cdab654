//! Laws of every reader of bytes from the network: for arbitrary bytes, and for messages that were
//! right until something bent them, nothing panics, what comes out is within its bounds, and it
//! is written as it was read. `PROPTEST_CASES` makes them try more.

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base_url::{BaseUrl, MAX_URL};
use crate::cursor::{Cursor, MAX_CURSOR, Position};
use crate::frame::{Frame, FrameDecoder, WireError};
use crate::operation::Operation;
use crate::problem::Problem;
use crate::purge::{PurgeOrder, PurgeReceipt};
use crate::secret::Secret;
use crate::selector::{MAX_SELECTORS, MAX_TEXT, Selector};
use crate::{MAX_CITY, Registered, Registration};

/// Events of a stream, each right.
const EVENTS: [&str; 9] = [
    "event: hello\ndata: {\"version\":1,\"server\":\"control-1\",\"mode\":\"cp\",\
     \"incarnation\":3,\"low_water\":\"00000000000000000017\",\"heartbeat_ms\":250}\n\n",
    "event: snap-begin\ndata: {\"cursor\":\"c1\",\"purge_all\":true}\n\n",
    "event: snap-item\ndata: {\"selectors\":[{\"all\":true}],\"soft\":true}\n\n",
    "event: snap-end\nid: c1\ndata: {}\n\n",
    "event: op\nid: c2\ndata: {\"id\":\"k1\",\"selectors\":[{\"tag\":\"a\"},\
     {\"url\":\"http://a/b\"}],\"soft\":false,\"at_ms\":1700000000000}\n\n",
    "event: config\nid: c4\ndata: {\"key\":\"site/a\",\"value\":{\"origins\":[\"o\\n1\"]}}\n\n",
    "event: bookmark\r\nid: c5\r\ndata: {}\n\n",
    "event: bye\ndata: {\"reason\":\"slow\",\"retry_after_ms\":50,\"alternatives\":[\"b\"]}\n\n",
    ": a comment\n\n",
];

/// Messages and values, each right for some reader.
const MESSAGES: [&str; 15] = [
    "{\"tag\":\"a\",\"soft\":true}",
    "{\"url\":\"http://a/b?c=d\"}",
    "{\"prefix\":\"https://a:80/img/\"}",
    "{\"host\":\"[::1]:80\"}",
    "{\"selectors\":[{\"all\":true},{\"tag\":\"b\"},{\"prefix\":\"/x\"}],\"soft\":false}",
    "{\"id\":\"k1\",\"selectors\":[{\"prefix\":\"a/b\"}],\"soft\":false,\"at_ms\":1700000000000}",
    "{\"id\":\"k\",\"position\":\"00000000000000000001\",\"replayed\":false,\
     \"edges\":{\"total\":1,\"acked\":0,\"pending\":[\"fra-1\"]}}",
    "{\"type\":\"about:blank\",\"title\":\"Bad Request\",\"status\":400,\"code\":\"bad_request\",\
     \"detail\":\"x\",\"violations\":[{\"key\":\"a\",\"rule\":\"b\"}]}",
    "{\"name\":\"fra-1\",\"region\":\"fra\",\"city\":\"Frankfurt\",\"location\":[50.1,8.7],\
     \"url\":\"http://127.0.0.1:1\",\"admin\":\"http://[::1]:2\"}",
    "{\"id\":\"fra-1\",\"secret\":\"0123456789abcdef\",\"beat_ms\":1000}",
    "\"http://cdn.example:8080/\"",
    "\"https://[2001:db8::1]\"",
    "\"AQcHBwcHBwcHBwcHBwcHBwcCAKwC\"",
    "\"AQcHBwcHBwcHBwcHBwcHBwcCAQEBYQU\"",
    "\"00000000000000000017\"",
];

/// What may happen to bytes on their way.
#[derive(Clone, Debug)]
enum Bend {
    Replace(Index, u8),
    Insert(Index, u8),
    CutOff(Index),
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
        6 => select(b" \n\r:\"\\,/[]{}@?#%.-_019aAeEtT".to_vec()),
        2 => 0x20..0x7f_u8,
        1 => any::<u8>(),
    ]
}

fn bends() -> impl Strategy<Value = Vec<Bend>> {
    let at = any::<Index>;
    let bend = prop_oneof![
        3 => (at(), byte()).prop_map(|(at, byte)| Bend::Replace(at, byte)),
        3 => (at(), byte()).prop_map(|(at, byte)| Bend::Insert(at, byte)),
        1 => at().prop_map(Bend::CutOff),
        2 => (at(), 1..40_usize).prop_map(|(at, count)| Bend::Repeat(at, count)),
    ];
    vec(bend, 0..4)
}

fn bent(text: &str, bends: &[Bend]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bends.iter().for_each(|bend| bend.apply(&mut bytes));
    bytes
}

/// Arbitrary bytes, and messages that were right before they were bent: most of them those that
/// hold one of `marks`.
fn message(marks: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let is_own = |text: &&str| marks.iter().any(|mark| text.contains(mark));
    let own: Vec<&str> = MESSAGES.into_iter().filter(is_own).collect();
    let text = prop_oneof![3 => select(own), 1 => select(MESSAGES.to_vec())];
    let right = (text, bends()).prop_map(|(text, bends)| bent(text, &bends));
    prop_oneof![7 => right, 1 => vec(byte(), 0..60)]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let right = (vec(select(EVENTS.to_vec()), 0..6), bends())
        .prop_map(|(events, bends)| bent(&events.concat(), &bends));
    prop_oneof![5 => right, 1 => vec(byte(), 0..60)]
}

/// Reads `bytes`; whatever is read is read again as it was from what it is written as.
fn read<T>(bytes: &[u8]) -> Option<T>
where
    T: DeserializeOwned + Serialize + PartialEq + Debug,
{
    let read: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&read).unwrap();
    let again: T = serde_json::from_slice(&written).unwrap();
    assert_eq!(again, read, "{}", String::from_utf8_lossy(&written));
    Some(read)
}

/// The frames of a stream that comes in `pieces`, and why it could not be read on.
fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<WireError>) {
    let (mut decoder, mut frames) = (FrameDecoder::default(), Vec::new());
    for piece in pieces {
        match decoder.push(piece) {
            Ok(more) => frames.extend(more),
            Err(error) => return (frames, Some(error)),
        }
    }
    (frames, None)
}

fn is_bounded(selectors: &[Selector]) -> bool {
    let text: usize = selectors.iter().map(Selector::text_len).sum();
    (1..=MAX_SELECTORS).contains(&selectors.len()) && text <= MAX_TEXT
}

proptest! {
    #[test]
    fn however_a_broken_stream_is_cut_the_same_comes_of_it(
        stream in stream(),
        cut in 1..50_usize,
    ) {
        let (whole, error) = frames(std::iter::once(&stream[..]));
        let (bytewise, fault) = frames(stream.chunks(1));
        prop_assert_eq!(&error, &fault);
        let (chunked, fault) = frames(stream.chunks(cut));
        prop_assert_eq!(&error, &fault);
        if error.is_none() {
            prop_assert_eq!(&chunked, &whole);
            prop_assert_eq!(&bytewise, &whole);
        }
        prop_assert!(bytewise.starts_with(&chunked), "what came before a fault is in order");
        let ends = stream.windows(2).filter(|two| two == b"\n\n").count();
        prop_assert!(bytewise.len() <= ends, "each frame has its end");
        // What was read is read again from what it is written as.
        let written: Vec<u8> = bytewise.iter().flat_map(Frame::to_bytes).collect();
        prop_assert_eq!(frames(std::iter::once(&written[..])), (bytewise, None));
    }

    #[test]
    fn what_is_read_of_an_order_is_written_as_it_was_and_within_bounds(
        bytes in message(&["tag", "prefix", "url\":\"http://a/b"]),
        kind in select(vec!["host", "url", "prefix", "tag"]),
        text in "[a-z/\u{a0} ]{1,8}",
    ) {
        if let Some(order) = read::<PurgeOrder>(&bytes) {
            prop_assert!(is_bounded(&order.selectors));
        }
        if let Some(operation) = read::<Operation>(&bytes) {
            prop_assert!(is_bounded(&operation.selectors));
        }
        let drawn = serde_json::json!({ kind: text }).to_string().into_bytes();
        for bytes in [&bytes, &drawn] {
            if let Some(selector) = read::<Selector>(bytes) {
                let text = serde_json::to_string(&selector).unwrap();
                prop_assert!(!text.chars().any(|c| c.is_control() || c.is_whitespace()), "{text}");
                prop_assert!(selector.text_len() <= bytes.len());
            }
        }
        read::<PurgeReceipt>(&bytes);
    }

    #[test]
    fn what_is_read_of_a_message_is_written_as_it_was_and_within_bounds(
        bytes in message(&["admin", "secret", "type"]),
        (city, (latitude, longitude)) in (any::<String>(), (-100.0..100.0, -200.0..200.0)),
        beat in prop_oneof![0..3_u64, 3_599_998..3_600_003_u64, any::<u64>()],
    ) {
        let mut edge: serde_json::Value = serde_json::from_str(MESSAGES[8]).unwrap();
        edge["city"] = city.into();
        edge["location"] = serde_json::json!([latitude, longitude]);
        let mut registered: serde_json::Value = serde_json::from_str(MESSAGES[9]).unwrap();
        registered["beat_ms"] = beat.into();
        for bytes in [edge.to_string().into_bytes(), registered.to_string().into_bytes(), bytes] {
        if let Some(edge) = read::<Registration>(&bytes) {
            prop_assert!(edge.city.len() <= MAX_CITY && edge.location.is_on_earth());
            prop_assert!(!edge.city.chars().any(char::is_control));
        }
        if let Some(registered) = read::<Registered>(&bytes) {
            prop_assert!(registered.beat_ms > 0 && registered.beat() <= crate::MAX_BEAT);
        }
        read::<Problem>(&bytes);
        }
    }

    #[test]
    fn a_value_that_is_read_is_the_text_that_it_was(
        bytes in message(&["\"http", "\"AQ", "\"000"]),
        (port, digits) in (0..100_000_u32, "[0-9]{18,22}"),
    ) {
        let url = format!("http://a:{port}").parse::<BaseUrl>();
        prop_assert_eq!(url.is_ok(), (1..=65_535).contains(&port));
        let seq = digits.parse::<Position>().unwrap().seq();
        prop_assert!(seq.is_none_or(|seq| Position::of(seq).as_str() == digits));
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_matches('"');
        if let Ok(url) = text.parse::<BaseUrl>() {
            prop_assert_eq!(url.as_str(), text.strip_suffix('/').unwrap_or(text));
            prop_assert!(url.as_str().len() <= MAX_URL && url.as_str().is_ascii());
            let after = url.authority().rsplit_once(']').map_or(url.authority(), |(_, rest)| rest);
            prop_assert_eq!(url.port().is_some(), after.contains(':'));
        }
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(cursor.as_str(), text);
            prop_assert!(text.len() <= MAX_CURSOR);
            if let Some(point) = cursor.point() {
                prop_assert_eq!(point.cursor().point(), Some(point));
            }
        }
        if let Ok(position) = text.parse::<Position>() {
            prop_assert_eq!(position.as_str(), text);
            if let Some(seq) = position.seq() {
                prop_assert_eq!(Position::of(seq), position);
            }
        }
    }

    #[test]
    fn a_secret_fits_into_a_field_and_is_told_to_none(
        text in prop_oneof!["[!-~]{14,20}", "[!-~]{250,260}", "[ -~]{14,20}", ".*"],
    ) {
        let fits = (16..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        let secret = Secret::new(text.clone());
        prop_assert_eq!(secret.is_ok(), fits);
        match secret {
            Ok(secret) => {
                prop_assert_eq!(secret.expose(), text.as_str());
                let shown = format!("{secret:?}");
                prop_assert!(!shown.contains(&text));
            }
            Err(rule) => prop_assert!(text.len() < 8 || !rule.contains(&text)),
        }
    }
}
