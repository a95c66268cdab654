//! The rules of `[[site.rule]]`.

use meridian_config::edge::Edge;

use crate::edge::EDGE;
use crate::rows::{check, violations};

/// Settings of the first rule, joined by `&`, each without `site[0].rule[0].`.
fn rule(settings: &str) -> String {
    let settings = settings.split('&').map(|one| format!("site[0].rule[0].{}", one.trim()));
    let all = settings.chain(["site[0].rule[0].name = 'r'".to_owned()]);
    all.collect::<Vec<_>>().join(" & ")
}

/// Checks rows of settings of one rule.
fn check_rules(rows: &[(&str, &str)]) {
    for (settings, want) in rows {
        let want = match *want {
            want if want.contains(" = ") || want.contains(": ") => {
                format!("site[0].rule[0].{want}")
            }
            want => want.to_owned(),
        };
        check::<Edge>(EDGE, &[(&rule(settings), &want)]);
    }
}

#[test]
fn a_rule_says_what_it_is_for_in_words_that_can_match() {
    let status = "must be a status or a class of them, such as '404' or '5xx'";
    let status = |value: &str| format!("when.status[0] = '{value}': {status}");
    let base = "edge_lifetime = '1s' & when.";
    let row = |settings: &str| format!("{base}{settings}");
    check_rules(&[
        ("edge_lifetime = '1s'", ""),
        (&row("path = ['/a*', '*.css']"), ""),
        (&row("status = ['200', '4xx', '599']"), ""),
        (&row("status = ['199']"), &status("199")),
        (&row("status = ['600']"), &status("600")),
        (&row("status = ['1xx']"), &status("1xx")),
        (&row("status = ['655xx']"), &status("655xx")),
        (
            &row("path = ['a']"),
            "when.path[0] = 'a': must start with '/' or '*', such as '/img/*' or '*.css'",
        ),
        (&row("method = ['get']"), "when.method[0] = 'get': must be a method, such as 'GET'"),
        (
            &row("header = [{ name = 'a b' }]"),
            "when.header[0].name = 'a b': must be the name of a field",
        ),
        (
            &row("query = [{ name = '' }]"),
            "when.query[0].name = '': must be the name of a parameter",
        ),
        (&row("header = [{ name = 'Accept', matches = '*html*' }]"), ""),
        (
            &row("header = [{ name = 'a', equals = 'b', matches = 'c' }]"),
            "when.header[0]: says of a both equals and matches: one must do",
        ),
        (
            &row("response_header = [{ name = 'a', present = false, equals = 'b' }]"),
            "when.response_header[0]: says of a both present and equals: one must do",
        ),
    ]);
}

#[test]
fn what_a_rule_does_has_bounds_and_fits_together() {
    let nothing = "site[0].rule[0]: does nothing: it must set something beside name and when";
    check::<Edge>(EDGE, &[("site[0].rule[0].name = 'r'", nothing)]);
    let stored = |key: &str| {
        format!("bypass = true: says that nothing is stored, so that {key} says nothing")
    };
    check_rules(&[
        ("edge_lifetime = '365d'", ""),
        ("edge_lifetime = '366d'", "edge_lifetime = '366d': must be at most 365d"),
        ("browser_lifetime = '366d'", "browser_lifetime = '366d': must be at most 365d"),
        ("stale_if_error = '366d'", "stale_if_error = '366d': must be at most 365d"),
        (
            "stale_while_revalidate = '366d'",
            "stale_while_revalidate = '366d': must be at most 365d",
        ),
        ("bypass = false & edge_lifetime = '1s'", ""),
        ("bypass = true & edge_lifetime = '1s'", &stored("edge_lifetime")),
        ("bypass = true & query.sort = true", &stored("query")),
        ("bypass = true & key_headers = ['a']", &stored("key_headers")),
        ("bypass = true & browser_lifetime = '1s'", ""), // the client may still reuse it
        (
            "override_no_store = true & bypass = false",
            "override_no_store = true: goes with edge_lifetime, which is missing here",
        ),
        ("override_no_store = true & edge_lifetime = '1s'", ""),
        ("origin = 'origin-1'", ""),
        ("origin = 'origin-2'", "origin = 'origin-2': must be one of the site's origins"),
        ("set_cookie = 'strip'", ""),
        ("set_cookie = 'eat'", "set_cookie = 'eat': must be one of 'pass', 'store', 'strip'"),
        (
            "query.drop = ['a b']",
            "query.drop[0] = 'a b': must be a parameter's name, with a '*' at its end at most",
        ),
    ]);
}

#[test]
fn what_is_settled_before_the_response_does_not_wait_for_it() {
    let early = |key: &str, of: &str| {
        format!("{key}: is settled before there is a response: it cannot depend on {of}")
    };
    let purged =
        |key: &str| format!("query: may depend on the path only, not on {key}: purges name URLs");
    check_rules(&[
        ("bypass = true & when.status = ['404']", ""),
        ("origin = 'origin-1' & when.status = ['404']", &early("origin = 'origin-1'", "status")),
        (
            "request_set = ['a: b'] & when.response_header = [{ name = 'a' }]",
            &early("request_set = ['a: b']", "response_header"),
        ),
        ("query.sort = true & when.path = ['/a']", ""),
        ("query.sort = true & when.host = ['a']", &purged("host")),
        ("query.sort = true & when.header = [{ name = 'a' }]", &purged("header")),
    ]);
}

#[test]
fn fields_are_well_formed_and_nobody_elses() {
    let own = "is a field of the connection or of Meridian's own: no rule changes it";
    let own = |entry: &str| format!("{entry}: {own}");
    check_rules(&[
        ("response_set = ['X-Frame-Options: DENY']", ""),
        ("response_remove = ['Server', 'Set-Cookie']", ""),
        (
            "response_set = ['X-Frame-Options']",
            "response_set[0] = 'X-Frame-Options': must be a field and its value, such as \
             'X-Frame-Options: DENY'",
        ),
        (
            "response_set = ['a:']",
            "response_set[0] = 'a:': must be a value of visible characters behind the ':'",
        ),
        (
            "response_remove = ['a b']",
            "response_remove[0] = 'a b': must be a name of letters, digits and '-'",
        ),
        ("response_set = ['Connection: close']", &own("response_set[0] = 'Connection: close'")),
        ("response_remove = ['Age']", &own("response_remove[0] = 'Age'")),
        ("request_set = ['Host: a']", &own("request_set[0] = 'Host: a'")),
        ("request_remove = ['Meridian-X']", &own("request_remove[0] = 'Meridian-X'")),
        ("key_headers = ['TE']", &own("key_headers[0] = 'TE'")),
        (
            "request_remove = ['If-None-Match']",
            "request_remove[0] = 'If-None-Match': is written for all who share the answer: no \
             rule changes it",
        ),
        (
            "response_remove = ['Content-Encoding']",
            "response_remove[0] = 'Content-Encoding': says how the body is encoded: no rule \
             changes it",
        ),
        (
            "key_headers = ['Cookie']",
            "key_headers[0] = 'Cookie': differs for each client: name cookies in key_cookies",
        ),
        ("response_remove = ['a', 'A']", "response_remove[1] = 'A': is there already, at index 0"),
        (
            "response_set = ['A: b'] & response_remove = ['a']",
            "response_set = ['A: b']: is in response_remove too: it is one or the other",
        ),
    ]);
}

#[test]
fn a_rule_that_a_later_one_undoes_entirely_is_told() {
    let rules = |first: &str, second: &str| {
        format!("site[0].rule = [{{ name = 'a', {first} }}, {{ name = 'b', {second} }}]")
    };
    let undone = "site[0].rule[0].name = 'a': never has an effect: rule b comes later, matches \
                  whatever it matches, and sets the same";
    let path = "when.path = ['/a']";
    check::<Edge>(
        EDGE,
        &[
            (&rules(&format!("{path}, edge_lifetime = '1s'"), "edge_lifetime = '2s'"), undone),
            (&rules("bypass = true", "bypass = false"), undone),
            (&rules("edge_lifetime = '1s'", &format!("{path}, edge_lifetime = '2s'")), ""),
            (&rules(&format!("{path}, bypass = true"), "edge_lifetime = '2s'"), ""),
            (&rules("response_set = ['a: b']", "response_set = ['a: c']"), ""), // lists add up
        ],
    );
    let same = rules("bypass = true", "bypass = true").replace("'b'", "'a'");
    let found = violations::<Edge>(EDGE, &same);
    assert!(found.iter().any(|one| one.contains("rule[1].name = 'a': is there already")));
}

#[test]
fn rules_of_a_site_are_bounded() {
    let rules = |count: usize| {
        let one = |n| format!("{{ name = 'r{n}', response_set = ['a: b'] }}");
        format!("site[0].rule = [{}]", (0..count).map(one).collect::<Vec<_>>().join(", "))
    };
    check::<Edge>(EDGE, &[(&rules(64), "")]);
    let found = violations::<Edge>(EDGE, &rules(65));
    assert!(found[0].ends_with("must be at most 64 rules"), "{found:?}");
    let paths = |count| {
        let one = |n| format!("'/{n}'");
        let all = (0..count).map(one).collect::<Vec<_>>().join(", ");
        rule(&format!("bypass = true & when.path = [{all}]"))
    };
    check::<Edge>(EDGE, &[(&paths(64), "")]);
    let found = violations::<Edge>(EDGE, &paths(65));
    assert!(found[0].ends_with("must have at most 64 entries"), "{found:?}");
}
