//! Where orders wait for their turn.
//!
//! # Invariants
//! - An order that waits in vain is refused on time, and then nobody takes it any more: it has no
//!   effect. One that was taken is answered, or told to be unknown a quarter later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::control_store::Denied;
use crate::order::{Order, Outcome};
use crate::world;

/// Orders of one batch at most: bounds what the first of them waits for.
const MOST_AT_ONCE: usize = 1_024;

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const LEFT: u8 = 2;

/// An order that waits, and where its answer goes.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) order: Order,
    pub(super) size: usize,
    pub(super) deadline: Instant,
    pub(super) to: oneshot::Sender<Result<Outcome, Denied>>,
    turn: Arc<AtomicU8>,
}

/// Where orders go in.
#[derive(Debug, Clone)]
pub(super) struct Inbox {
    waiting: mpsc::Sender<Waiting>,
    patience: Duration,
}

/// Where they come out.
#[derive(Debug)]
pub(super) struct Outlet {
    waiting: mpsc::Receiver<Waiting>,
    /// Did not fit into the batch before.
    held: Option<Waiting>,
    most_bytes: usize,
}

/// Both ends.
pub(super) fn inbox(most: usize, most_bytes: usize, patience: Duration) -> (Inbox, Outlet) {
    let (waiting, orders) = mpsc::channel(most);
    (Inbox { waiting, patience }, Outlet { waiting: orders, held: None, most_bytes })
}

impl Inbox {
    /// What comes of `order`. Dropping the future does not take it back.
    pub(super) async fn order(&self, order: Order) -> Result<Outcome, Denied> {
        let (to, mut answer) = oneshot::channel();
        let deadline = world::now() + self.patience;
        let turn = Arc::new(AtomicU8::new(WAITING));
        let size = serde_json::to_vec(&order).map_or(0, |bytes| bytes.len());
        let waiting = Waiting { order, size, deadline, to, turn: Arc::clone(&turn) };
        match tokio::time::timeout(self.patience, self.waiting.send(waiting)).await {
            Ok(Ok(())) => {}
            Ok(Err(_closed)) => return Err(Denied::Ending),
            Err(_elapsed) => return Err(Denied::Busy),
        }
        let left = deadline.saturating_duration_since(world::now());
        if let Ok(told) = tokio::time::timeout(left, &mut answer).await {
            return told.unwrap_or(Err(Denied::Unknown));
        }
        if turn.compare_exchange(WAITING, LEFT, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return Err(Denied::NoQuorum);
        }
        match tokio::time::timeout(self.patience / 4, answer).await {
            Ok(told) => told.unwrap_or(Err(Denied::Unknown)),
            Err(_elapsed) => Err(Denied::Unknown),
        }
    }
}

impl Outlet {
    /// Waits for orders; none: nobody can order anything any more. Dropping it loses none.
    pub(super) async fn batch(&mut self) -> Option<Vec<Waiting>> {
        let first = match self.held.take() {
            Some(held) => held,
            None => self.waiting.recv().await?,
        };
        let (mut size, mut batch) = (first.size, Vec::new());
        self.take(first, &mut batch);
        while batch.len() < MOST_AT_ONCE
            && let Ok(next) = self.waiting.try_recv()
        {
            if size.saturating_add(next.size) > self.most_bytes {
                self.held = Some(next);
                break;
            }
            size = size.saturating_add(next.size);
            self.take(next, &mut batch);
        }
        Some(batch)
    }

    #[expect(clippy::unused_self, reason = "an order is taken out of here")]
    fn take(&self, waiting: Waiting, batch: &mut Vec<Waiting>) {
        let turn = &waiting.turn;
        if turn.compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            batch.push(waiting);
        }
    }

    /// Refuses whatever waits, and lets nothing more come.
    pub(super) fn close(&mut self) {
        self.waiting.close();
        let held = self.held.take();
        let rest = std::iter::from_fn(|| self.waiting.try_recv().ok());
        for waiting in held.into_iter().chain(rest) {
            drop(waiting.to.send(Err(Denied::Ending)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::inbox;
    use crate::control_store::Denied;
    use crate::order::{Order, Outcome};

    fn order(life: u64) -> Order {
        Order::Begin { life, cluster: [0; 16] }
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_nobody_takes_is_refused_on_time_and_never_taken_later() {
        let (inbox, mut outlet) = inbox(4, 1 << 20, Duration::from_millis(800));
        let late = inbox.order(order(1)).await;
        assert_eq!(late, Err(Denied::NoQuorum));
        assert_eq!(outlet.batch().await.map(|batch| batch.len()), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_was_taken_is_answered_or_unknown() {
        let (inbox, mut outlet) = inbox(4, 1 << 20, Duration::from_millis(800));
        let (told, batch) = tokio::join!(inbox.order(order(1)), outlet.batch());
        assert_eq!((told, batch.map(|batch| batch.len())), (Err(Denied::Unknown), Some(1)));
        let answering = async {
            for waiting in outlet.batch().await.unwrap() {
                waiting.to.send(Ok(Outcome::Begun)).unwrap();
            }
        };
        assert_eq!(tokio::join!(inbox.order(order(2)), answering).0, Ok(Outcome::Begun));
    }

    #[tokio::test]
    async fn a_batch_is_bounded_in_bytes_and_loses_no_order() {
        let size = serde_json::to_vec(&order(7)).unwrap().len();
        let (inbox, mut outlet) = inbox(8, 2 * size, Duration::from_secs(9));
        let orders = (1..=5).map(|_| inbox.order(order(7)));
        let taking = async {
            let mut sizes = Vec::new();
            while sizes.iter().sum::<usize>() < 5 {
                let batch = outlet.batch().await.unwrap();
                sizes.push(batch.len());
                for waiting in batch {
                    waiting.to.send(Ok(Outcome::Begun)).unwrap();
                }
            }
            sizes
        };
        let (told, sizes) = tokio::join!(futures_util::future::join_all(orders), taking);
        assert_eq!(sizes, [2, 2, 1]);
        assert!(told.iter().all(|one| *one == Ok(Outcome::Begun)));
    }
}
