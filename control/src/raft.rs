//! Replicas that agree on one order of batches, by openraft.
//!
//! - `raft/log.rs`: the log and the vote. `raft/state.rs`: the machine as the log drives it
//! - `raft/types.rs`: what the log is made of. `raft/snapshot.rs`: files that stand for its past
//! - `raft/rpc.rs`: what replicas send each other. `raft/network.rs`: what this one says,
//!   `raft/listener.rs`: what it hears
//! - `raft/proposer.rs`: from orders to batches. `raft/store.rs`: the store over all of it, and how
//!   fresh a read is. `raft/members.rs`: who belongs to the cluster. `raft/engine.rs`: start, end,
//!   and how things are

pub(crate) mod engine;
pub(crate) mod listener;
pub(crate) mod log;
pub(crate) mod members;
pub(crate) mod network;
pub(crate) mod open;
pub(crate) mod proposer;
pub(crate) mod rpc;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod store;
pub(crate) mod types;

#[cfg(test)]
mod tests;
