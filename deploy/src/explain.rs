//! `meridian explain`: what edges have stored for a URL, and what the next request gets.
//!
//! The edges' own words; a field of a later version is shown in JSON and left out for people.

use serde::Deserialize;
use serde_json::Value;

use crate::cli::ExplainArgs;
use crate::client::{Client, query_value};
use crate::error::{CommandError, chain};
use crate::output::{Format, tell, write_result};
use crate::run::runtime;
use crate::target::Target;

/// Asks the edges and shows what they say.
pub(crate) fn explain(args: &ExplainArgs) -> Result<(), CommandError> {
    if let Some(field) = args.headers.iter().find(|field| !field.contains(':')) {
        let text = format!("--header {field:?}: must be \"Name: value\"");
        return Err(CommandError::Usage(text));
    }
    let target = Target::find(&args.target)?;
    let headers: String =
        args.headers.iter().map(|field| format!("&header={}", query_value(field))).collect();
    let question = format!("/v1/explain?url={}{headers}", query_value(&args.url));
    let (answers, silent) = runtime(1)?.block_on(async {
        let region = args.region.as_ref().map(|region| region.as_str());
        let mut answers: Vec<Value> = Vec::new();
        let mut silent = 0;
        for edge in target.edges_in(region).await? {
            match Client::new(&edge.admin, None)?.get(&question).await {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    silent += 1;
                    tell(&format!("{}: {}", edge.name, chain(&error)));
                }
            }
        }
        Ok::<_, CommandError>((answers, silent))
    })?;
    write_result(&answers, Format::of(args.target.json), |answers| {
        answers.iter().map(text).collect::<Vec<_>>().join("\n")
    })?;
    match silent {
        0 => Ok(()),
        1 => Err(CommandError::Failed("one edge gave no answer".to_owned())),
        more => Err(CommandError::Failed(format!("{more} edges gave no answer"))),
    }
}

/// What of an explanation is told to people. Everything may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Explanation {
    edge: String,
    url: String,
    site: String,
    key: String,
    rules: Vec<Rule>,
    stored: Vec<Stored>,
    kept_apart: bool,
    not_stored: Option<Unstored>,
    origins: Vec<Origin>,
    purges: Option<Purging>,
    next: Next,
}

/// Why the last answer was not stored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Unstored {
    reason: String,
    seconds_ago: u64,
}

/// A rule of the site that matches the request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rule {
    name: String,
    asks_response: bool,
    does: Vec<String>,
}

/// The rules that a response was stored under.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StoredUnder {
    names: Vec<String>,
    current: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stored {
    status: u16,
    body_bytes: u64,
    selected: bool,
    vary: String,
    lifetime_seconds: u64,
    lifetime_from: String,
    rules: Option<StoredUnder>,
    age_seconds: u64,
    initial_age_seconds: Option<u64>,
    apparent_age_seconds: u64,
    resident_seconds: u64,
    ttl_seconds: i64,
    stale_while_revalidate_ends_in_seconds: u64,
    stale_if_error_ends_in_seconds: u64,
    stale_if_disconnected_ends_in_seconds: u64,
    etag: Option<String>,
    cache_control: Option<String>,
    tags: Vec<String>,
    /// `current`, or `purged`, or `outdated` where only revalidation was asked for.
    standing: String,
    stamp: u64,
    selectors: Vec<Matching>,
}

/// What a purge can name a stored response by, and the newest purge that did.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Matching {
    selector: Value,
    hard: Option<Purge>,
    soft: Option<Purge>,
    effect: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Purge {
    epoch: u64,
    id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Purging {
    epoch: u64,
    staleness_seconds: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Origin {
    name: String,
    shield: bool,
    address: String,
    in_flight: u32,
    waiting: u32,
    breaker: Breaker,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Breaker {
    state: String,
    /// `auto`, or what an operator wants.
    set: String,
    /// Whether the site obeys it.
    enabled: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Next {
    decision: String,
    fwd: Option<String>,
    validates: bool,
    refreshes: bool,
    stale_may_stand_in: bool,
}

/// One edge's answer for people; as JSON if it is not what this version knows.
fn text(answer: &Value) -> String {
    let Ok(told) = Explanation::deserialize(answer) else { return format!("{answer:#}\n") };
    let mut lines = vec![
        format!("{}  {}", told.edge, told.url),
        format!("  next    {}", next(&told.next)),
        format!("  site    {}", told.site),
        format!("  key     {}", visible(&told.key)),
    ];
    lines.extend(told.rules.iter().map(|rule| format!("  rule    {}", matching(rule))));
    if told.stored.is_empty() {
        lines.push("  stored  nothing".to_owned());
    }
    for stored in &told.stored {
        lines.push(format!("  stored  {}", variant(stored)));
        let details = [
            stored.cache_control.as_ref().map(|value| format!("Cache-Control: {value}")),
            stored.etag.as_ref().map(|value| format!("ETag: {value}")),
            arithmetic(stored),
            stale(stored),
            stored.rules.as_ref().map(under),
            (!stored.vary.is_empty()).then(|| format!("Vary: {}", stored.vary)),
            (!stored.tags.is_empty()).then(|| format!("tags: {}", stored.tags.join(" "))),
        ];
        let told = details.into_iter().flatten().chain(purges(stored));
        lines.extend(told.map(|detail| format!("          {detail}")));
    }
    lines.extend(told.not_stored.as_ref().map(|why| {
        let words = unstored(&why.reason);
        format!("  last    an answer {} s ago was not stored: {words}", why.seconds_ago)
    }));
    if told.kept_apart {
        lines
            .push("  apart   answers could not be shared lately: fetches are not collapsed".into());
    }
    for origin in &told.origins {
        lines.push(format!(
            "  {}  {} at {}: {} in flight, {} waiting{}",
            if origin.shield { "shield" } else { "origin" },
            origin.name,
            origin.address,
            origin.in_flight,
            origin.waiting,
            breaker(&origin.breaker)
        ));
    }
    lines.extend(told.purges.as_ref().map(|purges| format!("  purges  {}", applied(purges))));
    lines.push(String::new());
    lines.join("\n")
}

/// What the breaker of an origin does, where it does anything.
fn breaker(breaker: &Breaker) -> String {
    match (breaker.state.as_str(), breaker.set.as_str(), breaker.enabled) {
        ("" | "closed", "auto" | "", _) => String::new(),
        (state, "auto" | "", true) => format!(", its breaker is {state}"),
        (state, "auto" | "", false) => format!(", its breaker is {state}, which this site ignores"),
        (state, _, _) => format!(", its breaker is held {state}"),
    }
}

/// RFC 9111 §4.2.3, step by step.
fn arithmetic(stored: &Stored) -> Option<String> {
    let initial = stored.initial_age_seconds?;
    Some(format!(
        "age {} s: {initial} s when it arrived (by its Date {} s), {} s here",
        stored.age_seconds, stored.apparent_age_seconds, stored.resident_seconds
    ))
}

/// Until when it is served past its lifetime, on each occasion.
fn stale(stored: &Stored) -> Option<String> {
    let occasions = [
        ("while a new one is fetched", stored.stale_while_revalidate_ends_in_seconds),
        ("in the place of an error", stored.stale_if_error_ends_in_seconds),
        ("where no origin is reached", stored.stale_if_disconnected_ends_in_seconds),
    ];
    let ttl = u64::try_from(stored.ttl_seconds).unwrap_or(0);
    let told = occasions.iter().filter(|(_, ends)| *ends > ttl);
    let told: Vec<_> = told.map(|(when, ends)| format!("{when} for {ends} s more")).collect();
    (!told.is_empty()).then(|| format!("may be served {}", told.join(", ")))
}

/// The words of `detail` in `Cache-Status`, for people.
fn unstored(reason: &str) -> &str {
    match reason {
        "max-body" => "larger than cache.max_body",
        "no-room" => "no room beside the other bodies in flight (cache.in_flight)",
        "rule" => "a rule of the site says so",
        "no-lifetime" => "no lifetime, no ground for one, no validator",
        "no-validator" => "it needs validation and has no validator",
        "vary-any" => "Vary: *",
        "vary-by-edge" => "it varies by what only the edge says",
        "server-error" => "an error, and what is stored may stand in for it",
        "incomplete" => "its body broke off",
        "authorization" => "its request had Authorization, and it does not allow sharing",
        other => other,
    }
}

fn matching(rule: &Rule) -> String {
    let asks = if rule.asks_response { ", if the response is one that it asks for" } else { "" };
    format!("{}: {}{asks}", rule.name, rule.does.join("; "))
}

fn under(rules: &StoredUnder) -> String {
    let changed = if rules.current { "" } else { ", as the rules were when it was stored" };
    format!("rules: {}{changed}", rules.names.join(", "))
}

/// What purges have done to a stored response, or else what would purge it.
fn purges(stored: &Stored) -> Vec<String> {
    let removed = stored.selectors.iter().filter_map(|matching| {
        let (purge, does) = match matching.effect.as_deref()? {
            "purged" => (matching.hard.as_ref()?, "purged by"),
            "outdated" => (matching.soft.as_ref()?, "softly purged by"),
            _ => return None,
        };
        let id = purge.id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
        Some(format!(
            "{does} {}{id}, the edge's purge {}: this was fetched after its purge {}",
            word(&matching.selector),
            purge.epoch,
            stored.stamp
        ))
    });
    let mut told: Vec<String> = removed.collect();
    if stored.standing == "current" && !stored.selectors.is_empty() {
        let all: Vec<_> = stored.selectors.iter().map(|one| word(&one.selector)).collect();
        told.push(format!("would be purged by {}, or a prefix of its path", all.join(", ")));
    }
    told
}

/// `tag:news` of `{"tag":"news"}`.
fn word(selector: &Value) -> String {
    let only = selector.as_object().and_then(|selector| selector.iter().next());
    match only {
        Some((kind, Value::String(text))) => format!("{kind}:{text}"),
        Some((kind, _)) => kind.clone(),
        None => selector.to_string(),
    }
}

fn applied(purges: &Purging) -> String {
    let known = match purges.staleness_seconds {
        Some(seconds) => format!("all that were acknowledged more than {seconds:.1} s ago"),
        None => "how many there are is not known: the control plane is not heard".to_owned(),
    };
    format!("{} applied; {known}", purges.epoch)
}

/// A key keeps its parts apart by control characters, so that no part can hold one.
fn visible(key: &str) -> String {
    key.chars().map(|c| if c.is_control() { '|' } else { c }).collect()
}

fn next(next: &Next) -> String {
    let mut text = match (&next.fwd, next.decision.as_str()) {
        (Some(fwd), "forward") => format!("goes forward: {fwd}"),
        (_, decision) => decision.to_owned(),
    };
    let more = [
        (next.validates && !next.refreshes, "validates what is stored"),
        (next.refreshes, "stale, and refreshed in the background"),
        (next.stale_may_stand_in, "stale may stand in for an error"),
    ];
    for (_, words) in more.iter().filter(|(holds, _)| *holds) {
        text.push_str("; ");
        text.push_str(words);
    }
    text
}

fn variant(stored: &Stored) -> String {
    let state = match stored.ttl_seconds {
        ttl if ttl > 0 => format!("fresh for {ttl} s"),
        ttl => format!("stale for {} s", ttl.saturating_neg()),
    };
    let selected = if stored.selected { "" } else { ", another variant than this request's" };
    format!(
        "{}, {} bytes, {state}: age {} s of {} s ({}){selected}",
        stored.status,
        stored.body_bytes,
        stored.age_seconds,
        stored.lifetime_seconds,
        stored.lifetime_from,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::text;

    #[test]
    fn an_answer_is_told_in_words() {
        let answer = json!({
            "edge": "fra-1", "url": "/a", "site": "default", "key": "default\u{1}http\u{1}/a",
            "stored": [{"status": 200, "body_bytes": 12, "selected": true, "vary": "",
                "lifetime_seconds": 60, "lifetime_from": "max-age", "age_seconds": 70,
                "ttl_seconds": -10, "etag": "\"x\"", "tags": ["news"]}],
            "next": {"decision": "forward", "fwd": "stale", "validates": true,
                "refreshes": false, "stale_may_stand_in": true},
            "later": 1,
        });
        let text = text(&answer);
        assert!(!text.contains("purge"), "an edge that says nothing of purges: {text}");
        assert!(
            text.contains("goes forward: stale; validates what is stored; stale may"),
            "{text}"
        );
        assert!(text.contains("200, 12 bytes, stale for 10 s: age 70 s of 60 s"), "{text}");
        assert!(text.contains("tags: news") && text.contains("default|http|/a"), "{text}");
    }

    #[test]
    fn the_purge_that_did_it_is_told_and_what_would() {
        let answer = |standing: &str, effect: Option<&str>| {
            let purge = json!({"epoch": 7, "id": "p7"});
            json!({
                "edge": "fra-1", "stored": [{"standing": standing, "stamp": 6, "selectors": [
                    {"selector": {"all": true}},
                    {"selector": {"tag": "news"}, "hard": purge, "soft": purge, "effect": effect},
                ]}],
                "purges": {"epoch": 8, "staleness_seconds": 0.26},
            })
        };
        let rows = [
            (
                "purged",
                Some("purged"),
                "purged by tag:news (p7), the edge's purge 7: this was fetched after its purge 6",
            ),
            ("outdated", Some("outdated"), "softly purged by tag:news (p7), "),
            ("current", None, "would be purged by all, tag:news, or a prefix of its path"),
        ];
        for (standing, effect, want) in rows {
            let text = text(&answer(standing, effect));
            assert!(text.contains(want), "{text}");
            assert!(
                text.contains("8 applied; all that were acknowledged more than 0.3 s"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_rules_that_match_and_those_that_were_are_told() {
        let stored = json!({"rules": {"names": ["old"], "current": false}});
        let text = text(&json!({
            "edge": "a", "stored": [stored],
            "rules": [{"name": "img", "does": ["bypass", "x"]},
                {"name": "404", "asks_response": true, "does": ["y"]}],
        }));
        assert!(text.contains("  rule    img: bypass; x\n"), "{text}");
        assert!(
            text.contains("  rule    404: y, if the response is one that it asks for"),
            "{text}"
        );
        assert!(text.contains("rules: old, as the rules were when it was stored"), "{text}");
    }

    #[test]
    fn an_answer_of_another_kind_is_shown_as_it_is() {
        assert!(text(&json!({"stored": "none"})).contains("\"none\""));
        assert!(text(&json!({"edge": "a"})).contains("stored  nothing"));
    }
}
