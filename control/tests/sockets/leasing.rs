//! Leases of edges whose routes are `fail_closed`, and purges that wait for them to run out.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kit::{Ask, Replica, ask, eventually, now, register, registration};

/// A beat that says which routes are closed, and whose lease the edge has.
fn beat(replica: &Replica, secret: &str, sequence: u64, closed: &str, by: &Value) -> Ask {
    let body = json!({
        "active_requests": 0, "requests_total": 0, "store_bytes": 0, "store_entries": 0,
        "sequence": sequence, "fail_closed": closed, "lease_by": by,
    });
    ask(replica.address, "POST", "/v1/edge/fra-1/ping").bearer(secret).body(body)
}

async fn effective(replica: &Replica, timeout: &str) -> Value {
    let target = format!("/v1/purges?ack=effective&timeout={timeout}");
    replica.purge(&target, json!({"tag": "a"})).send().await.json()["edges"].clone()
}

#[tokio::test]
async fn a_purge_is_effective_when_a_silent_edge_has_stopped_to_use_what_it_stored() {
    let replica = Replica::start().await;
    let registered = register(replica.address, &registration("fra-1", "fra")).await.json();
    let secret = registered["secret"].as_str().unwrap();
    let pong = beat(&replica, secret, 1, "none", &Value::Null).send().await.json();
    assert_eq!(pong["lease"], Value::Null, "it asks for none");
    let pong = beat(&replica, secret, 2, "all", &Value::Null).send().await.json();
    let by = &pong["lease"]["by"];
    assert_eq!(pong["lease"]["ms"], 600);

    // It has not answered to a grant of this replica: that may have been a late copy.
    let pending = json!({"total": 1, "acked": 0, "pending": ["fra-1"], "lapsed": []});
    assert_eq!(effective(&replica, "900ms").await, pending);

    beat(&replica, secret, 3, "all", by).send().await;
    let start = now();
    let lapsed = json!({"total": 1, "acked": 0, "pending": [], "lapsed": ["fra-1"]});
    assert_eq!(effective(&replica, "20s").await, lapsed);
    let took = start.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(10)).contains(&took), "{took:?}");

    // Pings alone renew nothing of what came before them.
    let id = replica.history().await.last().unwrap()["id"].clone();
    let mut sequence = 3;
    let target = format!("/v1/purges/{}", id.as_str().unwrap());
    eventually("it has lapsed for that purge", async || {
        sequence += 1;
        beat(&replica, secret, sequence, "all", by).send().await;
        Some(replica.get(&target).await.json()).filter(|one| one["edges"] == lapsed)
    })
    .await;

    // A route was opened, and a late copy does not close it again.
    beat(&replica, secret, sequence + 1, "some", by).send().await;
    beat(&replica, secret, sequence, "all", by).send().await;
    assert_eq!(effective(&replica, "900ms").await, pending);
    replica.stop().await;
}

#[tokio::test]
async fn an_edge_that_registers_anew_has_no_lease_of_before() {
    let replica = Replica::start().await;
    let edge = registration("fra-1", "fra");
    let first = register(replica.address, &edge).await.json()["secret"].clone();
    let first = first.as_str().unwrap();
    let pong = beat(&replica, first, 1, "all", &Value::Null).send().await.json();
    beat(&replica, first, 2, "all", &pong["lease"]["by"]).send().await;
    register(replica.address, &edge).await;
    let pending = json!({"total": 1, "acked": 0, "pending": ["fra-1"], "lapsed": []});
    assert_eq!(effective(&replica, "900ms").await, pending);
    replica.stop().await;
}
