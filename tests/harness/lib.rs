//! What the scenarios are played with: real processes, scripted origins, and clients.
//!
//! - [`wait`] the only place that waits by looking again and again
//! - [`binary`] finds the program; [`process`] one child of the test, and what became of it
//! - [`cluster`] a whole `meridian up`; [`control`] its control API; [`edge`] one edge alone, without
//!   a control plane
//! - [`origin`] an upstream that answers as the test says, and remembers who asked
//! - [`client`] requests over HTTP/1.1 and HTTP/2; [`raw`] bytes that no HTTP library would send
//! - [`raw_origin`] an upstream, [`raw_client`] and [`raw_h2`] clients, that keep to bytes and trust
//!   nobody
//! - [`site`] a folder with files to serve
//! - [`linear`] whether a recorded history is linearizable
//!
//! The harness knows what a person outside may rely on: the command line, `cluster.json`, the
//! configuration files and what crosses the sockets. It links none of the nodes.
//!
//! # Invariants
//! - Every process that a test starts is gone when its handle is dropped, and a test fails whose
//!   processes leave children behind.
//! - Nothing listens on a fixed port.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "whatever fails in here fails the test that called it, with its backtrace"
)]

pub mod wait;

pub mod binary;
pub mod process;

pub mod cluster;
pub mod control;
pub mod edge;
pub mod origin;

pub mod client;
pub mod raw;
pub mod raw_client;
pub mod raw_h2;
pub mod raw_origin;
pub mod site;

pub mod linear;
