//! A request of a route that does not trust what is stored, as purges may have been missed
//! ([`crate::control_lag`]): what it may share, and what its answer says.
//!
//! `revalidate`: what is stored is validated for each request. A fetch that is under way already may
//! be shared if it began within the route's `max_control_lag`: what it brings is as the origin had
//! it then, so it can have missed no purge that is older.
//! `fail_closed`: nothing stored is used, and nothing is shared.

use std::time::{Duration, Instant};

use http::{Response, StatusCode};
use meridian_config::control_loss::ControlLoss;
use meridian_edge_rules::cache_status::CacheStatus;
use meridian_edge_rules::decide::{Forward, Fwd};

use crate::asked::Asked;
use crate::body::Body;
use crate::core::Core;
use crate::counters::Lagging;
use crate::error::FetchError;
use crate::respond;
use crate::route::Site;
use crate::site_rules::Matched;
use crate::store::Stored;

/// What a route that revalidates doubts for one request.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    /// The lag in words; `None`: there is no doubt.
    words: Option<String>,
    /// The age of a fetch that may be shared.
    share: Duration,
}

/// Where nothing is doubted.
pub(crate) static NO_DOUBT: Doubt = Doubt { words: None, share: Duration::MAX };

impl Doubt {
    pub(crate) fn of(core: &Core, site: &Site, asked: &Asked, forward: &Forward<Stored>) -> Self {
        let now = core.now().mono;
        if !doubts(site, asked.matched, now) {
            return Self { words: None, share: Duration::MAX };
        }
        if forward.validate.is_some() || forward.stale.is_some() {
            core.lagging(site, Lagging::Revalidated);
        }
        Self { words: site.lag_in_words(now), share: site.max_control_lag(asked.matched) }
    }

    /// Whether a fetch that is under way since `began` may be shared.
    pub(crate) fn allows(&self, began: Instant, now: Instant) -> bool {
        now.saturating_duration_since(began) <= self.share
    }

    /// For `Cache-Status`.
    pub(crate) fn detail(&self) -> Option<&str> {
        self.words.as_deref()
    }
}

/// Whether a route validates what is stored now before each use.
pub(crate) fn doubts(site: &Site, matched: Matched, now: Instant) -> bool {
    site.lost(matched, now) == Some(ControlLoss::Revalidate)
}

/// A request that goes past the store.
#[derive(Debug)]
pub(crate) struct Closed {
    /// The lag in words; `None`: its route is not closed.
    words: Option<String>,
}

impl Closed {
    /// The request goes forward for the reason `why`.
    pub(crate) fn of(core: &Core, site: &Site, asked: &Asked, why: Fwd) -> Self {
        let now = core.now().mono;
        let is_closed = why == Fwd::Bypass
            && site.lost(asked.matched, now) == Some(ControlLoss::FailClosed)
            && !site.rules.bypasses(asked.matched);
        if is_closed {
            core.lagging(site, Lagging::Bypassed);
        }
        Self { words: site.lag_in_words(now).filter(|_| is_closed) }
    }

    /// For `Cache-Status`.
    pub(crate) fn detail(&self) -> Option<&str> {
        self.words.as_deref()
    }

    /// No origin answered either; `None`: its route is not closed.
    pub(crate) fn refused(
        &self,
        core: &Core,
        site: &Site,
        asked: &Asked,
        error: &FetchError,
        status: &CacheStatus<'_>,
    ) -> Option<Response<Body>> {
        self.words.as_ref()?;
        core.lagging(site, Lagging::Refused);
        let detail = "the control plane cannot be reached, so that nothing stored may be used, and \
                      the origin gave no answer";
        let (code, told) = (StatusCode::SERVICE_UNAVAILABLE, ("control_lost", detail));
        let mut response =
            respond::own_error(&core.edge.name, error.token(), &asked.method, code, told);
        respond::add_cache_status(response.headers_mut(), status);
        Some(response)
    }
}
