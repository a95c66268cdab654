//! What a [`crate::upstream::breaker`] makes of an origin that comes and goes, on injected time:
//! how often it trips, how many calls it sends into the void, how much it still serves.

use std::time::{Duration, Instant};

use crate::upstream::breaker::{Breaker, Outcome, Phase, Reason, Settings};

/// The defaults of the configuration.
const DEFAULTS: Settings = Settings {
    consecutive_failures: 10,
    window: Duration::from_secs(10),
    min_calls: 20,
    failure_share: 0.5,
    slow_share: 0.8,
    cool_down: Duration::from_secs(1),
    cool_down_max: Duration::from_secs(10),
    probes: 3,
    probe_timeout: Duration::from_secs(5),
    ramp_up: Duration::from_secs(5),
};

const FLAPS: u32 = 60;
/// Calls that come in a second.
const RATE: u32 = 30;

/// What came of it, for each flap where it says nothing else.
#[derive(Debug)]
struct Course {
    trips: f64,
    /// Calls that went out and met nobody.
    in_vain: f64,
    probes: f64,
    /// Of all calls.
    served: f64,
    /// Between two flaps the most calls that went out in the first second after it closed.
    rush: u32,
}

/// Plays an origin that is there for `half`, gone for `half`, and so on.
fn flap(settings: Settings, half: Duration) -> Course {
    #[expect(clippy::disallowed_methods, reason = "any point in time will do to begin with")]
    let began = Instant::now();
    let mut breaker = Breaker::new(settings, began);
    let calls = FLAPS * 2 * RATE * u32::try_from(half.as_millis()).unwrap() / 1_000;
    let (mut trips, mut in_vain, mut served) = (0, 0, 0);
    let (mut closed_at, mut rush, mut most) = (None::<Instant>, 0, 0);
    for call in 0..calls {
        let now = began + Duration::from_secs(1) / RATE * call;
        // Spread evenly, and the same each time.
        let chance = (f64::from(call) * 0.618_033_988_749_895).fract();
        breaker.tick(now, chance);
        let Ok(mut permit) = breaker.admit(now, chance) else { continue };
        if closed_at.is_some_and(|at| now < at + Duration::from_secs(1)) {
            rush += 1;
            most = most.max(rush);
        }
        let is_there = ((now - began).as_millis() / half.as_millis()).is_multiple_of(2);
        let outcome = if is_there { Outcome::Success } else { Outcome::Failure };
        let change = breaker.report(&mut permit, outcome, now, chance);
        served += u32::from(is_there);
        in_vain += u32::from(!is_there);
        let Some(change) = change else { continue };
        trips += u32::from(change.to == Phase::Open && change.reason != Reason::ProbeFailed);
        if change.reason == Reason::ProbesSucceeded {
            (closed_at, rush) = (Some(now), 0);
        }
    }
    let each = |count: f64| count / f64::from(FLAPS);
    Course {
        trips: each(trips.into()),
        in_vain: each(in_vain.into()),
        probes: each(breaker.probes() as f64),
        served: f64::from(served) / f64::from(calls),
        rush: most,
    }
}

/// What is promised of an origin that is there for five seconds and gone for five.
fn obeys(course: &Course) -> Result<(), String> {
    let Course { trips, in_vain, probes, served, rush } = course;
    let cool_downs = 3.0; // after 1, 2 and 4 s, less the jitter, one has found out that it is back
    let most = f64::from(DEFAULTS.consecutive_failures) + cool_downs; // one failed probe reopens it
    let rows = [
        ("it trips more than once for each flap", *trips <= 1.0),
        ("it asks in vain", *in_vain <= most),
        ("it probes too often", *probes <= cool_downs + f64::from(DEFAULTS.probes)),
        ("it serves next to nothing", *served >= 0.1),
        ("all come at once when it is back", *rush <= RATE / 4),
    ];
    match rows.into_iter().find(|(_, holds)| !holds) {
        Some((what, _)) => Err(format!("{what}: {course:?}")),
        None => Ok(()),
    }
}

#[test]
fn an_origin_that_flaps_is_asked_little_in_vain_and_still_serves() {
    let course = flap(DEFAULTS, Duration::from_secs(5));
    assert_eq!(obeys(&course), Ok(()), "{course:?}");
    // Other rhythms: it may serve less, but what it costs stays small.
    for (millis, least) in [(500, 0.0), (1_000, 0.01), (2_000, 0.02), (10_000, 0.1), (30_000, 0.3)]
    {
        let course = flap(DEFAULTS, Duration::from_millis(millis));
        assert!(course.trips <= 1.0 && course.in_vain <= 20.0, "{millis} ms: {course:?}");
        assert!(course.served >= least, "{millis} ms: {course:?}");
    }
}

#[test]
fn the_promise_catches_breakers_that_do_not_damp_or_do_not_come_back() {
    let none = Duration::ZERO;
    let rows = [
        (Settings { ramp_up: none, ..DEFAULTS }, "all come at once"),
        (
            Settings { cool_down: secs(10) / 100, cool_down_max: secs(10) / 100, ..DEFAULTS },
            "it asks in vain",
        ),
        (Settings { cool_down: secs(10), ..DEFAULTS }, "it serves next to nothing"),
        (Settings { consecutive_failures: 0, ..DEFAULTS }, "it asks in vain"),
    ];
    for (broken, want) in rows {
        let why = obeys(&flap(broken, secs(5))).expect_err(want);
        assert!(why.starts_with(want), "{why}");
    }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
