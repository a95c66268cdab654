//! The road of a request: route → key → lookup → decide → fetch → store → respond.
//!
//! What the store can answer is answered at once, without waiting for anything and without a
//! future of its own; only what must go upstream becomes one.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use meridian_control_wire::cursor::Cursor;
use meridian_edge_rules::cache_control::RequestDirectives;
use meridian_edge_rules::cache_status::CacheStatus;
use meridian_edge_rules::decide::{Decision, Forward, Fwd, Lookup};
use meridian_edge_rules::exchange::RequestView;

use crate::accept::Handler;
use crate::access::Line;
use crate::ask::ask_for;
use crate::asked::{Asked, Peer};
use crate::background::in_background;
use crate::behalf::{Behalf, is_covered};
use crate::body::Body;
use crate::collapse::{Landing, Role, Seat};
use crate::connection::{Connection, Overdue};
use crate::control_doubt::{Closed, Doubt};
use crate::core::Core;
use crate::course::Course;
use crate::effects::{self, Before};
use crate::error::FetchError;
use crate::fetch;
use crate::key::CacheKey;
use crate::nodes::{Child, Nodes};
use crate::outcome::Outcome;
use crate::ranged;
use crate::refuse;
use crate::request_body::RequestBody;
use crate::request_head::Purpose;
use crate::respond;
use crate::reuse::{hit, missing, stored_meanwhile, unsatisfiable};
use crate::route::{self, Site};
use crate::settle;
use crate::site_rules::Matched;
use crate::slices;
use crate::store::Stored;
use crate::suspect;
use crate::tell;
use crate::tunnel::{Far, Tunnel, wanted};
use crate::unkeyed::is_ambiguous;
use crate::waiter::Waiter;

/// Flights that a request waits for before it goes on by itself: more would cost it its deadline.
const MAX_FLIGHTS: usize = 3;

/// An answer: there already, or on its way.
pub(crate) enum Answer {
    /// There.
    Ready(Option<Response<Body>>),
    /// On its way.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Future for Answer {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response<Body>> {
        match &mut *self {
            Self::Ready(response) => {
                Poll::Ready(response.take().expect("a future is not polled after it is ready"))
            }
            Self::Later(later) => later.as_mut().poll(context),
        }
    }
}

/// Serves clients on one core.
#[derive(Clone)]
pub(crate) struct Clients(pub(crate) Arc<Core>);

impl Handler for Clients {
    type Answer = Answer;

    fn answer(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
        peer: SocketAddr,
    ) -> Answer {
        let busy = connection.begin();
        let edge = &self.0.edge;
        let line = edge.access_log.then(|| Line::begin(&request, peer, &edge.clock));
        let finish = move |response: Response<Body>| {
            let mut response = response.map(|body| body.busy(busy));
            let Some(mut line) = line else { return response };
            let outcome = response.extensions_mut().remove::<Outcome>();
            line.answered(response.status(), outcome);
            response.map(|body| body.logged(line))
        };
        let refused = suspect::refused(&request, connection);
        let there = |response| Answer::Ready(Some(response));
        match refused.map_or_else(|| serve(&self.0, request, connection, peer), there) {
            Answer::Ready(response) => Answer::Ready(response.map(finish)),
            Answer::Later(later) => {
                let connection = Arc::clone(connection);
                Answer::Later(Box::pin(async move {
                    let mut response = connection.interim.until(later).await;
                    if let Some(tunnel) = response.extensions_mut().remove::<Tunnel>() {
                        connection.will_become(tunnel);
                    }
                    finish(response)
                }))
            }
        }
    }

    fn overdue(&self, limit: Overdue) {
        self.0.edge.counters.count_overdue(limit);
    }

    fn connections(&self, change: i64) {
        self.0.edge.counters.count_connections(change);
    }
}

thread_local! {
    /// Keys are written here first, so that a lookup allocates nothing.
    static KEY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Serves one request: each step below is one file, in this order.
pub(crate) fn serve(
    core: &Arc<Core>,
    request: Request<Incoming>,
    connection: &Arc<Connection>,
    peer: SocketAddr,
) -> Answer {
    if let Some(refusal) = refuse::refusal(&request, &core.edge.accept) {
        let refusal = respond::told(&core.edge.name, refusal);
        return Answer::Ready(Some(refusal));
    }
    let trusted = core.edge.trusts(peer);
    let peer = Peer { address: peer, trusted, connection, matched: Matched::NONE, child: None };
    if let Some(nodes) = &core.edge.nodes
        && let Some(child) = nodes.child(request.headers())
    {
        return for_child(core, nodes, request, peer, child);
    }
    routed(core, request, peer)
}

/// For another edge of this CDN: as for any client, once this edge has heard of the purges that the
/// other one needs, or else past the store. What it says of the client is taken for true.
fn for_child(
    core: &Arc<Core>,
    nodes: &Nodes,
    request: Request<Incoming>,
    peer: Peer<'_>,
    child: Child,
) -> Answer {
    if !core.edge.shields.is_empty() {
        let detail = "this edge has shields of its own: it is none itself";
        let (edge, told) = (&core.edge.name, ("no_shield", detail));
        let status = StatusCode::LOOP_DETECTED;
        let method = request.method();
        let refusal = respond::own_error(edge, "proxy_loop_detected", method, status, told);
        return Answer::Ready(Some(refusal));
    }
    if core.edge.sites.load().named(&child.site).is_none() {
        return misdirected(core, request.method()); // unsigned: this edge is no shield of that
    }
    let late = |need: &&Cursor| is_cacheable(request.method()) && !core.edge.cursors.knows(need);
    let Some(need) = child.need.as_ref().filter(late).cloned() else {
        let count = if child.passes { &nodes.counters.bypassed } else { &nodes.counters.met };
        count.fetch_add(1, Ordering::Relaxed);
        let child = Arc::new(child);
        let peer = Peer { trusted: true, child: Some(&child), ..peer };
        return match routed(core, request, peer) {
            Answer::Ready(response) => {
                Answer::Ready(response.map(|response| signed(&child, response)))
            }
            Answer::Later(later) => {
                Answer::Later(Box::pin(async move { signed(&child, later.await) }))
            }
        };
    };
    let (core, connection, address) = (Arc::clone(core), Arc::clone(peer.connection), peer.address);
    // Without a control plane it will hear of nothing.
    let limit = if core.edge.follows { nodes.catch_up } else { Duration::ZERO };
    Answer::Later(Box::pin(async move {
        let has_caught_up = core.edge.cursors.reaches(&need, limit).await;
        if let Some(Nodes { counters, .. }) = &core.edge.nodes {
            let count = if has_caught_up { &counters.caught_up } else { &counters.bypassed };
            count.fetch_add(1, Ordering::Relaxed);
        }
        let child = Arc::new(if has_caught_up { child } else { child.passing() });
        let (connection, matched) = (&connection, Matched::NONE);
        let child_ = Some(&child);
        let peer = Peer { address, trusted: true, connection, matched, child: child_ };
        let answer = routed(&core, request, peer);
        signed(&child, answer.await)
    }))
}

fn signed(child: &Child, mut response: Response<Body>) -> Response<Body> {
    child.sign(response.headers_mut());
    response
}

fn routed(core: &Arc<Core>, mut request: Request<Incoming>, peer: Peer<'_>) -> Answer {
    let sites = core.edge.sites.load();
    let found = match peer.child {
        Some(child) => sites.named(&child.site),
        None => sites.route(route::host(request.uri(), request.headers())),
    };
    let Some(site) = found else { return misdirected(core, request.method()) };
    site.languages.settle(request.headers_mut());
    let (target, fields) = (request.uri(), request.headers());
    let matched = settle::matched(site, request.method(), target, fields);
    let peer = Peer { matched, ..peer };
    if !site.upgrade.is_empty()
        && let Some(protocol) = wanted(&site.upgrade, &request)
    {
        let protocol = protocol.to_owned();
        return upgrade(core, site, request, protocol, peer);
    }
    let is_past_store = peer.child.is_some_and(|child| child.passes);
    if request.body().is_end_stream() && !is_ambiguous(request.uri().path()) && !is_past_store {
        KEY.with_borrow_mut(|key| {
            let (target, fields) = (request.uri(), request.headers());
            settle::write_key(key, site, peer.scheme(fields), target, fields, matched);
            let found = core.edge.store.lookup(key, request.headers(), core.now());
            serve_from(core, site, request, key, found, peer)
        })
    } else {
        // A body may say what the key does not (a "fat GET"), and a path may be another one to the
        // origin: never stored, never collapsed.
        let why = if is_cacheable(request.method()) { Fwd::Bypass } else { Fwd::Method };
        alone(core, site, request, why, peer)
    }
}

fn serve_from(
    core: &Arc<Core>,
    site: &Arc<Site>,
    request: Request<Incoming>,
    key: &str,
    found: Lookup<Stored>,
    peer: Peer<'_>,
) -> Answer {
    let view = RequestView { method: request.method(), headers: request.headers() };
    let now = core.now();
    match settle::decision(site, peer.matched, &view, found, now) {
        Decision::Serve { stored, age, ttl, revalidate } if respond::suffices(&view, &stored) => {
            let place = (peer.matched, now.mono);
            let mut response = hit(core, site, key, &view, &stored, (age, ttl), place);
            tell::of_stored(core, peer.child.map(|child| &**child), key, &stored, &mut response);
            if revalidate.is_some() {
                in_background(core, site, CacheKey::from(key), request, peer);
            }
            Answer::Ready(Some(response))
        }
        Decision::Serve { stored, revalidate, .. } => {
            incomplete(core, site, request, key, &stored, revalidate, peer)
        }
        Decision::Forward(forward) if forward.store && *request.method() == Method::GET => {
            together(core, site, CacheKey::from(key), request, forward, peer)
        }
        Decision::Forward(forward) if is_covered(core, site, &forward) => {
            covered(core, site, CacheKey::from(key), request, forward, peer)
        }
        Decision::Forward(forward) => alone(core, site, request, forward.why, peer),
        Decision::Unsatisfiable => Answer::Ready(Some(unsatisfiable(core, site, &view))),
    }
}

fn is_cacheable(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

/// Not all that the request asks for is here.
fn incomplete(
    core: &Arc<Core>,
    site: &Arc<Site>,
    request: Request<Incoming>,
    key: &str,
    stored: &Stored,
    revalidate: Option<Forward<Stored>>,
    peer: Peer<'_>,
) -> Answer {
    let view = RequestView { method: request.method(), headers: request.headers() };
    let key = CacheKey::from(key);
    if RequestDirectives::of(view.headers).only_if_cached
        && !slices::are_here(core, &key, &view, stored)
    {
        return Answer::Ready(Some(unsatisfiable(core, site, &view)));
    }
    if *view.method == Method::GET {
        together(core, site, key, request, missing(revalidate), peer)
    } else {
        alone(core, site, request, Fwd::Partial, peer)
    }
}

/// No site answers to the host (RFC 9110 §15.5.20).
fn misdirected(core: &Core, method: &Method) -> Answer {
    core.edge.counters.misdirected.fetch_add(1, Ordering::Relaxed);
    let detail = "no site here answers to this host";
    let status = StatusCode::MISDIRECTED_REQUEST;
    let (edge, told) = (&core.edge.name, ("misdirected", detail));
    let response = respond::own_error(edge, "destination_not_found", method, status, told);
    Answer::Ready(Some(response))
}

/// Whether the request is not to go on: it has come back to where it was (RFC 8586), or expects
/// what cannot be promised.
fn stopped(core: &Core, site: &Site, request: &Request<Incoming>) -> Option<Answer> {
    let looped = core.edge.own_loop.closes(request.headers()).then(|| {
        let detail = "this request has passed this edge before: an origin's address leads back";
        let status = StatusCode::LOOP_DETECTED;
        let (edge, told) = (&core.edge.name, ("loop_detected", detail));
        let method = request.method();
        respond::own_error(edge, "proxy_loop_detected", method, status, told)
    });
    let unmet = || {
        let refusal = refuse::unmet_expectation(request)?;
        Some(respond::told(&core.edge.name, refusal))
    };
    let response = looped.or_else(unmet)?;
    Some(Answer::Ready(Some(core.counted(site, Outcome::Refused, response))))
}

/// Upstream for this client alone: neither stored nor collapsed.
fn alone(
    core: &Arc<Core>,
    site: &Arc<Site>,
    request: Request<Incoming>,
    why: Fwd,
    peer: Peer<'_>,
) -> Answer {
    if let Some(refused) = stopped(core, site, &request) {
        return refused;
    }
    let limit = core.edge.accept.body_size.get();
    if request.body().size_hint().lower() > limit {
        let response = too_large(&core.edge.name, request.method(), limit);
        return Answer::Ready(Some(core.counted(site, Outcome::Refused, response)));
    }
    let (core, site) = (Arc::clone(core), Arc::clone(site));
    let (head, body) = request.into_parts();
    let asked = Asked::new(head, peer).interim(&site, peer);
    let body = RequestBody::of(body, limit, &peer.connection.paced);
    Answer::Later(Box::pin(async move {
        pass(&core, &site, &asked, body, Purpose::Pass, why, None).await
    }))
}

/// Upstream for this client alone, such as one that asks by HEAD, who gets what is stored if that
/// fails.
fn covered(
    core: &Arc<Core>,
    site: &Arc<Site>,
    key: CacheKey,
    request: Request<Incoming>,
    forward: Forward<Stored>,
    peer: Peer<'_>,
) -> Answer {
    if let Some(refused) = stopped(core, site, &request) {
        return refused;
    }
    let (core, site) = (Arc::clone(core), Arc::clone(site));
    let (head, _empty) = request.into_parts();
    let asked = Arc::new(Asked::new(head, peer).interim(&site, peer));
    Answer::Later(Box::pin(async move {
        let demand = core.edge.epochs.demand(&key.place());
        let (core, site) = (&core, &site);
        let (key, asked, forward) = (&key, &asked, &forward);
        let (leads, doubt) = (true, &Doubt::of(core, site, asked, forward));
        pass_on(&Waiter { core, site, key, asked, forward, demand, leads, doubt }).await
    }))
}

/// Upstream for one client alone who may have waited for others before.
async fn pass_on(waiter: &Waiter<'_>) -> Response<Body> {
    let Waiter { core, site, asked, forward, .. } = *waiter;
    let cover = is_covered(core, site, forward).then_some(waiter);
    pass(core, site, asked, RequestBody::Empty, Purpose::Pass, forward.why, cover).await
}

/// Upstream for a client that wants to change to `protocol`. An origin that does not want to
/// answers as ever.
fn upgrade(
    core: &Arc<Core>,
    site: &Arc<Site>,
    mut request: Request<Incoming>,
    protocol: String,
    peer: Peer<'_>,
) -> Answer {
    if let Some(refused) = stopped(core, site, &request) {
        return refused;
    }
    let Some(place) = core.edge.tunnels.place() else {
        let (status, detail) = (StatusCode::SERVICE_UNAVAILABLE, "accept.max_tunnels are open");
        let response = respond::problem(request.method(), status, "too_many_tunnels", detail);
        return Answer::Ready(Some(core.counted(site, Outcome::Refused, response)));
    };
    let near = hyper::upgrade::on(&mut request);
    let (core, site) = (Arc::clone(core), Arc::clone(site));
    let (head, _empty) = request.into_parts();
    let asked = Asked::new(head, peer);
    Answer::Later(Box::pin(async move {
        let purpose = Purpose::Upgrade(&protocol);
        let mut response =
            pass(&core, &site, &asked, RequestBody::Empty, purpose, Fwd::Bypass, None).await;
        let far = response.extensions_mut().remove::<Far>();
        if let Some(tunnel) = far.and_then(|far| far.tunnel(near, place, &core.edge.tunnels)) {
            response.extensions_mut().insert(tunnel);
        }
        response
    }))
}

/// The request's body is beyond `accept.body_size`.
fn too_large(edge: &str, method: &Method, limit: u64) -> Response<Body> {
    let detail = format!("the request body is larger than {limit} bytes");
    let (status, told) = (StatusCode::PAYLOAD_TOO_LARGE, ("too_large", detail.as_str()));
    respond::own_error(edge, "http_request_error", method, status, told)
}

async fn pass(
    core: &Arc<Core>,
    site: &Arc<Site>,
    asked: &Asked,
    body: RequestBody,
    purpose: Purpose<'_>,
    why: Fwd,
    cover: Option<&Waiter<'_>>,
) -> Response<Body> {
    let told = site.cache_status(&core.edge.name, None);
    let by_rule = why == Fwd::Bypass && site.rules.bypasses(asked.matched);
    let is_behind = asked.asker.as_ref().is_some_and(|child| child.passes);
    let closed = Closed::of(core, site, asked, why);
    let doubt = cover.and_then(|waiter| waiter.doubt.detail());
    let behind = is_behind.then_some("purges-behind");
    let detail = by_rule.then_some("rule").or(behind).or(closed.detail()).or(doubt);
    let mut status = CacheStatus { fwd: Some(why), detail, ..told };
    let before = Before::of(core, site, asked);
    let behalf = Behalf::of_client(asked, cover.is_some());
    let asking = ask_for(core, site, asked, body, purpose, behalf);
    let answered = match cover {
        None => asking.await,
        Some(waiter) => match waiter.patient(asking).await {
            Ok(answered) => answered,
            Err(stale) => return stale,
        },
    };
    let stale = cover.and_then(|waiter| match &answered {
        Ok(answered) => waiter.instead_of_answer(answered.response.status()),
        Err(error) => waiter.instead_of(error),
    });
    if let Some(stale) = stale {
        return stale;
    }
    let response = match answered {
        Ok(answered) => {
            status.fwd_status = Some(answered.response.status());
            match effects::settle(core, site, asked, before, &answered) {
                None => {
                    let (matched, response) = (asked.matched, answered.response);
                    let response = fetch::for_client(site, matched, &asked.asker, response);
                    respond::from_upstream(response, &status)
                }
                Some(keep) => kept(core, asked, &keep.begin(core, site, answered), status).await,
            }
        }
        Err(FetchError::RequestTooLarge { limit }) => {
            too_large(&core.edge.name, &asked.method, limit)
        }
        Err(error) => closed.refused(core, site, asked, &error, &status).unwrap_or_else(|| {
            respond::upstream_error(&core.edge.name, &asked.method, &error, &status)
        }),
    };
    core.counted(site, Outcome::Forwarded(why), response)
}

/// What is stored while its client reads it.
async fn kept(core: &Core, asked: &Asked, seat: &Seat, status: CacheStatus<'_>) -> Response<Body> {
    let Landing::Shared(partial) = seat.landed().await else {
        let error = FetchError::ProxyInternalError;
        return respond::upstream_error(&core.edge.name, &asked.method, &error, &status);
    };
    let Some(reader) = partial.flow.read() else {
        let error = FetchError::ProxyInternalError;
        return respond::upstream_error(&core.edge.name, &asked.method, &error, &status);
    };
    let now = core.now();
    let status = CacheStatus { stored: true, ttl: Some(partial.head.ttl(now)), ..status };
    // Conditions and ranges of the request were the origin's to judge.
    let whole = RequestView { method: &Method::GET, headers: &HeaderMap::new() };
    respond::from_partial(&whole, &partial, reader, partial.head.current_age(now), &status)
}

/// Upstream together with whoever asks for the same meanwhile.
fn together(
    core: &Arc<Core>,
    site: &Arc<Site>,
    key: CacheKey,
    request: Request<Incoming>,
    forward: Forward<Stored>,
    peer: Peer<'_>,
) -> Answer {
    if let Some(refused) = stopped(core, site, &request) {
        return refused;
    }
    let (core, site) = (Arc::clone(core), Arc::clone(site));
    let (head, _empty) = request.into_parts();
    let asked = Arc::new(Asked::new(head, peer).interim(&site, peer));
    Answer::Later(Box::pin(async move { join(&core, &site, &key, &asked, forward).await }))
}

async fn join(
    core: &Arc<Core>,
    site: &Arc<Site>,
    key: &CacheKey,
    asked: &Arc<Asked>,
    mut forward: Forward<Stored>,
) -> Response<Body> {
    let demand = core.edge.epochs.demand(&key.place());
    let doubt = Doubt::of(core, site, asked, &forward);
    match ranged::serve(core, site, key, asked, &forward).await {
        Course::Done(response) => return response,
        Course::Pass => {
            let (forward, leads, doubt) = (&forward, true, &doubt);
            return pass_on(&Waiter { core, site, key, asked, forward, demand, leads, doubt })
                .await;
        }
        Course::Whole => {}
    }
    let mut tried = Vec::new();
    while tried.len() < MAX_FLIGHTS {
        let now = core.now().mono;
        let (seat, leads) = match core.edge.collapse.join(key, &asked.headers, &tried, demand, now)
        {
            // For one client alone its own part or condition may go up.
            Role::Apart(_) if is_particular(asked) => break,
            Role::Follower(seat) if !doubt.allows(seat.began(), now) => {
                tried.push(seat.number());
                continue;
            }
            Role::Follower(seat) => (seat, false),
            Role::Leader(lead) | Role::Apart(lead) => {
                // Somebody may have stored it between the lookup and now.
                match stored_meanwhile(core, site, key, asked) {
                    Ok(response) => {
                        lead.flight.land(Landing::Stored);
                        return response;
                    }
                    Err(again) => forward = again.unwrap_or(forward),
                }
                let seat = lead.seat();
                let (core_, site_, asked_) =
                    (Arc::clone(core), Arc::clone(site), Arc::clone(asked));
                let fetching = fetch::lead(core_, site_, asked_, lead, forward.clone());
                drop(core.tasks.spawn(fetching));
                (seat, true)
            }
        };
        let waiter =
            Waiter { core, site, key, asked, forward: &forward, demand, leads, doubt: &doubt };
        let landing = match waiter.landed(&seat).await {
            Ok(landing) => landing,
            Err(stale) => return stale,
        };
        if matches!(landing, Landing::Stored)
            && let Ok(response) = stored_meanwhile(core, site, key, asked)
        {
            return response;
        }
        if let Some(response) = waiter.land(&seat, landing) {
            return response;
        }
        tried.push(seat.number());
    }
    let (forward, leads, doubt) = (&forward, true, &doubt);
    pass_on(&Waiter { core, site, key, asked, forward, demand, leads, doubt }).await
}

/// Whether a client asks for a part, or conditionally.
fn is_particular(asked: &Asked) -> bool {
    let names = [header::RANGE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];
    names.iter().any(|name| asked.headers.contains_key(name))
}
