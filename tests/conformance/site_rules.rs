//! Rules of a site, seen from a client and from an origin.

use http::Method;
use meridian_config::edge::Edge;
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, ok, status};
use serde_json::Value;

/// Gives the default site these rules, as TOML behind `[[rule]]`.
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a test's verdict")]
fn rules(text: &'static str) -> impl FnOnce(&mut Edge) {
    #[derive(serde::Deserialize)]
    struct File {
        rule: Vec<meridian_config::site_rule::SiteRule>,
    }
    move |edge| edge.site[0].rule = toml::from_str::<File>(text).unwrap().rule
}

async fn explained(edge: &EdgeProcess, url: &str, header: &str) -> Value {
    Client::get(&format!("{}/v1/explain?url={url}&header={header}", edge.admin())).await.json()
}

fn hits(reply: &Reply) -> bool {
    reply.cache_status().starts_with("fra-1; hit")
}

#[tokio::test]
async fn a_rule_stands_above_what_the_origin_says_of_lifetimes_and_not_of_storing() {
    let origin = ScriptedOrigin::start().await;
    let text = "[[rule]]\nname = 'page'\nwhen = { path = ['/page*'] }\nedge_lifetime = '1h'\n\
                [[rule]]\nname = 'force'\nwhen = { path = ['/page-force*'] }\n\
                edge_lifetime = '2h'\noverride_no_store = true";
    let edge = EdgeProcess::start(&origin, rules(text)).await;
    let rows = [
        ("/other", "max-age=60", Some(60)),
        ("/page", "max-age=60", Some(3_600)),
        ("/%70age", "max-age=60", Some(3_600)), // a path is what it means, not how it is spelled
        ("/page-2", "max-age=0, s-maxage=1", Some(3_600)),
        ("/page-3", "no-store", None),
        ("/page-4", "private", None),
        ("/page-force", "no-store", Some(7_200)),
        ("/page-force-2", "private, max-age=0", Some(7_200)),
    ];
    for (path, cache_control, want) in rows {
        origin.script(path, ok(path).header("cache-control", cache_control));
        edge.get(path).await;
        let second = edge.get(path).await;
        let ttl = second.cache_status().rsplit_once("hit; ttl=").map(|(_, ttl)| ttl);
        let near = |ttl: i64, want: i64| (want - 10..=want).contains(&ttl);
        let ttl = ttl.map(|ttl| ttl.parse::<i64>().unwrap());
        let fits = match (ttl, want) {
            (Some(ttl), Some(want)) => near(ttl, want),
            (ttl, want) => ttl == want,
        };
        assert!(fits, "{path}: {}", second.cache_status());
        assert_eq!(second.header("cache-control"), Some(cache_control), "clients: unchanged");
    }
}

#[tokio::test]
async fn errors_are_stored_by_a_rule_that_names_them() {
    let origin = ScriptedOrigin::start().await;
    let text = "[[rule]]\nname = 'all'\nedge_lifetime = '1h'\n\
                [[rule]]\nname = 'missing'\nwhen = { status = ['404'] }\nedge_lifetime = '9s'\n\
                [[rule]]\nname = 'never'\nbypass = true\n\
                when = { response_header = [{ name = 'x-kind', equals = 'once' }] }";
    let edge = EdgeProcess::start(&origin, rules(text)).await;
    origin.script("/403", status(403).body("x"));
    origin.script("/once", ok("x").header("x-kind", "once").header("cache-control", "max-age=60"));
    for (path, is_hit) in [("/missing", true), ("/403", false), ("/once", false)] {
        let first = edge.get(path).await;
        assert_eq!(hits(&edge.get(path).await), is_hit, "{path}: {}", first.cache_status());
    }
    let told = explained(&edge, "/missing", "a:b").await;
    assert_eq!(told["stored"][0]["lifetime_seconds"], 9, "{told:#}");
    assert_eq!(told["stored"][0]["lifetime_from"], "rule");
    assert_eq!(told["stored"][0]["rules"]["names"], serde_json::json!(["all", "missing"]));
    assert_eq!(told["stored"][0]["rules"]["current"], true);
}

#[tokio::test]
async fn a_bypass_neither_reads_nor_writes_the_store_and_the_last_word_counts() {
    let origin = ScriptedOrigin::start().await;
    let text = "[[rule]]\nname = 'session'\nbypass = true\n\
                when = { header = [{ name = 'cookie', matches = '*session=*' }] }\n\
                [[rule]]\nname = 'css'\nbypass = false\nwhen = { path = ['*.css'] }";
    let edge = EdgeProcess::start(&origin, rules(text)).await;
    let session = [("cookie", "a=b; session=1")];
    for path in ["/a", "/a.css"] {
        origin.script(path, ok(path).header("cache-control", "max-age=60"));
        edge.get(path).await;
    }
    let url = edge.url().to_owned();
    let passed = Client::get_with(&format!("{url}/a"), &session).await;
    assert_eq!(passed.cache_status(), "fra-1; fwd=bypass; fwd-status=200; detail=rule");
    assert!(hits(&Client::get_with(&format!("{url}/a.css"), &session).await));
    assert!(hits(&edge.get("/a").await), "what is stored stays for others");
    let told = explained(&edge, "/a", "Cookie:%20session=1").await;
    assert_eq!(told["next"]["fwd"], "bypass", "{told:#}");
    assert_eq!(told["rules"][0]["name"], "session");
    let only = [("cookie", "session=1"), ("cache-control", "only-if-cached")];
    assert_eq!(Client::get_with(&format!("{url}/a"), &only).await.status, 504);
}

#[tokio::test]
async fn one_clients_fields_never_settle_what_others_get() {
    let origin = ScriptedOrigin::start().await;
    let beta = ScriptedOrigin::start().await;
    let text = "[[rule]]\nname = 'beta'\norigin = 'origin-2'\nresponse_set = ['X-Beta: yes']\n\
                request_set = ['X-Tenant: beta']\nrequest_remove = ['X-Secret']\n\
                when = { header = [{ name = 'x-beta' }] }";
    let address = beta.address();
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.peers.insert("origin-2".parse().unwrap(), address.parse().unwrap());
        edge.origin.push(toml::from_str("name = \"origin-2\"").unwrap());
        edge.site[0].origins.push("origin-2".parse().unwrap());
        rules(text)(edge);
    })
    .await;
    origin.script("/a", ok("a").header("cache-control", "max-age=60"));
    beta.script("/a", ok("b").header("cache-control", "max-age=60"));
    let url = format!("{}/a", edge.url());
    for is_hit in [false, true] {
        let fields = [("x-beta", "1"), ("x-secret", "s"), ("x-tenant", "mine")];
        let reply = Client::get_with(&url, &fields).await;
        assert_eq!((reply.text(), reply.header("x-beta")), ("b", Some("yes")));
        assert_eq!(hits(&reply), is_hit);
        let reply = edge.get("/a").await;
        assert_eq!((reply.text(), reply.header("x-beta")), ("a", None));
        assert_eq!(hits(&reply), is_hit);
    }
    let seen = &beta.requests("/a")[0];
    assert_eq!((seen.header("x-tenant"), seen.header("x-secret")), (Some("beta"), None));
    assert_eq!((origin.count("/a"), beta.count("/a")), (1, 1));
    // A change of the URL by an unsafe method concerns both.
    Client::request(Method::POST, &url, &[], "x".into()).await;
    assert!(!hits(&Client::get_with(&url, &[("x-beta", "1")]).await));
    assert!(!hits(&edge.get("/a").await));
}

#[tokio::test]
async fn clients_get_a_lifetime_of_their_own_that_counts_from_when_they_get_it() {
    let origin = ScriptedOrigin::start().await;
    let text = "[[rule]]\nname = 'r'\nbrowser_lifetime = '5m'\nresponse_remove = ['Server']";
    let edge = EdgeProcess::start(&origin, rules(text)).await;
    let answer = ok("a")
        .header("cache-control", "public, max-age=3600")
        .header("expires", "Thu, 01 Jan 2099 00:00:00 GMT")
        .header("etag", "\"a\"")
        .header("server", "secret")
        .header("age", "100");
    origin.script("/a", answer.clone());
    origin.script("/own", answer.header("set-cookie", "a=b"));
    for path in ["/a", "/a", "/own"] {
        let reply = edge.get(path).await;
        let age: u64 = reply.header("age").unwrap().parse().unwrap();
        let want = format!("max-age={}, public", 300 + age);
        assert!(age >= 100 && reply.header("cache-control") == Some(want.as_str()), "{reply:?}");
        assert_eq!((reply.header("expires"), reply.header("server")), (None, None));
    }
    let conditional = [("if-none-match", "\"a\"")];
    let reply = Client::get_with(&format!("{}/a", edge.url()), &conditional).await;
    assert_eq!(reply.status, 304);
    assert!(reply.header("cache-control").unwrap().starts_with("max-age=4"), "{reply:?}");
    // What the edge goes by is still what the origin said.
    let told = explained(&edge, "/a", "a:b").await;
    assert_eq!(told["stored"][0]["lifetime_from"], "max-age");
}

#[tokio::test]
async fn a_304_leaves_both_the_origins_word_and_the_rules() {
    let origin = ScriptedOrigin::start().await;
    let text = "[[rule]]\nname = 'r'\nresponse_set = ['Cache-Control: no-store', 'X-A: 1']";
    let edge = EdgeProcess::start(&origin, rules(text)).await;
    origin.script_fn("/a", |seen| {
        let answer = if seen.header("if-none-match").is_some() { status(304) } else { ok("a") };
        answer.header("cache-control", "max-age=0, stale-if-error=60").header("etag", "\"a\"")
    });
    for cache_status in ["fra-1; fwd=uri-miss; fwd-status=200", "fra-1; fwd=stale; fwd-status=304"]
    {
        for _ in 0..if cache_status.contains("304") { 2 } else { 1 } {
            let reply = edge.get("/a").await;
            assert!(reply.cache_status().starts_with(cache_status), "{}", reply.cache_status());
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            assert_eq!(reply.headers.get_all("x-a").iter().count(), 1);
        }
    }
}

#[tokio::test]
async fn cookies_of_responses_are_stripped_stored_or_passed() {
    let origin = ScriptedOrigin::start().await;
    let text = "[[rule]]\nname = 'strip'\nwhen = { path = ['/strip'] }\nset_cookie = 'strip'\n\
                [[rule]]\nname = 'store'\nwhen = { path = ['/store'] }\nset_cookie = 'store'";
    let edge = EdgeProcess::start(&origin, rules(text)).await;
    let rows = [("/strip", true, None), ("/store", true, Some("a=b")), ("/p", false, Some("a=b"))];
    for (path, is_hit, cookie) in rows {
        let answer = ok("a").header("cache-control", "max-age=60").header("set-cookie", "a=b");
        origin.script(path, answer);
        let first = edge.get(path).await;
        let second = edge.get(path).await;
        assert_eq!(hits(&second), is_hit, "{path}");
        for reply in [first, second] {
            assert_eq!(reply.header("set-cookie"), cookie, "{path}");
        }
    }
}

#[tokio::test]
async fn the_key_holds_what_rules_put_into_it_and_its_query_is_theirs() {
    let origin = ScriptedOrigin::start().await;
    let text = "[[rule]]\nname = 'img'\nquery = { keep = ['w'] }\nkey_cookies = ['lang']\n\
                key_headers = ['X-Device']\nwhen = { path = ['/img/*'] }";
    let edge = EdgeProcess::start(&origin, rules(text)).await;
    for path in ["/img/a?w=1&x=1", "/img/a?w=1&x=2", "/img/a?w=2", "/b?x=1", "/b?x=2"] {
        origin.script(path, ok(path).header("cache-control", "max-age=60"));
    }
    let first = |path: &str| edge.url().to_owned() + path;
    type Row = (&'static str, &'static [(&'static str, &'static str)], bool);
    let rows: [Row; 9] = [
        ("/img/a?w=1&x=1", &[], false),
        ("/img/a?w=1&x=2", &[], true),
        ("/img/a?w=2", &[], false),
        ("/img/a?w=1&x=1", &[("cookie", "lang=de; z=1")], false),
        ("/img/a?w=1&x=1", &[("cookie", "z=2; lang=de")], true),
        ("/img/a?w=1&x=1", &[("x-device", "phone")], false),
        ("/b?x=1", &[("x-device", "phone")], false),
        ("/b?x=1", &[("x-device", "tv")], true),
        ("/b?x=2", &[], false),
    ];
    for (path, fields, is_hit) in rows {
        let reply = Client::get_with(&first(path), fields).await;
        assert_eq!(hits(&reply), is_hit, "{path} {fields:?}: {}", reply.cache_status());
    }
}

#[tokio::test]
async fn cache_status_is_hidden_or_says_the_key_as_the_site_wishes() {
    let origin = ScriptedOrigin::start().await;
    let answer = ok("a").header("cache-control", "max-age=60").header("cache-status", "up; hit");
    origin.script("/a?x=1", answer);
    let edge = EdgeProcess::start(&origin, |edge| edge.site[0].cache_status_key = true).await;
    edge.get("/a?x=1").await;
    let reply = edge.get("/a?x=1").await;
    let members: Vec<_> = reply.headers.get_all("cache-status").iter().collect();
    assert_eq!(members[0], "up; hit", "the origin's member comes first");
    let own = members[1].to_str().unwrap();
    assert!(own.starts_with("fra-1; hit; ttl="), "{own}");
    assert!(own.ends_with("; key=\"default http  /a?x=1\""), "{own}");

    let edge = EdgeProcess::start(&origin, |edge| edge.site[0].cache_status = false).await;
    for _ in 0..2 {
        assert_eq!(edge.get("/a?x=1").await.header("cache-status"), None);
    }
}
