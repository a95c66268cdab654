//! Replicas that follow one order of batches, which an etcd cluster keeps.
//!
//! etcd only orders: each replica applies the same batches to the same machine as with any other
//! engine, so that repeated keys, conditions and cursors are the machine's here as there.
//!
//! - `etcd/log.rs`: the keys, and each transaction on them. `etcd/entry.rs`: what stands in them
//! - `etcd/inbox.rs`: where orders wait. `etcd/driver.rs`: from orders to entries, from entries to
//!   the machine. `etcd/history.rs`: how far this replica is (`etcd/place.rs`), and that it is of this very
//!   history.
//!   `etcd/snapshot.rs`: what takes the place of the log's beginning
//! - `etcd/hearing.rs`: which replica hears the edges. `etcd/shared.rs`: what all of it knows
//! - `etcd/store.rs`: the store over all of it. `etcd/open.rs`: start and end
//!
//! Absent on purpose: encryption towards etcd, and the care for etcd itself (members, backups,
//! compaction of its revisions): both are its operators'.

pub(crate) mod open;
pub(crate) mod store;

mod driver;
mod entry;
mod hearing;
mod history;
mod inbox;
mod log;
mod place;
mod shared;
mod snapshot;
