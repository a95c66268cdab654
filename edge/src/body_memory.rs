//! Memory for request bodies that are held until they are whole (`accept.body_memory`).
//!
//! A body is charged by the length that it announces, before its first byte is waited for: who is
//! slow to send what was announced is charged for it all the while.
//!
//! # Invariants
//! - What is held is never more than the limit, whatever clients announce.
//! - What was taken is given back when the last holder is gone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    free: Arc<Semaphore>,
    limit: usize,
}

/// Memory that is taken, until the last clone is gone.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    _taken: Arc<OwnedSemaphorePermit>,
}

impl BodyMemory {
    pub(crate) fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(limit)), limit }
    }

    /// `bytes` of it, if they fit now.
    pub(crate) fn take(&self, bytes: u64) -> Option<Held> {
        let bytes = u32::try_from(bytes).ok()?;
        let taken = Arc::clone(&self.free).try_acquire_many_owned(bytes).ok()?;
        Some(Held { _taken: Arc::new(taken) })
    }

    pub(crate) fn used(&self) -> u64 {
        self.limit.saturating_sub(self.free.available_permits()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_stays_within_the_limit_and_comes_back_with_the_last_holder() {
        let memory = BodyMemory::new(100);
        let first = memory.take(60).unwrap();
        assert!(memory.take(41).is_none());
        let (second, third) = (memory.take(40).unwrap(), memory.take(0));
        assert_eq!(memory.used(), 100);
        assert!(third.is_some() && memory.take(1).is_none());
        let again = first.clone();
        drop((first, second));
        assert_eq!(memory.used(), 60, "a clone still holds it");
        drop(again);
        assert_eq!(memory.used(), 0);
        assert!(memory.take(u64::MAX).is_none());
    }
}
