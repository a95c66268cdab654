//! The links over HTTP: what is told, who may change what, and what is refused how.

use meridian_tests_chaos::order::Action;
use meridian_tests_chaos::view::Links;
use serde_json::Value;

use crate::rig::{PURGER, Rig, SECRET};

#[tokio::test]
async fn links_are_told_with_state_and_counters() {
    let rig = Rig::new().await;
    let (status, body) = rig.ask("GET", "/v1/links", None, "").await;
    assert_eq!(status, 200);
    let told: Links = serde_json::from_str(&body).unwrap();
    let ends: Vec<_> =
        told.links.iter().map(|link| (link.from.as_str(), link.to.as_str())).collect();
    assert_eq!(ends, [("fra-1", "origin-1"), ("front", "origin-1")]);
    let link = &told.links[0];
    assert_eq!(link.listen, rig.link.to_string());
    assert_eq!(link.from_region.as_ref().unwrap().as_str(), "fra");
    assert!(link.there.is_plain() && link.back.is_plain());
    rig.act(Action::Cut).await;
    let (_, body) = rig.ask("GET", "/v1/links", None, "").await;
    let told: Links = serde_json::from_str(&body).unwrap();
    assert!(told.links[0].there.cut && !told.links[1].there.cut);
    assert_eq!(rig.ask("GET", "/healthz", None, "").await.0, 200);
}

#[tokio::test]
async fn a_region_and_a_role_mean_all_their_nodes() {
    let rig = Rig::new().await;
    let rows = [
        ("fra", "iad", 1),
        ("edge", "origin", 1),
        ("iad", "rest", 2),
        ("all", "all", 2),
        ("front", "origin-1", 1),
    ];
    for (a, b, links) in rows {
        let order = format!(r#"{{"action":"delay","a":"{a}","b":"{b}","delay":"1ms"}}"#);
        let (status, body) = rig.ask("POST", "/v1/links", Some(SECRET), &order).await;
        assert_eq!(status, 200, "{body}");
        let changed: Links = serde_json::from_str(&body).unwrap();
        assert_eq!(changed.links.len(), links, "{a} {b}");
        assert_eq!(rig.ask("POST", "/v1/links", Some(SECRET), r#"{"action":"heal"}"#).await.0, 200);
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let rig = Rig::new().await;
    let before = rig.view();
    let cut = |a: &str, b: &str| format!(r#"{{"action":"cut","a":"{a}","b":"{b}"}}"#);
    let boss = Some(SECRET);
    let large = "x".repeat(20_000);
    let rows = [
        (cut("fre", "origin-1"), boss, 404, "unknown_node", "\"fre\"; nodes: fra-1, front, or"),
        (cut("fra-1", "front"), boss, 404, "no_link", "no link leads between fra-1 and front"),
        (cut("rest", "rest"), boss, 400, "bad_request", "cannot stand twice"),
        (cut("fra", "iad"), None, 401, "unauthorized", "Authorization: Bearer"),
        (cut("fra", "iad"), Some("wrong-wrong-wrong"), 401, "unauthorized", "no token"),
        (cut("fra", "iad"), Some(PURGER), 403, "forbidden", "lacks the scope \"operate\""),
        (r#"{"action":"melt"}"#.to_owned(), boss, 400, "bad_request", "unknown variant `melt`"),
        (r#"{"action":"cut"}"#.to_owned(), boss, 400, "bad_request", "a and b"),
        (r#"{"action":"heal","x":1}"#.to_owned(), boss, 400, "bad_request", "unknown field `x`"),
        ("{".to_owned(), boss, 400, "bad_request", "the order"),
        (large, boss, 413, "too_large", "16384 bytes"),
    ];
    for (order, token, status, code, detail) in rows {
        let (got, body) = rig.ask("POST", "/v1/links", token, &order).await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{order}: {body}");
        let told = problem["detail"].as_str().unwrap();
        assert!(told.contains(detail), "{order}: {told}");
        assert_eq!(rig.view(), before, "{order}");
    }
    for (method, path, status) in [("PUT", "/v1/links", 405), ("GET", "/v1/link", 404)] {
        assert_eq!(rig.ask(method, path, boss, "").await.0, status);
    }
}
