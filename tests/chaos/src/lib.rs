//! Link proxies: every link between two nodes of a local cluster goes through one, so that it can
//! be cut, delayed, narrowed and reset while the nodes know nothing of it.
//!
//! - [`net`] all links of a cluster, on threads of their own: start, change, end
//! - [`names`] which nodes a word means · [`order`] what may be asked for · [`view`] what is told
//! - [`shape`] how one way of a link behaves; `line` the bytes on their way and when each is due
//!   (pure); `pace` a rate that connections share (pure)
//! - `link` one link's state and counters; `gate` its listener; `relay` one connection
//! - `table` all links, found by name; `api` the same over HTTP; `tokens` who may; `problem` how it
//!   says no
//!
//! A link leads from the node that dials to the node that is dialled, and has two ways: *there*,
//! from the dialer, and *back*. What a person cuts is named by who sends the bytes, whoever
//! dialled.
//!
//! # Invariants
//! - A cut way delivers nothing, not even later: bytes that were under way are gone, a connection
//!   attempt hangs as it does when packets vanish, and connections that were open are reset when
//!   the cut is healed.
//! - Bytes keep their order, whatever the jitter.
//! - Memory is bounded: who may hold no more reads no more, and the sender is held back by TCP.
//! - A link with nothing set costs two copies and no allocation per piece.
//!
//! # Deviations
//! - The kernel completes a TCP handshake before anybody can delay it. A delayed link makes up for
//!   it after the handshake: the first byte moves one round trip later.
//! - A node that is not there refuses connections; through a link they are reset instead.
//!
//! Absent on purpose: anything about HTTP (faults of answers are the origin's), and losing single
//! packets, which TCP would hide.

pub mod names;
pub mod shape;

pub mod order;
pub mod view;

mod line;
mod pace;

mod gate;
mod link;
mod relay;

mod problem;
mod table;

mod api;
mod tokens;

pub mod error;
pub mod net;
