//! What one edge would do, asked through a replica.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::kit::{FakeEdge, Replica, any_port, aside, ms, now, registration};

/// An admin listener that answers everything with `answer`, or with nothing at all.
struct FakeAdmin {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl FakeAdmin {
    async fn start(answer: Option<String>) -> Self {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let task = aside(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 4_096];
                let read = stream.read(&mut buffer).await.unwrap();
                let head = String::from_utf8_lossy(&buffer[..read]).into_owned();
                heard.lock().unwrap().push(head.lines().next().unwrap().to_owned());
                match &answer {
                    Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                    None => open.push(stream),
                }
            }
        });
        Self { address, asked, _task: task }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(status: &str, kind: &str, body: &str) -> Option<String> {
    let length = body.len();
    Some(format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Set-Cookie: a=b\r\nConnection: close\r\n\r\n{body}"
    ))
}

/// A replica and an edge that registered with `admin`.
async fn cluster(admin: SocketAddr, peers: &[(&str, SocketAddr)]) -> (Replica, FakeEdge) {
    let replica = Replica::start_with(|config| {
        config.limits.call_timeout = ms(1_000);
        config.limits.body_size = meridian_config::units::ByteSize::kib(4);
        for (name, address) in peers {
            let address = address.to_string().parse().unwrap();
            config.peers.insert(name.parse().unwrap(), address);
        }
    })
    .await;
    let mut registration = registration("fra-1", "fra");
    registration["admin"] = json!(format!("http://{admin}"));
    let edge = FakeEdge::start_as(replica.address, &registration).await;
    (replica, edge)
}

const TARGET: &str =
    "/v1/edges/fra-1/explain?url=http%3A%2F%2Fshop%2Fa%3Fb%3D1%26c%3D%2520&header=A%3A%20b";

#[tokio::test]
async fn an_explanation_comes_from_the_edge_as_it_is() {
    let admin = FakeAdmin::start(answer("200 OK", "application/json; x=y", r#"{"key":"k"}"#)).await;
    let (replica, _edge) = cluster(admin.address, &[]).await;
    let got = replica.get(TARGET).await;
    assert_eq!((got.status, got.json()), (200, json!({ "key": "k" })));
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.header("set-cookie"), "", "only the body is passed on");
    let asked = admin.asked().join("\n");
    let want =
        "GET /v1/explain?url=http%3A%2F%2Fshop%2Fa%3Fb%3D1%26c%3D%2520&header=A%3A%20b HTTP/1.1";
    assert_eq!(asked, want);
    replica.stop().await;
}

#[tokio::test]
async fn a_problem_of_the_edge_is_passed_on_too() {
    let problem = r#"{"type":"about:blank","title":"Misdirected","status":421,
                      "code":"misdirected","detail":"d"}"#;
    let told = answer("421 Misdirected Request", "application/problem+json", problem);
    let admin = FakeAdmin::start(told).await;
    let (replica, _edge) = cluster(admin.address, &[]).await;
    let got = replica.get(TARGET).await;
    assert_eq!((got.status, got.code().as_str()), (421, "misdirected"));
    replica.stop().await;
}

#[tokio::test]
async fn the_table_of_peers_wins_over_the_address_of_the_registration() {
    let by_name = FakeAdmin::start(answer("200 OK", "application/json", r#""by name""#)).await;
    let registered = FakeAdmin::start(answer("200 OK", "application/json", r#""other""#)).await;
    let (replica, _edge) = cluster(registered.address, &[("fra-1", by_name.address)]).await;
    assert_eq!(replica.get(TARGET).await.json(), json!("by name"));
    assert_eq!(registered.asked(), Vec::<String>::new());
    replica.stop().await;
}

#[tokio::test]
async fn an_edge_that_gives_no_usable_answer_is_told_apart() {
    let long = format!("{:?}", "x".repeat(5_000));
    let rows = [
        (answer("200 OK", "text/html", "<p>"), 502, "upstream_bad_answer"),
        (answer("200 OK", "application/json", &long), 502, "upstream_bad_answer"),
        (Some("nonsense\r\n\r\n".to_owned()), 502, "upstream_unreachable"),
        (Some(String::new()), 502, "upstream_unreachable"),
        (None, 504, "upstream_timeout"),
    ];
    for (told, status, code) in rows {
        let admin = FakeAdmin::start(told.clone()).await;
        let (replica, _edge) = cluster(admin.address, &[]).await;
        let start = now();
        let got = replica.get(TARGET).await;
        assert_eq!((got.status, got.code().as_str()), (status, code), "{told:?}");
        assert!(start.elapsed() < Duration::from_secs(10));
        replica.stop().await;
    }
    // Nobody listens.
    let free = TcpListener::bind(any_port()).await.unwrap().local_addr().unwrap();
    let (replica, _edge) = cluster(free, &[]).await;
    assert_eq!(replica.get(TARGET).await.code(), "upstream_unreachable");
    assert_eq!(replica.get("/v1/edges/fra-1/explain").await.code(), "bad_request");
    assert_eq!(replica.get("/v1/edges/nrt-1/explain?url=/").await.code(), "not_found");
    replica.stop().await;
}
