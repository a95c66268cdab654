//! Listeners: accept, tell HTTP/1.1 from HTTP/2, bound everything, drain.
//!
//! Answers nothing itself: an [`Answers`] does. TLS has its place in `connection`, between the
//! accepted socket and the detection of the protocol.
//!
//! # Invariants
//! - A permit is taken before a connection is accepted: what is beyond `max_connections` waits in
//!   the backlog of the listener and costs nothing.
//! - No connection stays that does nothing: `head_timeout` bounds the detection of the protocol,
//!   an unfinished head, an idle connection and a client that takes no byte of its answer.
//! - When [`serve`] returns, no task of it is left.

mod detect;
mod socket;

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use hyper_util::server::graceful::GracefulConnection;
use meridian_config::control::Limits;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::Answer;
use crate::server::detect::{Protocol, detect};
use crate::world::{TcpListener, TcpStream};

/// Streams of one HTTP/2 connection; RFC 9113 §6.5.2 advises no less than 100.
const MAX_STREAMS: u32 = 128;

/// Header fields of a request; browsers send about 20.
const MAX_FIELDS: usize = 128;

/// How long to wait after an accept that failed: most likely no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whoever answers requests.
pub(crate) trait Answers: Clone + Send + Sync + 'static {
    /// The answer to `request` from a client at `from`. Must bound its own time.
    fn answer(
        self,
        request: Request<Incoming>,
        from: IpAddr,
    ) -> impl Future<Output = Answer> + Send + 'static;
}

/// Serves until `stop`, then closes the listener, lets what is in flight end, and cuts what
/// exceeds `drain_timeout`.
pub(crate) async fn serve(
    listener: TcpListener,
    limits: &Limits,
    service: impl Answers,
    stop: CancellationToken,
) {
    let places = usize::try_from(limits.max_connections.get()).unwrap_or(usize::MAX);
    let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
    let tasks = Tasks { tracker: TaskTracker::new(), cut: CancellationToken::new() };
    let bounds =
        Bounds { head_size: limits.head_size.to_usize(), patience: limits.head_timeout.get() };
    while let Some(Ok(place)) = stop.run_until_cancelled(Arc::clone(&places).acquire_owned()).await
    {
        // Dropping an unfinished accept loses nothing: the connection stays in the backlog.
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { break };
        match accepted {
            Ok((stream, from)) => {
                let from = from.ip().to_canonical();
                let life =
                    connection(stream, from, bounds, service.clone(), tasks.clone(), stop.clone());
                tasks.execute(async move {
                    life.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.end(limits.drain_timeout.get()).await;
}

/// What one connection may cost.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    head_size: usize,
    patience: Duration,
}

/// The tasks of a listener: connections, and the streams of HTTP/2.
#[derive(Debug, Clone)]
struct Tasks {
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl Tasks {
    async fn end(&self, drain_timeout: Duration) {
        self.tracker.close();
        if tokio::time::timeout(drain_timeout, self.tracker.wait()).await.is_err() {
            tracing::warn!(cut = self.tracker.len(), "some requests did not end in time");
            self.cut.cancel();
            self.tracker.wait().await;
        }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.tracker.spawn(self.cut.clone().run_until_cancelled_owned(task));
    }
}

/// One connection, from its first byte to its end.
async fn connection(
    stream: TcpStream,
    from: IpAddr,
    bounds: Bounds,
    service: impl Answers,
    tasks: Tasks,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the client has left already");
        return;
    }
    // No request is lost when `stop` wins: none has arrived whole.
    let detected = tokio::time::timeout(bounds.patience, detect(stream));
    let Some(Ok(Ok((protocol, socket)))) = stop.run_until_cancelled(detected).await else { return };

    let load = Arc::new(Load::default());
    let counted = Arc::clone(&load);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let busy = Busy::of(&counted);
        request.extensions_mut().insert(busy.clone());
        let answer = service.clone().answer(request, from);
        async move {
            let answer = answer.await;
            drop(busy);
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    match protocol {
        Protocol::Http1 => {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(bounds.patience)
                .max_header_size(bounds.head_size)
                .max_headers(MAX_FIELDS);
            drive(builder.serve_connection(socket, service), &load, bounds.patience, &stop).await;
        }
        Protocol::Http2 => {
            let mut builder = http2::Builder::new(tasks);
            builder
                .timer(TokioTimer::new())
                .max_header_list_size(u32::try_from(bounds.head_size).unwrap_or(u32::MAX))
                .max_concurrent_streams(MAX_STREAMS);
            drive(builder.serve_connection(socket, service), &load, bounds.patience, &stop).await;
        }
    }
}

/// Drives a connection to its end; asks it to end when the node stops or nothing happens on it.
async fn drive<C: GracefulConnection<Error: std::fmt::Display>>(
    connection: C,
    load: &Load,
    patience: Duration,
    stop: &CancellationToken,
) {
    let mut connection = pin!(connection);
    let asked = async {
        tokio::select! {
            () = stop.cancelled() => true,
            () = load.idle(patience) => false,
        }
    };
    let drained = tokio::select! {
        ended = connection.as_mut() => return ended_with(ended),
        drained = asked => drained,
    };
    connection.as_mut().graceful_shutdown();
    if drained {
        ended_with(connection.await); // the listener's drain bounds it
    } else if let Ok(ended) = tokio::time::timeout(patience, connection).await {
        ended_with(ended);
    }
}

fn ended_with<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// What happens on one connection. An answer that is whole when it is made counts until then, so a
/// connection on which nothing happens has either no request, or a client that does not take its
/// answer; one that streams counts until its maker gives up.
#[derive(Debug, Default)]
struct Load {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Load {
    /// Returns when no request began, ran or ended for `patience` and at most twice as long.
    async fn idle(&self, patience: Duration) {
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            let quiet = self.ended.load(Ordering::Relaxed) == begun;
            tokio::time::sleep(patience).await;
            if quiet && self.begun.load(Ordering::Relaxed) == begun {
                return;
            }
        }
    }
}

/// One request in flight, also one whose answer is dropped before it is made. It stands in the
/// extensions of the request: whoever makes an answer while it is sent holds it as long as it does.
#[derive(Debug, Clone)]
pub(crate) struct Busy {
    /// Counts the end when the last clone goes.
    _end: Arc<End>,
}

#[derive(Debug)]
struct End(Arc<Load>);

impl Busy {
    fn of(load: &Arc<Load>) -> Self {
        load.begun.fetch_add(1, Ordering::Relaxed);
        Self { _end: Arc::new(End(Arc::clone(load))) }
    }

    /// One without a connection.
    #[cfg(test)]
    pub(crate) fn alone() -> Self {
        Self::of(&Arc::new(Load::default()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}
