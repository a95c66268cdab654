//! The links over HTTP/1.1: `GET /v1/links`, `POST /v1/links`, `GET /healthz`.
//!
//! # Invariants
//! - Whatever changes a link needs a token of the scope `operate`; looking needs none: the
//!   listener is on the loopback address.
//! - Connections, heads, bodies and their time are bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::order::Order;
use crate::problem::{Code, Problem, told};
use crate::table::Table;
use crate::tokens::Tokens;

/// Connections at once: a person, some scripts, a dashboard.
const MOST_CONNECTIONS: usize = 64;

/// From the first byte of a head to its end, and as long again for a body.
const PATIENCE: Duration = Duration::from_secs(10);

/// An order is a line of JSON.
const LARGEST_BODY: usize = 16 << 10;

/// After an accept that failed, before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the API answers from.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) table: Arc<Table>,
    pub(crate) tokens: Tokens,
}

/// Answers at `listener` until it is dropped.
pub(crate) async fn serve(api: Arc<Api>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let api = Arc::clone(&api);
                connections.spawn(async move {
                    speak(api, stream).await;
                    drop(permit);
                });
            }
            Err(_refused) => sleep_until(Instant::now() + ACCEPT_PAUSE).await,
        }
    }
}

async fn speak(api: Arc<Api>, stream: TcpStream) {
    let service = service_fn(|request| {
        let api = Arc::clone(&api);
        async move {
            let answer = api.answer(request).await;
            Ok::<_, Infallible>(answer.unwrap_or_else(|problem| problem.response()))
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    drop(serving.await); // a client that breaks off has only itself to tell
}

impl Api {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Problem> {
        let (path, method) = (request.uri().path().to_owned(), request.method().clone());
        match (&*path, &method) {
            ("/healthz", &(Method::GET | Method::HEAD)) => Ok(told("text/plain", "ok\n")),
            ("/v1/links", &(Method::GET | Method::HEAD)) => json(&self.table.view()),
            ("/v1/links", &Method::POST) => self.change(request).await,
            ("/healthz", _) => Err(not_allowed(&method, "GET, HEAD")),
            ("/v1/links", _) => Err(not_allowed(&method, "GET, HEAD, POST")),
            _ => Err(Problem::new(Code::NotFound, format!("there is nothing at {path}"))),
        }
    }

    async fn change(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Problem> {
        self.tokens.authorize(request.headers())?;
        let body = read(request).await?;
        let order: Order = serde_json::from_slice(&body)
            .map_err(|error| Problem::new(Code::BadRequest, format!("the order: {error}")))?;
        json(&self.table.obey(&order).await?)
    }
}

async fn read(request: Request<Incoming>) -> Result<Bytes, Problem> {
    let body = Limited::new(request.into_body(), LARGEST_BODY);
    match timeout(PATIENCE, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the order is larger than {LARGEST_BODY} bytes");
            Err(Problem::new(Code::TooLarge, detail))
        }
        Ok(Err(error)) => {
            Err(Problem::new(Code::BadRequest, format!("the order cannot be read: {error}")))
        }
        Err(_elapsed) => {
            let detail = format!("the order did not arrive within {PATIENCE:?}");
            Err(Problem::new(Code::RequestTimeout, detail))
        }
    }
}

fn not_allowed(method: &Method, allowed: &'static str) -> Problem {
    let detail = format!("{method} is not offered here; {allowed} are");
    Problem::new(Code::MethodNotAllowed(allowed), detail)
}

fn json(value: &impl serde::Serialize) -> Result<Response<Full<Bytes>>, Problem> {
    let text = serde_json::to_vec(value)
        .map_err(|error| Problem::new(Code::Internal, format!("cannot be written: {error}")))?;
    Ok(told("application/json", text))
}
