//! What the resources of a replica's API share.

use std::sync::Arc;
use std::time::Instant;

use meridian_config::control::Control;

use crate::asker::Prefixes;
use crate::auth::Tokens;
use crate::control_store::ControlStore;
use crate::feed::Hub;
use crate::ledger::Ledger;
use crate::metrics::ControlMetrics;
use crate::peers::Peers;
use crate::raft::engine::Replication;

/// A running replica, as its resources see it.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Control,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) tokens: Tokens,
    pub(crate) prefixes: Prefixes,
    pub(crate) store: Arc<dyn ControlStore>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<ControlMetrics>,
    pub(crate) peers: Arc<Peers>,
    /// None: this replica is alone.
    pub(crate) raft: Option<Arc<Replication>>,
    pub(crate) started: Instant,
}
