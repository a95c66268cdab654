//! Of requests with one key, one at a time.
//!
//! # Invariants
//! - A key is free again when its turn is dropped, however its request ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The keys whose requests are at work.
#[derive(Debug, Default, Clone)]
pub(crate) struct Turns(Arc<Mutex<HashMap<String, watch::Sender<()>>>>);

/// The right to work on a key, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Turns,
    key: String,
}

impl Turns {
    fn held(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn; or what ends when the one that has it is done.
    pub(crate) fn take(&self, key: &str) -> Result<Turn, watch::Receiver<()>> {
        let mut held = self.held();
        match held.get(key) {
            Some(busy) => Err(busy.subscribe()),
            None => {
                held.insert(key.to_owned(), watch::Sender::new(()));
                Ok(Turn { turns: self.clone(), key: key.to_owned() })
            }
        }
    }

    /// The turn, as soon as nobody has it. Cancel safe.
    pub(crate) async fn wait(&self, key: &str) -> Turn {
        loop {
            match self.take(key) {
                Ok(turn) => return turn,
                // It ends by an error, when the sender is gone.
                Err(mut busy) => while busy.changed().await.is_ok() {},
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.held().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::Turns;

    #[tokio::test]
    async fn a_key_has_one_turn_and_the_next_comes_when_it_is_dropped() {
        let turns = Turns::default();
        let first = turns.wait("a").await;
        assert!(turns.take("a").is_err());
        drop(turns.take("b").unwrap());
        let second = turns.wait("a");
        tokio::pin!(second);
        assert!(timeout(Duration::ZERO, &mut second).await.is_err());
        drop(first);
        let second = timeout(Duration::from_secs(5), second).await.unwrap();
        drop(second);
        assert!(turns.held().is_empty());
    }
}
