//! HTTP/2 on the way to HTTP/1: no field of a request becomes framing, a line, or another request
//! upstream (RFC 9113 §8.2, §8.3, §10.3).
//!
//! h2 ends the stream of a malformed request by itself: names in capitals, with colons or spaces,
//! values with CR, LF or NUL, fields of one connection, pseudo-fields twice or behind others, a
//! length that the data does not have. The edge adds: `Host` must be `:authority`
//! (`edge/src/suspect.rs`).

use meridian_tests::edge::EdgeProcess;
use meridian_tests::raw_client::{Next, RawClient};
use meridian_tests::raw_h2::{Outcome, RawH2};
use meridian_tests::raw_origin::{RawOrigin, plain};

type Field = (&'static [u8], &'static [u8]);

/// What it is; what comes instead of, or beside, the sound fields; the data, if any.
type Row = (&'static str, &'static [Field], Option<&'static [u8]>);

/// A pseudo-field of a row stands for the sound one.
const MALFORMED: &[Row] = &[
    ("CR LF in a value", &[(b"x", b"a\r\nevil: 1")], None),
    ("LF in a value", &[(b"x", b"a\nevil: 1")], None),
    ("CR in a value", &[(b"x", b"a\rb")], None),
    ("NUL in a value", &[(b"x", b"a\0b")], None),
    (
        "a request in a value",
        &[(b"x", b"a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")],
        None,
    ),
    ("a colon in a name", &[(b"x:y", b"a")], None),
    ("capitals in a name", &[(b"X-Evil", b"a")], None),
    ("CR LF in a name", &[(b"x\r\nevil", b"a")], None),
    ("a space in a name", &[(b"x y", b"a")], None),
    ("an empty name", &[(b"", b"a")], None),
    (
        "transfer-encoding",
        &[(b"transfer-encoding", b"chunked")],
        Some(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
    ),
    ("connection", &[(b"connection", b"keep-alive")], None),
    (
        "connection that names a field",
        &[(b"connection", b"content-length"), (b"content-length", b"0")],
        None,
    ),
    ("keep-alive", &[(b"keep-alive", b"timeout=5")], None),
    ("proxy-connection", &[(b"proxy-connection", b"keep-alive")], None),
    ("upgrade", &[(b"upgrade", b"h2c")], None),
    ("te other than trailers", &[(b"te", b"gzip")], None),
    ("a length above the data", &[(b"content-length", b"9")], Some(b"abc")),
    (
        "a length below the data",
        &[(b"content-length", b"2")],
        Some(b"abcGET /smuggled HTTP/1.1\r\n\r\n"),
    ),
    (
        "a length of 0 before data",
        &[(b"content-length", b"0")],
        Some(b"GET /smuggled HTTP/1.1\r\n\r\n"),
    ),
    ("a length without data", &[(b"content-length", b"5")], None),
    ("two lengths", &[(b"content-length", b"3"), (b"content-length", b"4")], Some(b"abc")),
    ("a length with a sign", &[(b"content-length", b"+3")], Some(b"abc")),
    ("a path with a space", &[(b":path", b"/a HTTP/1.1")], None),
    ("a path with CR LF", &[(b":path", b"/a HTTP/1.1\r\nEvil: 1\r\nX: ")], None),
    ("a path with NUL", &[(b":path", b"/a\0b")], None),
    ("an empty path", &[(b":path", b"")], None),
    ("a path without a slash", &[(b":path", b"evil")], None),
    ("two paths", &[(b":path", b"/a"), (b":path", b"/smuggled")], None),
    ("a method with a space", &[(b":method", b"GET /smuggled HTTP/1.1")], None),
    ("a method with CR LF", &[(b":method", b"GET / HTTP/1.1\r\nEvil: 1\r\n\r\nGET")], None),
    ("two methods", &[(b":method", b"GET"), (b":method", b"POST")], None),
    ("an authority with CR LF", &[(b":authority", b"h\r\nEvil: 1")], None),
    ("an authority with a space", &[(b":authority", b"h evil")], None),
    ("an authority with a name", &[(b":authority", b"evil@h")], None),
    ("two authorities", &[(b":authority", b"h"), (b":authority", b"evil")], None),
    ("Host that is not the authority", &[(b"host", b"evil")], None),
    ("a scheme with a path", &[(b":scheme", b"http://evil/")], None),
    ("a scheme with CR LF", &[(b":scheme", b"http\r\nEvil: 1")], None),
    ("another scheme", &[(b":scheme", b"ftp")], None),
    ("a pseudo-field that is none", &[(b":evil", b"1")], None),
    ("a pseudo-field behind a field", &[(b"x", b"a"), (b":path", b"/smuggled")], None),
    ("a status in a request", &[(b":status", b"200")], None),
];

/// The fields of a row, with the sound ones that it does not stand for.
fn fields(row: &Row) -> Vec<Field> {
    let sound: [Field; 4] =
        [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/row")];
    let stands = |name: &[u8]| row.1.iter().any(|field| field.0 == name && row.1[0].0 != b"x");
    let kept = sound.into_iter().filter(|field| !stands(field.0));
    kept.chain(row.1.iter().copied()).collect()
}

async fn echo() -> RawOrigin {
    RawOrigin::start(|request| {
        plain("", &format!("{} {}", request.target(), String::from_utf8_lossy(&request.body)))
    })
    .await
}

#[tokio::test]
async fn a_malformed_request_of_http2_reaches_no_origin() {
    let origin = echo().await;
    let edge = EdgeProcess::before(&origin.address(), |_| {}).await;
    let mut wrong = Vec::new();
    for row in MALFORMED {
        let before = origin.requests().len();
        let mut client = RawH2::connect(edge.url(), &[]).await;
        client.open(1, &fields(row), row.2.is_none()).await;
        if let Some(data) = row.2 {
            client.data(1, data, true).await;
        }
        let outcome = client.outcome(1).await;
        let is_refused = !matches!(outcome, Outcome::Answered(200, _));
        let whole = origin.requests().len() - before;
        if !is_refused || whole > 0 {
            wrong.push(format!("{}: {outcome:?}, {:?}", row.0, origin.requests().last()));
        }
        let mut other = RawClient::connect(edge.url()).await;
        other.send(b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n").await;
        match other.next().await {
            Next::Answer(answer) if answer.text() == "/next " => {}
            next => wrong.push(format!("after {}: {next:?}", row.0)),
        }
    }
    wrong.extend(origin.malformed());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn bodies_of_http2_arrive_as_bodies_whatever_they_look_like() {
    let origin = echo().await;
    let edge = EdgeProcess::before(&origin.address(), |_| {}).await;
    let body: &[u8] = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let rows: [&[Field]; 4] =
        [&[], &[(b"content-length", b"40")], &[(b"te", b"trailers")], &[(b"host", b"h")]];
    for more in rows {
        let mut client = RawH2::connect(edge.url(), &[]).await;
        for id in [1, 3] {
            client.open(id, &fields(&("", more, None)), false).await;
            let (first, last) = body.split_at(7);
            client.data(id, first, false).await;
            client.data(id, last, true).await;
            let want = [b"/row ", body].concat();
            assert_eq!(client.outcome(id).await, Outcome::Answered(200, want), "{more:?}");
        }
    }
    assert_eq!(origin.malformed(), Vec::<String>::new());
    assert!(origin.requests().iter().all(|request| request.body == body));
}
