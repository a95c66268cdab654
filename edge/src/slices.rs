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

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use meridian_edge_rules::cache_status::CacheStatus;
use meridian_edge_rules::decide::{Decision, Forward, Fwd, Lookup};
use meridian_edge_rules::exchange::RequestView;
use meridian_edge_rules::partial::may_combine;
use meridian_edge_rules::ranges::{ByteRange, Piece, Ranges, Spec, asked as asked_for};
use meridian_edge_rules::reusable::{may_serve_stale_on_error, may_serve_when_disconnected};
use meridian_edge_rules::validate::Precondition;

use crate::asked::Asked;
use crate::body::{Body, Segment, Segments};
use crate::collapse::{Landing, Role, Seat};
use crate::core::Core;
use crate::course::Course;
use crate::epochs::{Demand, Mark, Standing};
use crate::error::{BodyError, FetchError};
use crate::flow::Reader;
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
                let key = self.key.as_str();
                let mut response = hit(self.core, self.site, key, &view, &stored, age, ttl);
                self.tell(&stored, &mut response);
                Held::Answer(response)
            }
            Decision::Serve { stored, revalidate: None, .. }
                if matches!(stored.body(), StoredBody::Sliced { .. }) =>
            {
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
        let landing = seat.landed().await;
        let is_private = matches!(landing, Landing::Private);
        let object = match &landing {
            Landing::Shared(partial) => partial.part.map(|of| {
                let body = StoredBody::Sliced { len: of.complete_length, size };
                let mark = Mark::new(seat.filled(), partial.tags.clone());
                let surrogate = partial.surrogate.clone();
                Stored::new(partial.head.clone(), surrogate, body, mark)
            }),
            Landing::Validated(stored) => Some(stored.clone()),
            Landing::Stored
            | Landing::Changed
            | Landing::Private
            | Landing::Refused { .. }
            | Landing::Failed(_) => None,
        };
        if let Some(stale) = self.stale(forward, &landing) {
            return Begun::Head(seat, Some(stale));
        }
        if let Some(object) = object.filter(|object| !object.body().is_whole()) {
            let epochs = &core.edge.epochs;
            let tags = object.mark().tags();
            let is_for_it = object.head().vary.matches(&asked.headers)
                && epochs.may_share(demand, seat.stamp(), &key.place(), tags);
            return Begun::Head(seat, is_for_it.then_some(object));
        }
        let waiter = Waiter { core, site, key, asked, forward, demand, leads };
        match waiter.land(&seat, landing) {
            Some(response) => Begun::Answer(response),
            None if is_private && !core.edge.collapse.is_apart(key, now) => {
                Begun::Elsewhere(Course::Pass)
            }
            None => Begun::Head(seat, None),
        }
    }

    /// The head of the object whose slices may stand in place of an error (RFC 5861 §4).
    fn stale(&self, forward: &Forward<Stored>, landing: &Landing) -> Option<Stored> {
        let may = match landing {
            Landing::Refused { .. } => may_serve_stale_on_error,
            Landing::Failed(_) => may_serve_when_disconnected,
            Landing::Shared(_)
            | Landing::Validated(_)
            | Landing::Stored
            | Landing::Changed
            | Landing::Private => return None,
        };
        let stale = forward.stale.as_ref()?;
        let is_sliced = matches!(stale.body(), StoredBody::Sliced { .. });
        let standing = self.core.edge.store.standing(self.key.as_str(), stale);
        let is_allowed = may(stale.head(), &self.site.policy, self.core.now());
        (is_sliced && standing != Standing::Purged && is_allowed).then(|| stale.clone())
    }

    /// The answer from slices, of an object that was `begun` for this reason or that was there;
    /// `None` if the origin has something else by now.
    async fn respond(&self, stored: &Stored, begun: Option<Fwd>) -> Option<Response<Body>> {
        let (view, head) = (self.view(), stored.head());
        let ranges = match head.precondition(&view) {
            Precondition::Proceed => respond::wanted(&view, head, stored.body().len()),
            Precondition::NotModified | Precondition::Failed => Ranges::Unsatisfiable,
        };
        let object = Object::of(self, stored)?;
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
            Some(range) => match object.slice(range.first / object.size).await {
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
            let assembly = Assembly {
                object: object.clone(),
                plan: plan.into(),
                range: None,
                first: first.take(),
                coming: None,
            };
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

/// An object in slices, for one response.
#[derive(Clone)]
struct Object {
    core: Arc<Core>,
    site: Arc<Site>,
    key: CacheKey,
    asked: Arc<Asked>,
    stored: Stored,
    size: u64,
    demand: Demand,
}

/// One slice.
enum Slice {
    There(StoredBody),
    Arriving(Reader),
}

/// Why there is no such slice.
enum Broken {
    /// The origin has another representation now.
    Changed,
    Failed(Arc<FetchError>),
}

impl Object {
    fn of(road: &Road<'_>, stored: &Stored) -> Option<Self> {
        let StoredBody::Sliced { size, .. } = *stored.body() else { return None };
        let Road { core, site, key, asked, demand } = *road;
        Some(Self {
            core: Arc::clone(core),
            site: Arc::clone(site),
            key: key.clone(),
            asked: Arc::clone(asked),
            stored: stored.clone(),
            size,
            demand,
        })
    }

    /// Whether every slice of these ranges is in the store.
    fn holds(&self, ranges: &[ByteRange]) -> bool {
        ranges.iter().all(|range| {
            let (first, last) = (range.first / self.size, range.last / self.size);
            let last = last.min(first.saturating_add(MAX_LOOKED_FOR));
            (first..=last).all(|index| self.held(index).is_some())
        })
    }

    fn slicing(&self, index: u64) -> Slicing {
        Slicing { size: self.size, index, of: Some(self.stored.clone()) }
    }

    /// A slice of this very representation, if it is in the store.
    fn held(&self, index: u64) -> Option<StoredBody> {
        let key = self.slicing(index).key(&self.key);
        let (store, now) = (&self.core.edge.store, self.core.now());
        let Lookup::Found(slice) = store.lookup(key.as_str(), &self.asked.headers, now) else {
            return None;
        };
        let is_ours = may_combine(&slice.head().validators, &self.stored.head().validators);
        is_ours.then(|| slice.body().clone())
    }

    /// A slice, from the store, from a fetch under way, or from a new one.
    async fn slice(&self, index: u64) -> Result<Slice, Broken> {
        let slicing = self.slicing(index);
        let key = slicing.key(&self.key);
        let mut tried = Vec::new();
        for _round in 0..MAX_ROUNDS {
            if let Some(body) = self.held(index) {
                return Ok(Slice::There(body));
            }
            let (collapse, now) = (&self.core.edge.collapse, self.core.now().mono);
            let seat = match collapse.join(&key, &self.asked.headers, &tried, self.demand, now) {
                Role::Follower(seat) => seat,
                Role::Leader(lead) | Role::Apart(lead) => {
                    if let Some(body) = self.held(index) {
                        lead.flight.land(Landing::Stored);
                        return Ok(Slice::There(body));
                    }
                    let seat = lead.seat();
                    let fetch = SliceFetch {
                        core: Arc::clone(&self.core),
                        site: Arc::clone(&self.site),
                        asked: Arc::clone(&self.asked),
                        key: self.key.clone(),
                        forward: missing(None),
                        lead,
                    };
                    drop(self.core.tasks.spawn(fetch.run(slicing.clone())));
                    seat
                }
            };
            match seat.landed().await {
                Landing::Shared(partial) => {
                    let epochs = &self.core.edge.epochs;
                    let (place, stamp) = (self.key.place(), seat.stamp());
                    let is_ours = partial.part.is_some()
                        && may_combine(&partial.head.validators, &self.stored.head().validators)
                        && epochs.may_share(self.demand, stamp, &place, &partial.tags);
                    if let Some(reader) = partial.flow.read().filter(|_| is_ours) {
                        return Ok(Slice::Arriving(reader));
                    }
                }
                Landing::Changed => return Err(Broken::Changed),
                Landing::Failed(error) => return Err(Broken::Failed(error)),
                Landing::Refused { upstream, status } => {
                    let upstream = upstream.to_string();
                    return Err(Broken::Failed(Arc::new(FetchError::SharedFailure {
                        upstream,
                        status,
                    })));
                }
                Landing::Validated(_) | Landing::Stored | Landing::Private => {}
            }
            tried.push(seat.number());
        }
        Err(Broken::Changed)
    }
}

/// The slice after the one that is being sent: asked for while that is sent, so that a client does
/// not wait a round trip for each.
enum Coming {
    Asked(Pin<Box<dyn Future<Output = Result<Slice, Broken>> + Send>>),
    Here(Option<Result<Slice, Broken>>),
}

impl Coming {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Slice, Broken>> {
        match self {
            Self::Asked(asked) => asked.as_mut().poll(context),
            Self::Here(slice) => slice.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}

/// A body of slices.
struct Assembly {
    object: Object,
    plan: VecDeque<Piece>,
    /// What is left of the range that is being sent.
    range: Option<ByteRange>,
    /// The first slice, which was waited for before the head was sent.
    first: Option<Slice>,
    coming: Option<Coming>,
}

impl fmt::Debug for Assembly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assembly").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Assembly {
    /// Asks for the slice that begins with what is left of the range.
    fn ask(&mut self, range: ByteRange) -> &mut Coming {
        let (object, index) = (&self.object, range.first / self.object.size);
        self.coming.get_or_insert_with(|| {
            let object = object.clone();
            Coming::Asked(Box::pin(async move { object.slice(index).await }))
        })
    }

    /// Asks for the next slice already.
    fn read_ahead(&mut self, context: &mut Context<'_>) {
        let Some(range) = self.range else { return };
        if let Poll::Ready(slice) = self.ask(range).poll(context) {
            self.coming = Some(Coming::Here(Some(slice)));
        }
    }

    /// What `slice` has of the range that is being sent.
    fn segment(&mut self, slice: Slice, range: ByteRange) -> Segment {
        let size = self.object.size;
        let start = range.first / size * size;
        let end = start.saturating_add(size - 1).min(range.last);
        self.range = (end < range.last).then(|| ByteRange { first: end + 1, last: range.last });
        let within = ByteRange { first: range.first - start, last: end - start };
        match slice {
            Slice::There(body) => Segment::There(body.slice(within)),
            Slice::Arriving(reader) => Segment::Arriving(reader, within),
        }
    }
}

impl Segments for Assembly {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Segment, BodyError>>> {
        let range = match self.range {
            Some(range) => range,
            None => match self.plan.pop_front() {
                Some(Piece::Head(text) | Piece::Tail(text)) => {
                    let text = VecDeque::from([Bytes::from(text)]);
                    return Poll::Ready(Some(Ok(Segment::There(text))));
                }
                Some(Piece::Body(range)) => range,
                None => return Poll::Ready(None),
            },
        };
        self.range = Some(range);
        let slice = match self.first.take() {
            Some(first) => Ok(first),
            None => {
                let slice = ready!(self.ask(range).poll(context));
                self.coming = None;
                slice
            }
        };
        Poll::Ready(Some(match slice {
            Ok(slice) => {
                let segment = self.segment(slice, range);
                self.read_ahead(context);
                Ok(segment)
            }
            Err(Broken::Changed) => Err(BodyError::Changed),
            Err(Broken::Failed(_)) => Err(BodyError::Incomplete),
        }))
    }
}
