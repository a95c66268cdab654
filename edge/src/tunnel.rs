//! A connection that has become a tunnel for another protocol (RFC 9110 §7.8): what a client may
//! ask for, and the bytes in both directions until the end.
//!
//! A tunnel begins with a 101 of the origin to a request that asked for one of the site's
//! protocols, and runs in the task of the client's connection, whose place it keeps, with its place
//! at the origin. It ends with either side, after `accept.tunnel_idle_timeout` without a byte, or
//! when the edge drains: a tunnel may last for ever, and a drain may not. No purge touches it.
//!
//! Not here: tunnels by `CONNECT`, which would lead where the client says; and WebSocket over
//! HTTP/2 (RFC 8441), which hyper does not offer before it is switched on.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::upstream::exchange::Lease;

/// How often within its idle time a tunnel is looked at.
const LOOKS: u32 = 4;

/// All tunnels of an edge: how many there may be, how many there are, what went through.
#[derive(Debug)]
pub(crate) struct Tunnels {
    places: Arc<Semaphore>,
    limit: usize,
    idle: Duration,
    /// From clients, and to them.
    pub(crate) bytes: [AtomicU64; 2],
}

impl Tunnels {
    pub(crate) fn new(limit: u32, idle: Duration) -> Arc<Self> {
        let limit = limit as usize;
        let places = Arc::new(Semaphore::new(limit));
        Arc::new(Self { places, limit, idle, bytes: Default::default() })
    }

    /// A place for one more.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Places that are taken: tunnels, and requests for one.
    pub(crate) fn taken(&self) -> u64 {
        self.limit.saturating_sub(self.places.available_permits()) as u64
    }
}

/// Which of a site's protocols this request asks to change to, if any.
pub(crate) fn wanted<'s>(offered: &'s [String], request: &Request<Incoming>) -> Option<&'s str> {
    let asks = *request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && names(request.headers(), &header::CONNECTION).any(|o| o.eq_ignore_ascii_case("upgrade"));
    // In the client's order of preference.
    asks.then(|| {
        names(request.headers(), &header::UPGRADE)
            .find_map(|name| offered.iter().find(|offer| offer.eq_ignore_ascii_case(name)))
    })
    .flatten()
    .map(String::as_str)
}

/// Whether an answer says that the connection speaks `protocol` from now on.
pub(crate) fn is_to(answer: &HeaderMap, protocol: &str) -> bool {
    let mut told = names(answer, &header::UPGRADE);
    told.next().is_some_and(|name| name.eq_ignore_ascii_case(protocol)) && told.next().is_none()
}

fn names<'h>(
    headers: &'h HeaderMap,
    name: &header::HeaderName,
) -> impl Iterator<Item = &'h str> + use<'h> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The origin's end of a tunnel, on its way to the client's with the head of the 101.
#[derive(Clone)]
pub(crate) struct Far(Arc<Mutex<Option<(OnUpgrade, Lease)>>>);

impl Far {
    pub(crate) fn new(upgrade: OnUpgrade, lease: Lease) -> Self {
        Self(Arc::new(Mutex::new(Some((upgrade, lease)))))
    }

    /// A tunnel from the client's end to this one.
    pub(crate) fn tunnel(
        &self,
        near: OnUpgrade,
        place: OwnedSemaphorePermit,
        tunnels: &Arc<Tunnels>,
    ) -> Option<Tunnel> {
        let (far, lease) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let ends = Ends { near, far, _lease: lease, _place: place, tunnels: Arc::clone(tunnels) };
        Some(Tunnel(Arc::new(Mutex::new(Some(ends)))))
    }
}

/// A tunnel that begins once its 101 is sent. It travels with that answer to its connection.
#[derive(Clone)]
pub(crate) struct Tunnel(Arc<Mutex<Option<Ends>>>);

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

struct Ends {
    near: OnUpgrade,
    far: OnUpgrade,
    _lease: Lease,
    _place: OwnedSemaphorePermit,
    tunnels: Arc<Tunnels>,
}

impl Tunnel {
    /// Carries bytes both ways until the end.
    pub(crate) async fn run(self, stop: &CancellationToken) {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Ends { near, far, _lease, _place, tunnels }) = ends else { return };
        tokio::select! {
            () = stop.cancelled() => {}
            () = carry(near, far, &tunnels) => {}
        }
    }
}

async fn carry(near: OnUpgrade, far: OnUpgrade, tunnels: &Tunnels) {
    let (near, far) = match tokio::try_join!(near, far) {
        Ok(both) => both,
        Err(error) => return debug!(%error, "a tunnel did not begin"),
    };
    let [up, down] = &tunnels.bytes;
    let moved = AtomicU64::new(0);
    let mut near = Counted { io: TokioIo::new(near), total: up, moved: &moved };
    let mut far = Counted { io: TokioIo::new(far), total: down, moved: &moved };
    tokio::select! {
        ended = copy_bidirectional(&mut near, &mut far) => {
            if let Err(error) = ended {
                debug!(%error, "a tunnel broke");
            }
        }
        () = silence(&moved, tunnels.idle) => debug!("a tunnel was idle for too long"),
    }
}

/// Ready once nothing has moved for `idle`, and at most a quarter of it later.
async fn silence(moved: &AtomicU64, idle: Duration) {
    let (mut before, mut silent) = (0, 0);
    while silent <= LOOKS {
        sleep(idle / LOOKS).await;
        let now = moved.load(Ordering::Relaxed);
        silent = if now == before { silent + 1 } else { 0 };
        before = now;
    }
}

/// One end, with what is read from it counted.
struct Counted<'c> {
    io: TokioIo<Upgraded>,
    total: &'c AtomicU64,
    moved: &'c AtomicU64,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, into);
        let n = (into.filled().len() - before) as u64;
        self.total.fetch_add(n, Ordering::Relaxed);
        self.moved.fetch_add(n, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
