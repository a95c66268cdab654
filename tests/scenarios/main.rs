//! Stories about a whole cluster or a lone edge, played with the real program.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failing helper fails its test"
)]

mod bad_input;
mod breakers;
mod broken_bodies;
mod control_input;
mod demos;
mod front_door;
mod herd;
mod links;
mod load;
mod lost_replies;
mod purge_delivery;
mod purging;
mod recovery;
mod serving;
mod shield;
mod shutdown;
mod slow_origin;
mod slowloris;
mod upstream;
