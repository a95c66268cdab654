//! One connection through a link: its bytes, both ways, as the link's state wants.
//!
//! # Invariants
//! - The state is looked at before each piece: what arrives after an order is treated by it.
//! - With nothing set, a piece goes from one socket to the other through one buffer; nothing is
//!   queued, timed or allocated.
//! - All that is held of all connections together is bounded by the [`Pool`]; each may hold one
//!   piece beyond it, so none waits for another forever.

use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until, timeout};

use crate::line::{End, Line, Next, PIECE};
use crate::link::{Flow, Link, State};
use crate::shape::{Way, Ways};

/// A node of this machine that takes longer to accept is not there.
const DIAL: Duration = Duration::from_secs(10);

/// Bytes that all connections of a cluster hold together.
const POOL: usize = 64 << 20;

/// What all connections hold together.
#[derive(Debug, Default)]
pub(crate) struct Pool(AtomicUsize);

impl Pool {
    fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= POOL
    }
}

/// The connection is to be reset, towards both ends.
#[derive(Debug)]
struct Severed;

/// Carries the accepted connection `near` until it ends; `state` is the one it was accepted in.
pub(crate) async fn relay(
    link: Arc<Link>,
    mut near: TcpStream,
    state: State,
    number: u64,
    pool: Arc<Pool>,
) {
    link.open.fetch_add(1, Ordering::Relaxed);
    let mut states = link.follow();
    let outcome = {
        let mut severs = link.follow();
        let mut severed = pin!(severs.wait_for(|now| now.severed != state.severed));
        let far = tokio::select! { // dropping the dial gives it up
            biased;
            _ = &mut severed => Err(Severed),
            far = dial(&link, &mut states) => far,
        };
        match far {
            Err(severed) => Err(severed),
            Ok(mut far) => {
                let carried = tokio::select! { // what was not delivered is lost with the rest
                    biased;
                    _ = &mut severed => Err(Severed),
                    carried = carry(&link, [&mut near, &mut far], state, number, &pool) => carried,
                };
                if carried.is_err() {
                    abort(&far);
                }
                carried
            }
        }
    };
    if outcome.is_err() {
        link.reset.fetch_add(1, Ordering::Relaxed);
        abort(&near);
    }
    link.open.fetch_sub(1, Ordering::Relaxed);
}

/// Connects to the node behind the link, one round trip after the connection was asked for.
async fn dial(link: &Link, states: &mut watch::Receiver<State>) -> Result<TcpStream, Severed> {
    let asked = Instant::now();
    loop {
        let round_trip = states.borrow_and_update().round_trip();
        if round_trip.is_zero() {
            break;
        }
        tokio::select! { // dropping either loses nothing
            changed = states.changed() => changed.map_err(|_link_is_gone| Severed)?,
            () = sleep_until(asked + round_trip) => break,
        }
    }
    match timeout(DIAL, TcpStream::connect(link.dial.as_str())).await {
        Ok(Ok(far)) => Ok(far),
        Ok(Err(_)) | Err(_) => Err(Severed),
    }
}

/// Carries both ways until both have ended.
async fn carry(
    link: &Link,
    [near, far]: [&mut TcpStream; 2],
    state: State,
    number: u64,
    pool: &Pool,
) -> Result<(), Severed> {
    for stream in [&*near, &*far] {
        // A connection that ended meanwhile says so when it is read.
        drop(stream.set_nodelay(true));
    }
    let (near_reads, near_writes) = near.split();
    let (far_reads, far_writes) = far.split();
    let seed = link.seed.wrapping_add(number << 1);
    let mut followed = link.follow();
    followed.mark_changed(); // since the connection was accepted, orders may have come
    let carrier = |way: Way, from, to| Carrier {
        flow: link.flows.of(way),
        way,
        from,
        to,
        states: followed.clone(),
        line: Line::new(*state.shapes.of(way), seed | u64::from(way == Way::Back)),
        closed: *state.closed.of(way),
        is_reading: true,
        is_deaf: false,
        buffer: vec![0; PIECE],
        pool,
        held: 0,
    };
    let ways = Ways {
        there: carrier(Way::There, near_reads, far_writes),
        back: carrier(Way::Back, far_reads, near_writes),
    };
    let (_, _) = tokio::try_join!(ways.there.run(), ways.back.run())?;
    Ok(())
}

/// One way of one connection.
struct Carrier<'c> {
    flow: &'c Flow,
    way: Way,
    from: ReadHalf<'c>,
    to: WriteHalf<'c>,
    states: watch::Receiver<State>,
    line: Line,
    /// Half-closes that this connection has seen.
    closed: u64,
    /// The sender may have more to say.
    is_reading: bool,
    /// The receiver hears no more: what is sent is read and dropped.
    is_deaf: bool,
    buffer: Vec<u8>,
    pool: &'c Pool,
    /// Of what the line holds, this much is counted.
    held: usize,
}

impl Drop for Carrier<'_> {
    fn drop(&mut self) {
        self.pool.0.fetch_sub(self.held, Ordering::Relaxed);
        self.flow.held.fetch_sub(self.held, Ordering::Relaxed);
    }
}

impl Carrier<'_> {
    /// Carries until the sender has ended and all that gets through is delivered.
    async fn run(mut self) -> Result<(), Severed> {
        loop {
            self.obey()?;
            self.count_held();
            if self.line.is_empty() && !self.is_reading {
                return Ok(());
            }
            let is_plain = self.line.shape().is_plain() && self.line.is_empty() && !self.is_deaf;
            if is_plain { self.pass().await? } else { self.step().await? }
        }
    }

    /// Takes over what an order changed.
    fn obey(&mut self) -> Result<(), Severed> {
        if self.states.has_changed().map_err(|_link_is_gone| Severed)? {
            let state = *self.states.borrow_and_update();
            let (shape, closed) = (state.shapes.of(self.way), *state.closed.of(self.way));
            let now = Instant::now();
            if shape != self.line.shape() {
                let lost = self.line.reshape(*shape, now);
                self.lose(lost);
            }
            if closed != self.closed {
                self.closed = closed;
                self.line.end(End::Close, now);
            }
        }
        Ok(())
    }

    /// Nothing is set: from one socket to the other, until that changes or the sender ends.
    async fn pass(&mut self) -> Result<(), Severed> {
        loop {
            consume_budget().await; // two busy sockets never wait: let others have a turn
            if self.states.has_changed().map_err(|_link_is_gone| Severed)? {
                return Ok(());
            }
            let count = match self.from.try_read(&mut self.buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::select! { // neither takes anything away
                        biased;
                        _ = self.states.changed() => return self.look_again(),
                        ready = self.from.readable() => match ready {
                            Ok(()) => continue,
                            Err(_broken) => return self.heard_end(End::Reset),
                        },
                    }
                }
                Err(_broken) => return self.heard_end(End::Reset),
            };
            if count == 0 {
                return self.heard_end(End::Close);
            }
            if self.write_through(count).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Writes the first `count` bytes of the buffer. What an order interrupts goes to the line.
    async fn write_through(&mut self, count: usize) -> Result<Option<()>, Severed> {
        let mut written = 0;
        while let Some(rest @ [_, ..]) = self.buffer.get(written..count) {
            match self.to.try_write(rest) {
                Ok(count) => {
                    written += count;
                    self.count_delivered(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::select! { // neither takes anything away
                        biased;
                        _ = self.states.changed() => {
                            let rest = Bytes::copy_from_slice(rest);
                            self.states.mark_changed();
                            self.line.push(rest, Instant::now(), &self.flow.pace);
                            return Ok(Some(()));
                        }
                        // An error shows at the next attempt to write.
                        _ = self.to.writable() => {}
                    }
                }
                Err(_broken) => {
                    self.cannot_write()?;
                    return Ok(Some(()));
                }
            }
        }
        Ok(None)
    }

    /// Something is set: writes what is due, takes in what there is room for, or waits.
    async fn step(&mut self) -> Result<(), Severed> {
        let now = Instant::now();
        let due = self.line.due();
        let is_due = due.is_some_and(|due| due <= now);
        if is_due && let Some(Next::End(end)) = self.line.next() {
            self.line.delivered(0, now);
            return self.deliver_end(end).await;
        }
        let room = match (self.is_deaf, self.line.is_empty() || !self.pool.is_full()) {
            (true, _) => PIECE,
            (false, true) => self.line.room(),
            (false, false) => 0,
        };
        let bytes = match self.line.next().filter(|_| is_due) {
            Some(Next::Bytes(bytes)) => bytes,
            Some(Next::End(_)) | None => &[],
        };
        let buffer = self.buffer.get_mut(..room).unwrap_or_default();
        tokio::select! { // each is safe to drop: it did something or nothing
            biased;
            _ = self.states.changed() => self.look_again(),
            written = self.to.write(bytes), if !bytes.is_empty() => {
                match written {
                    Ok(count) => {
                        self.line.delivered(count, now);
                        self.count_delivered(count);
                        Ok(())
                    }
                    Err(_broken) => self.cannot_write(),
                }
            }
            () = sleep_until(due.unwrap_or(now)), if due.is_some() && !is_due => Ok(()),
            read = read(&mut self.from, buffer), if self.is_reading && room > 0 => match read {
                Ok(0) => self.heard_end(End::Close),
                Ok(count) => { self.heard(count); Ok(()) }
                Err(_broken) => self.heard_end(End::Reset),
            },
        }
    }

    /// A change was seen and is yet to be obeyed.
    fn look_again(&mut self) -> Result<(), Severed> {
        self.states.mark_changed();
        Ok(())
    }

    fn heard(&mut self, count: usize) {
        if self.is_deaf {
            self.lose(count);
            return;
        }
        let bytes = Bytes::copy_from_slice(self.buffer.get(..count).unwrap_or_default());
        let lost = self.line.push(bytes, Instant::now(), &self.flow.pace);
        self.lose(lost);
    }

    fn heard_end(&mut self, end: End) -> Result<(), Severed> {
        self.is_reading = false;
        if !self.is_deaf {
            self.line.end(end, Instant::now());
        }
        Ok(())
    }

    async fn deliver_end(&mut self, end: End) -> Result<(), Severed> {
        match end {
            End::Reset => Err(Severed),
            End::Close => {
                self.is_deaf = true;
                // Whoever cannot be told any more knows already.
                drop(self.to.shutdown().await);
                Ok(())
            }
        }
    }

    /// The receiver is gone. The sender hears of it, unless the link is cut.
    fn cannot_write(&mut self) -> Result<(), Severed> {
        if !self.states.borrow().is_cut() {
            return Err(Severed);
        }
        self.is_deaf = true;
        let cut = crate::shape::Shape { cut: true, ..*self.line.shape() };
        let lost = self.line.reshape(cut, Instant::now());
        self.lose(lost);
        Ok(())
    }

    fn lose(&self, count: usize) {
        self.flow.lost.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn count_delivered(&self, count: usize) {
        self.flow.bytes.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Counts what the line holds now.
    fn count_held(&mut self) {
        let held = self.line.held();
        for total in [&self.pool.0, &self.flow.held] {
            if held > self.held {
                total.fetch_add(held - self.held, Ordering::Relaxed);
            } else {
                total.fetch_sub(self.held - held, Ordering::Relaxed);
            }
        }
        self.held = held;
    }
}

async fn read(from: &mut ReadHalf<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    tokio::io::AsyncReadExt::read(from, buffer).await
}

/// When this stream is closed its other end sees a reset, not an end.
pub(crate) fn abort(stream: &impl AsFd) {
    // Both fail only if the other end has reset the connection itself.
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}
