//! One request at an edge, from accept to respond, and everything it meets on its way.
//!
//! The road, in the order in which [`serve`] goes it:
//! - [`accept`] listeners, permits, drain · [`connection`] limits in time,
//!   [`watched`] its bytes · [`framing`] where each
//!   message ends, [`frames`] what of HTTP/2 moves a message · [`suspect`], [`unkeyed`], [`answer_head`] what could be taken for another
//! - [`refuse`] what no site is asked about · [`route`] host to site, [`languages`] that it has ·
//!   [`settle`] which of its [`site_rules`] match, and what follows · [`key`] what a response is
//!   stored under
//! - [`store`] lookup, insert, evict · `meridian_edge_rules::decide` what HTTP demands
//! - [`collapse`] one fetch for many, [`waiter`] what it is to each, [`cover`] how long · [`fetch`] brings one in ·
//!   [`ask`] which origin is asked and how often, on whose [`behalf`], [`resilience`] as its site wants it ·
//!   [`flow`] a body that is still arriving · [`upstream`] deadlines, connections, places,
//!   [`upkeep`] of it · [`asked`], [`request_head`], [`request_body`], [`body_memory`],
//!   [`hops`] on the way up
//! - [`ranged`] less than the whole, by its [`course`]: [`parts`] by themselves, [`slices`],
//!   [`slice_fetch`] and their [`assembly`] · [`stored_body`] what is held of a response ·
//!   [`reuse`] from the store · [`background`] refreshed
//! - [`effects`] of an answer on what is stored · [`respond`], [`body`] the answer, in the
//!   [`forms`] that [`negotiate`] chooses · [`interim`] what comes before it · [`tunnel`] what is
//!   no HTTP any more
//!
//! Off the road: [`compress`] makes coded forms of stored responses, [`coder`] codes.
//!
//! Purges: [`epochs`] what they leave of what is stored, with [`scope`], [`lengths`] and [`sync`]
//! below it · [`purge`] what they say in this edge's terms · [`tags`] of a response · [`stream`]
//! brings them, over a [`line`](mod@line) · [`staleness`] how old that knowledge is,
//! [`control_lag`] as the hit path asks it, [`control_doubt`] what comes of it · [`sweep`]
//! lets them go.
//!
//! Other edges of this CDN: [`nodes`] who is one, [`shields`] which is asked, [`cursors`] what they can
//! say of purges, [`tell`] what a shield says of an answer, [`fill`] what that is worth,
//! [`shield_metrics`].
//!
//! Beside it: [`core`] what cores share and what each has · [`register`] the register of the
//! control plane, [`ring`] which replica of it is asked · [`sites`] which sites there are, at run
//! time · [`admin`], [`explain`], [`tokens`] for changes · [`not_stored`], [`unfit`], [`access`],
//! [`metrics`], [`counters`], [`usage`],
//! [`outcome`] what it tells · [`clock`] the only clock ·
//! [`error`].
//!
//! Absent on purpose: how control replicas agree; a third tier.

mod accept;
mod access;
mod admin;
mod answer_head;
mod ask;
mod asked;
mod assembly;
mod background;
mod behalf;
mod body;
mod body_memory;
pub mod clock;
mod coder;
mod collapse;
mod compress;
mod connection;
mod control_doubt;
mod control_lag;
mod core;
mod counters;
mod course;
mod cover;
mod cursors;
mod effects;
pub mod epochs;
#[cfg(test)]
mod epochs_laws;
pub mod error;
mod explain;
mod fetch;
mod fill;
mod flow;
mod forms;
mod frames;
mod framing;
mod hops;
mod interim;
mod key;
mod languages;
mod lengths;
mod line;
mod metrics;
mod negotiate;
mod nodes;
mod not_stored;
mod outcome;
mod pace;
mod parts;
mod purge;
mod ranged;
mod refuse;
mod register;
mod request_body;
mod request_head;
mod resilience;
mod respond;
mod reuse;
mod ring;
mod route;
mod run;
pub mod scope;
mod serve;
mod settle;
mod shield_metrics;
mod shields;
mod site_rules;
mod sites;
mod slice_fetch;
mod slices;
mod staleness;
#[cfg(test)]
mod staleness_laws;
mod store;
mod stored_body;
mod stream;
mod suspect;
mod sweep;
mod sync;
mod tags;
mod tell;
mod tokens;
mod tunnel;
mod unfit;
mod unkeyed;
mod upkeep;
mod upstream;
mod usage;
mod waiter;
mod watched;
mod world;

pub use crate::run::{Addresses, Bound, bind, run};
