//! What the control API is told: sites that edges obey, and what it must refuse.

use http::Method;
use meridian_tests::client::Client;
use meridian_tests::cluster::Cluster;
use meridian_tests::control::Control;
use meridian_tests::origin::{ScriptedOrigin, ok};
use meridian_tests::process::Process;
use meridian_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};

/// Header fields of a request.
type Fields<'a> = &'a [(&'a str, &'a str)];

#[tokio::test]
async fn a_site_that_is_put_is_obeyed_by_every_edge_and_a_bad_one_by_none() {
    let origin = ScriptedOrigin::start().await;
    // Never stored: what is stored keeps the header fields that its site let through then.
    let page = ok("page").header("cache-control", "no-store").header("surrogate-key", "tag");
    origin.script("/page", page);
    let cluster = Cluster::start(&[&origin.url(), "--regions", "fra,iad"]).await;
    let dir = cluster.dir().to_str().unwrap().to_owned();
    let shown = async |url: &str| Client::get(url).await.header("surrogate-key").is_some();
    let pages: Vec<_> =
        cluster.file().edges.iter().map(|edge| format!("{}/page", edge.url)).collect();
    for url in &pages {
        assert!(!shown(url).await, "tags are not for clients unless a site says so");
    }

    let site = |expose: &Value| {
        json!({"default": true, "origins": ["origin-1"], "expose_surrogate_fields": expose})
            .to_string()
    };
    let put = async |value: &str, more: &[&str]| {
        let command = ["config", "put", "site/default", value, "--dir", &dir];
        Process::run(&[&command, more].concat()).await
    };
    let written = put(&site(&json!(true)), &["--json"]).await;
    assert_eq!(written.status.code(), Some(0), "{written:?}");
    let written: Value = serde_json::from_str(&written.stdout).unwrap();
    for url in &pages {
        let what = format!("{url} shows the tags");
        eventually(what, PATIENCE, async || shown(url).await.then_some(())).await;
    }

    let wrong = put(&site(&json!("perhaps")), &[]).await;
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert!(wrong.stderr.contains("expose_surrogate_fields"), "{}", wrong.stderr);
    let late = put(&site(&json!(false)), &["--if-match", "\"no-such-tag\""]).await;
    assert_eq!(late.status.code(), Some(1), "{late:?}");
    assert!(late.stderr.contains("rev_conflict"), "{}", late.stderr);
    let read = Process::run(&["config", "get", "site/default", "--json", "--dir", &dir]).await;
    let read: Value = serde_json::from_str(&read.stdout).unwrap();
    assert_eq!((&read["etag"], &read["value"]), (&written["etag"], &written["value"]));
    for url in &pages {
        assert!(shown(url).await, "what was refused is obeyed");
    }

    let right = put(&site(&json!(false)), &["--if-match", read["etag"].as_str().unwrap()]).await;
    assert_eq!(right.status.code(), Some(0), "{right:?}");
    for url in &pages {
        let what = format!("{url} hides the tags again");
        eventually(what, PATIENCE, async || (!shown(url).await).then_some(())).await;
    }
}

#[tokio::test]
async fn what_is_no_purge_is_refused_by_name_and_purges_nothing() {
    let cluster = Cluster::start(&["--regions", "fra"]).await;
    let control = Control::of(&cluster);
    let url = format!("{}/style.css", cluster.edge("fra").url);
    Client::get(&url).await;
    let many = vec![json!({"tag": "a"}); 10_000];
    let rows = [
        (json!({}), "selector"),
        (json!({"soft": true}), "selector"),
        (json!({"selectors": []}), "selector"),
        (json!({"selectors": many}), "1000"),
        (json!({"tag": "x".repeat(10_000)}), "tag"),
        (json!({"tag": ""}), "tag"),
        (json!({"tag": 7}), "string"),
        (json!({"all": true, "dry_run": true}), "dry_run"),
        (json!({"all": true, "tag": "a"}), "tag"),
        (json!({"all": false}), "all"),
        (json!({"host": "http://a/b"}), "host"),
        (json!({"url": "/a b"}), "url"),
        (json!([{"all": true}]), "object"),
    ];
    for (order, word) in rows {
        let reply = control.try_purge(&order, "", None).await.unwrap();
        let shown = format!("{:.100}: {}", order.to_string(), reply.text());
        assert!([400, 422].contains(&reply.status.as_u16()), "{shown}");
        assert!(!reply.code().is_empty(), "{shown}");
        assert!(reply.json()["detail"].as_str().unwrap().contains(word), "{word}? {shown}");
    }
    let all = json!({"all": true}).to_string();
    let json = ("content-type", "application/json");
    let long = "k".repeat(256);
    let rows: [(&str, Fields<'_>, &str); 6] = [
        ("", &[json], "{\"all\":true"),
        ("", &[json], ""),
        ("?ack=all", &[json], &all),
        ("?ack=region:", &[json], &all),
        ("?timeout=soon", &[json], &all),
        ("", &[json, ("idempotency-key", &long)], &all),
    ];
    for (query, headers, body) in rows {
        let target = format!("/v1/purges{query}");
        let body = body.to_owned();
        let reply = control.send(Method::POST, &target, headers, body.clone()).await.unwrap();
        assert!([400, 422].contains(&reply.status.as_u16()), "{query} {body}: {reply:?}");
    }
    for target in ["/v1/purges?after=%00", "/v1/purges?after=../..", "/v1/purges/no-such-purge"] {
        let reply = control.send(Method::GET, target, &[], "").await.unwrap();
        assert!([400, 404, 422].contains(&reply.status.as_u16()), "{target}: {reply:?}");
    }
    assert_eq!(control.history().await, Vec::<Value>::new());
    assert!(Client::get(&url).await.cache_status().contains("; hit"), "something was purged");
}

#[tokio::test]
async fn an_edges_stream_and_acknowledgements_need_that_edges_own_secret() {
    let cluster = Cluster::start(&["--regions", "fra,iad"]).await;
    let control = Control::of(&cluster);
    let url = cluster.file().controls[0].url.clone();
    let receipt = control.purge_everywhere(&json!({"tag": "a"})).await;

    // Another edge of another name: its secret is good for itself alone.
    let registration = json!({
        "name": "sin-1", "region": "sin", "city": "Singapore", "location": [1.3, 103.8],
        "url": "http://127.0.0.1:1", "admin": "http://127.0.0.1:2"
    });
    let json = [("content-type", "application/json")];
    let registered = control.send(Method::POST, "/v1/edges", &json, registration.to_string()).await;
    let registered = registered.unwrap();
    assert!(registered.status.is_success(), "{registered:?}");
    let foreign = format!("Bearer {}", registered.json()["secret"].as_str().unwrap());
    let operator = format!("Bearer {}", cluster.token());

    let ack = json!({"cursor": "AAAA", "epoch": 1, "applied_operations": 1}).to_string();
    let ping = json!({
        "active_requests": 0, "requests_total": 0, "store_bytes": 0, "store_entries": 0,
        "sequence": 1_000_000
    });
    let ping = ping.to_string();
    let calls = [
        (Method::GET, "/v1/edge/fra-1/stream", ""),
        (Method::POST, "/v1/edge/fra-1/ack", ack.as_str()),
        (Method::POST, "/v1/edge/fra-1/ping", ping.as_str()),
    ];
    for (method, target, body) in calls {
        let bearers = [
            None,
            Some("Bearer wrong-wrong-wrong-wrong"),
            Some(foreign.as_str()),
            Some(operator.as_str()),
        ];
        for bearer in bearers {
            let mut headers = json.to_vec();
            headers.extend(bearer.map(|bearer| ("authorization", bearer)));
            let body = body.to_owned().into();
            let target = format!("{url}{target}");
            let reply = Client::request(method.clone(), &target, &headers, body).await;
            let told = [401, 403].contains(&reply.status.as_u16());
            assert!(told, "{method} {target} with {bearer:?}: {reply:?}");
        }
    }
    // A cursor of another cluster is no acknowledgement of anything here.
    let target = format!("{url}/v1/edge/sin-1/ack");
    let headers = [json[0], ("authorization", foreign.as_str())];
    let reply = Client::request(Method::POST, &target, &headers, ack.into()).await;
    assert!(reply.status.is_client_error(), "{reply:?}");
    let view = control.purge_view(receipt["id"].as_str().unwrap()).await;
    assert_eq!(view["edges"]["acked"], 2, "{view}");
}
