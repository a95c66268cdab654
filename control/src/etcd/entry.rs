//! What stands in the keys of etcd: entries of the log, the base, and who hears the edges.

use meridian_config::units::NodeName;
use serde::{Deserialize, Serialize};

use crate::order::Batch;

/// One entry of the log, as a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Proposal {
    /// By chance: two equal batches are still two proposals, and their bytes differ.
    pub(super) nonce: u64,
    pub(super) by: NodeName,
    pub(super) batch: Batch,
}

/// What stands for the log up to an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    pub(super) index: u64,
    /// Where its pieces are, below the snapshots.
    pub(super) name: String,
    pub(super) pieces: u32,
}

/// Who hears the edges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hearer {
    pub(super) name: NodeName,
    /// Of this run of it: the one before cannot be taken for it.
    pub(super) run: u64,
}
