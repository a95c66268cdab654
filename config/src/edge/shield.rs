//! `[shield]`: edges that other edges ask instead of the origins.

use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::units::{HumanDuration, NodeName};

/// The table.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Shield {
    /// The edges that this one asks before the origins, by the names of their `[[origin]]`: for
    /// each URL one of them, the next one if that cannot be reached, and then the origins. Default:
    /// none; it is a shield itself, if anything.
    #[serde(default)]
    pub nodes: Vec<NodeName>,
    /// The file with the secret that the edges of this CDN show each other.
    pub secret_file: PathBuf,
    /// How long a request of another edge waits for a purge that this one has not heard of yet;
    /// then it goes past the store and all fetches under way to the origin. Default 100ms.
    #[serde(default = "default_catch_up")]
    pub catch_up: HumanDuration,
    /// Places in the stream of purges that are remembered to compare with what other edges say.
    /// Default 16384.
    #[serde(default = "default_max_cursors")]
    pub max_cursors: NonZeroU32,
}

fn default_catch_up() -> HumanDuration {
    HumanDuration::millis(100) // what a purge takes around half the world
}
fn default_max_cursors() -> NonZeroU32 {
    NonZeroU32::new(16_384).unwrap_or(NonZeroU32::MIN) // at 150 bytes each: 2.5 MB
}
