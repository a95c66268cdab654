//! Regions, intents, steering as the API tells it, and the replica's own state.

use serde_json::{Value, json};

use crate::kit::{EDGE, FakeEdge, OPERATOR, Replica, ask, prefix};

async fn region(replica: &Replica, label: &str) -> Value {
    let regions = replica.get("/v1/regions").await.json();
    let regions = regions["regions"].as_array().unwrap();
    regions.iter().find(|region| region["region"] == label).cloned().unwrap_or_default()
}

#[tokio::test]
async fn an_intent_is_obeyed_told_and_outlives_a_restart() {
    let replica = Replica::start().await;
    let _fra = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let _nrt = FakeEdge::start(replica.address, "nrt-1", "nrt").await;
    let want = json!({
        "region": "fra", "city": "Frankfurt", "location": [50.03, 8.57], "state": "active",
        "intent": "active", "edges": { "total": 1, "healthy": 1 },
    });
    assert_eq!(region(&replica, "fra").await, want);

    let answer = replica.intend("fra", "drained").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["state"], "drained");
    assert_eq!(region(&replica, "fra").await["state"], "drained");
    assert_eq!(replica.edge("fra-1").await.unwrap()["intent"], "drained");
    assert_eq!(replica.edge("nrt-1").await.unwrap()["intent"], "active");

    let replica = replica.pause().await.resume().await;
    assert_eq!(region(&replica, "fra").await["intent"], "drained");
    assert_eq!(replica.intend("fra", "active").await.status, 200);
    let replica = replica.pause().await.resume().await;
    assert_eq!(region(&replica, "fra").await["intent"], "active");
    replica.stop().await;
}

#[tokio::test]
async fn an_intent_without_right_reason_or_region_changes_nothing() {
    let replica = Replica::start().await;
    let _edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let put = |label: &str, body: &str| {
        ask(replica.address, "PUT", &format!("/v1/regions/{label}/intent")).body(body)
    };
    let drained = r#"{"state":"drained"}"#;
    assert_eq!(put("fra", drained).send().await.code(), "unauthorized");
    assert_eq!(put("fra", drained).bearer(EDGE).send().await.code(), "forbidden");
    for label in ["nrt", "FRA", "%66ra"] {
        assert_eq!(put(label, drained).bearer(OPERATOR).send().await.code(), "not_found");
    }
    for body in ["", "{}", r#"{"state":"asleep"}"#, r#"{"state":"drained","for":"1h"}"#] {
        let answer = put("fra", body).bearer(OPERATOR).send().await;
        assert_eq!(answer.code(), "bad_request", "{body}");
    }
    assert_eq!(region(&replica, "fra").await["intent"], "active");
    replica.stop().await;
}

#[tokio::test]
async fn steering_explains_itself_for_labels_coordinates_and_addresses() {
    let replica =
        Replica::start_with(|config| config.prefix = vec![prefix("192.0.2.0/24", "nrt")]).await;
    let steer = async |from: &str| replica.get(&format!("/v1/steer?from={from}")).await;
    let nobody = steer("fra").await.json();
    assert_eq!((&nobody["edge"], &nobody["ranking"]), (&json!(null), &json!([])));

    let _fra = FakeEdge::start(replica.address, "fra-1", "fra").await;
    let _nrt = FakeEdge::start(replica.address, "nrt-1", "nrt").await;
    for (from, want) in [
        ("nrt", "nrt-1"),
        ("lhr", "fra-1"),
        ("50.1,8.7", "fra-1"),
        ("35.7%2C139.7", "nrt-1"),
        ("192.0.2.77", "nrt-1"),
    ] {
        assert_eq!(steer(from).await.json()["edge"]["name"], want, "{from}");
    }
    replica.intend("nrt", "drained").await;
    let steering = steer("nrt").await.json();
    let edge = json!({ "name": "fra-1", "url": "http://fra-1.example:8080", "region": "fra" });
    assert_eq!((&steering["from"], &steering["edge"]), (&json!("nrt"), &edge));
    let first = json!({
        "edge": "nrt-1", "region": "nrt", "url": "http://nrt-1.example:8080", "distance_km": 0.0,
        "rtt_ms": 1.0, "basis": "round-trip table", "usable": false,
        "reason": "its region is drained",
    });
    assert_eq!(steering["ranking"][0], first);
    assert_eq!(steering["ranking"][1]["rtt_ms"], 244.0);

    assert_eq!(steer("203.0.113.1").await.code(), "not_found");
    assert_eq!(replica.get("/v1/steer").await.code(), "bad_request");
    for from in ["", "mars", "91,0", "%ff", "1.2.3"] {
        assert_eq!(steer(from).await.code(), "bad_request", "{from}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_replica_tells_what_it_is() {
    let replica = Replica::start().await;
    let _edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    replica.intend("fra", "drained").await;
    let mut status = replica.get("/v1/status").await.json();
    assert!(status["uptime_ms"].as_u64().is_some());
    status["uptime_ms"] = json!(0);
    let want = json!({
        "name": "control-1", "region": "iad", "version": env!("CARGO_PKG_VERSION"),
        "role": "single", "term": 0, "leader": "control-1",
        "consistency": { "purges": "cp", "config": "cp", "health": "cp" }, "uptime_ms": 0,
        "peers": [{ "name": "control-1", "role": "single", "reachable": true, "lag": 0 }],
        "positions": { "agreed": 0, "applied": 0 },
        "edges": { "total": 1, "healthy": 1 },
        "regions": { "total": 1, "active": 0, "degraded": 0, "down": 0, "drained": 1 },
        "journal": {
            "sound": true, "incarnation": status["journal"]["incarnation"],
            "last": "00000000000000000000", "low_water": "00000000000000000000",
        },
        "store": { "sound": true, "position": 2 },
    });
    assert!(status["journal"]["incarnation"].as_u64().is_some_and(|life| life > 0));
    assert_eq!(status, want);
    assert_eq!(replica.metric("control_store_position").await, 2.0);
    assert_eq!(replica.metric(r#"control_regions{state="drained"}"#).await, 1.0);
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(replica.get(probe).await.status, 200);
    }
    replica.stop().await;
}

#[tokio::test]
async fn what_is_not_there_says_why() {
    let replica = Replica::start().await;
    let rows = [
        ("GET", "/v1/conflicts", 501, "not_offered", ""),
        ("POST", "/v1/conflicts/a/resolve", 501, "not_offered", ""),
        ("POST", "/v1/seeds", 501, "not_offered", ""),
        ("GET", "/v1/pacelc", 501, "not_offered", ""),
        ("GET", "/", 404, "not_found", ""),
        ("GET", "/v1/edge", 404, "not_found", ""),
        ("GET", "/v1/edges/../status", 404, "not_found", ""),
        ("PUT", "/v1/edges", 405, "method_not_allowed", "GET, HEAD, POST"),
        ("GET", "/v1/edges/fra-1", 405, "method_not_allowed", "DELETE"),
        ("GET", "/v1/edge/fra-1/ping", 405, "method_not_allowed", "POST"),
        ("GET", "/v1/edge/fra-1/ack", 405, "method_not_allowed", "POST"),
        ("PUT", "/v1/purges", 405, "method_not_allowed", "GET, HEAD, POST"),
        ("DELETE", "/v1/purges/7", 405, "method_not_allowed", "GET, HEAD"),
        ("DELETE", "/v1/regions", 405, "method_not_allowed", "GET, HEAD"),
        ("GET", "/v1/regions/fra/intent", 405, "method_not_allowed", "PUT"),
        ("POST", "/v1/status", 405, "method_not_allowed", "GET, HEAD"),
        ("BREW", "/healthz", 405, "method_not_allowed", "GET, HEAD"),
    ];
    for (method, path, status, code, allow) in rows {
        let answer = ask(replica.address, method, path).send().await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path}");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
    let (get, head) = (
        ask(replica.address, "GET", "/v1/regions").send().await,
        ask(replica.address, "HEAD", "/v1/regions").send().await,
    );
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.body.len().to_string());
    assert_eq!(head.header("cache-control"), "no-store");
    let head = ask(replica.address, "HEAD", "/v1/regions").send_h2().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    replica.stop().await;
}
