//! What is told of the registered edges to whoever keeps them in memory.

use std::fmt::Debug;
use std::time::Duration;

use meridian_config::units::{NodeName, Region};
use meridian_control_wire::{EdgeState, Intent, Registration};
use serde::{Deserialize, Serialize};

use crate::auth::Fingerprint;

/// An edge as it stands on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EdgeRow {
    pub(crate) registration: Registration,
    pub(crate) secret: Fingerprint,
    /// How it was when this row was written.
    pub(crate) state: EdgeState,
    /// When it was last heard, as far as `state` needs it: milliseconds of wall time since 1970.
    pub(crate) heard_at_ms: u64,
}

impl EdgeRow {
    /// For how long the edge had not been heard at `wall`. A clock that stepped back counts as
    /// standing still.
    pub(crate) fn unheard(&self, wall: Duration) -> Duration {
        wall.saturating_sub(Duration::from_millis(self.heard_at_ms))
    }
}

/// What happened to the edges.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EdgeEvent {
    Enrolled { registration: Box<Registration>, secret: Fingerprint },
    Removed(NodeName),
    Intended { region: Region, intent: Intent },
    Recorded { name: NodeName, state: EdgeState },
}

/// All that is known of the edges.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct EdgesSaved {
    pub(crate) edges: Vec<EdgeRow>,
    pub(crate) intents: Vec<(Region, Intent)>,
    /// How many changes there have been, ever.
    pub(crate) position: u64,
}

/// Whoever keeps the edges in memory.
pub(crate) trait EdgeWatcher: Debug + Send + Sync {
    /// This is all there is: what was told before does not count.
    fn restored(&self, saved: EdgesSaved);
    /// This happened, and no reader has seen it yet.
    fn happened(&self, events: Vec<EdgeEvent>, position: u64);
}

/// Nobody keeps them.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Unwatched;

#[cfg(test)]
impl EdgeWatcher for Unwatched {
    fn restored(&self, _saved: EdgesSaved) {}
    fn happened(&self, _events: Vec<EdgeEvent>, _position: u64) {}
}
