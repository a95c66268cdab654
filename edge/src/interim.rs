//! Interim responses (1xx) on their way to a client of HTTP/1.1 (RFC 9110 §15.2, RFC 8297).
//!
//! hyper 1.12 takes them from an origin, however many, until the deadline of the answer, and tells
//! of each (`on_informational`); its server cannot send them. So the socket does, where no byte of
//! hyper's can be in between:
//! - hyper flushes its socket only when it has nothing left to write, and then nothing of an answer
//!   is begun: it encodes the head of an answer when the handler is done.
//! - It has one request at a time in the hands of the handler, and hands in the next only when all
//!   of the answer before is encoded. What the handler of this request has said, before it is done,
//!   therefore belongs between the two answers, and a flush is where that is.
//!
//! What was not sent before the handler was done is dropped. Of 100 there is none from upstream
//! (no request expects it there), and 101 is no interim response to us ([`crate::tunnel`]). Over
//! HTTP/2 hyper leaves no such place: the frames are its own, and interim responses end here.
//!
//! # Invariants
//! - Nothing is pending unless a handler is at work, and whatever is pending is about its request.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use http::{HeaderMap, StatusCode};
use meridian_edge_rules::hop_by_hop::remove_hop_by_hop;

/// Interim responses to one request that are sent on; more are dropped.
const MAX_COUNT: u32 = 16;
/// The most bytes of them that wait to be sent; what exceeds it is dropped.
const MAX_PENDING: usize = 16 * 1024;

/// What a connection has to send before the answer that is being made.
#[derive(Debug, Default)]
pub(crate) struct Interim {
    state: Mutex<State>,
    /// Whether a request is open, for who looks without the lock.
    is_open: AtomicBool,
    /// Likewise whether something waits to be sent.
    is_pending: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the request that was opened last.
    number: u64,
    open: bool,
    count: u32,
    pending: Vec<u8>,
    waker: Option<Waker>,
}

impl Interim {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes interim responses to the request that is now in hand, and to no other.
    pub(crate) fn open(&self) -> u64 {
        let mut state = self.lock();
        state.number += 1;
        (state.open, state.count) = (true, 0);
        self.is_open.store(true, Ordering::Relaxed);
        state.number
    }

    /// Makes the answer, and sends no interim response from then on.
    pub(crate) async fn until<T>(&self, mut answer: Pin<Box<dyn Future<Output = T> + Send>>) -> T {
        let answer = poll_fn(|context| {
            if self.is_open.load(Ordering::Relaxed) {
                self.lock().waker = Some(context.waker().clone());
            }
            answer.as_mut().poll(context)
        });
        let answer = answer.await;
        if self.is_open.swap(false, Ordering::Relaxed) {
            let mut state = self.lock();
            let number = state.number;
            *state = State { number, ..State::default() };
            self.is_pending.store(false, Ordering::Relaxed);
        }
        answer
    }

    /// An interim response has come to the request with this number.
    pub(crate) fn push(&self, number: u64, status: StatusCode, fields: &HeaderMap) {
        if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            return;
        }
        let head = head(status, fields.clone());
        let mut state = self.lock();
        let fits = state.count < MAX_COUNT && state.pending.len() + head.len() <= MAX_PENDING;
        if !state.open || state.number != number || !fits {
            return;
        }
        state.count += 1;
        state.pending.extend_from_slice(&head);
        self.is_pending.store(true, Ordering::Relaxed);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// What is to be sent now, by whoever knows that nothing else is on its way.
    pub(crate) fn take(&self) -> Vec<u8> {
        if !self.is_pending.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.is_pending.store(false, Ordering::Relaxed);
        std::mem::take(&mut self.lock().pending)
    }
}

/// A head on the wire. Names and values have been parsed: no line ends within them.
fn head(status: StatusCode, mut fields: HeaderMap) -> Vec<u8> {
    remove_hop_by_hop(&mut fields);
    let mut bytes = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in &fields {
        let is_ours = ["meridian-", "surrogate-", "cache-tag"]
            .iter()
            .any(|start| name.as_str().starts_with(start));
        if !is_ours {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use super::*;

    fn link() -> HeaderMap {
        let mut fields = HeaderMap::new();
        fields.insert("link", "</a.css>; rel=preload".parse().unwrap());
        fields.insert("connection", "x-hop".parse().unwrap());
        fields.insert("x-hop", "1".parse().unwrap());
        fields.insert("surrogate-key", "a".parse().unwrap());
        fields
    }

    #[test]
    fn what_comes_while_its_request_is_open_is_sent_and_nothing_else() {
        let interim = Interim::default();
        interim.push(0, StatusCode::EARLY_HINTS, &link());
        assert!(interim.take().is_empty(), "no request is open");
        let first = interim.open();
        interim.push(first, StatusCode::CONTINUE, &link());
        assert!(interim.take().is_empty(), "100 is between a node and the next");
        interim.push(first, StatusCode::EARLY_HINTS, &link());
        let want = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
        assert_eq!(interim.take(), want);
        assert!(interim.take().is_empty(), "once");
        interim.push(first, StatusCode::EARLY_HINTS, &link());
        let mut context = Context::from_waker(Waker::noop());
        let mut answer = Box::pin(interim.until(Box::pin(std::future::ready(()))));
        assert_eq!(answer.as_mut().poll(&mut context), Poll::Ready(()));
        drop(answer);
        assert!(interim.take().is_empty(), "the answer is there: too late");
        interim.push(first, StatusCode::EARLY_HINTS, &link());
        assert!(interim.take().is_empty());
        let second = interim.open();
        interim.push(first, StatusCode::EARLY_HINTS, &link());
        assert!(
            interim.take().is_empty(),
            "a fetch of an earlier request goes on: not for this one"
        );
        interim.push(second, StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(interim.take(), b"HTTP/1.1 102 Processing\r\n\r\n");
    }

    #[test]
    fn they_are_counted_and_one_past_the_limit_is_dropped() {
        let interim = Interim::default();
        let number = interim.open();
        let one = head(StatusCode::PROCESSING, HeaderMap::new()).len();
        for n in 1..=MAX_COUNT + 1 {
            interim.push(number, StatusCode::PROCESSING, &HeaderMap::new());
            assert_eq!(interim.take().len(), if n <= MAX_COUNT { one } else { 0 }, "{n}");
        }
        let number = interim.open();
        let mut large = HeaderMap::new();
        large.insert("x", "y".repeat(MAX_PENDING / 2).parse().unwrap());
        interim.push(number, StatusCode::PROCESSING, &large);
        interim.push(number, StatusCode::PROCESSING, &large);
        assert_eq!(interim.take().len(), head(StatusCode::PROCESSING, large).len());
    }
}
