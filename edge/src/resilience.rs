//! What a site wants of its origins when they fail, settled once per site. A profile is a set of
//! defaults, nothing else.

use std::time::Duration;

use meridian_config::edge::{Profile, Site};
use meridian_config::units::HumanDuration;

use crate::upstream::choice::Rule;

/// Longer than most answers take, shorter than most people's patience.
const STALE_PATIENCE: Duration = Duration::from_secs(1);
/// One try a second for a dead URL; who mends it does not notice.
const FAILURE_LIFETIME: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resilience {
    /// How many of its origins, from the first on, are no backups.
    pub(crate) own_origins: usize,
    pub(crate) choice: Rule,
    /// Whether retries and breakers hold where an origin does not say it itself.
    pub(crate) is_on: bool,
    /// How long a client waits while something stale may stand in; `None`: to the end.
    pub(crate) stale_patience: Option<Duration>,
    /// How long a failed fetch is the answer to all who ask for the same.
    pub(crate) failure_lifetime: Duration,
}

impl Resilience {
    pub(crate) fn of(site: &Site) -> Self {
        let (is_on, patience, failures) = match site.profile {
            Profile::Cdn => (true, Some(STALE_PATIENCE), FAILURE_LIFETIME),
            Profile::Rfc => (false, None, Duration::ZERO),
        };
        Self {
            own_origins: site.origins.len(),
            choice: Rule { spreads: site.spread, panic_threshold: site.panic_threshold.get() },
            is_on: site.resilience.unwrap_or(is_on),
            stale_patience: site.stale_patience.map(HumanDuration::get).or(patience),
            failure_lifetime: site.failure_lifetime.map_or(failures, HumanDuration::get),
        }
    }
}
