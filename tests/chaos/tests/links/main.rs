//! Every behaviour of a link, over real sockets.

#![expect(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod api;
mod passing;
mod rig;
mod severing;
mod shaping;
