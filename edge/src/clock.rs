//! The only clock of the edge: everything else takes `now` as a value.
//!
//! A simulation hands in its own.

use std::fmt;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use meridian_edge_rules::time::Now;

/// Where the time comes from.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Wall and monotonic time, read together.
    fn now(&self) -> Now;
}

/// The clock handed through the edge.
pub(crate) type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may ask")]
    fn now(&self) -> Now {
        Now { wall: SystemTime::now(), mono: Instant::now() }
    }
}
