//! Content codings that a request accepts, and which of those on offer it is to have
//! (RFC 9110 §12.5.3).
//!
//! Does not answer whether a response may be coded: that is [`crate::derived`]'s.
//!
//! # Invariants
//! - What a request refuses is never chosen.
//! - Nothing here allocates.
//!
//! # Deviations
//! - An absent or empty `Accept-Encoding` accepts the unencoded form alone: RFC 9110 would let any
//!   be sent to a client that says nothing, but such clients do not decode.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use crate::list;

/// A content coding (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 1952, also as `x-gzip`.
    Gzip,
    /// RFC 7932.
    Br,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// All of them, each at its [`Coding::index`].
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Br, Self::Zstd];

    /// Its registered name.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Br => "br",
            Self::Zstd => "zstd",
        }
    }

    /// Its place in tables.
    pub const fn index(self) -> usize {
        match self {
            Self::Gzip => 0,
            Self::Br => 1,
            Self::Zstd => 2,
        }
    }

    /// By its name, in any case.
    pub fn named(name: &[u8]) -> Option<Self> {
        let is = |coding: &Self| name.eq_ignore_ascii_case(coding.token().as_bytes());
        if name.eq_ignore_ascii_case(b"x-gzip") {
            return Some(Self::Gzip); // RFC 9110 §8.4.1.3
        }
        Self::ALL.into_iter().find(is)
    }
}

/// A weight in thousandths (RFC 9110 §12.4.2); 0 refuses.
type Weight = u16;

/// What a request says of content codings, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    named: [Option<Weight>; 3],
    identity: Option<Weight>,
    any: Option<Weight>,
}

impl Accepted {
    /// Reads `Accept-Encoding`. A coding whose weight cannot be read is not accepted; one that is
    /// named twice has the lower weight.
    pub fn of(request: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        let lines = request.get_all(ACCEPT_ENCODING).iter();
        for member in lines.flat_map(|line| list::members(line.as_bytes())) {
            let mut parts = member.text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let weight = parts.next().map_or(Some(1_000), weight);
            let (slot, weight) = if name == b"*" {
                (Some(&mut accepted.any), weight)
            } else if name.eq_ignore_ascii_case(b"identity") {
                (Some(&mut accepted.identity), weight)
            } else {
                let coding = Coding::named(name);
                let slot = coding.and_then(|coding| accepted.named.get_mut(coding.index()));
                (slot, Some(weight.unwrap_or(0)))
            };
            // What is unreadable refuses a coding, but not what needs none.
            if let (Some(slot), Some(weight)) = (slot, weight) {
                *slot = Some(slot.map_or(weight, |before| before.min(weight)));
            }
        }
        accepted
    }

    /// Whether it accepts `coding`.
    pub fn accepts(self, coding: Coding) -> bool {
        self.weight(coding) > 0
    }

    /// Whether it accepts the unencoded form: unless `identity;q=0` or `*;q=0` excludes it.
    pub fn accepts_identity(self) -> bool {
        self.identity.or(self.any) != Some(0)
    }

    fn weight(self, coding: Coding) -> Weight {
        self.named.get(coding.index()).copied().flatten().or(self.any).unwrap_or(0)
    }
}

/// A weight; a number above one counts as one. `None`: it cannot be read.
fn weight(parameter: &[u8]) -> Option<Weight> {
    let [b'q' | b'Q', b'=', text @ ..] = parameter else { return None };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?),
        None => (text, &b""[..]),
    };
    let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    if whole.iter().any(|digit| *digit != b'0') {
        return Some(1_000);
    }
    let place = |at: usize| fraction.get(at).map_or(0, |digit| Weight::from(digit - b'0'));
    let thousandths = place(0) * 100 + place(1) * 10 + place(2);
    let beyond = fraction.iter().any(|digit| *digit != b'0'); // 0.0001 is little, and not nothing
    Some(if thousandths == 0 { Weight::from(beyond) } else { thousandths })
}

/// The form that a request is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Unencoded.
    Identity,
    /// In this coding.
    Coded(Coding),
    /// It refuses all that there is (RFC 9110 §15.5.7).
    NotAcceptable,
}

/// Chooses among the unencoded form and the codings on `offer`, which stand in the order in which
/// the site prefers them: what the request gives the greatest weight, and among equals what the
/// site prefers. The unencoded form comes last, unless the request gives it a greater weight.
pub fn choose(accepted: Accepted, offer: impl IntoIterator<Item = Coding>) -> Choice {
    let mut best: Option<(Coding, Weight)> = None;
    for coding in offer {
        let weight = accepted.weight(coding);
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((coding, weight));
        }
    }
    let identity = accepted.identity.or(accepted.any);
    match best {
        Some((_, weight)) if identity.is_some_and(|identity| identity > weight) => Choice::Identity,
        Some((coding, _)) => Choice::Coded(coding),
        None if accepted.accepts_identity() => Choice::Identity,
        None => Choice::NotAcceptable,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Choice::{Coded, Identity, NotAcceptable};
    use super::Coding::{Br, Gzip, Zstd};
    use super::*;
    use crate::fixtures::headers;

    fn accepted(field: Option<&str>) -> Accepted {
        let line = field.map(|field| format!("Accept-Encoding: {field}")).unwrap_or_default();
        Accepted::of(&headers(&line))
    }

    #[test]
    fn the_greatest_weight_wins_then_the_sites_order_then_the_unencoded_form() {
        let all = &[Br, Zstd, Gzip][..];
        let rows = [
            // Accept-Encoding, on offer in the site's order, choice
            (None, all, Identity),
            (Some(""), all, Identity),
            (Some("identity"), all, Identity),
            (Some("gzip"), all, Coded(Gzip)),
            (Some("x-gzip"), all, Coded(Gzip)),
            (Some("GZip"), all, Coded(Gzip)),
            (Some("gzip"), &[][..], Identity),
            (Some("gzip"), &[Br, Zstd], Identity),
            (Some("gzip, deflate, br, zstd"), all, Coded(Br)),
            (Some("gzip, deflate, br, zstd"), &[Zstd, Br, Gzip], Coded(Zstd)),
            (Some("gzip, deflate, br, zstd"), &[Gzip], Coded(Gzip)),
            (Some("br;q=0.5, gzip"), all, Coded(Gzip)),
            (Some("br;q=0.5, gzip;q=0.501"), all, Coded(Gzip)),
            (Some("br ; Q=0.5 , gzip ; q=0.5"), all, Coded(Br)),
            (Some("br;q=0"), all, Identity),
            (Some("br;q=0.000, gzip"), all, Coded(Gzip)),
            (Some("br;q=0.0001"), all, Coded(Br)), // more digits than the grammar has
            (Some("br;q=1.5, gzip"), all, Coded(Br)),
            (Some("br;q=, gzip;q=x, zstd;level=3"), all, Identity),
            (Some("br;q=1.0.0"), all, Identity),
            (Some("br, br;q=0"), all, Identity), // said both ways: refused
            (Some("identity, gzip"), all, Coded(Gzip)),
            (Some("identity, gzip;q=0.9"), all, Identity),
            (Some("identity;q=0.5, gzip;q=0.9"), all, Coded(Gzip)),
            (Some("identity;q=0.5, gzip;q=0.4"), all, Identity),
            (Some("*"), all, Coded(Br)),
            (Some("*;q=0.5"), all, Coded(Br)),
            (Some("*, br;q=0"), all, Coded(Zstd)),
            (Some("*;q=0.1, gzip;q=0.2"), all, Coded(Gzip)),
            (Some("*, gzip;q=0.5"), &[Gzip], Identity), // `*` names the unencoded form too
            (Some("compress, deflate, snappy"), all, Identity),
            (Some("compress, *;q=0"), all, NotAcceptable),
            (Some("identity;q=0"), all, NotAcceptable),
            (Some("identity;q=0, gzip"), all, Coded(Gzip)),
            (Some("identity;q=0, gzip"), &[], NotAcceptable),
            (Some("gzip, *;q=0"), &[Br], NotAcceptable),
            (Some("*;q=0"), all, NotAcceptable),
            (Some("*;q=0, identity;q=0.1"), all, Identity),
            (Some("identity;q=x, *;q=y"), &[], Identity), // unreadable: refuses no plain form
            (Some("gzip\nAccept-Encoding: br;q=0.2"), all, Coded(Gzip)), // over several lines
        ];
        for (field, offer, want) in rows {
            let choice = choose(accepted(field), offer.iter().copied());
            assert_eq!(choice, want, "{field:?} of {offer:?}");
        }
    }

    /// Weights as they are written, and whether they refuse.
    const WEIGHTS: [(&str, bool); 8] = [
        ("", false),
        (";q=1", false),
        (";q=0.5", false),
        (";q=0.001", false),
        (";q=0", true),
        ("; q=0.000", true),
        (";q=0.", true),
        (";Q=0", true),
    ];

    proptest! {
        /// Over all that the field can say in readable words: read here once more, by its letter.
        #[test]
        fn what_is_refused_is_never_chosen_and_what_is_accepted_and_there_always_is(
            said in proptest::collection::btree_map(0..6_usize, 0..WEIGHTS.len(), 0..6),
            offer in proptest::sample::subsequence(vec![Br, Zstd, Gzip], 0..=3).prop_shuffle(),
        ) {
            let names = ["gzip", "br", "zstd", "identity", "*", "deflate"];
            let members: Vec<String> =
                said.iter().map(|(name, weight)| names[*name].to_owned() + WEIGHTS[*weight].0).collect();
            let field = members.join(", ");
            let refuses = |name: usize| said.get(&name).map(|weight| WEIGHTS[*weight].1);
            let refused = |coding: Coding| refuses(coding.index()).or(refuses(4)).unwrap_or(true);
            let no_identity = refuses(3).or(refuses(4)).unwrap_or(false);
            let left = offer.iter().any(|coding| !refused(*coding));
            match choose(accepted(Some(&field)), offer.iter().copied()) {
                Coded(coding) => {
                    prop_assert!(offer.contains(&coding), "{field:?}: {coding:?} is not there");
                    prop_assert!(!refused(coding), "{field:?}: {coding:?} is refused");
                }
                Identity => prop_assert!(!no_identity, "{field:?}"),
                NotAcceptable => prop_assert!(no_identity && !left, "{field:?} of {offer:?}"),
            }
        }

        /// Whatever bytes there are, nothing panics, and nothing that is not there is chosen.
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(0x20..0x7f_u8, 0..60)) {
            let mut request = HeaderMap::new();
            request.insert(ACCEPT_ENCODING, http::HeaderValue::from_bytes(&bytes).unwrap());
            let choice = choose(Accepted::of(&request), [Zstd]);
            prop_assert!(!matches!(choice, Coded(Gzip | Br)));
        }
    }
}
