//! The front door towards clients.

use crate::kit::{Door, FakeEdge, Replica, ask, metric, prefix, raw};

async fn cluster(names: &[(&str, &str)]) -> (Replica, Vec<FakeEdge>) {
    let replica = Replica::start().await;
    let mut edges = Vec::new();
    for (name, region) in names {
        edges.push(FakeEdge::start(replica.address, name, region).await);
    }
    (replica, edges)
}

#[tokio::test]
async fn without_an_edge_it_is_not_ready_and_says_so_to_clients() {
    let (replica, _) = cluster(&[]).await;
    let door = Door::start(&[("control-1", replica.address)], |_| ()).await;
    let answer = door.get("/").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_edge"));
    assert_eq!(answer.header("retry-after"), "1");
    let ready = async || ask(door.admin, "GET", "/readyz").send().await;
    assert_eq!(ready().await.code(), "not_ready");
    assert_eq!(ask(door.admin, "GET", "/healthz").send().await.status, 200);

    let edge = FakeEdge::start(replica.address, "fra-1", "fra").await;
    door.until_sends("fra", &edge.url).await;
    assert_eq!(ready().await.status, 200);
    assert_eq!(ask(door.admin, "POST", "/readyz").send().await.header("allow"), "GET, HEAD");
    assert_eq!(ask(door.admin, "GET", "/v1/edges").send().await.code(), "not_found");
    door.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn any_request_is_sent_to_the_nearest_edge() {
    let names = [("fra-1", "fra"), ("iad-1", "iad"), ("nrt-1", "nrt")];
    let (replica, edges) = cluster(&names).await;
    let door = Door::start(&[("control-1", replica.address)], |config| {
        config.default_from = Some("iad".parse().unwrap());
    })
    .await;
    for edge in &edges {
        door.until_sends(&edge.name[..3], &edge.url).await;
    }
    for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PROPFIND"] {
        let answer = ask(door.address, method, "/a%20b?c=d&meridian-from=nrt&e").send().await;
        assert_eq!(answer.status, 307, "{method}");
        assert_eq!(answer.header("location"), "http://nrt-1.example:8080/a%20b?c=d&e");
        assert_eq!(answer.header("vary"), "*");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("content-length"), "0");
        assert_eq!(answer.body.len(), 0);
    }
    let answer = ask(door.address, "GET", "/x?meridian-from=35.7,139.7").send_h2().await;
    assert_eq!(answer.header("location"), "http://nrt-1.example:8080/x");
    assert_eq!(door.get("/").await.header("location"), "http://iad-1.example:8080/");
    assert_eq!(door.get("/?meridian-from=moon").await.code(), "bad_request");

    let sent = metric(door.admin, r#"front_redirects_total{region="nrt"}"#).await;
    assert!(sent >= 7.0, "{sent}");
    assert_eq!(metric(door.admin, r#"front_requests_total{outcome="refused"}"#).await, 1.0);
    assert_eq!(metric(door.admin, r#"front_region_usable{region="nrt"}"#).await, 1.0);
    assert!(metric(door.admin, "front_view_age_seconds").await < 20.0);
    door.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn the_header_field_is_believed_only_where_configured() {
    let (replica, edges) = cluster(&[("fra-1", "fra"), ("nrt-1", "nrt")]).await;
    let replicas = [("control-1", replica.address)];
    let trusting = Door::start(&replicas, |config| config.trust_from = true).await;
    let careful = Door::start(&replicas, |config| {
        config.prefix = vec![prefix("127.0.0.0/8", "lhr")];
    })
    .await;
    for door in [&trusting, &careful] {
        door.until_sends("nrt", &edges[1].url).await;
        door.until_sends("fra", &edges[0].url).await;
    }
    let from = async |door: &Door, value: &str| {
        let answer = ask(door.address, "GET", "/").header("meridian-from", value).send().await;
        answer.header("location").to_owned()
    };
    assert_eq!(from(&trusting, "nrt").await, "http://nrt-1.example:8080/");
    assert_eq!(from(&trusting, "nonsense !").await, "http://fra-1.example:8080/");
    assert_eq!(from(&careful, "nrt").await, "http://fra-1.example:8080/");
    trusting.stop().await;
    careful.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn no_target_leads_anywhere_but_to_the_edge() {
    let (replica, edges) = cluster(&[("fra-1", "fra")]).await;
    let door = Door::start(&[("control-1", replica.address)], |_| ()).await;
    door.until_sends("fra", &edges[0].url).await;
    let rows = [
        ("GET //evil.example/x HTTP/1.1\r\nHost: a", "307", "//evil.example/x"),
        ("GET http://evil.example/x?y HTTP/1.1\r\nHost: a", "307", "/x?y"),
        ("GET http://evil.example HTTP/1.1\r\nHost: a", "307", "/"),
        ("GET /%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\nHost: a", "307", "/%0d%0aSet-Cookie:%20a=b"),
        ("GET /%00/..%2f HTTP/1.1\r\nHost: a", "307", "/%00/..%2f"),
        ("GET /a HTTP/1.0", "307", "/a"),
        ("GET /a HTTP/1.1", "400", ""),
        ("GET /a HTTP/1.1\r\nHost: a\r\nHost: b", "400", ""),
        ("GET /a HTTP/1.1\r\nHost: a b", "400", ""),
        ("CONNECT evil.example:443 HTTP/1.1\r\nHost: a", "400", ""),
        ("OPTIONS * HTTP/1.1\r\nHost: a", "400", ""),
        ("GET evil.example HTTP/1.1\r\nHost: a", "400", ""),
        ("GET /a\rb HTTP/1.1\r\nHost: a", "400", ""),
    ];
    for (head, status, path) in rows {
        let message = format!("{head}\r\nConnection: close\r\n\r\n");
        let got = raw(door.address, message.as_bytes()).await;
        assert_eq!(got.split(' ').nth(1), Some(status), "{head}: {got}");
        let location = got
            .lines()
            .find_map(|line| line.strip_prefix("location: "))
            .map(|location| location.strip_prefix("http://fra-1.example:8080").unwrap());
        assert_eq!(location.unwrap_or_default(), path, "{head}: {got}");
        assert!(!got.to_ascii_lowercase().contains("\nset-cookie"), "{got}");
    }
    door.stop().await;
    replica.stop().await;
}

#[tokio::test]
async fn one_url_keeps_its_edge_inside_a_region_and_all_edges_get_some() {
    let names = [("fra-1", "fra"), ("fra-2", "fra"), ("fra-3", "fra")];
    let (replica, _edges) = cluster(&names).await;
    let replicas = [("control-1", replica.address)];
    let (one, two) = (Door::start(&replicas, |_| ()).await, Door::start(&replicas, |_| ()).await);
    for door in [&one, &two] {
        door.until_ready().await; // the edges were there first: it knows all or none
    }
    let mut used = std::collections::BTreeSet::new();
    for n in 0..30 {
        let path = format!("/{n}.js?v={n}");
        let of = async |door: &Door| door.get(&path).await.header("location").to_owned();
        let (first, second) = (of(&one).await, of(&two).await);
        assert_eq!(first, second, "two front doors agree on {path}");
        let steer = replica.get(&format!("/v1/steer?from=fra&url=/{n}.js%3Fv%3D{n}")).await.json();
        let url = steer["edge"]["url"].as_str().unwrap();
        assert_eq!(first, format!("{url}{path}"), "the API says the same");
        used.insert(url.to_owned());
    }
    assert_eq!(used.len(), 3);
    one.stop().await;
    two.stop().await;
    replica.stop().await;
}
