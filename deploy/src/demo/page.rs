//! The report of a demo: one page, complete in itself, that needs no network and no script.
//!
//! # Invariants
//! - Whatever stands in a story stands on the page as text: nothing of it becomes markup.

use std::fmt::Write;

use crate::demo::story::{Mark, Second, Story, Verdict, Word};

/// The plot, in its own units; the page scales it to its width.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 26.0;

/// What a line of the plot shows: its class, its name, its value.
type Line = (&'static str, &'static str, fn(&Second) -> f64);

const COUNTS: [Line; 5] = [
    ("requests", "requests", |second| second.requests as f64),
    ("hits", "hits", |second| second.hits as f64),
    ("stale", "stale", |second| second.stale as f64),
    ("errors", "errors", |second| second.errors as f64),
    ("attempts", "origin attempts", |second| second.attempts as f64),
];

const TIMES: [Line; 2] = [
    ("requests", "p50", |second| second.p50_ms.unwrap_or_default()),
    ("errors", "p99", |second| second.p99_ms.unwrap_or_default()),
];

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#6a737d;--paper:#fff;--rule:#d8dee4;\
--requests:#57606a;--hits:#1a7f37;--stale:#9a6700;--errors:#cf222e;--attempts:#0969da}\
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--paper:#0d1117;\
--rule:#30363d;--requests:#9198a1;--hits:#3fb950;--stale:#d29922;--errors:#f85149;\
--attempts:#4493f8}}\
body{margin:0 auto;padding:1rem;max-width:60rem;font:16px/1.5 system-ui,sans-serif;\
color:var(--ink);background:var(--paper)}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}\
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}\
polyline{fill:none;stroke-width:1.6}.grid{stroke:var(--rule)}.mark{stroke:var(--soft);\
stroke-dasharray:3 3}\
.requests{stroke:var(--requests)}.hits{stroke:var(--hits)}.stale{stroke:var(--stale)}\
.errors{stroke:var(--errors)}.attempts{stroke:var(--attempts)}\
.key span{margin-right:1rem;white-space:nowrap}.key i{display:inline-block;width:1.2em;\
border-top:3px solid;margin-right:.3em;vertical-align:middle}\
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--rule);\
vertical-align:top}.ok{color:var(--hits)}.failed{color:var(--errors);font-weight:bold}\
.measured,.when{color:var(--soft)}";

/// Writes the page.
pub(crate) fn page(story: &Story) -> String {
    let end = if story.ok { "All claims hold." } else { "Not every claim holds." };
    let mut plots = String::new();
    if !story.timeline.is_empty() {
        plots.push_str(&plot(story, "Per second", &COUNTS));
        plots.push_str(&plot(story, "Latency in milliseconds", &TIMES));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>meridian demo {name}</title><style>{STYLE}</style></head>\n<body>\
         <h1>meridian demo {name}</h1><p class=\"{class}\">{end}</p>\n{verdicts}{plots}\
         <h2>What was done</h2><ol>{marks}</ol></body></html>\n",
        name = text(story.demo),
        class = if story.ok { "ok" } else { "failed" },
        verdicts = verdicts(&story.verdicts),
        marks = story.marks.iter().map(mark).collect::<String>(),
    )
}

fn verdicts(verdicts: &[Verdict]) -> String {
    let row = |verdict: &Verdict| {
        let class = match verdict.verdict {
            Word::Ok => "ok",
            Word::Failed => "failed",
            Word::Measured => "measured",
        };
        format!(
            "<tr><td class=\"{class}\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            verdict.verdict.text(),
            text(&verdict.claim),
            text(&verdict.measured),
            text(&verdict.limit)
        )
    };
    format!(
        "<div class=\"scroll\"><table><thead><tr><th>verdict</th><th>claim</th><th>measured</th>\
         <th>limit</th></tr></thead><tbody>\n{}</tbody></table></div>\n",
        verdicts.iter().map(row).collect::<String>()
    )
}

fn mark(mark: &Mark) -> String {
    let (phase, told) = (text(&mark.phase), text(&mark.text));
    format!("<li><span class=\"when\">{:.1} s</span> <b>{phase}</b> {told}</li>\n", mark.at)
}

/// One plot of several lines over the time, with the marks of the story on it.
fn plot(story: &Story, title: &str, lines: &[Line]) -> String {
    let seconds = &story.timeline;
    let ends = seconds.iter().map(|second| second.at).chain(story.marks.iter().map(|mark| mark.at));
    let end = ends.fold(1.0, f64::max);
    let values = lines.iter().flat_map(|(_, _, of)| seconds.iter().map(of));
    let top = round_up(values.fold(1.0, f64::max));
    let x = |at: f64| LEFT + at / end * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
    let (left, right, base) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);

    let mut svg = String::new();
    let fits = "writing to a String does not fail";
    for part in [0.0, 0.5, 1.0] {
        let (at, value) = (y(top * part), top * part);
        write!(
            svg,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            left - 6.0,
            at + 4.0
        )
        .expect(fits);
    }
    for (number, mark) in (0_u8..).zip(&story.marks) {
        let (at, line) = (x(mark.at), 10.0 + f64::from(number % 2) * 11.0);
        write!(
            svg,
            "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{base}\"/>\
             <text x=\"{at:.1}\" y=\"{line}\">{}</text>",
            text(&mark.phase)
        )
        .expect(fits);
    }
    for (class, _, of) in lines {
        let point = |second: &Second| format!("{:.1},{:.1} ", x(second.at), y(of(second)));
        let points: String = seconds.iter().map(point).collect();
        write!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", points.trim_end()).expect(fits);
    }
    write!(
        svg,
        "<text x=\"{left}\" y=\"{:.1}\">0 s</text>\
         <text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\">{end:.0} s</text>",
        HEIGHT - 8.0,
        HEIGHT - 8.0
    )
    .expect(fits);
    let key = |(class, name, _): &Line| {
        format!("<span><i style=\"border-color:var(--{class})\"></i>{name}</span> ")
    };
    let keys: String = lines.iter().map(key).collect();
    format!(
        "<h2>{title}</h2><p class=\"key\">{keys}</p><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" aria-label=\"{title}\">{svg}</svg>\n"
    )
}

/// The next number of one digit and zeros, for the top of a scale.
fn round_up(value: f64) -> f64 {
    let unit = 10_f64.powf(value.log10().floor());
    (value / unit).ceil() * unit
}

/// `text`, so that none of it is markup.
fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::{page, round_up};
    use crate::demo::story::{Bound, Second, Story};
    use crate::output::Format;

    #[test]
    fn the_page_holds_the_story_and_fetches_nothing() {
        let mut story = Story::new("outage", 2, Format::Json);
        story.narrate("gone", "links <b> & \"such\" are cut").unwrap();
        let second = Second { at: 1.0, requests: 70, p99_ms: Some(3.0), ..Second::default() };
        story.second(second).unwrap();
        story.count("nothing > everything", 0.0, "", Bound::Exactly(0.0));
        story.conclude();
        let page = page(&story);
        assert!(page.contains("links &lt;b&gt; &amp; &quot;such&quot; are cut"), "{page}");
        assert!(page.contains("nothing &gt; everything"), "{page}");
        assert!(page.contains("All claims hold.") && page.contains("<polyline"), "{page}");
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        for outside in ["http:", "https:", "<script", "<link", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside} in {page}");
        }
    }

    #[test]
    fn a_scale_ends_at_a_round_number() {
        let rows = [(1.0, 1.0), (7.2, 8.0), (131.0, 200.0), (2_000.0, 2_000.0), (0.03, 0.03)];
        for (value, want) in rows {
            assert!((round_up(value) - want).abs() < 1e-9 * want.max(1.0), "{value}");
        }
    }
}
