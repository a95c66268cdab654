//! Listeners, permits, protocol detection, limits in time, drain.
//!
//! A permit is taken before a connection is accepted: what exceeds `accept.max_connections` waits
//! in the kernel's backlog. HTTP/1.1 and HTTP/2 with prior knowledge share one port: the first
//! bytes tell which it is (RFC 9113 §3.3). TLS will stand between `accept` and `converse`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use meridian_config::edge::Accept;
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::body::Body;
use crate::clock::SharedClock;
use crate::connection::{Connection, Load, Overdue, Patience};
use crate::error::RunError;
use crate::framing::Follows;
use crate::pace::LeastRate;
use crate::watched::Watched;
use crate::world::{Taken, TcpListener, TcpStream};

/// What HTTP/2 clients with prior knowledge say first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often connections are looked at; a limit is exceeded by no more than this.
const SWEEP: Duration = Duration::from_millis(500);
/// Bytes of one HTTP/2 stream that are buffered before the client takes them.
const SEND_BUFFER: usize = 64 * 1024;

/// Opens a listener that shares its port with those of the other cores.
///
/// # Errors
/// When the address cannot be bound.
pub(crate) fn listen(address: SocketAddr) -> Result<Taken, RunError> {
    Taken::at(address).map_err(|source| RunError::Listen { address, source })
}

/// Answers the requests of one connection.
pub(crate) trait Handler: Clone + Send + Sync + 'static {
    /// The answer.
    type Answer: Future<Output = Response<Body>> + Send + Unpin + 'static;

    /// Begins to answer `request`, which came over `connection` from `peer`.
    fn answer(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
        peer: SocketAddr,
    ) -> Self::Answer;

    /// A limit was exceeded, for the count.
    fn overdue(&self, _limit: Overdue) {}
    /// A connection was opened (`1`) or closed (`-1`), for the count.
    fn connections(&self, _change: i64) {}
}

/// What the connections of one listener may cost, and who answers them.
pub(crate) struct Listener<H> {
    pub(crate) limits: Accept,
    /// Shared by all listeners of the node.
    pub(crate) permits: Arc<Semaphore>,
    /// How long a request may be in flight without a byte: longer than any upstream takes.
    pub(crate) silence: Duration,
    pub(crate) clock: SharedClock,
    pub(crate) load: Arc<Load>,
    pub(crate) handler: H,
}

type Open = Arc<Mutex<HashMap<u64, Arc<Connection>>>>;

impl<H: Handler> Listener<H> {
    /// Accepts until `stop`, then drains: connections end after the request that they are on,
    /// and what still runs after `drain_timeout` is cut.
    pub(crate) async fn run(self, socket: Taken, stop: CancellationToken) -> io::Result<()> {
        let socket = socket.open().await?;
        let open: Open = Arc::default();
        let mut tasks = JoinSet::new();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0_u64;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = sweep.tick() => self.sweep(&open),
                Some(_) = tasks.join_next() => {}
                accepted = accept(&socket, &self.permits) => match accepted {
                    Ok((stream, peer, permit)) => {
                        number += 1;
                        let task = self.conversation(stream, peer, permit, number, &open, stop.clone());
                        tasks.spawn(task);
                    }
                    Err(error) => absorb(&error).await,
                },
            }
        }
        drop(socket);
        for connection in lock(&open).values() {
            connection.end_in_order();
        }
        let drained = timeout(self.limits.drain_timeout.get(), async {
            while tasks.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            warn!(connections = tasks.len(), "cut connections that did not end in time");
            tasks.shutdown().await;
        }
        Ok(())
    }

    fn sweep(&self, open: &Open) {
        let now = self.clock.now().mono;
        let patience = Patience {
            head: self.limits.head_timeout.get(),
            idle: self.limits.idle_timeout.get(),
            send: self.limits.send_timeout.get(),
            silence: self.silence,
            least_rate: LeastRate {
                bytes: self.limits.least_rate.get(),
                grace: self.limits.rate_grace.get(),
            },
        };
        for connection in lock(open).values() {
            if let Some(limit) = connection.overdue(&patience, now) {
                if limit == Overdue::Idle && connection.says_farewell() {
                    continue;
                }
                self.handler.overdue(limit);
                connection.cut.notify_one();
            }
        }
    }

    /// One connection, from its first byte to its end.
    fn conversation(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        number: u64,
        open: &Open,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let connection = Connection::new(
            Arc::clone(&self.clock),
            Arc::clone(&self.load),
            self.limits.max_requests.get(),
        );
        lock(open).insert(number, Arc::clone(&connection));
        let entry = Entry { open: Arc::clone(open), number, handler: self.handler.clone() };
        self.handler.connections(1);
        let limits = self.limits.clone();
        async move {
            let service = Answering {
                handler: entry.handler.clone(),
                connection: Arc::clone(&connection),
                peer,
            };
            tokio::select! {
                () = connection.cut.notified() => {}
                () = async {
                    converse(stream, &limits, &connection, service).await;
                    if let Some(tunnel) = connection.become_tunnel() {
                        tunnel.run(&stop).await;
                    }
                } => {}
            }
            drop((entry, permit));
        }
    }
}

/// A connection's place in the list of open ones.
struct Entry<H: Handler> {
    open: Open,
    number: u64,
    handler: H,
}

impl<H: Handler> Drop for Entry<H> {
    fn drop(&mut self) {
        lock(&self.open).remove(&self.number);
        self.handler.connections(-1);
    }
}

fn lock(open: &Open) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Dropping it before it is ready loses nothing: the permit goes back, the kernel keeps the rest.
async fn accept(
    socket: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = socket.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

/// A failed accept is the client's or the kernel's business; only a lack of files needs a pause.
async fn absorb(error: &io::Error) {
    let of_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    );
    if !of_client {
        warn!(%error, "cannot accept a connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Finds out the protocol and serves the connection to its end.
async fn converse<H: Handler>(
    mut stream: TcpStream,
    limits: &Accept,
    connection: &Arc<Connection>,
    service: Answering<H>,
) {
    let detected = tokio::select! {
        biased; // a request that is there already is answered
        detected = detect(&mut stream, connection) => detected,
        // Nothing that was asked is lost: the first byte of a request tells its protocol.
        () = connection.retire.notified() => return,
    };
    let (ahead, is_http2) = match detected {
        Ok(found) => found,
        Err(error) => {
            debug!(%error, "the client left before it said anything");
            return;
        }
    };
    if is_http2 {
        connection.speaks_http2();
    }
    let io = TokioIo::new(Watched::new(stream, ahead, Arc::clone(connection)));
    let ended = if is_http2 {
        let mut builder = http2::Builder::new(Spawn);
        builder
            .max_concurrent_streams(limits.max_streams.get())
            .max_header_list_size(u32::try_from(limits.head_size.get()).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER)
            .max_frame_size(64 * 1024);
        let mut serving = pin!(builder.serve_connection(io, service));
        tokio::select! {
            ended = serving.as_mut() => ended,
            () = connection.retire.notified() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    } else {
        let mut builder = http1::Builder::new();
        builder
            .max_headers(usize::from(limits.head_fields.get()))
            .max_header_size(limits.head_size.to_usize())
            .max_buf_size(limits.head_size.to_usize().max(64 * 1024));
        let mut serving = pin!(builder.serve_connection(io, service).with_upgrades());
        tokio::select! {
            ended = serving.as_mut() => ended,
            () = connection.retire.notified() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "the connection ended early");
    }
}

/// Reads as much as it takes to tell HTTP/2 from HTTP/1. The sweep bounds its time.
async fn detect(stream: &mut TcpStream, connection: &Arc<Connection>) -> io::Result<(Bytes, bool)> {
    let mut first = BytesMut::with_capacity(2048);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        connection.read_some(true);
        let n = first.len().min(PREFACE.len());
        let same = first.get(..n) == PREFACE.get(..n);
        if !same || n == PREFACE.len() {
            return Ok((first.freeze(), same));
        }
    }
}

/// A handler together with the connection that it serves.
struct Answering<H> {
    handler: H,
    connection: Arc<Connection>,
    peer: SocketAddr,
}

impl<H: Handler> Service<Request<Incoming>> for Answering<H> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Sure<H::Answer>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if request.version() < Version::HTTP_2 {
            self.connection.is_followed_by(follows(&request));
        }
        Sure(self.handler.answer(request, &self.connection, self.peer))
    }
}

/// What follows the head of a request: the library has decided it, and nobody else does.
fn follows(request: &Request<Incoming>) -> Follows {
    match request.body().size_hint().exact() {
        Some(0) => Follows::Nothing,
        Some(length) => Follows::Length(length),
        None => Follows::Chunks,
    }
}

/// A future that cannot fail, as hyper wants it told.
struct Sure<F>(F);

impl<F: Future + Unpin> Future for Sure<F> {
    type Output = Result<F::Output, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(Ok)
    }
}

/// Spawns what HTTP/2 needs beside its connection.
#[derive(Clone, Copy)]
struct Spawn;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    #[expect(
        clippy::disallowed_methods,
        reason = "hyper ends these with their connection, which a JoinSet owns"
    )]
    fn execute(&self, task: F) {
        drop(tokio::spawn(task));
    }
}
