//! The log of a node: one line per event on standard error.
//!
//! `2026-01-31T12:00:00.000000Z WARN  meridian_edge::fetch: origin refused upstream=origin-1`
//!
//! [`Line`] writes the form and [`Parsed`] reads it back, so that `up` can tell what is worth a
//! person's attention.
//!
//! # Invariants
//! - One event is one line, whatever its fields hold.
//! - Nobody reading standard error any more is no reason to fail: a node whose parent is gone
//!   still drains.

use std::fmt;
use std::io::IsTerminal;
use std::panic;

use meridian_config::shared::{Level, Log};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// What happened and an operator should see, whatever its level.
pub(crate) const EVENT_TARGET: &str = "event";

/// One line per request; written only where the configuration asks for it.
const ACCESS_TARGET: &str = "access";

/// Starts the log of this process, and has panics logged as errors.
pub(crate) fn init(log: &Log) {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .log_internal_errors(false) // it would panic once standard error is gone
        .event_format(Line);
    tracing_subscriber::registry().with(filter(log)).with(layer).init();
    panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("something that is no text");
        tracing::error!(at, "panicked: {what}");
    }));
}

/// Our own words from the configured level on; of libraries, what went wrong.
fn filter(log: &Log) -> Targets {
    let level = match log.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("meridian", level)
        .with_target(EVENT_TARGET, LevelFilter::INFO)
        .with_target(ACCESS_TARGET, if log.access { LevelFilter::INFO } else { LevelFilter::OFF })
}

/// Writes one event on one line: time, level, target, message and fields, then the spans it
/// happened in, from the inside out.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        SystemTime.format_time(&mut Writer::new(&mut line))?;
        let meta = event.metadata();
        let level = meta.level().as_str();
        let dim = to.has_ansi_escapes();
        line.push_str(&format!(" {level:<5} {}: ", meta.target()));
        let head = line.len();
        context.field_format().format_fields(Writer::new(&mut line), event)?;
        for span in context.event_scope().into_iter().flatten() {
            line.push_str(&format!(" in {}", span.name()));
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && !fields.is_empty()
            {
                line.push_str(&format!("{{{fields}}}"));
            }
        }
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        match (dim, line.split_at_checked(head)) {
            (true, Some((head, rest))) => writeln!(to, "\u{1b}[2m{head}\u{1b}[0m{rest}"),
            _ => writeln!(to, "{line}"),
        }
    }
}

/// A line of a node's log, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parsed<'l> {
    /// `ERROR`, `WARN`, `INFO` or `DEBUG`.
    pub(crate) level: &'l str,
    /// Where it comes from: a module, or [`EVENT_TARGET`].
    pub(crate) target: &'l str,
    /// Message, fields and spans.
    pub(crate) text: &'l str,
}

impl<'l> Parsed<'l> {
    /// Takes apart what [`Line`] wrote; `None` for anything else, such as what a library prints.
    pub(crate) fn parse(line: &'l str) -> Option<Self> {
        let (time, rest) = line.split_once(' ')?;
        if !time.ends_with('Z') || !time.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let (level, rest) = rest.split_once(' ')?;
        if !["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level) {
            return None;
        }
        let (target, text) = rest.trim_start().split_once(": ")?;
        Some(Self { level, target, text })
    }

    /// Whether a person should see it without asking.
    pub(crate) fn is_for_people(&self) -> bool {
        matches!(self.level, "ERROR" | "WARN") || self.target == EVENT_TARGET
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use meridian_config::shared::{Level, Log};
    use tracing_subscriber::layer::SubscriberExt;

    use super::{Line, Parsed, filter};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What `act` logs under `log`.
    fn logged(log: &Log, act: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(Line);
        let subscriber = tracing_subscriber::registry().with(filter(log)).with(layer);
        tracing::subscriber::with_default(subscriber, act);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_is_read_back_as_it_was_meant() {
        let text = logged(&Log::default(), || {
            let span = tracing::info_span!("purge", tag = "news");
            let _inside = span.enter();
            tracing::warn!(upstream = "origin-1", note = "two\nlines: really", "refused");
        });
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let parsed = Parsed::parse(text.trim_end()).unwrap();
        assert_eq!((parsed.level, parsed.target), ("WARN", module_path!()));
        assert!(parsed.text.starts_with("refused upstream=\"origin-1\""), "{text}");
        assert!(parsed.text.contains("in purge{tag=\"news\"}"), "{text}");
        assert!(parsed.is_for_people());
    }

    #[test]
    fn what_no_node_wrote_is_not_taken_for_a_line() {
        for line in ["", "thread 'main' panicked at x", "2026 12Z WARN a: b", "Z WARN x: y"] {
            assert_eq!(Parsed::parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn levels_events_and_access_lines_pass_as_configured() {
        let act = || {
            tracing::debug!(target: "meridian_edge::key", "debug");
            tracing::info!(target: "meridian_edge::key", "info");
            tracing::info!(target: "event", "event");
            tracing::info!(target: "access", "access");
            tracing::info!(target: "hyper", "library");
            tracing::warn!(target: "hyper", "trouble");
        };
        let seen = |level, access| {
            let text = logged(&Log { level, access }, act);
            let words = text.lines().filter_map(|line| line.rsplit(' ').next());
            words.map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(seen(Level::Info, false), "info event trouble");
        assert_eq!(seen(Level::Debug, true), "debug info event access trouble");
        assert_eq!(seen(Level::Error, false), "event");
    }
}
