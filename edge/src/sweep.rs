//! Looks through the store now and then: drops what was purged, so that purges can be forgotten.
//!
//! Nothing waits for it: what was purged is not used from the moment of the purge on. It costs a
//! look at every stored response, and so comes seldom (`purge.sweep_pause`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::core::Edge;
use crate::error::RunError;
use crate::world;

/// See the module.
pub(crate) struct Sweeper(pub(crate) Arc<Edge>);

impl Sweeper {
    /// # Errors
    /// When a look ends by a panic.
    pub(crate) async fn run(
        self,
        pause: Duration,
        stop: CancellationToken,
    ) -> Result<(), RunError> {
        let mut swept = 0;
        while stop.run_until_cancelled(sleep(pause)).await.is_some() {
            let epochs = &self.0.epochs;
            let current = epochs.current();
            if current == swept && epochs.selectors() == 0 {
                continue;
            }
            let (edge, stopped) = (Arc::clone(&self.0), stop.clone());
            let look = move || edge.store.sweep(|| !stopped.is_cancelled());
            let dropped =
                world::apart(look).await.map_err(|error| RunError::Panicked(error.to_string()))?;
            debug!(dropped, selectors = epochs.selectors(), "looked through the store");
            self.0.purges.counters.swept.fetch_add(dropped as u64, Ordering::Relaxed);
            swept = current;
        }
        Ok(())
    }
}
