//! One request to one origin server, until the head of its answer: over a connection that is
//! kept, or over a new one, within the deadline.

use std::error::Error as _;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;

use crate::error::{BodyError, FetchError};
use crate::request_body::RequestBody;
use crate::upstream::Upstream;
use crate::upstream::bulkhead::Place;
use crate::upstream::deadline::Deadline;
use crate::upstream::pool::kept_for;
use crate::upstream::repeat::{again, is_repeatable};
use crate::world::TcpStream;

/// The most header fields that an answer may have.
const MAX_FIELDS: usize = 256;
/// The largest head of an answer.
const MAX_HEAD: usize = 64 * 1024;

/// A connection in use, with its place at the bulkhead.
#[derive(Debug)]
pub(crate) struct Lease {
    upstream: Arc<Upstream>,
    core: usize,
    sender: SendRequest<RequestBody>,
    /// How long the origin keeps the connection, as far as it says.
    kept: Option<Duration>,
    /// What follows the answer on the connection is not to be trusted.
    is_last: bool,
    _place: Place,
}

impl Lease {
    /// The exchange has ended well: the connection may carry another.
    pub(crate) fn give_back(self) {
        if self.is_last {
            return;
        }
        let now = self.upstream.clock.now().mono;
        let kept = self.kept.unwrap_or(Duration::MAX);
        self.upstream.pools.put(self.core, self.sender, kept, now);
    }

    /// The connection carries no further exchange.
    pub(crate) fn is_last(&mut self) {
        self.is_last = true;
    }

    /// The body has not come to its end: neither is the connection of use any more.
    pub(crate) fn broke_off(self, source: BodyError) {
        let upstream = self.upstream.name.clone();
        self.upstream.failed(&FetchError::HttpResponseIncomplete { upstream, source });
    }

    /// Body bytes came in.
    pub(crate) fn count_bytes(&self, n: u64) {
        self.upstream.counters.body_bytes.fetch_add(n, Ordering::Relaxed);
    }
}

/// No usable answer.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: FetchError,
    /// The request's body, where nothing of it was sent.
    pub(crate) unsent: Option<RequestBody>,
}

impl From<FetchError> for Failed {
    fn from(error: FetchError) -> Self {
        Self { error, unsent: None }
    }
}

/// One request to `upstream`, until the head of its answer.
///
/// A connection from the pool may have died unseen: if it took nothing of the request, or if the
/// request may be sent twice, the request goes out again over a new one. That is no retry: the
/// origin has not failed, it closed a connection that was idle (RFC 9112 §9.3.1). Everything waits at
/// most for its own limit and the deadline.
pub(crate) async fn exchange(
    upstream: &Arc<Upstream>,
    core: usize,
    place: Place,
    mut request: Request<RequestBody>,
    deadline: Deadline,
    tasks: &TaskTracker,
) -> Result<(Response<Incoming>, Lease), Failed> {
    upstream.counters.requests.fetch_add(1, Ordering::Relaxed);
    let now = upstream.clock.now().mono;
    let mut kept = upstream.pools.take(core, now);
    loop {
        let (mut sender, is_reused) = match kept.take() {
            Some(sender) => (sender, true),
            None => match connect(upstream, deadline, tasks).await {
                Ok(sender) => (sender, false),
                Err(error) => return Err(Failed { error, unsent: Some(request.into_body()) }),
            },
        };
        let may_repeat = is_reused && is_repeatable(request.method(), request.headers());
        let repeated = if may_repeat { again(&request) } else { None };
        match answer(upstream, &mut sender, request, deadline).await {
            Ok(Ok(response)) => {
                let upstream = Arc::clone(upstream);
                let kept = kept_for(response.headers());
                let is_last = false;
                let lease = Lease { upstream, core, sender, kept, is_last, _place: place };
                return Ok((response, lease));
            }
            Ok(Err(mut failed)) => match failed.take_message() {
                Some(unsent) if is_reused => request = unsent,
                Some(_) | None => match repeated {
                    Some(again) => {
                        upstream.guard.counters.replayed.fetch_add(1, Ordering::Relaxed);
                        upstream.counters.requests.fetch_add(1, Ordering::Relaxed);
                        request = again;
                    }
                    None => return Err(broken(upstream, failed.into_error()).into()),
                },
            },
            Err(limit) => {
                let upstream = upstream.name.clone();
                return Err(FetchError::HttpResponseTimeout { upstream, limit }.into());
            }
        }
    }
}

/// Sends `request` and waits for the head of the answer, which is due from the end of the request
/// on: how long a client takes to upload is not the origin's fault, and `[accept]` bounds it.
async fn answer(
    upstream: &Upstream,
    sender: &mut SendRequest<RequestBody>,
    request: Request<RequestBody>,
    mut deadline: Deadline,
) -> Result<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>, Duration> {
    let sent = request.body().sent();
    let mut answer = pin!(sender.try_send_request(request));
    if let Some(sent) = sent {
        tokio::select! {
            answer = answer.as_mut() => return Ok(answer),
            () = sent.cancelled() => {}
        }
        deadline = Deadline::after(upstream.clock.now().mono, upstream.limits.total);
    }
    let now = upstream.clock.now().mono;
    deadline.bound(now, upstream.guard.first_byte(now), answer).await
}

/// Why a request that was on its way came to nothing: the client's own body may have failed.
fn broken(upstream: &Upstream, source: hyper::Error) -> FetchError {
    match source.source().and_then(|cause| cause.downcast_ref::<BodyError>()) {
        Some(BodyError::TooLarge(limit)) => FetchError::RequestTooLarge { limit: *limit },
        Some(_) => FetchError::HttpRequestError { reason: "its body broke off" },
        None => FetchError::ConnectionTerminated { upstream: upstream.name.clone(), source },
    }
}

/// A connection of its own, within its limit and the deadline.
pub(crate) async fn connect(
    upstream: &Arc<Upstream>,
    deadline: Deadline,
    tasks: &TaskTracker,
) -> Result<SendRequest<RequestBody>, FetchError> {
    let name = || upstream.name.clone();
    let now = upstream.clock.now().mono;
    let connecting = async {
        let stream = TcpStream::connect(upstream.address.as_str()).await?;
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>(stream)
    };
    let stream = match deadline.bound(now, upstream.limits.connect, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(source)) if is_of_name(&source) => {
            return Err(FetchError::DnsError { upstream: name(), source });
        }
        Ok(Err(source)) => return Err(FetchError::ConnectionRefused { upstream: name(), source }),
        Err(limit) => return Err(FetchError::ConnectionTimeout { upstream: name(), limit }),
    };
    upstream.counters.connections.fetch_add(1, Ordering::Relaxed);
    let (sender, driver) = Builder::new()
        .max_headers(MAX_FIELDS)
        .max_header_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|source| FetchError::ConnectionTerminated { upstream: name(), source })?;
    tasks.spawn(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "an upstream connection ended early");
        }
    });
    Ok(sender)
}

/// A look-up that failed carries no code of the operating system.
fn is_of_name(error: &io::Error) -> bool {
    error.raw_os_error().is_none() && error.kind() != io::ErrorKind::TimedOut
}
