//! Replicas that agree on one order of batches, by openraft.
//!
//! - `raft/types.rs`: what the log is made of. `raft/snapshot.rs`: files that stand for its past

pub(crate) mod snapshot;
pub(crate) mod types;
