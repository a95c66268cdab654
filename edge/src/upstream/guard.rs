//! What stands between an edge and the failures of one origin: its breaker, its retry budget, its
//! measured latency, its health. One for all cores, off the path of hits.
//!
//! Each is a machine of its own that knows neither clock nor chance; here they get both, behind
//! short locks that are never held across a wait, and their changes are told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode};
use meridian_config::edge::Upstream as Config;
use meridian_config::edge::resilience::FirstByte;
use tracing::{info, warn};

use crate::error::FetchError;
use crate::upstream::backoff;
use crate::upstream::breaker::{self, Breaker, Change, Forced, Outcome, Permit, Phase, Reason};
use crate::upstream::budget::{self, Budget};
use crate::upstream::gradient::Gradient;
use crate::upstream::health::{self, Health, Sign};
use crate::upstream::latency::{Adaptive, Latency};

/// See the module.
#[derive(Debug)]
pub(crate) struct Guard {
    name: String,
    pub(crate) retry: Retry,
    has_breaker: Option<bool>,
    failures: Vec<u16>,
    slow_call: Duration,
    first_byte: Deadline,
    breaker: Mutex<Breaker>,
    budget: Mutex<Budget>,
    latency: Mutex<Latency>,
    health: Mutex<Health>,
    gradient: Option<Mutex<Gradient>>,
    pub(crate) counters: Counters,
}

/// When a request goes out once more.
#[derive(Debug)]
pub(crate) struct Retry {
    /// `None`: as the site says.
    pub(crate) enabled: Option<bool>,
    pub(crate) retries: u32,
    pub(crate) statuses: Vec<u16>,
    pub(crate) timeouts: bool,
    pub(crate) backoff: backoff::Settings,
}

impl Retry {
    /// How long the retry number `retries` waits; `None`: the origin wants it later than anybody
    /// should wait.
    pub(crate) fn pause(
        &self,
        retries: u32,
        answer: Option<&HeaderMap>,
        wall: SystemTime,
    ) -> Option<Duration> {
        let asked = answer.and_then(|answer| backoff::retry_after(answer, wall));
        backoff::pause(&self.backoff, retries, asked, chance())
    }
}

#[derive(Debug, Clone, Copy)]
enum Deadline {
    Fixed(Duration),
    Adaptive(Adaptive),
}

/// What it did.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests that went out for the first time.
    pub(crate) asked: AtomicU64,
    /// Requests that went out once more.
    pub(crate) retried: AtomicU64,
    /// Retries that the budget did not grant.
    pub(crate) unbudgeted: AtomicU64,
    /// Requests over a kept connection that had ended, sent again over a new one.
    pub(crate) replayed: AtomicU64,
    /// Requests that the breaker refused.
    pub(crate) refused: AtomicU64,
    pub(crate) checks_failed: AtomicU64,
    /// Transitions of the breaker, in the order of [`Reason::ALL`].
    pub(crate) changes: [AtomicU64; Reason::ALL.len()],
}

/// A number from 0 up to but without 1.
fn chance() -> f64 {
    rand::random()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guard {
    pub(crate) fn new(config: &Config, now: Instant) -> Arc<Self> {
        let (retry, breaker, health) = (&config.retry, &config.breaker, &config.health);
        let budget = budget::Settings {
            share: retry.budget_share.get(),
            floor: retry.budget_floor,
            window: retry.budget_window.get(),
        };
        let adaptive = &config.adaptive;
        let first_byte = match config.first_byte_timeout {
            FirstByte::Fixed(time) => Deadline::Fixed(time.get()),
            FirstByte::Adaptive => Deadline::Adaptive(Adaptive {
                quantile: adaptive.quantile.get(),
                factor: adaptive.factor,
                floor: adaptive.floor.get(),
                ceiling: adaptive.ceiling.get(),
                min_samples: f64::from(adaptive.min_samples.get()),
            }),
        };
        let most = config.max_requests.get();
        Arc::new(Self {
            name: config.name.to_string(),
            retry: Retry {
                enabled: retry.enabled,
                retries: retry.retries,
                statuses: retry.statuses.clone(),
                timeouts: retry.timeouts,
                backoff: backoff::Settings { base: retry.pause.get(), most: retry.pause_max.get() },
            },
            has_breaker: breaker.enabled,
            failures: breaker.statuses.clone(),
            slow_call: breaker.slow_call.get(),
            first_byte,
            breaker: Mutex::new(Breaker::new(settings(breaker), now)),
            budget: Mutex::new(Budget::new(budget, now)),
            latency: Mutex::new(Latency::new(adaptive.half_life.get(), now)),
            health: Mutex::new(Health::new(health::Settings {
                unhealthy_after: health.unhealthy_after.get(),
                healthy_after: health.healthy_after.get(),
                passive_failures: health.passive_failures,
                ejection: health.ejection.get(),
                is_checked: health.path.is_some(),
            })),
            gradient: config.adaptive_limit.then(|| Mutex::new(Gradient::new(most))),
            counters: Counters::default(),
        })
    }

    /// Whether a call may go out. `is_resilient`: what the site that asks says of breakers;
    /// `is_timed`: how long it takes says something about the origin.
    ///
    /// # Errors
    /// When the breaker refuses it.
    pub(crate) fn admit(
        self: &Arc<Self>,
        is_resilient: bool,
        is_timed: bool,
        now: Instant,
    ) -> Result<Call, FetchError> {
        let mut breaker = lock(&self.breaker);
        // What an operator says holds for every site.
        if !self.has_breaker(is_resilient) && breaker.forced() == Forced::Auto {
            drop(breaker);
            return Ok(Call::new(self, None));
        }
        let change = breaker.tick(now, chance());
        let admitted = breaker.admit(now, chance());
        if let (false, Ok(permit)) = (is_timed, &admitted) {
            breaker.untimed(permit);
        }
        drop(breaker);
        self.tell(change);
        match admitted {
            Ok(permit) => Ok(Call::new(self, Some(permit))),
            Err(refusal) => {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                let (upstream, retry_after) = (self.name.clone(), refusal.retry_after);
                Err(FetchError::DestinationUnavailable { upstream, retry_after })
            }
        }
    }

    /// Whether the calls of a site obey the breaker; `is_resilient`: what the site says.
    pub(crate) fn has_breaker(&self, is_resilient: bool) -> bool {
        self.has_breaker.unwrap_or(is_resilient)
    }

    /// Obeys an operator.
    pub(crate) fn force(&self, forced: Forced, now: Instant) {
        let change = lock(&self.breaker).force(forced, now);
        self.tell(change);
    }

    /// What time alone brings about.
    pub(crate) fn tick(&self, now: Instant) {
        let change = lock(&self.breaker).tick(now, chance());
        self.tell(change);
    }

    pub(crate) fn phase(&self) -> (Phase, Forced, u64) {
        let breaker = lock(&self.breaker);
        (breaker.phase(), breaker.forced(), breaker.probes())
    }

    fn tell(&self, change: Option<Change>) {
        let Some(Change { from, to, reason }) = change else { return };
        let count = Reason::ALL.iter().zip(&self.counters.changes).find(|(one, _)| **one == reason);
        if let Some((_, count)) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let (origin, from, reason) = (&self.name, from.token(), reason.token());
        match to {
            Phase::Open => {
                warn!(target: "event", origin, from, to = to.token(), reason, "a breaker changed");
            }
            Phase::Closed | Phase::RampingUp | Phase::HalfOpen => {
                info!(target: "event", origin, from, to = to.token(), reason, "a breaker changed");
            }
        }
    }

    /// A request goes out for the first time.
    pub(crate) fn first(&self, now: Instant) {
        self.counters.asked.fetch_add(1, Ordering::Relaxed);
        lock(&self.budget).earn(now);
    }

    /// Whether a request may go out once more.
    pub(crate) fn once_more(&self, now: Instant) -> bool {
        let granted = lock(&self.budget).spend(now);
        let counters = &self.counters;
        let counter = if granted { &counters.retried } else { &counters.unbudgeted };
        counter.fetch_add(1, Ordering::Relaxed);
        granted
    }

    /// How long an answer may take to begin.
    pub(crate) fn first_byte(&self, now: Instant) -> Duration {
        match &self.first_byte {
            Deadline::Fixed(time) => *time,
            Deadline::Adaptive(adaptive) => adaptive.deadline(&lock(&self.latency), now),
        }
    }

    /// A quantile of what its answers took to begin.
    pub(crate) fn latency(&self, share: f64) -> Option<Duration> {
        lock(&self.latency).quantile(share)
    }

    pub(crate) fn is_up(&self, now: Instant) -> bool {
        lock(&self.health).is_up(now)
    }

    pub(crate) fn slow_call(&self) -> Duration {
        self.slow_call
    }

    /// Takes in a sign of life or of its absence.
    pub(crate) fn see(&self, sign: Sign, now: Instant) {
        if sign == Sign::CheckFailed {
            self.counters.checks_failed.fetch_add(1, Ordering::Relaxed);
        }
        let changed = lock(&self.health).see(sign, now);
        let origin = &self.name;
        match changed {
            Some(true) => info!(target: "event", origin, "an origin looks alive again"),
            Some(false) => warn!(target: "event", origin, "an origin looks dead: asked last"),
            None => {}
        }
    }

    /// The limit of requests at once that latency suggests, if it is to adapt.
    pub(crate) fn adapted(&self, took: Duration, in_flight: u32) -> Option<u32> {
        self.gradient.as_ref().map(|gradient| lock(gradient).add(took, in_flight))
    }
}

fn settings(config: &meridian_config::edge::resilience::Breaker) -> breaker::Settings {
    breaker::Settings {
        consecutive_failures: config.consecutive_failures,
        window: config.window.get(),
        min_calls: config.min_calls.get(),
        failure_share: config.failure_share.get(),
        slow_share: config.slow_share.get(),
        cool_down: config.cool_down.get(),
        cool_down_max: config.cool_down_max.get(),
        probes: config.probes.get(),
        probe_timeout: config.probe_timeout.get(),
        ramp_up: config.ramp_up.get(),
    }
}

/// A call that was admitted. Dropped without a report it says nothing: its client has left.
#[derive(Debug)]
pub(crate) struct Call {
    guard: Arc<Guard>,
    permit: Option<Permit>,
    ended: bool,
}

impl Call {
    fn new(guard: &Arc<Guard>, permit: Option<Permit>) -> Self {
        Self { guard: Arc::clone(guard), permit, ended: false }
    }

    /// It takes too long already.
    pub(crate) fn is_slow(&mut self, now: Instant) {
        self.report(Outcome::Slow, now);
    }

    /// It ended: an answer with this status began after `took`, where that could be measured.
    pub(crate) fn answered(mut self, status: StatusCode, took: Option<Duration>, now: Instant) {
        if let Some(took) = took {
            lock(&self.guard.latency).add(took, now);
        }
        let has_failed = self.guard.failures.contains(&status.as_u16());
        let is_slow = took.is_some_and(|took| took >= self.guard.slow_call);
        self.guard.see(if has_failed { Sign::CallFailed } else { Sign::CallGood }, now);
        self.ended = true;
        self.report(
            match (has_failed, is_slow) {
                (true, _) => Outcome::Failure,
                (false, true) => Outcome::Slow,
                (false, false) => Outcome::Success,
            },
            now,
        );
    }

    /// It ended without an answer.
    pub(crate) fn failed(mut self, error: &FetchError, now: Instant) {
        if error.is_of_client() || matches!(error, FetchError::ConnectionLimitReached { .. }) {
            return; // which says nothing about the origin
        }
        if let FetchError::HttpResponseTimeout { limit, .. } = error {
            // It would have taken at least as long: without this a deadline that adapts to a slow
            // origin would never learn that it is slow.
            lock(&self.guard.latency).add(*limit, now);
        }
        self.guard.see(Sign::CallFailed, now);
        self.ended = true;
        self.report(Outcome::Failure, now);
    }

    fn report(&mut self, outcome: Outcome, now: Instant) {
        let Some(permit) = &mut self.permit else { return };
        let change = lock(&self.guard.breaker).report(permit, outcome, now, chance());
        self.guard.tell(change);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended
            && let Some(permit) = &mut self.permit
        {
            // No time passes with it: whatever the clock says, its place is free.
            lock(&self.guard.breaker).abandon(permit);
        }
    }
}
