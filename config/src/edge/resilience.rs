//! What makes the failures of one origin cheap: retries, breaker, health, deadlines that adapt.
//!
//! Each table is of an origin. Whether retries and breaker hold is the site's choice
//! (`site.resilience`) unless the table says `enabled` itself: a profile is a set of defaults.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::{time_limit, within};
use crate::units::{HumanDuration, Ratio};
use crate::violation::{Place, Violation};

const MINUTE: HumanDuration = HumanDuration::secs(60);
const HOUR: HumanDuration = HumanDuration::secs(3_600);

/// How long an answer may take to begin: a time, or what was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstByte {
    /// This long.
    Fixed(HumanDuration),
    /// As `[origin.adaptive]` says.
    Adaptive,
}

impl fmt::Display for FirstByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(time) => time.fmt(f),
            Self::Adaptive => f.write_str("adaptive"),
        }
    }
}

impl FromStr for FirstByte {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "adaptive" {
            return Ok(Self::Adaptive);
        }
        let fixed = text.parse().map(Self::Fixed);
        fixed.map_err(|rule: String| format!("{rule}; or \"adaptive\""))
    }
}

impl<'de> Deserialize<'de> for FirstByte {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for FirstByte {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// `[origin.adaptive]`: the deadline of the first byte, from measured latency.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Adaptive {
    /// The share of answers that began in time.
    pub quantile: Ratio,
    /// Times what that quantile took.
    pub factor: f64,
    /// Not below this.
    pub floor: HumanDuration,
    /// Not above this, which also holds until there are enough samples.
    pub ceiling: HumanDuration,
    /// Samples that it needs.
    pub min_samples: NonZeroU32,
    /// A sample weighs half as much after this.
    pub half_life: HumanDuration,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            quantile: Ratio::new(0.999),
            factor: 3.0, // the slowest of a thousand is not the slowest
            floor: HumanDuration::millis(250), // a pause of a garbage collector
            ceiling: HumanDuration::secs(15), // the fixed default
            min_samples: some(1_000), // one beyond the quantile
            half_life: HumanDuration::secs(300), // a deploy is seen within minutes
        }
    }
}

impl Adaptive {
    pub(super) fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        within(&at.key("factor"), self.factor, 1.0, 100.0, found);
        time_limit(&at.key("floor"), self.floor, HOUR, found);
        time_limit(&at.key("ceiling"), self.ceiling, HOUR, found);
        time_limit(&at.key("half_life"), self.half_life, HOUR, found);
        if self.ceiling < self.floor {
            let rule = format!("must be at least floor = \"{}\"", self.floor);
            found.push(at.key("ceiling").breaks(&self.ceiling, rule).with(&at.key("floor")));
        }
    }
}

/// `[origin.retry]`: when a request goes out once more.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Retry {
    /// Whether it does at all. Default: what the site's `resilience` says.
    pub enabled: Option<bool>,
    /// Further attempts for one request.
    pub retries: u32,
    /// Answers that are worth another attempt, unless they have validators or say for how long
    /// they are fresh.
    pub statuses: Vec<u16>,
    /// Whether an origin that did not answer in time is asked again.
    pub timeouts: bool,
    /// The first attempt after this at most: a random part of it is waited.
    pub pause: HumanDuration,
    /// It doubles up to this. Also the longest `Retry-After` that is waited for.
    pub pause_max: HumanDuration,
    /// Retries per request of the last while.
    pub budget_share: Ratio,
    /// Retries per second that are granted however few requests there are.
    pub budget_floor: f64,
    /// That while.
    pub budget_window: HumanDuration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            enabled: None,
            retries: 1,          // what the first does not mend, the second seldom does
            statuses: vec![503], // 502 and 504 are of gateways, which retry themselves: one layer does
            timeouts: false,     // who is slow gets slower by being asked twice
            pause: HumanDuration::millis(25),
            pause_max: HumanDuration::secs(1),
            budget_share: Ratio::new(0.2),
            budget_floor: 1.0,
            budget_window: HumanDuration::secs(10),
        }
    }
}

impl Retry {
    pub(super) fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        within(&at.key("retries"), self.retries, 0, 10, found);
        statuses(&at.key("statuses"), &self.statuses, found);
        within(&at.key("pause"), self.pause, HumanDuration::millis(0), MINUTE, found);
        within(&at.key("pause_max"), self.pause_max, self.pause, MINUTE, found);
        within(&at.key("budget_floor"), self.budget_floor, 0.0, 1_000_000.0, found);
        time_limit(&at.key("budget_window"), self.budget_window, HOUR, found);
    }
}

/// `[origin.breaker]`: when it is no longer asked at all, and how it comes back.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Breaker {
    /// Whether there is one. Default: what the site's `resilience` says.
    pub enabled: Option<bool>,
    /// So many failures in a row open it; 0: none do.
    pub consecutive_failures: u32,
    /// The span over which calls are counted.
    pub window: HumanDuration,
    /// Fewer calls say nothing.
    pub min_calls: NonZeroU32,
    /// This share of failures opens it.
    pub failure_share: Ratio,
    /// Answers that are failures, beside none at all.
    pub statuses: Vec<u16>,
    /// A call whose answer has not begun by then is slow.
    pub slow_call: HumanDuration,
    /// This share of slow calls opens it.
    pub slow_share: Ratio,
    /// How long it stays open at first.
    pub cool_down: HumanDuration,
    /// It doubles each time up to this; closing takes half of the doublings back, the ramp all.
    pub cool_down_max: HumanDuration,
    /// Then so many calls may try, and all must succeed.
    pub probes: NonZeroU32,
    /// One that has not answered by then has failed.
    pub probe_timeout: HumanDuration,
    /// From then on until everything is let through again.
    pub ramp_up: HumanDuration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            enabled: None,
            consecutive_failures: 10, // for sites with few requests, below min_calls
            window: HumanDuration::secs(10),
            min_calls: some(20),
            failure_share: Ratio::new(0.5),
            statuses: vec![502, 503, 504], // a 500 is one page's fault more often than the origin's
            slow_call: HumanDuration::secs(5),
            slow_share: Ratio::new(0.8),
            cool_down: HumanDuration::secs(1),
            cool_down_max: HumanDuration::secs(10),
            probes: some(3),
            probe_timeout: HumanDuration::secs(5),
            ramp_up: HumanDuration::secs(5),
        }
    }
}

impl Breaker {
    pub(super) fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        time_limit(&at.key("window"), self.window, HOUR, found);
        statuses(&at.key("statuses"), &self.statuses, found);
        time_limit(&at.key("slow_call"), self.slow_call, HOUR, found);
        time_limit(&at.key("cool_down"), self.cool_down, HOUR, found);
        within(&at.key("cool_down_max"), self.cool_down_max, self.cool_down, HOUR, found);
        within(&at.key("probes"), self.probes, NonZeroU32::MIN, some(1_000), found);
        time_limit(&at.key("probe_timeout"), self.probe_timeout, HOUR, found);
        within(&at.key("ramp_up"), self.ramp_up, HumanDuration::millis(0), HOUR, found);
        for (key, share) in [("failure_share", self.failure_share), ("slow_share", self.slow_share)]
        {
            if share.get() <= 0.0 {
                found.push(at.key(key).breaks(&share, "must be above 0: it would never close"));
            }
        }
    }
}

/// `[origin.health]`: whether it looks alive. Matters where a site has several origins.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Health {
    /// What is asked for (GET); a status below 400 is good. Default: nothing is.
    pub path: Option<String>,
    /// Between two checks.
    pub interval: HumanDuration,
    /// This share of it is random.
    pub jitter: Ratio,
    /// How long one may take.
    pub timeout: HumanDuration,
    /// So many failed in a row: down.
    pub unhealthy_after: NonZeroU32,
    /// So many good in a row: up.
    pub healthy_after: NonZeroU32,
    /// So many failed requests in a row: down. 0: requests say nothing.
    pub passive_failures: u32,
    /// Without a path: for how long it is then asked last.
    pub ejection: HumanDuration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            path: None,
            interval: HumanDuration::secs(5),
            jitter: Ratio::new(0.2),
            timeout: HumanDuration::secs(2),
            unhealthy_after: some(3),
            healthy_after: some(2),
            passive_failures: 5,
            ejection: HumanDuration::secs(10),
        }
    }
}

impl Health {
    pub(super) fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        if let Some(path) = &self.path
            && !(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let rule = "must begin with '/' and hold visible ASCII characters only";
            found.push(at.key("path").breaks(path, rule));
        }
        time_limit(&at.key("interval"), self.interval, HOUR, found);
        time_limit(&at.key("timeout"), self.timeout, MINUTE, found);
        time_limit(&at.key("ejection"), self.ejection, HOUR, found);
    }
}

fn statuses(at: &Place<'_>, statuses: &[u16], found: &mut Vec<Violation>) {
    for (index, status) in statuses.iter().enumerate() {
        within(&at.index(index), *status, 400, 599, found);
    }
}

fn some(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}
