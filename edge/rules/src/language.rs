//! `Accept-Language` (RFC 9110 §12.5.4): when two requests ask for the same, and which of a site's
//! languages a request is best served with (RFC 4647 §3.4).
//!
//! # Invariants
//! - Case, whitespace, lines and the spelling of a weight never count; ranges are compared in the
//!   order of their weights.
//! - Comparing a request with what was stored does not allocate.
//! - What cannot be read as a list of at most [`MAX_RANGES`] weighted ranges is compared as text.

use http::HeaderMap;
use http::header::{ACCEPT_LANGUAGE, CONTENT_LANGUAGE};

use crate::list;

/// Ranges of one request that are looked at: browsers send about 5. With more, the field is text.
pub const MAX_RANGES: usize = 32;

/// A site's choice of how requests are told apart by `Accept-Language`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The order of ranges of one weight counts. RFC 9110 §12.5.4 says that nobody can rely on it,
    /// and many an origin breaks ties by it.
    pub order: bool,
    /// A response that says its `Content-Language` also answers who wants that language above all
    /// others: an origin that has it, and it has, would choose it again.
    pub content: bool,
}

/// A language range and its weight in thousandths.
#[derive(Clone, Copy, Debug)]
struct Range<'a> {
    text: &'a [u8],
    weight: u16,
}

/// The ranges of one request, the heaviest first. Without heap.
struct Ranges<'a> {
    all: [Range<'a>; MAX_RANGES],
    count: usize,
}

impl<'a> Ranges<'a> {
    /// `None`: the field is not such a list.
    fn of(request: &'a HeaderMap, reading: Reading) -> Option<Self> {
        let mut ranges = Self { all: [Range { text: b"", weight: 0 }; MAX_RANGES], count: 0 };
        for line in request.get_all(ACCEPT_LANGUAGE) {
            for member in list::members(line.as_bytes()).filter(|member| !member.text.is_empty()) {
                *ranges.all.get_mut(ranges.count)? = range(member.text)?;
                ranges.count += 1;
            }
        }
        let sorted = ranges.all.get_mut(..ranges.count)?;
        // Stable, and in place for so few.
        for end in 1..sorted.len() {
            let mut at = end;
            while let Some([before, here]) =
                at.checked_sub(1).and_then(|one| sorted.get_mut(one..=at))
                && reading.comes_first(here, before)
            {
                std::mem::swap(before, here);
                at -= 1;
            }
        }
        Some(ranges)
    }

    fn all(&self) -> &[Range<'a>] {
        self.all.get(..self.count).unwrap_or_default()
    }

    /// The one that outweighs all others.
    fn favourite(&self) -> Option<&'a [u8]> {
        match self.all() {
            [first, second, ..] if first.weight == second.weight => None,
            [first, ..] if first.weight > 0 && first.text != b"*" => Some(first.text),
            _ => None,
        }
    }
}

impl Reading {
    fn comes_first(self, one: &Range<'_>, other: &Range<'_>) -> bool {
        one.weight > other.weight
            || (one.weight == other.weight && !self.order && lower(one.text).lt(lower(other.text)))
    }
}

fn lower(text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    text.iter().map(u8::to_ascii_lowercase)
}

/// `de-CH;q=0.8`.
fn range(member: &[u8]) -> Option<Range<'_>> {
    let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let text = parts.next().filter(|text| *text == b"*" || is_tag(text))?;
    let weight = parts.next().map_or(Some(1000), weight)?;
    parts.next().is_none().then_some(Range { text, weight })
}

/// Subtags of 1 to 8 letters or digits between dashes; the first has letters only (RFC 4647 §2.1).
fn is_tag(text: &[u8]) -> bool {
    let mut subtags = text.split(|byte| *byte == b'-');
    let sized = |subtag: &[u8]| (1..=8).contains(&subtag.len());
    subtags.next().is_some_and(|first| sized(first) && first.iter().all(u8::is_ascii_alphabetic))
        && subtags.all(|subtag| sized(subtag) && subtag.iter().all(u8::is_ascii_alphanumeric))
}

/// `q=0.25`, in thousandths (RFC 9110 §12.4.2).
fn weight(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', value @ ..] = parameter else { return None };
    let (whole, fraction) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return None,
    };
    let thousandths =
        [100, 10, 1].into_iter().zip(fraction).try_fold(0, |sum, (unit, digit)| {
            digit.is_ascii_digit().then(|| sum + unit * u16::from(digit - b'0'))
        })?;
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// What the request of a stored response had in `Accept-Language`, and what the response is in.
#[derive(Clone, Debug)]
pub(crate) struct Languages {
    reading: Reading,
    presented: Presented,
    /// The one language of the content, where that is asked for.
    content: Option<Box<[u8]>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Presented {
    Absent,
    /// Sorted as [`Reading`] says, in lower case.
    Ranges(Box<[(Box<[u8]>, u16)]>),
    /// Canonical text of what is no such list.
    Text(Box<[u8]>),
}

/// By what selects: which language came back is not part of the question.
impl PartialEq for Languages {
    fn eq(&self, other: &Self) -> bool {
        self.reading == other.reading && self.presented == other.presented
    }
}

impl Eq for Languages {}

impl Languages {
    pub(crate) fn of(request: &HeaderMap, response: &HeaderMap, reading: Reading) -> Self {
        let presented = match Ranges::of(request, reading) {
            _ if !request.contains_key(ACCEPT_LANGUAGE) => Presented::Absent,
            Some(ranges) => {
                let owned = |range: &Range<'_>| (lower(range.text).collect(), range.weight);
                Presented::Ranges(ranges.all().iter().map(owned).collect())
            }
            None => Presented::Text(text(request).collect()),
        };
        let content = list::only(response, &CONTENT_LANGUAGE).filter(|_| reading.content);
        let content = content.map(|line| line.as_bytes().trim_ascii()).filter(|tag| is_tag(tag));
        Self { reading, presented, content: content.map(Into::into) }
    }

    pub(crate) fn matches(&self, request: &HeaderMap) -> bool {
        if !request.contains_key(ACCEPT_LANGUAGE) {
            return self.presented == Presented::Absent;
        }
        let Some(ranges) = Ranges::of(request, self.reading) else {
            return match &self.presented {
                Presented::Text(stored) => text(request).eq(stored.iter().copied()),
                Presented::Absent | Presented::Ranges(_) => false,
            };
        };
        let same = match &self.presented {
            Presented::Ranges(stored) => {
                let equals = |(range, (text, weight)): (&Range<'_>, &(Box<[u8]>, u16))| {
                    range.weight == *weight && range.text.eq_ignore_ascii_case(text)
                };
                stored.len() == ranges.count && ranges.all().iter().zip(stored).all(equals)
            }
            Presented::Absent | Presented::Text(_) => false,
        };
        let favourite = || ranges.favourite();
        same || self
            .content
            .as_deref()
            .is_some_and(|content| favourite().is_some_and(|tag| tag.eq_ignore_ascii_case(content)))
    }
}

/// Lines combined, whitespace around commas removed, in lower case.
fn text(request: &HeaderMap) -> impl Iterator<Item = u8> + '_ {
    let lines = request.get_all(ACCEPT_LANGUAGE).iter();
    let members = lines.flat_map(|line| list::members(line.as_bytes()));
    members.flat_map(|member| member.text.iter().map(u8::to_ascii_lowercase).chain([b',']))
}

/// Which of a site's languages `request` is best served with: the first that its ranges lead to, by
/// lookup (RFC 4647 §3.4); `None`: none of them, or the request does not say.
pub fn lookup<'t>(
    request: &HeaderMap,
    mut site: impl Iterator<Item = &'t str> + Clone,
) -> Option<usize> {
    let reading = Reading { order: true, content: false };
    let ranges = Ranges::of(request, reading)?;
    let refused = |tag: &str| {
        let mut named = ranges.all().iter().filter(|range| range.weight == 0);
        named.any(|range| range.text.eq_ignore_ascii_case(tag.as_bytes()))
    };
    for range in ranges.all().iter().filter(|range| range.weight > 0 && range.text != b"*") {
        let mut wanted = Some(range.text);
        while let Some(text) = wanted {
            let same = |tag: &str| tag.as_bytes().eq_ignore_ascii_case(text) && !refused(tag);
            if let Some(found) = site.clone().position(same) {
                return Some(found);
            }
            wanted = shortened(text);
        }
    }
    // `*` is for whatever was not named: the first that is not refused.
    let any = ranges.all().iter().any(|range| range.weight > 0 && range.text == b"*");
    if any { site.position(|tag| !refused(tag)) } else { None }
}

/// Without its last subtag, nor a single letter that would end it then.
fn shortened(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().rposition(|byte| *byte == b'-')?;
    let text = text.get(..end)?;
    match text {
        [rest @ .., b'-', _] => Some(rest),
        _ => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::headers;

    const BY_WEIGHT: Reading = Reading { order: false, content: true };
    const BY_ORDER: Reading = Reading { order: true, content: false };

    fn matches(reading: Reading, first: &str, response: &str, next: &str) -> bool {
        let request = |value: &str| match value {
            "-" => HeaderMap::new(),
            value => headers(&format!("Accept-Language: {value}")),
        };
        Languages::of(&request(first), &headers(response), reading).matches(&request(next))
    }

    #[test]
    fn equivalent_lists_select_the_same_and_others_do_not() {
        let rows = [
            // first, next, by order, by weight
            ("en, de", "en, de", true, true),
            ("en, de", "eN ,DE", true, true), // RFC 4647 §2
            ("en, de", "en\nAccept-Language: de", true, true),
            ("en, de", "en,,de,", true, true), // RFC 9110 §5.6.1.2
            ("en, de", "de, en", false, true), // RFC 9110 §12.5.4: cannot be relied upon
            ("en, de;q=0.5", "de;q=0.5, en", true, true), // weights are what orders them
            ("en, de;q=0.5", "en;q=1, de;Q=0.500", true, true),
            ("en, de;q=0.5", "en, de;q=0.6", false, false),
            ("en;q=0.5, de", "en, de;q=0.5", false, false),
            ("en, de", "en", false, false),
            ("en", "en, de", false, false),
            ("en, *;q=0", "en", false, false),
            ("en", "en-GB", false, false),
            ("en", "-", false, false),
            ("-", "en", false, false),
            ("-", "-", true, true),
            ("", "-", false, false), // empty is not absent
            ("", "", true, true),
            ("en;q=2, de", "en;q=2, de", true, true), // unreadable: as text
            ("en;q=2, de", "en;q=2,DE", true, true),
            ("en;q=2, de", "de, en;q=2", false, false),
            ("en;q=2, de", "en, de", false, false),
            ("e_n", "en", false, false),
        ];
        for (first, next, by_order, by_weight) in rows {
            assert_eq!(matches(BY_ORDER, first, "", next), by_order, "order {first:?} {next:?}");
            assert_eq!(matches(BY_WEIGHT, first, "", next), by_weight, "weight {first:?} {next:?}");
        }
    }

    #[test]
    fn content_answers_who_wants_its_language_above_all_others() {
        let rows = [
            // Content-Language, next, selected
            ("de", "fr;q=0.5, de;q=1.0", true),
            ("de", "de", true),
            ("DE", "de, *;q=0.1", true),
            ("de", "de, fr", false), // equals: the origin may choose either
            ("de", "fr, de;q=0.9", false), // fr, if the origin has it
            ("de", "de-CH, de;q=0.9", false), // de-CH, if the origin has it
            ("de-CH", "de", false),  // de, if the origin has it
            ("de", "*", false),
            ("de", "de;q=0", false),
            ("de", "-", false),
            ("de, en", "de", false), // for whom it is, not what was negotiated
            ("de\nContent-Language: en", "de", false),
            ("", "de", false),
        ];
        for (content, next, want) in rows {
            let response = format!("Content-Language: {content}");
            assert_eq!(matches(BY_WEIGHT, "en, de", &response, next), want, "{content} {next}");
            assert!(!matches(BY_ORDER, "en, de", &response, next), "{content} {next}");
        }
    }

    #[test]
    fn more_ranges_than_are_looked_at_are_text() {
        let list = |count: usize, first: &str| {
            let mut all = vec![first.to_owned()];
            all.extend((1..count).map(|n| format!("x{}", "abcdefgh".get(..n % 8).unwrap())));
            all.join(", ")
        };
        for (count, folds) in [(MAX_RANGES, true), (MAX_RANGES + 1, false)] {
            let (one, other) = (list(count, "en;q=1"), list(count, "en"));
            assert!(matches(BY_ORDER, &one, "", &one), "{count}");
            assert_eq!(matches(BY_ORDER, &one, "", &other), folds, "{count}");
        }
    }

    #[test]
    fn a_site_is_looked_up_by_ever_shorter_ranges() {
        let site = ["en", "de", "de-CH", "zh-Hant"];
        let rows = [
            ("de", Some("de")),
            ("DE-ch", Some("de-CH")),
            ("de-CH-1996", Some("de-CH")),
            ("de-AT", Some("de")),
            ("fr, de;q=0.5", Some("de")),
            ("fr;q=0.5, de;q=0.2, en;q=0.9", Some("en")),
            ("zh-Hant-CN-x-private1-private2", Some("zh-Hant")), // RFC 4647 §3.4
            ("zh", None),                                        // lookup does not lengthen
            ("fr", None),
            ("*", Some("en")),
            ("fr, *;q=0.1", Some("en")),
            ("*, en;q=0", Some("de")),
            ("de-AT, de;q=0", None),
            ("de;q=0", None),
            ("", None),
            ("de;q=9", None),
        ];
        for (field, want) in rows {
            let request = headers(&format!("Accept-Language: {field}"));
            let found = lookup(&request, site.into_iter()).map(|at| site[at]);
            assert_eq!(found, want, "{field}");
        }
        assert_eq!(lookup(&HeaderMap::new(), site.into_iter()), None);
    }

    #[test]
    fn weights_are_three_digits_at_most() {
        let rows = [
            ("q=1", Some(1000)),
            ("q=1.000", Some(1000)),
            ("Q=0.5", Some(500)),
            ("q=0.05", Some(50)),
            ("q=0.001", Some(1)),
            ("q=0", Some(0)),
            ("q=0.", Some(0)),
            ("q=1.001", None),
            ("q=0.0001", None),
            ("q=2", None),
            ("q=-1", None),
            ("q=.5", None),
            ("q=", None),
            ("q = 1", None),
            ("x=1", None),
        ];
        for (parameter, want) in rows {
            assert_eq!(weight(parameter.as_bytes()), want, "{parameter}");
        }
    }
}
