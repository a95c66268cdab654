//! Arbitrary bytes from clients and from origins, to a live edge over many connections.
//!
//! Claims: the edge does not end and does not panic; its memory stays bounded; what it sends to an
//! origin is well-formed, whatever came in; and **no client gets an answer to a request that it did
//! not make**. The origin echoes the target of each request, so every answer says what it is for.
//!
//! `MERIDIAN_FUZZ_CASES` says how many connections there are (default [`CASES`], and a fifth of that
//! where origins are broken: each that stops in the middle costs a deadline), `MERIDIAN_FUZZ_SEED`
//! repeats a run. A failure names seed and case.

use meridian_config::edge::resilience::FirstByte;
use meridian_config::units::HumanDuration;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::raw_client::{Next, RawAnswer, RawClient};
use meridian_tests::raw_origin::{Bytes, RawOrigin, RawRequest, close, keep};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

/// Connections of a run.
const CASES: u64 = 3_000;
/// Connections at once.
const AT_ONCE: u64 = 12;
/// Spreads small numbers over all.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// The memory that the edge may have at the end: its store is far smaller than what came in.
const MEMORY: u64 = 512 << 20;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn seed() -> u64 {
    setting("MERIDIAN_FUZZ_SEED").unwrap_or_else(|| rand::rng().random())
}

/// Pieces that parsers trip over.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"0\r\n\r\n",
    b"\xff",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 7\r\n",
    b"Content-Length: 0\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"Host: x\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"GET ",
    b"ffffffffffffffff\r\n",
    b"Range: bytes=0-0,1-1,-1\r\n",
    b"Upgrade: h2c\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"Cache-Control: only-if-cached\r\n",
    b"If-None-Match: *\r\n",
    b"TE: trailers\r\n",
    b"Connection: transfer-encoding\r\n",
    b"Authorization: x\r\n",
];

/// Breaks `bytes` somewhere behind `from`, in one of several ways.
fn broken(rng: &mut StdRng, bytes: &mut Vec<u8>, from: usize) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(from..=bytes.len());
        let piece = PIECES.get(rng.random_range(0..PIECES.len())).copied().unwrap();
        match rng.random_range(0..5) {
            0 => drop(bytes.splice(at..at, piece.iter().copied())),
            1 => {
                let end = (at + rng.random_range(0..20)).min(bytes.len());
                drop(bytes.splice(at..end, []));
            }
            2 => bytes.truncate(at),
            3 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = rng.random();
                }
            }
            _ => {
                let noise: Vec<u8> = (0..rng.random_range(1..60)).map(|_| rng.random()).collect();
                drop(bytes.splice(at..at, noise));
            }
        }
    }
}

/// A sound request for `target`.
fn request(rng: &mut StdRng, target: &str) -> Vec<u8> {
    let body = "x".repeat(rng.random_range(0..40));
    match rng.random_range(0..6) {
        0 => format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        1 => format!(
            "POST {target} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\nx{body}\r\n0\r\n\r\n",
            body.len() + 1
        ),
        2 => format!("GET {target} HTTP/1.1\r\nHost: h\r\nRange: bytes=0-3\r\nAccept: {body}\r\n\r\n"),
        _ => format!("GET {target} HTTP/1.1\r\nHost: h\r\nX: {body}\r\n\r\n"),
    }
    .into_bytes()
}

/// The last request of a conversation: the connection ends behind its answer.
fn last(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").into_bytes()
}

/// What a connection says, and how much of it is certainly sound.
struct Conversation {
    bytes: Vec<u8>,
    /// The targets of the requests before anything is broken.
    sound: Vec<String>,
}

fn conversation(rng: &mut StdRng, case: u64) -> Conversation {
    let (mut bytes, mut sound, mut is_broken) = (Vec::new(), Vec::new(), false);
    for n in 0..rng.random_range(1..7) {
        // Some are shared by all connections, and stored.
        let target = match rng.random_range(0..4) {
            0 => format!("/shared/{}.", rng.random_range(0..20)),
            _ => format!("/case/{case}/{n}."),
        };
        let from = bytes.len();
        bytes.extend(request(rng, &target));
        if rng.random_range(0..4) == 0 {
            broken(rng, &mut bytes, from);
            is_broken = true;
        }
        if !is_broken {
            sound.push(target);
        }
    }
    let target = format!("/case/{case}/last.");
    bytes.extend(last(&target));
    if !is_broken {
        sound.push(target);
    }
    if rng.random_range(0..10) == 0 {
        bytes = (0..rng.random_range(1..400)).map(|_| rng.random()).collect();
        sound.clear();
    }
    Conversation { bytes, sound }
}

/// The target that an answer says it is for; none for an answer of the edge's own.
fn answers(answer: &RawAnswer) -> Option<&str> {
    answer.value("x-answers")
}

/// What is wrong with these answers to `said`, if anything.
fn wrong(said: &Conversation, answered: &[RawAnswer]) -> Option<String> {
    let told: Vec<Option<&str>> = answered.iter().map(answers).collect();
    for (target, told) in said.sound.iter().zip(&told) {
        // The edge may refuse (503) what it cannot do now, but not answer something else.
        if told.is_some_and(|told| told != target) {
            return Some(format!("{target} was asked for, and {told:?} answered"));
        }
    }
    // What was broken may be anything, but it was said on this connection, in this order.
    let mut from = 0;
    for told in told.into_iter().flatten() {
        let rest = said.bytes.get(from..).unwrap_or_default();
        match rest.windows(told.len().max(1)).position(|window| window == told.as_bytes()) {
            Some(at) => from += at + told.len(),
            None => return Some(format!("{told} was answered, and not asked for (any more)")),
        }
    }
    None
}

/// Says it in random parts, perhaps leaves in the middle, and takes what comes.
async fn converse(url: &str, rng: &mut StdRng, said: &Conversation) -> Vec<RawAnswer> {
    let mut client = RawClient::connect(url).await;
    let leaves = rng.random_range(0..12) == 0;
    let mut left = &said.bytes[..];
    while !left.is_empty() {
        let (part, rest) = left.split_at(rng.random_range(1..=left.len()));
        client.send(part).await;
        tokio::task::yield_now().await;
        left = rest;
        if leaves && rng.random_range(0..3) == 0 {
            return Vec::new();
        }
    }
    client.until_quiet().await
}

/// Has all the conversations, and says how many answers of the origin came.
async fn live(edge: &EdgeProcess, seed: u64, cases: u64) -> usize {
    let mut tasks = JoinSet::new();
    for lane in 0..AT_ONCE {
        let url = edge.url().to_owned();
        tasks.spawn(async move {
            let mut heard = 0;
            for case in (lane..cases).step_by(usize::try_from(AT_ONCE).unwrap()) {
                let mut rng = StdRng::seed_from_u64(seed ^ case.wrapping_mul(SPREAD));
                let said = conversation(&mut rng, case);
                let answered = converse(&url, &mut rng, &said).await;
                if let Some(what) = wrong(&said, &answered) {
                    let shown = String::from_utf8_lossy(&said.bytes);
                    panic!(
                        "MERIDIAN_FUZZ_SEED={seed}, case {case}: {what}\n{shown:?}\n{answered:#?}"
                    );
                }
                heard += answered.iter().filter_map(answers).count();
            }
            heard
        });
    }
    tasks.join_all().await.into_iter().sum()
}

fn told(request: &RawRequest) -> Bytes {
    let (target, body) = (request.target(), &request.body.len());
    let lifetime = if target.starts_with("/shared/") { "Cache-Control: max-age=1\r\n" } else { "" };
    let text = format!("{target} {body}");
    let length = text.len();
    // What cannot be said as it came is not said.
    let answers =
        if target.is_ascii() { format!("X-Answers: {target}\r\n") } else { String::new() };
    let head = format!("HTTP/1.1 200 OK\r\n{answers}{lifetime}Content-Length: {length}\r\n\r\n");
    if request.method() == "HEAD" { keep(head) } else { keep(head + &text) }
}

async fn is_well(edge: &mut EdgeProcess, seed: u64) {
    assert!(edge.process().runs(), "MERIDIAN_FUZZ_SEED={seed}: the edge has ended");
    let log = edge.process().stderr();
    assert!(!log.contains("panicked"), "MERIDIAN_FUZZ_SEED={seed}: {log}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", edge.process().pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(resident << 10 < MEMORY, "MERIDIAN_FUZZ_SEED={seed}: {resident} kB resident");
    let mut client = RawClient::connect(edge.url()).await;
    client.send(b"GET /case/last. HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let Next::Answer(answer) = client.next().await else { panic!("no answer") };
    assert_eq!(answers(&answer), Some("/case/last."), "MERIDIAN_FUZZ_SEED={seed}");
}

#[tokio::test]
async fn whatever_clients_say_each_gets_only_answers_to_its_own_requests() {
    let (seed, cases) = (seed(), setting("MERIDIAN_FUZZ_CASES").unwrap_or(CASES));
    let origin = RawOrigin::start(told).await;
    let mut edge = EdgeProcess::before(&origin.address(), |_| {}).await;
    let heard = live(&edge, seed, cases).await;
    let least = usize::try_from(cases).unwrap();
    assert!(heard > least, "only {heard} answers were there to look at");
    assert_eq!(origin.malformed(), Vec::<String>::new(), "MERIDIAN_FUZZ_SEED={seed}");
    is_well(&mut edge, seed).await;
}

/// A target that tells its case in a way that no accident makes into that of another.
fn named(case: u64) -> String {
    format!("/case/{case}-{}.", case.wrapping_mul(SPREAD))
}

/// The cases that are named in `text`.
fn names(text: &str) -> impl Iterator<Item = u64> {
    text.split("/case/").skip(1).filter_map(|rest| {
        let (case, _) = rest.split_once('-')?;
        let case = case.parse().ok()?;
        format!("/case/{rest}").starts_with(&named(case)).then_some(case)
    })
}

/// An answer that is broken somewhere, or noise. Whatever it is, it shows the target of its request.
fn mangled(seed: u64, request: &RawRequest) -> Bytes {
    let target = request.target();
    if target.starts_with("/case/last") {
        return told(request);
    }
    let number = target.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31) ^ u64::from(byte));
    let mut rng = StdRng::seed_from_u64(number ^ request.nth as u64);
    let body = format!("{target}{}", "y".repeat(rng.random_range(0..3_000)));
    let ends = rng.random_range(0..3);
    let framing = match ends {
        0 => format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        1 => format!("\r\n{body}"),
        _ => format!("Content-Length: {}\r\n\r\n{body}", body.len()),
    };
    let lifetime = ["", "Cache-Control: max-age=1\r\n", "Vary: x\r\n"][rng.random_range(0..3)];
    let status = ["200 OK", "404 No", "103 Early", "304 Same", "204 None"][rng.random_range(0..5)];
    let text = format!("HTTP/1.1 {status}\r\nX-Answers: {target}\r\n{lifetime}{framing}");
    let mut bytes = text.into_bytes();
    if rng.random_range(0..3) > 0 {
        broken(&mut rng, &mut bytes, 0);
    } else if ends != 1 {
        // Where the answer has an end: a whole one behind it, which nobody has asked for.
        bytes.extend_from_slice(
            b"HTTP/1.1 200 OK\r\nX-Answers: /evil\r\nContent-Length: 4\r\n\r\nevil",
        );
    }
    if rng.random_range(0..2) == 0 { close(bytes) } else { keep(bytes) }
}

#[tokio::test]
async fn whatever_origins_answer_each_client_gets_only_answers_to_its_own_requests() {
    let (seed, cases) = (seed(), setting("MERIDIAN_FUZZ_CASES").unwrap_or(CASES / 5));
    let origin = RawOrigin::start(move |request| mangled(seed, request)).await;
    let mut edge = EdgeProcess::before(&origin.address(), |edge| {
        edge.site[0].resilience = Some(false); // each request shows what its own answer becomes
        edge.origin[0].first_byte_timeout = FirstByte::Fixed(HumanDuration::millis(500));
        edge.origin[0].between_bytes_timeout = HumanDuration::millis(500);
    })
    .await;
    let mut tasks = JoinSet::new();
    for lane in 0..AT_ONCE {
        let url = edge.url().to_owned();
        tasks.spawn(async move {
            for case in (lane..cases).step_by(usize::try_from(AT_ONCE).unwrap()) {
                let target = named(case);
                let mut client = RawClient::connect(&url).await;
                client.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await;
                let shown = match client.next().await {
                    Next::Answer(answer) => format!("{}{}", answer.head, answer.text()),
                    Next::End(rest) => String::from_utf8_lossy(&rest).into_owned(),
                };
                let strange = shown.contains("/evil") || names(&shown).any(|named| named != case);
                assert!(!strange, "MERIDIAN_FUZZ_SEED={seed}: {target} was asked for: {shown:?}");
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(origin.malformed(), Vec::<String>::new(), "MERIDIAN_FUZZ_SEED={seed}");
    is_well(&mut edge, seed).await;
}

#[tokio::test]
async fn two_answers_that_change_places_are_found() {
    let origin = RawOrigin::start(told).await;
    let edge = EdgeProcess::before(&origin.address(), |_| {}).await;
    let mut rng = StdRng::seed_from_u64(1);
    let mut talk = |case: u64| {
        let sound: Vec<String> = (0..2).map(|n| format!("/case/{case}/{n}.")).collect();
        let bytes = sound.iter().flat_map(|target| request(&mut rng, target)).collect();
        Conversation { bytes, sound }
    };
    let (one, other) = (talk(1), talk(2));
    let mut answered = Vec::new();
    for said in [&one, &other] {
        let mut client = RawClient::connect(edge.url()).await;
        client.send(&said.bytes).await;
        answered.push(client.until_quiet().await);
        assert_eq!(
            (answered.last().unwrap().len(), wrong(said, answered.last().unwrap())),
            (2, None)
        );
    }
    let [mine, others] = answered.try_into().unwrap();
    let within = [mine[1].clone(), mine[0].clone()];
    assert!(wrong(&one, &within).is_some(), "swapped on one connection");
    let across = [mine[0].clone(), others[1].clone()];
    assert!(wrong(&one, &across).is_some(), "swapped between two connections");
    let twice = [mine[0].clone(), mine[0].clone()];
    assert!(wrong(&one, &twice).is_some(), "answered twice");
    let broken = Conversation { bytes: one.bytes.clone(), sound: Vec::new() };
    assert!(wrong(&broken, &within).is_some(), "also where nothing is known to be sound");
}
