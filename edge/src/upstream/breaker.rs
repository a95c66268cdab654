//! A circuit breaker: Closed → Open → half-open → Closed or Open. The caller brings the clock and
//! the chance, a number from 0 up to but without 1.
//!
//! Closed, it counts calls over a sliding window and opens when too large a share of them failed or
//! was slow, or when too many failed in a row. Open, it refuses all until it has cooled down; each
//! time it opens the next cool-down doubles. Half-open, it lets a few probes through: all must
//! succeed for it to close, one failure opens it. Closed again, it admits a growing share, so that an
//! origin that is just back is not run over. Probes that succeed take half of the doublings back, and
//! the end of that ramp the rest: an origin that comes and goes is asked in most of the spans in which
//! it is there, and yet ever less often while it is not.
//!
//! # Invariants
//! - Half-open, no more than [`Settings::probes`] are ever out at once, also when none reports.
//! - It never stays half-open: a probe that does not report in time has failed, or makes room for
//!   another where it was its client that took so long.
//! - What was admitted in one state says nothing in a later one.

use std::time::{Duration, Instant};

use crate::upstream::window::Window;

/// The share of requests that is admitted right after it has closed.
const RAMP_FROM: f64 = 0.1;
/// How much shorter than said a cool-down may be, so that edges do not probe in step.
const JITTER: f64 = 0.25;
/// A refusal without a known end is worth asking again after this.
const SOON: Duration = Duration::from_secs(1);

/// When it opens, and how it closes again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Settings {
    /// So many failures in a row open it; 0: no number does.
    pub(crate) consecutive_failures: u32,
    /// The span of the sliding window.
    pub(crate) window: Duration,
    /// Fewer calls in the window say nothing.
    pub(crate) min_calls: u32,
    /// This share of failures opens it.
    pub(crate) failure_share: f64,
    /// This share of slow calls opens it.
    pub(crate) slow_share: f64,
    /// The first cool-down.
    pub(crate) cool_down: Duration,
    /// The longest.
    pub(crate) cool_down_max: Duration,
    /// Probes that are out at once, and that must succeed for it to close. At least 1.
    pub(crate) probes: u32,
    /// A probe that has not reported by then has failed.
    pub(crate) probe_timeout: Duration,
    /// From closing until everything is admitted again.
    pub(crate) ramp_up: Duration,
}

/// What an operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forced {
    /// Nothing: it decides.
    Auto,
    /// Refuse all.
    Open,
    /// Admit all.
    Closed,
}

/// The state, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Closed,
    /// Closed, and admitting a growing share.
    RampingUp,
    Open,
    HalfOpen,
}

/// Why it changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    ConsecutiveFailures,
    FailureShare,
    SlowShare,
    CooledDown,
    ProbeFailed,
    ProbeExpired,
    ProbesSucceeded,
    RampedUp,
    Operator,
}

/// A transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: Phase,
    pub(crate) to: Phase,
    pub(crate) reason: Reason,
}

/// How a call ended, or what is known of it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// In time.
    Success,
    /// It takes too long, whether or not it has ended. May be followed by one of the others.
    Slow,
    /// It failed.
    Failure,
}

/// An admitted call. To be reported.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Permit {
    /// Of the state that admitted it.
    generation: u64,
    /// Its number among the probes.
    probe: Option<u64>,
    /// It was counted as slow already.
    is_counted: bool,
}

/// Not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) retry_after: Duration,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32, window: Box<Window<3>>, ramp_since: Option<Instant> },
    Open { until: Instant },
    HalfOpen { out: Vec<Probe>, succeeded: u32 },
}

#[derive(Debug)]
struct Probe {
    number: u64,
    until: Instant,
    /// How long it takes says something about the origin.
    is_timed: bool,
}

/// The counts of the window.
const CALLS: usize = 0;
const FAILED: usize = 1;
const SLOW: usize = 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Breaker {
    settings: Settings,
    state: State,
    forced: Forced,
    /// Grows with each change of state.
    generation: u64,
    /// How often the next cool-down is doubled. No more than the longest cool-down takes: what was
    /// gone for long is no worse for it.
    doublings: u32,
    /// Probes so far.
    probes: u64,
}

impl Phase {
    /// Every phase, for metrics that are exported from zero.
    pub(crate) const ALL: [Self; 4] = [Self::Closed, Self::RampingUp, Self::Open, Self::HalfOpen];

    /// The word for metrics, logs and people.
    pub(crate) const fn token(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::RampingUp => "ramping-up",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl Reason {
    /// Every reason, for metrics that are exported from zero.
    pub(crate) const ALL: [Self; 9] = [
        Self::ConsecutiveFailures,
        Self::FailureShare,
        Self::SlowShare,
        Self::CooledDown,
        Self::ProbeFailed,
        Self::ProbeExpired,
        Self::ProbesSucceeded,
        Self::RampedUp,
        Self::Operator,
    ];

    /// The word for metrics, logs and people.
    pub(crate) const fn token(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive-failures",
            Self::FailureShare => "failure-share",
            Self::SlowShare => "slow-share",
            Self::CooledDown => "cooled-down",
            Self::ProbeFailed => "probe-failed",
            Self::ProbeExpired => "probe-expired",
            Self::ProbesSucceeded => "probes-succeeded",
            Self::RampedUp => "ramped-up",
            Self::Operator => "operator",
        }
    }
}

impl Forced {
    /// As the admin listener takes it.
    pub(crate) const fn token(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }

    /// From what the admin listener is given.
    pub(crate) fn of(token: &str) -> Option<Self> {
        [Self::Auto, Self::Open, Self::Closed].into_iter().find(|forced| forced.token() == token)
    }
}

impl Breaker {
    pub(crate) fn new(settings: Settings, now: Instant) -> Self {
        let state = closed(&settings, None, now);
        Self { settings, state, forced: Forced::Auto, generation: 0, doublings: 0, probes: 0 }
    }

    pub(crate) fn phase(&self) -> Phase {
        match (self.forced, &self.state) {
            (Forced::Open, _) => Phase::Open,
            (Forced::Closed, _) => Phase::Closed,
            (Forced::Auto, State::Closed { ramp_since: None, .. }) => Phase::Closed,
            (Forced::Auto, State::Closed { ramp_since: Some(_), .. }) => Phase::RampingUp,
            (Forced::Auto, State::Open { .. }) => Phase::Open,
            (Forced::Auto, State::HalfOpen { .. }) => Phase::HalfOpen,
        }
    }

    pub(crate) const fn forced(&self) -> Forced {
        self.forced
    }

    /// Probes admitted so far.
    pub(crate) const fn probes(&self) -> u64 {
        self.probes
    }

    /// What time alone brings about.
    pub(crate) fn tick(&mut self, now: Instant, chance: f64) -> Option<Change> {
        if self.forced != Forced::Auto {
            return None;
        }
        let from = self.phase();
        let reason = match &mut self.state {
            State::Closed { ramp_since, .. } => {
                let since = (*ramp_since)?;
                if now.saturating_duration_since(since) < self.settings.ramp_up {
                    return None;
                }
                *ramp_since = None;
                self.doublings = 0;
                Reason::RampedUp
            }
            State::Open { until } => {
                if now < *until {
                    return None;
                }
                self.enter(State::HalfOpen { out: Vec::new(), succeeded: 0 });
                Reason::CooledDown
            }
            State::HalfOpen { out, .. } => {
                out.retain(|probe| probe.is_timed || now < probe.until);
                if !out.iter().any(|probe| probe.until <= now) {
                    return None;
                }
                self.open(now, chance);
                Reason::ProbeExpired
            }
        };
        Some(Change { from, to: self.phase(), reason })
    }

    /// Whether a call may go out now, after [`Breaker::tick`].
    ///
    /// # Errors
    /// When it may not.
    pub(crate) fn admit(&mut self, now: Instant, chance: f64) -> Result<Permit, Refusal> {
        let generation = self.generation;
        let permit = |probe| Permit { generation, probe, is_counted: false };
        match self.forced {
            Forced::Auto => {}
            Forced::Open => return Err(Refusal { retry_after: self.settings.cool_down_max }),
            Forced::Closed => return Ok(permit(None)),
        }
        match &mut self.state {
            State::Closed { ramp_since: None, .. } => Ok(permit(None)),
            State::Closed { ramp_since: Some(since), .. } => {
                let past = now.saturating_duration_since(*since).as_secs_f64();
                let share = past / self.settings.ramp_up.as_secs_f64();
                let admits = chance < share.max(RAMP_FROM);
                if admits { Ok(permit(None)) } else { Err(Refusal { retry_after: SOON }) }
            }
            State::Open { until } => {
                Err(Refusal { retry_after: until.saturating_duration_since(now) })
            }
            State::HalfOpen { out, succeeded } => {
                let taken = succeeded.saturating_add(u32::try_from(out.len()).unwrap_or(u32::MAX));
                if taken >= self.settings.probes {
                    return Err(Refusal { retry_after: SOON });
                }
                self.probes += 1;
                let until = now + self.settings.probe_timeout;
                out.push(Probe { number: self.probes, until, is_timed: true });
                Ok(permit(Some(self.probes)))
            }
        }
    }

    /// The call waits for its own client: if that takes too long it says nothing, and a probe's
    /// place goes to another. That it failed is heard all the same.
    pub(crate) fn untimed(&mut self, permit: &Permit) {
        if let State::HalfOpen { out, .. } = &mut self.state {
            let own = out.iter_mut().filter(|probe| Some(probe.number) == permit.probe);
            own.for_each(|probe| probe.is_timed = false);
        }
    }

    /// Hears how a call went.
    pub(crate) fn report(
        &mut self,
        permit: &mut Permit,
        outcome: Outcome,
        now: Instant,
        chance: f64,
    ) -> Option<Change> {
        if permit.generation != self.generation || self.forced != Forced::Auto {
            return None;
        }
        let from = self.phase();
        let reason = match &mut self.state {
            State::Closed { failures, window, .. } => {
                count(failures, window, permit, outcome, now);
                let reason = tripped(&self.settings, *failures, &window.sums(now))?;
                self.open(now, chance);
                reason
            }
            State::Open { .. } => return None,
            State::HalfOpen { out, succeeded } => {
                let was = out.len();
                out.retain(|probe| Some(probe.number) != permit.probe);
                let is_late = out.len() == was; // its place was given to another
                match outcome {
                    Outcome::Slow | Outcome::Success if is_late => return None,
                    Outcome::Slow | Outcome::Failure => {
                        self.open(now, chance);
                        Reason::ProbeFailed
                    }
                    Outcome::Success => {
                        *succeeded += 1;
                        if *succeeded < self.settings.probes {
                            return None;
                        }
                        self.doublings /= 2;
                        self.enter(closed(&self.settings, Some(now), now));
                        Reason::ProbesSucceeded
                    }
                }
            }
        };
        Some(Change { from, to: self.phase(), reason })
    }

    /// A call is given up: its client left before anybody could know. A probe's place is free again.
    pub(crate) fn abandon(&mut self, permit: &Permit) {
        if let State::HalfOpen { out, .. } = &mut self.state
            && permit.generation == self.generation
        {
            out.retain(|probe| Some(probe.number) != permit.probe);
        }
    }

    /// Obeys an operator. Left to itself again it begins with probes where it was held open.
    pub(crate) fn force(&mut self, forced: Forced, now: Instant) -> Option<Change> {
        let from = self.phase();
        if forced == self.forced {
            return None;
        }
        let state = match self.forced {
            Forced::Open => State::HalfOpen { out: Vec::new(), succeeded: 0 },
            Forced::Auto | Forced::Closed => closed(&self.settings, None, now),
        };
        self.enter(state);
        self.doublings = 0;
        self.forced = forced;
        Some(Change { from, to: self.phase(), reason: Reason::Operator })
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }

    fn open(&mut self, now: Instant, chance: f64) {
        let doubled = self.settings.cool_down.saturating_mul(1 << self.doublings.min(20));
        let whole = doubled.min(self.settings.cool_down_max);
        let cool_down = whole.mul_f64(1.0 - JITTER * chance.clamp(0.0, 1.0));
        self.doublings += u32::from(doubled < self.settings.cool_down_max);
        self.enter(State::Open { until: now + cool_down });
    }
}

/// Closed, with nothing counted.
fn closed(settings: &Settings, ramp_since: Option<Instant>, now: Instant) -> State {
    let ramp_since = ramp_since.filter(|_| !settings.ramp_up.is_zero());
    let window = Box::new(Window::new(settings.window, now));
    State::Closed { failures: 0, window, ramp_since }
}

fn count(
    failures: &mut u32,
    window: &mut Window<3>,
    permit: &mut Permit,
    outcome: Outcome,
    now: Instant,
) {
    let is_new = !permit.is_counted;
    match outcome {
        Outcome::Success if is_new => *failures = 0,
        Outcome::Success => return, // it was slow, and counted so
        Outcome::Slow if is_new => window.add(SLOW, 1, now),
        Outcome::Slow => return,
        Outcome::Failure => {
            *failures = failures.saturating_add(1);
            window.add(FAILED, 1, now);
        }
    }
    if is_new {
        window.add(CALLS, 1, now);
        permit.is_counted = true;
    }
}

/// Why it must open, if it must.
fn tripped(settings: &Settings, failures: u32, sums: &[u32; 3]) -> Option<Reason> {
    if settings.consecutive_failures > 0 && failures >= settings.consecutive_failures {
        return Some(Reason::ConsecutiveFailures);
    }
    let [calls, failed, slow] = sums.map(f64::from);
    if calls < f64::from(settings.min_calls.max(1)) {
        return None;
    }
    if failed >= settings.failure_share * calls {
        Some(Reason::FailureShare)
    } else if slow >= settings.slow_share * calls {
        Some(Reason::SlowShare)
    } else {
        None
    }
}
