//! Which bytes a request asks for (RFC 9110 §14), and how several are sent at once (§14.6 there).
//!
//! To be asked after the preconditions, and only where the answer would otherwise be 200.
//!
//! # Invariants
//! - Every range returned lies within the representation; several do not overlap.
//! - What is malformed, of another unit, conditional on another representation, or too many is
//!   answered with the whole (RFC 9110 §14.2).

use std::fmt;

use http::Method;
use http::header::{HeaderMap, HeaderValue, IF_RANGE, RANGE};

use crate::date;
use crate::list::{self, decimal};
use crate::validate::{EntityTag, Validators};

/// About what the head of one part costs: a gap that is smaller is sent along (RFC 9110 §15.3.7.2).
const PART_OVERHEAD: u64 = 80;

/// Overlapping pairs beyond this are no honest request (RFC 9110 §14.2).
const MAX_OVERLAPS: usize = 2;

/// A stretch of bytes, both ends included, so never empty; `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRange {
    /// Position of the first byte, counted from 0.
    pub first: u64,
    /// Position of the last byte.
    pub last: u64,
}

impl ByteRange {
    /// How many bytes.
    pub fn length(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// `Content-Range` of this range, of `complete_length` bytes in all (RFC 9110 §14.4).
    pub fn content_range(self, complete_length: u64) -> HeaderValue {
        content_range(&format!("bytes {}-{}/{complete_length}", self.first, self.last))
    }
}

/// `Content-Range` of a 416 (RFC 9110 §15.5.17).
pub fn unsatisfied_range(complete_length: u64) -> HeaderValue {
    content_range(&format!("bytes */{complete_length}"))
}

fn content_range(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("bytes */*"))
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// Everything, with 200.
    Whole,
    /// One part, with 206 and `Content-Range`.
    One(ByteRange),
    /// Two or more parts, with 206 and [`Multipart`].
    Several(Vec<ByteRange>),
    /// 416.
    Unsatisfiable,
}

/// What `request` asks of a representation of `complete_length` bytes. More than `max_ranges`
/// ranges are answered with the whole.
pub fn ranges(
    method: &Method,
    request: &HeaderMap,
    validators: &Validators,
    complete_length: u64,
    max_ranges: usize,
) -> Ranges {
    if *method != Method::GET || !request.contains_key(RANGE) || !if_range(request, validators) {
        return Ranges::Whole;
    }
    let specs = list::only(request, &RANGE).and_then(|line| specs(line.as_bytes(), max_ranges));
    let Some(specs) = specs else { return Ranges::Whole };
    let some_suffix = |spec: &Spec| matches!(spec, Spec::Suffix(1..));
    if complete_length == 0 && specs.iter().any(some_suffix) {
        return Ranges::Whole; // satisfiable, by nothing: no Content-Range can say so
    }
    let satisfied = specs.iter().filter_map(|spec| spec.of(complete_length)).collect::<Vec<_>>();
    match satisfied[..] {
        [] => Ranges::Unsatisfiable,
        [one] => Ranges::One(one),
        _ => several(satisfied),
    }
}

/// Whether `If-Range` is absent or names this very representation (RFC 9110 §13.1.5).
fn if_range(request: &HeaderMap, validators: &Validators) -> bool {
    if !request.contains_key(IF_RANGE) {
        return true;
    }
    let Some(line) = list::only(request, &IF_RANGE).map(HeaderValue::as_bytes) else {
        return false;
    };
    match EntityTag::parse(line) {
        Some(tag) => validators.etag.as_ref().is_some_and(|etag| etag.strong_eq(&tag)),
        None => date::parse(line).is_some_and(|time| validators.is_strong_date(time)),
    }
}

/// One member of a byte range set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spec {
    /// From a position to the end.
    From(u64),
    /// Between two positions, both included, the first not behind the last.
    Between(u64, u64),
    /// So many at the end.
    Suffix(u64),
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(first) => write!(f, "{first}-"),
            Self::Between(first, last) => write!(f, "{first}-{last}"),
            Self::Suffix(length) => write!(f, "-{length}"),
        }
    }
}

/// The ranges that a GET asks for, before anything is known of the representation; empty if it
/// asks for the whole, or for what is answered with the whole in any case.
pub fn asked(request: &HeaderMap, max_ranges: usize) -> Vec<Spec> {
    let line = list::only(request, &RANGE);
    line.and_then(|line| specs(line.as_bytes(), max_ranges)).unwrap_or_default()
}

/// The range set; `None` if the unit is not bytes, or it is malformed, empty or too long.
fn specs(field: &[u8], max_ranges: usize) -> Option<Vec<Spec>> {
    let (unit, set) = field.split_at_checked(b"bytes=".len())?;
    unit.eq_ignore_ascii_case(b"bytes=").then_some(())?;
    let mut specs = Vec::new();
    for text in set.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if text.is_empty() {
            continue; // RFC 9110 §5.6.1.2
        }
        (specs.len() < max_ranges).then_some(())?;
        specs.push(spec(text)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn spec(text: &[u8]) -> Option<Spec> {
    let dash = text.iter().position(|byte| *byte == b'-')?;
    let (first, rest) = text.split_at_checked(dash)?;
    let last = rest.get(1..)?;
    match (first, last) {
        (b"", last) => decimal(last).map(Spec::Suffix),
        (first, b"") => decimal(first).map(Spec::From),
        (first, last) => {
            let (first, last) = (decimal(first)?, decimal(last)?);
            (first <= last).then_some(Spec::Between(first, last))
        }
    }
}

impl Spec {
    /// The bytes of it that there are; `None` if it is not satisfiable (RFC 9110 §14.1.2).
    pub fn of(self, complete_length: u64) -> Option<ByteRange> {
        let end = complete_length.checked_sub(1)?;
        let range = match self {
            Self::From(first) => ByteRange { first, last: end },
            Self::Between(first, last) => ByteRange { first, last: last.min(end) },
            Self::Suffix(length) => {
                ByteRange { first: complete_length.saturating_sub(length), last: end }
            }
        };
        (range.first <= end).then_some(range)
    }
}

/// Ranges in the client's order, unless some touch: then merged, in ascending order.
fn several(asked: Vec<ByteRange>) -> Ranges {
    let mut ascending = asked.clone();
    ascending.sort_unstable();
    let mut overlaps = 0;
    let mut merged: Vec<ByteRange> = Vec::with_capacity(ascending.len());
    for range in ascending {
        match merged.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(PART_OVERHEAD) => {
                overlaps += usize::from(range.first <= before.last);
                before.last = before.last.max(range.last);
            }
            Some(_) | None => merged.push(range),
        }
    }
    match merged[..] {
        _ if overlaps > MAX_OVERLAPS => Ranges::Whole,
        [one] => Ranges::One(one),
        _ if merged.len() == asked.len() => Ranges::Several(asked),
        _ => Ranges::Several(merged),
    }
}

/// The body of a 206 with several parts (RFC 9110 §14.6), to be streamed piece by piece.
#[derive(Clone, Debug)]
pub struct Multipart {
    boundary: String,
    content_type: Option<String>,
    ranges: Vec<ByteRange>,
    complete_length: u64,
}

/// One piece of a multipart body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text before a part.
    Head(String),
    /// These bytes of the representation.
    Body(ByteRange),
    /// Text at the end.
    Tail(String),
}

impl Multipart {
    /// The parts `ranges` of a representation of `content_type` with `complete_length` bytes.
    /// `boundary` must not occur in it: give random letters and digits, at most 70; what else it
    /// holds is left out.
    pub fn new(
        boundary: &str,
        content_type: Option<&HeaderValue>,
        ranges: Vec<ByteRange>,
        complete_length: u64,
    ) -> Self {
        Self {
            boundary: boundary.chars().filter(char::is_ascii_alphanumeric).take(70).collect(),
            content_type: content_type.and_then(|value| value.to_str().ok()).map(str::to_owned),
            ranges,
            complete_length,
        }
    }

    /// `Content-Type` of the response.
    pub fn content_type(&self) -> HeaderValue {
        HeaderValue::from_str(&format!("multipart/byteranges; boundary={}", self.boundary))
            .unwrap_or_else(|_| HeaderValue::from_static("multipart/byteranges"))
    }

    /// `Content-Length` of the response.
    pub fn content_length(&self) -> u64 {
        let lengths = self.pieces().map(|piece| match piece {
            Piece::Head(text) | Piece::Tail(text) => u64::try_from(text.len()).unwrap_or(u64::MAX),
            Piece::Body(range) => range.length(),
        });
        lengths.fold(0, u64::saturating_add)
    }

    /// The body.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> {
        let parts =
            self.ranges.iter().enumerate().flat_map(|(at, range)| {
                [Piece::Head(self.head(at == 0, *range)), Piece::Body(*range)]
            });
        parts.chain([Piece::Tail(format!("\r\n--{}--\r\n", self.boundary))])
    }

    fn head(&self, is_first: bool, range: ByteRange) -> String {
        let (start, boundary) = (if is_first { "" } else { "\r\n" }, &self.boundary);
        let content_type = self.content_type.as_deref().map(|t| format!("Content-Type: {t}\r\n"));
        let (content_type, ByteRange { first, last }) = (content_type.unwrap_or_default(), range);
        let complete = self.complete_length;
        format!(
            "{start}--{boundary}\r\n{content_type}\
             Content-Range: bytes {first}-{last}/{complete}\r\n\r\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::headers;

    fn one(first: u64, last: u64) -> Ranges {
        Ranges::One(ByteRange { first, last })
    }

    fn some(ranges: &[(u64, u64)]) -> Ranges {
        Ranges::Several(ranges.iter().map(|&(first, last)| ByteRange { first, last }).collect())
    }

    fn answered(request: &str, length: u64) -> Ranges {
        ranges(&Method::GET, &headers(request), &Validators::default(), length, 8)
    }

    #[test]
    fn ranges_are_cut_to_what_there_is() {
        let rows = [
            ("bytes=0-0", one(0, 0)),
            ("bytes=0-999", one(0, 999)),
            ("bytes=999-", one(999, 999)),
            ("bytes=5-", one(5, 999)),
            ("bytes=0-5000", one(0, 999)),
            ("bytes=-5", one(995, 999)),
            ("bytes=-5000", one(0, 999)),
            ("BYTES=1-2", one(1, 2)),
            ("bytes=1-2 ,", one(1, 2)),
            ("bytes=1000-", Ranges::Unsatisfiable),
            ("bytes=1000-2000", Ranges::Unsatisfiable),
            ("bytes=-0", Ranges::Unsatisfiable),
            ("bytes=99999999999999999999999-", Ranges::Unsatisfiable),
            ("bytes=0-99999999999999999999999", one(0, 999)),
            ("bytes=2000-, 1-2", one(1, 2)),
            ("bytes=0-1, 500-501", some(&[(0, 1), (500, 501)])),
            ("bytes=500-501, 0-1", some(&[(500, 501), (0, 1)])), // the client's order
            ("bytes=-1, 0-0", some(&[(999, 999), (0, 0)])),
            ("bytes=0-1, 2000-, 500-501", some(&[(0, 1), (500, 501)])),
        ];
        for (range, want) in rows {
            assert_eq!(answered(&format!("Range: {range}"), 1000), want, "{range:?}");
        }
    }

    #[test]
    fn what_is_no_byte_range_is_answered_with_the_whole() {
        for range in [
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=5",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=1-2, x",
            "bytes=1-2-3",
            "bytes=--5",
            "bytes=+1-2",
            "bytes = 1-2",
            "bytes=1 - 2",
            "items=1-2",
            "",
            "bytes=1-2\nRange: bytes=3-4",
        ] {
            assert_eq!(answered(&format!("Range: {range}"), 1000), Ranges::Whole, "{range:?}");
        }
        let range = headers("Range: bytes=1-2");
        for method in [Method::HEAD, Method::POST] {
            let answer = ranges(&method, &range, &Validators::default(), 1000, 8);
            assert_eq!(answer, Ranges::Whole, "{method}"); // RFC 9110 §14.2
        }
        assert_eq!(answered("", 1000), Ranges::Whole);
    }

    #[test]
    fn of_nothing_only_a_suffix_is_satisfiable() {
        assert_eq!(answered("Range: bytes=0-", 0), Ranges::Unsatisfiable);
        assert_eq!(answered("Range: bytes=-0", 0), Ranges::Unsatisfiable);
        assert_eq!(answered("Range: bytes=-5", 0), Ranges::Whole);
    }

    #[test]
    fn ranges_that_touch_are_merged_and_too_many_are_the_whole() {
        let rows = [
            ("bytes=0-10, 5-20", one(0, 20)),
            ("bytes=0-10, 11-20", one(0, 20)),
            ("bytes=0-10, 90-100", one(0, 100)), // a gap cheaper than a part's head
            ("bytes=0-10, 91-100", some(&[(0, 10), (91, 100)])),
            ("bytes=500-600, 0-10, 5-20", some(&[(0, 20), (500, 600)])), // merged: ascending
            ("bytes=0-9, 1-9, 2-9", one(0, 9)),
            ("bytes=0-9, 1-9, 2-9, 3-9", Ranges::Whole), // three overlap
            ("bytes=0-, 0-, 0-, 0-, 0-", Ranges::Whole),
        ];
        for (range, want) in rows {
            assert_eq!(answered(&format!("Range: {range}"), 1000), want, "{range:?}");
        }
        let spread = |count: u64| {
            let specs = (0..count).map(|at| format!("{0}-{0}", at * 100)).collect::<Vec<_>>();
            answered(&format!("Range: bytes={}", specs.join(",")), 10_000)
        };
        assert!(matches!(spread(8), Ranges::Several(ranges) if ranges.len() == 8));
        assert_eq!(spread(9), Ranges::Whole);
    }

    #[test]
    fn if_range_holds_only_for_a_strong_validator_that_is_the_same() {
        let ours = "ETag: \"a\"\nLast-Modified: @-100\nDate: @0";
        let weak = "ETag: W/\"a\"\nLast-Modified: @0\nDate: @0";
        let rows = [
            (ours, "If-Range: \"a\"", true),
            (ours, "If-Range: \"b\"", false),
            (ours, "If-Range: W/\"a\"", false),
            (weak, "If-Range: W/\"a\"", false), // RFC 9110 §13.1.5
            (weak, "If-Range: \"a\"", false),
            (ours, "If-Range: @-100", true),
            (ours, "If-Range: @-50", false), // not since: exactly then
            (ours, "If-Range: @-150", false),
            (weak, "If-Range: @0", false), // changed in the very second: RFC 9110 §8.8.2.2
            (ours, "If-Range: a", false),
            (ours, "If-Range: \"a\"\nIf-Range: \"a\"", false),
            ("", "If-Range: \"a\"", false),
        ];
        for (stored, condition, holds) in rows {
            let request = headers(&format!("Range: bytes=1-2\n{condition}"));
            let validators = Validators::of(&headers(stored));
            let want = if holds { one(1, 2) } else { Ranges::Whole };
            let got = ranges(&Method::GET, &request, &validators, 1000, 8);
            assert_eq!(got, want, "{stored:?} {condition:?}");
        }
    }

    #[test]
    fn a_multipart_body_has_the_length_it_says_and_all_parts_in_order() {
        let parts = vec![ByteRange { first: 2, last: 3 }, ByteRange { first: 7, last: 9 }];
        let html = HeaderValue::from_static("text/html");
        let multipart = Multipart::new("x-Y1", Some(&html), parts.clone(), 10);
        let content = b"0123456789";
        let body = multipart.pieces().fold(Vec::new(), |mut body, piece| {
            match piece {
                Piece::Head(text) | Piece::Tail(text) => body.extend_from_slice(text.as_bytes()),
                Piece::Body(ByteRange { first, last }) => {
                    let [first, last] = [first, last].map(|at| usize::try_from(at).unwrap());
                    body.extend_from_slice(&content[first..=last]);
                }
            }
            body
        });
        let want = "--xY1\r\nContent-Type: text/html\r\nContent-Range: bytes 2-3/10\r\n\r\n23\
            \r\n--xY1\r\nContent-Type: text/html\r\nContent-Range: bytes 7-9/10\r\n\r\n789\
            \r\n--xY1--\r\n";
        assert_eq!(str::from_utf8(&body).unwrap(), want);
        assert_eq!(multipart.content_length(), u64::try_from(want.len()).unwrap());
        assert_eq!(multipart.content_type(), "multipart/byteranges; boundary=xY1");
        let untyped = Multipart::new("b", None, parts, 10);
        let head = Piece::Head("--b\r\nContent-Range: bytes 2-3/10\r\n\r\n".into());
        assert_eq!(untyped.pieces().next(), Some(head));
    }

    #[test]
    fn content_range_names_the_part_or_that_there_is_none() {
        assert_eq!(ByteRange { first: 0, last: 4 }.content_range(10), "bytes 0-4/10");
        assert_eq!(ByteRange { first: 0, last: 4 }.length(), 5);
        assert_eq!(unsatisfied_range(10), "bytes */10");
    }
}
