//! What the resources of a replica's API share.

use std::sync::Arc;
use std::time::Instant;

use meridian_config::control::Control;
use meridian_config::control::etcd::CpEngine;

use crate::agreement::AgreementView;
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
    /// None: this replica is alone, or another engine brings it and others to one order.
    pub(crate) raft: Option<Arc<Replication>>,
    pub(crate) started: Instant,
}

impl Context {
    /// How the order that this replica shares with others is; none: it is alone.
    pub(crate) fn agreement(&self) -> Option<AgreementView> {
        self.raft.as_ref().map_or_else(|| self.store.agreement(), |raft| Some(raft.view()))
    }

    /// Whether nobody else can be asked.
    pub(crate) fn is_alone(&self) -> bool {
        self.raft.is_none() && self.config.cp.engine == CpEngine::Raft
    }
}
