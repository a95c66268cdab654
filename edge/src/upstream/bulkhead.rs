//! Requests in flight to one origin, and requests that wait for their turn: both bounded.
//!
//! What finds the queue full is shed at once: waiting longer would help nobody. Background work does
//! not queue, and leaves a reserve of places to clients. Requests that go on as their client sends
//! them take no more than a share of both: a place is held for as long as its client likes then, and
//! who only reads must not pay for that.
//!
//! # Invariants
//! - Never more than `max_requests` are in flight.
//! - Of these never more than `max_requests` less the reserve are in the background.
//! - Of these never more than the share of uploads are uploads, and one may always be.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// The places of one origin, shared by all cores.
#[derive(Debug)]
pub(crate) struct Bulkhead {
    places: Arc<Semaphore>,
    /// Places that background work may take.
    background: Arc<Semaphore>,
    /// Places that uploads may take.
    uploads: Arc<Semaphore>,
    /// Places that nobody may take for now, as the limit adapts.
    withheld: Mutex<Vec<OwnedSemaphorePermit>>,
    max_requests: u32,
    reserve: u32,
    waiting: AtomicU32,
    /// Somebody has begun to wait.
    joined: Notify,
    max_queue: u32,
    /// With so many waiting uploads wait no more.
    upload_queue: u32,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _place: OwnedSemaphorePermit,
    /// That of its kind.
    _of_kind: Option<OwnedSemaphorePermit>,
}

/// How many and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) max_requests: u32,
    pub(crate) max_queue: u32,
    /// The share of the places that background work leaves to clients.
    pub(crate) reserve: f64,
    /// The share of places and queue that uploads may take.
    pub(crate) uploads: f64,
}

/// Which client waits for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    /// One that has sent all of its request.
    Client,
    /// One that is still sending it.
    Upload,
}

/// Both are full.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) limit: u32,
}

impl Bulkhead {
    pub(crate) fn new(size: Size) -> Arc<Self> {
        let Size { max_requests, max_queue, reserve, uploads } = size;
        let reserve = part(max_requests, reserve);
        let semaphore = |places: u32| Arc::new(Semaphore::new(places as usize));
        Arc::new(Self {
            places: semaphore(max_requests),
            background: semaphore(max_requests.saturating_sub(reserve)),
            uploads: semaphore(part(max_requests, uploads).max(1)),
            withheld: Mutex::default(),
            max_requests,
            reserve,
            waiting: AtomicU32::new(0),
            joined: Notify::new(),
            max_queue,
            upload_queue: part(max_queue, uploads).max(1),
        })
    }

    /// What is said when there is no place.
    pub(crate) fn full(&self) -> Full {
        Full { limit: self.max_requests }
    }

    /// A place, at once or after waiting in the queue.
    ///
    /// Cancel safe: a waiter that is dropped leaves the queue.
    pub(crate) async fn enter(self: &Arc<Self>, rank: Rank) -> Result<Place, Full> {
        match self.enter_now(rank) {
            Ok(place) => return Ok(place),
            Err(TryAcquireError::NoPermits) => {}
            Err(TryAcquireError::Closed) => return Err(self.full()),
        }
        let most = if rank == Rank::Upload { self.upload_queue } else { self.max_queue };
        let Some(_waiter) = Waiter::join(self, most) else { return Err(self.full()) };
        let wait = async |places: &Arc<Semaphore>| Arc::clone(places).acquire_owned().await;
        let of_kind = match rank {
            Rank::Client => None,
            Rank::Upload => Some(wait(&self.uploads).await.map_err(|_closed| self.full())?),
        };
        let place = wait(&self.places).await.map_err(|_closed| self.full())?;
        Ok(Place { _place: place, _of_kind: of_kind })
    }

    fn enter_now(&self, rank: Rank) -> Result<Place, TryAcquireError> {
        let of_kind = match rank {
            Rank::Client => None,
            Rank::Upload => Some(Arc::clone(&self.uploads).try_acquire_owned()?),
        };
        let place = Arc::clone(&self.places).try_acquire_owned()?;
        Ok(Place { _place: place, _of_kind: of_kind })
    }

    /// A place for work that no client waits for, at once or not at all.
    pub(crate) fn enter_in_background(self: &Arc<Self>) -> Result<Place, Full> {
        let background = Arc::clone(&self.background).try_acquire_owned();
        let background = background.map_err(|_none| self.full())?;
        if self.places.available_permits() <= self.reserve as usize {
            return Err(self.full());
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_none| self.full())?;
        Ok(Place { _place: place, _of_kind: Some(background) })
    }

    /// Waits until somebody waits for a place.
    ///
    /// Cancel safe.
    pub(crate) async fn pressed(&self) {
        while self.waiting() == 0 {
            self.joined.notified().await;
        }
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

/// A share of `whole`, rounded up.
fn part(whole: u32, share: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a u32")]
    let part = (f64::from(whole) * share.clamp(0.0, 1.0)).ceil() as u32;
    part
}

/// A place in the queue.
struct Waiter<'a>(&'a AtomicU32);

impl<'a> Waiter<'a> {
    /// Unless `most` wait already.
    fn join(bulkhead: &'a Bulkhead, most: u32) -> Option<Self> {
        let more = |n: u32| (n < most).then_some(n + 1);
        bulkhead.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        bulkhead.joined.notify_one(); // one who leaves makes room for one
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

    fn bulkhead(max_requests: u32, max_queue: u32, reserve: f64) -> Arc<Bulkhead> {
        Bulkhead::new(Size { max_requests, max_queue, reserve, uploads: 0.5 })
    }

    #[tokio::test]
    async fn uploads_leave_their_share_of_places_and_queue_to_others() {
        let rows = [(4, 0.5, 2), (4, 0.0, 1), (4, 1.0, 4), (1, 0.5, 1), (10, 0.25, 3)];
        for (places, uploads, want) in rows {
            let size = Size { max_requests: places, max_queue: 4, reserve: 0.0, uploads };
            let bulkhead = Bulkhead::new(size);
            let mut held = Vec::new();
            while let Ok(place) = bulkhead.enter_now(Rank::Upload) {
                held.push(place);
            }
            assert_eq!(held.len(), want, "{places} {uploads}");
            let rest = places as usize - want;
            let others: Vec<_> =
                std::iter::from_fn(|| bulkhead.enter_now(Rank::Client).ok()).collect();
            assert_eq!(others.len(), rest, "{places} {uploads}: who only reads has the rest");
            // Others that wait leave no room in the queue to uploads, but uploads do to others.
            let mut waiting = Vec::new();
            let mut uploading = 0;
            loop {
                let mut upload = Box::pin(bulkhead.enter(Rank::Upload));
                if !futures_pending(&mut upload).await {
                    break;
                }
                uploading += 1;
                waiting.push(upload);
            }
            let most = part(4, uploads).max(1);
            assert_eq!(uploading, most, "{places} {uploads}");
            let mut reader = Box::pin(bulkhead.enter(Rank::Client));
            let waits = futures_pending(&mut reader).await;
            assert_eq!(waits, most < 4, "{places} {uploads}: there is room left in the queue");
        }
    }

    #[tokio::test]
    async fn one_past_places_and_queue_is_shed_at_once() {
        let bulkhead = bulkhead(1, 1, 0.0);
        let first = bulkhead.enter(Rank::Client).await.unwrap();
        let mut second = Box::pin(bulkhead.enter(Rank::Client));
        assert!(futures_pending(&mut second).await, "the second waits");
        assert_eq!(bulkhead.waiting(), 1);
        assert_eq!(bulkhead.enter(Rank::Client).await.map(drop), Err(Full { limit: 1 }));
        drop(first);
        assert!(second.await.is_ok(), "the second moves up");
        assert_eq!(bulkhead.waiting(), 0);
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_frees_its_place_in_the_queue() {
        let bulkhead = bulkhead(1, 1, 0.0);
        let _first = bulkhead.enter(Rank::Client).await.unwrap();
        let mut second = Box::pin(bulkhead.enter(Rank::Client));
        assert!(futures_pending(&mut second).await);
        drop(second);
        assert_eq!(bulkhead.waiting(), 0);
    }

    #[tokio::test]
    async fn background_work_leaves_the_reserve_to_clients() {
        let rows = [(4, 0.25, 3), (4, 0.0, 4), (4, 1.0, 0), (1, 0.25, 0), (10, 0.25, 7)];
        for (places, reserve, want) in rows {
            let bulkhead = bulkhead(places, 0, reserve);
            let background: Vec<_> =
                std::iter::from_fn(|| bulkhead.enter_in_background().ok()).collect();
            assert_eq!(background.len(), want, "{places} {reserve}");
            for _ in want..places as usize {
                std::mem::forget(bulkhead.enter(Rank::Client).await.unwrap());
            }
            drop(background);
        }
        // Clients first: what is left of the reserve is not for background work either.
        let bulkhead = bulkhead(4, 0, 0.25);
        let clients = [
            bulkhead.enter(Rank::Client).await,
            bulkhead.enter(Rank::Client).await,
            bulkhead.enter(Rank::Client).await,
        ];
        assert!(clients.iter().all(Result::is_ok));
        assert!(bulkhead.enter_in_background().is_err());
    }

    #[tokio::test]
    async fn the_limit_adapts_as_places_become_free() {
        let bulkhead = bulkhead(4, 0, 0.0);
        let first = bulkhead.enter(Rank::Client).await.unwrap();
        let second = bulkhead.enter(Rank::Client).await.unwrap();
        bulkhead.adapt(1); // one more than that are in flight already
        assert_eq!((bulkhead.in_flight(), bulkhead.limits().0), (2, 2));
        drop(first);
        bulkhead.adapt(1);
        assert_eq!((bulkhead.in_flight(), bulkhead.limits().0), (1, 1));
        assert!(bulkhead.enter(Rank::Client).await.is_err());
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
