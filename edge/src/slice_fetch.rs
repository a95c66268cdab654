//! The fetch of one slice: its task, and what makes an answer a slice.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body as _;
use meridian_edge_rules::decide::Forward;
use meridian_edge_rules::exchange::{Exchange, RequestView, ResponseView};
use meridian_edge_rules::partial::{ContentRange, if_range, may_combine, whole_fields};
use meridian_edge_rules::stored::StoredHead;
use tracing::debug;

use crate::ask::{Answered, ask_for};
use crate::asked::Asked;
use crate::behalf::Behalf;
use crate::body::UpstreamBody;
use crate::collapse::{Landing, Lead, Partial};
use crate::core::Core;
use crate::epochs::{Mark, Standing};
use crate::fetch::{self, Ending, Goal, Hold, Leftover};
use crate::fill::Fill;
use crate::flow::Flow;
use crate::key::CacheKey;
use crate::request_body::RequestBody;
use crate::request_head::{Condition, Purpose, varies_by_edge};
use crate::route::Site;
use crate::settle;
use crate::store::Stored;
use crate::stored_body::StoredBody;
use crate::tags::labels;

/// Which slice.
#[derive(Clone)]
pub(crate) struct Slicing {
    pub(crate) size: u64,
    /// Counted from 0.
    pub(crate) index: u64,
    /// The head of the object that it must be of; `None`: whatever the origin has.
    pub(crate) of: Option<Stored>,
}

impl Slicing {
    /// What it is stored under, for an object under `object`.
    pub(crate) fn key(&self, object: &CacheKey) -> CacheKey {
        object.within(format_args!("{}.{}", self.size, self.index))
    }

    fn first(&self) -> u64 {
        self.index.saturating_mul(self.size)
    }

    /// Its last byte, in an object of this length.
    fn last(&self, length: Option<u64>) -> u64 {
        let last = self.first().saturating_add(self.size - 1);
        length.map_or(last, |length| last.min(length.saturating_sub(1)))
    }
}

/// The task of one fetch.
pub(crate) struct SliceFetch {
    pub(crate) core: Arc<Core>,
    pub(crate) site: Arc<Site>,
    pub(crate) asked: Arc<Asked>,
    /// Of the object.
    pub(crate) key: CacheKey,
    pub(crate) forward: Forward<Stored>,
    pub(crate) lead: Lead,
}

impl SliceFetch {
    /// Asks for the slice, lands the flight, brings the slice in and stores it.
    pub(crate) async fn run(self, slicing: Slicing) {
        let (core, site, asked) = (&*self.core, &*self.site, &*self.asked);
        let length = slicing.of.as_ref().map(|stored| stored.body().len());
        let text = format!("bytes={}-{}", slicing.first(), slicing.last(length));
        let Ok(range) = HeaderValue::from_str(&text) else { return };
        let sent = core.now();
        // What a hard purge took since the lookup is no base of a condition.
        let mut validate = self.forward.validate.as_ref().filter(|stored| {
            core.edge.store.standing(self.key.as_str(), stored) != Standing::Purged
        });
        let condition = match (&slicing.of, validate) {
            (Some(of), _) => Condition::Same(&of.head().validators),
            (None, Some(stored)) => Condition::Other(&stored.head().validators),
            (None, None) => Condition::Always,
        };
        let behalf = Behalf::of_flight(core, site, &self.lead, &self.forward);
        let ask = |condition| {
            let purpose = Purpose::Part(&range, condition);
            ask_for(core, site, asked, RequestBody::Empty, purpose, behalf)
        };
        let mut answered = ask(condition).await;
        if let (Ok(Answered { response, .. }), Some(stored)) = (&answered, validate)
            && response.status() == StatusCode::NOT_MODIFIED
            && !stored.head().validators.confirmed_by(response.headers())
        {
            validate = None;
            answered = ask(Condition::Always).await;
        }
        let answered = match answered {
            Ok(answered) => answered,
            Err(error) => return fetch::failed(core, site, &self.lead, error),
        };
        let times = Exchange { sent, received: core.now() };
        match (&slicing.of, answered.response.status()) {
            (_, StatusCode::PARTIAL_CONTENT) => {
                self.bring_in(&slicing, answered, &times).await;
            }
            (Some(_), status) if status.is_server_error() => {
                let upstream = Arc::from(answered.upstream.name.as_str());
                self.lead.flight.land(Landing::Refused { upstream, status });
            }
            (Some(of), _) => self.changed(of),
            // Whatever the client asked for begins beyond the end, or there is nothing at all.
            (None, StatusCode::RANGE_NOT_SATISFIABLE) => self.lead.flight.land(Landing::Private),
            (None, _) => {
                let (lead, key) = (&self.lead, &self.key);
                let hold = Hold { lead, key, forward: &self.forward, validate };
                fetch::settle(core, site, asked, hold, answered, &times).await;
            }
        }
    }

    /// The origin has no such slice of the object any more.
    fn changed(&self, of: &Stored) {
        self.core.edge.store.forget_parts(&self.key, of);
        self.lead.flight.land(Landing::Changed);
    }

    async fn bring_in(&self, slicing: &Slicing, answered: Answered, times: &Exchange) {
        let (core, site) = (&*self.core, &*self.site);
        let Answered { response, upstream } = answered;
        let fill = Fill::of(&response);
        if let Some(fill) = fill {
            self.lead.flight.fill(fill.stamp());
        }
        let Some((of, fields, mut head)) = self.judged(slicing, &response, times) else {
            return self.refuse(slicing, response);
        };
        if let Some(fill) = fill {
            fill.limit(&mut head);
        }
        let body = response.into_body();
        match &slicing.of {
            Some(stored) => {
                let is_same = may_combine(&stored.head().validators, &head.validators)
                    && stored.body().len() == of.complete_length;
                if !is_same {
                    return self.changed(stored);
                }
            }
            None if of.is_whole() => {
                let (lead, key, forward) = (&self.lead, &self.key, Some(&self.forward));
                let goal = Goal { lead, key, forward, upstream: &upstream };
                fetch::bring_in(core, site, goal, head, body, times).await;
                return;
            }
            None if if_range(&head.validators).is_none() || varies_by_edge(&fields) => {
                // It cannot be told whether the next slice would be of the same representation.
                core.edge.collapse.keep_apart(&self.key, times.received.mono);
                return self.lead.flight.land(Landing::Private);
            }
            None => {}
        }
        let leftover = Leftover::of(core, &upstream);
        self.bring_in_slice(slicing, of, head, body, times, leftover).await;
    }

    /// The part that came, the fields of the whole, and its head, if the part is the one that was
    /// asked for and may be stored.
    fn judged(
        &self,
        slicing: &Slicing,
        response: &Response<UpstreamBody>,
        times: &Exchange,
    ) -> Option<(ContentRange, HeaderMap, StoredHead)> {
        let of = ContentRange::of(response.headers())?;
        let wanted = (slicing.first(), slicing.last(Some(of.complete_length)));
        let length = response.body().size_hint().exact();
        let is_it = (of.range.first, of.range.last) == wanted
            && length.is_none_or(|length| length == of.range.length());
        let is_of_known_age = Fill::of(response).is_none_or(Fill::may_be_stored);
        (is_it && is_of_known_age).then_some(())?;
        let fields = whole_fields(response.headers(), of.complete_length);
        let request = RequestView { method: &self.asked.method, headers: &self.asked.headers };
        let view = ResponseView { status: StatusCode::OK, headers: &fields };
        let matched = self.asked.matched;
        let head = settle::stored_head(&self.site, matched, &request, &view, times).ok()?;
        Some((of, fields, head))
    }

    /// A 206 that is no slice.
    fn refuse(&self, slicing: &Slicing, response: Response<UpstreamBody>) {
        drop(response);
        match &slicing.of {
            Some(of) => self.changed(of),
            None => {
                let now = self.core.now().mono;
                self.core.edge.collapse.keep_apart(&self.key, now);
                self.lead.flight.land(Landing::Private);
            }
        }
    }

    async fn bring_in_slice(
        &self,
        slicing: &Slicing,
        of: ContentRange,
        mut head: StoredHead,
        body: UpstreamBody,
        times: &Exchange,
        leftover: Leftover,
    ) {
        let (core, site, lead) = (&*self.core, &*self.site, &self.lead);
        let edge = &core.edge;
        let surrogate = fetch::prepare(site, &mut head, times);
        let tags = labels(&edge.epochs, &self.key.place(), &surrogate, &head.headers);
        let mark = || Mark::new(lead.flight.filled(), tags.clone());
        let flow = Flow::new(Arc::clone(&edge.in_flight), slicing.size);
        let _ending = Ending(&flow);
        let length = Some(of.range.length());
        // A slice is stored with what tells it from others; the fields are the object's.
        let mut slice_head = head.clone();
        slice_head.headers = HeaderMap::new();
        let partial = Partial {
            head: head.clone(),
            tags: tags.clone(),
            surrogate: surrogate.clone(),
            flow: Arc::clone(&flow),
            length,
            part: Some(of),
            has_forms: false,
        };
        if slicing.of.is_none() {
            let (len, size) = (of.complete_length, slicing.size);
            let object = StoredBody::Sliced { len, size };
            edge.store.insert(&self.key, &Stored::new(head, surrogate, object, mark()));
        }
        lead.flight.land(Landing::Shared(Arc::new(partial)));

        let ended = fetch::pump(core, lead, body, &flow, length, leftover).await;
        let ended = ended.and_then(|()| flow.is_of(of.range.length()));
        match (ended, flow.whole()) {
            (Ok(()), Some(chunks)) => {
                let body = StoredBody::compact(&chunks).await;
                flow.hand_over(body.pieces());
                let stored = Stored::new(slice_head, HeaderMap::new(), body, mark());
                edge.store.insert(lead.key(), &stored);
            }
            (Ok(()), None) => {}
            (Err(error), _) => debug!(%error, key = %lead.key(), "a slice did not arrive whole"),
        }
        flow.end(ended);
    }
}
