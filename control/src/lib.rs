//! The control plane: which edges there are, how they are, and where clients go.
//!
//! - [`run`] and [`replica`]: a replica, from a checked configuration to a drained end.
//!   [`front`]: the front door, a process of its own that follows any replica
//! - `api` and `api/`: one file per resource, over what `context` holds. `ledger`: what this
//!   replica knows of the edges, in memory (`register` pure), told by the machine (`watcher`).
//!   `auth`: who may
//! - `control_store`: the seam behind which changes are ordered and kept. `order`: what a replica
//!   is told to do. `machine`: what that does to its rows on `disk`, the same in every engine; its
//!   pure parts: `purges` (what left the log), `registers`, `lives` (whose cursors are of this
//!   history). The engines: `single` for a replica that is alone; `raft` for replicas that agree;
//!   `etcd` (a feature) for replicas that follow one. `agreement`: how they show themselves
//! - `feed`: the streams to the edges. `delivery`: who has applied what, pure. `leases`: who has
//!   stopped by now to use what it did not hear of, pure
//! - `health`: from beats to states, pure. `steer`: from a place to an edge, pure. `asker`: from
//!   what a client says to a place, pure
//! - `server`: accepting, limits, drain. `answer`: problems and JSON. `dial`: asking another node
//! - `node`: start and end of every node. `metrics`: every name. `world`: the only clock,
//!   randomness and sockets
//!
//! # Invariants
//! - Whatever changes state needs a token or an edge's own secret, and is logged with its name.
//! - What is acknowledged is on disk, except beats: those are only ever memory.
//! - A node is dialled by its name through `[peers]`; an address from the network is the last
//!   resort, and only for an edge's admin listener.
//!
//! Absent on purpose: everything about HTTP caching.

mod agreement;
mod answer;
mod api;
mod asker;
mod auth;
mod context;
mod control_store;
mod delivery;
mod dial;
mod disk;
#[cfg(feature = "etcd")]
mod etcd;
mod feed;
mod health;
mod leases;
mod ledger;
mod lives;
mod machine;
mod metrics;
mod node;
mod order;
mod peers;
mod purges;
mod raft;
mod register;
mod registers;
mod server;
mod single;
mod steer;
mod watcher;
mod world;

pub mod error;
pub mod front;
pub mod replica;

use meridian_config::control::Control;
use tokio_util::sync::CancellationToken;

use crate::error::RunError;

/// Runs a replica until `stop` is cancelled and what was in flight is answered or, after
/// `limits.drain_timeout`, cut.
///
/// # Errors
/// What keeps it from starting (before anything is answered), or a task of its own that failed.
pub async fn run(config: Control, stop: CancellationToken) -> Result<(), RunError> {
    replica::bind(config).await?.serve(stop).await
}
