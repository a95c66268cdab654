//! What a site does when the edge may have missed purges: `control_loss` and `max_control_lag`.

use serde::{Deserialize, Serialize};

use crate::units::HumanDuration;

/// What is done with stored responses while the control plane has not been heard for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlLoss {
    /// They are used as ever, and `Cache-Status` says how old the knowledge of purges may be.
    #[default]
    ServeStale,
    /// Each use is validated first; where that fails, the rules of `stale_if_error` decide.
    Revalidate,
    /// They are not used at all; without an origin the answer is 503.
    FailClosed,
}

impl ControlLoss {
    /// The word in configuration, `explain` and metrics.
    pub const fn token(self) -> &'static str {
        match self {
            Self::ServeStale => "serve_stale",
            Self::Revalidate => "revalidate",
            Self::FailClosed => "fail_closed",
        }
    }
}

/// The default of `max_control_lag`: many beats, and some elections.
pub(crate) fn default_max_lag() -> HumanDuration {
    HumanDuration::secs(10)
}

/// The least `max_control_lag`: below a few beats it would be too long ago all the time.
pub(crate) const LEAST_LAG: HumanDuration = HumanDuration::millis(100);

/// The greatest.
pub(crate) const MOST_LAG: HumanDuration = HumanDuration::secs(365 * 86_400);
