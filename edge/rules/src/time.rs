//! The time at which something is decided, brought by the caller.
//!
//! # Invariants
//! - Wall time settles how old a response was when it arrived; from then on only monotonic time
//!   counts, so that a stepped clock does not age the store.

use std::time::{Duration, Instant, SystemTime};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time of day, comparable with `Date` and `Expires`.
    pub wall: SystemTime,
    /// Time that never goes back.
    pub mono: Instant,
}

/// The greatest delta-seconds that the rules calculate with; what exceeds it counts as it (§1.2.2).
pub const MAX_SECONDS: u64 = 1 << 31;

/// [`MAX_SECONDS`] as a duration.
pub const MAX_DELTA: Duration = Duration::from_secs(MAX_SECONDS);
