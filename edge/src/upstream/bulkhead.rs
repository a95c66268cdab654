//! Requests in flight to one origin, and requests that wait for their turn: both bounded.
//!
//! What finds the queue full is shed at once: waiting longer would help nobody. Background work does
//! not queue, and leaves a reserve of places to clients.
//!
//! # Invariants
//! - Never more than `max_requests` are in flight.
//! - Of these never more than `max_requests` less the reserve are in the background.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// The places of one origin, shared by all cores.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    places: Arc<Semaphore>,
    /// Places that background work may take.
    background: Arc<Semaphore>,
    /// Places that nobody may take for now, as the limit adapts.
    withheld: Mutex<Vec<OwnedSemaphorePermit>>,
    max_requests: u32,
    reserve: u32,
    waiting: AtomicU32,
    max_queue: u32,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _place: OwnedSemaphorePermit,
    _background: Option<OwnedSemaphorePermit>,
}

/// Both are full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) limit: u32,
}

impl Bulkhead {
    /// `reserve` is the share of the places that background work leaves to clients.
    pub(crate) fn new(max_requests: u32, max_queue: u32, reserve: f64) -> Arc<Self> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a u32"
        )]
        let reserve = (f64::from(max_requests) * reserve.clamp(0.0, 1.0)).ceil() as u32;
        let semaphore = |places: u32| Arc::new(Semaphore::new(places as usize));
        Arc::new(Self {
            places: semaphore(max_requests),
            background: semaphore(max_requests.saturating_sub(reserve)),
            withheld: Mutex::default(),
            max_requests,
            reserve,
            waiting: AtomicU32::new(0),
            max_queue,
        })
    }

    /// What is said when there is no place.
    pub(crate) fn full(&self) -> Full {
        Full { limit: self.max_requests }
    }

    /// A place, at once or after waiting in the queue.
    ///
    /// Cancel safe: a waiter that is dropped leaves the queue.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Place, Full> {
        let taken = |place| Place { _place: place, _background: None };
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => return Ok(taken(place)),
            Err(TryAcquireError::NoPermits) => {}
            Err(TryAcquireError::Closed) => return Err(self.full()),
        }
        let Some(_waiter) = Waiter::join(self) else { return Err(self.full()) };
        let waited = Arc::clone(&self.places).acquire_owned().await;
        waited.map(taken).map_err(|_closed| self.full())
    }

    /// A place for work that no client waits for, at once or not at all.
    pub(crate) fn enter_in_background(self: &Arc<Self>) -> Result<Place, Full> {
        let background = Arc::clone(&self.background).try_acquire_owned();
        let background = background.map_err(|_none| self.full())?;
        if self.places.available_permits() <= self.reserve as usize {
            return Err(self.full());
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_none| self.full())?;
        Ok(Place { _place: place, _background: Some(background) })
    }

    /// Lets no more than `limit` in from now on, as far as places are free; the rest follows with
    /// the next call.
    pub(crate) fn adapt(&self, limit: u32) {
        let mut withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.max_requests.saturating_sub(limit.max(1)) as usize;
        withheld.truncate(wanted);
        while withheld.len() < wanted
            && let Ok(place) = Arc::clone(&self.places).try_acquire_owned()
        {
            withheld.push(place);
        }
    }

    fn withheld(&self) -> u32 {
        let withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
        u32::try_from(withheld.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        let free = u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX);
        self.max_requests.saturating_sub(free).saturating_sub(self.withheld())
    }

    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Places by now, and in the queue.
    pub(crate) fn limits(&self) -> (u32, u32) {
        (self.max_requests.saturating_sub(self.withheld()), self.max_queue)
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
        let bulkhead = Bulkhead::new(1, 1, 0.0);
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
        let bulkhead = Bulkhead::new(1, 1, 0.0);
        let _first = bulkhead.enter().await.unwrap();
        let mut second = Box::pin(bulkhead.enter());
        assert!(futures_pending(&mut second).await);
        drop(second);
        assert_eq!(bulkhead.waiting(), 0);
    }

    #[tokio::test]
    async fn background_work_leaves_the_reserve_to_clients() {
        let rows = [(4, 0.25, 3), (4, 0.0, 4), (4, 1.0, 0), (1, 0.25, 0), (10, 0.25, 7)];
        for (places, reserve, want) in rows {
            let bulkhead = Bulkhead::new(places, 0, reserve);
            let background: Vec<_> =
                std::iter::from_fn(|| bulkhead.enter_in_background().ok()).collect();
            assert_eq!(background.len(), want, "{places} {reserve}");
            for _ in want..places as usize {
                std::mem::forget(bulkhead.enter().await.unwrap());
            }
            drop(background);
        }
        // Clients first: what is left of the reserve is not for background work either.
        let bulkhead = Bulkhead::new(4, 0, 0.25);
        let clients = [bulkhead.enter().await, bulkhead.enter().await, bulkhead.enter().await];
        assert!(clients.iter().all(Result::is_ok));
        assert!(bulkhead.enter_in_background().is_err());
    }

    #[tokio::test]
    async fn the_limit_adapts_as_places_become_free() {
        let bulkhead = Bulkhead::new(4, 0, 0.0);
        let first = bulkhead.enter().await.unwrap();
        let second = bulkhead.enter().await.unwrap();
        bulkhead.adapt(1); // one more than that are in flight already
        assert_eq!((bulkhead.in_flight(), bulkhead.limits().0), (2, 2));
        drop(first);
        bulkhead.adapt(1);
        assert_eq!((bulkhead.in_flight(), bulkhead.limits().0), (1, 1));
        assert!(bulkhead.enter().await.is_err());
        bulkhead.adapt(9);
        assert_eq!((bulkhead.in_flight(), bulkhead.limits().0), (1, 4));
        drop(second);
        assert_eq!(bulkhead.in_flight(), 0);
    }

    /// Polls once; whether the future waits.
    async fn futures_pending<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context).is_pending())
        })
        .await
    }
}
