//! What upstreams need now and then, whether or not clients come: connections that nobody uses are
//! closed in time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::core::Edge;

/// Between two looks: a connection outlives its time by no more than this.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks after the upstreams of `edge` until `stop`.
pub(crate) async fn upkeep(edge: Arc<Edge>, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(PAUSE)).await.is_some() {
        let now = edge.clock.now().mono;
        for upstream in &edge.upstreams {
            upstream.pools.reap(now);
        }
    }
}
