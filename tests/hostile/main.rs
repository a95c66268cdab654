//! Clients and origins that mean harm, or are broken: what they send, byte for byte, and what an
//! edge makes of it. A real edge process, raw sockets on both of its sides.
//!
//! - [`smuggling`] requests that two readers could take for different ones, over HTTP/1; [`shapes`]
//!   the table of these · [`downgrade`] the same from HTTP/2
//! - [`answers`] of origins that are broken
//! - [`poisoning`] of the store, and deception
//! - [`fuzzing`] arbitrary bytes from both sides

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "whatever fails in here fails the test, with its backtrace"
)]

mod answers;
mod downgrade;
mod fuzzing;
mod poisoning;
mod shapes;
mod smuggling;
