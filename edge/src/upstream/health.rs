//! Whether an origin looks alive: active checks merged with what calls tell.
//!
//! What is down is asked last; whether it may be asked at all is the breaker's to say.
//!
//! # Invariants
//! - Without checks nobody stays down for longer than [`Settings::ejection`] unless a call fails
//!   again: calls are then the only thing that can tell.

use std::time::{Duration, Instant};

/// When it changes its mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// So many failed checks in a row: down.
    pub(crate) unhealthy_after: u32,
    /// So many good checks or calls in a row: up again.
    pub(crate) healthy_after: u32,
    /// So many failed calls in a row: down. 0: calls say nothing.
    pub(crate) passive_failures: u32,
    /// Without checks: for how long it is then left alone.
    pub(crate) ejection: Duration,
    /// Whether there are active checks.
    pub(crate) is_checked: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Health {
    settings: Settings,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up { failed_checks: u32, failed_calls: u32 },
    Down { good: u32, until: Option<Instant> },
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    CheckGood,
    CheckFailed,
    CallGood,
    CallFailed,
}

impl Health {
    pub(crate) const fn new(settings: Settings) -> Self {
        Self { settings, state: State::Up { failed_checks: 0, failed_calls: 0 } }
    }

    pub(crate) fn is_up(&self, now: Instant) -> bool {
        match self.state {
            State::Up { .. } => true,
            State::Down { until, .. } => until.is_some_and(|until| until <= now),
        }
    }

    /// Takes a sign in. `Some`: it changed its mind, and is up or not.
    pub(crate) fn see(&mut self, sign: Sign, now: Instant) -> Option<bool> {
        let was = matches!(self.state, State::Up { .. });
        if let State::Down { until: Some(until), .. } = self.state
            && until <= now
        {
            // Its time is over: on probation, one more failure sends it down again.
            let failed_calls = self.settings.passive_failures.saturating_sub(1);
            self.state = State::Up { failed_checks: 0, failed_calls };
        }
        match &mut self.state {
            State::Up { failed_checks, failed_calls } => {
                match sign {
                    Sign::CheckGood => *failed_checks = 0,
                    Sign::CallGood => *failed_calls = 0,
                    Sign::CheckFailed => *failed_checks += 1,
                    Sign::CallFailed => *failed_calls += 1,
                }
                let Settings { unhealthy_after, passive_failures, .. } = self.settings;
                let by_calls = passive_failures > 0 && *failed_calls >= passive_failures;
                if *failed_checks >= unhealthy_after.max(1) || by_calls {
                    let until = (!self.settings.is_checked).then(|| now + self.settings.ejection);
                    self.state = State::Down { good: 0, until };
                }
            }
            State::Down { good, .. } => match sign {
                Sign::CheckGood | Sign::CallGood => {
                    *good += 1;
                    if *good >= self.settings.healthy_after {
                        self.state = State::Up { failed_checks: 0, failed_calls: 0 };
                    }
                }
                Sign::CheckFailed | Sign::CallFailed => *good = 0,
            },
        }
        let is = matches!(self.state, State::Up { .. });
        (is != was).then_some(is)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any point in time will do to begin with")]
mod tests {
    use super::Sign::{CallFailed, CallGood, CheckFailed, CheckGood};
    use super::*;

    const CHECKED: Settings = Settings {
        unhealthy_after: 2,
        healthy_after: 2,
        passive_failures: 3,
        ejection: Duration::from_secs(10),
        is_checked: true,
    };

    #[test]
    fn signs_in_a_row_change_its_mind() {
        let passive = Settings { is_checked: false, ..CHECKED };
        let deaf = Settings { passive_failures: 0, ..CHECKED };
        let rows: [(Settings, &[Sign], bool); 12] = [
            (CHECKED, &[CheckFailed], true),
            (CHECKED, &[CheckFailed, CheckFailed], false),
            (CHECKED, &[CheckFailed, CheckGood, CheckFailed], true),
            (CHECKED, &[CallFailed, CallFailed], true),
            (CHECKED, &[CallFailed, CallFailed, CallFailed], false),
            (CHECKED, &[CallFailed, CallFailed, CallGood, CallFailed], true),
            (CHECKED, &[CallFailed, CallFailed, CheckGood, CallFailed], false), // only its check works
            (CHECKED, &[CheckFailed, CheckFailed, CheckGood], false),
            (CHECKED, &[CheckFailed, CheckFailed, CheckGood, CallFailed, CheckGood], false),
            (CHECKED, &[CheckFailed, CheckFailed, CheckGood, CallGood], true),
            (passive, &[CallFailed, CallFailed, CallFailed], false),
            (deaf, &[CallFailed; 50], true),
        ];
        for (settings, signs, want) in rows {
            let now = Instant::now();
            let mut health = Health::new(settings);
            for sign in signs {
                health.see(*sign, now);
            }
            assert_eq!(health.is_up(now), want, "{signs:?}");
        }
    }

    #[test]
    fn without_checks_time_gives_it_another_chance_and_one_failure_takes_it() {
        let now = Instant::now();
        let mut health = Health::new(Settings { is_checked: false, ..CHECKED });
        for want in [None, None, Some(false)] {
            assert_eq!(health.see(CallFailed, now), want);
        }
        let later = now + Duration::from_secs(10);
        assert!(!health.is_up(later - Duration::from_millis(1)));
        assert!(health.is_up(later));
        health.see(CallFailed, later);
        assert!(!health.is_up(later), "on probation");
        let much_later = later + Duration::from_secs(10);
        assert_eq!(health.see(CallGood, much_later), Some(true));
        health.see(CallFailed, much_later);
        assert!(health.is_up(much_later), "it has proved itself");
    }
}
