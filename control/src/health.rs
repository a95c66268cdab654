//! From beats to the state of an edge, and from edges to the state of a region. Pure.
//!
//! Answers how an edge is, never what to do about it. One observer: this replica.
//!
//! # Invariants
//! - Reads no clock; time that runs backwards counts as standing still.
//! - An edge is never healthy after `lapse` without a beat.
//! - Once unhealthy, only beats over a span of `recovery`, none further apart than `lapse`, make it
//!   healthy: a process that dies and starts in circles takes no clients.
//! - An edge of which this replica cannot know yet, because it started just now, needs one beat.
//! - The operator's intent wins over every state.

use std::time::{Duration, Instant};

use meridian_control_wire::{EdgeCount, EdgeState, Intent, RegionState};

/// When an edge counts as gone, and as back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Unheard for longer, it is unhealthy.
    pub(crate) lapse: Duration,
    /// Heard again for this long, it is healthy again.
    pub(crate) recovery: Duration,
}

/// What the beats of one edge have told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// Healthy as long as `last` is recent.
    Steady { last: Instant },
    /// Heard again since `first`, not yet for long enough.
    Returning { first: Instant, last: Instant },
    /// Unheard.
    Lost,
    /// Healthy when this replica ended, and the replica only started at `since`.
    Unproven { since: Instant },
    /// Healthy as far as is recorded, and this replica hears the edges only since `since`: another
    /// one heard them before.
    Granted { since: Instant },
}

impl Pulse {
    /// The pulse after a beat.
    pub(crate) fn beaten(self, rules: Rules, now: Instant) -> Self {
        match self.settled(rules, now) {
            Self::Steady { last } => Self::Steady { last: last.max(now) },
            Self::Returning { first, last } => Self::returning(first, last.max(now), rules),
            Self::Lost => Self::returning(now, now, rules),
            Self::Unproven { .. } | Self::Granted { .. } => Self::Steady { last: now },
        }
    }

    fn returning(first: Instant, last: Instant, rules: Rules) -> Self {
        if last.duration_since(first) >= rules.recovery {
            Self::Steady { last }
        } else {
            Self::Returning { first, last }
        }
    }

    /// The pulse now that time has passed.
    pub(crate) fn settled(self, rules: Rules, now: Instant) -> Self {
        match self {
            Self::Steady { last: since }
            | Self::Returning { last: since, .. }
            | Self::Unproven { since }
            | Self::Granted { since }
                if now.saturating_duration_since(since) > rules.lapse =>
            {
                Self::Lost
            }
            Self::Steady { .. }
            | Self::Returning { .. }
            | Self::Unproven { .. }
            | Self::Granted { .. }
            | Self::Lost => self,
        }
    }

    /// How the edge is.
    pub(crate) fn state(self, rules: Rules, now: Instant) -> EdgeState {
        match self.settled(rules, now) {
            Self::Steady { .. } | Self::Granted { .. } => EdgeState::Healthy,
            Self::Returning { .. } | Self::Lost | Self::Unproven { .. } => EdgeState::Unhealthy,
        }
    }

    /// Whether this replica cannot know yet how the edge is.
    pub(crate) fn is_unproven(self, rules: Rules, now: Instant) -> bool {
        matches!(self.settled(rules, now), Self::Unproven { .. } | Self::Granted { .. })
    }
}

/// How a region is.
pub(crate) fn region_state(edges: EdgeCount, intent: Intent) -> RegionState {
    match intent {
        Intent::Drained => RegionState::Drained,
        Intent::Active if edges.healthy == 0 => RegionState::Down,
        Intent::Active if edges.healthy < edges.total => RegionState::Degraded,
        Intent::Active => RegionState::Active,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use meridian_control_wire::EdgeState::{Healthy, Unhealthy};
    use meridian_control_wire::{EdgeCount, Intent, RegionState};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Pulse, Rules, region_state};

    const RULES: Rules =
        Rules { lapse: Duration::from_millis(1_000), recovery: Duration::from_millis(500) };

    fn start() -> Instant {
        crate::world::now()
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn an_edge_lapses_after_the_limit_and_not_at_it() {
        let t = start();
        let pulse = Pulse::Steady { last: t };
        assert_eq!(pulse.state(RULES, t + ms(1_000)), Healthy);
        assert_eq!(pulse.state(RULES, t + ms(1_001)), Unhealthy);
    }

    #[test]
    fn an_edge_recovers_by_beats_over_a_span_and_not_by_the_first() {
        let t = start();
        let rows = [
            // beats after the loss, in ms; state at the last of them
            (&[0_u64][..], Unhealthy),
            (&[0, 499], Unhealthy),
            (&[0, 500], Healthy),
            (&[0, 250, 500], Healthy),
            (&[0, 1_001], Unhealthy), // lapsed between: it counts from anew
            (&[0, 1_001, 1_500], Unhealthy),
            (&[0, 1_001, 1_501], Healthy),
        ];
        for (beats, want) in rows {
            let mut pulse = Pulse::Lost;
            for at in beats {
                pulse = pulse.beaten(RULES, t + ms(*at));
            }
            let now = t + ms(*beats.last().unwrap());
            assert_eq!(pulse.state(RULES, now), want, "{beats:?}");
        }
    }

    #[test]
    fn time_alone_never_heals() {
        let t = start();
        let pulse = Pulse::Lost.beaten(RULES, t);
        for at in 0..5_000 {
            assert_eq!(pulse.state(RULES, t + ms(at)), Unhealthy, "{at}");
        }
    }

    #[test]
    fn without_recovery_the_first_beat_heals() {
        let rules = Rules { recovery: Duration::ZERO, ..RULES };
        let t = start();
        assert_eq!(Pulse::Lost.beaten(rules, t).state(rules, t), Healthy);
    }

    #[test]
    fn after_a_restart_one_beat_proves_an_edge_and_a_lapse_disproves_it() {
        let t = start();
        let pulse = Pulse::Unproven { since: t };
        assert_eq!(pulse.state(RULES, t), Unhealthy);
        assert!(pulse.is_unproven(RULES, t + ms(1_000)));
        assert_eq!(pulse.beaten(RULES, t + ms(1_000)).state(RULES, t + ms(1_000)), Healthy);
        assert!(!pulse.is_unproven(RULES, t + ms(1_001)));
        assert_eq!(pulse.beaten(RULES, t + ms(1_001)).state(RULES, t + ms(1_001)), Unhealthy);
    }

    #[test]
    fn a_region_follows_its_edges_and_the_intent_wins() {
        let rows = [
            ((0, 0), Intent::Active, RegionState::Down),
            ((2, 2), Intent::Active, RegionState::Active),
            ((2, 1), Intent::Active, RegionState::Degraded),
            ((2, 0), Intent::Active, RegionState::Down),
            ((2, 2), Intent::Drained, RegionState::Drained),
            ((0, 0), Intent::Drained, RegionState::Drained),
        ];
        for ((total, healthy), intent, want) in rows {
            assert_eq!(region_state(EdgeCount { total, healthy }, intent), want);
        }
    }

    proptest! {
        /// Against the definition: the history of all beats, looked at from its end.
        #[test]
        fn the_state_is_what_the_whole_history_says(
            steps in proptest::collection::vec((0_u64..1_500, any::<bool>()), 1..60),
            healthy_at_first in any::<bool>(),
        ) {
            let t = start();
            let mut now = t;
            let mut pulse = if healthy_at_first { Pulse::Steady { last: t } } else { Pulse::Lost };
            let mut healthy = healthy_at_first;
            let mut run: Vec<Instant> = if healthy_at_first { vec![t] } else { Vec::new() };
            for (wait, beat) in steps {
                now += ms(wait);
                if run.last().is_some_and(|last| now - *last > RULES.lapse) {
                    run.clear();
                    healthy = false;
                }
                if beat {
                    run.push(now);
                    pulse = pulse.beaten(RULES, now);
                    healthy = healthy || now - run[0] >= RULES.recovery;
                } else {
                    pulse = pulse.settled(RULES, now);
                }
                let want = if healthy { Healthy } else { Unhealthy };
                prop_assert_eq!(pulse.state(RULES, now), want);
            }
        }

        #[test]
        fn a_beat_from_the_past_changes_nothing_for_the_worse(back in 0_u64..900) {
            let t = start() + ms(10_000);
            let pulse = Pulse::Steady { last: t }.beaten(RULES, t - ms(back));
            prop_assert_eq!(pulse, Pulse::Steady { last: t });
        }
    }
}
