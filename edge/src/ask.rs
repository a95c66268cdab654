//! Which origin is asked, how often, and when it is given up: until the head of an answer.
//!
//! # Invariants
//! - One deadline holds for all attempts and all that they wait for.
//! - Nothing has gone to a client while an attempt may still follow.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::response::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use meridian_control_wire::cursor::Cursor;
use meridian_edge_rules::hop_by_hop::remove_hop_by_hop;
use tokio::select;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::answer_head;
use crate::asked::Asked;
use crate::behalf::{Behalf, Need};
use crate::body::UpstreamBody;
use crate::core::Core;
use crate::error::{BodyError, FetchError};
use crate::fill::Fill;
use crate::key::counted;
use crate::nodes::{is_signed, remove_internal};
use crate::request_body::RequestBody;
use crate::request_head::{Purpose, Sender, request_head};
use crate::route::Site;
use crate::settle;
use crate::tunnel::{Far, is_to};
use crate::unkeyed::vary_by_origin;
use crate::upstream::Upstream;
use crate::upstream::bulkhead::{Full, Place, Rank};
use crate::upstream::choice::{Candidate, order};
use crate::upstream::deadline::Deadline;
use crate::upstream::drip::Drip;
use crate::upstream::exchange::{Failed, Lease, exchange};
use crate::upstream::guard::Call;
use crate::upstream::repeat::is_repeatable;
use crate::upstream::retry::{Ended, Next, Tries, next};

/// An answer's head, with its body still to be read.
pub(crate) struct Answered {
    pub(crate) response: Response<UpstreamBody>,
    pub(crate) upstream: Arc<Upstream>,
}

/// What is asked, by whom and for what.
struct Asking<'a> {
    core: &'a Core,
    site: &'a Site,
    asked: &'a Asked,
    purpose: Purpose<'a>,
    behalf: Behalf<'a>,
    /// Nobody waits for a client to send its body.
    is_timed: bool,
    /// The site's origins as they are to be asked.
    order: Vec<&'a Arc<Upstream>>,
}

/// The origin that is asked next, by its place in the order, and its admission.
struct Turn {
    at: usize,
    call: Call,
}

/// Asks the site's origins until one gives a usable answer, or no attempt is left.
pub(crate) async fn ask_for(
    core: &Core,
    site: &Site,
    asked: &Asked,
    body: RequestBody,
    purpose: Purpose<'_>,
    behalf: Behalf<'_>,
) -> Result<Answered, FetchError> {
    let had_body = body.is_of_client();
    let mut body = gathered(core, site, body).await?;
    let (is_timed, order) = (!body.is_of_client(), ordered(core, site, asked, purpose));
    let asking = Asking { core, site, asked, purpose, behalf, is_timed, order };
    let Some(first) = asking.order.first() else {
        return Err(FetchError::HttpRequestError { reason: "the site has no origin" });
    };
    // How long a client takes to send its own body is not held against its origin.
    let since = if had_body { core.now().mono } else { behalf.since };
    let limit = first.limits.total;
    let deadline = Deadline::after(since, limit);
    if deadline.left(core.now().mono).is_zero() {
        return Err(FetchError::HttpResponseTimeout { upstream: first.name.clone(), limit });
    }
    let mut turn = asking.turn(0, asking.order.len())?;
    asking.of(&turn)?.guard.first(core.now().mono);
    let mut retries = 0;
    loop {
        let upstream = Arc::clone(asking.of(&turn)?);
        let at = turn.at;
        let spare = body.again();
        let outcome = asking.attempt(&upstream, turn, body, deadline).await;
        let (outcome, unsent) = match outcome {
            Ok(response) => (Ok(response), None),
            Err(Failed { error, unsent }) => (Err(error), unsent),
        };
        let ended = match &outcome {
            Ok(response) => Ended::Answered(response.status(), response.headers()),
            Err(error) => Ended::Failed(error),
        };
        let answered = |outcome: Result<_, _>| {
            outcome.map(|response| Answered { response, upstream: Arc::clone(&upstream) })
        };
        let next = what_next(&upstream, &asking.tries(&upstream, at, retries), ended);
        let Some(again) = spare.or(unsent).filter(|_| next != Next::Stop) else {
            return answered(outcome);
        };
        let left = asking.order.len() - 1 - at.min(asking.order.len() - 1);
        let following = if next == Next::Elsewhere {
            asking.turn(at + 1, left)
        } else {
            asking.turn(at + 1, asking.order.len())
        };
        let Ok(following) = following else { return answered(outcome) };
        if next == Next::Again {
            let Some(pause) = asking.pause(&upstream, &following, &outcome, retries, deadline)
            else {
                return answered(outcome);
            };
            drop(outcome); // its place and its connection are free while it waits
            sleep(pause).await;
            retries += 1;
        }
        (turn, body) = (following, again);
    }
}

/// The body, held in memory where it may be: no breaker and no place waits for a slow client then.
async fn gathered(core: &Core, site: &Site, body: RequestBody) -> Result<RequestBody, FetchError> {
    let most = site.origins.iter().map(|upstream| upstream.retry_buffer).max().unwrap_or(0);
    body.gathered(most, &core.edge.body_memory).await.map_err(|error| match error {
        BodyError::TooLarge(limit) => FetchError::RequestTooLarge { limit },
        BodyError::Incomplete
        | BodyError::Stalled(_)
        | BodyError::TooSlow(..)
        | BodyError::ClientGone
        | BodyError::Changed
        | BodyError::Abandoned => FetchError::HttpRequestError { reason: "its body broke off" },
    })
}

/// Shields and origins in the order in which they are to be asked.
fn ordered<'a>(
    core: &'a Core,
    site: &'a Site,
    asked: &Asked,
    purpose: Purpose<'_>,
) -> Vec<&'a Arc<Upstream>> {
    let origins = origins(core, site, asked);
    // What another edge asks goes no further than to origins; a tunnel needs no store on its way.
    if !site.shielded || asked.asker.is_some() || matches!(purpose, Purpose::Upgrade(_)) {
        return origins;
    }
    let shields = &core.edge.shields;
    let mut order = shields.in_order(&site.name, &asked.target, core.now().mono);
    order.extend(origins);
    order
}

/// As for any origin, but a shield that failed is left aside for the next, or for the origin, where
/// what it was asked may be asked again, or has not reached it.
fn what_next(upstream: &Upstream, tries: &Tries, ended: Ended<'_>) -> Next {
    match ended {
        Ended::Failed(error)
            if upstream.is_shield
                && tries.has_others
                && !error.is_of_client()
                && (tries.is_repeatable || error.nothing_was_sent()) =>
        {
            Next::Elsewhere
        }
        Ended::Failed(_) | Ended::Answered(..) => next(&upstream.guard.retry, tries, ended),
    }
}

/// The origins of `site` in the order in which they are to be asked.
fn origins<'a>(core: &Core, site: &'a Site, asked: &Asked) -> Vec<&'a Arc<Upstream>> {
    let all = site.origins_for(asked.matched);
    if all.len() < 2 {
        return all.iter().collect();
    }
    let now = core.now().mono;
    let candidate = |(index, upstream): (usize, &Arc<Upstream>)| Candidate {
        is_up: upstream.guard.is_up(now),
        is_backup: index >= site.resilience.own_origins,
        load: upstream.bulkhead.in_flight().saturating_add(upstream.bulkhead.waiting()),
        latency: upstream.guard.latency(0.5),
    };
    let candidates: Vec<_> = site.origins.iter().enumerate().map(candidate).collect();
    let order = order(&candidates, site.resilience.choice, [rand::random(), rand::random()]);
    order.into_iter().filter_map(|index| site.origins.get(index)).collect()
}

impl Asking<'_> {
    fn of(&self, turn: &Turn) -> Result<&Arc<Upstream>, FetchError> {
        let at = turn.at % self.order.len().max(1);
        self.order.get(at).copied().ok_or(FetchError::ProxyInternalError)
    }

    /// The first of `count` origins from place `from` on, round and round, that lets a call out.
    ///
    /// # Errors
    /// What the last of them said when none does.
    fn turn(&self, from: usize, count: usize) -> Result<Turn, FetchError> {
        let now = self.core.now().mono;
        let mut refused = FetchError::ProxyInternalError;
        for at in from..from + count {
            let Some(upstream) = self.order.get(at % self.order.len().max(1)) else { continue };
            match upstream.guard.admit(self.site.resilience.is_on, self.is_timed, now) {
                Ok(call) => return Ok(Turn { at, call }),
                Err(error) => {
                    upstream.counters.failed(&error);
                    refused = error;
                }
            }
        }
        Err(refused)
    }

    fn tries(&self, upstream: &Upstream, at: usize, retries: u32) -> Tries {
        Tries {
            is_on: upstream.guard.retry.enabled.unwrap_or(self.site.resilience.is_on),
            retries,
            is_repeatable: is_repeatable(&self.asked.method, &self.asked.headers),
            has_others: at + 1 < self.order.len(),
            is_needed: self.behalf.need == Need::Client,
        }
    }

    /// How long the retry waits; `None`: there is none.
    fn pause(
        &self,
        failed: &Upstream,
        following: &Turn,
        outcome: &Result<Response<UpstreamBody>, FetchError>,
        retries: u32,
        deadline: Deadline,
    ) -> Option<Duration> {
        let now = self.core.now();
        let answer = outcome.as_ref().ok().map(Response::headers);
        let pause = failed.guard.retry.pause(retries, answer, now.wall)?;
        let fits = pause < deadline.left(now.mono);
        (fits && self.of(following).ok()?.guard.once_more(now.mono)).then_some(pause)
    }

    /// One attempt, and what it says of the origin.
    async fn attempt(
        &self,
        upstream: &Arc<Upstream>,
        turn: Turn,
        body: RequestBody,
        deadline: Deadline,
    ) -> Result<Response<UpstreamBody>, Failed> {
        let mut call = turn.call;
        let exchanged = select! {
            biased;
            exchanged = self.exchange(upstream, &mut call, body, deadline) => exchanged,
            // Which says nothing of the origin.
            () = self.behalf.outlived(upstream) => return Err(FetchError::ProxyInternalError.into()),
        };
        match exchanged {
            Ok((response, took)) => {
                upstream.recovered();
                upstream.silence.ends(self.core.now().mono);
                call.answered(response.status(), took, self.core.now().mono);
                if let Some(took) = took {
                    adapt(upstream, took);
                }
                Ok(response)
            }
            Err(failed) => {
                let error = &failed.error;
                debug!(upstream = upstream.name, %error, "no usable answer");
                upstream.failed(error);
                call.failed(error, self.core.now().mono);
                if let FetchError::HttpResponseTimeout { limit, .. } = error {
                    adapt(upstream, *limit); // at least as long
                }
                Err(failed)
            }
        }
    }

    /// The answer, and how long it took to begin where that says something about the origin.
    async fn exchange(
        &self,
        upstream: &Arc<Upstream>,
        call: &mut Call,
        body: RequestBody,
        deadline: Deadline,
    ) -> Result<(Response<UpstreamBody>, Option<Duration>), Failed> {
        let core = self.core;
        // How long a client takes to send its own body says nothing about the origin.
        let is_timed = !body.is_of_client();
        let rank = match (self.behalf.need, is_timed) {
            (Need::Background, _) => None,
            (Need::Client | Need::Covered, true) => Some(Rank::Client),
            (Need::Client | Need::Covered, false) => Some(Rank::Upload),
        };
        // Asked for now, after every stamp that the answer may get.
        let told = if upstream.is_shield { core.edge.cursors.need() } else { None };
        let mut request = self.request(upstream, body, told.as_ref())?;
        let place = match self.place(upstream, rank, deadline).await {
            Ok(place) => place,
            Err(Full { limit }) => {
                let upstream = upstream.name.clone();
                let error = FetchError::ConnectionLimitReached { upstream, limit };
                return Err(Failed { error, unsent: Some(request.into_body()) });
            }
        };
        let began = core.now().mono;
        if let Some(name) = &upstream.deadline_field {
            let left = upstream.guard.first_byte(began).min(deadline.left(began));
            let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            request.headers_mut().insert(name.clone(), HeaderValue::from(left));
        }
        let mut exchanging =
            pin!(exchange(upstream, core.index, place, request, deadline, &core.tasks));
        let slow_call = upstream.guard.slow_call();
        let (response, lease) = match timeout(slow_call, exchanging.as_mut()).await {
            Ok(exchanged) => exchanged?,
            Err(_elapsed) => {
                if is_timed {
                    call.is_slow(core.now().mono);
                }
                exchanging.await?
            }
        };
        let took = core.now().mono.saturating_duration_since(began);
        let response = self.received(upstream, response, lease, told.as_ref())?;
        Ok((response, is_timed.then_some(took)))
    }

    /// The answer as one of this edge's own protocol.
    fn received(
        &self,
        upstream: &Upstream,
        mut response: Response<Incoming>,
        mut lease: Lease,
        need: Option<&Cursor>,
    ) -> Result<Response<UpstreamBody>, FetchError> {
        let core = self.core;
        let fill = self.fill(upstream, response.headers(), need)?;
        let far = (response.status() == StatusCode::SWITCHING_PROTOCOLS)
            .then(|| hyper::upgrade::on(&mut response));
        let (mut head, body) = response.into_parts();
        if let (Some(far), Purpose::Upgrade(protocol)) = (far, self.purpose)
            && is_to(&head.headers, protocol)
        {
            return Ok(switched(core, head, body, Far::new(far, lease)));
        }
        if head.status.is_informational() {
            let reason = "it switched protocols unasked";
            return Err(FetchError::HttpProtocolError { upstream: upstream.name.clone(), reason });
        }
        let received = head.version;
        head.version = Version::HTTP_11; // ours, whatever the origin speaks (RFC 9110 §2.5)
        match answer_head::settle(head.status, &mut head.headers) {
            Ok(answer_head::Next::Allowed) => {}
            Ok(answer_head::Next::Never) => lease.is_last(),
            Err(reason) => {
                let upstream = upstream.name.clone();
                return Err(FetchError::HttpProtocolError { upstream, reason });
            }
        }
        remove_hop_by_hop(&mut head.headers);
        remove_internal(&mut head.headers);
        vary_by_origin(&mut head.headers);
        core.edge.via.add(&mut head.headers, received);
        if let Some(fill) = fill {
            head.extensions.insert(fill);
        }
        let drip = Drip::of(upstream, &head.headers);
        let body = UpstreamBody::new(body, lease, upstream.limits.between_bytes, drip);
        Ok(Response::from_parts(head, body))
    }

    /// What an answer is worth that comes through a shield.
    fn fill(
        &self,
        upstream: &Upstream,
        answer: &HeaderMap,
        need: Option<&Cursor>,
    ) -> Result<Option<Fill>, FetchError> {
        let Some(nodes) = self.core.edge.nodes.as_ref().filter(|_| upstream.is_shield) else {
            return Ok(None);
        };
        if is_signed(answer) {
            return Ok(Some(Fill::told(answer, need, &self.core.edge.cursors, &nodes.counters)));
        }
        // It may have answered with anything: what was needed meant nothing to it.
        nodes.counters.refused.fetch_add(1, Ordering::Relaxed);
        let upstream = upstream.name.clone();
        let reason = "it is no shield of this edge: another secret, or no such site there";
        Err(FetchError::HttpProtocolError { upstream, reason })
    }

    fn request(
        &self,
        upstream: &Upstream,
        body: RequestBody,
        told: Option<&Cursor>,
    ) -> Result<Request<RequestBody>, FetchError> {
        let (edge, site, asked) = (&self.core.edge, self.site, self.asked);
        let sender = Sender {
            via: &edge.via,
            own_loop: &edge.own_loop,
            preserve_host: site.preserve_host,
            tells_host: matches!(self.purpose, Purpose::Pass | Purpose::Upgrade(_))
                || (site.preserve_host && asked.told_host() == asked.authority.as_deref())
                || asked.told_host().is_some_and(|host| edge.knows(site, host)),
        };
        let mut request = request_head(asked, body, upstream, &sender, self.purpose)?;
        let is_shared = !matches!(self.purpose, Purpose::Pass | Purpose::Upgrade(_));
        let query = settle::query(site, asked.matched);
        if is_shared
            && let Some(counted) = counted(&asked.target, query).and_then(|t| t.parse().ok())
        {
            *request.uri_mut() = counted; // what the key does not hold must not show in the answer
        }
        match edge.nodes.as_ref().filter(|_| upstream.is_shield) {
            Some(nodes) => nodes.introduce(request.headers_mut(), &site.name, told),
            None => site.rules.amend_request(asked.matched, request.headers_mut()),
        }
        if let Some((connection, number)) = asked.interim.clone() {
            hyper::ext::on_informational(&mut request, move |response| {
                connection.interim.push(number, response.status(), response.headers());
            });
        }
        Ok(request)
    }

    /// A place; `rank`: that of the client who waits for it, if one does.
    async fn place(
        &self,
        upstream: &Upstream,
        rank: Option<Rank>,
        deadline: Deadline,
    ) -> Result<Place, Full> {
        let Some(rank) = rank else { return upstream.bulkhead.enter_in_background() };
        let (now, entering) = (self.core.now().mono, upstream.bulkhead.enter(rank));
        let entered = deadline.bound(now, upstream.limits.queue, entering).await;
        entered.unwrap_or_else(|_limit| Err(upstream.bulkhead.full()))
    }
}

/// Lets as many requests at once to `upstream` as its latency suggests, if that is wanted.
fn adapt(upstream: &Upstream, took: Duration) {
    if let Some(limit) = upstream.guard.adapted(took, upstream.bulkhead.in_flight()) {
        upstream.bulkhead.adapt(limit);
    }
}

/// The head of a 101 for the client, with the origin's end of the tunnel.
fn switched(core: &Core, mut head: Parts, body: Incoming, far: Far) -> Response<UpstreamBody> {
    let protocol = head.headers.get(header::UPGRADE).cloned();
    let received = std::mem::replace(&mut head.version, Version::HTTP_11);
    remove_hop_by_hop(&mut head.headers);
    core.edge.via.add(&mut head.headers, received);
    if let Some(protocol) = protocol {
        head.headers.insert(header::UPGRADE, protocol);
    }
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    head.extensions.insert(far);
    Response::from_parts(head, UpstreamBody::none(body))
}
