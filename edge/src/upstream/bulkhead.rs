//! Requests in flight to one origin, and requests that wait for their turn: both bounded.
//!
//! What finds the queue full is shed at once: waiting longer would help nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// The places of one origin, shared by all cores.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    places: Arc<Semaphore>,
    max_requests: u32,
    waiting: AtomicU32,
    max_queue: u32,
}

/// A place; given back when dropped.
pub(crate) type Place = OwnedSemaphorePermit;

/// Both are full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) limit: u32,
}

impl Bulkhead {
    pub(crate) fn new(max_requests: u32, max_queue: u32) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(max_requests as usize));
        Arc::new(Self { places, max_requests, waiting: AtomicU32::new(0), max_queue })
    }

    /// A place, at once or after waiting in the queue.
    ///
    /// Cancel safe: a waiter that is dropped leaves the queue.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Place, Full> {
        let full = Full { limit: self.max_requests };
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => return Ok(place),
            Err(TryAcquireError::NoPermits) => {}
            Err(TryAcquireError::Closed) => return Err(full),
        }
        let Some(_waiter) = Waiter::join(self) else { return Err(full) };
        Arc::clone(&self.places).acquire_owned().await.map_err(|_closed| full)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        let free = u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX);
        self.max_requests.saturating_sub(free)
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn limits(&self) -> (u32, u32) {
        (self.max_requests, self.max_queue)
    }
}

/// A place in the queue.
struct Waiter<'a>(&'a AtomicU32);

impl<'a> Waiter<'a> {
    fn join(bulkhead: &'a Bulkhead) -> Option<Self> {
        let more = |n: u32| (n < bulkhead.max_queue).then_some(n + 1);
        bulkhead.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(&bulkhead.waiting))
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_past_places_and_queue_is_shed_at_once() {
        let bulkhead = Bulkhead::new(1, 1);
        let first = bulkhead.enter().await.unwrap();
        let mut second = Box::pin(bulkhead.enter());
        assert!(futures_pending(&mut second).await, "the second waits");
        assert_eq!(bulkhead.waiting(), 1);
        assert_eq!(bulkhead.enter().await.map(drop), Err(Full { limit: 1 }));
        drop(first);
        assert!(second.await.is_ok(), "the second moves up");
        assert_eq!(bulkhead.waiting(), 0);
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_frees_its_place_in_the_queue() {
        let bulkhead = Bulkhead::new(1, 1);
        let _first = bulkhead.enter().await.unwrap();
        let mut second = Box::pin(bulkhead.enter());
        assert!(futures_pending(&mut second).await);
        drop(second);
        assert_eq!(bulkhead.waiting(), 0);
    }

    /// Polls once; whether the future waits.
    async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }
}
