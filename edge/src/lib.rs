//! One request at an edge, from accept to respond, and everything it meets on its way.
//!
//! The road, in the order in which [`serve`] goes it:
//! - [`accept`] listeners, permits, drain · [`connection`] limits in time
//! - [`route`] host to site · [`key`] what a response is stored under
//! - [`store`] lookup, insert, evict · `meridian_edge_rules::decide` what HTTP demands
//! - [`collapse`] one fetch for many · [`fetch`] one upstream exchange · [`flow`] a body that is
//!   still arriving · [`upstream`] deadlines, connections, places · [`request_head`],
//!   [`request_body`] on the way up
//! - [`respond`], [`body`] the answer
//!
//! Beside it: [`core`] what cores share and what each has · [`register`] the register of the
//! control plane · [`admin`], [`explain`], [`access`], [`metrics`], [`counters`], [`outcome`] what it tells · [`clock`] the
//! only clock · [`error`].
//!
//! Absent on purpose: how control replicas agree; purges, breakers and retries, which have their
//! places in [`fetch`] and [`upstream`] and come with issues of their own.

mod accept;
mod access;
mod admin;
mod asked;
mod body;
pub mod clock;
mod collapse;
mod connection;
mod core;
mod counters;
pub mod epochs;
#[cfg(test)]
mod epochs_laws;
pub mod error;
mod explain;
mod fetch;
mod flow;
mod key;
mod lengths;
mod line;
mod metrics;
mod outcome;
mod purge;
mod register;
mod request_body;
mod request_head;
mod respond;
mod route;
mod run;
pub mod scope;
mod serve;
mod sites;
mod staleness;
mod store;
mod stream;
mod sweep;
mod sync;
mod tags;
mod upstream;

pub use crate::run::{Addresses, Bound, bind, run};
