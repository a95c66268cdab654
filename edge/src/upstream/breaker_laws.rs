//! The laws of [`crate::upstream::breaker`]: its life cycle, every state by every event, and what
//! holds whatever happens, also when probes hang.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use crate::upstream::breaker::{Breaker, Change, Forced, Outcome, Permit, Phase, Reason, Settings};

const SETTINGS: Settings = Settings {
    consecutive_failures: 2,
    window: Duration::from_secs(10),
    min_calls: 10,
    failure_share: 0.5,
    slow_share: 0.5,
    cool_down: Duration::from_secs(1),
    cool_down_max: Duration::from_secs(10),
    probes: 2,
    probe_timeout: Duration::from_secs(5),
    ramp_up: Duration::from_secs(4),
};

#[expect(clippy::disallowed_methods, reason = "any point in time will do to begin with")]
fn began() -> Instant {
    Instant::now()
}

/// A breaker with its clock and the permits that are out.
struct World {
    breaker: Breaker,
    now: Instant,
    out: Vec<Permit>,
}

impl World {
    fn new(settings: Settings) -> Self {
        let now = began();
        Self { breaker: Breaker::new(settings, now), now, out: Vec::new() }
    }

    fn pass(&mut self, time: Duration) -> Option<Change> {
        self.now += time;
        self.breaker.tick(self.now, 0.0)
    }

    fn admit(&mut self, chance: f64) -> bool {
        self.breaker.tick(self.now, chance);
        let admitted = self.breaker.admit(self.now, chance);
        let is_in = admitted.is_ok();
        self.out.extend(admitted);
        is_in
    }

    fn abandon(&mut self) {
        let permit = self.out.pop().expect("a call is out");
        self.breaker.abandon(&permit);
    }

    fn report(&mut self, outcome: Outcome) -> Option<Change> {
        let mut permit = self.out.pop().expect("a call is out");
        self.breaker.report(&mut permit, outcome, self.now, 0.0)
    }

    fn call(&mut self, outcome: Outcome) -> Option<Change> {
        assert!(self.admit(0.0), "it is admitted");
        self.report(outcome)
    }

    /// Each state with one call out, where the state lets one out.
    fn at(state: &str) -> Self {
        let mut world = Self::new(SETTINGS);
        if state == "forced-closed" {
            world.breaker.force(Forced::Closed, world.now);
        }
        if state == "closed" || state == "forced-closed" {
            world.call(Outcome::Failure); // one more trips it
            world.admit(0.0);
            return world;
        }
        world.admit(0.0);
        let early = world.out.pop().expect("a call is out");
        world.call(Outcome::Failure);
        world.call(Outcome::Failure);
        if state == "open" || state == "forced-open" {
            world.out.push(early); // it was admitted before
            if state == "forced-open" {
                world.breaker.force(Forced::Open, world.now);
            }
            return world;
        }
        world.pass(secs(1));
        if state == "half-open" {
            world.admit(0.0);
            return world;
        }
        world.call(Outcome::Success);
        world.call(Outcome::Success);
        world.call(Outcome::Failure); // one more trips it
        world.admit(0.0);
        world
    }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Admit,
    Report(Outcome),
    Abandon,
    Pass(Duration),
    Force(Forced),
}

/// An event, the state that it leads to, and why.
type Row = (Event, Phase, Option<Reason>);

#[test]
fn life_cycle_every_state_by_every_event() {
    use Event::{Abandon, Admit, Force, Pass, Report};
    use Outcome::{Failure, Slow, Success};
    use Phase::{Closed, HalfOpen, Open, RampingUp};
    let rows: [(&str, Phase, [Row; 10]); 6] = [
        (
            "closed",
            Closed,
            [
                (Admit, Closed, None),
                (Report(Success), Closed, None),
                (Report(Slow), Closed, None), // no failure, and too few calls for a share
                (Report(Failure), Open, Some(Reason::ConsecutiveFailures)),
                (Abandon, Closed, None),
                (Pass(secs(100)), Closed, None),
                (Pass(secs(0)), Closed, None),
                (Force(Forced::Auto), Closed, None),
                (Force(Forced::Open), Open, Some(Reason::Operator)),
                (Force(Forced::Closed), Closed, Some(Reason::Operator)),
            ],
        ),
        (
            "ramping-up",
            RampingUp,
            [
                (Admit, RampingUp, None),
                (Report(Success), RampingUp, None),
                (Report(Slow), RampingUp, None),
                (Report(Failure), Open, Some(Reason::ConsecutiveFailures)),
                (Abandon, RampingUp, None),
                (Pass(secs(4)), Closed, Some(Reason::RampedUp)),
                (Pass(secs(3)), RampingUp, None),
                (Force(Forced::Auto), RampingUp, None),
                (Force(Forced::Open), Open, Some(Reason::Operator)),
                (Force(Forced::Closed), Closed, Some(Reason::Operator)),
            ],
        ),
        (
            "open",
            Open,
            [
                (Admit, Open, None),
                (Report(Success), Open, None), // of a call admitted before: says nothing now
                (Report(Slow), Open, None),
                (Report(Failure), Open, None),
                (Abandon, Open, None),
                (Pass(secs(1)), HalfOpen, Some(Reason::CooledDown)),
                (Pass(Duration::from_millis(999)), Open, None),
                (Force(Forced::Auto), Open, None),
                (Force(Forced::Open), Open, Some(Reason::Operator)),
                (Force(Forced::Closed), Closed, Some(Reason::Operator)),
            ],
        ),
        (
            "half-open",
            HalfOpen,
            [
                (Admit, HalfOpen, None),
                (Report(Success), HalfOpen, None), // one of two
                (Report(Slow), Open, Some(Reason::ProbeFailed)),
                (Report(Failure), Open, Some(Reason::ProbeFailed)),
                (Abandon, HalfOpen, None),
                (Pass(secs(5)), Open, Some(Reason::ProbeExpired)),
                (Pass(Duration::from_millis(4_999)), HalfOpen, None),
                (Force(Forced::Auto), HalfOpen, None),
                (Force(Forced::Open), Open, Some(Reason::Operator)),
                (Force(Forced::Closed), Closed, Some(Reason::Operator)),
            ],
        ),
        (
            "forced-open",
            Open,
            [
                (Admit, Open, None),
                (Report(Success), Open, None),
                (Report(Slow), Open, None),
                (Report(Failure), Open, None),
                (Abandon, Open, None),
                (Pass(secs(1_000)), Open, None),
                (Pass(secs(1)), Open, None),
                (Force(Forced::Auto), HalfOpen, Some(Reason::Operator)), // probes before trust
                (Force(Forced::Open), Open, None),
                (Force(Forced::Closed), Closed, Some(Reason::Operator)),
            ],
        ),
        (
            "forced-closed",
            Closed,
            [
                (Admit, Closed, None),
                (Report(Success), Closed, None),
                (Report(Slow), Closed, None),
                (Report(Failure), Closed, None),
                (Abandon, Closed, None),
                (Pass(secs(1_000)), Closed, None),
                (Pass(secs(1)), Closed, None),
                (Force(Forced::Auto), Closed, Some(Reason::Operator)),
                (Force(Forced::Open), Open, Some(Reason::Operator)),
                (Force(Forced::Closed), Closed, None),
            ],
        ),
    ];
    for (state, begins, events) in rows {
        for (event, want, reason) in events {
            let mut world = World::at(state);
            assert_eq!(world.breaker.phase(), begins, "{state}");
            let change = match event {
                Admit => {
                    let admits = world.admit(0.0);
                    assert_eq!(admits, begins != Open, "{state} admits");
                    None
                }
                Report(outcome) => world.report(outcome),
                Abandon => {
                    world.abandon();
                    None
                }
                Pass(time) => world.pass(time),
                Force(forced) => world.breaker.force(forced, world.now),
            };
            assert_eq!(world.breaker.phase(), want, "{state}, {event:?}");
            assert_eq!(change.map(|change| change.reason), reason, "{state}, {event:?}");
            if let Some(change) = change {
                assert_eq!((change.from, change.to), (begins, want), "{state}, {event:?}");
            }
        }
    }
}

#[test]
fn a_share_of_failures_or_of_slow_calls_trips_it_once_there_are_enough_calls() {
    use Outcome::{Failure, Slow, Success};
    let shares = Settings { consecutive_failures: 0, ..SETTINGS };
    type Calls = &'static [(Outcome, usize)];
    let rows: [(Calls, Option<Reason>); 7] = [
        (&[(Failure, 9)], None), // fewer than min_calls
        (&[(Failure, 10)], Some(Reason::FailureShare)),
        (&[(Success, 6), (Failure, 5)], None),
        (&[(Success, 5), (Failure, 5)], Some(Reason::FailureShare)),
        (&[(Success, 6), (Slow, 5)], None),
        (&[(Success, 5), (Slow, 5)], Some(Reason::SlowShare)),
        (&[(Success, 4), (Failure, 3), (Slow, 3)], None), // each share for itself
    ];
    for (calls, want) in rows {
        let mut world = World::new(shares);
        let mut reason = None;
        for (outcome, times) in calls {
            for _ in 0..*times {
                assert_eq!(reason, None, "{calls:?} trips with the last call");
                reason = world.call(*outcome).map(|change| change.reason);
            }
        }
        assert_eq!(reason, want, "{calls:?}");
    }
}

#[test]
fn a_call_that_is_slow_and_then_ends_is_one_call() {
    let settings = Settings { consecutive_failures: 0, min_calls: 2, ..SETTINGS };
    let mut world = World::new(settings);
    world.admit(0.0);
    let mut permit = world.out.pop().expect("a call is out");
    for outcome in [Outcome::Slow, Outcome::Slow, Outcome::Success] {
        let change = world.breaker.report(&mut permit, outcome, world.now, 0.0);
        assert_eq!(change, None, "one call only, however often it is told of");
    }
}

#[test]
fn an_upload_is_no_probe_for_long_and_its_failure_counts_however_late() {
    for (outcome, want) in [(Outcome::Failure, Phase::Open), (Outcome::Success, Phase::HalfOpen)] {
        let mut world = World::at("half-open"); // one probe of two is out
        let mut upload = world.out.pop().expect("a probe is out");
        world.breaker.untimed(&upload);
        world.pass(secs(5));
        assert_eq!(world.breaker.phase(), Phase::HalfOpen, "that is its client's own time");
        for _ in 0..2 {
            world.breaker.admit(world.now, 0.0).expect("its place is free");
        }
        assert!(world.breaker.admit(world.now, 0.0).is_err());
        world.breaker.report(&mut upload, outcome, world.now, 0.0);
        assert_eq!(world.breaker.phase(), want, "{outcome:?}");
    }
}

#[test]
fn what_failed_long_ago_does_not_count() {
    let mut world = World::new(Settings { consecutive_failures: 0, ..SETTINGS });
    for _ in 0..9 {
        world.call(Outcome::Failure);
    }
    world.pass(secs(10));
    assert_eq!(world.call(Outcome::Failure), None);
}

#[test]
fn the_cool_down_doubles_up_to_its_cap_is_eased_by_probes_and_begins_anew_after_the_ramp() {
    let mut world = World::new(SETTINGS);
    let cooled = |world: &mut World| {
        let refused = world.breaker.admit(world.now, 0.0).expect_err("it is open");
        world.pass(refused.retry_after);
        assert_eq!(world.breaker.phase(), Phase::HalfOpen);
        refused.retry_after.as_secs_f64()
    };
    world.call(Outcome::Failure);
    world.call(Outcome::Failure);
    for want in [1.0, 2.0, 4.0, 8.0, 10.0, 10.0] {
        assert_eq!(cooled(&mut world), want);
        world.call(Outcome::Failure);
    }
    cooled(&mut world);
    for want in [4.0, 2.0, 2.0] {
        world.call(Outcome::Success);
        world.call(Outcome::Success);
        world.call(Outcome::Failure);
        world.call(Outcome::Failure);
        assert_eq!(cooled(&mut world), want, "half of four doublings: the ramp was not over");
    }
    world.call(Outcome::Success);
    world.call(Outcome::Success);
    world.pass(secs(4));
    world.call(Outcome::Failure);
    world.call(Outcome::Failure);
    assert_eq!(cooled(&mut world), 1.0);
}

#[test]
fn jitter_shortens_the_cool_down_by_a_quarter_at_most() {
    for (chance, want) in [(0.0, 1.0), (0.5, 0.875), (0.999_999, 0.75)] {
        let mut breaker = Breaker::new(SETTINGS, began());
        let now = began();
        for _ in 0..2 {
            let mut permit = breaker.admit(now, chance).expect("it is closed");
            breaker.report(&mut permit, Outcome::Failure, now, chance);
        }
        let refused = breaker.admit(now, chance).expect_err("it is open");
        assert!((refused.retry_after.as_secs_f64() - want).abs() < 0.001, "{chance}: {refused:?}");
    }
}

#[test]
fn after_closing_the_admitted_share_grows() {
    let rows = [(0, 0.1), (1, 0.25), (2, 0.5), (3, 0.75)];
    for (second, share) in rows {
        let mut world = World::at("ramping-up");
        world.pass(secs(second));
        assert!(world.breaker.admit(world.now, share - 0.01).is_ok(), "second {second}");
        assert!(world.breaker.admit(world.now, share + 0.01).is_err(), "second {second}");
    }
}

/// A step of a script.
#[derive(Debug, Clone)]
enum Step {
    Admit(f64),
    /// Reports one of the calls that are out.
    Report(usize, Outcome),
    /// Gives one of them up.
    Abandon(usize),
    Pass(Duration),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Failure),
        3 => Just(Outcome::Success),
        1 => Just(Outcome::Slow),
    ];
    let step = prop_oneof![
        5 => (0.0..1.0).prop_map(Step::Admit),
        3 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::Report(which, outcome)),
        1 => any::<usize>().prop_map(Step::Abandon),
        2 => (0_u64..3_000).prop_map(|millis| Step::Pass(Duration::from_millis(millis))),
    ];
    proptest::collection::vec(step, 0..200)
}

/// Plays `script` on a breaker with `settings`, judged by `limits`: in half-open never more than the
/// allowed probes are out, those that hang included; and whatever hangs then, after a bounded time
/// somebody is admitted again.
fn obeys(settings: Settings, limits: &Settings, script: &[Step]) -> Result<(), String> {
    let mut world = World::new(settings);
    // Admitted in this stretch of half-open and not heard of since.
    let mut probes: Vec<Permit> = Vec::new();
    let mut calls: Vec<Permit> = Vec::new();
    let mut was = world.breaker.phase();
    for step in script {
        match step {
            Step::Admit(chance) => {
                world.breaker.tick(world.now, *chance);
                if world.breaker.phase() != was {
                    calls.append(&mut probes);
                }
                let is_probe = world.breaker.phase() == Phase::HalfOpen;
                if let Ok(permit) = world.breaker.admit(world.now, *chance) {
                    if is_probe { probes.push(permit) } else { calls.push(permit) }
                }
            }
            Step::Report(which, outcome) => {
                let from = if which % 2 == 0 { &mut probes } else { &mut calls };
                if !from.is_empty() {
                    let mut permit = from.swap_remove(which / 2 % from.len());
                    world.breaker.report(&mut permit, *outcome, world.now, 0.5);
                }
            }
            Step::Abandon(which) => {
                if !probes.is_empty() {
                    let permit = probes.swap_remove(which % probes.len());
                    world.breaker.abandon(&permit);
                }
            }
            Step::Pass(time) => {
                world.pass(*time);
            }
        }
        if world.breaker.phase() != was {
            calls.append(&mut probes);
            was = world.breaker.phase();
        }
        if probes.len() > limits.probes as usize {
            return Err(format!("{} probes are out after {step:?}", probes.len()));
        }
    }
    // From here on nothing is reported any more.
    let longest = limits.cool_down_max + limits.probe_timeout + limits.ramp_up;
    let (end, mut last) = (world.now + 3 * longest, world.now);
    while world.now <= end {
        world.pass(Duration::from_millis(100));
        if world.breaker.admit(world.now, 0.0).is_ok() {
            last = world.now;
        }
        if world.now.saturating_duration_since(last) > longest {
            return Err(format!("nobody is admitted for {longest:?}"));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn never_more_than_the_allowed_probes_and_never_stuck(script in steps()) {
        prop_assert_eq!(obeys(SETTINGS, &SETTINGS, &script), Ok(()));
    }
}

#[test]
fn the_law_catches_a_breaker_whose_probe_cannot_expire_and_one_with_a_probe_too_many() {
    let century = Duration::from_secs(100 * 365 * 86_400);
    let rows = [
        (Settings { probe_timeout: century, ..SETTINGS }, "nobody is admitted"),
        (Settings { probes: 3, ..SETTINGS }, "3 probes are out"),
    ];
    for (broken, want) in rows {
        let mut runner = TestRunner::new(Config {
            failure_persistence: None,
            cases: 2_000,
            ..Config::default()
        });
        let caught = runner
            .run(&steps(), |script| obeys(broken, &SETTINGS, &script).map_err(TestCaseError::fail));
        match caught {
            Err(TestError::Fail(why, _)) => assert!(why.message().contains(want), "{why}"),
            other => panic!("{want}: not caught, {other:?}"),
        }
    }
}
