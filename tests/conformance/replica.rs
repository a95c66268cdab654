//! A control replica that says what the test tells it to, byte by byte as it crosses the wire.
//!
//! It knows one edge. Its log is a list of frames; the cursor of a place in it is `c` and a number.
//! Several replicas may share one log; each can be taken away, or fail in a way of its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "whatever fails in here fails the test that called it"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};

use meridian_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The secret that the edge gets when it registers.
pub(crate) const SECRET: &str = "secret-of-the-edge-fra-1";

/// See the module.
pub(crate) struct Replica {
    address: String,
    state: Arc<State>,
    _stop: DropGuard,
}

/// What replicas agree on.
#[derive(Default)]
struct Shared {
    log: Mutex<Vec<String>>,
    /// Changes with the log.
    changed: watch::Sender<u64>,
    /// How often the edge has registered.
    registrations: Mutex<usize>,
}

#[derive(Default)]
struct State {
    shared: Arc<Shared>,
    /// Frames that stand in for the log at the next stream, and where they lead.
    instead: Mutex<Option<(String, usize)>>,
    acked: Mutex<Vec<String>>,
    opened: Mutex<Vec<Option<String>>>,
    pings: Mutex<Vec<Value>>,
    /// The lease of the next answers to pings, as JSON.
    lease: Mutex<Option<Value>>,
    /// How paths that end so are answered: status and problem code.
    refusals: Mutex<BTreeMap<&'static str, (u16, &'static str)>>,
    /// Frames for the open streams: they end after it.
    bye: Mutex<String>,
    /// When the streams are cut.
    cuts: watch::Sender<u64>,
    held: watch::Sender<bool>,
    /// Streams bring no more of the log than this.
    upto: Mutex<Option<usize>>,
    /// Nobody answers, and open connections end.
    down: watch::Sender<bool>,
}

impl Replica {
    pub(crate) async fn start() -> Self {
        Self::over(Arc::default()).await
    }

    /// Another replica of the same log.
    pub(crate) async fn beside(&self) -> Self {
        Self::over(Arc::clone(&self.state.shared)).await
    }

    async fn over(shared: Arc<Shared>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State { shared, ..State::default() });
        let stop = CancellationToken::new();
        let accepting = accept(listener, Arc::clone(&state), stop.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with the guard that the replica holds"
        )]
        tokio::spawn(accepting);
        Self { address, state, _stop: stop.drop_guard() }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Adds an operation to the log, and returns its cursor.
    pub(crate) fn purge(&self, id: &str, selector: &str, soft: bool) -> String {
        let data = format!(r#"{{"id":"{id}","selectors":[{selector}],"soft":{soft},"at_ms":0}}"#);
        self.add("op", &data)
    }

    /// Adds a configuration key to the log, and returns its cursor.
    pub(crate) fn configure(&self, key: &str, value: &str) -> String {
        self.add("config", &format!(r#"{{"key":"{key}","value":{value}}}"#))
    }

    fn add(&self, event: &str, data: &str) -> String {
        let mut log = self.state.shared.log.lock().unwrap();
        let cursor = format!("c{}", log.len() + 1);
        log.push(format!("event: {event}\nid: {cursor}\ndata: {data}\n\n"));
        drop(log);
        self.state.shared.changed.send_modify(|count| *count += 1);
        cursor
    }

    /// Waits until the edge has acknowledged `cursor`.
    pub(crate) async fn acked(&self, cursor: &str) {
        eventually("the edge acknowledges", PATIENCE, async || {
            self.state.acked.lock().unwrap().iter().any(|acked| acked == cursor).then_some(())
        })
        .await;
    }

    /// Purges, and waits until that is acknowledged.
    pub(crate) async fn purged(&self, id: &str, selector: &str, soft: bool) {
        self.acked(&self.purge(id, selector, soft)).await;
    }

    /// From now on streams are asked for in vain, or no longer.
    pub(crate) fn hold(&self, holds: bool) {
        self.state.held.send_replace(holds);
    }

    /// Cuts all streams.
    pub(crate) fn cut(&self) {
        self.state.cuts.send_modify(|count| *count += 1);
    }

    /// At the next stream `frames` come in the place of the log so far.
    pub(crate) fn answer_with(&self, frames: &str) {
        let at = self.state.shared.log.lock().unwrap().len();
        *self.state.instead.lock().unwrap() = Some((frames.to_owned(), at));
    }

    /// The cursors with which streams were opened.
    pub(crate) fn opened(&self) -> Vec<Option<String>> {
        self.state.opened.lock().unwrap().clone()
    }

    /// The pings that were answered here.
    pub(crate) fn pings(&self) -> Vec<Value> {
        self.state.pings.lock().unwrap().clone()
    }

    /// Waits for a ping that was sent after this was asked.
    pub(crate) async fn pinged(&self) -> Value {
        let before = self.pings().len();
        eventually("the edge beats here", PATIENCE, async || {
            self.pings().get(before + 1).cloned() // one may have been on its way
        })
        .await
    }

    /// How often the edge has registered, at whichever replica of this log.
    pub(crate) fn registrations(&self) -> usize {
        *self.state.shared.registrations.lock().unwrap()
    }

    /// From now on paths that end in `end` are answered so, or as ever.
    pub(crate) fn refuse(&self, end: &'static str, with: Option<(u16, &'static str)>) {
        let mut refusals = self.state.refusals.lock().unwrap();
        match with {
            Some(with) => drop(refusals.insert(end, with)),
            None => drop(refusals.remove(end)),
        }
    }

    /// Grants such leases from now on.
    pub(crate) fn grant(&self, by: u64, ms: u64) {
        *self.state.lease.lock().unwrap() = Some(json!({"by": by, "ms": ms}));
    }

    /// Ends the streams with a word.
    pub(crate) fn say_goodbye(&self, bye: &Value) {
        *self.state.bye.lock().unwrap() = format!("event: bye\ndata: {bye}\n\n");
        self.cut();
    }

    /// Goes away, with all its connections, or comes back.
    pub(crate) fn down(&self, is_down: bool) {
        self.state.down.send_replace(is_down);
    }

    /// Its streams bring nothing new from now on, though they live; or they do again.
    pub(crate) fn lag(&self, lags: bool) {
        let upto = lags.then(|| self.state.shared.log.lock().unwrap().len());
        *self.state.upto.lock().unwrap() = upto;
        self.state.shared.changed.send_modify(|count| *count += 1);
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else { continue };
        let state = Arc::clone(&state);
        // A connection that breaks is what tests of breaking connections want.
        connections.spawn(async move {
            let mut down = state.down.subscribe();
            tokio::select! {
                biased;
                _ = down.wait_for(|is_down| *is_down) => {}
                ended = converse(stream, &state) => drop(ended),
            }
        });
    }
}

async fn converse(mut stream: TcpStream, state: &State) -> io::Result<()> {
    let mut unread = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut unread).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&unread[..end]).into_owned();
        let field = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim_start_matches(':').trim().to_owned())
        };
        let length: usize = field("content-length").map_or(0, |length| length.parse().unwrap());
        while unread.len() < end + length {
            stream.read_buf(&mut unread).await?;
        }
        let body = String::from_utf8_lossy(&unread[end..end + length]).into_owned();
        unread.drain(..end + length);
        let target = head.split(' ').nth(1).unwrap_or_default();
        let knows = field("authorization").is_some_and(|value| value == format!("Bearer {SECRET}"));
        let refusals = state.refusals.lock().unwrap().clone();
        let refusal = refusals.into_iter().find(|(end, _)| target.ends_with(end));
        let answer = match target {
            _ if let Some((_, (status, code))) = refusal => refused(status, code),
            "/v1/edges" => {
                *state.shared.registrations.lock().unwrap() += 1;
                ok(&format!(r#"{{"id":"fra-1","secret":"{SECRET}","beat_ms":50}}"#))
            }
            _ if !knows => "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/v1/edge/fra-1/ping" => {
                let cursor = format!("c{}", state.shared.log.lock().unwrap().len());
                let mut pong = json!({"cursor": cursor});
                if let Some(lease) = state.lease.lock().unwrap().clone() {
                    pong["lease"] = lease;
                }
                state.pings.lock().unwrap().push(serde_json::from_str(&body).unwrap());
                ok(&pong.to_string())
            }
            "/v1/edge/fra-1/ack" => {
                let ack: Value = serde_json::from_str(&body).unwrap();
                let cursor = ack["cursor"].as_str().unwrap().to_owned();
                state.acked.lock().unwrap().push(cursor);
                "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
            }
            "/v1/edge/fra-1/stream" => {
                return feed(stream, state, field("last-event-id")).await;
            }
            other => panic!("{other} is asked for by no edge"),
        };
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn refused(status: u16, code: &str) -> String {
    let problem = json!({"type": "about:blank", "title": "", "status": status, "code": code,
        "detail": ""})
    .to_string();
    let length = problem.len();
    format!("HTTP/1.1 {status} No\r\ncontent-length: {length}\r\n\r\n{problem}")
}

async fn feed(mut stream: TcpStream, state: &State, cursor: Option<String>) -> io::Result<()> {
    state.held.subscribe().wait_for(|holds| !holds).await.unwrap();
    state.opened.lock().unwrap().push(cursor.clone());
    let (mut changed, mut cuts) = (state.shared.changed.subscribe(), state.cuts.subscribe());
    cuts.mark_unchanged();
    let hello = r#"{"version":1,"server":"control-1","mode":"cp","incarnation":1,"#;
    let hello = format!("{hello}\"low_water\":\"00000000000000000000\",\"heartbeat_ms\":5000}}");
    let mut out = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_owned();
    write!(out, "event: hello\ndata: {hello}\n\n").unwrap();
    let instead = state.instead.lock().unwrap().take();
    let mut at = match (instead, cursor) {
        (Some((frames, at)), _) => {
            out.push_str(&frames);
            at
        }
        (None, Some(cursor)) => cursor[1..].parse().unwrap(),
        (None, None) => {
            let at = state.shared.log.lock().unwrap().len();
            write!(out, "event: bookmark\nid: c{at}\ndata: {{}}\n\n").unwrap();
            at
        }
    };
    loop {
        let upto = state.upto.lock().unwrap().unwrap_or(usize::MAX);
        let log = state.shared.log.lock().unwrap().clone();
        let upto = upto.min(log.len()).max(at);
        out.push_str(&log[at..upto].concat());
        at = upto;
        stream.write_all(out.as_bytes()).await?;
        out.clear();
        tokio::select! {
            biased; // nothing that is added after the cut goes over a stream that was there before
            _ = cuts.changed() => {
                let bye = std::mem::take(&mut *state.bye.lock().unwrap());
                return stream.write_all(bye.as_bytes()).await;
            }
            changed = changed.changed() => changed.unwrap(),
        }
    }
}
