//! One fetch: have an origin asked ([`crate::ask`]), judge the answer, bring the body in.
//!
//! [`lead`] is the task of a collapsed fetch: it outlives the client that began it and always lands
//! its flight. Nothing here answers clients.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use meridian_edge_rules::age::age_value;
use meridian_edge_rules::decide::Forward;
use meridian_edge_rules::exchange::{Exchange, RequestView, ResponseView};
use meridian_edge_rules::storable::NotStorable;
use meridian_edge_rules::stored::StoredHead;
use meridian_edge_rules::validate::Validators;
use tracing::debug;

use crate::ask::{Answered, ask_for};
use crate::asked::Asked;
use crate::behalf::{Behalf, is_covered};
use crate::body::UpstreamBody;
use crate::collapse::{Landing, Lead, Partial, Seat, Wanted};
use crate::core::Core;
use crate::epochs::{Mark, Standing};
use crate::error::{BodyError, FetchError};
use crate::fill::Fill;
use crate::flow::{Flow, Pushed};
use crate::forms::Forms;
use crate::key::CacheKey;
use crate::negotiate::{self, first_forms, will_have_forms};
use crate::nodes::Asker;
use crate::not_stored::Reason;
use crate::request_body::RequestBody;
use crate::request_head::{Purpose, varies_by_edge};
use crate::route::Site;
use crate::settle;
use crate::site_rules::Matched;
use crate::store::{Fate, Stored};
use crate::stored_body::StoredBody;
use crate::tags::labels;
use crate::tell;
use crate::unfit;
use crate::upstream::Upstream;

/// Labels for purging and instructions for surrogates: for the edge, not for clients.
const SURROGATE: [&str; 3] = ["surrogate-key", "cache-tag", "surrogate-control"];

/// The task of a collapsed fetch: asks, lands the flight, brings the body in, stores it.
pub(crate) async fn lead(
    core: Arc<Core>,
    site: Arc<Site>,
    asked: Arc<Asked>,
    lead: Lead,
    forward: Forward<Stored>,
) {
    // The flight took its stamp when it began. What a hard purge took since the lookup is no base
    // of a condition: an answer that it has not changed would bring it back.
    let sent = core.now();
    let mut validate = forward.validate.clone().filter(|stored| {
        let standing = core.edge.store.standing(lead.key().as_str(), stored);
        asked.method == http::Method::GET && standing != Standing::Purged
    });
    let purpose = validate
        .as_ref()
        .map_or(Purpose::Store, |stored| Purpose::Validate(&stored.head().validators));
    let behalf = Behalf::of_flight(&core, &site, &lead, &forward);
    let mut answered = ask_for(&core, &site, &asked, RequestBody::Empty, purpose, behalf).await;
    if let (Ok(Answered { response, .. }), Some(stored)) = (&answered, &validate)
        && response.status() == StatusCode::NOT_MODIFIED
        && !stored.head().validators.confirmed_by(response.headers())
    {
        // It speaks of another representation than the stored one: ask without conditions.
        validate = None;
        let purpose = Purpose::Store;
        answered = ask_for(&core, &site, &asked, RequestBody::Empty, purpose, behalf).await;
    }
    let answered = match answered {
        Ok(answered) => answered,
        Err(error) => return failed(&core, &site, &lead, error),
    };
    let times = Exchange { sent, received: core.now() };
    let key = lead.key().clone();
    let hold = Hold { lead: &lead, key: &key, forward: &forward, validate: validate.as_ref() };
    settle(&core, &site, &asked, hold, answered, &times).await;
}

/// What a leader has in hand when the head of the answer is there.
#[derive(Clone, Copy)]
pub(crate) struct Hold<'a> {
    pub(crate) lead: &'a Lead,
    /// What the answer is stored under.
    pub(crate) key: &'a CacheKey,
    pub(crate) forward: &'a Forward<Stored>,
    /// Whose validators went along.
    pub(crate) validate: Option<&'a Stored>,
}

/// Judges an answer that is no part of a representation, lands the flight, and brings it in.
pub(crate) async fn settle(
    core: &Core,
    site: &Site,
    asked: &Asked,
    hold: Hold<'_>,
    answered: Answered,
    times: &Exchange,
) {
    let Hold { lead, key, forward, validate } = hold;
    let Answered { response, upstream } = answered;
    let fill = Fill::of(&response);
    if let Some(fill) = fill {
        lead.flight.fill(fill.stamp());
    }
    let (head, body) = response.into_parts();

    if head.status == StatusCode::NOT_MODIFIED {
        let Some(stored) = validate else {
            let (upstream, reason) = (upstream.name.clone(), "304 to a request without conditions");
            let error = FetchError::HttpProtocolError { upstream, reason };
            return lead.flight.land(Landing::Failed(Arc::new(error)));
        };
        let update = Update {
            request: &asked.headers,
            response: &head.headers,
            times,
            matched: asked.matched,
            stamp: lead.flight.filled(),
            fill,
        };
        let stored = validated(core, site, key, stored, &update);
        return lead.flight.land(Landing::Validated(stored));
    }
    let refuse = head.status.is_server_error() && forward.stale.is_some();
    let request = RequestView { method: &asked.method, headers: &asked.headers };
    let view = ResponseView { status: head.status, headers: &head.headers };
    let is_unknown = fill.is_some_and(|fill| !fill.may_be_stored());
    let refuse = refuse || (is_unknown && head.status.is_server_error());
    let mut storable = match settle::stored_head(site, asked.matched, &request, &view, times) {
        Ok(_) if is_unknown && !refuse => {
            let response = Response::from_parts(head, body);
            return unfit::leave_unknown(core, (lead, key), response, times.received);
        }
        Ok(stored) if !refuse && fits(core, &body) && !varies_by_edge(&head.headers) => stored,
        unstored @ (Ok(_) | Err(_)) => {
            if let Err(NotStorable::NoStore | NotStorable::Private) = unstored {
                supersede(core, key, &request, &view, times);
            }
            let why = unfit::reason(unstored.err(), refuse, fits(core, &body));
            let response = Response::from_parts(head, body);
            return unfit::leave(core, (lead, key), &upstream, response, why, times.received);
        }
    };
    if let Some(fill) = fill {
        fill.limit(&mut storable);
    }
    let goal = Goal { lead, key, forward: Some(forward), upstream: &upstream };
    let stored = bring_in(core, site, goal, storable, body, times).await;
    negotiate::prepare(core, site, &asked.headers, stored.as_ref());
}

/// What is stored is not what a newer answer says, though that may not take its place: it is fresh
/// no more. A failure says nothing of it.
fn supersede(
    core: &Core,
    key: &CacheKey,
    request: &RequestView<'_>,
    newer: &ResponseView<'_>,
    times: &Exchange,
) {
    if !newer.status.is_success() && !newer.status.is_redirection() {
        return;
    }
    core.edge.store.update(key, |old| {
        let (head, now) = (old.head(), times.received);
        let is_older = head.arrived <= times.sent.mono && head.vary.matches(request.headers);
        if is_older && head.ttl(now) > 0 { Fate::Replace(old.outdated(now)) } else { Fate::Keep }
    });
}

/// Lands a fetch that has failed.
pub(crate) fn failed(core: &Core, site: &Site, lead: &Lead, error: FetchError) {
    if let FetchError::ProxyInternalError = error {
        // Nobody wanted it when it was given up. Who has come since then begins anew.
        return lead.flight.land(Landing::Stored);
    }
    // An answer says by itself, or by the site's lifetimes of failures, for how long it is one.
    if error.is_lasting() && !site.resilience.failure_lifetime.is_zero() {
        lead.flight.fail_until(core.now().mono + site.resilience.failure_lifetime);
    }
    lead.flight.land(Landing::Failed(Arc::new(error)));
}

/// Whether a body of the length that was announced may be kept.
pub(crate) fn fits(core: &Core, body: &UpstreamBody) -> bool {
    let limits = &core.edge.cache;
    let most = limits.max_body.get().min(limits.in_flight.get());
    body.size_hint().lower() <= most
}

/// What a 304, or a 200 to HEAD, says anew of a stored response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Update<'a> {
    /// The fields of the request that it answers.
    pub(crate) request: &'a HeaderMap,
    pub(crate) response: &'a HeaderMap,
    pub(crate) times: &'a Exchange,
    /// The rules of the site that match the request.
    pub(crate) matched: Matched,
    /// Purges applied when what is stored was last known to be right. What it has been known
    /// before is kept.
    pub(crate) stamp: u64,
    /// What it is worth, if it came through a shield.
    pub(crate) fill: Option<Fill>,
}

/// Stores what a 304 makes of the stored response that was validated, and of every other one that
/// the request could have been answered with and that is the same by a strong validator
/// (RFC 9111 §4.3.4).
fn validated(
    core: &Core,
    site: &Site,
    key: &CacheKey,
    stored: &Stored,
    update: &Update<'_>,
) -> Stored {
    let anew = freshened(core, site, key, stored, update);
    let (before, after) = (&stored.head().vary, &anew.head().vary);
    let strong = Validators::of(update.response).etag.filter(|tag| !tag.weak);
    core.edge.store.update(key, |other| {
        let head = other.head();
        if head.vary == *before {
            // The very one. Selected by other fields from now on, it leaves the place it had.
            return if before == after { Fate::Keep } else { Fate::Drop };
        }
        let is_same = strong.as_ref().is_some_and(|theirs| {
            head.validators.etag.as_ref().is_some_and(|ours| ours.strong_eq(theirs))
        });
        if is_same && head.vary.matches(update.request) {
            Fate::Replace(freshened(core, site, key, other, update))
        } else {
            Fate::Keep
        }
    });
    core.edge.store.insert(key, &anew);
    anew
}

/// A stored response with what is said of it anew (RFC 9111 §3.2).
pub(crate) fn freshened(
    core: &Core,
    site: &Site,
    key: &CacheKey,
    stored: &Stored,
    update: &Update<'_>,
) -> Stored {
    let Update { request, response, times, matched, stamp, fill } = *update;
    // As it came from upstream: what instructs surrogates governs on where the 304 says nothing of
    // it.
    let mut before = stored.head().clone();
    before.unamend();
    for name in stored.surrogate().keys() {
        before.headers.remove(name);
        for value in stored.surrogate().get_all(name) {
            before.headers.append(name.clone(), value.clone());
        }
    }
    let mut head = settle::freshened(site, matched, before, (request, response), times);
    if let Some(fill) = fill {
        fill.limit(&mut head);
    }
    let surrogate = prepare(site, &mut head, times);
    set_length(&mut head, stored.body().len());
    let first = first_forms(site, key, &mut head, stored.body());
    let forms = first.map(|first| stored.forms().map_or(first, Forms::renewed));
    let labels = labels(&core.edge.epochs, &key.place(), &surrogate, &head.headers);
    let mark = Mark::new(stamp.max(stored.mark().stamp()), labels);
    Stored::new(head, surrogate, stored.body().clone(), mark).with_forms(forms)
}

/// Stores an answer that only its own client waits for, while that reads it.
pub(crate) fn keep(
    core: &Arc<Core>,
    site: &Arc<Site>,
    lead: Lead,
    head: StoredHead,
    answered: Answered,
    times: Exchange,
) -> Seat {
    let seat = lead.seat();
    let (core_, site_) = (Arc::clone(core), Arc::clone(site));
    drop(core.tasks.spawn(async move {
        let Answered { response, upstream } = answered;
        let (key, body) = (lead.key().clone(), response.into_body());
        let goal = Goal { lead: &lead, key: &key, forward: None, upstream: &upstream };
        bring_in(&core_, &site_, goal, head, body, &times).await;
    }));
    seat
}

/// Makes a head fit to be sent to any client, and returns what is not for clients.
pub(crate) fn prepare(site: &Site, head: &mut StoredHead, times: &Exchange) -> HeaderMap {
    let mut surrogate = HeaderMap::new();
    for name in SURROGATE {
        let Ok(name) = header::HeaderName::from_bytes(name.as_bytes()) else { continue };
        for value in head.headers.get_all(&name) {
            surrogate.append(name.clone(), value.clone());
        }
        if !site.expose_surrogate_fields {
            head.headers.remove(&name);
        }
    }
    if !head.headers.contains_key(header::DATE) {
        // RFC 9110 §6.6.1: who stores a response without Date gives it one.
        let date = httpdate::fmt_http_date(times.received.wall);
        if let Ok(date) = HeaderValue::from_str(&date) {
            head.headers.insert(header::DATE, date);
        }
    }
    surrogate
}

/// Makes a response that only one client gets fit to be sent to it.
pub(crate) fn for_client(
    site: &Site,
    matched: Matched,
    asker: &Asker,
    mut response: Response<UpstreamBody>,
) -> Response<UpstreamBody> {
    let status = response.status();
    let said = (matched != Matched::NONE)
        .then(|| site.rules.of_response(matched, &site.policy, status, response.headers()));
    if !site.expose_surrogate_fields && asker.is_none() {
        for name in SURROGATE {
            response.headers_mut().remove(name);
        }
    }
    tell::of_origin(asker, &mut response);
    // What rules make of an answer for clients, the other edge makes of it itself.
    if let Some(said) = said.filter(|_| asker.is_none()) {
        said.strip(response.headers_mut());
        let age = age_value(response.headers());
        said.amendment.apply(response.headers_mut(), age);
    }
    let length = response.body().size_hint().exact();
    let status = response.status();
    will_have_forms(site, status, response.headers_mut(), length);
    response
}

/// What has no body by its status says no length of one (RFC 9110 §8.6).
fn set_length(head: &mut StoredHead, length: u64) {
    if head.status == StatusCode::NO_CONTENT {
        head.headers.remove(header::CONTENT_LENGTH);
    } else {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// How much of a body is still brought in for the store alone, once the last client has left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leftover {
    /// `cache.finish_abandoned`.
    bytes: u64,
    /// As long as an answer may take to begin.
    time: Duration,
}

impl Leftover {
    pub(crate) fn of(core: &Core, upstream: &Upstream) -> Self {
        Self { bytes: core.edge.cache.finish_abandoned.get(), time: upstream.limits.total }
    }
}

/// What a body is brought in for.
#[derive(Clone, Copy)]
pub(crate) struct Goal<'a> {
    pub(crate) lead: &'a Lead,
    /// What it is stored under.
    pub(crate) key: &'a CacheKey,
    /// What was there before, if it may matter.
    pub(crate) forward: Option<&'a Forward<Stored>>,
    /// Whom it comes from.
    pub(crate) upstream: &'a Upstream,
}

impl Goal<'_> {
    /// The body did not come to its end. Where something stale may stand in, it does for a while:
    /// the next to ask would very likely see the same.
    fn missed(&self, core: &Core, site: &Site, source: BodyError) {
        let is_covered = self.forward.is_some_and(|forward| is_covered(core, site, forward));
        let lifetime = site.resilience.failure_lifetime;
        if source.is_of_upstream() && is_covered && !lifetime.is_zero() {
            let upstream = self.upstream.name.clone();
            let error = FetchError::HttpResponseIncomplete { upstream, source };
            self.lead.flight.fail_until(core.now().mono + lifetime);
            self.lead.flight.land(Landing::Failed(Arc::new(error)));
        }
    }
}

/// Brings the body in while others read it, and stores it when it is whole.
pub(crate) async fn bring_in(
    core: &Core,
    site: &Site,
    goal: Goal<'_>,
    mut head: StoredHead,
    body: UpstreamBody,
    times: &Exchange,
) -> Option<Stored> {
    let Goal { lead, key, upstream, .. } = goal;
    let (edge, leftover) = (&core.edge, Leftover::of(core, upstream));
    let surrogate = prepare(site, &mut head, times);
    let flow = Flow::new(Arc::clone(&edge.in_flight), edge.cache.max_body.get());
    let _ending = Ending(&flow);
    let length = body.size_hint().exact();
    let tags = labels(&edge.epochs, &key.place(), &surrogate, &head.headers);
    let has_forms = will_have_forms(site, head.status, &mut head.headers, length);
    let flow_ = Arc::clone(&flow);
    let of_edges = surrogate.clone();
    let partial =
        Partial { head, tags, surrogate: of_edges, flow: flow_, length, part: None, has_forms };
    let partial = Arc::new(partial);
    edge.collapse.bring_together(key);
    lead.flight.land(Landing::Shared(Arc::clone(&partial)));

    let ended = pump(core, lead, body, &flow, length, leftover).await;
    let mut stored = None;
    match (ended, flow.whole()) {
        (Ok(()), Some(chunks)) => {
            let body = StoredBody::compact(&chunks).await;
            let mut head = partial.head.clone();
            set_length(&mut head, body.len());
            head.headers.remove(header::TRAILER); // what is stored has none
            flow.hand_over(body.pieces());
            let mark = Mark::new(lead.flight.filled(), partial.tags.clone());
            let forms = first_forms(site, key, &mut head, &body);
            let whole = Stored::new(head, surrogate, body, mark).with_forms(forms);
            edge.store.insert(key, &whole);
            stored = Some(whole);
        }
        // Too large, and so it will be for whoever asks next; want of room passes.
        (Ok(()), None) if flow.received() > edge.cache.max_body.get() => {
            edge.not_stored.note(key, Reason::MAX_BODY, core.now().mono);
            edge.collapse.keep_apart(key, core.now().mono);
        }
        (Ok(()), None) => edge.not_stored.note(key, Reason::NO_ROOM, core.now().mono),
        (Err(error), _) => {
            edge.not_stored.note(key, Reason::INCOMPLETE, core.now().mono);
            debug!(%error, %key, "a body did not arrive whole");
            goal.missed(core, site, error);
        }
    }
    // Only now do the readers see the end: who asks again after it finds the response stored.
    flow.end(ended);
    stored
}

/// Ends a flow whose task is gone before it could: readers must not wait for ever.
pub(crate) struct Ending<'a>(pub(crate) &'a Flow);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end(Err(BodyError::Incomplete)); // the first end counts
    }
}

pub(crate) async fn pump(
    core: &Core,
    lead: &Lead,
    mut body: UpstreamBody,
    flow: &Flow,
    length: Option<u64>,
    leftover: Leftover,
) -> Result<(), BodyError> {
    // When the last client left, and how much had come by then.
    let mut left = None;
    while let Some(frame) = body.frame().await {
        let data = match frame?.into_data() {
            Ok(data) => data,
            Err(frame) => {
                frame.into_trailers().into_iter().for_each(|fields| flow.set_trailers(fields));
                continue;
            }
        };
        if flow.push(data) == Pushed::Spilled && !room(lead, flow).await {
            return Err(BodyError::Abandoned);
        }
        if lead.wanted == Wanted::ByStore || lead.is_awaited() || flow.readers() > 0 {
            left = None;
            continue;
        }
        let (now, received) = (core.now().mono, flow.received());
        let (since, by_then) = *left.get_or_insert((now, received));
        let goes_on = match length {
            Some(length) => length.saturating_sub(received) <= leftover.bytes,
            None => received - by_then <= leftover.bytes,
        };
        let in_time = now.saturating_duration_since(since) <= leftover.time;
        if !(goes_on && in_time) && flow.abandon() {
            return Err(BodyError::Abandoned);
        }
    }
    Ok(())
}

/// Waits for room in a spilled flow. `false`: nobody reads it, and nobody is about to.
async fn room(lead: &Lead, flow: &Flow) -> bool {
    while !flow.room().await {
        if lead.is_awaited() {
            lead.seat_left().await;
        } else if flow.abandon() {
            return false;
        }
    }
    true
}
