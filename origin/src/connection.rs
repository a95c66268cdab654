//! One connection: what it is doing, since when, and how a request on it can end it.
//!
//! A fault must be able to end the connection under its own response: it asks through
//! [`Connection`], which the connection's task and its [`Socket`] obey.
//!
//! # Invariants
//! - A head is timed from its first byte; a connection is idle only while nothing is in flight.
//! - A connection that is cut after a number of bytes has handed all of them to the kernel.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// What may take how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// From the first byte of a head to its end.
    pub(crate) head: Duration,
    /// Without a request.
    pub(crate) idle: Duration,
    /// Without a byte of a response that is being sent.
    pub(crate) send: Duration,
}

/// Which of them took longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Overdue {
    Head,
    Idle,
    Send,
}

/// How several requests share a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// HTTP/1.1: one after the other, so that what comes between two is the next head.
    Serial,
    /// HTTP/2: interleaved, with frames that belong to no request.
    Multiplexed,
}

/// What a connection is doing, shared by its task, its socket and its requests.
#[derive(Debug)]
pub(crate) struct Connection {
    framing: Framing,
    life: Mutex<Life>,
    /// A head has begun: the deadline is nearer than it was.
    head_began: Notify,
    /// It is to end at once.
    cut: Notify,
    /// Its task has to look again: something waits to be flushed.
    look: Notify,
    reset: AtomicBool,
    cut_when_flushed: AtomicBool,
}

#[derive(Debug)]
struct Life {
    requests: u32,
    sending: u32,
    idle_since: Instant,
    head_since: Option<Instant>,
    wrote: Instant,
    /// Bytes came between two requests: the next head has begun.
    partial_head: bool,
    /// The last request has a body, and perhaps nobody reads it.
    has_body: bool,
}

impl Connection {
    pub(crate) fn new(framing: Framing) -> Arc<Self> {
        let now = Instant::now();
        let life = Life {
            requests: 0,
            sending: 0,
            idle_since: now,
            head_since: None,
            wrote: now,
            partial_head: false,
            has_body: false,
        };
        Arc::new(Self {
            framing,
            life: Mutex::new(life),
            head_began: Notify::new(),
            cut: Notify::new(),
            look: Notify::new(),
            reset: AtomicBool::new(false),
            cut_when_flushed: AtomicBool::new(false),
        })
    }

    /// Counts and instants only: a panic elsewhere leaves nothing half done in it.
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request was read; `has_body` if more of it may follow. In flight until the guard is gone.
    pub(crate) fn begin(self: &Arc<Self>, has_body: bool) -> InFlight {
        let mut life = self.life();
        life.requests += 1;
        life.head_since = None;
        life.partial_head = false;
        life.has_body = has_body;
        InFlight { connection: Arc::clone(self), sending: false }
    }

    /// Ends it at once: nothing that is not yet with the kernel is sent.
    pub(crate) fn drop_now(&self) {
        self.cut.notify_one();
    }

    /// Ends it at once, with RST instead of FIN.
    pub(crate) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
        self.cut.notify_one();
    }

    /// Ends it as soon as everything written so far is with the kernel.
    pub(crate) fn drop_when_flushed(&self) {
        self.cut_when_flushed.store(true, Ordering::Release);
        self.look.notify_one();
    }

    /// Waits until it is to end at once. Cancel safe.
    pub(crate) async fn is_cut(&self) {
        self.cut.notified().await;
    }

    /// Waits until its task has to poll again. Cancel safe.
    pub(crate) async fn has_to_look(&self) {
        self.look.notified().await;
    }

    /// Waits until it exceeds one of `patience`. Cancel safe.
    pub(crate) async fn overdue(&self, patience: &Patience) -> Overdue {
        // What is not announced, such as the start of sending, is noticed this much late at most.
        let glance = patience.head.min(patience.idle).min(patience.send);
        loop {
            let now = Instant::now();
            let look_again = match self.deadline(patience) {
                Some((at, limit)) if at <= now => return limit,
                Some((at, _)) => at.min(now + glance),
                None => now + glance,
            };
            tokio::select! {
                () = sleep_until(look_again) => {}
                () = self.head_began.notified() => {}
            }
        }
    }

    fn deadline(&self, patience: &Patience) -> Option<(Instant, Overdue)> {
        let life = self.life();
        match (life.requests, life.sending, life.head_since) {
            (0, _, Some(since)) => Some((since + patience.head, Overdue::Head)),
            (0, _, None) => Some((life.idle_since + patience.idle, Overdue::Idle)),
            (_, 0, _) => None, // at work, or held by a fault
            (_, _, _) => Some((life.wrote + patience.send, Overdue::Send)),
        }
    }

    fn read_some(&self) {
        let mut life = self.life();
        life.partial_head |= life.requests == 0;
    }

    /// Nothing more to read for now: what came and is no request yet is part of a head.
    fn read_none(&self) {
        if self.framing == Framing::Multiplexed {
            return;
        }
        let mut life = self.life();
        if life.requests == 0 && life.partial_head && life.head_since.is_none() {
            life.head_since = Some(Instant::now());
            drop(life);
            self.head_began.notify_one();
        }
    }

    fn wrote_some(&self) {
        self.life().wrote = Instant::now();
    }

    /// Whether closing now would answer bytes of the peer with RST, which may destroy what was
    /// just sent to it (RFC 9112 §9.6).
    fn should_linger(&self) -> bool {
        let life = self.life();
        self.framing == Framing::Serial && (life.partial_head || life.has_body)
    }
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    connection: Arc<Connection>,
    sending: bool,
}

impl InFlight {
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The answer is on its way.
    pub(crate) fn sends(&mut self) {
        if !self.sending {
            self.sending = true;
            let mut life = self.connection.life();
            if life.sending == 0 {
                life.wrote = Instant::now();
            }
            life.sending += 1;
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut life = self.connection.life();
        life.requests -= 1;
        life.sending -= u32::from(self.sending);
        if life.requests == 0 {
            life.idle_since = Instant::now();
        }
    }
}

/// How long the rest of what a peer sends is read and thrown away before it is closed on.
const LINGER: Duration = Duration::from_secs(1);

/// A socket that tells its [`Connection`] what happens, and obeys it.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// Read while the protocol was detected.
    ahead: Bytes,
    connection: Arc<Connection>,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, ahead: Bytes, connection: Arc<Connection>) -> Self {
        Self { stream, ahead, connection, lingering: None }
    }

    fn wrote(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(outcome, Poll::Ready(Ok(_))) {
            self.connection.wrote_some();
        }
        outcome
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.connection.reset.load(Ordering::Relaxed)
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "the connection ends with FIN instead of RST");
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.has_remaining() {
            let n = self.ahead.len().min(into.remaining());
            into.put_slice(&self.ahead.split_to(n));
            self.connection.read_some();
            return Poll::Ready(Ok(()));
        }
        let before = into.remaining();
        let outcome = Pin::new(&mut self.stream).poll_read(context, into);
        if into.remaining() < before {
            self.connection.read_some();
        } else if outcome.is_pending() {
            self.connection.read_none();
        }
        outcome
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// HTTP flushes once its own buffer is empty: then all bytes so far are with the kernel.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if self.connection.cut_when_flushed.load(Ordering::Acquire) {
            self.connection.drop_now();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            if !self.connection.should_linger() {
                return Poll::Ready(Ok(()));
            }
        }
        let mut lingering = self.lingering.take().unwrap_or_else(|| Box::pin(sleep(LINGER)));
        if lingering.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.lingering = Some(lingering);
        let mut rest = [0; 4_096];
        loop {
            let mut into = ReadBuf::new(&mut rest);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut into))?;
            if into.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
