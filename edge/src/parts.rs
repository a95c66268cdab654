//! A range that is fetched by itself: its answer goes to all who ask for the same meanwhile, and
//! is stored as a part, combined with those that are there (RFC 9111 §3.4).
//!
//! # Invariants
//! - Parts that were combined carry the stamp of the oldest and the tags of all: a purge that takes
//!   one takes them all.
//! - Only a part that says consistently which one it is is stored; what contradicts itself goes to
//!   the client that asked, who asked for it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body as _;
use meridian_edge_rules::decide::{Forward, Fwd};
use meridian_edge_rules::exchange::{Exchange, RequestView, ResponseView};
use meridian_edge_rules::groups::{CACHE_GROUPS, groups};
use meridian_edge_rules::partial::{ContentRange, Limits, may_combine, whole_fields};
use meridian_edge_rules::ranges::Spec;
use meridian_edge_rules::stored::StoredHead;
use tracing::debug;

use crate::ask::{Answered, ask_for};
use crate::asked::Asked;
use crate::behalf::Behalf;
use crate::body::UpstreamBody;
use crate::collapse::{Landing, Lead, Partial, Role};
use crate::control_doubt::NO_DOUBT;
use crate::core::Core;
use crate::course::Course;
use crate::epochs::{Mark, Standing};
use crate::fetch::{self, Ending, Goal, Hold, Leftover, Update};
use crate::fill::Fill;
use crate::flow::Flow;
use crate::key::CacheKey;
use crate::negotiate::{first_forms, will_have_forms};
use crate::request_body::RequestBody;
use crate::request_head::{Condition, Purpose, varies_by_edge};
use crate::reuse::stored_meanwhile;
use crate::route::Site;
use crate::settle;
use crate::store::Stored;
use crate::stored_body::{Rope, StoredBody};
use crate::tags::{labels, tags};
use crate::waiter::Waiter;

/// Flights that a request waits for before it goes on by itself.
const MAX_FLIGHTS: usize = 3;

/// Answers a request for one range.
pub(crate) async fn serve(
    core: &Arc<Core>,
    site: &Arc<Site>,
    key: &CacheKey,
    asked: &Arc<Asked>,
    forward: &Forward<Stored>,
    spec: Spec,
) -> Course {
    let flight_key = key.within(format_args!("bytes={spec}"));
    let demand = core.edge.epochs.demand(&key.place());
    let mut forward = forward.clone();
    let mut tried = Vec::new();
    while tried.len() < MAX_FLIGHTS {
        let now = core.now().mono;
        if forward.why != Fwd::Partial && core.edge.collapse.is_apart(key, now) {
            return Course::Whole;
        }
        let joined = core.edge.collapse.join(&flight_key, &asked.headers, &tried, demand, now);
        let (seat, leads) = match joined {
            Role::Follower(seat) => (seat, false),
            Role::Leader(lead) | Role::Apart(lead) => {
                match stored_meanwhile(core, site, key, asked) {
                    Ok(response) => {
                        lead.flight.land(Landing::Stored);
                        return Course::Done(response);
                    }
                    Err(again) => forward = again.unwrap_or(forward),
                }
                let seat = lead.seat();
                let fetching = Fetching {
                    core: Arc::clone(core),
                    site: Arc::clone(site),
                    asked: Arc::clone(asked),
                    key: key.clone(),
                    forward: forward.clone(),
                    lead,
                };
                drop(core.tasks.spawn(fetching.run(spec)));
                (seat, true)
            }
        };
        let waiter =
            Waiter { core, site, key, asked, forward: &forward, demand, leads, doubt: &NO_DOUBT };
        let landing = match waiter.landed(&seat).await {
            Ok(landing) => landing,
            Err(response) => return Course::Done(response),
        };
        if matches!(landing, Landing::Stored)
            && let Ok(response) = stored_meanwhile(core, site, key, asked)
        {
            return Course::Done(response);
        }
        if let Some(response) = waiter.land(&seat, landing) {
            return Course::Done(response);
        }
        tried.push(seat.number());
    }
    Course::Pass
}

/// The task of one fetch.
struct Fetching {
    core: Arc<Core>,
    site: Arc<Site>,
    asked: Arc<Asked>,
    /// Of the whole.
    key: CacheKey,
    forward: Forward<Stored>,
    lead: Lead,
}

impl Fetching {
    async fn run(self, spec: Spec) {
        let (core, site, asked) = (&*self.core, &*self.site, &*self.asked);
        let Ok(range) = HeaderValue::from_str(&format!("bytes={spec}")) else { return };
        let sent = core.now();
        // What a hard purge took since the lookup is no base of a condition.
        let mut validate = self.forward.validate.as_ref().filter(|stored| {
            core.edge.store.standing(self.key.as_str(), stored) != Standing::Purged
        });
        let condition = validate
            .map_or(Condition::Always, |stored| Condition::Other(&stored.head().validators));
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
        let (lead, key) = (&self.lead, &self.key);
        let hold = Hold { lead, key, forward: &self.forward, validate };
        match answered.response.status() {
            StatusCode::PARTIAL_CONTENT => self.bring_in(hold, answered, &times).await,
            // Of this range alone: nothing for the store, which holds answers about the whole.
            StatusCode::RANGE_NOT_SATISFIABLE => self.leave(answered.response),
            _ => fetch::settle(core, site, asked, hold, answered, &times).await,
        }
    }

    /// For the leader alone.
    fn leave(&self, response: Response<UpstreamBody>) {
        self.lead.flight.leave(response);
        self.lead.flight.land(Landing::Private);
    }

    async fn bring_in(&self, hold: Hold<'_>, answered: Answered, times: &Exchange) {
        let (core, site, asked) = (&*self.core, &*self.site, &*self.asked);
        let Answered { response, upstream } = answered;
        let fill = Fill::of(&response);
        if let Some(fill) = fill {
            self.lead.flight.fill(fill.stamp());
        }
        let Some(of) = ContentRange::of(response.headers()) else { return self.leave(response) };
        let request = RequestView { method: &asked.method, headers: &asked.headers };
        let fields = whole_fields(response.headers(), of.complete_length);
        let view = ResponseView { status: StatusCode::OK, headers: &fields };
        let head = match settle::stored_head(site, asked.matched, &request, &view, times) {
            Ok(_) if fill.is_some_and(|fill| !fill.may_be_stored()) => {
                return self.leave(response);
            }
            Ok(mut head) if !varies_by_edge(&fields) => {
                if let Some(fill) = fill {
                    fill.limit(&mut head);
                }
                head
            }
            Ok(_) | Err(_) => {
                core.edge.collapse.keep_apart(&self.key, times.received.mono);
                return self.leave(response);
            }
        };
        if !fetch::fits(core, response.body()) || of.range.length() > core.edge.cache.max_body.get()
        {
            return self.leave(response);
        }
        let body = response.into_body();
        if of.is_whole() && body.size_hint().exact() == Some(of.complete_length) {
            let Hold { lead, key, forward, .. } = hold;
            let goal = Goal { lead, key, forward: Some(forward), upstream: &upstream };
            fetch::bring_in(core, site, goal, head, body, times).await;
            return;
        }
        let leftover = Leftover::of(core, &upstream);
        self.bring_in_part(of, head, &fields, body, times, leftover).await;
    }

    async fn bring_in_part(
        &self,
        of: ContentRange,
        mut head: StoredHead,
        fields: &HeaderMap,
        body: UpstreamBody,
        times: &Exchange,
        leftover: Leftover,
    ) {
        let (core, site, lead) = (&*self.core, &*self.site, &self.lead);
        let edge = &core.edge;
        let surrogate = fetch::prepare(site, &mut head, times);
        let flow = Flow::new(Arc::clone(&edge.in_flight), edge.cache.max_body.get());
        let _ending = Ending(&flow);
        let length = body.size_hint().exact();
        let tags = labels(&edge.epochs, &self.key.place(), &surrogate, &head.headers);
        // Put together with others it may become a whole that has forms.
        will_have_forms(site, head.status, &mut head.headers, Some(of.complete_length));
        let (flow_, part) = (Arc::clone(&flow), Some(of));
        let of_edges = surrogate.clone();
        let partial = Partial {
            head,
            tags,
            surrogate: of_edges,
            flow: flow_,
            length,
            part,
            has_forms: false,
        };
        let partial = Arc::new(partial);
        lead.flight.land(Landing::Shared(Arc::clone(&partial)));

        let ended = fetch::pump(core, lead, body, &flow, length, leftover).await;
        match (ended, flow.whole(), self.arrived(of, flow.received())) {
            (Ok(()), Some(chunks), Some(of)) => {
                let content = compacted(&flow, &chunks).await;
                let mark = Mark::new(lead.flight.filled(), partial.tags.clone());
                let head = partial.head.clone();
                let part = StoredBody::part(of, content.clone());
                let stored = Stored::new(head, surrogate, part, mark);
                edge.store.insert_over(&self.key, &stored, |old| {
                    self.combined(old, &stored, fields, of, content, times)
                });
            }
            (Ok(()), _, _) => {}
            (Err(error), _, _) => debug!(%error, key = %self.key, "a part did not arrive whole"),
        }
        // Only now do the readers see the end: who asks again after it finds the part stored.
        flow.end(ended);
    }

    /// Which part has come, with so many bytes, in place of `of`.
    fn arrived(&self, of: ContentRange, bytes: u64) -> Option<ContentRange> {
        let mut arrived = of;
        if bytes != of.range.length() {
            // It stops early: what there is begins where it says (RFC 9111 §3.3).
            let is_short = (1..of.range.length()).contains(&bytes);
            arrived.range.last = of.range.first.checked_add(bytes.checked_sub(1)?)?;
            (is_short && self.site.ranges.store_short).then_some(())?;
        }
        Some(arrived)
    }

    /// What `new` and what is stored make together; `None`: `new` stands alone.
    fn combined(
        &self,
        old: &Stored,
        new: &Stored,
        fields: &HeaderMap,
        of: ContentRange,
        content: Rope,
        times: &Exchange,
    ) -> Option<Stored> {
        let edge = &self.core.edge;
        if !may_combine(&old.head().validators, &new.head().validators) {
            return None;
        }
        if !matches!(old.body(), StoredBody::Parts(_)) {
            return (old.body().len() == of.complete_length).then(|| old.clone());
        }
        let limits = Limits {
            parts: usize::from(edge.cache.max_parts.get()),
            bytes: edge.cache.max_body.get(),
        };
        let body = old.body().with(of, content, limits)?;
        let stamp = old.mark().stamp().min(new.mark().stamp());
        let (request, place) = (&self.asked.headers, self.key.place());
        let matched = self.asked.matched;
        let update = Update { request, response: fields, times, matched, stamp, fill: None };
        let fresh = fetch::freshened(&self.core, &self.site, &self.key, old, &update);
        let of = |stored: &Stored| groups(&stored.head().headers, &CACHE_GROUPS);
        let (before, after) = (of(old), of(new));
        let of_all = before.iter().chain(&after).map(String::as_str);
        let all = tags(old.surrogate()).chain(tags(new.surrogate()));
        let mark = Mark::new(stamp, edge.epochs.labels(all, &place, of_all));
        let mut head = fresh.head().clone();
        head.lifetime = head.lifetime.min(new.head().lifetime); // a shield may have limited it
        let forms = first_forms(&self.site, &self.key, &mut head, &body);
        Some(Stored::new(head, fresh.surrogate().clone(), body, mark).with_forms(forms))
    }
}

/// The bytes of a flow as they are stored, which its readers go on with.
async fn compacted(flow: &Flow, chunks: &[Bytes]) -> Rope {
    let content = Rope::compact(chunks).await;
    flow.hand_over(content.pieces());
    content
}
