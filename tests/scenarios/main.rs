//! Stories about a whole cluster or a lone edge, played with the real program.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failing helper fails its test")]

mod bad_input;
mod front_door;
mod herd;
mod links;
mod load;
mod recovery;
mod serving;
mod shutdown;
mod upstream;
