//! What a demo tells: its phases, a line for each second, a verdict for each claim.
//!
//! Answers how that is written down and shown; never what is true of a cluster.
//!
//! # Invariants
//! - A demo succeeds if it judged at least one claim and none of them failed.
//! - What is shown live goes to standard output, or to standard error where a document of JSON
//!   goes to standard output.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::CommandError;
use crate::output::{Format, tell, write_text};

/// From so many seconds a phase on, times are judged; below, a busy machine decides too much.
const JUDGES_TIMES_FROM: u32 = 8;

/// What is told of a demo: one document.
#[derive(Debug, Serialize)]
pub(crate) struct Story {
    /// Its name.
    pub(crate) demo: &'static str,
    /// How long each phase was watched.
    pub(crate) seconds: u32,
    /// Whether times are judged.
    judges_times: bool,
    /// Whether all claims hold.
    pub(crate) ok: bool,
    /// What was done, and when.
    pub(crate) marks: Vec<Mark>,
    /// What was seen, second by second.
    pub(crate) timeline: Vec<Second>,
    /// What is claimed, and what was measured.
    pub(crate) verdicts: Vec<Verdict>,
    #[serde(skip)]
    format: Format,
    #[serde(skip)]
    begun: Instant,
}

/// Something was done.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Mark {
    /// Seconds since the beginning.
    pub(crate) at: f64,
    /// In a word.
    pub(crate) phase: String,
    /// In a sentence.
    pub(crate) text: String,
}

/// What was seen in one second.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Second {
    /// Seconds since the beginning.
    pub(crate) at: f64,
    pub(crate) phase: String,
    /// Requests of clients that came to an end.
    pub(crate) requests: u64,
    /// Answers from the store.
    pub(crate) hits: u64,
    /// Answers that were no longer fresh.
    pub(crate) stale: u64,
    /// Answers of 500 and above, and none at all.
    pub(crate) errors: u64,
    /// Those for paths that were stored.
    pub(crate) stored_errors: u64,
    /// Milliseconds from when a request was due to the last byte.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// Requests that were due and not sent.
    pub(crate) unsent: u64,
    /// What edges asked of the origin, attempts to connect included.
    pub(crate) attempts: u64,
    /// The worst state of any edge's breaker.
    pub(crate) breaker: String,
    /// Of all edges together.
    pub(crate) in_flight: u64,
    pub(crate) queue: u64,
    pub(crate) connections: u64,
    /// Requests of clients under way at the edges.
    pub(crate) clients: u64,
    pub(crate) tasks: u64,
    pub(crate) files: u64,
    /// Memory of all edges, where it can be seen.
    pub(crate) memory_mib: Option<u64>,
}

/// Whether a claim holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Word {
    #[serde(rename = "ok")]
    Ok,
    #[serde(rename = "FAILED")]
    Failed,
    /// A time, in a setting too short to judge it.
    #[serde(rename = "measured")]
    Measured,
}

impl Word {
    /// As it is written.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::Measured => "measured",
        }
    }
}

/// A claim and what came of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Verdict {
    pub(crate) verdict: Word,
    pub(crate) claim: String,
    pub(crate) measured: String,
    pub(crate) limit: String,
}

/// What a number is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    Exactly(f64),
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::Exactly(want) => (value - want).abs() < 1e-9,
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::Exactly(want) => number(want, unit),
            Self::AtMost(most) => format!("at most {}", number(most, unit)),
            Self::AtLeast(least) => format!("at least {}", number(least, unit)),
        }
    }
}

/// A number without needless digits, and its unit.
fn number(value: f64, unit: &str) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    format!("{rounded} {unit}").trim_end().to_owned()
}

impl Story {
    /// Begins.
    pub(crate) fn new(demo: &'static str, seconds: u32, format: Format) -> Self {
        let judges_times = seconds >= JUDGES_TIMES_FROM;
        Self {
            demo,
            seconds,
            judges_times,
            ok: false,
            marks: Vec::new(),
            timeline: Vec::new(),
            verdicts: Vec::new(),
            format,
            begun: Instant::now(),
        }
    }

    /// Whether this setting is long enough to judge times, and to be large.
    pub(crate) fn is_long(&self) -> bool {
        self.judges_times
    }

    /// Seconds since the beginning.
    pub(crate) fn now(&self) -> f64 {
        (self.begun.elapsed().as_secs_f64() * 10.0).round() / 10.0
    }

    /// Says what is done next.
    pub(crate) fn narrate(&mut self, phase: &str, text: &str) -> Result<(), CommandError> {
        let mark = Mark { at: self.now(), phase: phase.to_owned(), text: text.to_owned() };
        self.marks.push(mark);
        self.show(&format!("\n[{phase}] {text}"))
    }

    /// Shows a line of what there is to see; the head of the columns where a phase begins.
    pub(crate) fn second(&mut self, second: Second) -> Result<(), CommandError> {
        let is_first = self.timeline.last().is_none_or(|last| last.phase != second.phase);
        let line = line(&second);
        self.timeline.push(second);
        if is_first {
            self.show(HEAD)?;
        }
        self.show(&line)
    }

    /// Judges a count.
    pub(crate) fn count(&mut self, claim: &str, value: f64, unit: &str, bound: Bound) {
        let verdict = if bound.holds(value) { Word::Ok } else { Word::Failed };
        self.judge(verdict, claim, number(value, unit), bound.text(unit));
    }

    /// Judges a time, if the setting allows it.
    pub(crate) fn time(&mut self, claim: &str, took: Option<Duration>, most: Duration) {
        let took_ms = took.map_or(0.0, milliseconds);
        let bound = Bound::AtMost(milliseconds(most));
        let verdict = match (self.judges_times, bound.holds(took_ms)) {
            (false, _) => Word::Measured,
            (true, true) => Word::Ok,
            (true, false) => Word::Failed,
        };
        let measured = took.map_or("none".to_owned(), |_| number(took_ms, "ms"));
        self.judge(verdict, claim, measured, bound.text("ms"));
    }

    fn judge(&mut self, verdict: Word, claim: &str, measured: String, limit: String) {
        self.verdicts.push(Verdict { verdict, claim: claim.to_owned(), measured, limit });
    }

    /// The end: whether all claims hold.
    pub(crate) fn conclude(&mut self) -> bool {
        let judged = self.verdicts.iter().any(|verdict| verdict.verdict == Word::Ok);
        self.ok = judged && self.verdicts.iter().all(|verdict| verdict.verdict != Word::Failed);
        self.ok
    }

    /// Shows a person something, now.
    pub(crate) fn show(&self, text: &str) -> Result<(), CommandError> {
        match self.format {
            Format::Text => write_text(text),
            Format::Json => {
                tell(text);
                Ok(())
            }
        }
    }
}

/// As a number of milliseconds.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

const HEAD: &str = "    second phase        requests   hits  stale errors    p50 ms    p99 ms \
                    attempts breaker    in flight queue conns";

fn line(second: &Second) -> String {
    let ms = |time: Option<f64>| time.map_or("-".to_owned(), |time| format!("{time:.2}"));
    format!(
        "{:>10.1} {:<13}{:>7}{:>7}{:>7}{:>7}{:>10}{:>10}{:>9} {:<11}{:>9}{:>6}{:>6}",
        second.at,
        second.phase,
        second.requests,
        second.hits,
        second.stale,
        second.errors,
        ms(second.p50_ms),
        ms(second.p99_ms),
        second.attempts,
        second.breaker,
        second.in_flight,
        second.queue,
        second.connections,
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Bound, Story, Word};
    use crate::output::Format;

    #[test]
    fn a_demo_succeeds_if_it_judged_something_and_nothing_failed() {
        let story = |seconds| Story::new("outage", seconds, Format::Json);
        assert!(!story(10).conclude(), "nothing was judged");
        let ms = Duration::from_millis;

        let mut short = story(2);
        short.time("fast", Some(ms(90)), ms(50));
        assert!(!short.conclude(), "what is only measured proves nothing");
        short.count("none", 0.0, "", Bound::Exactly(0.0));
        assert!(short.conclude());
        assert_eq!(short.verdicts[0].verdict, Word::Measured);

        let mut long = story(10);
        long.count("none", 0.0, "", Bound::Exactly(0.0));
        long.time("fast", Some(ms(90)), ms(50));
        assert!(!long.conclude(), "{:?}", long.verdicts);
        assert_eq!(long.verdicts[1].limit, "at most 50 ms");
    }

    #[test]
    fn a_bound_holds_at_its_very_end() {
        let rows = [
            (Bound::AtMost(1.2), 1.2, true),
            (Bound::AtMost(1.2), 1.21, false),
            (Bound::AtLeast(3.0), 3.0, true),
            (Bound::AtLeast(3.0), 2.9, false),
            (Bound::Exactly(1.0), 1.0, true),
            (Bound::Exactly(1.0), 2.0, false),
        ];
        for (bound, value, want) in rows {
            assert_eq!(bound.holds(value), want, "{bound:?} {value}");
        }
    }
}
