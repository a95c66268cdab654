//! The rules of `[[site.rule]]` that its types cannot say.

use crate::control_loss::{LEAST_LAG, MOST_LAG};
use crate::limits::{unique, within};
use crate::site_rule::{FieldTest, SiteRule, When, field_line, status_range};
use crate::units::{HumanDuration, NodeName};
use crate::violation::{Place, Violation};

/// Rules of one site; more would not fit the set of those that a request matches.
const MOST_RULES: usize = 64;
/// Entries of one list in a rule: each is looked at for each request.
const MOST_ENTRIES: usize = 64;

/// Fields that are about one connection, that frame the message, or that Meridian writes itself.
const OWN_FIELDS: [&str; 21] = [
    "age",
    "cdn-loop",
    "cache-status",
    "connection",
    "content-length",
    "content-range",
    "date",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "proxy-status",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Request fields that decide what of a shared answer a client gets: the same for all.
const OF_SHARED_REQUESTS: [&str; 6] = [
    "accept-encoding",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
];

/// Response fields by which purges name it, and what instructs surrogates.
const OF_PURGES: [&str; 3] = ["cache-tag", "surrogate-control", "surrogate-key"];

/// Checks the `rules` of a site, which stand at `here`, with `origins` to choose from.
pub(crate) fn check_rules(
    rules: &[SiteRule],
    origins: &[NodeName],
    here: &Place<'_>,
    longest: HumanDuration,
    found: &mut Vec<Violation>,
) {
    if rules.len() > MOST_RULES {
        let rule = format!("must be at most {MOST_RULES} rules");
        found.push(here.breaks(&rules.len(), rule));
    }
    unique(here, Some("name"), rules.iter().map(|rule| rule.name.as_str()), found);
    for (index, rule) in rules.iter().enumerate() {
        let at = here.index(index);
        check_when(&rule.when, &at.key("when"), found);
        check_actions(rule, &at, longest, found);
        check_request_side(rule, &at, found);
        check_fields(rule, &at, found);
        check_origin(rule, origins, &at, found);
        check_overridden(rules, index, here, found);
    }
}

fn check_when(when: &When, at: &Place<'_>, found: &mut Vec<Violation>) {
    let lists = [
        ("path", when.path.len()),
        ("host", when.host.len()),
        ("method", when.method.len()),
        ("header", when.header.len()),
        ("query", when.query.len()),
        ("status", when.status.len()),
        ("response_header", when.response_header.len()),
    ];
    for (key, length) in lists.into_iter().filter(|(_, length)| *length > MOST_ENTRIES) {
        found
            .push(at.key(key).breaks(&length, format!("must have at most {MOST_ENTRIES} entries")));
    }
    for (index, method) in when.method.iter().enumerate() {
        let is_method = is_token(method) && !method.bytes().any(|b| b.is_ascii_lowercase());
        if !is_method {
            let rule = "must be a method, such as \"GET\"";
            found.push(at.key("method").index(index).breaks(method, rule));
        }
    }
    for (index, status) in when.status.iter().enumerate() {
        if status_range(status).is_none() {
            let rule = "must be a status or a class of them, such as \"404\" or \"5xx\"";
            found.push(at.key("status").index(index).breaks(status, rule));
        }
    }
    let fields = [("header", &when.header), ("response_header", &when.response_header)];
    for (key, tests) in fields {
        for (index, test) in tests.iter().enumerate() {
            let here = at.key(key).index(index);
            if !is_token(&test.name) {
                found.push(here.key("name").breaks(&test.name, "must be the name of a field"));
            }
            check_test(test, &here, found);
        }
    }
    for (index, test) in when.query.iter().enumerate() {
        let here = at.key("query").index(index);
        if test.name.is_empty() {
            found.push(here.key("name").breaks(&test.name, "must be the name of a parameter"));
        }
        check_test(test, &here, found);
    }
}

fn check_test(test: &FieldTest, at: &Place<'_>, found: &mut Vec<Violation>) {
    let given = [
        ("present", test.present.is_some()),
        ("equals", test.equals.is_some()),
        ("matches", test.matches.is_some()),
    ];
    let mut given = given.into_iter().filter_map(|(key, is_given)| is_given.then_some(key));
    if let (Some(first), Some(second)) = (given.next(), given.next()) {
        let rule = format!("says of {} both {first} and {second}: one must do", test.name);
        found.push(at.lacks(rule).with(&at.key(first)).with(&at.key(second)));
    }
}

/// What ranges have, and what excludes each other.
fn check_actions(
    rule: &SiteRule,
    at: &Place<'_>,
    longest: HumanDuration,
    found: &mut Vec<Violation>,
) {
    let lifetimes = [
        ("edge_lifetime", rule.edge_lifetime),
        ("browser_lifetime", rule.browser_lifetime),
        ("stale_while_revalidate", rule.stale_while_revalidate),
        ("stale_if_error", rule.stale_if_error),
    ];
    for (key, lifetime) in lifetimes {
        if let Some(lifetime) = lifetime {
            within(&at.key(key), lifetime, HumanDuration::millis(0), longest, found);
        }
    }
    if let Some(lag) = rule.max_control_lag {
        within(&at.key("max_control_lag"), lag, LEAST_LAG, MOST_LAG, found);
    }
    if rule.bypass == Some(true) {
        let of_store = [
            ("control_loss", rule.control_loss.is_some()),
            ("max_control_lag", rule.max_control_lag.is_some()),
            ("edge_lifetime", rule.edge_lifetime.is_some()),
            ("stale_while_revalidate", rule.stale_while_revalidate.is_some()),
            ("stale_if_error", rule.stale_if_error.is_some()),
            ("query", rule.query.is_some()),
            ("key_headers", !rule.key_headers.is_empty()),
            ("key_cookies", !rule.key_cookies.is_empty()),
        ];
        for (key, _) in of_store.into_iter().filter(|(_, is_given)| *is_given) {
            let rule = format!("says that nothing is stored, so that {key} says nothing");
            found.push(at.key("bypass").breaks(&true, rule).with(&at.key(key)));
        }
    }
    if rule.override_no_store && rule.edge_lifetime.is_none() {
        let rule = "goes with edge_lifetime, which is missing here";
        found.push(at.key("override_no_store").breaks(&true, rule).with(&at.key("edge_lifetime")));
    }
    if !does_something(rule) {
        found.push(at.lacks("does nothing: it must set something beside name and when"));
    }
    if let Some(query) = &rule.query {
        query.check(&at.key("query"), found);
    }
}

fn does_something(rule: &SiteRule) -> bool {
    rule.bypass.is_some()
        || rule.origin.is_some()
        || rule.query.is_some()
        || rule.edge_lifetime.is_some()
        || rule.browser_lifetime.is_some()
        || rule.stale_while_revalidate.is_some()
        || rule.stale_if_error.is_some()
        || rule.control_loss.is_some()
        || rule.max_control_lag.is_some()
        || rule.set_cookie.is_some()
        || field_lists(rule).iter().any(|(_, list)| !list.is_empty())
}

fn field_lists(rule: &SiteRule) -> [(&'static str, &[String]); 6] {
    [
        ("key_headers", &rule.key_headers),
        ("key_cookies", &rule.key_cookies),
        ("request_set", &rule.request_set),
        ("request_remove", &rule.request_remove),
        ("response_set", &rule.response_set),
        ("response_remove", &rule.response_remove),
    ]
}

/// What must be settled before anything is looked up cannot wait for a response.
fn check_request_side(rule: &SiteRule, at: &Place<'_>, found: &mut Vec<Violation>) {
    let request_side = [
        ("origin", rule.origin.is_some()),
        ("query", rule.query.is_some()),
        ("control_loss", rule.control_loss.is_some()),
        ("max_control_lag", rule.max_control_lag.is_some()),
        ("key_headers", !rule.key_headers.is_empty()),
        ("key_cookies", !rule.key_cookies.is_empty()),
        ("request_set", !rule.request_set.is_empty()),
        ("request_remove", !rule.request_remove.is_empty()),
    ];
    let of_response =
        [("status", rule.when.status.len()), ("response_header", rule.when.response_header.len())];
    if let Some((of_response, _)) = of_response.into_iter().find(|(_, length)| *length > 0) {
        for (key, _) in request_side.into_iter().filter(|(_, is_given)| *is_given) {
            let rule =
                format!("is settled before there is a response: it cannot depend on {of_response}");
            let place = at.key(key);
            found.push(place.lacks(rule).with(&at.key("when").key(of_response)));
        }
    }
    if rule.query.is_some() {
        // A purge of a URL knows no more than the URL, and must find what requests have stored.
        let others = [
            ("host", !rule.when.host.is_empty()),
            ("method", !rule.when.method.is_empty()),
            ("header", !rule.when.header.is_empty()),
            ("query", !rule.when.query.is_empty()),
        ];
        for (key, _) in others.into_iter().filter(|(_, is_given)| *is_given) {
            let rule = format!("may depend on the path only, not on {key}: purges name URLs");
            found.push(at.key("query").lacks(rule).with(&at.key("when").key(key)));
        }
    }
}

fn check_fields(rule: &SiteRule, at: &Place<'_>, found: &mut Vec<Violation>) {
    for (key, list) in field_lists(rule) {
        let here = at.key(key);
        if list.len() > MOST_ENTRIES {
            found.push(
                here.breaks(&list.len(), format!("must have at most {MOST_ENTRIES} entries")),
            );
        }
        let sets = key == "request_set" || key == "response_set";
        let names = list.iter().map(|entry| if sets { field_line(entry).0 } else { entry });
        let lower: Vec<String> = names.map(str::to_ascii_lowercase).collect();
        unique(&here, None, lower.iter().map(String::as_str), found);
        for (index, (name, entry)) in lower.iter().zip(list).enumerate() {
            let broken = match key {
                _ if !is_token(name) && sets => {
                    Some("must be a field and its value, such as \"X-Frame-Options: DENY\"")
                }
                _ if !is_token(name) => Some("must be a name of letters, digits and '-'"),
                "key_cookies" => None,
                "key_headers" if name == "cookie" => {
                    Some("differs for each client: name cookies in key_cookies")
                }
                _ if sets && !is_value(field_line(entry).1) => {
                    Some("must be a value of visible characters behind the ':'")
                }
                _ if OWN_FIELDS.contains(&name.as_str()) || name.starts_with("meridian-") => {
                    Some("is a field of the connection or of Meridian's own: no rule changes it")
                }
                "request_set" | "request_remove" if OF_SHARED_REQUESTS.contains(&name.as_str()) => {
                    Some("is written for all who share the answer: no rule changes it")
                }
                "response_set" | "response_remove" if OF_PURGES.contains(&name.as_str()) => {
                    Some("is the edge's: expose_surrogate_fields says whether clients get it")
                }
                "response_set" | "response_remove" if name == "content-encoding" => {
                    Some("says how the body is encoded: no rule changes it")
                }
                _ => None,
            };
            found.extend(broken.map(|rule| here.index(index).breaks(entry, rule)));
        }
    }
    let both = [
        ("request_set", &rule.request_set, "request_remove", &rule.request_remove),
        ("response_set", &rule.response_set, "response_remove", &rule.response_remove),
    ];
    for (set, lines, remove, names) in both {
        let clash =
            |line: &&String| names.iter().any(|n| n.eq_ignore_ascii_case(field_line(line).0));
        for line in lines.iter().filter(clash) {
            let rule = format!("is in {remove} too: it is one or the other");
            found.push(at.key(set).breaks(line, rule).with(&at.key(remove)));
        }
    }
}

fn check_origin(rule: &SiteRule, origins: &[NodeName], at: &Place<'_>, found: &mut Vec<Violation>) {
    if let Some(origin) = rule.origin.as_ref().filter(|origin| !origins.contains(origin)) {
        found.push(at.key("origin").breaks(origin, "must be one of the site's origins"));
    }
}

/// A rule all of whose settings a later rule sets for whatever it matches has no effect.
fn check_overridden(rules: &[SiteRule], index: usize, at: &Place<'_>, found: &mut Vec<Violation>) {
    let Some((rule, later)) = rules.get(index..).and_then(<[SiteRule]>::split_first) else {
        return;
    };
    let adds_up = field_lists(rule).iter().any(|(_, list)| !list.is_empty());
    if adds_up || !does_something(rule) {
        return;
    }
    let covers = |later: &&SiteRule| {
        let w = &later.when;
        let any = w.is_any_request() && !w.is_of_response();
        let sets = |this: bool, that: bool| !this || that;
        (any || w == &rule.when)
            && sets(rule.bypass.is_some(), later.bypass.is_some())
            && sets(rule.origin.is_some(), later.origin.is_some())
            && sets(rule.query.is_some(), later.query.is_some())
            && sets(rule.edge_lifetime.is_some(), later.edge_lifetime.is_some())
            && sets(rule.browser_lifetime.is_some(), later.browser_lifetime.is_some())
            && sets(rule.stale_while_revalidate.is_some(), later.stale_while_revalidate.is_some())
            && sets(rule.stale_if_error.is_some(), later.stale_if_error.is_some())
            && sets(rule.control_loss.is_some(), later.control_loss.is_some())
            && sets(rule.max_control_lag.is_some(), later.max_control_lag.is_some())
            && sets(rule.set_cookie.is_some(), later.set_cookie.is_some())
    };
    if let Some(later) = later.iter().find(covers) {
        let rule_text = format!(
            "never has an effect: rule {} comes later, matches whatever it matches, and sets the same",
            later.name
        );
        found.push(at.index(index).key("name").breaks(&rule.name, rule_text));
    }
}

fn is_token(text: &str) -> bool {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(is_tchar)
}

fn is_value(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
}
