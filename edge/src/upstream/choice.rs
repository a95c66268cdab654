//! Which of a site's origins is asked, and which next if that one cannot.
//!
//! Those that look alive before those that do not, the site's own before its backups, and among
//! equals either in the order given or the better of two picked at random: that is nearly as good as
//! the best of all and does not send everybody to the same one (power of two choices).
//!
//! # Invariants
//! - Each origin stands in the order exactly once: looking dead is no reason never to be asked.
//! - When fewer look alive than the panic threshold, all count as alive: then it is more likely that
//!   the looking is at fault, and what is left would be run over.

use std::time::Duration;

/// An origin, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) is_up: bool,
    pub(crate) is_backup: bool,
    /// Requests in flight and waiting.
    pub(crate) load: u32,
    /// What its answers commonly take, if that is known.
    pub(crate) latency: Option<Duration>,
}

/// How a site chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rule {
    /// Its origins are equally good; else they stand in order of preference.
    pub(crate) spreads: bool,
    pub(crate) panic_threshold: f64,
}

/// The order in which to ask, as indexes. The chances are from 0 up to but without 1.
pub(crate) fn order(candidates: &[Candidate], rule: Rule, chances: [f64; 2]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    if candidates.len() < 2 {
        return order;
    }
    let alive = candidates.iter().filter(|one| one.is_up).count();
    let panics = (alive as f64) < rule.panic_threshold * candidates.len() as f64;
    let class = |index: &usize| {
        candidates.get(*index).map_or((true, true), |one| (!panics && !one.is_up, one.is_backup))
    };
    order.sort_by_key(class); // stable: the order given holds within a class
    if rule.spreads {
        let best = order.first().map(class);
        let equals = order.iter().take_while(|index| Some(class(index)) == best).count();
        if let Some(chosen) = better_of_two(&order, equals, candidates, chances) {
            let chosen = order.remove(chosen);
            order.insert(0, chosen);
        }
    }
    order
}

/// Where in `order` the better of two among its first `equals` stands.
fn better_of_two(
    order: &[usize],
    equals: usize,
    candidates: &[Candidate],
    chances: [f64; 2],
) -> Option<usize> {
    let [first, second] = chances;
    let one = pick(equals, first)?;
    // Another one than the first.
    let other = match pick(equals.saturating_sub(1), second) {
        Some(other) if other >= one => other + 1,
        Some(other) => other,
        None => return Some(one),
    };
    let (a, b) = (candidates.get(*order.get(one)?)?, candidates.get(*order.get(other)?)?);
    Some(if cost(a, b) <= cost(b, a) { one } else { other })
}

/// A number below `n`.
fn pick(n: usize, chance: f64) -> Option<usize> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a small number"
    )]
    let index = (chance.clamp(0.0, 1.0) * n as f64) as usize;
    (n > 0).then(|| index.min(n - 1))
}

/// What a request would wait for at `one`; where the other's latency is unknown only load counts.
fn cost(one: &Candidate, other: &Candidate) -> f64 {
    let latency = match (one.latency, other.latency) {
        (Some(latency), Some(_)) => latency.as_secs_f64(),
        (Some(_) | None, None) | (None, Some(_)) => 1.0,
    };
    f64::from(one.load.saturating_add(1)) * latency
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ORDERED: Rule = Rule { spreads: false, panic_threshold: 0.5 };
    const SPREAD: Rule = Rule { spreads: true, panic_threshold: 0.5 };

    fn candidate(text: &str) -> Candidate {
        let number = |name| {
            let part = text.split(' ').find_map(|part: &str| part.strip_prefix(name));
            part.map(|number| number.parse().unwrap())
        };
        Candidate {
            is_up: !text.contains("down"),
            is_backup: text.contains("backup"),
            load: number("load=").unwrap_or(0),
            latency: number("ms=").map(|millis| Duration::from_millis(u64::from(millis))),
        }
    }

    #[test]
    fn the_order_of_asking() {
        type Texts = &'static [&'static str];
        let rows: [(Texts, Rule, [f64; 2], &[usize]); 14] = [
            (&[], ORDERED, [0.0, 0.0], &[]),
            (&["down"], SPREAD, [0.9, 0.9], &[0]),
            (&["", "", ""], ORDERED, [0.9, 0.9], &[0, 1, 2]),
            (&["down", "", ""], ORDERED, [0.0, 0.0], &[1, 2, 0]),
            (&["down", "down", ""], ORDERED, [0.0, 0.0], &[0, 1, 2]), // panic: a third is alive
            (&["down", "", "backup"], ORDERED, [0.0, 0.0], &[1, 2, 0]),
            (&["backup", ""], ORDERED, [0.0, 0.0], &[1, 0]),
            (&["down", "backup"], ORDERED, [0.0, 0.0], &[1, 0]),
            (&["down", "down backup"], ORDERED, [0.0, 0.0], &[0, 1]),
            (&["load=5", "load=4", "load=0"], SPREAD, [0.0, 0.0], &[1, 0, 2]), // of the two picked
            (&["load=5", "load=4", "load=0"], SPREAD, [0.9, 0.0], &[2, 0, 1]),
            (&["load=1 ms=10", "load=0 ms=100"], SPREAD, [0.0, 0.0], &[0, 1]),
            (&["load=1 ms=10", "load=0"], SPREAD, [0.0, 0.0], &[1, 0]),
            (&["load=9", "load=9", "backup"], SPREAD, [0.5, 0.9], &[1, 0, 2]),
        ];
        for (texts, rule, chances, want) in rows {
            let candidates: Vec<_> = texts.iter().map(|text| candidate(text)).collect();
            assert_eq!(order(&candidates, rule, chances), want, "{texts:?} {rule:?} {chances:?}");
        }
    }

    proptest! {
        #[test]
        fn each_stands_in_the_order_once(
            candidates in proptest::collection::vec((any::<bool>(), any::<bool>(), 0_u32..9), 0..9),
            spreads: bool,
            panic_threshold in 0.0_f64..1.0,
            chances in [0.0_f64..1.0, 0.0_f64..1.0],
        ) {
            let candidates: Vec<_> = candidates
                .into_iter()
                .map(|(is_up, is_backup, load)| Candidate { is_up, is_backup, load, latency: None })
                .collect();
            let rule = Rule { spreads, panic_threshold };
            let mut order = order(&candidates, rule, chances);
            order.sort_unstable();
            prop_assert_eq!(order, (0..candidates.len()).collect::<Vec<_>>());
        }
    }
}
