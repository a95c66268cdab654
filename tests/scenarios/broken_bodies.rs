//! Bodies that break off on their way from the origin: clients can tell, in every framing, and
//! nothing of them is taken for the whole.

use http_body_util::BodyExt;
use meridian_tests::client::{Client, get};
use meridian_tests::cluster::Cluster;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{Gate, ScriptedOrigin, ok};
use meridian_tests::raw_client::{Next, RawClient};
use meridian_tests::raw_h2::{Outcome, RawH2};
use meridian_tests::site::Site;
use serde_json::json;

const WHOLE: usize = 300_000;
const CUT: usize = 20_000;

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// What came of one exchange over HTTP/1.1 that must break off: the head, and what followed it.
async fn breaks_off(client: &mut RawClient, path: &str) -> (String, Vec<u8>) {
    match client.next().await {
        Next::Answer(answer) => panic!("{path}: taken for a whole answer: {}", answer.head),
        Next::End(bytes) => {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            let (head, body) = bytes.split_at(end);
            (String::from_utf8_lossy(head).into_owned(), body.to_vec())
        }
    }
}

async fn over_h2(url: &str, path: &str) -> Outcome {
    let mut client = RawH2::connect(url, &[]).await;
    let fields: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"localhost"),
        (b":path", path.as_bytes()),
    ];
    client.open(1, &fields, true).await;
    client.outcome(1).await
}

#[tokio::test]
async fn a_body_that_the_origin_cuts_is_no_whole_one_in_any_protocol_and_is_fetched_again() {
    let body: Vec<u8> = (0..WHOLE).map(|at| at.to_le_bytes()[0]).collect();
    let site = Site::of([("/cut.bin", body.clone())]);
    let cluster = Cluster::start(&[site.argument(), "--regions", "fra"]).await;
    let url = cluster.edge("fra").url;
    let cut = json!([{ "path": "/cut.bin", "cut_after": CUT }]);
    assert!(cluster.set_faults(cut).await.status.is_success());

    let mut client = RawClient::connect(&url).await;
    client.send(&request("/cut.bin")).await;
    let (head, part) = breaks_off(&mut client, "/cut.bin").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let length = format!("content-length: {WHOLE}\r\n");
    assert!(head.to_ascii_lowercase().contains(&length), "{head}");
    assert!(part.len() <= CUT && body.starts_with(&part), "{} bytes", part.len());
    assert_eq!(over_h2(&url, "/cut.bin").await, Outcome::Reset, "RST_STREAM");
    let seen = async || cluster.origin_requests(Some("/cut.bin")).await;
    assert_eq!(seen().await, 2, "nothing was stored: each asked again");

    // The negative control: without the fault the same is whole, stored and served.
    assert!(cluster.set_faults(json!([])).await.status.is_success());
    for hits in [false, true] {
        let whole = Client::get(&format!("{url}/cut.bin")).await;
        assert_eq!((whole.status.as_u16(), whole.body.len()), (200, WHOLE));
        assert!(whole.body == body, "the bytes are those of the file");
        assert_eq!(whole.cache_status().contains("; hit"), hits, "{}", whole.cache_status());
    }
    assert_eq!(seen().await, 3);
}

#[tokio::test]
async fn a_body_without_a_length_that_breaks_off_has_no_last_chunk() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let gate = Gate::closed();
    let half = || ok("half").header("cache-control", "max-age=60");
    origin.script("/cut", half().then_behind(&gate, "more").then_cut());
    let mut client = RawClient::connect(edge.url()).await;
    client.send(&request("/cut")).await;
    client.begun().await; // what was sent cannot be taken back from here on
    gate.open();
    let (head, part) = breaks_off(&mut client, "/cut").await;
    assert!(head.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{head}");
    assert!(!part.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&part));

    let gate = Gate::closed();
    origin.script("/cut", half().then_behind(&gate, "more").then_cut());
    let mut client = Client::http2(edge.url()).await.unwrap();
    let answer = client.open(get("/cut")).await.unwrap();
    assert_eq!(answer.status(), 200);
    gate.open();
    let why = answer.into_body().collect().await.expect_err("its stream is reset");
    assert!(format!("{why:?}").contains("Reset"), "{why:?}");
    assert_eq!(client.path("/none").await.status, 404, "the connection goes on");
    drop(client); // nobody would drive it while the edge drains
    assert_eq!(origin.count("/cut"), 2);

    let open = Gate::closed();
    open.open();
    origin.script("/cut", half().then_behind(&open, "more"));
    let mut client = RawClient::connect(edge.url()).await;
    client.send(&request("/cut")).await;
    let Next::Answer(whole) = client.next().await else { panic!("the control is whole") };
    assert_eq!((whole.status, whole.text().as_str()), (200, "halfmore"));
    assert_eq!(origin.count("/cut"), 3);
    assert_eq!(over_h2(edge.url(), "/cut").await, Outcome::Answered(200, b"halfmore".to_vec()));
    assert_eq!(origin.count("/cut"), 3, "now it is stored");
}

/// Who reads what somebody else fetches is told in the same way.
#[tokio::test]
async fn all_who_share_a_fetch_that_breaks_off_can_tell() {
    let origin = ScriptedOrigin::start().await;
    let edge = EdgeProcess::start(&origin, |_| {}).await;
    let gate = Gate::closed();
    let cut = ok("half").header("cache-control", "max-age=60");
    origin.script("/cut", cut.then_behind(&gate, "more").then_cut());
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = RawClient::connect(edge.url()).await;
        client.send(&request("/cut")).await;
        client.begun().await;
        clients.push(client);
    }
    gate.open();
    for client in &mut clients {
        let (head, part) = breaks_off(client, "/cut").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(!part.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&part));
    }
    assert_eq!(origin.count("/cut"), 1, "one fetch for all of them");
}
