//! What every node of this package does when it starts and when it ends.

use std::net::SocketAddr;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::RunError;
use crate::world::{self, TcpListener};

/// Joins `tasks`; whoever ends first, by order or by panic, ends the rest.
pub(crate) async fn joined(
    mut tasks: JoinSet<()>,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        stop.cancel();
        outcome = outcome.and(ended.map_err(RunError::Broke));
    }
    outcome
}

/// Binds `address`, that the configuration calls `key`.
pub(crate) async fn listen(
    key: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), RunError> {
    let broken = |source| RunError::Listen { key, address, source };
    let listener = world::listen(address).await.map_err(broken)?;
    let bound = listener.local_addr().map_err(broken)?;
    Ok((listener, bound))
}

/// Refuses an address beyond loopback where there are no tokens.
pub(crate) fn guarded(
    key: &'static str,
    address: SocketAddr,
    tokenless: bool,
) -> Result<(), RunError> {
    if tokenless && !address.ip().to_canonical().is_loopback() {
        return Err(RunError::Unguarded { key, address });
    }
    Ok(())
}
