//! One forward request for many (RFC 9111 §4): who shares, who does not, and what that costs.

use bytes::Bytes;
use http_body_util::BodyExt;
use meridian_tests::client::{Client, Reply, get};
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, Seen, ok, status};
use meridian_tests::wait::{PATIENCE, eventually};
use tokio::task::JoinSet;

/// Asks `count` times at once.
fn crowd(edge: &EdgeProcess, path: &str, count: usize) -> JoinSet<Reply> {
    let mut crowd = JoinSet::new();
    for _ in 0..count {
        let url = format!("{}{path}", edge.url());
        crowd.spawn(async move { Client::get(&url).await });
    }
    crowd
}

async fn waits_for_origin(edge: &EdgeProcess, count: f64) {
    eventually("all have arrived", PATIENCE, async || {
        let load = Client::get(&format!("{}/metrics", edge.admin())).await;
        assert!(load.text().ends_with("# EOF\n"), "OpenMetrics");
        (edge.metric("edge_requests_in_flight").await >= count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_crowd_that_asks_for_one_cold_thing_reaches_the_origin_once() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    origin.script("/a", ok("body").header("cache-control", "max-age=60").behind(&gate));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let crowd = crowd(&edge, "/a", 100);
    waits_for_origin(&edge, 100.0).await;
    gate.open();
    let replies = crowd.join_all().await;
    assert!(replies.iter().all(|reply| reply.status == 200 && reply.text() == "body"));
    let collapsed = replies.iter().filter(|reply| reply.cache_status().contains("; collapsed"));
    assert_eq!(collapsed.count(), 99);
    assert_eq!(origin.count("/a"), 1);
    assert_eq!(edge.metric("edge_requests_in_flight").await, 0.0);
}

#[tokio::test]
async fn followers_read_while_the_leader_still_receives() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    let slow = ok("first").header("cache-control", "max-age=60").then_behind(&gate, "second");
    origin.script("/a", slow);
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let mut bodies = Vec::new();
    for _ in 0..3 {
        let mut client = Client::http1(edge.url()).await.unwrap();
        let mut body = client.open(get("/a")).await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first, Bytes::from("first"), "the origin has not sent more yet");
        bodies.push((client, body));
    }
    gate.open();
    for (_client, body) in bodies {
        assert_eq!(body.collect().await.unwrap().to_bytes(), Bytes::from("second"));
    }
    assert_eq!(origin.count("/a"), 1);
    assert!(edge.get("/a").await.cache_status().starts_with("fra-1; hit"));
}

#[tokio::test]
async fn answers_for_one_client_are_not_given_to_another_and_do_not_queue() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    let answer = ok("mine").header("cache-control", "private").behind(&gate);
    origin.script("/a", answer);
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let first = crowd(&edge, "/a", 10);
    waits_for_origin(&edge, 10.0).await;
    eventually("the one fetch", PATIENCE, async || (origin.count("/a") > 0).then_some(())).await;
    assert_eq!(origin.count("/a"), 1, "nobody can know yet that it may not be shared");
    gate.open();
    first.join_all().await;
    assert_eq!(origin.count("/a"), 10, "each got an answer of its own");

    let gate = Gate::closed();
    origin.script("/a", ok("mine").header("cache-control", "private").behind(&gate));
    let second = crowd(&edge, "/a", 10);
    eventually("all ask at once", PATIENCE, async || (origin.count("/a") == 20).then_some(()))
        .await;
    gate.open();
    second.join_all().await;
}

#[tokio::test]
async fn followers_of_another_variant_get_their_own() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    let held = gate.clone();
    origin.script_fn("/a", move |seen: &Seen| {
        ok(seen.header("x-plan").unwrap_or_default().to_owned())
            .header("cache-control", "max-age=60")
            .header("vary", "X-Plan")
            .behind(&held)
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let mut crowd = JoinSet::new();
    for n in 0..30 {
        let (url, plan) = (format!("{}/a", edge.url()), ["free", "paid", "team"][n % 3]);
        crowd.spawn(async move { (plan, Client::get_with(&url, &[("x-plan", plan)]).await) });
    }
    waits_for_origin(&edge, 30.0).await;
    gate.open();
    for (plan, reply) in crowd.join_all().await {
        assert_eq!(reply.text(), plan);
    }
    assert_eq!(origin.count("/a"), 3, "one fetch for each variant");
}

#[tokio::test]
async fn a_crowd_shares_the_failure_of_its_leader() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    origin.script("/a", status(500).body("broken").behind(&gate));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.site[0].negative = Some([].into()); // else they would share the answer itself
    })
    .await;
    let crowd = crowd(&edge, "/a", 20);
    waits_for_origin(&edge, 20.0).await;
    gate.open();
    let replies = crowd.join_all().await;
    assert!(replies.iter().all(|reply| reply.status == 500));
    assert_eq!(replies.iter().filter(|reply| reply.body == "broken").count(), 1, "the leader's");
    assert_eq!(origin.count("/a"), 1, "no stampede on a sick origin");
}

#[tokio::test]
async fn a_fetch_outlives_the_client_that_began_it() {
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    origin.script("/a", ok("body").header("cache-control", "max-age=60").behind(&gate));
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let leader = crowd(&edge, "/a", 1);
    eventually("the fetch began", PATIENCE, async || (origin.count("/a") == 1).then_some(())).await;
    drop(leader);
    gate.open();
    eventually("it is stored all the same", PATIENCE, async || {
        edge.get("/a").await.cache_status().starts_with("fra-1; hit").then_some(())
    })
    .await;
    assert_eq!(origin.count("/a"), 1);
}

#[tokio::test]
async fn a_body_too_large_for_the_store_still_reaches_all_who_read_it() {
    let large = Bytes::from(vec![b'x'; 3 << 20]);
    let origin = ScriptedOrigin::start().await;
    let gate = Gate::closed();
    // Its length is unknown beforehand, so that only its bytes tell.
    let answer = ok(large.clone()).header("cache-control", "max-age=60");
    origin.script("/a", answer.then_behind(&gate, "end"));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.cache.max_body = meridian_config::units::ByteSize::mib(1);
    })
    .await;
    let crowd = crowd(&edge, "/a", 3);
    waits_for_origin(&edge, 3.0).await;
    gate.open();
    for reply in crowd.join_all().await {
        assert_eq!(reply.body.len(), large.len() + 3);
    }
    let store = Client::get(&format!("{}/v1/store", edge.admin())).await.json();
    assert_eq!((&store["urls"], &store["in_flight_bytes"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn bodies_that_find_no_room_while_they_arrive_pass_through_whole_and_unstored() {
    const ROOM: usize = 64 << 10;
    let origin = ScriptedOrigin::start().await;
    let (held, open) = (Gate::closed(), Gate::closed());
    open.open();
    let answer = |body: Vec<u8>| ok(body).header("cache-control", "max-age=60");
    origin.script("/held", answer(vec![b'x'; ROOM]).then_behind(&held, ""));
    // Its length is unknown beforehand, so that only its bytes tell.
    origin.script("/a", answer(vec![b'x'; 5 * ROOM]).then_behind(&open, "end"));
    let edge = EdgeProcess::start(&origin, |edge| {
        edge.cache.in_flight = meridian_config::units::ByteSize::kib(64);
    })
    .await;
    let holding = crowd(&edge, "/held", 1);
    eventually("there is no room", PATIENCE, async || {
        (edge.metric("edge_in_flight_bytes").await == ROOM as f64).then_some(())
    })
    .await;
    for round in 1..=10 {
        let reply = edge.get("/a").await;
        assert_eq!(reply.body.len(), 5 * ROOM + 3, "round {round}");
        assert_eq!(origin.count("/a"), round);
    }
    held.open();
    assert_eq!(holding.join_all().await[0].body.len(), ROOM);
    edge.get("/a").await;
    let again = edge.get("/held").await;
    assert!(again.cache_status().starts_with("fra-1; hit"), "{}", again.cache_status());
    assert_eq!(edge.metric("edge_in_flight_bytes").await, 0.0);
}

#[tokio::test]
async fn one_private_answer_does_not_keep_a_page_out_of_the_store() {
    let origin = ScriptedOrigin::start().await;
    origin.script_fn("/a", |seen: &Seen| {
        let scope = if seen.header("cookie").is_some() { "private" } else { "max-age=60" };
        ok("page").header("cache-control", scope)
    });
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    Client::get_with(&format!("{}/a", edge.url()), &[("cookie", "session=1")]).await;
    let first = edge.get("/a").await;
    assert!(first.cache_status().contains("; stored"), "{}", first.cache_status());
    assert!(edge.get("/a").await.cache_status().starts_with("fra-1; hit"));
    assert_eq!(origin.count("/a"), 2);
}
