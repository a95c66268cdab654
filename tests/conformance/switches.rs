//! What a site may choose where the standards leave a choice: languages, lifetimes of failures,
//! whose fields it obeys.

use meridian_config::edge::{Edge, Profile};
use meridian_config::units::HumanDuration;
use meridian_tests::client::{Client, Reply};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, Seen, ok, status};

async fn ask(edge: &EdgeProcess, path: &str, fields: &[(&str, &str)]) -> Reply {
    Client::get_with(&format!("{}{path}", edge.url()), fields).await
}

fn is_hit(reply: &Reply) -> bool {
    reply.cache_status().starts_with("fra-1; hit")
}

/// Speaks German to who names it first, as many frameworks do, and English else.
fn in_languages(seen: &Seen) -> meridian_tests::origin::Script {
    let german = seen.header("accept-language").is_some_and(|field| field.starts_with("de"));
    let language = if german { "de" } else { "en" };
    ok(language)
        .header("cache-control", "max-age=60")
        .header("vary", "accept-language")
        .header("content-language", language)
}

#[tokio::test]
async fn equivalent_lists_of_languages_share_a_variant_and_others_do_not() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", in_languages);
    for (profile, by_order, by_content) in
        [(Profile::Cdn, true, false), (Profile::Rfc, false, true)]
    {
        let edge = EdgeProcess::start(&origin, |edge| edge.site[0].profile = profile).await;
        ask(&edge, "/a", &[("accept-language", "de, en")]).await;
        let rows = [
            ("DE ,  en;q=1.0", true),
            ("en, de", !by_order),
            ("en;q=0.5, de", by_content),
            ("de, en;q=0.1", by_content),
            ("fr, de;q=0.9", false),
        ];
        for (field, hit) in rows {
            let explain = format!("{}/v1/explain?url=/a", edge.admin());
            let field = [("accept-language", field)];
            let explain = field.iter().fold(explain, |url, (name, value)| {
                let value = value.replace(' ', "%20").replace(';', "%3B");
                format!("{url}&header={name}:{value}")
            });
            let next = Client::get(&explain).await.json()["next"]["decision"].clone();
            assert_eq!(next == "hit", hit, "{profile:?} {field:?}");
        }
    }
}

#[tokio::test]
async fn a_site_that_names_its_languages_has_no_more_variants_than_those() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", in_languages);
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site[0].languages = ["en", "de"].map(|tag| tag.parse().unwrap()).to_vec();
    })
    .await;
    let rows = [
        (Some("de-CH, fr;q=0.9"), "de"),
        (Some("fr, de;q=0.1"), "de"),
        (Some("en-GB"), "en"),
        (Some("fr"), "en"),
        (Some("*"), "en"),
        (None, "en"),
    ];
    for (field, want) in rows {
        let fields: Vec<_> = field.map(|field| ("accept-language", field)).into_iter().collect();
        assert_eq!(ask(&edge, "/a", &fields).await.text(), want, "{field:?}");
    }
    let seen = origin.requests("/a");
    let asked: Vec<_> = seen.iter().map(|seen| seen.header("accept-language")).collect();
    assert_eq!(asked, [Some("de"), Some("en")]);
}

#[tokio::test]
async fn failures_that_say_nothing_are_reused_as_long_as_the_site_says() {
    let origin = ScriptedOrigin::start().await;
    let long = |edge: &mut Edge| {
        let minute = HumanDuration::secs(60);
        let statuses = ["404", "5xx"].map(|text| (text.parse().unwrap(), minute));
        edge.site[0].negative = Some(statuses.into());
        edge.site[0].resilience = Some(false); // a retry would be counted, too
    };
    let edge = EdgeProcess::start(&origin, long).await;
    let rfc = EdgeProcess::start(&origin, |edge| edge.site[0].profile = Profile::Rfc).await;
    let rows = [
        ("/missing", status(404), true),
        ("/fails", status(503), true),
        ("/other", status(403), false),
        ("/forbids", status(404).header("cache-control", "no-store"), false),
        ("/says", status(404).header("cache-control", "max-age=0"), false),
        ("/cookie", status(404).header("set-cookie", "a=b"), false),
    ];
    for (path, answer, reused) in rows {
        origin.script(path, answer);
        let codes = [edge.get(path).await.status, edge.get(path).await.status];
        assert_eq!(codes[0], codes[1], "{path}");
        assert_eq!(origin.count(path), if reused { 1 } else { 2 }, "{path}");
        let before = origin.count(path);
        rfc.get(path).await;
        rfc.get(path).await;
        assert_eq!(origin.count(path), before + 2, "{path}: nothing of the kind in rfc");
    }
    let explained = Client::get(&format!("{}/v1/explain?url=/fails", edge.admin())).await.json();
    assert_eq!(explained["stored"][0]["lifetime_from"], "negative", "{explained:#}");
}

#[tokio::test]
async fn a_failure_does_not_take_the_place_of_what_may_stand_in_for_it() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    origin.script("/a", ok("kept").header("cache-control", "max-age=0").header("etag", "\"1\""));
    edge.get("/a").await;
    origin.script("/a", status(503));
    for _ in 0..3 {
        assert_eq!(edge.get("/a").await.text(), "kept");
    }
}

#[tokio::test]
async fn a_site_chooses_whose_fields_it_obeys() {
    let origin = ScriptedOrigin::start().await;
    let answer = ok("a").header("cache-control", "no-store");
    origin.script("/cdn", answer.clone().header("cdn-cache-control", "max-age=60"));
    origin.script("/surrogate", answer.header("surrogate-control", "max-age=60"));
    for (obeys, cdn, surrogate) in
        [(None, true, true), (Some(false), false, false), (Some(true), true, true)]
    {
        let edge = EdgeProcess::start(&origin, |edge| {
            edge.site[0].obey_cdn_cache_control = obeys;
            edge.site[0].obey_surrogate_control = obeys;
        })
        .await;
        for (path, stored) in [("/cdn", cdn), ("/surrogate", surrogate)] {
            edge.get(path).await;
            assert_eq!(is_hit(&edge.get(path).await), stored, "{path} {obeys:?}");
        }
    }
}

#[tokio::test]
async fn redirects_are_stored_by_what_they_say_and_by_heuristic_where_their_status_allows() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let modified = "Mon, 03 Jan 2022 00:00:00 GMT";
    for (code, by_heuristic) in [(301, true), (302, false), (303, false), (307, false), (308, true)]
    {
        let moved = status(code).header("location", "/b");
        let rows = [
            ("says", moved.clone().header("cache-control", "max-age=60"), true),
            ("heuristic", moved.clone().header("last-modified", modified), by_heuristic),
            ("silent", moved, false),
        ];
        for (name, answer, stored) in rows {
            let path = format!("/{name}/{code}");
            origin.script(&path, answer);
            edge.get(&path).await;
            let again = edge.get(&path).await;
            assert_eq!(again.header("location"), Some("/b"));
            assert_eq!(is_hit(&again), stored, "{path}: {}", again.cache_status());
        }
    }
}

#[tokio::test]
async fn where_clients_are_obeyed_a_newer_answer_that_is_not_stored_ends_the_older_one() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site[0].honour_client_directives = Some(true);
    })
    .await;
    let reload = [("cache-control", "no-cache")];
    for (path, newer, ends) in [
        ("/no-store", ok("new").header("cache-control", "no-store"), true),
        ("/private", ok("new").header("cache-control", "private, max-age=60"), true),
        ("/fails", status(500).header("cache-control", "no-store"), false),
        (
            "/cookie",
            ok("new").header("cache-control", "max-age=60").header("set-cookie", "a"),
            false,
        ),
    ] {
        origin.script(path, ok("old").header("cache-control", "max-age=60"));
        edge.get(path).await;
        origin.script(path, newer);
        ask(&edge, path, &reload).await;
        assert_eq!(!is_hit(&edge.get(path).await), ends, "{path}");
    }
}
