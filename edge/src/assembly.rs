//! An object in slices as one response sends it: where each slice comes from, and how they are put
//! together.
//!
//! # Invariants
//! - All slices of one response are of one representation, that of the object's head; else it breaks
//!   off before its announced end.
//! - Nobody waits for a slice longer than for an answer.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use meridian_edge_rules::decide::Lookup;
use meridian_edge_rules::partial::may_combine;
use meridian_edge_rules::ranges::{ByteRange, Piece};
use tokio::time::{Sleep, sleep};

use crate::asked::Asked;
use crate::body::{Segment, Segments};
use crate::collapse::{Landing, Role};
use crate::core::Core;
use crate::epochs::Demand;
use crate::error::{BodyError, FetchError};
use crate::flow::Reader;
use crate::key::CacheKey;
use crate::reuse::missing;
use crate::route::Site;
use crate::slice_fetch::{SliceFetch, Slicing};
use crate::store::Stored;
use crate::stored_body::StoredBody;
use crate::waiter::in_time;

/// Fetches that a request waits for before it takes the object for changed.
const MAX_ROUNDS: usize = 4;
/// Slices that are looked for when it is told whether an answer comes from the store.
const MAX_LOOKED_FOR: u64 = 256;

/// An object in slices, for one response.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) core: Arc<Core>,
    pub(crate) site: Arc<Site>,
    pub(crate) key: CacheKey,
    pub(crate) asked: Arc<Asked>,
    /// Its head.
    pub(crate) stored: Stored,
    /// Of a slice.
    pub(crate) size: u64,
    pub(crate) demand: Demand,
}

/// One slice.
pub(crate) enum Slice {
    There(StoredBody),
    Arriving(Reader),
}

/// Why there is no such slice.
pub(crate) enum Broken {
    /// The origin has another representation now.
    Changed,
    Failed(Arc<FetchError>),
}

impl Object {
    /// Whether every slice of these ranges is in the store.
    pub(crate) fn holds(&self, ranges: &[ByteRange]) -> bool {
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

    /// A slice that the client waits for before anything of its answer is sent.
    pub(crate) async fn first_slice(&self, index: u64) -> Result<Slice, Broken> {
        in_time(&self.core, &self.site, &self.asked, self.slice(index))
            .await
            .unwrap_or_else(|error| Err(Broken::Failed(Arc::new(error))))
    }

    /// How long a client waits for one of the other slices: as long as for an answer.
    fn patience(&self) -> Duration {
        let origin = self.site.origins_for(self.asked.matched).first();
        origin.map_or(Duration::MAX, |origin| origin.limits.total)
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
pub(crate) struct Assembly {
    object: Object,
    plan: VecDeque<Piece>,
    /// What is left of the range that is being sent.
    range: Option<ByteRange>,
    /// The first slice, which was waited for before the head was sent.
    first: Option<Slice>,
    coming: Option<Coming>,
    /// Runs while the client waits for a slice.
    overdue: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Assembly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assembly").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Assembly {
    /// Of these pieces; `first`: the first slice, if it was waited for.
    pub(crate) fn new(object: Object, plan: Vec<Piece>, first: Option<Slice>) -> Self {
        Self { object, plan: plan.into(), range: None, first, coming: None, overdue: None }
    }

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

    /// Whether the client has waited for as long as it should.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let patience = self.object.patience();
        self.overdue.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(context)
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
                let Poll::Ready(slice) = self.ask(range).poll(context) else {
                    ready!(self.poll_overdue(context));
                    return Poll::Ready(Some(Err(BodyError::Stalled(self.object.patience()))));
                };
                (self.coming, self.overdue) = (None, None);
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
