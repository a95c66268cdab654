//! Objects that are fetched and stored in slices of a fixed size, each by a `Range` request of its
//! own, each collapsed on its own, each with its own stamp.
//!
//! Under the object's key stands its head, made of the first slice's, without any bytes; the slices
//! stand under keys within it, at the same place, and are found by number. What fits into one slice
//! is stored as the whole that it is.
//!
//! # Invariants
//! - A response is made of slices with one strong validator, that of the head it began with. When
//!   the origin has another representation, the head is dropped; a response of which nothing was
//!   sent begins anew, and one in progress breaks off before its announced end.
//! - A slice is used if no hard purge took it, whatever its head says: freshness is the object's.

use std::sync::Arc;

use http::Response;
use meridian_edge_rules::cache_status::CacheStatus;
use meridian_edge_rules::decide::{Decision, Forward, Fwd, Lookup};
use meridian_edge_rules::exchange::RequestView;
use meridian_edge_rules::partial::may_combine;
use meridian_edge_rules::policy::Policy;
use meridian_edge_rules::ranges::{ByteRange, Piece, Ranges, Spec, asked as asked_for};
use meridian_edge_rules::reusable::{may_serve_stale_on_error, may_serve_when_disconnected};
use meridian_edge_rules::stored::StoredHead;
use meridian_edge_rules::time::Now;
use meridian_edge_rules::validate::Precondition;

use crate::asked::Asked;
use crate::assembly::{Assembly, Broken, Object};
use crate::body::Body;
use crate::collapse::{Landing, Role, Seat};
use crate::control_doubt::NO_DOUBT;
use crate::core::Core;
use crate::course::Course;
use crate::epochs::{Demand, Mark, Standing};
use crate::error::FetchError;
use crate::key::CacheKey;
use crate::outcome::Outcome;
use crate::respond;
use crate::reuse::{hit, missing, outcome};
use crate::route::Site;
use crate::settle;
use crate::slice_fetch::{SliceFetch, Slicing};
use crate::store::Stored;
use crate::stored_body::StoredBody;
use crate::tell;
use crate::waiter::Waiter;

/// Times that a response is begun before the request goes on by itself.
const MAX_ROUNDS: usize = 4;
/// Slices that are looked for when it is told whether an answer comes from the store.
const MAX_LOOKED_FOR: u64 = 256;

/// Answers a request for an object in slices.
pub(crate) async fn serve(
    core: &Arc<Core>,
    site: &Arc<Site>,
    key: &CacheKey,
    asked: &Arc<Asked>,
    forward: &Forward<Stored>,
) -> Course {
    let demand = core.edge.epochs.demand(&key.place());
    let road = Road { core, site, key, asked, demand };
    let mut tried = Vec::new();
    for _round in 0..MAX_ROUNDS {
        if core.edge.collapse.is_apart(key, core.now().mono) {
            return Course::Whole;
        }
        let forward = match road.held() {
            Held::Answer(response) => return Course::Done(response),
            Held::Sliced(stored) => match road.respond(&stored, None).await {
                Some(response) => return Course::Done(response),
                None => continue, // it has changed meanwhile
            },
            Held::Forward(forward) => forward,
            Held::Nothing => forward.clone(),
        };
        if forward.validate.as_ref().is_some_and(|stored| stored.body().is_whole()) {
            return Course::Whole;
        }
        match road.begin(&forward, &tried).await {
            Begun::Answer(response) => return Course::Done(response),
            Begun::Elsewhere(course) => return course,
            Begun::Head(seat, Some(stored)) => {
                // The seat is kept until the slice that it waited for is being read.
                if let Some(response) = road.respond(&stored, Some(forward.why)).await {
                    return Course::Done(response);
                }
                tried.push(seat.number());
            }
            Begun::Head(seat, None) => tried.push(seat.number()),
        }
    }
    Course::Pass
}

/// What a request goes with.
#[derive(Clone, Copy)]
struct Road<'a> {
    core: &'a Arc<Core>,
    site: &'a Arc<Site>,
    key: &'a CacheKey,
    asked: &'a Arc<Asked>,
    demand: Demand,
}

/// What the store holds for it.
enum Held {
    /// An answer.
    Answer(Response<Body>),
    /// The head of an object whose slices it needs.
    Sliced(Stored),
    /// Nothing that may be used.
    Forward(Forward<Stored>),
    /// Nothing, and nothing is to be fetched.
    Nothing,
}

/// What came of asking for a first slice.
enum Begun {
    Answer(Response<Body>),
    Elsewhere(Course),
    /// The head of the object, if this request may use it; else a look into the store may help.
    Head(Seat, Option<Stored>),
}

impl Road<'_> {
    fn view(&self) -> RequestView<'_> {
        RequestView { method: &self.asked.method, headers: &self.asked.headers }
    }

    fn held(&self) -> Held {
        let (view, now) = (self.view(), self.core.now());
        let found = self.core.edge.store.lookup(self.key.as_str(), &self.asked.headers, now);
        match settle::decision(self.site, self.asked.matched, &view, found, now) {
            Decision::Serve { stored, age, ttl, .. } if respond::suffices(&view, &stored) => {
                let (key, place) = (self.key.as_str(), (self.asked.matched, now.mono));
                let mut response =
                    hit(self.core, self.site, key, &view, &stored, (age, ttl), place);
                self.tell(&stored, &mut response);
                Held::Answer(response)
            }
            Decision::Serve { stored, revalidate: None, .. } if is_sliced(&stored) => {
                Held::Sliced(stored)
            }
            Decision::Serve { revalidate, .. } => Held::Forward(missing(revalidate)),
            Decision::Forward(forward) => Held::Forward(forward),
            Decision::Unsatisfiable => Held::Nothing,
        }
    }

    /// Asks for the first slice that the request needs, as far as can be known.
    async fn begin(&self, forward: &Forward<Stored>, tried: &[u64]) -> Begun {
        let Self { core, site, key, asked, demand } = *self;
        let size = site.ranges.slice_size;
        let first = match asked_for(&asked.headers, respond::MAX_RANGES).first() {
            Some(Spec::From(first) | Spec::Between(first, _)) => *first,
            Some(Spec::Suffix(_)) | None => 0,
        };
        let slicing = Slicing { size, index: first / size, of: None };
        let flight_key = slicing.key(key);
        let now = core.now().mono;
        let (seat, leads) =
            match core.edge.collapse.join(&flight_key, &asked.headers, tried, demand, now) {
                Role::Follower(seat) => (seat, false),
                Role::Leader(lead) | Role::Apart(lead) => {
                    if matches!(self.held(), Held::Sliced(_) | Held::Answer(_)) {
                        lead.flight.land(Landing::Stored);
                        return Begun::Head(lead.seat(), None);
                    }
                    let seat = lead.seat();
                    let fetch = SliceFetch {
                        core: Arc::clone(core),
                        site: Arc::clone(site),
                        asked: Arc::clone(asked),
                        key: key.clone(),
                        forward: forward.clone(),
                        lead,
                    };
                    drop(core.tasks.spawn(fetch.run(slicing)));
                    (seat, true)
                }
            };
        let waiter = Waiter { core, site, key, asked, forward, demand, leads, doubt: &NO_DOUBT };
        let (seat, landing) = match self.landed(&waiter, seat).await {
            Ok(landed) => landed,
            Err(begun) => return begun,
        };
        let is_private = matches!(landing, Landing::Private);
        let object = match &landing {
            Landing::Shared(partial) => partial.part.map(|of| {
                let body = StoredBody::Sliced { len: of.complete_length, size };
                let mark = Mark::new(seat.filled(), partial.tags.clone());
                Stored::new(partial.head.clone(), partial.surrogate.clone(), body, mark)
            }),
            Landing::Validated(stored) => Some(stored.clone()),
            Landing::Stored
            | Landing::Changed
            | Landing::Private
            | Landing::Refused { .. }
            | Landing::Failed(_) => None,
        };
        if let Some(may) = stands_in(&landing)
            && let Some(stale) = self.stale(forward, may)
        {
            return Begun::Head(seat, Some(stale));
        }
        if let Some(object) = object.filter(|object| !object.body().is_whole()) {
            let epochs = &core.edge.epochs;
            let tags = object.mark().tags();
            let is_for_it = object.head().vary.matches(&asked.headers)
                && epochs.may_share(demand, seat.stamp(), &key.place(), tags);
            return Begun::Head(seat, is_for_it.then_some(object));
        }
        match waiter.land(&seat, landing) {
            Some(response) => Begun::Answer(response),
            None if is_private && !core.edge.collapse.is_apart(key, now) => {
                Begun::Elsewhere(Course::Pass)
            }
            None => Begun::Head(seat, None),
        }
    }

    /// The landing of the flight of a first slice, as [`Waiter::landed`] has it for other flights.
    async fn landed(&self, waiter: &Waiter<'_>, seat: Seat) -> Result<(Seat, Landing), Begun> {
        if !waiter.forward.stale.as_ref().is_some_and(is_sliced) {
            let landed = waiter.landed(&seat).await;
            return landed.map(|landing| (seat, landing)).map_err(Begun::Answer);
        }
        let patience = self.site.resilience.stale_patience;
        let stale = self.stale(waiter.forward, may_serve_stale_on_error);
        if let (Some(patience), Some(stale)) = (patience, stale) {
            return match waiter.patiently(patience, seat.began(), seat.landed()).await {
                Some(landing) => Ok((seat, landing)),
                None => Err(Begun::Head(seat, Some(stale))),
            };
        }
        let landed = waiter.in_time(seat.landed()).await;
        Ok((seat, landed.unwrap_or_else(|error| Landing::Failed(Arc::new(error)))))
    }

    /// The head of the object whose slices `may` stand in place of an error (RFC 5861 §4).
    fn stale(&self, forward: &Forward<Stored>, may: MayServe) -> Option<Stored> {
        let stale = forward.stale.as_ref()?;
        let standing = self.core.edge.store.standing(self.key.as_str(), stale);
        let is_allowed = may(stale.head(), &self.site.policy, self.core.now());
        (is_sliced(stale) && standing != Standing::Purged && is_allowed).then(|| stale.clone())
    }

    /// The object of this head, for this request.
    fn object(&self, stored: &Stored) -> Option<Object> {
        let StoredBody::Sliced { size, .. } = *stored.body() else { return None };
        let Road { core, site, key, asked, demand } = *self;
        Some(Object {
            core: Arc::clone(core),
            site: Arc::clone(site),
            key: key.clone(),
            asked: Arc::clone(asked),
            stored: stored.clone(),
            size,
            demand,
        })
    }

    /// The answer from slices, of an object that was `begun` for this reason or that was there;
    /// `None` if the origin has something else by now.
    async fn respond(&self, stored: &Stored, begun: Option<Fwd>) -> Option<Response<Body>> {
        let (view, head) = (self.view(), stored.head());
        let ranges = match head.precondition(&view) {
            Precondition::Proceed => respond::wanted(&view, head, stored.body().len()),
            Precondition::NotModified | Precondition::Failed => Ranges::Unsatisfiable,
        };
        let object = self.object(stored)?;
        let wanted = match ranges {
            Ranges::Whole => {
                let last = stored.body().len().saturating_sub(1);
                vec![ByteRange { first: 0, last }]
            }
            Ranges::One(range) => vec![range],
            Ranges::Several(ranges) => ranges,
            Ranges::Unsatisfiable => Vec::new(),
        };
        let is_hit = begun.is_none() && object.holds(&wanted);
        let why = begun.unwrap_or(Fwd::Partial);
        let first = match wanted.first() {
            None => None,
            Some(range) => match object.first_slice(range.first / object.size).await {
                Ok(slice) => Some(slice),
                Err(Broken::Changed) => return None,
                Err(Broken::Failed(error)) => return Some(self.failed(&error, why)),
            },
        };
        let now = self.core.now();
        let ttl = head.ttl(now);
        let status = CacheStatus {
            hit: is_hit,
            fwd: (!is_hit).then_some(why),
            ttl: Some(ttl),
            stored: !is_hit && ttl > 0,
            ..self.site.cache_status(&self.core.edge.name, Some(self.key.as_str()))
        };
        let outcome = match status.fwd {
            Some(fwd) => Outcome::Forwarded(fwd),
            None => outcome(ttl),
        };
        let first = std::cell::Cell::new(first);
        let assemble = |plan: Vec<Piece>| {
            let length = plan.iter().map(|piece| match piece {
                Piece::Head(text) | Piece::Tail(text) => text.len() as u64,
                Piece::Body(range) => range.length(),
            });
            let length = length.sum();
            let assembly = Assembly::new(object.clone(), plan, first.take());
            Body::assembled(length, Box::new(assembly))
        };
        let age = head.current_age(now);
        let mut response = respond::from_slices(&view, stored, &assemble, age, &status);
        self.tell(stored, &mut response);
        Some(self.core.counted(self.site, outcome, response))
    }

    fn tell(&self, stored: &Stored, response: &mut Response<Body>) {
        let asker = self.asked.asker.as_deref();
        tell::of_stored(self.core, asker, self.key.as_str(), stored, response);
    }

    fn failed(&self, error: &FetchError, why: Fwd) -> Response<Body> {
        let name = &self.core.edge.name;
        let told = self.site.cache_status(name, Some(self.key.as_str()));
        let status = CacheStatus { fwd: Some(why), ..told };
        let response = respond::upstream_error(name, &self.asked.method, error, &status);
        self.core.counted(self.site, Outcome::Forwarded(why), response)
    }
}

/// Whether something stale may be served now.
type MayServe = fn(&StoredHead, &Policy, Now) -> bool;

/// What settles whether something stale may stand in place of this landing, where it is a failure.
fn stands_in(landing: &Landing) -> Option<MayServe> {
    match landing {
        Landing::Refused { .. } => Some(may_serve_stale_on_error),
        Landing::Failed(_) => Some(may_serve_when_disconnected),
        Landing::Shared(_)
        | Landing::Validated(_)
        | Landing::Stored
        | Landing::Changed
        | Landing::Private => None,
    }
}

fn is_sliced(stored: &Stored) -> bool {
    matches!(stored.body(), StoredBody::Sliced { .. })
}

/// Whether an object is here with all that a request asks for, so that `only-if-cached` holds.
pub(crate) fn are_here(
    core: &Arc<Core>,
    key: &CacheKey,
    request: &RequestView<'_>,
    stored: &Stored,
) -> bool {
    let StoredBody::Sliced { len, size } = *stored.body() else { return false };
    let wanted = match respond::wanted(request, stored.head(), len) {
        Ranges::Whole => vec![ByteRange { first: 0, last: len.saturating_sub(1) }],
        Ranges::One(range) => vec![range],
        Ranges::Several(ranges) => ranges,
        Ranges::Unsatisfiable => return true,
    };
    wanted.iter().all(|range| {
        let (first, last) = (range.first / size, range.last / size);
        last - first < MAX_LOOKED_FOR
            && (first..=last).all(|index| {
                let slice = Slicing { size, index, of: None }.key(key);
                let found = core.edge.store.lookup(slice.as_str(), request.headers, core.now());
                matches!(found, Lookup::Found(slice)
                    if may_combine(&slice.head().validators, &stored.head().validators))
            })
    })
}
