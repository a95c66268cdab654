//! What upstreams need now and then, whether or not clients come: connections that nobody uses are
//! closed in time, breakers cool down, checks are made.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::core::Edge;
use crate::error::RunError;
use crate::upstream::checks::check;

/// Between two looks: a connection outlives its time by no more than this.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks after the upstreams of `edge` until `stop`.
///
/// # Errors
/// Never: what upstreams do is no reason to end.
pub(crate) async fn upkeep(edge: Arc<Edge>, stop: CancellationToken) -> Result<(), RunError> {
    let mut checks = JoinSet::new();
    for upstream in edge.upstreams.iter().filter(|upstream| upstream.checks.path.is_some()) {
        checks.spawn(stop.clone().run_until_cancelled_owned(check(Arc::clone(upstream))));
    }
    while stop.run_until_cancelled(sleep(PAUSE)).await.is_some() {
        let now = edge.clock.now().mono;
        for upstream in &edge.upstreams {
            upstream.pools.reap(now);
            upstream.guard.tick(now);
        }
    }
    Ok(())
}
