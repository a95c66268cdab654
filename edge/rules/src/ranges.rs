//! Which bytes a request asks for (RFC 9110 §14), and how several are sent at once (§14.6 there).
//!
//! To be asked after the preconditions, and only where the answer would otherwise be 200.
//!
//! # Invariants
//! - Every range returned lies within the representation; several do not overlap.
//! - What is malformed, of another unit, conditional on another representation, or too many is
//!   answered with the whole (RFC 9110 §14.2).

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
enum Spec {
    From(u64),
    Between(u64, u64),
    Suffix(u64),
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
    fn of(self, complete_length: u64) -> Option<ByteRange> {
        let end = complete_length.checked_sub(1)?;
        let range = match self {
            Self::From(first) => ByteRange { first, last: end },
            Self::Between(first, last) => ByteRange { first, last: last.min(end) },
            Self::Suffix(0) => return None,
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
            "{start}--{boundary}\r\n{content_type}Content-Range: bytes {first}-{last}/{complete}\r\n\r\n"
        )
    }
}
