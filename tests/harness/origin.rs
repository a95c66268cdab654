//! An upstream that answers as the test says, and remembers who asked for what.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::wait::pause;

/// An origin server on a free port of this machine; it ends when it is dropped.
#[derive(Debug)]
pub struct ScriptedOrigin {
    address: SocketAddr,
    state: Arc<State>,
    _stop: DropGuard,
}

/// A request that reached the origin.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Seen {
    /// A header field of the request, or nothing.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

type Answers = Arc<dyn Fn(&Seen) -> Script + Send + Sync>;

#[derive(Default)]
struct State {
    scripts: Mutex<HashMap<String, Answers>>,
    seen: Mutex<Vec<Seen>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// What the origin answers.
#[derive(Debug, Clone)]
pub struct Script {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    delay: Duration,
    gate: Option<Gate>,
    parts: Vec<Part>,
    /// Says the length of the body beforehand.
    sized: bool,
}

#[derive(Debug, Clone)]
enum Part {
    Data(Bytes),
    Wait(Gate),
    Drip(Duration),
    Cut,
}

/// A point that an answer does not pass before the test opens it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Opens it, for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        let mut state = self.0.subscribe();
        state.wait_for(|open| *open).await.expect("the gate holds its sender");
    }
}

/// 200 with a body and its length, nothing else.
pub fn ok(body: impl Into<Bytes>) -> Script {
    status(200).body(body)
}

/// A status without a body.
pub fn status(code: u16) -> Script {
    Script {
        status: StatusCode::from_u16(code).unwrap(),
        headers: Vec::new(),
        delay: Duration::ZERO,
        gate: None,
        parts: Vec::new(),
        sized: true,
    }
}

impl Script {
    /// With a body and its length.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.parts = vec![Part::Data(body.into())];
        self
    }

    /// With a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.parse().unwrap(), value.parse().unwrap()));
        self
    }

    /// Not before `delay` has passed.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Not before `gate` is open.
    #[must_use]
    pub fn behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// With a further part of the body, sent when `gate` is open. The body has no length then
    /// (`Transfer-Encoding: chunked`), unless the script names one.
    #[must_use]
    pub fn then_behind(mut self, gate: &Gate, part: impl Into<Bytes>) -> Self {
        self.parts.extend([Part::Wait(gate.clone()), Part::Data(part.into())]);
        self.sized = false;
        self
    }

    /// A byte after each `pause` from then on, for ever.
    #[must_use]
    pub fn then_drip(mut self, pause: Duration) -> Self {
        self.parts.push(Part::Drip(pause));
        self.sized = false;
        self
    }

    /// The connection breaks after what was scripted so far, in the middle of the body.
    #[must_use]
    pub fn then_cut(mut self) -> Self {
        self.parts.push(Part::Cut);
        self.sized = false;
        self
    }
}

impl ScriptedOrigin {
    /// Starts an origin that answers 404 to everything.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let stop = CancellationToken::new();
        let accepting = accept(listener, Arc::clone(&state), stop.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the guard that the origin holds")]
        tokio::spawn(accepting);
        Self { address, state, _stop: stop.drop_guard() }
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on answers requests for `path` (with its query) so.
    pub fn script(&self, path: &str, script: Script) {
        self.script_fn(path, move |_| script.clone());
    }

    /// From now on answers requests for `path` as `answer` says, request by request.
    pub fn script_fn(&self, path: &str, answer: impl Fn(&Seen) -> Script + Send + Sync + 'static) {
        self.state.scripts.lock().unwrap().insert(path.to_owned(), Arc::new(answer));
    }

    /// The requests for `path` so far.
    pub fn requests(&self, path: &str) -> Vec<Seen> {
        let seen = self.state.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.path == path).cloned().collect()
    }

    /// How many requests for `path` there were.
    pub fn count(&self, path: &str) -> usize {
        self.requests(path).len()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else { continue };
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&state), request));
            // A connection that breaks is what tests of breaking connections want.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<ScriptedBody>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("*", |path| path.as_str()).to_owned();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let seen = Seen { method: head.method, path, headers: head.headers, body };
    let answers = state.scripts.lock().unwrap().get(&seen.path).cloned();
    state.seen.lock().unwrap().push(seen.clone());
    let script = answers.map_or_else(|| status(404), |answers| answers(&seen));

    if !script.delay.is_zero() {
        pause(script.delay).await;
    }
    if let Some(gate) = &script.gate {
        gate.passed().await;
    }
    let mut response = Response::new(ScriptedBody::new(script.parts, script.sized));
    *response.status_mut() = script.status;
    for (name, value) in script.headers {
        response.headers_mut().append(name, value);
    }
    Ok(response)
}

/// The body of a script.
struct ScriptedBody {
    parts: std::vec::IntoIter<Part>,
    length: Option<u64>,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    drip: Option<Duration>,
}

impl ScriptedBody {
    fn new(parts: Vec<Part>, sized: bool) -> Self {
        let length = parts.iter().map(|part| match part {
            Part::Data(data) => data.len() as u64,
            Part::Wait(_) | Part::Drip(_) | Part::Cut => 0,
        });
        Self {
            length: sized.then(|| length.sum()),
            parts: parts.into_iter(),
            waiting: None,
            drip: None,
        }
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                std::task::ready!(waiting.as_mut().poll(context));
                self.waiting = None;
                if self.drip.is_some() {
                    let byte = Bytes::from_static(b".");
                    self.waiting = self.drip.map(|every| Box::pin(pause(every)) as _);
                    return Poll::Ready(Some(Ok(Frame::data(byte))));
                }
            }
            match self.parts.next() {
                Some(Part::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Part::Wait(gate)) => {
                    self.waiting = Some(Box::pin(async move { gate.passed().await }));
                }
                Some(Part::Drip(every)) => {
                    self.drip = Some(every);
                    self.waiting = Some(Box::pin(pause(every)));
                }
                Some(Part::Cut) => {
                    return Poll::Ready(Some(Err(io::Error::other("cut by the script"))));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.parts.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
