//! Configuration registers: revisions, conditions, sites.

use meridian_control_wire::frame::Frame;
use serde_json::{Value, json};

use crate::kit::{Answer, Ask, CONFIGURER, FakeEdge, PURGER, Replica, ask};
use crate::listening::Listening;

fn put(replica: &Replica, key: &str, value: Value) -> Ask {
    let target = format!("/v1/config/{key}");
    ask(replica.address, "PUT", &target).bearer(CONFIGURER).body(json!({ "value": value }))
}

async fn delete(replica: &Replica, key: &str) -> Answer {
    ask(replica.address, "DELETE", &format!("/v1/config/{key}")).bearer(CONFIGURER).send().await
}

#[tokio::test]
async fn a_register_changes_only_from_the_revision_that_was_read() {
    let replica = Replica::start().await;
    assert_eq!(replica.get("/v1/config/a/b").await.status, 404);
    let answer = put(&replica, "a/b", json!([1, null])).send().await;
    assert_eq!(answer.status, 200);
    let first = answer.header("etag").to_owned();
    let read = replica.get("/v1/config/a/b").await;
    assert_eq!(read.header("etag"), first);
    assert_eq!((&read.json()["key"], &read.json()["value"]), (&json!("a/b"), &json!([1, null])));
    let held = |tag: &str, value| put(&replica, "a/b", value).header("if-match", tag).send();
    let second = held(&first, json!(2)).await;
    assert_eq!(second.status, 200);
    let late = held(&first, json!(3)).await;
    assert_eq!((late.status, late.code().as_str()), (412, "rev_conflict"));
    assert_eq!(replica.get("/v1/config/a/b").await.json()["value"], 2);
    let new = put(&replica, "a/b", json!(4)).header("if-none-match", "*").send().await;
    assert_eq!(new.status, 412);
    let replica = replica.pause().await.resume().await;
    assert_eq!(replica.get("/v1/config/a/b").await.header("etag"), second.header("etag"));
    assert_eq!(delete(&replica, "a/b").await.status, 204);
    assert_eq!(delete(&replica, "a/b").await.status, 404);
    assert_eq!(replica.get("/v1/config/a/b").await.status, 404);
    let null = put(&replica, "a/b", Value::Null).send().await; // a value like any other
    assert_eq!((null.status, null.json()["value"].clone()), (200, Value::Null));
    let replica = replica.pause().await.resume().await;
    let null = replica.get("/v1/config/a/b").await;
    assert_eq!((null.status, null.json()["value"].clone()), (200, Value::Null));
    replica.stop().await;
}

#[tokio::test]
async fn what_may_not_stand_in_a_register_is_refused() {
    let replica = Replica::start().await;
    let long = "x".repeat(256);
    for key in ["", "a//b", "/a", "a/", "a%20b", "..", "a/../b", "a/.", &long] {
        let answer = put(&replica, key, json!(1)).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_request"), "{key}");
    }
    let large = put(&replica, "a", json!("x".repeat(65 << 10))).send().await;
    assert_eq!(large.code(), "too_large");
    let target = "/v1/config/a";
    let ask_put = |secret, body| ask(replica.address, "PUT", target).bearer(secret).body(body);
    for body in ["", "{}", r#"{"value":1,"vlaue":2}"#] {
        assert_eq!(ask_put(CONFIGURER, body).send().await.code(), "bad_request", "{body}");
    }
    assert_eq!(ask_put(PURGER, r#"{"value":1}"#).send().await.code(), "forbidden");
    let post = ask(replica.address, "POST", target).send().await;
    assert_eq!((post.status, post.header("allow")), (405, "GET, HEAD, PUT, DELETE"));
    assert_eq!(replica.get(target).await.status, 404);
    replica.stop().await;
}

#[tokio::test]
async fn a_level_that_is_not_offered_is_refused_and_every_answer_says_its_own() {
    let replica = Replica::start().await;
    put(&replica, "a", json!(1)).send().await;
    let read = |level: &str| {
        ask(replica.address, "GET", "/v1/config/a").header("consistency", level).send()
    };
    for level in ["linearizable", "local"] {
        let answer = read(level).await;
        assert_eq!(answer.status, 200);
        let said = answer.header("meridian-consistency");
        assert!(said.starts_with(&format!("level={level}; basis=single-replica; ")), "{said}");
        assert!(said.contains("; position=") && said.contains("; wait="), "{said}");
        assert!(said.ends_with("; staleness=0s"), "{said}");
    }
    for level in ["lease", "bounded=250ms", "one", "quorum"] {
        assert_eq!(read(level).await.code(), "not_offered", "{level}");
    }
    assert_eq!(read("strong").await.code(), "bad_request");
    let missing = replica.get("/v1/config/b").await;
    assert!(missing.header("meridian-consistency").starts_with("level=linearizable"));
    replica.stop().await;
}

#[tokio::test]
async fn a_site_is_checked_with_everything_that_is_wrong_and_told_to_the_edges() {
    let replica = Replica::start().await;
    let edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let bad = json!({"origins": [], "hosst": ["a"], "profile": "fast"});
    let answer = put(&replica, "site/shop", bad).send().await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "invalid_value"));
    let told = answer.json()["violations"].to_string();
    for want in
        ["at least one origin", "did you mean `hosts`", "must be one of", "must name a host"]
    {
        assert!(told.contains(want), "{want} in {told}");
    }
    let mut before = Listening::open(replica.address, &edge, None).await;
    let (frames, _) = before.until_bookmark().await;
    assert_eq!(frames, []);
    let good = json!({"hosts": ["shop.example"], "origins": ["origin-1"]});
    let stored = put(&replica, "site/shop", good.clone()).send().await;
    assert_eq!(stored.status, 200, "{stored:?}");
    put(&replica, "other", json!(1)).send().await;
    assert_eq!(delete(&replica, "site/shop").await.status, 204);
    for want in [Some(good.clone()), None] {
        match before.news().await {
            Frame::Config { key, value, .. } => {
                assert_eq!((key.as_str(), value), ("site/shop", want))
            }
            other => panic!("{other:?}"),
        }
    }
    drop(before);
    put(&replica, "site/shop", good.clone()).send().await;
    // Whoever begins now gets what stands, whatever it was before.
    let mut after = Listening::open(replica.address, &edge, None).await;
    let (frames, _) = after.until_bookmark().await;
    assert!(
        matches!(&frames[..], [Frame::Config { key, value: Some(value), .. }]
            if key == "site/shop" && *value == good),
        "{frames:?}"
    );
    replica.stop().await;
}
