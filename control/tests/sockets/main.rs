//! A replica and a front door over real sockets, with edges of which every step is scripted.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is a test's verdict"
)]

mod cable;
mod cluster;
#[cfg(feature = "etcd")]
mod etcd_server;
mod kit;
mod listening;

mod agreement;
mod edges;
#[cfg(feature = "etcd")]
mod etcd_api;
mod explain;
mod following;
mod front;
mod leasing;
mod limits;
mod log;
mod members;
mod purges;
mod regions;
mod registers;
mod start;
mod stream;
