//! Answers of origins that are broken or mean harm: none reaches a client that did not ask for it,
//! none poisons a connection to the origin, or the store.
//!
//! hyper takes a bare LF for the end of a line in answers as well, keeps several equal lengths and
//! lists of equal ones, undoes `chunked` at the end of a list and reads to the end of the connection
//! where it is not there, and drops bytes that follow an answer together with their connection. The
//! edge adds: codings but a single `chunked` are refused, one plain length goes to clients, and an
//! answer with a length beside its coding is the last of its connection.

use meridian_tests::edge::EdgeProcess;
use meridian_tests::raw_client::{Next, RawAnswer, RawClient};
use meridian_tests::raw_origin::{Bytes, RawOrigin, close, keep, plain};

/// What a client may get of such an answer.
#[derive(Debug, Clone, Copy)]
enum Want {
    /// 502, and nothing of it.
    Refused,
    /// A status and this body.
    Used(u16, &'static str),
    /// A head, and a body that breaks off: the connection ends before the body does.
    BreaksOff,
}

use Want::{BreaksOff, Refused, Used};

/// What follows the status line; `@` stands for what makes it storable. `close`: the origin closes
/// the connection behind it.
type Row = (&'static str, &'static str, bool, Want);

const FRAMING: &[Row] = &[
    ("sound", "HTTP/1.1 200 OK\r\n@Content-Length: 4\r\n\r\nbody", false, Used(200, "body")),
    (
        "a length beside chunks",
        "HTTP/1.1 200 OK\r\n@Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        false,
        Used(200, "body"),
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\n@Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
        true,
        Refused,
    ),
    (
        "two equal lengths",
        "HTTP/1.1 200 OK\r\n@Content-Length: 4\r\nContent-Length: 4\r\n\r\nbody",
        false,
        Used(200, "body"),
    ),
    (
        "a list of lengths",
        "HTTP/1.1 200 OK\r\n@Content-Length: 4, 4\r\n\r\nbody",
        false,
        Used(200, "body"),
    ),
    ("+4", "HTTP/1.1 200 OK\r\n@Content-Length: +4\r\n\r\nbody", true, Refused),
    ("0x4", "HTTP/1.1 200 OK\r\n@Content-Length: 0x4\r\n\r\nbody", true, Refused),
    ("-4", "HTTP/1.1 200 OK\r\n@Content-Length: -4\r\n\r\nbody", true, Refused),
    (
        "beyond 64 bits",
        "HTTP/1.1 200 OK\r\n@Content-Length: 99999999999999999999\r\n\r\nbody",
        true,
        Refused,
    ),
    (
        "leading zeros",
        "HTTP/1.1 200 OK\r\n@Content-Length: 0004\r\n\r\nbody",
        false,
        Used(200, "body"),
    ),
    (
        "bytes behind the answer that are an answer",
        "HTTP/1.1 200 OK\r\n@Content-Length: 4\r\n\r\nbodyHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        false,
        Used(200, "body"),
    ),
    (
        "bytes behind the last chunk",
        "HTTP/1.1 200 OK\r\n@Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        false,
        Used(200, "body"),
    ),
    (
        "204 with a body that is an answer",
        "HTTP/1.1 204 No Content\r\n@Content-Length: 41\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        false,
        Used(204, ""),
    ),
    (
        "204 in chunks",
        "HTTP/1.1 204 No Content\r\n@Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        false,
        Used(204, ""),
    ),
    (
        "304 unasked, with a body",
        "HTTP/1.1 304 Not Modified\r\n@Content-Length: 41\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        false,
        Refused,
    ),
    (
        "a body that ends early",
        "HTTP/1.1 200 OK\r\n@Content-Length: 40\r\n\r\nbody",
        true,
        BreaksOff,
    ),
    (
        "chunks that are none",
        "HTTP/1.1 200 OK\r\n@Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nzz\r\n\r\n",
        false,
        BreaksOff,
    ),
    (
        "a chunk that is longer than it says",
        "HTTP/1.1 200 OK\r\n@Transfer-Encoding: chunked\r\n\r\n4\r\nbodyHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        false,
        BreaksOff,
    ),
    (
        "a chunk of 2^64",
        "HTTP/1.1 200 OK\r\n@Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n10000000000000000\r\n",
        false,
        BreaksOff,
    ),
    (
        "chunks without an end",
        "HTTP/1.1 200 OK\r\n@Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
        true,
        BreaksOff,
    ),
    (
        "a coding that is not undone here",
        "HTTP/1.1 200 OK\r\n@Transfer-Encoding: gzip\r\n\r\nbody",
        true,
        Refused,
    ),
    (
        "gzip, chunked",
        "HTTP/1.1 200 OK\r\n@Transfer-Encoding: gzip, chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        false,
        Refused,
    ),
    (
        "chunked twice",
        "HTTP/1.1 200 OK\r\n@Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        false,
        Refused,
    ),
    (
        "HTTP/1.0 in chunks",
        "HTTP/1.0 200 OK\r\n@Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        true,
        Refused,
    ),
    ("HTTP/1.0 to the end", "HTTP/1.0 200 OK\r\n@\r\nbody", true, Used(200, "body")),
    ("HTTP/1.1 to the end", "HTTP/1.1 200 OK\r\n@\r\nbody", true, Used(200, "body")),
];

const HEADS: &[Row] = &[
    (
        "no text behind the status",
        "HTTP/1.1 200\r\n@Content-Length: 4\r\n\r\nbody",
        false,
        Used(200, "body"),
    ),
    ("a status below 100", "HTTP/1.1 099 OK\r\n@Content-Length: 4\r\n\r\nbody", true, Refused),
    (
        "a status of four digits",
        "HTTP/1.1 2000 OK\r\n@Content-Length: 4\r\n\r\nbody",
        true,
        Refused,
    ),
    ("a negative status", "HTTP/1.1 -20 OK\r\n@Content-Length: 4\r\n\r\nbody", true, Refused),
    ("no status", "HTTP/1.1 OK\r\n@Content-Length: 4\r\n\r\nbody", true, Refused),
    ("HTTP/0.9", "body without a head", true, Refused),
    ("HTTP/3.0", "HTTP/3.0 200 OK\r\n@Content-Length: 4\r\n\r\nbody", true, Refused),
    ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true, Refused),
    ("frames of HTTP/2", "\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0", true, Refused),
    ("nothing at all", "", true, Refused),
    (
        "switched protocols unasked",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nevil",
        false,
        Refused,
    ),
    (
        "NUL in a value",
        "HTTP/1.1 200 OK\r\n@X: a\0b\r\nContent-Length: 4\r\n\r\nbody",
        true,
        Refused,
    ),
    (
        "bare CR in a value",
        "HTTP/1.1 200 OK\r\n@X: a\rSet-Cookie: evil\r\nContent-Length: 4\r\n\r\nbody",
        true,
        Refused,
    ),
    (
        "a space before the colon",
        "HTTP/1.1 200 OK\r\n@Content-Length : 4\r\n\r\nbody",
        true,
        Refused,
    ),
    (
        "a folded value",
        "HTTP/1.1 200 OK\r\n@X: a\r\n b\r\nContent-Length: 4\r\n\r\nbody",
        true,
        Refused,
    ),
    (
        "a line without a colon",
        "HTTP/1.1 200 OK\r\n@evil\r\nContent-Length: 4\r\n\r\nbody",
        true,
        Refused,
    ),
    (
        "bare LF at the ends of lines",
        "HTTP/1.1 200 OK\n@Content-Length: 4\n\nbody",
        false,
        Used(200, "body"),
    ),
];

/// The bytes of a row, storable or not, and with `%` of its own.
fn bytes(row: &Row, storable: bool) -> Bytes {
    let lifetime = if storable { "Cache-Control: max-age=60\r\n" } else { "" };
    let text = row.1.replace('@', lifetime);
    if row.2 { close(text) } else { keep(text) }
}

/// An edge that repeats nothing and gives nobody up: each answer shows what comes of it.
async fn edge_before(origin: &RawOrigin) -> EdgeProcess {
    EdgeProcess::before(&origin.address(), |edge| edge.site[0].resilience = Some(false)).await
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

fn is_wanted(want: Want, next: &Next) -> bool {
    match (want, next) {
        (Refused, Next::Answer(answer)) => answer.status == 502 && !answer.text().contains("evil"),
        (Used(status, body), Next::Answer(answer)) => {
            let lengths = answer.head.to_ascii_lowercase().matches("content-length").count();
            let length = answer.value("content-length").is_none_or(|l| l == body.len().to_string());
            answer.status == status && answer.text() == body && lengths <= 1 && length
        }
        (BreaksOff, Next::End(rest)) => {
            let text = String::from_utf8_lossy(rest);
            !text.contains("evil") && !text.ends_with("\r\n0\r\n\r\n")
        }
        // Before its head went out, what broke off is an error like any other.
        (BreaksOff, Next::Answer(answer)) => answer.status == 502,
        (Refused | Used(..), Next::End(_)) => false,
    }
}

/// What the next request gets, on a connection of its own or on `client`'s.
async fn sound(client: &mut RawClient, path: &str) -> Option<String> {
    client.send(&get(path)).await;
    match client.next().await {
        Next::Answer(RawAnswer { status: 200, body, .. }) if body == path.as_bytes() => None,
        other => Some(format!("{path}: {other:?}")),
    }
}

async fn table(rows: &'static [Row]) {
    let origin = RawOrigin::start(move |request| {
        let target = request.target().to_owned();
        let row = target.strip_prefix("/row/").and_then(|rest| rest.split('/').next());
        match row.and_then(|number| rows.get(number.parse::<usize>().ok()?)) {
            Some(row) => bytes(row, target.ends_with("/stored")),
            None => plain("", &target),
        }
    })
    .await;
    let mut edge = edge_before(&origin).await;
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        for (round, storable) in [(1, "/stored"), (2, "/stored"), (1, ""), (2, "")] {
            let place = format!("{} ({storable} {round})", row.0);
            let path = format!("/row/{number}{storable}");
            let mut client = RawClient::connect(edge.url()).await;
            client.send(&get(&path)).await;
            let next = client.next().await;
            if !is_wanted(row.3, &next) {
                wrong.push(format!("{place}: wants {:?}, got {next:?}", row.3));
            }
            if matches!(next, Next::Answer(_)) {
                let own = format!("/own/{number}{storable}/{round}");
                wrong.extend(sound(&mut client, &own).await.map(|what| format!("{place}: {what}")));
            }
            let mut other = RawClient::connect(edge.url()).await;
            for n in 0..3 {
                let path = format!("/other/{number}{storable}/{round}/{n}");
                wrong.extend(sound(&mut other, &path).await.map(|what| format!("{place}: {what}")));
            }
        }
        let asked = origin.requests_for(&format!("/row/{number}/stored")).len();
        let wanted = if matches!(row.3, Used(..)) { 1 } else { 2 };
        // A safe request that a kept connection failed is asked once more.
        if asked < wanted || (wanted == 1 && asked > 1) {
            wrong.push(format!("{}: asked {asked} times for what may be stored", row.0));
        }
    }
    wrong.extend(origin.malformed());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(edge.process().runs() && !edge.process().stderr().contains("panicked"));
}

#[tokio::test]
async fn an_answer_ends_where_it_says_and_what_follows_reaches_nobody() {
    table(FRAMING).await;
}

#[tokio::test]
async fn a_head_that_is_none_reaches_nobody() {
    table(HEADS).await;
}

#[tokio::test]
async fn a_body_in_answer_to_head_reaches_nobody() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let origin = RawOrigin::start(move |request| match request.method() {
        "HEAD" => plain("", evil),
        _ => plain("", request.target()),
    })
    .await;
    let edge = edge_before(&origin).await;
    for round in 0..50 {
        let mut client = RawClient::connect(edge.url()).await;
        client.send(format!("HEAD /{round} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await;
        let Next::Answer(answer) = client.next_to("HEAD").await else { panic!("no answer") };
        assert_eq!(answer.status, 200);
        for n in 0..3 {
            assert_eq!(sound(&mut client, &format!("/own/{round}/{n}")).await, None);
        }
    }
}

#[tokio::test]
async fn an_answer_with_two_framings_is_the_last_of_its_connection() {
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
    let origin = RawOrigin::start(move |request| match request.target() {
        "/both" => keep(both),
        target => plain("", target),
    })
    .await;
    let edge = edge_before(&origin).await;
    let mut client = RawClient::connect(edge.url()).await;
    for path in ["/1", "/2"] {
        assert_eq!(sound(&mut client, path).await, None);
    }
    client.send(&get("/both")).await;
    assert!(is_wanted(Used(200, "body"), &client.next().await));
    assert_eq!(sound(&mut client, "/3").await, None);
    let used: Vec<usize> = origin.requests().iter().map(|request| request.connection).collect();
    assert_eq!(used, [0, 0, 0, 1], "a sound connection is kept, this one is not");
}

#[tokio::test]
async fn interim_answers_do_not_count_as_the_answer_however_many_come() {
    let flood = "HTTP/1.1 103 Early Hints\r\nLink: </evil>\r\n\r\n".repeat(2_000);
    let origin = RawOrigin::start(move |request| match request.target() {
        "/flood" => keep(format!("{flood}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody")),
        "/endless" => close(flood.clone()),
        target => plain("", target),
    })
    .await;
    let edge = edge_before(&origin).await;
    let rows = [("/flood", Used(200, "body")), ("/endless", Refused)];
    for (path, want) in rows {
        let mut client = RawClient::connect(edge.url()).await;
        client.send(&get(path)).await;
        let next = client.next().await;
        assert!(is_wanted(want, &next), "{path}: {next:?}");
        assert_eq!(sound(&mut client, "/own").await, None);
    }
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused_and_take_no_memory() {
    let origin = RawOrigin::start(|request| match request.target() {
        "/large" => close(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(8 << 20))),
        "/many" => close(format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(10_000))),
        target => plain("", target),
    })
    .await;
    let edge = edge_before(&origin).await;
    for path in ["/large", "/many"] {
        let mut client = RawClient::connect(edge.url()).await;
        client.send(&get(path)).await;
        let next = client.next().await;
        assert!(is_wanted(Refused, &next), "{path}: {next:?}");
        assert_eq!(sound(&mut client, "/own").await, None);
    }
}
