//! The report of a demo: one page, complete in itself, that needs no network and no script.
//!
//! # Invariants
//! - Whatever stands in a story stands on the page as text: nothing of it becomes markup.

use std::fmt::Write;

use crate::demo::story::{Mark, Second, Story, Verdict, Word};

/// The plot, in its own units; the page scales it to its width.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 32.0;
const BOTTOM: f64 = 36.0;
/// Of the strip of states, below the base.
const STRIP: f64 = 7.0;

/// What a line of the plot shows: its class, its name, its value.
type Line = (&'static str, &'static str, fn(&Second) -> f64);

const COUNTS: [Line; 5] = [
    ("requests", "requests", |second| second.requests as f64),
    ("hits", "hits", |second| second.hits as f64),
    ("stale", "stale", |second| second.stale as f64),
    ("errors", "errors", |second| second.errors as f64),
    ("attempts", "origin attempts", |second| second.attempts as f64),
];

const HELD: [Line; 4] = [
    ("requests", "client connections", |second| second.connections as f64),
    ("hits", "tasks", |second| second.tasks as f64),
    ("attempts", "requests in flight to the origin", |second| second.in_flight as f64),
    ("stale", "requests that wait for a place", |second| second.queue as f64),
];

/// States of a breaker, and the class in whose colour they are shown.
const STATES: [(&str, &str); 4] =
    [("closed", "hits"), ("ramping-up", "stale"), ("half-open", "attempts"), ("open", "errors")];

/// How a plot measures upwards.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    /// From 0 up to this.
    Even(f64),
    /// From the power of ten with the first of these exponents to that with the second.
    Powers(i32, i32),
}

impl Scale {
    /// Of counts.
    fn even(values: impl Iterator<Item = f64>) -> Self {
        Self::Even(round_up(values.fold(1.0, f64::max)))
    }

    /// Of times, of which the shortest and the longest are orders of magnitude apart.
    fn powers(values: impl Iterator<Item = f64>) -> Self {
        let seen = values.filter(|value| *value > 0.0);
        let (least, most) = seen.fold((1.0, 10.0), |(least, most): (f64, f64), value| {
            (least.min(value), most.max(value))
        });
        #[expect(clippy::cast_possible_truncation, reason = "of milliseconds: far within an i32")]
        let exponents = (least.log10().floor() as i32, most.log10().ceil() as i32);
        Self::Powers(exponents.0.max(-3), exponents.1)
    }

    /// How far up `value` is, from 0 to 1.
    fn share(self, value: f64) -> f64 {
        match self {
            Self::Even(top) => value / top,
            Self::Powers(from, to) => {
                let (from, to) = (f64::from(from), f64::from(to));
                ((value.max(f64::MIN_POSITIVE).log10() - from) / (to - from)).clamp(0.0, 1.0)
            }
        }
    }

    /// Where there are lines across.
    fn grid(self) -> Vec<f64> {
        match self {
            Self::Even(top) => vec![0.0, top / 2.0, top],
            Self::Powers(from, to) => (from..=to).map(|power| 10_f64.powi(power)).collect(),
        }
    }
}

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
svg{width:100%;height:auto;display:block}svg text{font:12px system-ui,sans-serif;fill:var(--soft)}\
polyline{fill:none;stroke-width:1.6}.grid{stroke:var(--rule)}.mark{stroke:var(--soft);\
stroke-dasharray:3 3}\
.requests{stroke:var(--requests)}.hits{stroke:var(--hits)}.stale{stroke:var(--stale)}\
.errors{stroke:var(--errors)}.attempts{stroke:var(--attempts)}\
.key span{margin-right:1rem;white-space:nowrap}.key i{display:inline-block;width:1.2em;\
border-top:3px solid;margin-right:.3em;vertical-align:middle}.key i.box{border-top-width:.7em;width:.7em}\
rect.hits{fill:var(--hits);stroke:none}rect.stale{fill:var(--stale);stroke:none}\
rect.errors{fill:var(--errors);stroke:none}rect.attempts{fill:var(--attempts);stroke:none}\
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .6rem .3rem 0;border-bottom:1px solid var(--rule);\
vertical-align:top}.ok{color:var(--hits)}.failed{color:var(--errors);font-weight:bold}\
.measured,.when{color:var(--soft)}\
@media(max-width:40rem){svg text{font-size:16px}}";

/// Writes the page.
pub(crate) fn page(story: &Story) -> String {
    let end = if story.ok { "All claims hold." } else { "Not every claim holds." };
    let mut plots = String::new();
    if !story.timeline.is_empty() {
        let values = |lines: &[Line]| -> Vec<f64> {
            lines.iter().flat_map(|(_, _, of)| story.timeline.iter().map(of)).collect()
        };
        let even = |lines| Scale::even(values(lines).into_iter());
        plots.push_str(&plot(story, "Per second", &COUNTS, even(&COUNTS), &STATES));
        let powers = Scale::powers(values(&TIMES).into_iter());
        plots.push_str(&plot(story, "Latency in milliseconds", &TIMES, powers, &[]));
        plots.push_str(&plot(story, "What the edges hold", &HELD, even(&HELD), &[]));
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

/// One plot of several lines over the time, with the marks of the story on it, and below it a strip
/// of the state of breakers, if `states` are to be shown.
fn plot(
    story: &Story,
    title: &str,
    lines: &[Line],
    scale: Scale,
    states: &[(&str, &str)],
) -> String {
    let seconds = &story.timeline;
    let ends = seconds.iter().map(|second| second.at).chain(story.marks.iter().map(|mark| mark.at));
    let end = ends.fold(1.0, f64::max);
    let x = |at: f64| LEFT + at / end * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - scale.share(value) * (HEIGHT - TOP - BOTTOM);
    let (left, right, base) = (LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM);

    let mut svg = String::new();
    let fits = "writing to a String does not fail";
    for value in scale.grid() {
        let at = y(value);
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
        let (at, line) = (x(mark.at), 12.0 + f64::from(number % 2) * 13.0);
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
    svg.push_str(&strip(seconds, states, x));
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
    let keys = keys + &strip_key(states);
    format!(
        "<h2>{title}</h2><p class=\"key\">{keys}</p><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" aria-label=\"{title}\">{svg}</svg>\n"
    )
}

/// The state of breakers, second by second.
fn strip(seconds: &[Second], states: &[(&str, &str)], x: impl Fn(f64) -> f64) -> String {
    let mut svg = String::new();
    let mut from = x(0.0);
    for second in seconds {
        let to = x(second.at);
        let class = states.iter().find(|(state, _)| *state == second.breaker);
        if let Some((_, class)) = class {
            let (top, wide) = (HEIGHT - BOTTOM + 4.0, (to - from).max(0.0));
            write!(
                svg,
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{top}\" width=\"{wide:.1}\" \
                 height=\"{STRIP}\"><title>{}</title></rect>",
                text(&second.breaker)
            )
            .expect("writing to a String does not fail");
        }
        from = to;
    }
    svg
}

/// What its colours mean.
fn strip_key(states: &[(&str, &str)]) -> String {
    if states.is_empty() {
        return String::new();
    }
    let key = |(state, class): &(&str, &str)| {
        format!("<span><i class=\"box\" style=\"border-color:var(--{class})\"></i>{state}</span> ")
    };
    let keys: String = states.iter().map(key).collect();
    format!("<br><span>strip, the worst breaker:</span> {keys}")
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
    use super::{Scale, page, round_up};
    use crate::demo::story::{Bound, Second, Story};
    use crate::output::Format;

    #[test]
    fn the_page_holds_the_story_and_fetches_nothing() {
        let mut story = Story::new("outage", 2, Format::Json);
        story.narrate("gone", "links <b> & \"such\" are cut").unwrap();
        let breaker = "half-open".to_owned();
        let second =
            Second { at: 1.0, requests: 70, p99_ms: Some(3.0), breaker, ..Second::default() };
        story.second(second).unwrap();
        story.count("nothing > everything", 0.0, "", Bound::Exactly(0.0));
        story.conclude();
        let page = page(&story);
        assert!(page.contains("links &lt;b&gt; &amp; &quot;such&quot; are cut"), "{page}");
        assert!(page.contains("nothing &gt; everything"), "{page}");
        assert!(page.contains("All claims hold.") && page.contains("<polyline"), "{page}");
        assert!(page.contains("<title>half-open</title>"), "{page}");
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
        for outside in ["http:", "https:", "<script", "<link", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside} in {page}");
        }
    }

    #[test]
    fn a_scale_of_powers_holds_all_that_was_seen() {
        let scale = Scale::powers([0.0, 0.4, 31.0].into_iter());
        assert_eq!(scale, Scale::Powers(-1, 2));
        assert_eq!(scale.grid(), [0.1, 1.0, 10.0, 100.0]);
        for (value, want) in [(0.0, 0.0), (0.1, 0.0), (10.0, 2.0 / 3.0), (100.0, 1.0)] {
            assert!((scale.share(value) - want).abs() < 1e-9, "{value}");
        }
        assert_eq!(Scale::powers([0.0].into_iter()), Scale::Powers(0, 1), "nothing was seen");
    }

    #[test]
    fn a_scale_ends_at_a_round_number() {
        let rows = [(1.0, 1.0), (7.2, 8.0), (131.0, 200.0), (2_000.0, 2_000.0), (0.03, 0.03)];
        for (value, want) in rows {
            assert!((round_up(value) - want).abs() < 1e-9 * want.max(1.0), "{value}");
        }
    }
}
