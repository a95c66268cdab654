//! An origin over real sockets, seen by clients that look at every byte.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of tests: what is not as expected fails the test that asked it"
)]

mod client;
mod running;

mod serving;

mod conditions;
mod ranges;

mod changes;
mod synthetic;

mod faults;
mod orders;

mod admin;
mod counts;

mod limits;
