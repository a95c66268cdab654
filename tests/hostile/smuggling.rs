//! Request smuggling over HTTP/1: nothing is smuggled, nothing desynchronised.
//!
//! # What hyper does by itself, and what the edge adds
//! hyper answers malformed heads itself, with a bare 400, and ends the connection. It refuses:
//! lengths that are no digits, that differ or that are a list; `Transfer-Encoding` with HTTP/1.0 or
//! without `chunked` at its end; chunk sizes that are none, overflow or do not match; bare LF in
//! chunk lines; folded lines, controls, bare CR, spaces in or behind names. It takes `chunked` at
//! the end of a list and forgets the other codings; drops `Content-Length` beside
//! `Transfer-Encoding`, and then ends the connection after the answer; keeps one of several equal
//! lengths; takes a bare LF for the end of a line of a head.
//!
//! The edge adds: a bare LF in a head is refused (`edge/src/framing.rs` sees it), codings but a single
//! `chunked` are refused (`edge/src/suspect.rs`), lengths go upstream as plain numbers, `Host` is one
//! host with a port that is one, and what is refused for such a reason ends its connection. What goes
//! upstream is written anew from what was read, so that what two readers of the client's bytes
//! might disagree about is not in it.

use meridian_tests::edge::EdgeProcess;
use meridian_tests::raw_client::{Next, RawAnswer, RawClient};
use meridian_tests::raw_origin::{RawOrigin, plain};

use crate::shapes::{CHUNKS, CODINGS, LENGTHS, LINES, PLACES, Shape, Want};

/// When the request that follows a shape on its connection is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Followed {
    AtOnce,
    AfterTheAnswer,
}

/// An origin that says which request it answers.
async fn echo() -> RawOrigin {
    RawOrigin::start(|request| plain("", &told(request.target(), &request.body))).await
}

fn told(target: &str, body: &[u8]) -> String {
    format!("{target} {}", String::from_utf8_lossy(body))
}

fn placed(bytes: &[u8], path: &str) -> Vec<u8> {
    bytes.split(|byte| *byte == b'@').collect::<Vec<_>>().join(path.as_bytes())
}

/// Sends a shape and a request behind it; says what is wrong with what came of it.
async fn wrong_with(
    edge: &EdgeProcess,
    origin: &RawOrigin,
    path: &str,
    (_, bytes, want): &Shape,
    followed: Followed,
) -> Option<String> {
    let mut client = RawClient::connect(edge.url()).await;
    let mut bytes = placed(bytes, path);
    let follower = format!("GET {path}/follower HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut answers = Vec::new();
    if followed == Followed::AtOnce {
        bytes.extend_from_slice(follower.as_bytes());
    }
    client.send(&bytes).await;
    let expected = match want {
        Want::GoesOn(requests) | Want::Ends(requests) => requests.len(),
        Want::Refused(_) | Want::Declined(_) | Want::Broken(_) => 1,
    };
    let rest = loop {
        match client.next().await {
            Next::Answer(answer) => answers.push(answer),
            Next::End(rest) => break Some(rest),
        }
        if answers.len() == expected && followed == Followed::AfterTheAnswer {
            client.send(follower.as_bytes()).await;
        }
        if answers.len() > expected {
            break None;
        }
    };
    let seen: Vec<(String, String)> = origin
        .requests_for(path)
        .into_iter()
        .map(|request| {
            let rest = request.target().strip_prefix(path).unwrap_or_default().to_owned();
            (rest, String::from_utf8_lossy(&request.body).into_owned())
        })
        .collect();
    let ok = judge(want, path, &answers, rest.as_deref(), &seen);
    let answers: Vec<_> = answers.iter().map(|answer| (answer.status, answer.text())).collect();
    (!ok).then(|| format!("wants {want:?}, answers {answers:?}, end {rest:?}, origin saw {seen:?}"))
}

/// Whether what came is what a shape wants.
fn judge(
    want: &Want,
    path: &str,
    answers: &[RawAnswer],
    end: Option<&[u8]>,
    seen: &[(String, String)],
) -> bool {
    let ended = end.is_some_and(<[u8]>::is_empty);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    match want {
        Want::Refused(status) => ended && statuses == [*status] && seen.is_empty(),
        Want::Declined(status) => {
            let follower = [("/follower".to_owned(), String::new())];
            statuses == [*status, 200] && seen == follower
        }
        Want::Broken(allowed) => {
            let is_allowed = statuses.iter().all(|status| allowed.contains(status));
            let only_own = seen.iter().all(|(rest, body)| rest.is_empty() && body == "hello");
            ended && statuses.len() <= 1 && is_allowed && only_own && seen.len() <= 1
        }
        Want::GoesOn(requests) | Want::Ends(requests) => {
            let mut all: Vec<(String, String)> = requests
                .iter()
                .map(|(rest, body)| ((*rest).to_owned(), (*body).to_owned()))
                .collect();
            let goes_on = matches!(want, Want::GoesOn(_));
            if goes_on {
                all.push(("/follower".to_owned(), String::new()));
            }
            let own =
                all.iter().map(|(rest, body)| told(&format!("{path}{rest}"), body.as_bytes()));
            let told: Vec<String> = answers.iter().map(RawAnswer::text).collect();
            seen == all && told == own.collect::<Vec<_>>() && (goes_on || ended)
        }
    }
}

async fn table(name: &str, shapes: &[Shape]) {
    let origin = echo().await;
    let mut edge = EdgeProcess::before(&origin.address(), |_| {}).await;
    let mut wrong = Vec::new();
    for (number, shape) in shapes.iter().enumerate() {
        for followed in [Followed::AtOnce, Followed::AfterTheAnswer] {
            let path = format!("/{name}-{number}-{followed:?}");
            if let Some(what) = wrong_with(&edge, &origin, &path, shape, followed).await {
                wrong.push(format!("{} ({followed:?}): {what}", shape.0));
            }
            // Another client, over the connections to the origin that the shape may have used.
            let next = format!("GET /next{path} HTTP/1.1\r\nHost: h\r\n\r\n");
            let mut client = RawClient::connect(edge.url()).await;
            client.send(next.as_bytes()).await;
            match client.next().await {
                Next::Answer(answer) if answer.text() == told(&format!("/next{path}"), b"") => {}
                other => wrong.push(format!("another client, after {}: {other:?}", shape.0)),
            }
        }
    }
    let smuggled = |target: &str| target.ends_with("/smuggled");
    wrong.extend(origin.requests().iter().filter(|r| smuggled(r.target())).map(|r| r.head.clone()));
    wrong.extend(origin.malformed());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), shapes.len(), wrong.join("\n\n"));
    assert!(edge.process().runs() && !edge.process().stderr().contains("panicked"));
}

#[tokio::test]
async fn lengths_end_a_message_at_one_place_only() {
    table("lengths", LENGTHS).await;
}

#[tokio::test]
async fn codings_end_a_message_at_one_place_only() {
    table("codings", CODINGS).await;
}

#[tokio::test]
async fn chunks_end_where_they_say_or_the_message_is_broken() {
    table("chunks", CHUNKS).await;
}

#[tokio::test]
async fn lines_end_with_crlf_and_hold_no_controls() {
    table("lines", LINES).await;
}

#[tokio::test]
async fn a_message_is_for_one_host_and_ends_before_the_next() {
    table("places", PLACES).await;
}

#[test]
fn the_judge_sees_a_smuggled_request_and_a_swapped_answer() {
    let answer = |text: &str| RawAnswer { status: 200, head: String::new(), body: text.into() };
    let seen = |rest: &str| (rest.to_owned(), String::new());
    let want = Want::GoesOn(&[("", "")]);
    let sound = [answer("/a "), answer("/a/follower ")];
    let judged =
        |answers: &[RawAnswer], seen: &[(String, String)]| judge(&want, "/a", answers, None, seen);
    assert!(judged(&sound, &[seen(""), seen("/follower")]));
    assert!(!judged(&sound, &[seen(""), seen("/smuggled"), seen("/follower")]), "smuggled");
    let swapped = [answer("/a/follower "), answer("/a ")];
    assert!(!judged(&swapped, &[seen(""), seen("/follower")]), "swapped");
    assert!(!judged(&[answer("/a "), answer("/a ")], &[seen(""), seen("/follower")]), "repeated");
}
