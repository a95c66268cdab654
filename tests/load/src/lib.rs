//! The load generator behind `meridian load`: asks the edges of several regions, closed loop, for
//! objects by Zipf's law or for the requests of a trace, and says what share of it the origin saw.
//!
//! In reading order:
//! - [`options`] what a run is made of; [`endpoint`], [`sizes`], [`spread`] values in it
//! - [`catalogue`] which objects there are: the trace file that an origin serves them from, and
//!   the list of what a running origin serves
//! - [`trace`] reads request traces; `place` chooses region and edge; `workload` makes the stream of
//!   requests; `feed` hands it to the connections of each region
//! - `client` one connection; [`cache_status`] what an answer claims; `tally` counts
//! - `counts` what the origin counted; [`run`](mod@run) the whole run
//! - [`arrivals`] requests at a fixed rate, whatever becomes of them, and many at once: what the
//!   narrated scenarios ask with; [`seen`] what came of them
//! - [`report`] the figures; [`table`] the figures for people
//!
//! Absent on purpose: a schedule of arrivals in [`run`](mod@run) (that loop is closed: latencies
//! are those of a client that waits for each answer), any use of the edge's own packages (what is
//! measured is what crosses the sockets), and printing (progress and report go to the caller).
//!
//! [`run::run`] spreads its connections over the threads of the tokio runtime that it is called
//! in. Call it in a multi-thread runtime with as many workers as the machine can spare; its time
//! and I/O drivers must be on.
//!
//! # Invariants
//! - Equal options, seed included, ask for equal requests in an equal order within each region.
//! - Memory does not grow with the number of requests, only with the number of distinct objects
//!   (8 bytes for each at each edge).

pub mod arrivals;
pub mod cache_status;
pub mod catalogue;
mod client;
mod counts;
pub mod endpoint;
pub mod error;
mod feed;
pub mod options;
mod place;
pub mod report;
pub mod run;
pub mod seen;
pub mod sizes;
pub mod spread;
pub mod table;
mod tally;
pub mod trace;
mod workload;
