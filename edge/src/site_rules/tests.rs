//! Which rules apply, what they say, and what stands in keys.

use http::Method;
use meridian_edge_rules::policy::Policy;

use super::*;

fn rules(text: &str) -> SiteRules {
    #[derive(serde::Deserialize)]
    struct File {
        rule: Vec<SiteRule>,
    }
    let file: File = toml::from_str(text).unwrap();
    let origins = ["a", "b"].map(|name| name.parse().unwrap());
    SiteRules::new(&file.rule, &origins, str::to_owned)
}

fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut all = HeaderMap::new();
    for (name, value) in fields {
        all.append(*name, value.parse().unwrap());
    }
    all
}

fn matched(rules: &SiteRules, path: &str, headers: &HeaderMap) -> Matched {
    let method = &Method::GET;
    rules.matched(&Seen { method, host: Some("h"), path, query: None, headers })
}

fn key(rules: &SiteRules, path: &str, headers: &HeaderMap) -> String {
    let mut into = String::new();
    rules.write_key(&mut into, matched(rules, path, headers), headers);
    into
}

#[test]
fn every_rule_that_matches_applies_and_the_later_of_two_counts() {
    let rules = rules(
        "[[rule]]\nname = 'all'\nedge_lifetime = '1m'\nstale_if_error = '5s'\norigin = 'a'\n\
         response_set = ['X-A: 1', 'X-B: 1']\n\
         [[rule]]\nname = 'img'\nwhen = { path = ['/img/*'] }\nedge_lifetime = '1h'\n\
         origin = 'b'\nbypass = true\nresponse_remove = ['X-A']\n\
         [[rule]]\nname = 'logo'\nwhen = { path = ['/img/logo'] }\nbypass = false",
    );
    let none = HeaderMap::new();
    let rows = [
        ("/", 60, Some(0), false, 1),
        ("/img/a", 3_600, Some(1), true, 2),
        ("/img/logo", 3_600, Some(1), false, 3),
    ];
    for (path, lifetime, origin, bypasses, count) in rows {
        let matched = matched(&rules, path, &none);
        let said = rules.of_response(matched, &Policy::cdn(), StatusCode::OK, &none);
        assert_eq!(said.policy.ruled.lifetime, Some(Duration::from_secs(lifetime)), "{path}");
        assert_eq!(said.policy.ruled.stale_if_error, Some(Duration::from_secs(5)), "{path}");
        assert_eq!((rules.origin(matched), rules.bypasses(matched)), (origin, bypasses), "{path}");
        assert_eq!(said.amendment.rules.len(), count, "{path}");
        let mut clients = fields(&[("x-a", "0")]);
        said.amendment.apply(&mut clients, Duration::ZERO);
        assert_eq!(clients.contains_key("x-a"), path == "/", "a later rule takes out: {path}");
        assert_eq!(clients.get("x-b").unwrap(), "1");
    }
}

#[test]
fn a_lifetime_is_not_one_for_errors_unless_the_rule_names_them() {
    let rules = rules(
        "[[rule]]\nname = 'all'\nedge_lifetime = '1h'\nbrowser_lifetime = '1m'\n\
         [[rule]]\nname = 'missing'\nwhen = { status = ['404'] }\nedge_lifetime = '5s'",
    );
    let none = HeaderMap::new();
    let matched = matched(&rules, "/", &none);
    let rows = [(200, Some(3_600), true), (302, Some(3_600), true), (404, Some(5), false)];
    for (status, lifetime, browser) in rows.into_iter().chain([(500, None, false)]) {
        let status = StatusCode::from_u16(status).unwrap();
        let said = rules.of_response(matched, &Policy::cdn(), status, &none);
        assert_eq!(said.policy.ruled.lifetime, lifetime.map(Duration::from_secs), "{status}");
        assert_eq!(said.amendment.browser_lifetime.is_some(), browser, "{status}");
    }
}

#[test]
fn what_only_the_response_can_say_does_not_pass_the_store_by() {
    let rules = rules("[[rule]]\nname = 'r'\nwhen = { status = ['200'] }\nbypass = true");
    let none = HeaderMap::new();
    let matched = matched(&rules, "/", &none);
    assert!(!rules.bypasses(matched));
    let bypass =
        |status| rules.of_response(matched, &Policy::cdn(), status, &none).policy.ruled.bypass;
    assert!(bypass(StatusCode::OK) && !bypass(StatusCode::NOT_FOUND));
}

#[test]
fn what_depends_on_something_beside_the_key_is_in_the_key() {
    let one = |when: &str, does: &str| {
        rules(&format!("[[rule]]\nname = 'r'\nwhen = {{ {when} }}\n{does}"))
    };
    let beta = "header = [{ name = 'x-beta' }]";
    let rows = [
        (one(beta, "edge_lifetime = '1s'"), ";rule=r"),
        (one(beta, "response_set = ['a: b']"), ";rule=r"),
        (one(beta, "request_set = ['a: b']"), ";rule=r"),
        (one(beta, "origin = 'b'"), ";rule=r"),
        (one(beta, "bypass = true"), ""), // nothing is stored under it
        (one("host = ['h']", "edge_lifetime = '1s'"), ";rule=r"),
        (one("path = ['*']", "edge_lifetime = '1s'"), ""), // the path is in each key
        (one("header = [{ name = 'x-none' }]", "edge_lifetime = '1s'"), ""),
        (one(beta, "key_headers = ['X-Beta', 'x-c']"), ";field=x-beta=1%20;field=x-c"),
    ];
    for (rules, want) in rows {
        let want = want.replace("1%20", "1%3B2");
        assert_eq!(key(&rules, "/", &fields(&[("x-beta", "1;2")])), want);
    }
}

#[test]
fn values_in_a_key_cannot_run_into_each_other() {
    let rules = rules("[[rule]]\nname = 'r'\nkey_headers = ['a', 'b']\nkey_cookies = ['c', 'd']");
    let rows: [&[(&'static str, &str)]; 10] = [
        &[],
        &[("a", "")],
        &[("a", "1"), ("a", "2")],
        &[("a", "1=2")],
        &[("a", "1;field=b")],
        &[("a", "1 2")],
        &[("b", "1")],
        &[("cookie", "c=1")],
        &[("cookie", "x=c; c=1=; d=2")],
        &[("cookie", "c=1"), ("cookie", "c=2")],
    ];
    let keys = rows.map(|row| key(&rules, "/", &fields(row)));
    for (n, one) in keys.iter().enumerate() {
        assert!(!one.contains(' '), "{one}");
        assert!(keys.iter().skip(n + 1).all(|other| one != other), "{one}");
    }
    let spaced = key(&rules, "/", &fields(&[("cookie", "z=1;  c=1 ;d=2")]));
    assert_eq!(spaced, key(&rules, "/", &fields(&[("cookie", "c=1; d=2; e=3")])));
}

#[test]
fn a_set_of_rules_has_a_number_of_its_own() {
    let base = "[[rule]]\nname = 'r'\nedge_lifetime = '1s'";
    assert_eq!(rules(base).set(), rules(base).set());
    assert_ne!(rules(base).set(), rules(&base.replace("1s", "2s")).set());
    assert!(SiteRules::default().is_empty() && !rules(base).is_empty());
}

#[test]
fn a_rule_is_told_in_words() {
    let rules = rules(
        "[[rule]]\nname = 'r'\nedge_lifetime = '1m'\nset_cookie = 'strip'\n\
         response_remove = ['Server']\nkey_cookies = ['c']",
    );
    let want = "key by cookie c, edge_lifetime 60 s, strips Set-Cookie, response_remove server";
    assert_eq!(rules.does("r").join(", "), want);
    assert!(rules.does("other").is_empty());
}
