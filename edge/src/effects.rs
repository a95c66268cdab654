//! What an answer that one client gets for itself does to what is stored: an unsafe method
//! invalidates (RFC 9111 §4.4, RFC 9875), a HEAD updates or outdates (§4.3.5), and a POST may leave
//! what later GETs get (RFC 9110 §9.3.3).
//!
//! # Invariants
//! - Whatever was fetched before an unsafe method's answer came is not used after it, also where it
//!   was still on its way: invalidations are purge epochs of this edge alone.
//! - Nothing that an origin was told of one client, its host above all, gets into what others see.

use std::sync::Arc;

use http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use meridian_edge_rules::exchange::{Exchange, RequestView, ResponseView};
use meridian_edge_rules::groups::{CACHE_GROUP_INVALIDATION, groups};
use meridian_edge_rules::invalidate::{invalidated, invalidates, stands_for_get};
use meridian_edge_rules::stored::StoredHead;
use meridian_edge_rules::time::Now;

use crate::ask::Answered;
use crate::asked::Asked;
use crate::body::UpstreamBody;
use crate::collapse::{Lead, Seat};
use crate::core::Core;
use crate::epochs::{Mark, Stamp, Standing};
use crate::fetch;
use crate::fill::Fill;
use crate::key::CacheKey;
use crate::request_head::varies_by_edge;
use crate::route::Site;
use crate::scope::{Group, Selector, Strength};
use crate::settle as rules;
use crate::site_rules::Matched;
use crate::store::Fate;
use crate::tags::labels;

/// Taken before the request leaves.
pub(crate) struct Before {
    sent: Now,
    /// Only where the answer may be stored.
    stamp: Option<Stamp>,
}

impl Before {
    pub(crate) fn of(core: &Core, site: &Site, asked: &Asked) -> Self {
        let may_be_stored = asked.method == Method::POST && site.policy.store_post;
        let stamp =
            (may_be_stored && is_shareable(core, site, asked)).then(|| core.edge.epochs.stamp());
        Self { sent: core.now(), stamp }
    }
}

/// An answer that is to be stored while its client reads it.
pub(crate) struct Keep {
    lead: Lead,
    head: StoredHead,
    times: Exchange,
}

impl Keep {
    /// Begins to; the answer is where the seat is.
    pub(crate) fn begin(self, core: &Arc<Core>, site: &Arc<Site>, answered: Answered) -> Seat {
        fetch::keep(core, site, self.lead, self.head, answered, self.times)
    }
}

/// Does to the store what the answer does, before its client sees it. `None`: the answer is for its
/// client alone.
pub(crate) fn settle(
    core: &Core,
    site: &Site,
    asked: &Asked,
    before: Before,
    answered: &Answered,
) -> Option<Keep> {
    let status = answered.response.status();
    if asked.method == Method::HEAD {
        head(core, site, asked, before.sent, &answered.response);
    }
    if !invalidates(&asked.method, status) {
        return None;
    }
    let targets = targets(site, asked, answered);
    let times = Exchange { sent: before.sent, received: core.now() };
    let posted =
        before.stamp.and_then(|stamp| posted(core, site, asked, &targets, stamp, &times, answered));
    let seen = core.edge.epochs.current();
    // Stands now, before the invalidation: only that may come in between.
    let posted = posted.filter(|posted| posted.stands(core));
    let epoch = invalidate(core, site, asked, &targets, answered.response.headers());
    let Posted { key, head, .. } = posted.filter(|_| epoch == seen + 1)?;
    let lead = core.edge.collapse.lead_alone(&key, core.now().mono);
    (lead.flight.stamp() == epoch).then_some(Keep { lead, head, times })
}

/// Whether others may see what an origin answers to this request: it is told no host that the
/// configuration does not know.
fn is_shareable(core: &Core, site: &Site, asked: &Asked) -> bool {
    let told = asked.told_host();
    told.is_none_or(|host| core.edge.knows(site, host))
        || (site.preserve_host && told == asked.authority.as_deref())
}

/// The target as the client named it, and as the origin knows it: an origin that gets its own
/// authority as `Host` writes that into what it says of locations.
fn targets(site: &Site, asked: &Asked, answered: &Answered) -> Vec<Uri> {
    let client = asked.authority.as_deref().unwrap_or("localhost");
    let origin = answered.upstream.authority.to_str().ok().filter(|_| !site.preserve_host);
    let named = |authority: &str| {
        let target = Uri::builder().scheme("http").authority(authority);
        target.path_and_query(asked.target.as_str()).build().ok()
    };
    [Some(client), origin].into_iter().flatten().filter_map(named).collect()
}

/// The key of a GET for `target` with the fields of this request, and the rules that match it.
fn key(site: &Site, asked: &Asked, target: &Uri) -> (CacheKey, Matched) {
    let matched = rules::matched(site, &Method::GET, target, &asked.headers);
    let at = (asked.scheme, asked.authority.as_deref());
    let mut key = String::new();
    rules::write_key_at(&mut key, site, at, target, &asked.headers, matched);
    (CacheKey::from(key.as_str()), matched)
}

fn own_key(site: &Site, asked: &Asked) -> (CacheKey, Matched) {
    let target = Uri::builder().scheme("http").path_and_query(asked.target.as_str());
    let host = asked.authority.as_deref().unwrap_or("localhost");
    key(site, asked, &target.authority(host).build().unwrap_or_default())
}

/// Forgets what an unsafe request has changed, and returns the number of that.
fn invalidate(core: &Core, site: &Site, asked: &Asked, targets: &[Uri], answer: &HeaderMap) -> u64 {
    let mut keys = vec![own_key(site, asked).0];
    for uri in targets.iter().flat_map(|target| invalidated(target, answer)) {
        let (key, _) = key(site, asked, &uri);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let groups = groups(answer, &CACHE_GROUP_INVALIDATION);
    let host = keys.first().map_or("", |key| key.place().host);
    let groups = groups.iter().map(|name| Selector::Group(Group { site: &site.name, host, name }));
    let urls = keys.iter().map(|key| Selector::Url(key.place()));
    let epoch = core.edge.epochs.apply(urls.chain(groups), Strength::Hard);
    for key in &keys {
        core.edge.store.invalidate(key.as_str()); // not used any more: the memory is free at once
    }
    epoch
}

/// What a POST leaves for later GETs.
struct Posted {
    key: CacheKey,
    head: StoredHead,
    mark: Mark,
    /// Keeps the purges since then from being forgotten.
    _stamp: Stamp,
}

impl Posted {
    /// Whether no purge since the request left has named it.
    fn stands(&self, core: &Core) -> bool {
        core.edge.epochs.standing(&self.mark, || self.key.place()) == Standing::Current
    }
}

fn posted(
    core: &Core,
    site: &Site,
    asked: &Asked,
    targets: &[Uri],
    stamp: Stamp,
    times: &Exchange,
    answered: &Answered,
) -> Option<Posted> {
    let response = &answered.response;
    let fields = response.headers();
    let view = ResponseView { status: response.status(), headers: fields };
    if !targets.iter().any(|target| stands_for_get(target, &view)) || varies_by_edge(fields) {
        return None;
    }
    // As if it had been a GET, whose answer it stands for.
    let request = RequestView { method: &Method::GET, headers: &asked.headers };
    let (key, matched) = own_key(site, asked);
    let mut head = rules::stored_head(site, matched, &request, &view, times).ok()?;
    if let Some(fill) = Fill::of(response) {
        fill.may_be_stored().then_some(())?;
        fill.limit(&mut head);
    }
    let is_fresh = !site.rules.bypasses(matched)
        && head.lifetime_from.is_explicit()
        && head.ttl(times.received) > 0;
    if !is_fresh || !fetch::fits(core, response.body()) {
        return None;
    }
    let labels = labels(&core.edge.epochs, &key.place(), fields, fields);
    Some(Posted { mark: Mark::new(stamp.epoch(), labels), key, head, _stamp: stamp })
}

/// What a HEAD says of what is stored (RFC 9111 §4.3.5): that it is still so, or that it is not.
fn head(core: &Core, site: &Site, asked: &Asked, sent: Now, response: &Response<UpstreamBody>) {
    let is_gone = [StatusCode::NOT_FOUND, StatusCode::GONE].contains(&response.status());
    if !is_gone && response.status() != StatusCode::OK
        || asked.headers.contains_key(header::AUTHORIZATION)
        || !is_shareable(core, site, asked)
    {
        return;
    }
    let times = Exchange { sent, received: core.now() };
    let (key, matched) = own_key(site, asked);
    core.edge.store.update(&key, |stored| {
        let about = stored.head();
        if about.arrived > sent.mono || !about.vary.matches(&asked.headers) {
            return Fate::Keep; // newer than what the HEAD speaks of, or another variant
        }
        let length = stored.body().len();
        if is_gone || !about.validators.told_by_head(response.headers(), length) {
            return Fate::Replace(stored.outdated(times.received));
        }
        // Its body was not looked at: it is as old as it was to purges.
        let stamp = stored.mark().stamp();
        let request = &asked.headers;
        let (fill, response, times) = (Fill::of(response), response.headers(), &times);
        let update = fetch::Update { request, response, times, matched, stamp, fill };
        Fate::Replace(fetch::freshened(core, site, &key, stored, &update))
    });
}
