//! Requests over HTTP/1.1 and cleartext HTTP/2.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long any exchange may take, the body included.
const EXCHANGE_PATIENCE: Duration = Duration::from_secs(60);

/// What went wrong with an exchange.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A connection that is kept open, with one request at a time.
#[derive(Debug)]
pub struct Client {
    authority: String,
    sender: Sender,
    /// Drives the connection; ends with the client.
    _connection: JoinSet<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Reply {
    /// A header field, or nothing. Several lines of it: the first.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The member `code` of a problem (RFC 9457).
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        self.json().get("code").and_then(|code| code.as_str()).unwrap().to_owned()
    }

    /// The `Cache-Status`, or an empty text.
    pub fn cache_status(&self) -> &str {
        self.header("cache-status").unwrap_or_default()
    }
}

impl Client {
    /// Connects for HTTP/1.1; `url` may have a path, which is not looked at.
    pub async fn http1(url: &str) -> Result<Self, Failure> {
        let (authority, _) = split(url);
        let stream = connect(authority).await?;
        let (sender, connection) = http1::handshake(stream).await?;
        Ok(Self::over(authority, Sender::Http1(sender), async { drop(connection.await) }))
    }

    /// Connects for HTTP/2 with prior knowledge.
    pub async fn http2(url: &str) -> Result<Self, Failure> {
        let (authority, _) = split(url);
        let stream = connect(authority).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        Ok(Self::over(authority, Sender::Http2(sender), async { drop(connection.await) }))
    }

    fn over(
        authority: &str,
        sender: Sender,
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Self { authority: authority.to_owned(), sender, _connection: tasks }
    }

    /// Sends a request and takes the whole answer. Its URI is a path; `Host` is filled in, unless
    /// it is there already.
    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Reply, Failure> {
        timeout(EXCHANGE_PATIENCE, async {
            let (head, body) = self.open(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Reply { status: head.status, headers: head.headers, body })
        })
        .await?
    }

    /// Sends a request and takes the head of the answer; the body is read by whoever called.
    pub async fn open(&mut self, request: Request<Bytes>) -> Result<Response<Incoming>, Failure> {
        let mut request = request.map(Full::new);
        match &mut self.sender {
            Sender::Http1(sender) => {
                if !request.headers().contains_key("host") {
                    let host = self.authority.parse().unwrap();
                    request.headers_mut().insert("host", host);
                }
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                let path = request.uri().path_and_query().unwrap().clone();
                let uri = http::Uri::builder().scheme("http").authority(self.authority.as_str());
                *request.uri_mut() = uri.path_and_query(path).build().unwrap();
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
        }
    }

    /// Asks for a path over this connection.
    pub async fn path(&mut self, path: &str) -> Reply {
        self.send(get(path)).await.unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    /// Asks for a URL over a connection of its own.
    pub async fn get(url: &str) -> Reply {
        Self::try_get(url).await.unwrap_or_else(|error| panic!("{url}: {error:?}"))
    }

    /// The same, where it may fail.
    pub async fn try_get(url: &str) -> Result<Reply, Failure> {
        let (_, path) = split(url);
        Self::http1(url).await?.send(get(path)).await
    }

    /// Asks for a URL with header fields.
    pub async fn get_with(url: &str, headers: &[(&str, &str)]) -> Reply {
        Self::request(Method::GET, url, headers, Bytes::new()).await
    }

    /// Sends JSON with PUT, with a bearer token if there is one.
    pub async fn put_json(url: &str, body: &str, token: Option<&str>) -> Reply {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        Self::request(Method::PUT, url, &headers, Bytes::copy_from_slice(body.as_bytes())).await
    }

    /// Sends any request over a connection of its own.
    pub async fn request(
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Reply {
        let reply = Self::try_request(method, url, headers, body).await;
        reply.unwrap_or_else(|error| panic!("{url}: {error:?}"))
    }

    /// The same, where it may fail.
    pub async fn try_request(
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, Failure> {
        let (_, path) = split(url);
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        Self::http1(url).await?.send(request).await
    }
}

/// A GET for a path.
pub fn get(path: &str) -> Request<Bytes> {
    Request::get(path).body(Bytes::new()).unwrap()
}

/// The value of a metric of the node that listens there, summed over its labels.
pub async fn metric(listener: &str, name: &str) -> f64 {
    let reply = Client::get(&format!("{listener}/metrics")).await;
    let lines = reply
        .text()
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Splits `http://host:port/path` into authority and path.
fn split(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("{url} is no http URL"));
    match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    }
}

async fn connect(authority: &str) -> Result<TokioIo<TcpStream>, Failure> {
    let stream = timeout(EXCHANGE_PATIENCE, TcpStream::connect(authority)).await??;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}
