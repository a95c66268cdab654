//! One client: a keep-alive HTTP/1.1 connection with one request at a time.
//!
//! # Invariants
//! - Bodies are counted and dropped, whatever their size.
//! - A request is sent a second time only if its connection had served before and broke before a
//!   byte of the answer came: the server closed it while idle (RFC 9112 §9.3.1).

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{HOST, HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::cache_status::{Claim, claim, is_stale};
use crate::endpoint::Endpoint;

/// How long a connection attempt may take; at loopback and in one region it takes far less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Of the body.
    pub(crate) bytes: u64,
    pub(crate) claim: Claim,
    /// What was stored went out although it is no longer fresh.
    pub(crate) stale: bool,
    /// The request was sent twice.
    pub(crate) retried: bool,
}

/// Why there is no whole answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection.
    Connect(io::Error),
    /// The connection broke, or what came over it was not HTTP.
    Broken(hyper::Error),
    /// The time was up.
    Timeout,
}

/// A client of one server.
pub(crate) struct Client {
    address: String,
    host: HeaderValue,
    timeout: Duration,
    connection: Option<Connection>,
}

/// An open connection. Hyper moves bytes only while `driver` is polled: [`beside`] does it, in the
/// task of the request, so that a connection costs no task and no channel between threads.
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: Option<Driver>,
    served: bool,
}

type Driver = Pin<Box<http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>>>;

impl Client {
    /// A client that names `host` in its requests; it connects when it is first used.
    pub(crate) fn new(server: &Endpoint, host: HeaderValue, timeout: Duration) -> Self {
        Self { address: server.address().to_owned(), host, timeout, connection: None }
    }

    /// Asks for `path` and takes the whole answer. Dropping the future closes the connection.
    pub(crate) async fn get(&mut self, path: &PathAndQuery) -> Result<Answer, Failure> {
        match tokio::time::timeout(self.timeout, self.exchange(path)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Failure::Timeout),
        }
    }

    /// The connection is put back only after a whole answer: a half-read one is of no use.
    async fn exchange(&mut self, path: &PathAndQuery) -> Result<Answer, Failure> {
        let (mut connection, response, retried) = self.head(path).await?;
        let (head, mut body) = response.into_parts();
        let lines = head.headers.get_all("cache-status");
        let claim = claim(lines.iter().filter_map(|line| line.to_str().ok()));
        let stale = is_stale(lines.iter().filter_map(|line| line.to_str().ok()));
        let mut bytes = 0;
        while let Some(frame) = beside(&mut connection.driver, body.frame()).await {
            let frame = frame.map_err(Failure::Broken)?;
            bytes += frame.data_ref().map_or(0, |data| data.remaining() as u64);
        }
        connection.served = true;
        self.connection = Some(connection);
        Ok(Answer { status: head.status, bytes, claim, stale, retried })
    }

    /// Sends the request and takes the head of the answer.
    async fn head(
        &mut self,
        path: &PathAndQuery,
    ) -> Result<(Connection, Response<Incoming>, bool), Failure> {
        let mut retried = false;
        if let Some(mut kept) = self.connection.take() {
            let Connection { sender, driver, .. } = &mut kept;
            if beside(driver, sender.ready()).await.is_ok() {
                match send(&mut kept, self.request(path)).await {
                    Ok(response) => return Ok((kept, response, false)),
                    Err(error) if kept.served && closed_unused(&error) => retried = true,
                    Err(error) => return Err(Failure::Broken(error)),
                }
            }
        }
        let mut fresh = connect(&self.address).await?;
        let sent = send(&mut fresh, self.request(path)).await;
        sent.map(|response| (fresh, response, retried)).map_err(Failure::Broken)
    }

    fn request(&self, path: &PathAndQuery) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::from(path.clone());
        let agent = HeaderValue::from_static(concat!("meridian-load/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().insert(USER_AGENT, agent);
        request
    }
}

async fn connect(address: &str) -> Result<Connection, Failure> {
    let stream = open(address).await.map_err(Failure::Connect)?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Broken)?;
    Ok(Connection { sender, driver: Some(Box::pin(driver)), served: false })
}

/// Opens a connection; nothing is sent on it.
pub(crate) async fn open(address: &str) -> io::Result<TcpStream> {
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(connected) => connected?,
        Err(elapsed) => return Err(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn send(
    connection: &mut Connection,
    request: Request<Empty<Bytes>>,
) -> hyper::Result<Response<Incoming>> {
    let answer = connection.sender.send_request(request);
    beside(&mut connection.driver, answer).await
}

/// Whether the server closed the connection before it answered anything.
fn closed_unused(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    error.is_canceled()
        || error.is_closed()
        || error.is_incomplete_message()
        || io.is_some_and(|io| {
            matches!(io.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        })
}

/// Polls the connection beside `work`, which waits for what the connection brings.
async fn beside<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    poll_fn(|context| {
        if let Poll::Ready(ready) = work.as_mut().poll(context) {
            return Poll::Ready(ready);
        }
        // How the connection ended, `work` learns through its channel.
        if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(context).is_ready()) {
            *driver = None;
        }
        work.as_mut().poll(context)
    })
    .await
}

/// Asks an admin listener for `path`: the body of a 200, of `limit` bytes at most, or what else
/// came, for people.
pub(crate) async fn fetch(
    server: &Endpoint,
    path: &PathAndQuery,
    limit: usize,
    timeout: Duration,
) -> Result<Vec<u8>, String> {
    let host = HeaderValue::try_from(server.address()).map_err(|error| error.to_string())?;
    let mut client = Client::new(server, host, timeout);
    let whole = async {
        let (mut connection, response, _) = client.head(path).await.map_err(|f| f.to_string())?;
        let status = response.status();
        let mut body = response.into_body();
        let mut whole = Vec::new();
        while let Some(frame) = beside(&mut connection.driver, body.frame()).await {
            let frame = frame.map_err(|error| error.to_string())?;
            whole.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if whole.len() > limit {
                return Err(format!("the answer is larger than {limit} bytes"));
            }
        }
        match status {
            StatusCode::OK => Ok(whole),
            other => Err(format!("the answer is {other}")),
        }
    };
    match tokio::time::timeout(timeout, whole).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(format!("no answer within {timeout:?}")),
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "no connection: {error}"),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::Timeout => write!(f, "no answer in time"),
        }
    }
}
