//! The forms of one stored response: as it came, and in the codings that were made of it.
//!
//! They live and die with it: whatever purges, replaces or evicts the response takes its forms
//! along, and its freshness is theirs. A response that a 304 has freshened keeps its coded bodies,
//! under heads of its own.
//!
//! # Invariants
//! - Each coding is made once at most, and one that was of no use is not tried again.
//! - A form is there whole or not at all.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use meridian_edge_rules::coding::Coding;
use meridian_edge_rules::derived::{derived, derived_tag};
use meridian_edge_rules::stored::StoredHead;

use crate::key::CacheKey;

/// The coded forms of a stored response. `B` is a body.
#[derive(Debug)]
pub(crate) struct Forms<B> {
    /// Made when they are first asked for.
    heads: [OnceLock<Box<StoredHead>>; Coding::ALL.len()],
    bodies: Arc<Bodies<B>>,
}

/// What does not change when the response is freshened.
#[derive(Debug)]
pub(crate) struct Bodies<B> {
    pub(crate) key: CacheKey,
    /// As it came.
    pub(crate) identity: B,
    coded: [OnceLock<Coded<B>>; Coding::ALL.len()],
    /// A bit for each coding that somebody makes, or has made, or that was of no use.
    ordered: AtomicU8,
}

/// A coded body.
#[derive(Debug)]
pub(crate) struct Coded<B> {
    pub(crate) body: B,
    pub(crate) length: u64,
    /// Of its bytes.
    pub(crate) digest: u64,
}

impl<B> Forms<B> {
    pub(crate) fn new(key: CacheKey, identity: B) -> Self {
        let bodies = Bodies { key, identity, coded: Default::default(), ordered: AtomicU8::new(0) };
        Self { heads: Default::default(), bodies: Arc::new(bodies) }
    }

    /// The same under another head of the response.
    pub(crate) fn renewed(&self) -> Self {
        Self { heads: Default::default(), bodies: Arc::clone(&self.bodies) }
    }

    pub(crate) fn bodies(&self) -> &Arc<Bodies<B>> {
        &self.bodies
    }

    /// The form of the response with the head `base` in `coding`, if it is made.
    pub(crate) fn form(&self, base: &StoredHead, coding: Coding) -> Option<(&StoredHead, &B)> {
        let coded = self.bodies.coded(coding)?;
        let head = self.heads.get(coding.index())?.get_or_init(|| {
            let tag = base.validators.etag.as_ref();
            let tag = tag.map(|tag| derived_tag(tag, coding, coded.digest));
            Box::new(derived(base, coding, tag, coded.length))
        });
        Some((head, &coded.body))
    }
}

impl<B> Bodies<B> {
    /// Every coded body that there is.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Coding, &Coded<B>)> {
        let made = |coding: Coding| self.coded(coding).map(|coded| (coding, coded));
        Coding::ALL.into_iter().filter_map(made)
    }

    pub(crate) fn coded(&self, coding: Coding) -> Option<&Coded<B>> {
        self.coded.get(coding.index())?.get()
    }

    /// Whether whoever asks is to have `coding` made: the first is.
    pub(crate) fn order(&self, coding: Coding) -> bool {
        let bit = 1 << coding.index();
        // Most often it is set: then it is only read.
        self.ordered.load(Ordering::Relaxed) & bit == 0
            && self.ordered.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// It was not made after all: whoever asks next may have it made.
    pub(crate) fn give_back(&self, coding: Coding) {
        self.ordered.fetch_and(!(1 << coding.index()), Ordering::Relaxed);
    }

    /// Here it is.
    pub(crate) fn put(&self, coding: Coding, coded: Coded<B>) {
        if let Some(place) = self.coded.get(coding.index()) {
            // Whoever ordered it is alone, so the place is empty.
            drop(place.set(coded));
        }
    }
}
