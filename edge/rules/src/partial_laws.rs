//! Laws of combining parts, against a plain vector: whatever sequence of answers is stored, the
//! bytes that a range is answered with are those of one representation.

use http::HeaderMap;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::partial::{Content, ContentRange, Limits, Parts, may_combine};
use crate::ranges::{ByteRange, Spec, asked};
use crate::validate::{EntityTag, Validators};

const LIMITS: Limits = Limits { parts: 4, bytes: 60 };

impl Content for Vec<u8> {
    fn cut(&self, range: ByteRange) -> Self {
        let [first, last] = [range.first, range.last].map(|at| usize::try_from(at).unwrap());
        self[first..=last].to_vec()
    }

    fn then(mut self, next: Self) -> Self {
        self.extend(next);
        self
    }
}

/// What an origin has by turns: representations of their own bytes and lengths. Two of them share
/// a weak tag, as equivalent ones may.
#[derive(Clone, Copy, Debug)]
struct Version(u8);

impl Version {
    fn bytes(self) -> Vec<u8> {
        let length = 30 + usize::from(self.0 / 2) * 10;
        (0..length).map(|at| self.0 * 60 + u8::try_from(at).unwrap()).collect()
    }

    fn validators(self) -> Validators {
        let (weak, opaque) =
            if self.0 < 2 { (true, b"w".to_vec()) } else { (false, vec![self.0 + b'0']) };
        let etag = EntityTag { weak, opaque: opaque.into() };
        Validators { etag: Some(etag), ..Validators::default() }
    }
}

/// What comes from the origin.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// A 206.
    Part(Version, u64, u64),
    /// A 200, which replaces.
    Whole(Version),
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let version = || (0..4_u8).prop_map(Version);
    let part = (version(), 0..40_u64, 0..20_u64).prop_map(|(version, first, more)| {
        let last = version.bytes().len() as u64 - 1;
        let first = first.min(last);
        Answer::Part(version, first, (first + more).min(last))
    });
    vec(prop_oneof![8 => part, 1 => version().prop_map(Answer::Whole)], 1..30)
}

/// What is stored: parts under the validators of the newest answer.
struct Stored {
    validators: Validators,
    parts: Parts<Vec<u8>>,
}

/// Stores one answer after the other, and tells what breaks the law first.
fn stored_one_by_one(
    answers: &[Answer],
    combines: fn(&Validators, &Validators) -> bool,
) -> Result<(), String> {
    let mut stored: Option<Stored> = None;
    for answer in answers {
        let (version, first, last) = match *answer {
            Answer::Part(version, first, last) => (version, first, last),
            Answer::Whole(version) => (version, 0, version.bytes().len() as u64 - 1),
        };
        let (bytes, validators) = (version.bytes(), version.validators());
        let range = ByteRange { first, last };
        let of = ContentRange { range, complete_length: bytes.len() as u64 };
        let content = bytes.cut(range);
        let parts = match stored {
            Some(old)
                if !of.is_whole()
                    && old.parts.complete_length() == of.complete_length
                    && combines(&old.validators, &validators) =>
            {
                old.parts.with(of, content, LIMITS)
            }
            Some(_) | None => Parts::new(of, content),
        };
        let limit = parts.bytes() <= LIMITS.bytes.max(range.length());
        if parts.count() > LIMITS.parts || !limit {
            return Err(format!("{} parts of {} bytes", parts.count(), parts.bytes()));
        }
        let versions: Vec<Vec<u8>> = (0..4).map(|n| Version(n).bytes()).collect();
        for held in parts.ranges() {
            for range in [held, ByteRange { first: held.first, last: held.first }] {
                let (content, within) = parts.cover(range).ok_or("what is held is not found")?;
                let got = content.cut(within);
                let of_one = versions
                    .iter()
                    .any(|version| range.last < version.len() as u64 && version.cut(range) == got);
                if !of_one {
                    return Err(format!("{range:?} is of no one version: {got:?}"));
                }
            }
        }
        let new = parts.cover(of.range).map(|(content, within)| content.cut(within));
        if new != Some(bytes.cut(of.range)) {
            return Err("the newest answer is not what is served".to_owned());
        }
        stored = Some(Stored { validators, parts });
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_bytes_of_a_range_are_those_of_one_representation(answers in answers()) {
        prop_assert_eq!(stored_one_by_one(&answers, may_combine), Ok(()));
    }

    #[test]
    fn a_content_range_reads_back_as_written(first in 0..1_u64 << 40, more in 0..1_u64 << 40, rest in 1..1_u64 << 40) {
        let range = ByteRange { first, last: first + more };
        let written = ContentRange { range, complete_length: range.last + rest };
        let mut fields = HeaderMap::new();
        fields.insert("content-range", written.to_value());
        prop_assert_eq!(ContentRange::of(&fields), Some(written));
    }

    #[test]
    fn any_content_range_is_consistent_or_none(value in "(bytes )?[0-9*/ -]{0,12}") {
        let mut fields = HeaderMap::new();
        fields.insert("content-range", value.parse().unwrap());
        if let Some(read) = ContentRange::of(&fields) {
            prop_assert!(read.range.first <= read.range.last);
            prop_assert!(read.range.last < read.complete_length);
        }
    }

    #[test]
    fn ranges_read_back_as_written(
        specs in vec((0..3_u8, any::<u32>(), any::<u32>()), 1..8),
    ) {
        let specs: Vec<Spec> = specs.into_iter().map(|(kind, one, more)| {
            let (one, more) = (u64::from(one), u64::from(more));
            match kind {
                0 => Spec::From(one),
                1 => Spec::Between(one, one + more),
                _ => Spec::Suffix(one),
            }
        }).collect();
        let text: Vec<String> = specs.iter().map(ToString::to_string).collect();
        let mut fields = HeaderMap::new();
        fields.insert("range", format!("bytes={}", text.join(", ")).parse().unwrap());
        prop_assert_eq!(asked(&fields, 8), specs);
    }
}

/// The control: the law sees it when equivalent is taken for equal.
#[test]
fn combining_by_weak_validators_mixes_representations() {
    let weakly = |one: &Validators, other: &Validators| match (&one.etag, &other.etag) {
        (Some(one), Some(other)) => one.weak_eq(other),
        (None, _) | (_, None) => false,
    };
    let answers = [Answer::Part(Version(0), 0, 9), Answer::Part(Version(1), 5, 14)];
    assert!(stored_one_by_one(&answers, weakly).unwrap_err().contains("no one version"));
    assert_eq!(stored_one_by_one(&answers, may_combine), Ok(()));
}
