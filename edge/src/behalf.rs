//! On whose behalf an origin is asked, since when they wait, and whether anybody still does.
//!
//! # Invariants
//! - A client waits from its own arrival on, whatever it waited for before: deadlines count from then.
//! - A fetch that nobody waits for any more goes on for the store, but gives its place to who waits for
//!   one, and never waits for one itself.

use std::future::pending;
use std::time::Instant;

use meridian_edge_rules::decide::Forward;
use meridian_edge_rules::reusable::{may_serve_stale_on_error, may_serve_when_disconnected};

use crate::asked::Asked;
use crate::collapse::{Lead, Wanted};
use crate::core::Core;
use crate::route::Site;
use crate::store::Stored;
use crate::upstream::Upstream;

/// Who needs the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A client that gets nothing else.
    Client,
    /// A client that may get something stale instead: that costs no retry.
    Covered,
    /// No client: what is stored is refreshed.
    Background,
}

/// See the module.
#[derive(Clone, Copy)]
pub(crate) struct Behalf<'a> {
    pub(crate) need: Need,
    pub(crate) since: Instant,
    /// The fetch, if only clients want it.
    lead: Option<&'a Lead>,
}

impl<'a> Behalf<'a> {
    /// Of one client, who leaves and takes the request along.
    pub(crate) const fn of_client(asked: &Asked, is_covered: bool) -> Self {
        let need = if is_covered { Need::Covered } else { Need::Client };
        Self { need, since: asked.since, lead: None }
    }

    /// Of all who wait for a flight.
    pub(crate) fn of_flight(
        core: &Core,
        site: &Site,
        lead: &'a Lead,
        forward: &Forward<Stored>,
    ) -> Self {
        let need = match lead.wanted {
            Wanted::ByStore => Need::Background,
            Wanted::ByClients if is_covered(core, site, forward) => Need::Covered,
            Wanted::ByClients => Need::Client,
        };
        let lead_ = (need == Need::Client).then_some(lead);
        Self { need, since: lead.flight.began(), lead: lead_ }
    }

    /// Waits until nobody wants it any more, and somebody else wants its place at `upstream`.
    ///
    /// Cancel safe.
    pub(crate) async fn outlived(&self, upstream: &Upstream) {
        let Some(lead) = self.lead else { return pending().await };
        loop {
            lead.forsaken().await;
            upstream.bulkhead.pressed().await;
            if !lead.is_awaited() {
                return;
            }
        }
    }
}

/// Whether what is stored may stand in for a failure now.
pub(crate) fn is_covered(core: &Core, site: &Site, forward: &Forward<Stored>) -> bool {
    let (policy, now) = (&site.policy, core.now());
    forward.stale.as_ref().is_some_and(|stored| {
        may_serve_stale_on_error(stored.head(), policy, now)
            || may_serve_when_disconnected(stored.head(), policy, now)
    })
}
