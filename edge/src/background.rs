//! What was served stale is refreshed behind the client's back (RFC 5861 §3).

use std::sync::Arc;

use http::{Method, Request};
use hyper::body::Incoming;
use meridian_edge_rules::decide::Decision;
use meridian_edge_rules::exchange::RequestView;

use crate::asked::{Asked, Peer};
use crate::collapse::{Role, Wanted};
use crate::core::Core;
use crate::fetch;
use crate::key::CacheKey;
use crate::route::Site;
use crate::settle;

/// Refreshes what was just served stale (RFC 5861 §3), unless somebody does already or too many
/// such fetches run.
pub(crate) fn in_background(
    core: &Arc<Core>,
    site: &Arc<Site>,
    key: CacheKey,
    request: Request<Incoming>,
    peer: Peer<'_>,
) {
    let Ok(permit) = Arc::clone(&core.edge.background).try_acquire_owned() else { return };
    let (mut head, _empty) = request.into_parts();
    head.method = Method::GET;
    let asked = Arc::new(Asked::new(head, peer));
    let demand = core.edge.epochs.demand(&key.place());
    let role = core.edge.collapse.join(&key, &asked.headers, &[], demand, core.now().mono);
    let Role::Leader(mut lead) = role else { return };
    // Looked up again, now that purges are remembered for the sake of this fetch.
    let view = RequestView { method: &asked.method, headers: &asked.headers };
    let now = core.now();
    let found = core.edge.store.lookup(key.as_str(), &asked.headers, now);
    let forward = match settle::decision(site, asked.matched, &view, found, now) {
        Decision::Serve { revalidate: None, .. } | Decision::Unsatisfiable => return,
        Decision::Serve { revalidate: Some(forward), .. } | Decision::Forward(forward) => forward,
    };
    lead.wanted = Wanted::ByStore;
    let fetching = fetch::lead(Arc::clone(core), Arc::clone(site), asked, lead, forward);
    drop(core.tasks.spawn(async move {
        fetching.await;
        drop(permit);
    }));
}
