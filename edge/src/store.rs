//! Lookup, insert, evict: a moka cache weighed by real bytes.
//!
//! One key holds all variants of a URL, so that selection among them (RFC 9111 §4.1) sees them
//! all, and so that they leave together. The interface is narrow on purpose: a tier on disk that
//! answers later comes behind it.
//!
//! # Invariants
//! - What is stored has arrived: bodies that are still arriving live in [`crate::collapse`].
//! - A response of which not all is here says so ([`StoredBody::is_whole`]); its slices stand under
//!   keys of their own, at the place of its own key, so that one purge takes them all.
//! - Weight is what is held: heads, bodies copied to their exact size, key and overhead.
//! - A full store evicts or does not admit; it never fails a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use http::HeaderMap;
use meridian_config::edge::Cache as CacheConfig;
use meridian_edge_rules::decide::Lookup;
use meridian_edge_rules::partial::may_combine;
use meridian_edge_rules::reusable;
use meridian_edge_rules::stored::StoredHead;
use meridian_edge_rules::time::Now;
use moka::notification::RemovalCause;
use moka::ops::compute::Op;
use moka::sync::Cache;

use crate::epochs::{Epochs, Mark, Standing};
use crate::forms::{Bodies, Forms};
use crate::key::{self, CacheKey};
use crate::stored_body::StoredBody;

/// What a stored response costs beside its bytes: the structures here and moka's own.
const OVERHEAD: usize = 512;
/// What a header field costs beside its bytes.
const FIELD_OVERHEAD: usize = 72;

/// A stored response. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Stored(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    head: StoredHead,
    /// `Surrogate-Key`, `Cache-Tag`, `Surrogate-Control`: for the edge, not for clients.
    surrogate: HeaderMap,
    body: StoredBody,
    mark: Mark,
    /// What is made of it for clients that accept a coding, where it may be.
    forms: Option<Forms<StoredBody>>,
    weight: u32,
}

impl AsRef<StoredHead> for Stored {
    fn as_ref(&self) -> &StoredHead {
        &self.0.head
    }
}

impl Stored {
    pub(crate) fn new(
        head: StoredHead,
        surrogate: HeaderMap,
        body: StoredBody,
        mark: Mark,
    ) -> Self {
        let fields =
            fields_weight(&head.headers) + fields_weight(&surrogate) + mark.tags().weight();
        let amended = head.amended.as_ref().map_or(0, |amended| amended.weight());
        let bytes =
            OVERHEAD + fields + amended + usize::try_from(body.held()).unwrap_or(usize::MAX);
        let weight = u32::try_from(bytes).unwrap_or(u32::MAX);
        Self(Arc::new(Parts { head, surrogate, body, mark, forms: None, weight }))
    }

    /// The same with its forms. To be called before it is shared.
    pub(crate) fn with_forms(mut self, forms: Option<Forms<StoredBody>>) -> Self {
        if let Some(parts) = Arc::get_mut(&mut self.0) {
            parts.forms = forms;
        }
        self
    }

    /// What a soft purge makes of it: its lifetime is over, and what it grants beyond that holds.
    pub(crate) fn outdated(&self, now: Now) -> Self {
        let mut head = self.head().clone();
        head.lifetime = head.lifetime.min(head.current_age(now));
        let mark = Mark::new(self.mark().stamp(), self.mark().tags().clone());
        let outdated = Self::new(head, self.surrogate().clone(), self.body().clone(), mark);
        outdated.with_forms(self.forms().map(Forms::renewed))
    }

    /// What it remembers of purges.
    pub(crate) fn mark(&self) -> &Mark {
        &self.0.mark
    }

    pub(crate) fn head(&self) -> &StoredHead {
        &self.0.head
    }

    pub(crate) fn surrogate(&self) -> &HeaderMap {
        &self.0.surrogate
    }

    pub(crate) fn body(&self) -> &StoredBody {
        &self.0.body
    }

    pub(crate) fn forms(&self) -> Option<&Forms<StoredBody>> {
        self.0.forms.as_ref()
    }

    /// With what is made of it by now.
    pub(crate) fn weight(&self) -> u32 {
        let Some(forms) = &self.0.forms else { return self.0.weight };
        let heads = fields_weight(&self.head().headers) + OVERHEAD;
        let made = forms.bodies().all().map(|(_, coded)| {
            let bytes = usize::try_from(coded.length).unwrap_or(usize::MAX);
            u32::try_from(bytes.saturating_add(heads)).unwrap_or(u32::MAX)
        });
        made.fold(self.0.weight, u32::saturating_add)
    }

    fn has(&self, bodies: &Arc<Bodies<StoredBody>>) -> bool {
        self.forms().is_some_and(|forms| Arc::ptr_eq(forms.bodies(), bodies))
    }
}

fn fields_weight(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum()
}

/// All variants of one URL. Cheap to clone.
#[derive(Debug, Clone)]
enum Slot {
    One(Stored),
    Many(Arc<[Stored]>),
}

impl Slot {
    fn variants(&self) -> &[Stored] {
        match self {
            Self::One(stored) => std::slice::from_ref(stored),
            Self::Many(all) => all,
        }
    }

    fn of(mut variants: Vec<Stored>) -> Option<Self> {
        if variants.len() > 1 {
            Some(Self::Many(variants.into()))
        } else {
            variants.pop().map(Self::One)
        }
    }
}

/// The store of an edge, shared by all cores.
pub(crate) struct Store {
    slots: Cache<CacheKey, Slot, RandomState>,
    max_variants: usize,
    evicted: Arc<AtomicU64>,
    epochs: Arc<Epochs>,
}

impl Store {
    pub(crate) fn new(config: &CacheConfig, epochs: Arc<Epochs>) -> Self {
        let evicted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&evicted);
        let slots = Cache::builder()
            .max_capacity(config.capacity.get())
            .weigher(|key: &CacheKey, slot: &Slot| {
                let variants = slot.variants().iter().map(Stored::weight);
                let key = u32::try_from(key.as_str().len()).unwrap_or(u32::MAX);
                variants.fold(key, u32::saturating_add)
            })
            .eviction_listener(move |_key, _slot, cause| {
                if cause == RemovalCause::Size {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build_with_hasher(RandomState::default());
        Self { slots, max_variants: usize::from(config.max_variants.get()), evicted, epochs }
    }

    /// The stored response that `request` selects under `key`. What a hard purge took is not
    /// there; what a soft purge outdated is stale.
    pub(crate) fn lookup(&self, key: &str, request: &HeaderMap, now: Now) -> Lookup<Stored> {
        let Some(slot) = self.slots.get(key) else { return Lookup::UriMiss };
        let found = match &slot {
            Slot::One(stored) => self.usable(key, stored, now).map(|stored| {
                if stored.head().vary.matches(request) {
                    Lookup::Found(stored)
                } else {
                    Lookup::VaryMiss
                }
            }),
            Slot::Many(all) => {
                let usable = |stored| self.usable(key, stored, now);
                let all: Vec<Stored> = all.iter().filter_map(usable).collect();
                let selected = reusable::select(&all, request).and_then(|n| all.get(n));
                let found = selected.cloned().map_or(Lookup::VaryMiss, Lookup::Found);
                (!all.is_empty()).then_some(found)
            }
        };
        found.unwrap_or(Lookup::UriMiss)
    }

    fn usable(&self, key: &str, stored: &Stored, now: Now) -> Option<Stored> {
        match self.standing(key, stored) {
            Standing::Current => Some(stored.clone()),
            Standing::Outdated => Some(stored.outdated(now)),
            Standing::Purged => None,
        }
    }

    /// What the purges so far leave of a response that is, or was, stored under `key`.
    pub(crate) fn standing(&self, key: &str, stored: &Stored) -> Standing {
        self.epochs.standing(stored.mark(), || key::place(key))
    }

    /// Looks through everything that is stored, drops what was purged, and forgets the purges that
    /// concern nothing any more. `goes_on` is asked now and then. Returns how many were dropped.
    pub(crate) fn sweep(&self, goes_on: impl Fn() -> bool) -> usize {
        let sweep = self.epochs.begin_sweep();
        let mut dropped = 0;
        for (count, (key, slot)) in self.slots.iter().enumerate() {
            if count % 1_024 == 0 && !goes_on() {
                return dropped;
            }
            let settled = |stored: &Stored| self.epochs.settle(stored.mark(), || key.place());
            let purged = slot.variants().iter().map(settled).filter(|is| *is == Standing::Purged);
            let purged = purged.count();
            if purged > 0 {
                dropped += purged;
                self.drop_purged(&key);
            }
        }
        self.epochs.end_sweep(sweep);
        dropped
    }

    fn drop_purged(&self, key: &CacheKey) {
        self.slots.entry_by_ref(key).and_compute_with(|held| {
            let Some(held) = held else { return Op::Nop };
            let mut variants = held.into_value().variants().to_vec();
            let before = variants.len();
            variants.retain(|stored| self.standing(key.as_str(), stored) != Standing::Purged);
            match variants.len() {
                0 => Op::Remove,
                left if left == before => Op::Nop,
                _ => Slot::of(variants).map_or(Op::Remove, Op::Put),
            }
        });
    }

    /// Every variant under `key`, for `explain`.
    pub(crate) fn variants(&self, key: &str) -> Vec<Stored> {
        self.slots.get(key).map(|slot| slot.variants().to_vec()).unwrap_or_default()
    }

    /// Stores a response in the place of the variant that the same requests select, unless it was
    /// purged while it came: what is there may be newer.
    pub(crate) fn insert(&self, key: &CacheKey, stored: &Stored) {
        self.insert_over(key, stored, |_| None);
    }

    /// The same, but what `combine` makes of the variant that is there and was not purged, if it
    /// makes anything of it, is stored instead.
    pub(crate) fn insert_over(
        &self,
        key: &CacheKey,
        stored: &Stored,
        combine: impl FnOnce(&Stored) -> Option<Stored>,
    ) {
        if self.standing(key.as_str(), stored) == Standing::Purged {
            return;
        }
        self.slots.entry_by_ref(key).and_compute_with(|held| {
            let mut variants =
                held.map(|entry| entry.into_value().variants().to_vec()).unwrap_or_default();
            let vary = &stored.head().vary;
            let base = variants.iter().find(|old| {
                old.head().vary == *vary && self.standing(key.as_str(), old) != Standing::Purged
            });
            let stored = base.and_then(combine).unwrap_or_else(|| stored.clone());
            variants.retain(|old| !vary.is_empty() && old.head().vary != *vary);
            while variants.len() >= self.max_variants {
                variants.remove(0);
            }
            variants.push(stored);
            Slot::of(variants).map_or(Op::Nop, Op::Put)
        });
    }

    /// Lets `change` say what becomes of each variant under `key` that no hard purge took, at once:
    /// what is stored meanwhile is not lost.
    pub(crate) fn update(&self, key: &CacheKey, change: impl Fn(&Stored) -> Fate) {
        self.slots.entry_by_ref(key).and_compute_with(|held| {
            let Some(held) = held else { return Op::Nop };
            let held = held.into_value();
            let mut changed = false;
            let variants = held.variants().iter().filter_map(|stored| {
                if self.standing(key.as_str(), stored) == Standing::Purged {
                    return Some(stored.clone());
                }
                let fate = change(stored);
                changed |= !matches!(fate, Fate::Keep);
                match fate {
                    Fate::Keep => Some(stored.clone()),
                    Fate::Replace(with) => Some(with),
                    Fate::Drop => None,
                }
            });
            let variants: Vec<Stored> = variants.collect();
            if changed { Slot::of(variants).map_or(Op::Remove, Op::Put) } else { Op::Nop }
        });
    }

    /// Removes the variants of which not all is here and that are of the representation of
    /// `stored`: the origin has another one by now.
    pub(crate) fn forget_parts(&self, key: &CacheKey, stored: &Stored) {
        let validators = &stored.head().validators;
        self.slots.entry_by_ref(key).and_compute_with(|held| {
            let Some(held) = held else { return Op::Nop };
            let mut variants = held.into_value().variants().to_vec();
            variants.retain(|old| {
                old.body().is_whole() || !may_combine(&old.head().validators, validators)
            });
            Slot::of(variants).map_or(Op::Remove, Op::Put)
        });
    }

    /// Weighs the response with these bodies again, as there are more of them; if it is stored
    /// still.
    pub(crate) fn weigh_again(&self, bodies: &Arc<Bodies<StoredBody>>) {
        self.slots.entry_by_ref(&bodies.key).and_compute_with(|held| match held {
            Some(held) if held.value().variants().iter().any(|stored| stored.has(bodies)) => {
                Op::Put(held.into_value())
            }
            Some(_) | None => Op::Nop,
        });
    }

    /// Removes everything under `key` (RFC 9111 §4.4).
    pub(crate) fn invalidate(&self, key: &str) {
        self.slots.invalidate(key);
    }

    /// Counts as of now; pending bookkeeping is done first.
    pub(crate) fn counts(&self) -> Counts {
        self.slots.run_pending_tasks();
        Counts {
            urls: self.slots.entry_count(),
            bytes: self.slots.weighted_size(),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }
}

/// What becomes of a variant.
#[derive(Debug)]
pub(crate) enum Fate {
    Keep,
    Replace(Stored),
    Drop,
}

/// What the store holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) urls: u64,
    pub(crate) bytes: u64,
    pub(crate) evicted: u64,
}

#[cfg(test)]
mod tests {
    use meridian_edge_rules::exchange::{Exchange, RequestView, ResponseView};
    use meridian_edge_rules::policy::Policy;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::epochs::Limits;
    use crate::scope::{Selector, Strength};

    const LIMITS: Limits = Limits { selectors: 100, shards: 1 };

    fn store() -> (Store, Arc<Epochs>) {
        let epochs = Epochs::new(LIMITS, 1);
        (Store::new(&CacheConfig::default(), Arc::clone(&epochs)), epochs)
    }

    /// A response with an hour to live that was asked for with `Plan: plan`, bears `tag`, and
    /// selects by `Plan`.
    fn response(epochs: &Arc<Epochs>, plan: &str, tag: &str, now: Now) -> Stored {
        let (request, mut fields) = (fields(plan), HeaderMap::new());
        for (name, value) in [("cache-control", "max-age=3600"), ("vary", "plan")] {
            fields.insert(name, value.parse().unwrap());
        }
        let request = RequestView { method: &http::Method::GET, headers: &request };
        let view = ResponseView { status: http::StatusCode::OK, headers: &fields };
        let times = Exchange { sent: now, received: now };
        let head = StoredHead::of(&request, &view, &Policy::cdn(), &times).unwrap();
        let mark = Mark::new(epochs.stamp().epoch(), epochs.tags([tag].into_iter()));
        Stored::new(head, HeaderMap::new(), StoredBody::One(bytes::Bytes::new()), mark)
    }

    fn fields(plan: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static("plan"), plan.parse().unwrap())])
    }

    /// What a request with `Plan: plan` finds: what is left of its lifetime, or why nothing.
    fn found(store: &Store, plan: &str, now: Now) -> String {
        match store.lookup("s http  /k", &fields(plan), now) {
            Lookup::Found(stored) => format!("ttl={}", stored.head().ttl(now)),
            Lookup::VaryMiss => "vary-miss".to_owned(),
            Lookup::UriMiss => "uri-miss".to_owned(),
        }
    }

    #[test]
    fn a_purge_takes_its_variants_and_a_sweep_drops_them() {
        let ((store, epochs), now) = (store(), SystemClock.now());
        let key = CacheKey::from("s http  /k");
        for (plan, tag) in [("free", "red"), ("paid", "blue"), ("team", "green")] {
            store.insert(&key, &response(&epochs, plan, tag, now));
        }
        let late = response(&epochs, "free", "red", now);
        epochs.apply([Selector::Tag("red")], Strength::Hard);
        epochs.apply([Selector::Tag("blue")], Strength::Soft);
        store.insert(&key, &late); // purged on its way
        for round in 0..2 {
            assert_eq!(found(&store, "free", now), "vary-miss", "{round}");
            assert_eq!(found(&store, "paid", now), "ttl=0", "{round}");
            assert_eq!(found(&store, "team", now), "ttl=3600", "{round}");
            assert_eq!(store.sweep(|| true), usize::from(round == 0));
            assert_eq!(epochs.selectors(), 0);
            assert_eq!(store.variants(key.as_str()).len(), 2);
        }
        epochs.apply([Selector::Site("s")], Strength::Hard);
        assert_eq!(found(&store, "team", now), "uri-miss");
        assert_eq!(store.sweep(|| true), 2);
        assert_eq!(store.counts().urls, 0);
    }

    #[test]
    fn what_was_under_way_comes_back_after_a_removal_and_not_after_an_invalidation() {
        for (by_epoch, want) in [(false, "ttl=3600"), (true, "uri-miss")] {
            let (store, epochs) = store();
            let (now, key) = (SystemClock.now(), CacheKey::from("s http  /k"));
            let under_way = response(&epochs, "a", "t", now);
            if by_epoch {
                epochs.apply([Selector::Url(key.place())], Strength::Hard);
            }
            store.invalidate(key.as_str());
            store.insert(&key, &under_way);
            assert_eq!(found(&store, "a", now), want);
        }
    }

    #[test]
    fn an_update_sees_each_variant_once_and_brings_back_nothing_that_was_purged() {
        let (store, epochs) = store();
        let (now, key) = (SystemClock.now(), CacheKey::from("s http  /k"));
        for (plan, tag) in [("a", "red"), ("b", "blue"), ("c", "blue")] {
            store.insert(&key, &response(&epochs, plan, tag, now));
        }
        epochs.apply([Selector::Tag("red")], Strength::Hard);
        let seen = std::cell::Cell::new(0);
        store.update(&key, |stored| {
            seen.set(seen.get() + 1);
            if stored.head().vary.matches(&fields("b")) {
                Fate::Drop
            } else {
                Fate::Replace(stored.outdated(now))
            }
        });
        assert_eq!(seen.get(), 2);
        let found = ["a", "b", "c"].map(|plan| found(&store, plan, now));
        assert_eq!(found, ["vary-miss", "vary-miss", "ttl=0"]);
    }
}
