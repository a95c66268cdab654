//! The figures for people: a table with one line per region.
//!
//! # Invariants
//! - Every line is as wide as its columns need, in any terminal, without colours.

use std::fmt::Write;

use crate::report::{CountedBy, Figures, Latency, Report};

/// The whole report as text, ending in a line break.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    headline(&mut text, report);
    text.push_str(&align(&rows(report)));
    let figures = &report.total;
    if figures.failed() > 0 {
        let kinds: Vec<String> =
            figures.errors.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        line(&mut text, format_args!("errors: {}", kinds.join(", ")));
    }
    for note in &report.notes {
        line(&mut text, format_args!("note: {note}"));
    }
    text
}

fn headline(text: &mut String, report: &Report) {
    let ended = if report.stopped { ", stopped early" } else { "" };
    line(text, format_args!("{}, seed {}", report.workload, report.seed));
    line(
        text,
        format_args!(
            "{} requests in {:.1} s, {:.0} requests/s, {} connections per region{ended}",
            report.total.requests,
            report.duration_seconds,
            report.total.requests_per_second,
            report.connections
        ),
    );
    line(text, format_args!("{}\n", explanation(report.counted_by)));
}

fn explanation(counted_by: CountedBy) -> &'static str {
    match counted_by {
        CountedBy::Origin => "measured: client traffic minus what the origin counted",
        CountedBy::Edges => "measured: client traffic minus what the edges say they asked upstream",
        CountedBy::Nobody => "measured: not at all, as neither origin nor edges count",
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("writing to a string does not fail");
}

/// One table: the measured ratios beside the claimed one.
fn rows(report: &Report) -> Vec<Vec<String>> {
    let header = [
        "region",
        "requests",
        "errors",
        "hit",
        "byte hit",
        "claimed",
        "origin req",
        "origin bytes",
        "distinct",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for region in &report.regions {
        rows.push(row(region.region.as_str().to_owned(), &region.figures));
        if region.edges.len() > 1 {
            for edge in &region.edges {
                rows.push(row(format!("  {}", edge.edge), &edge.figures));
            }
        }
    }
    rows.push(row("total".to_owned(), &report.total));
    rows
}

fn row(name: String, figures: &Figures) -> Vec<String> {
    let latency = |of: fn(&Latency) -> f64| {
        figures.latency_seconds.as_ref().map_or_else(absent, |all| duration(of(all)))
    };
    vec![
        name,
        figures.requests.to_string(),
        figures.failed().to_string(),
        ratio(figures.hit_ratio),
        ratio(figures.byte_hit_ratio),
        ratio(figures.claimed_hit_ratio),
        figures.origin_requests.map_or_else(absent, |count| count.to_string()),
        figures.origin_bytes.map_or_else(absent, bytes),
        figures.distinct.to_string(),
        latency(|all| all.p50),
        latency(|all| all.p90),
        latency(|all| all.p99),
        latency(|all| all.p99_9),
        latency(|all| all.max),
    ]
}

fn absent() -> String {
    "-".to_owned()
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(absent, |ratio| format!("{:.2} %", ratio * 100.0))
}

/// Three digits, in the unit that suits.
fn duration(seconds: f64) -> String {
    match seconds {
        short if short < 0.01 => format!("{:.2}ms", short * 1e3),
        middle if middle < 0.1 => format!("{:.1}ms", middle * 1e3),
        long if long < 1.0 => format!("{:.0}ms", long * 1e3),
        seconds => format!("{seconds:.2}s"),
    }
}

fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for larger in units {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{bytes}B") } else { format!("{size:.1}{unit}") }
}

/// The first column to the left, the others to the right, two spaces between.
fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let space = " ".repeat(width - cell.chars().count());
            match at {
                0 => text.extend([cell, space.as_str()]),
                _ => text.extend(["  ", space.as_str(), cell]),
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{align, bytes, duration, ratio};

    #[test]
    fn columns_are_aligned() {
        let rows = [["region", "n"], ["fra", "1000"], ["é", "2"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        assert_eq!(align(&rows), "region     n\nfra     1000\né          2\n");
    }

    #[test]
    fn values_are_short() {
        let rows = [(0.000_123, "0.12ms"), (0.0123, "12.3ms"), (0.123, "123ms"), (12.3, "12.30s")];
        for (seconds, want) in rows {
            assert_eq!(duration(seconds), want);
        }
        let rows = [(0, "0B"), (1023, "1023B"), (1024, "1.0KiB"), (5 << 30, "5.0GiB")];
        for (size, want) in rows {
            assert_eq!(bytes(size), want);
        }
        assert_eq!(ratio(Some(0.912_34)), "91.23 %");
        assert_eq!(ratio(None), "-");
    }
}
