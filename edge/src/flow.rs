//! A body that is still arriving, readable by many at once.
//!
//! One pump pushes, any number of readers follow, each at its own pace and from its own core.
//! While the flow *keeps*, every byte stays, so that readers may still join and the store gets
//! the whole. When the body proves too large to keep, the flow *spills*: nobody joins any more,
//! bytes that all readers have are dropped, and the pump waits for the slowest reader: a slow
//! reader holds back its own fetch, not others.
//!
//! # Invariants
//! - A reader sees every byte exactly once and in order, then the end or the error.
//! - What a spilled flow takes in beyond what it held when it spilled is bounded by [`WINDOW`] plus
//!   one push.
//! - A reader that waits has one waker here, however often it is polled.
//! - The lock is held for a few instructions and never across an await.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;

use crate::error::BodyError;

/// Bytes that a spilled flow holds for its slowest reader.
pub(crate) const WINDOW: u64 = 256 * 1024;

/// Bytes of all bodies in flight, with their bound (`cache.in_flight`).
#[derive(Debug)]
pub(crate) struct InFlight {
    used: AtomicU64,
    limit: u64,
}

impl InFlight {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit })
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `n` bytes if they fit.
    fn take(&self, n: u64) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(n).filter(|used| *used <= self.limit)
            })
            .is_ok()
    }

    fn give_back(&self, n: u64) {
        self.used.fetch_sub(n, Ordering::Relaxed);
    }
}

/// The body.
#[derive(Debug)]
pub(crate) struct Flow {
    state: Mutex<State>,
    in_flight: Arc<InFlight>,
    /// More than this is not kept (`cache.max_body`).
    max_kept: u64,
}

#[derive(Debug, Default)]
struct State {
    /// The chunks from number `base` on.
    chunks: VecDeque<Bytes>,
    base: u64,
    /// Bytes in `chunks`.
    held: u64,
    /// Bytes pushed since the beginning.
    received: u64,
    /// Bytes taken from `in_flight`.
    accounted: u64,
    spilled: bool,
    end: Option<Result<(), BodyError>>,
    trailers: Option<HeaderMap>,
    readers: Vec<Option<Position>>,
    live: usize,
    pump: Option<Waker>,
}

/// Where a reader is.
#[derive(Debug, Default)]
struct Position {
    /// The number of the chunk that it wants next.
    next: u64,
    /// Set while it waits for that chunk.
    waker: Option<Waker>,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// Everything so far is still there.
    Kept,
    /// The flow holds only what its readers still need.
    Spilled,
}

impl Flow {
    pub(crate) fn new(in_flight: Arc<InFlight>, max_kept: u64) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), in_flight, max_kept })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `chunk` and wakes the readers.
    pub(crate) fn push(&self, chunk: Bytes) -> Pushed {
        let mut state = self.lock();
        let n = chunk.len() as u64;
        state.received += n;
        if !state.spilled {
            let keeps = state.received <= self.max_kept && self.in_flight.take(n);
            if keeps {
                state.accounted += n;
            } else {
                state.spilled = true;
            }
        }
        state.held += n;
        state.chunks.push_back(chunk);
        let pushed = if state.spilled { Pushed::Spilled } else { Pushed::Kept };
        if state.spilled {
            state.drop_read(&self.in_flight);
        }
        wake(state);
        pushed
    }

    /// Sets what follows the body, before its end.
    pub(crate) fn set_trailers(&self, trailers: HeaderMap) {
        self.lock().trailers = Some(trailers);
    }

    /// Ends the body, well or not.
    pub(crate) fn end(&self, how: Result<(), BodyError>) {
        let mut state = self.lock();
        state.end.get_or_insert(how);
        wake(state);
    }

    /// Waits until a spilled flow has room again. `false`: nobody reads any more.
    ///
    /// Cancel safe.
    pub(crate) async fn room(&self) -> bool {
        poll_fn(|context| self.poll_room(context)).await
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.lock();
        if state.live == 0 {
            return Poll::Ready(false);
        }
        state.drop_read(&self.in_flight);
        if state.held < WINDOW {
            return Poll::Ready(true);
        }
        state.pump = Some(context.waker().clone());
        Poll::Pending
    }

    /// How many read it now.
    pub(crate) fn readers(&self) -> usize {
        self.lock().live
    }

    /// Ends the body for want of readers; `false` if somebody reads it. Nobody can join any more:
    /// who comes too late finds no first byte and fetches anew.
    pub(crate) fn abandon(&self) -> bool {
        let mut state = self.lock();
        if state.live == 0 {
            state.end.get_or_insert(Err(BodyError::Abandoned));
        }
        state.live == 0
    }

    /// Lets the readers of a kept flow go on with `stored`, the same bytes in the memory of the
    /// store, so that a slow one holds nothing of the bound of bodies in flight any more.
    pub(crate) fn hand_over(&self, stored: &[Bytes]) {
        let mut state = self.lock();
        if state.spilled {
            return;
        }
        let mut stored = stored.iter();
        let mut piece = Bytes::new();
        for chunk in &mut state.chunks {
            let mut wanted = chunk.len();
            while wanted > piece.len() {
                wanted -= piece.len();
                let Some(next) = stored.next() else { return };
                piece = next.clone();
            }
            let rest = piece.split_off(wanted);
            if piece.len() == chunk.len() {
                *chunk = piece; // else it lies across two pieces, and keeps its own memory
            }
            piece = rest;
        }
        let accounted = std::mem::take(&mut state.accounted);
        drop(state);
        self.in_flight.give_back(accounted);
    }

    /// Everything that was pushed, if all of it is still there.
    pub(crate) fn whole(&self) -> Option<Vec<Bytes>> {
        let state = self.lock();
        (!state.spilled).then(|| state.chunks.iter().cloned().collect())
    }

    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.lock().received
    }

    /// Whether so many bytes were received, and not fewer or more.
    ///
    /// # Errors
    /// When the body had another length than it was said to have.
    pub(crate) fn is_of(&self, length: u64) -> Result<(), BodyError> {
        if self.received() == length { Ok(()) } else { Err(BodyError::Incomplete) }
    }

    /// A reader from the first byte; `None` if the first byte is gone, or the rest will not come
    /// because nobody wanted it.
    pub(crate) fn read(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.lock();
        let is_abandoned = state.end == Some(Err(BodyError::Abandoned));
        let is_taken = state.spilled && state.live > 0 && state.received > 0;
        if state.base > 0 || is_abandoned || is_taken {
            return None;
        }
        let slot = match state.readers.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                state.readers.push(None);
                state.readers.len() - 1
            }
        };
        if let Some(position) = state.readers.get_mut(slot) {
            *position = Some(Position::default());
        }
        state.live += 1;
        drop(state);
        Some(Reader { flow: Arc::clone(self), slot, next: 0 })
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let accounted = self.lock().accounted;
        self.in_flight.give_back(accounted);
    }
}

impl State {
    /// Drops what every reader has, and gives back what is no longer held.
    fn drop_read(&mut self, in_flight: &InFlight) {
        if !self.spilled {
            return;
        }
        let slowest = self.readers.iter().flatten().map(|position| position.next).min();
        let Some(slowest) = slowest else { return };
        while self.base < slowest {
            let Some(chunk) = self.chunks.pop_front() else { break };
            self.base += 1;
            self.held -= chunk.len() as u64;
        }
        let surplus = self.accounted.saturating_sub(self.held);
        self.accounted -= surplus;
        in_flight.give_back(surplus);
    }
}

/// Wakes all readers, without the lock.
fn wake(mut state: MutexGuard<'_, State>) {
    let readers = state.readers.iter_mut().flatten();
    let waiting: Vec<Waker> = readers.filter_map(|position| position.waker.take()).collect();
    drop(state);
    for waker in waiting {
        waker.wake();
    }
}

/// One reader of a [`Flow`]. Dropping it lets the flow go on without it.
#[derive(Debug)]
pub(crate) struct Reader {
    flow: Arc<Flow>,
    slot: usize,
    next: u64,
}

impl Reader {
    /// The next chunk, the end (`None`), or why it broke off.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut state = self.flow.lock();
        let at = usize::try_from(self.next.saturating_sub(state.base)).unwrap_or(usize::MAX);
        if let Some(chunk) = state.chunks.get(at).cloned() {
            self.next += 1;
            if let Some(position) = state.readers.get_mut(self.slot) {
                *position = Some(Position { next: self.next, waker: None });
            }
            let pump = if state.spilled { state.pump.take() } else { None };
            drop(state);
            if let Some(pump) = pump {
                pump.wake();
            }
            return Poll::Ready(Some(Ok(chunk)));
        }
        match state.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                if let Some(Some(position)) = state.readers.get_mut(self.slot) {
                    position.waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Reader {
    /// What follows the body, once its end has been read.
    pub(crate) fn trailers(&self) -> Option<HeaderMap> {
        self.flow.lock().trailers.clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.flow.lock();
        if let Some(position) = state.readers.get_mut(self.slot) {
            *position = None;
        }
        state.live -= 1;
        let pump = state.pump.take();
        drop(state);
        if let Some(pump) = pump {
            pump.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn flow(in_flight: u64, max_kept: u64) -> (Arc<InFlight>, Arc<Flow>) {
        let bound = InFlight::new(in_flight);
        (Arc::clone(&bound), Flow::new(bound, max_kept))
    }

    fn next(reader: &mut Reader) -> Poll<Option<Result<Bytes, BodyError>>> {
        reader.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    fn chunk(text: &'static str) -> Poll<Option<Result<Bytes, BodyError>>> {
        Poll::Ready(Some(Ok(Bytes::from_static(text.as_bytes()))))
    }

    #[test]
    fn a_reader_that_joins_late_sees_every_byte() {
        let (_bound, flow) = flow(100, 100);
        let mut early = flow.read().unwrap();
        assert_eq!(flow.push(Bytes::from_static(b"one")), Pushed::Kept);
        assert_eq!(next(&mut early), chunk("one"));
        assert!(next(&mut early).is_pending());
        let mut late = flow.read().unwrap();
        flow.push(Bytes::from_static(b"two"));
        flow.end(Ok(()));
        for text in ["one", "two"] {
            assert_eq!(next(&mut late), chunk(text));
        }
        assert_eq!(next(&mut late), Poll::Ready(None));
        assert_eq!(next(&mut early), chunk("two"));
        assert_eq!(next(&mut early), Poll::Ready(None));
    }

    #[test]
    fn a_body_that_breaks_off_ends_every_reader_with_the_error() {
        let (_bound, flow) = flow(100, 100);
        let mut reader = flow.read().unwrap();
        flow.push(Bytes::from_static(b"half"));
        flow.end(Err(BodyError::Incomplete));
        flow.end(Ok(())); // the first end counts
        assert_eq!(next(&mut reader), chunk("half"));
        assert_eq!(next(&mut reader), Poll::Ready(Some(Err(BodyError::Incomplete))));
    }

    #[test]
    fn what_is_too_large_spills_and_takes_no_new_readers() {
        // kept at the limit, spilled one past it; likewise for the bound of all bodies in flight
        for (in_flight, max_kept) in [(100, 6), (6, 100)] {
            let (bound, flow) = flow(in_flight, max_kept);
            let mut reader = flow.read().unwrap();
            assert_eq!(flow.push(Bytes::from_static(b"onetwo")), Pushed::Kept);
            assert_eq!(bound.used(), 6);
            assert_eq!(flow.push(Bytes::from_static(b"3")), Pushed::Spilled);
            assert!(flow.whole().is_none());
            assert!(flow.read().is_none(), "nobody joins a spilled flow");
            assert_eq!(next(&mut reader), chunk("onetwo"));
            assert_eq!(next(&mut reader), chunk("3"));
            assert_eq!(flow.push(Bytes::from_static(b"4")), Pushed::Spilled);
            assert_eq!(bound.used(), 1, "what everybody has is given back");
            drop((reader, flow));
            assert_eq!(bound.used(), 0);
        }
    }

    #[test]
    fn the_pump_waits_for_the_slowest_reader_of_a_spilled_flow_and_for_nobody_else() {
        let (_bound, flow) = flow(u64::MAX, 0);
        let mut context = Context::from_waker(Waker::noop());
        let mut slow = flow.read().unwrap();
        let big = Bytes::from(vec![0; usize::try_from(WINDOW).unwrap()]);
        assert_eq!(flow.push(big), Pushed::Spilled);
        assert!(flow.poll_room(&mut context).is_pending());
        assert!(next(&mut slow).is_ready());
        assert_eq!(flow.poll_room(&mut context), Poll::Ready(true));
        flow.push(Bytes::from(vec![0; usize::try_from(WINDOW).unwrap()]));
        assert!(flow.poll_room(&mut context).is_pending());
        drop(slow);
        assert_eq!(flow.poll_room(&mut context), Poll::Ready(false), "nobody reads any more");
    }

    #[test]
    fn a_body_that_nobody_reads_is_given_up_for_good_and_one_that_is_read_is_not() {
        let (_bound, flow) = flow(100, 100);
        let mut reader = flow.read().unwrap();
        assert!(!flow.abandon(), "somebody reads it");
        flow.push(Bytes::from_static(b"one"));
        assert_eq!(next(&mut reader), chunk("one"));
        drop(reader);
        assert!(flow.abandon());
        assert!(flow.read().is_none(), "who comes now would get half of it");
    }

    #[test]
    fn a_reader_that_is_polled_often_has_one_waker() {
        struct Counting(AtomicU64);
        impl std::task::Wake for Counting {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (_bound, flow) = flow(100, 100);
        let mut reader = flow.read().unwrap();
        let counting = Arc::new(Counting(AtomicU64::new(0)));
        let waker = Waker::from(Arc::clone(&counting));
        for _ in 0..1000 {
            assert!(reader.poll_next(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(Arc::strong_count(&counting), 3, "here, in `waker`, and once in the flow");
        flow.push(Bytes::from_static(b"one"));
        assert_eq!(counting.0.load(Ordering::Relaxed), 1);
        assert_eq!(next(&mut reader), chunk("one"));
    }

    #[test]
    fn what_is_stored_is_read_from_the_store_and_leaves_the_bound() {
        let parts: [&'static [u8]; 6] = [b"ab", b"cde", b"", b"f", b"ghijk", b"l"];
        for pieces in [&[12][..], &[4, 4, 4], &[2, 4, 5, 1], &[1; 12]] {
            let (bound, flow) = flow(100, 100);
            let mut early = flow.read().unwrap();
            let mut late = flow.read().unwrap();
            for part in parts {
                flow.push(Bytes::from_static(part));
            }
            assert_eq!(next(&mut early), chunk("ab"));
            let mut whole = Bytes::from(parts.concat());
            let stored: Vec<Bytes> = pieces.iter().map(|len| whole.split_to(*len)).collect();
            assert_eq!(bound.used(), 12);
            flow.hand_over(&stored);
            flow.end(Ok(()));
            assert_eq!(bound.used(), 0);
            for (reader, from) in [(&mut early, 1), (&mut late, 0)] {
                for part in &parts[from..] {
                    assert_eq!(next(reader), Poll::Ready(Some(Ok(Bytes::from_static(part)))));
                }
                assert_eq!(next(reader), Poll::Ready(None));
            }
            drop((early, late, flow));
            assert_eq!(bound.used(), 0, "given back once");
        }
    }

    proptest::proptest! {
        #[test]
        fn readers_see_the_body_whatever_the_order_of_events(
            chunks in proptest::collection::vec(0_u8..20, 1..20),
            steps in proptest::collection::vec(0_usize..4, 0..80),
            max_kept in 0_u64..200,
        ) {
            let (bound, flow) = flow(150, max_kept);
            let mut readers: Vec<(Reader, Vec<u8>)> = Vec::new();
            let mut pushed: Vec<u8> = Vec::new();
            let mut rest = chunks.iter().enumerate();
            for step in steps {
                match step {
                    0 => if let Some((n, len)) = rest.next() {
                        let chunk = vec![u8::try_from(n).unwrap(); usize::from(*len)];
                        pushed.extend(&chunk);
                        flow.push(chunk.into());
                    },
                    1 => readers.extend(flow.read().map(|reader| (reader, Vec::new()))),
                    _ => for (reader, seen) in &mut readers {
                        if let Poll::Ready(Some(Ok(chunk))) = next(reader) {
                            seen.extend(chunk);
                        }
                    },
                }
            }
            flow.end(Ok(()));
            for (reader, seen) in &mut readers {
                while let Poll::Ready(Some(Ok(chunk))) = next(reader) {
                    seen.extend(chunk);
                }
                proptest::prop_assert_eq!(&*seen, &pushed);
            }
            drop((readers, flow));
            proptest::prop_assert_eq!(bound.used(), 0);
        }
    }
}
