//! The bytes of every frame, however they arrive.

use proptest::collection::vec;
use proptest::prelude::{any, proptest};
use serde_json::json;

use super::{Bye, ByeReason, Frame, FrameDecoder, Hello, MAX_FRAME, Mode, SnapItem, WireError};
use crate::cursor::{Cursor, Position};
use crate::operation::Operation;
use crate::selector::{MAX_SELECTORS, MAX_TEXT, Selector};

fn cursor(text: &str) -> Cursor {
    text.parse().unwrap()
}

fn operation() -> Operation {
    let selectors = vec![Selector::Tag("a".into()), Selector::Url("http://a/b".into())];
    Operation { id: "k1".into(), selectors, soft: false, at_ms: 1_700_000_000_000 }
}

/// Every kind of frame with its bytes.
fn golden() -> Vec<(Frame, &'static str)> {
    let server = "control-1".parse().unwrap();
    let hello = Hello {
        server,
        mode: Mode::Cp,
        incarnation: 3,
        low_water: Position::of(17),
        heartbeat_ms: 250,
    };
    let item = SnapItem { selectors: vec![Selector::All], soft: true };
    let alternatives = vec!["control-2".parse().unwrap()];
    let bye = Bye { reason: ByeReason::Slow, retry_after_ms: 50, alternatives };
    let set = |value| Frame::Config { cursor: cursor("c4"), key: "site/shop".into(), value };
    vec![
        (
            Frame::Hello(hello),
            "event: hello\ndata: {\"version\":1,\"server\":\"control-1\",\"mode\":\"cp\",\
             \"incarnation\":3,\"low_water\":\"00000000000000000017\",\"heartbeat_ms\":250}\n\n",
        ),
        (
            Frame::SnapBegin { cursor: cursor("c1"), purge_all: true },
            "event: snap-begin\ndata: {\"cursor\":\"c1\",\"purge_all\":true}\n\n",
        ),
        (
            Frame::SnapItem(item),
            "event: snap-item\ndata: {\"selectors\":[{\"all\":true}],\"soft\":true}\n\n",
        ),
        (Frame::SnapEnd { cursor: cursor("c1") }, "event: snap-end\nid: c1\ndata: {}\n\n"),
        (
            Frame::Op { cursor: cursor("c2"), operation: operation() },
            "event: op\nid: c2\ndata: {\"id\":\"k1\",\"selectors\":[{\"tag\":\"a\"},\
             {\"url\":\"http://a/b\"}],\"soft\":false,\"at_ms\":1700000000000}\n\n",
        ),
        (
            set(Some(json!({"origins": ["o\n1"]}))),
            "event: config\nid: c4\ndata: {\"key\":\"site/shop\",\
             \"value\":{\"origins\":[\"o\\n1\"]}}\n\n",
        ),
        (set(None), "event: config\nid: c4\ndata: {\"key\":\"site/shop\",\"value\":null}\n\n"),
        (Frame::Bookmark { cursor: cursor("c5") }, "event: bookmark\nid: c5\ndata: {}\n\n"),
        (
            Frame::Bye(bye),
            "event: bye\ndata: {\"reason\":\"slow\",\"retry_after_ms\":50,\
             \"alternatives\":[\"control-2\"]}\n\n",
        ),
    ]
}

#[test]
fn every_frame_keeps_its_bytes() {
    for (frame, bytes) in golden() {
        assert_eq!(String::from_utf8(frame.to_bytes()).unwrap(), bytes);
        assert_eq!(FrameDecoder::default().push(bytes.as_bytes()).unwrap(), [frame]);
    }
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    let text = ": a comment\n\nevent: moon\nid: c9\ndata: {}\n\nevent: bookmark\nid: c5\n\
                retry: 7\ndata: {\"later\":1}\n\n";
    let frames = FrameDecoder::default().push(text.as_bytes()).unwrap();
    assert_eq!(frames, [Frame::Bookmark { cursor: cursor("c5") }]);
    let bye = "event: bye\ndata: {\"reason\":\"moonrise\",\"retry_after_ms\":1}\n\n";
    let frames = FrameDecoder::default().push(bye.as_bytes()).unwrap();
    assert!(matches!(&frames[..], [Frame::Bye(bye)] if bye.reason == ByeReason::Other));
}

#[test]
fn what_is_broken_is_told() {
    let rows = [
        ("event: hello\ndata: {\"version\":2}\n\n", "has version 2"),
        ("event: hello\ndata: {}\n\n", "missing field `version`"),
        ("event: bookmark\ndata: {}\n\n", "it has no id"),
        ("event: bookmark\nid: a b\ndata: {}\n\n", "its id is no cursor"),
        ("event: op\nid: c\ndata: {\"id\":\"k\",\"selectors\":[],\"at_ms\":1}\n\n", "required"),
        ("event: op\nid: c\ndata: {\n\n", "\"op\" of the stream is broken"),
    ];
    for (text, want) in rows {
        let error = FrameDecoder::default().push(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
    let error = FrameDecoder::default().push(b"event: \xff\n\n").unwrap_err();
    assert_eq!(error, WireError::NotText);
}

#[test]
fn a_frame_without_end_is_refused_before_it_fills_the_memory() {
    let mut decoder = FrameDecoder::default();
    let most = vec![b'x'; MAX_FRAME];
    assert_eq!(decoder.push(&most), Ok(Vec::new()));
    assert_eq!(decoder.push(b"x"), Err(WireError::TooLong));
}

#[test]
fn the_largest_operation_fits_into_a_frame() {
    let quotes = "\"".repeat(MAX_TEXT / MAX_SELECTORS);
    let selectors = vec![Selector::Tag(quotes); MAX_SELECTORS];
    crate::selector::check_batch(&selectors).unwrap();
    let operation = Operation { selectors, ..operation() };
    let bytes = Frame::Op { cursor: cursor("c"), operation }.to_bytes();
    assert!(bytes.len() <= MAX_FRAME, "{}", bytes.len());
    assert_eq!(FrameDecoder::default().push(&bytes).unwrap().len(), 1);
}

proptest! {
    #[test]
    fn however_a_stream_is_cut_the_same_frames_come(cuts in vec(1..40_usize, 1..60)) {
        let (frames, texts): (Vec<_>, Vec<_>) = golden().into_iter().unzip();
        let stream = texts.concat().into_bytes();
        let (mut decoder, mut read, mut rest) = (FrameDecoder::default(), Vec::new(), &stream[..]);
        for cut in cuts.into_iter().cycle() {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            read.extend(decoder.push(now).unwrap());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!(read, frames);
    }

    #[test]
    fn no_bytes_panic(bytes in any::<Vec<u8>>(), text in "(event|id|data): ?[ -~\n]{0,40}\n\n") {
        let mut decoder = FrameDecoder::default();
        drop(decoder.push(&bytes));
        drop(FrameDecoder::default().push(text.as_bytes()));
    }
}
