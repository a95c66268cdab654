//! A scripted HTTP server: a cache of everything, with an origin's and an edge's admin answers.
//!
//! `/o/N` has `N + 1` bytes, or all objects have the size that the test sets.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use meridian_tests_load::endpoint::Endpoint;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

type AnyBody = BoxBody<Bytes, io::Error>;

/// A scripted server; it ends when it is dropped.
pub(crate) struct Server {
    pub(crate) name: String,
    address: SocketAddr,
    state: Arc<State>,
    _stop: DropGuard,
}

struct State {
    name: String,
    counts: Mutex<Counts>,
    /// Whose counts `/v1/requests` tells.
    edges: Vec<Arc<State>>,
    /// Answers on one connection until it is closed.
    answers: Option<u64>,
    /// Of every object.
    size: Option<usize>,
}

#[derive(Default)]
struct Counts {
    asked: u64,
    stored: HashSet<String>,
    /// Of first requests.
    bytes: u64,
}

impl Server {
    /// A cache that has its objects from nowhere, `/o/N` with `N + 1` bytes.
    pub(crate) async fn start(name: &str) -> Self {
        Self::with(name, Vec::new(), None, None).await
    }

    /// The same with objects of `size` bytes.
    pub(crate) async fn sized(name: &str, size: usize) -> Self {
        Self::with(name, Vec::new(), None, Some(size)).await
    }

    /// A cache that closes each connection after `answers` answers, without saying so.
    pub(crate) async fn closing(name: &str, answers: u64) -> Self {
        Self::with(name, Vec::new(), Some(answers), Some(10)).await
    }

    /// The admin listener of the origin behind `edges`.
    pub(crate) async fn origin(edges: &[&Self]) -> Self {
        let edges = edges.iter().map(|edge| Arc::clone(&edge.state)).collect();
        Self::with("origin-1", edges, None, None).await
    }

    async fn with(
        name: &str,
        edges: Vec<Arc<State>>,
        answers: Option<u64>,
        size: Option<usize>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (counts, name) = (Mutex::default(), name.to_owned());
        let state = Arc::new(State { name: name.clone(), counts, edges, answers, size });
        let stop = CancellationToken::new();
        let accepting = accept(listener, Arc::clone(&state), stop.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the guard that the server holds")]
        tokio::spawn(accepting);
        Self { name, address, state, _stop: stop.drop_guard() }
    }

    pub(crate) fn url(&self) -> Endpoint {
        format!("http://{}", self.address).parse().unwrap()
    }

    /// Requests for objects.
    pub(crate) fn asked(&self) -> u64 {
        self.state.counts.lock().unwrap().asked
    }

    /// The paths it was asked for.
    pub(crate) fn stored(&self) -> HashSet<String> {
        self.state.counts.lock().unwrap().stored.clone()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, _) = accepted.unwrap();
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let answered = Arc::new(Mutex::new(0));
            let full = CancellationToken::new();
            let service = service_fn(|request| {
                let mut answered = answered.lock().unwrap();
                *answered += 1;
                if state.answers.is_some_and(|most| *answered > most) {
                    full.cancel(); // this request gets no answer: the connection closes
                }
                answer(Arc::clone(&state), request)
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                biased;
                () = full.cancelled() => {}
                _ended = connection => {}
            }
        });
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<AnyBody>, Infallible> {
    let path = request.uri().path_and_query().unwrap().as_str().to_owned();
    let response = Response::builder();
    if let Some(status) = path.strip_prefix("/status/") {
        let status: u16 = status.parse().unwrap();
        return Ok(response.status(status).body(full("problem")).unwrap());
    }
    let text = match path.as_str() {
        "/silent" => pending().await,
        "/cut" => {
            return Ok(response.body(Cut { half_sent: false }.boxed()).unwrap());
        }
        "/metrics" => state.metrics(),
        "/v1/requests" => state.requests(),
        "/v1/paths" => {
            r#"{"paths":[{"path":"/","size":5},{"path":"/a","size":6}],"next":"x"}"#.into()
        }
        "/v1/paths?after=x" => r#"{"paths":[{"path":"/b?c"}]}"#.into(),
        object => return Ok(state.object(object)),
    };
    Ok(response.body(full(&text)).unwrap())
}

impl State {
    fn object(&self, path: &str) -> Response<AnyBody> {
        let number = path.strip_prefix("/o/").and_then(|number| number.parse().ok());
        let size = self.size.or_else(|| number.map(|number: usize| number + 1)).unwrap();
        let body = "x".repeat(size);
        let mut counts = self.counts.lock().unwrap();
        counts.asked += 1;
        let name = &self.name;
        let status = if counts.stored.insert(path.to_owned()) {
            counts.bytes += body.len() as u64;
            format!("{name}; fwd=uri-miss; fwd-status=200; stored; ttl=60")
        } else {
            format!("{name}; hit; ttl=41")
        };
        Response::builder().header("cache-status", status).body(full(&body)).unwrap()
    }

    fn requests(&self) -> String {
        let by: BTreeMap<&str, serde_json::Value> = self
            .edges
            .iter()
            .map(|edge| {
                let counts = edge.counts.lock().unwrap();
                let (requests, bytes) = (counts.stored.len(), counts.bytes);
                (edge.name.as_str(), serde_json::json!({"requests": requests, "body_bytes": bytes}))
            })
            .collect();
        let sum = |field: &str| by.values().filter_map(|one| one[field].as_u64()).sum::<u64>();
        let (requests, bytes) = (sum("requests"), sum("body_bytes"));
        serde_json::json!({"path": null, "requests": requests, "body_bytes": bytes, "by": by})
            .to_string()
    }

    fn metrics(&self) -> String {
        let counts = self.counts.lock().unwrap();
        format!(
            "edge_upstream_requests_total{{upstream=\"origin-1\"}} {}\n\
             edge_upstream_body_bytes_total{{upstream=\"origin-1\"}} {}\n# EOF\n",
            counts.stored.len(),
            counts.bytes
        )
    }
}

fn full(text: &str) -> AnyBody {
    Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed()
}

/// A body that breaks after its first part.
struct Cut {
    half_sent: bool,
}

impl Body for Cut {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.half_sent {
            return Poll::Ready(Some(Err(io::Error::other("cut on purpose"))));
        }
        self.half_sent = true;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from("half")))))
    }
}
