//! How a request ended, in the one word that `Cache-Status`, metrics and logs share.

use meridian_edge_rules::decide::Fwd;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// From the store, fresh.
    Hit,
    /// From the store, stale, as the response or the site allows.
    HitStale,
    /// Shared with a request that was under way.
    Collapsed,
    /// From upstream, for this reason (RFC 9211 §2.2).
    Forwarded(Fwd),
    /// Answered by the edge itself: no site, a loop, an unsatisfiable wish.
    Refused,
}

impl Outcome {
    /// Every outcome, in the order of [`Outcome::index`].
    pub(crate) const ALL: [Self; 12] = [
        Self::Hit,
        Self::HitStale,
        Self::Collapsed,
        Self::Refused,
        Self::Forwarded(Fwd::Bypass),
        Self::Forwarded(Fwd::Method),
        Self::Forwarded(Fwd::UriMiss),
        Self::Forwarded(Fwd::VaryMiss),
        Self::Forwarded(Fwd::Miss),
        Self::Forwarded(Fwd::Request),
        Self::Forwarded(Fwd::Stale),
        Self::Forwarded(Fwd::Partial),
    ];

    /// Its place in [`Outcome::ALL`].
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Hit => 0,
            Self::HitStale => 1,
            Self::Collapsed => 2,
            Self::Refused => 3,
            Self::Forwarded(fwd) => match fwd {
                Fwd::Bypass => 4,
                Fwd::Method => 5,
                Fwd::UriMiss => 6,
                Fwd::VaryMiss => 7,
                Fwd::Miss => 8,
                Fwd::Request => 9,
                Fwd::Stale => 10,
                Fwd::Partial => 11,
            },
        }
    }

    /// The word.
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::HitStale => "hit-stale",
            Self::Collapsed => "collapsed",
            Self::Refused => "refused",
            Self::Forwarded(fwd) => fwd.token(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[test]
    fn every_outcome_stands_at_its_index_under_a_word_of_its_own() {
        for (n, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), n);
            let same = Outcome::ALL.iter().filter(|other| other.token() == outcome.token());
            assert_eq!(same.count(), 1, "{}", outcome.token());
        }
    }
}
