//! What a site settles about a request before anything is asked: which rules match, its key, and what
//! HTTP and the rules demand. The road and `explain` ask the same functions.

use http::{HeaderMap, Method, Uri};
use meridian_config::control_loss::ControlLoss;
use meridian_config::query::Query;
use meridian_edge_rules::decide::{Decision, Forward, Fwd, Lookup, decide, decide_doubting};
use meridian_edge_rules::exchange::{Exchange, RequestView, ResponseView};
use meridian_edge_rules::storable::NotStorable;
use meridian_edge_rules::stored::StoredHead;
use meridian_edge_rules::time::Now;

use crate::key::{Parts, spelled, write_key_with};
use crate::route::{self, Site};
use crate::site_rules::{Matched, OfResponse, Seen};
use crate::store::Stored;

/// The rules of `site` that match a request, as far as the request says.
pub(crate) fn matched(site: &Site, method: &Method, target: &Uri, fields: &HeaderMap) -> Matched {
    if site.rules.is_empty() {
        return Matched::NONE;
    }
    let path = spelled(target.path());
    let seen = Seen {
        method,
        host: route::host(target, fields),
        path: &path,
        query: target.query(),
        headers: fields,
    };
    site.rules.matched(&seen)
}

/// The rules that match a GET for `target` of which nothing more is known: what a purge can say.
pub(crate) fn matched_by_url(site: &Site, target: &Uri) -> Matched {
    matched(site, &Method::GET, target, &HeaderMap::new())
}

/// Which parameters of a query count, and how.
pub(crate) fn query(site: &Site, matched: Matched) -> &Query {
    let ruled = if matched == Matched::NONE { None } else { site.rules.query(matched) };
    ruled.unwrap_or(&site.query)
}

/// Writes the key of a request.
pub(crate) fn write_key(
    into: &mut String,
    site: &Site,
    scheme: &str,
    target: &Uri,
    fields: &HeaderMap,
    matched: Matched,
) {
    let host = if site.preserve_host { route::authority(target, fields) } else { None };
    write_key_at(into, site, (scheme, host), target, fields, matched);
}

/// The same, where the host is known already; it is used where it is part of keys.
pub(crate) fn write_key_at(
    into: &mut String,
    site: &Site,
    (scheme, host): (&str, Option<&str>),
    target: &Uri,
    fields: &HeaderMap,
    matched: Matched,
) {
    let parts = Parts {
        site: &site.name,
        scheme,
        host: host.filter(|_| site.preserve_host),
        path: target.path(),
        query: target.query(),
    };
    write_key_with(into, &parts, query(site, matched), |into| {
        if matched != Matched::NONE {
            site.rules.write_key(into, matched, fields);
        }
    });
}

/// What to do with a request, given what the store holds and whether purges may have been missed.
pub(crate) fn decision(
    site: &Site,
    matched: Matched,
    request: &RequestView<'_>,
    found: Lookup<Stored>,
    now: Now,
) -> Decision<Stored> {
    let lost = site.lost(matched, now.mono);
    if lost != Some(ControlLoss::FailClosed) && !site.rules.bypasses(matched) {
        return match lost {
            Some(ControlLoss::Revalidate) => decide_doubting(request, found, &site.policy, now),
            Some(ControlLoss::ServeStale | ControlLoss::FailClosed) | None => {
                decide(request, found, &site.policy, now)
            }
        };
    }
    match decide(request, Lookup::UriMiss, &site.policy, now) {
        Decision::Forward(Forward { why: Fwd::UriMiss, validate, stale, .. }) => {
            Decision::Forward(Forward { why: Fwd::Bypass, validate, stale, store: false })
        }
        other => other, // its method, or only-if-cached
    }
}

/// What is stored of a response, if it may be, with what the rules say of it.
pub(crate) fn stored_head(
    site: &Site,
    matched: Matched,
    request: &RequestView<'_>,
    response: &ResponseView<'_>,
    times: &Exchange,
) -> Result<StoredHead, NotStorable> {
    if matched == Matched::NONE {
        return StoredHead::of(request, response, &site.policy, times);
    }
    let fields = response.headers;
    let said = site.rules.of_response(matched, &site.policy, response.status, fields);
    let kept = said.kept(fields);
    let view = ResponseView { status: response.status, headers: &kept };
    let mut head = StoredHead::of(request, &view, &said.policy, times)?;
    amend(&mut head, &said);
    Ok(head)
}

/// What a 304, or a 200 to HEAD, makes of a stored response whose fields rules have not changed
/// yet, with what they say of the response that the two make together.
pub(crate) fn freshened(
    site: &Site,
    matched: Matched,
    mut before: StoredHead,
    (request, response): (&HeaderMap, &HeaderMap),
    times: &Exchange,
) -> StoredHead {
    if matched == Matched::NONE {
        let head = before.freshened(response, &site.policy, times);
        return head.reselected(request, response, &site.policy);
    }
    let mut together = before.headers.clone();
    for name in response.keys() {
        together.remove(name);
        for value in response.get_all(name) {
            drop(together.try_append(name, value.clone()));
        }
    }
    let said = site.rules.of_response(matched, &site.policy, before.status, &together);
    let response = &*said.kept(response);
    said.strip(&mut before.headers);
    let head = before.freshened(response, &said.policy, times);
    let mut head = head.reselected(request, response, &said.policy);
    amend(&mut head, &said);
    head
}

fn amend(head: &mut StoredHead, said: &OfResponse) {
    if !said.amendment.rules.is_empty() {
        head.amend(&said.amendment);
    }
}
