//! `explain`: what it says of the next request is what that request gets, and why.

use meridian_config::edge::Edge;
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Script, ScriptedOrigin, Seen, ok, status};
use meridian_tests::wait::{PATIENCE, eventually};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

type Fields = &'static [(&'static str, &'static str)];

/// Requests that differ in all that a decision looks at.
const REQUESTS: [Fields; 11] = [
    &[],
    &[("accept-encoding", "gzip")],
    &[("accept-language", "de")],
    &[("cookie", "session=1")],
    &[("x-beta", "1")],
    &[("cache-control", "no-cache")],
    &[("cache-control", "max-age=0")],
    &[("cache-control", "max-stale")],
    &[("cache-control", "only-if-cached")],
    &[("cache-control", "only-if-cached"), ("cookie", "session=1")],
    &[("cache-control", "min-fresh=99999"), ("accept-language", "de")],
];

/// Fields of responses. None turns stale by the clock while the test runs.
const RESPONSES: [Fields; 12] = [
    &[],
    &[("cache-control", "max-age=36000")],
    &[("cache-control", "max-age=36000"), ("vary", "accept-language")],
    &[("cache-control", "max-age=36000"), ("vary", "accept-encoding")],
    &[("cache-control", "max-age=36000, no-cache"), ("etag", "\"a\"")],
    &[("cache-control", "max-age=0"), ("etag", "\"a\"")],
    &[("cache-control", "max-age=0, stale-while-revalidate=36000"), ("etag", "\"b\"")],
    &[("cache-control", "max-age=0, must-revalidate"), ("etag", "\"b\"")],
    &[("cache-control", "no-store")],
    &[("cache-control", "private")],
    &[("last-modified", "Mon, 03 Jan 2022 00:00:00 GMT")],
    &[("cache-control", "max-age=36000"), ("set-cookie", "a=b")],
];

#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's verdict")]
fn configure(edge: &mut Edge) {
    let site = "name = \"default\"\ndefault = true\norigins = [\"origin-1\"]\n\
        honour_client_directives = true\nnegative = {}\n\
        [[rule]]\nname = \"session\"\nbypass = true\n\
        when = { header = [{ name = \"cookie\", matches = \"*session=*\" }] }\n\
        [[rule]]\nname = \"beta\"\nedge_lifetime = \"1h\"\n\
        when = { header = [{ name = \"x-beta\" }] }\n\
        [[rule]]\nname = \"missing\"\nwhen = { status = [\"404\"] }\nedge_lifetime = \"1h\"";
    edge.site[0] = toml::from_str(site).unwrap();
}

fn answer(seen: &Seen, fields: Fields, code: u16) -> Script {
    let etag = fields.iter().find(|(name, _)| *name == "etag").map(|(_, value)| *value);
    let unchanged = etag.is_some() && seen.header("if-none-match") == etag;
    let script = if unchanged { status(304) } else { status(code).body("x") };
    fields.iter().fold(script, |script, (name, value)| script.header(name, value))
}

async fn explained(edge: &EdgeProcess, path: &str, fields: Fields) -> Value {
    let encoded = |text: &str| text.replace('=', "%3D").replace(' ', "%20");
    let fields = fields.iter().map(|(n, v)| format!("&header={n}:{}", encoded(v)));
    let url = format!("{}/v1/explain?url={path}{}", edge.admin(), fields.collect::<String>());
    Client::get(&url).await.json()
}

/// What a reply shows of the decision, in the words of `explain`.
fn got(reply: &Reply) -> (String, Option<String>) {
    let own = reply.cache_status();
    if reply.status == 504 {
        return ("unsatisfiable".to_owned(), None);
    }
    if own.starts_with("fra-1; hit") {
        return ("hit".to_owned(), None);
    }
    let fwd = own.split("; fwd=").nth(1).and_then(|rest| rest.split(';').next());
    ("forward".to_owned(), fwd.map(str::to_owned))
}

#[tokio::test]
async fn what_explain_says_of_the_next_request_is_what_it_gets() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, configure).await;
    let mut outcomes = std::collections::BTreeSet::new();
    for round in 0..400 {
        let path = format!("/{}", random.random_range(0..12));
        if random.random_range(0..4) == 0 {
            let fields = *RESPONSES.choose(&mut random).unwrap();
            let code = *[200, 200, 404, 503].choose(&mut random).unwrap();
            origin.script_fn(&path, move |seen| answer(seen, fields, code));
        }
        let fields = *REQUESTS.choose(&mut random).unwrap();
        let told = explained(&edge, &path, fields).await;
        let reply = Client::get_with(&format!("{}{path}", edge.url()), fields).await;
        let next = &told["next"];
        let word = |name: &str| next[name].as_str().map(str::to_owned);
        let want = (word("decision").unwrap(), word("fwd"));
        assert_eq!(got(&reply), want, "seed {seed}, round {round}: {path} {fields:?} {told:#}");
        outcomes.insert(want);
        // What is refreshed behind a client's back is there before the next question.
        eventually("no fetch is under way", PATIENCE, async || {
            let store = Client::get(&format!("{}/v1/store", edge.admin())).await.json();
            (store["fetches"] == 0).then_some(())
        })
        .await;
    }
    assert!(outcomes.len() >= 6, "the cases are many: {outcomes:?}");
}

#[tokio::test]
async fn the_arithmetic_is_told_step_by_step() {
    let origin = ScriptedOrigin::start().await;
    let answer = ok("a").header("age", "10").header("vary", "accept-language");
    origin.script(
        "/a",
        answer.header("cache-control", "max-age=60, stale-if-error=30, stale-while-revalidate=20"),
    );
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    edge.get("/a").await;
    let told = explained(&edge, "/a", &[]).await;
    let stored = &told["stored"][0];
    let number = |name: &str| stored[name].as_u64().unwrap();
    assert_eq!(stored["lifetime_from"], "max-age");
    assert_eq!(number("initial_age_seconds"), 10);
    assert!(number("apparent_age_seconds") <= 1, "{told:#}");
    let left = 60 - number("age_seconds");
    for (name, more) in [("stale_while_revalidate", 20), ("stale_if_error", 30)] {
        let until = number(&format!("{name}_ends_in_seconds"));
        assert!((left + more - 1..=left + more).contains(&until), "{name}: {told:#}");
    }
    assert_eq!(
        (stored["selected"].as_bool(), told["next"]["variant"].as_u64()),
        (Some(true), Some(0))
    );
    let other = explained(&edge, "/a", &[("accept-language", "de")]).await;
    assert_eq!(other["stored"][0]["selected"], false);
    assert_eq!(other["next"]["fwd"], "vary-miss");
    assert_eq!(other["next"]["variant"], Value::Null);
}

#[tokio::test]
async fn why_an_answer_was_not_stored_is_told_to_the_client_and_remembered() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.cache.max_body = "1KiB".parse().unwrap();
    })
    .await;
    let large = "x".repeat(1_025);
    let rows = [
        ("/no-store", ok("a").header("cache-control", "no-store"), "no-store"),
        ("/private", ok("a").header("cache-control", "private"), "private"),
        (
            "/cookie",
            ok("a").header("cache-control", "max-age=9").header("set-cookie", "a=b"),
            "set-cookie",
        ),
        ("/vary", ok("a").header("cache-control", "max-age=9").header("vary", "*"), "vary-any"),
        ("/silent", ok("a"), "no-lifetime"),
        ("/large", ok(large).header("cache-control", "max-age=9"), "max-body"),
        (
            "/edge",
            ok("a").header("cache-control", "max-age=9").header("vary", "via"),
            "vary-by-edge",
        ),
    ];
    for (path, script, want) in rows {
        origin.script(path, script);
        let reply = edge.get(path).await;
        let status = format!("fra-1; fwd=uri-miss; fwd-status=200; detail={want}");
        assert_eq!(reply.cache_status(), status, "{path}");
        let told = explained(&edge, path, &[]).await;
        assert_eq!(told["not_stored"]["reason"], want, "{path}: {told:#}");
        assert!(told["not_stored"]["seconds_ago"].as_u64().unwrap() < 60);
    }
    origin.script("/kept", ok("a").header("cache-control", "max-age=9"));
    edge.get("/kept").await;
    assert_eq!(explained(&edge, "/kept", &[]).await["not_stored"], Value::Null);
}
