//! Partial responses (206): what their `Content-Range` says, which may be combined
//! (§3.4, RFC 9110 §15.3.7.3), and which bytes of a representation several of them hold.
//!
//! Does not decide whether a response may be stored or reused: a part is stored under the head of
//! the whole that it is part of ([`whole_fields`]), and that head is judged like any other.
//!
//! # Invariants
//! - A `Content-Range` that contradicts itself is none.
//! - Parts are combined only where one strong validator says that they are of one representation.
//! - [`Parts`] are in ascending order and neither overlap nor touch; they are never more than the
//!   limit, and their bytes never more than theirs.

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::date;
use crate::list::{self, decimal};
use crate::ranges::ByteRange;
use crate::validate::Validators;

/// Longer representations than this there are not: positions can be added without a thought.
const MAX_LENGTH: u64 = 1 << 62;

/// `Content-Range` of a single part (RFC 9110 §14.4), with the complete length known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// Which bytes.
    pub range: ByteRange,
    /// Of how many in all; more than `range.last`.
    pub complete_length: u64,
}

impl ContentRange {
    /// Reads the field. `None` if it is absent, repeated, of another unit, without a complete
    /// length, or contradicts itself (RFC 9110 §14.4: such a part must not be combined), and for
    /// several parts at once, whose ranges stand in the content.
    pub fn of(response: &HeaderMap) -> Option<Self> {
        let multipart = list::only(response, &CONTENT_TYPE).is_some_and(|value| {
            let start = value.as_bytes().get(..b"multipart/byteranges".len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/byteranges"))
        });
        if multipart {
            return None;
        }
        let (unit, rest) = list::only(response, &CONTENT_RANGE)?.as_bytes().split_at_checked(6)?;
        unit.eq_ignore_ascii_case(b"bytes ").then_some(())?;
        let slash = rest.iter().position(|byte| *byte == b'/')?;
        let (range, complete) = rest.split_at_checked(slash)?;
        let dash = range.iter().position(|byte| *byte == b'-')?;
        let (first, last) = range.split_at_checked(dash)?;
        let (first, last) = (decimal(first)?, decimal(last.get(1..)?)?);
        let complete_length = decimal(complete.get(1..)?)?;
        let sound = first <= last && last < complete_length && complete_length <= MAX_LENGTH;
        sound.then_some(Self { range: ByteRange { first, last }, complete_length })
    }

    /// As it stands in the field.
    pub fn to_value(self) -> HeaderValue {
        self.range.content_range(self.complete_length)
    }

    /// Whether it is all there is.
    pub fn is_whole(self) -> bool {
        self.range.length() == self.complete_length
    }
}

/// The fields of the 200 that a 206 with these is a part of.
pub fn whole_fields(part: &HeaderMap, complete_length: u64) -> HeaderMap {
    let mut fields = part.clone();
    fields.remove(CONTENT_RANGE);
    fields.insert(CONTENT_LENGTH, HeaderValue::from(complete_length));
    fields
}

/// Whether parts with these validators are certainly of one representation: both have the same
/// strong entity-tag, or, where neither has a tag, the same strong modification date
/// (§3.4, RFC 9110 §15.3.7.3).
pub fn may_combine(one: &Validators, other: &Validators) -> bool {
    match (&one.etag, &other.etag) {
        (Some(ours), Some(theirs)) => ours.strong_eq(theirs),
        (None, None) => match (one.last_modified, other.last_modified) {
            (Some(ours), Some(theirs)) => {
                ours == theirs && one.is_strong_date(ours) && other.is_strong_date(theirs)
            }
            (None, _) | (_, None) => false,
        },
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// `If-Range` for a further part of the representation with these validators; `None` if they do
/// not tell it from others byte by byte (RFC 9110 §13.1.5).
pub fn if_range(validators: &Validators) -> Option<HeaderValue> {
    match &validators.etag {
        Some(tag) => (!tag.weak).then(|| tag.to_value()),
        None => {
            let modified = validators.last_modified?;
            validators.is_strong_date(modified).then(|| date::format(modified))
        }
    }
}

/// Bytes that can be cut and joined.
pub trait Content: Clone {
    /// These of them, counted from the first.
    #[must_use]
    fn cut(&self, range: ByteRange) -> Self;

    /// These, and `next` behind them.
    #[must_use]
    fn then(self, next: Self) -> Self;
}

/// One part.
#[derive(Clone, Debug)]
struct Part<B> {
    range: ByteRange,
    content: B,
}

/// How much is kept of one representation.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Parts.
    pub parts: usize,
    /// Bytes of all parts.
    pub bytes: u64,
}

/// What is known of one representation.
#[derive(Clone, Debug)]
pub struct Parts<B> {
    complete_length: u64,
    held: Vec<Part<B>>,
}

impl<B: Content> Parts<B> {
    /// A first part: `content` is the bytes `of.range`.
    pub fn new(of: ContentRange, content: B) -> Self {
        let part = Part { range: of.range, content };
        Self { complete_length: of.complete_length, held: vec![part] }
    }

    /// How long the representation is.
    pub fn complete_length(&self) -> u64 {
        self.complete_length
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.held.len()
    }

    /// Which bytes they are.
    pub fn ranges(&self) -> impl Iterator<Item = ByteRange> {
        self.held.iter().map(|part| part.range)
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.ranges().map(ByteRange::length).sum()
    }

    /// With a further part of the same representation, which [`may_combine`] must have said.
    /// Where there are too many then, the smallest go: they cost the least to fetch again. The new
    /// one stays.
    #[must_use]
    pub fn with(&self, of: ContentRange, content: B, limits: Limits) -> Self {
        let mut new = Part { range: of.range, content: content.clone() };
        let mut apart = Vec::with_capacity(self.held.len() + 1);
        for held in &self.held {
            let is_before = held.range.last.saturating_add(1) < new.range.first;
            let is_behind = held.range.first > new.range.last.saturating_add(1);
            if is_before || is_behind {
                apart.push(held.clone());
            } else {
                new = new.joined(held);
            }
        }
        if new.range.length() > limits.bytes {
            new = Part { range: of.range, content };
        }
        let mut bytes = apart.iter().map(|part| part.range.length()).sum::<u64>();
        while apart.len() + 1 > limits.parts || bytes + new.range.length() > limits.bytes {
            let smallest = apart.iter().enumerate().min_by_key(|(_, part)| part.range.length());
            let Some((at, _)) = smallest else { break };
            bytes -= apart.remove(at).range.length();
        }
        apart.push(new);
        apart.sort_unstable_by_key(|part| part.range);
        Self { complete_length: self.complete_length, held: apart }
    }

    /// The part that holds all of `range`, and which of its bytes they are.
    pub fn cover(&self, range: ByteRange) -> Option<(&B, ByteRange)> {
        let covers =
            |part: &&Part<B>| part.range.first <= range.first && range.last <= part.range.last;
        self.held.iter().find(covers).map(|part| {
            let within = |at: u64| at - part.range.first;
            let range = ByteRange { first: within(range.first), last: within(range.last) };
            (&part.content, range)
        })
    }

    /// All of the representation, if it is there.
    pub fn whole(&self) -> Option<&B> {
        let last = self.complete_length.checked_sub(1)?;
        self.cover(ByteRange { first: 0, last }).map(|(content, _)| content)
    }
}

impl<B: Content> Part<B> {
    /// With what `held`, which touches or overlaps it, has beyond it on either side.
    fn joined(mut self, held: &Self) -> Self {
        let within = |first: u64, last: u64| {
            let from = held.range.first;
            held.content.cut(ByteRange { first: first - from, last: last - from })
        };
        if held.range.first < self.range.first {
            self.content = within(held.range.first, self.range.first - 1).then(self.content);
            self.range.first = held.range.first;
        }
        if held.range.last > self.range.last {
            self.content = self.content.then(within(self.range.last + 1, held.range.last));
            self.range.last = held.range.last;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::headers;

    fn content_range(first: u64, last: u64, complete_length: u64) -> ContentRange {
        ContentRange { range: ByteRange { first, last }, complete_length }
    }

    #[test]
    fn a_content_range_counts_only_if_it_is_consistent() {
        let rows = [
            ("Content-Range: bytes 0-4/10", Some((0, 4, 10))),
            ("Content-Range: BYTES 9-9/10", Some((9, 9, 10))),
            ("Content-Range: bytes 0-9/10", Some((0, 9, 10))),
            ("Content-Range: bytes 0-10/10", None), // beyond the end
            ("Content-Range: bytes 5-4/10", None),  // backwards
            ("Content-Range: bytes 0-4/*", None),   // of how many?
            ("Content-Range: bytes */10", None),    // none at all
            ("Content-Range: bytes 0-4", None),
            ("Content-Range: bytes=0-4/10", None),
            ("Content-Range: bytes +0-4/10", None),
            ("Content-Range: bytes 0 - 4/10", None),
            ("Content-Range: lines 0-4/10", None),
            ("Content-Range: bytes 0-4/10, bytes 5-6/10", None),
            ("Content-Range: bytes 0-4/10\nContent-Range: bytes 0-4/10", None),
            ("Content-Range: bytes 0-4/99999999999999999999", None), // not even a length
            ("Content-Range: bytes 0-4/10\nContent-Type: multipart/byteranges; boundary=x", None),
            ("", None),
        ];
        for (fields, want) in rows {
            let want = want.map(|(first, last, all)| content_range(first, last, all));
            assert_eq!(ContentRange::of(&headers(fields)), want, "{fields:?}");
        }
    }

    #[test]
    fn only_a_strong_validator_that_both_have_allows_combining() {
        let rows = [
            ("ETag: \"a\"", "ETag: \"a\"", true),
            ("ETag: \"a\"", "ETag: \"b\"", false),
            ("ETag: W/\"a\"", "ETag: W/\"a\"", false),
            ("ETag: \"a\"", "ETag: W/\"a\"", false),
            ("ETag: \"a\"", "", false),
            ("", "", false),
            ("Last-Modified: @-9\nDate: @0", "Last-Modified: @-9\nDate: @5", true),
            ("Last-Modified: @-9\nDate: @0", "Last-Modified: @-8\nDate: @5", false),
            ("Last-Modified: @0\nDate: @0", "Last-Modified: @0\nDate: @0", false), // weak
            // A tag that differs is not outvoted by a date, nor is one that is missing.
            ("ETag: W/\"a\"\nLast-Modified: @-9\nDate: @0", "Last-Modified: @-9\nDate: @0", false),
        ];
        for (one, other, want) in rows {
            let [one, other] = [one, other].map(|fields| Validators::of(&headers(fields)));
            assert_eq!(may_combine(&one, &other), want, "{one:?} {other:?}");
            assert_eq!(may_combine(&other, &one), want, "{one:?} {other:?}");
            if want {
                assert!(if_range(&one).is_some() && if_range(&other).is_some());
            }
        }
        assert_eq!(if_range(&Validators::of(&headers("ETag: W/\"a\"\nLast-Modified: @-9"))), None);
    }

    impl Content for String {
        fn cut(&self, range: ByteRange) -> Self {
            let [first, last] = [range.first, range.last].map(|at| usize::try_from(at).unwrap());
            self[first..=last].to_owned()
        }

        fn then(self, next: Self) -> Self {
            self + &next
        }
    }

    #[test]
    fn parts_are_joined_where_they_touch_and_bounded() {
        let digits = "0123456789".repeat(10);
        let part = |first: u64, last: u64| {
            let of = content_range(first, last, 100);
            (of, digits.cut(of.range))
        };
        let limits = Limits { parts: 3, bytes: 50 };
        let (of, content) = part(10, 19);
        let mut parts = Parts::new(of, content);
        type Held = &'static [(u64, u64)];
        let rows: [((u64, u64), Held); 8] = [
            ((12, 14), &[(10, 19)]),
            ((20, 24), &[(10, 24)]),
            ((5, 12), &[(5, 24)]),
            ((26, 27), &[(5, 24), (26, 27)]), // one byte is missing between them
            ((40, 44), &[(5, 24), (26, 27), (40, 44)]),
            ((60, 69), &[(5, 24), (40, 44), (60, 69)]), // the smallest went
            ((80, 99), &[(5, 24), (60, 69), (80, 99)]),
            ((0, 59), &[(0, 59)]), // too large by itself: whoever calls keeps that out
        ];
        for ((first, last), want) in rows {
            let (of, content) = part(first, last);
            parts = parts.with(of, content, limits);
            let ranges: Vec<_> = parts.ranges().map(|range| (range.first, range.last)).collect();
            assert_eq!(ranges, want, "{first}-{last}");
            for range in parts.ranges() {
                let (content, within) = parts.cover(range).unwrap();
                assert_eq!(content.cut(within), digits.cut(range));
            }
        }
        assert!(parts.whole().is_none());
        let (of, content) = part(60, 99);
        assert!(parts.with(of, content, Limits { parts: 1, bytes: 100 }).whole().is_some());
    }

    #[test]
    fn the_whole_of_a_part_has_its_fields_and_its_own_length() {
        let fields = headers("ETag: \"a\"\nContent-Range: bytes 0-4/10\nContent-Length: 5");
        assert_eq!(whole_fields(&fields, 10), headers("ETag: \"a\"\nContent-Length: 10"));
    }
}
