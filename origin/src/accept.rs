//! From a listener to requests: permits, protocol detection, deadlines, drain.
//!
//! # Invariants
//! - A permit is taken before a connection is accepted; the rest waits in the backlog.
//! - Every connection is a task that `accept` joins, every HTTP/2 stream one that ends with it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use meridian_config::origin::Limits;
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::connection::{Connection, Framing, Overdue, Patience, Socket};
use crate::error::RunError;
use crate::metrics::Metrics;

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 1_024;
/// How long to wait after an accept failed, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What an HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Header fields of a request: twice what an edge lets in, since it adds its own.
const MAX_FIELDS: usize = 256;
/// The part of an HTTP/2 response that waits for the socket: one chunk of a body.
const SEND_BUFFER: usize = 64 << 10;

/// Who answers requests.
pub(crate) trait Serve: Send + Sync + 'static {
    /// Answers one request. Dropped if the client leaves.
    fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Opens a listener for the configuration key `key`.
pub(crate) fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    let open = || -> io::Result<TcpListener> {
        let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = RawSocket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?; // whoever reserves the port for a restart holds it too
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| RunError::Listen { key, address, source })
}

/// One listener and who answers on it.
pub(crate) struct Acceptor<S> {
    pub(crate) listener: TcpListener,
    pub(crate) service: Arc<S>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
}

impl<S: Serve> Acceptor<S> {
    /// Serves until `stop`, then drains, and cuts what exceeds `drain_timeout`.
    pub(crate) async fn accept(self, stop: CancellationToken) {
        let Self { listener, service, limits, metrics } = self;
        let permits =
            Arc::new(Semaphore::new(usize::try_from(limits.max_connections.get()).unwrap_or(1)));
        let drain_timeout = limits.drain_timeout.get();
        let each = Arc::new(Each { service, limits, metrics, stop: stop.clone() });
        let mut connections = JoinSet::new();
        while let Some(accepted) = stop
            .run_until_cancelled(async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (listener.accept().await, permit)
            })
            .await
        {
            while let Some(ended) = connections.try_join_next() {
                report(ended);
            }
            match accepted {
                (Ok((stream, _)), Ok(permit)) => {
                    let each = Arc::clone(&each);
                    connections.spawn(async move {
                        each.serve(stream).await;
                        drop(permit);
                    });
                }
                (Ok(_), Err(_closed)) => break, // never: nobody closes the permits
                (Err(error), _) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        let drained = timeout(drain_timeout, async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        });
        if drained.await.is_err() {
            tracing::warn!(connections = connections.len(), "cut what exceeds drain_timeout");
            connections.shutdown().await;
        }
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended by a defect of this program");
    }
}

/// What every connection of a listener needs.
struct Each<S> {
    service: Arc<S>,
    limits: Limits,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl<S: Serve> Each<S> {
    async fn serve(&self, mut stream: TcpStream) {
        let _open = self.metrics.connection();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the connection ended before it was served");
            return;
        }
        let patience = Patience {
            head: self.limits.head_timeout.get(),
            idle: self.limits.idle_timeout.get(),
            send: self.limits.send_timeout.get(),
        };
        let detected = self.stop.run_until_cancelled(detect(&mut stream, &patience)).await;
        match detected {
            None | Some(Ok(None)) => {}
            Some(Ok(Some((framing, ahead)))) => self.speak(stream, framing, ahead, patience).await,
            Some(Err(Slow(limit))) => self.metrics.overdue(limit),
        }
    }

    async fn speak(&self, stream: TcpStream, framing: Framing, ahead: Bytes, patience: Patience) {
        let connection = Connection::new(framing);
        let socket = TokioIo::new(Socket::new(stream, ahead, Arc::clone(&connection)));
        let service = service_fn(|request| {
            let answer = Arc::clone(&self.service).serve(request, Arc::clone(&connection));
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let head_size = self.limits.head_size;
        match framing {
            Framing::Serial => {
                let mut builder = http1::Builder::new();
                builder
                    .timer(TokioTimer::new())
                    .header_read_timeout(None) // it would count idle time; `overdue` does not
                    .max_headers(MAX_FIELDS)
                    .max_header_size(head_size.to_usize())
                    .max_buf_size(head_size.to_usize()); // of what is read, and of what is sent
                let serving = builder.serve_connection(socket, service);
                self.drive(serving, &connection, &patience).await;
            }
            Framing::Multiplexed => {
                let streams = Arc::new(Mutex::new(JoinSet::new()));
                let mut builder = http2::Builder::new(Streams(Arc::downgrade(&streams)));
                builder
                    .timer(TokioTimer::new())
                    .max_header_list_size(u32::try_from(head_size.get()).unwrap_or(u32::MAX))
                    .max_concurrent_streams(self.limits.max_streams.get())
                    .max_send_buf_size(SEND_BUFFER);
                let serving = builder.serve_connection(socket, service);
                self.drive(serving, &connection, &patience).await;
            }
        }
    }

    /// Polls a connection to its end: its own, a deadline's, a fault's, or the drain's.
    async fn drive(&self, serving: impl Graceful, connection: &Connection, patience: &Patience) {
        let mut serving = pin!(serving);
        let mut ends_in_order = false;
        loop {
            tokio::select! {
                biased;
                () = connection.is_cut() => return,
                ended = serving.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !ends_in_order => {
                    ends_in_order = true;
                    serving.as_mut().end_in_order();
                }
                () = connection.has_to_look() => {}
                limit = connection.overdue(patience) => {
                    self.metrics.overdue(limit);
                    if limit != Overdue::Idle || ends_in_order {
                        return;
                    }
                    ends_in_order = true;
                    serving.as_mut().end_in_order();
                }
            }
        }
    }
}

/// A limit was exceeded before there was a protocol.
struct Slow(Overdue);

/// Reads until it is clear which protocol the client speaks; `None` if it leaves before.
async fn detect(
    stream: &mut TcpStream,
    patience: &Patience,
) -> Result<Option<(Framing, Bytes)>, Slow> {
    let mut ahead = BytesMut::with_capacity(4_096);
    match timeout(patience.idle, stream.read_buf(&mut ahead)).await {
        Err(_elapsed) => return Err(Slow(Overdue::Idle)),
        Ok(Ok(0) | Err(_)) => return Ok(None),
        Ok(Ok(_)) => {}
    }
    let rest = timeout(patience.head, async {
        loop {
            let told = ahead.len().min(PREFACE.len());
            if ahead.get(..told) != PREFACE.get(..told) {
                return Some(Framing::Serial);
            }
            if told == PREFACE.len() {
                return Some(Framing::Multiplexed);
            }
            if !matches!(stream.read_buf(&mut ahead).await, Ok(1..)) {
                return None;
            }
        }
    });
    match rest.await {
        Err(_elapsed) => Err(Slow(Overdue::Head)),
        Ok(framing) => Ok(framing.map(|framing| (framing, ahead.freeze()))),
    }
}

/// A connection of hyper's, of either protocol, that can be asked to end after what is in flight.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn end_in_order(self: Pin<&mut Self>);
}

impl<S> Graceful for http1::Connection<TokioIo<Socket>, S>
where
    S: HttpService<Incoming, ResBody = Body, Error = Infallible>,
{
    fn end_in_order(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Graceful for http2::Connection<TokioIo<Socket>, S, Streams>
where
    S: HttpService<Incoming, ResBody = Body, Error = Infallible>,
    S::Future: Send + 'static,
{
    fn end_in_order(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Where the streams of one HTTP/2 connection run. The set is the connection's: it ends them.
#[derive(Debug, Clone)]
struct Streams(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let Some(streams) = self.0.upgrade() else { return };
        let mut streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = streams.try_join_next() {
            report(ended);
        }
        streams.spawn(stream);
    }
}
