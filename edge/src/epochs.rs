//! Purge epochs: which stored responses a purge has made unusable, without looking for them.
//!
//! The edge numbers the purges that it applies. A selector (everything, a site, a URL, a prefix, a
//! tag, a group) keeps the number of the newest purge that named it: its epoch, hard and soft apart. Every
//! fetch takes a stamp, the newest number of all, before its request leaves. What it brings is
//! usable as long as its stamp is no older than the epoch of every selector that matches it. So a
//! purge costs the same whatever it matches, and a body that was on its way when the purge came
//! is never used after it.
//!
//! Selectors are kept as hashes: equal selectors always meet, and should different ones ever meet,
//! something is fetched once more than necessary. Whatever this gets wrong, it gets wrong on that
//! side. A `prefix` is a string prefix of the path and need not end at a segment: the lengths of
//! all prefixes are known, and a path is hashed once, with a look at each of those lengths.
//!
//! # Invariants
//! - A selector's epoch stands in the table before the number is published; who checks reads the
//!   number first. So who has seen a number has seen all of its selectors.
//! - A selector leaves the table only once every stored response that it concerned is marked
//!   ([`Epochs::settle`]) and every fetch that is older has ended ([`Stamp`]): no stamp that could
//!   still come is older than what was forgotten.
//! - Bounded: with the table full, the oldest half of a shard is folded into what contains it, its
//!   site or everything. That purges more, never less.
//!
//! Absent on purpose: clocks, cursors, identities of operations, and where any of it is kept on
//! disk: the store is empty after a restart, and so is this. A tier on disk brings that with it.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

use crate::lengths::{Counts, Length, Lengths, MAX_PREFIX};
use crate::scope::{Group, Place, Selector, Strength};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, RwLock};

/// In place of an epoch in [`Mark`]: outdated by a soft purge whose selector may be forgotten.
const OUTDATED: u64 = u64::MAX - 1;
/// The same of a hard purge.
const PURGED: u64 = u64::MAX;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Selectors in the table; more are folded.
    pub selectors: usize,
    /// Parts of the table, each with a lock of its own. At least one.
    pub shards: usize,
}

/// The newest epochs of one or several selectors; 0: never purged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Newest {
    /// The newest hard purge.
    pub hard: u64,
    /// The newest soft purge.
    pub soft: u64,
}

impl Newest {
    /// The newest purge of either strength.
    pub fn either(self) -> u64 {
        self.hard.max(self.soft)
    }

    fn at(epoch: u64, strength: Strength) -> Self {
        match strength {
            Strength::Hard => Self { hard: epoch, soft: 0 },
            Strength::Soft => Self { hard: 0, soft: epoch },
        }
    }

    fn raise(&mut self, other: Self) {
        self.hard = self.hard.max(other.hard);
        self.soft = self.soft.max(other.soft);
    }
}

/// What the purges so far leave of a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is as it was.
    Current,
    /// A soft purge made it stale.
    Outdated,
    /// A hard purge took it: neither used, nor validated, nor served stale.
    Purged,
}

/// The tags of a response, and its groups. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tags(Option<Arc<[u64]>>);

impl Tags {
    fn hashes(&self) -> &[u64] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Bytes of memory beside its own.
    pub fn weight(&self) -> usize {
        size_of_val(self.hashes())
    }
}

/// What a stored response remembers of purges.
#[derive(Debug)]
pub struct Mark {
    stamp: u64,
    tags: Tags,
    /// The number of purges at which it was last found to be current, [`OUTDATED`] or [`PURGED`].
    /// It only grows.
    checked: AtomicU64,
}

impl Mark {
    /// For what a fetch of this stamp brought.
    pub fn new(stamp: u64, tags: Tags) -> Self {
        Self { stamp, tags, checked: AtomicU64::new(stamp) }
    }

    /// The stamp of the fetch that brought it.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Its tags.
    pub fn tags(&self) -> &Tags {
        &self.tags
    }
}

/// What who arrives now may ask of a fetch that is under way, as far as known without its tags.
#[derive(Debug, Clone, Copy)]
pub struct Demand {
    /// Purges applied at the arrival.
    arrival: u64,
    /// The newest of those that matter.
    known: u64,
}

impl Demand {
    /// Whether a fetch of `stamp` began after every purge that is known to matter.
    pub fn is_met_by(self, stamp: u64) -> bool {
        stamp >= self.known
    }
}

/// The stamp of a fetch, alive until the last who may still use what it brings has let it go.
pub struct Stamp {
    epoch: u64,
    epochs: Arc<Epochs>,
}

impl Stamp {
    /// Purges applied when it was taken.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stamp").field(&self.epoch).finish()
    }
}

impl Drop for Stamp {
    fn drop(&mut self) {
        let mut alive = lock(&self.epochs.alive);
        if let Some(count) = alive.get_mut(&self.epoch) {
            *count -= 1;
            if *count == 0 {
                alive.remove(&self.epoch);
            }
        }
    }
}

/// A look through the whole store that has begun.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// What may be forgotten when it has ended.
    upto: u64,
}

/// One selector of the table.
#[derive(Debug, Clone, Copy)]
struct Entry {
    newest: Newest,
    /// What contains it; `None`: everything.
    home: Option<u64>,
    /// Set if it is a prefix.
    length: Option<Length>,
}

type Shard = RwLock<HashMap<u64, Entry, foldhash::fast::FixedState>>;

/// The table. See the module.
pub struct Epochs {
    /// Purges applied.
    current: AtomicU64,
    hard_all: AtomicU64,
    soft_all: AtomicU64,
    shards: Vec<Shard>,
    /// Selectors that one shard holds at most.
    room: usize,
    /// Of the prefixes in the table.
    lengths: Lengths,
    hasher: SeedableRandomState,
    /// Odd; prefixes are hashed with it.
    base: u64,
    writer: Mutex<Counts>,
    /// Stamps of fetches under way, and how many have each.
    alive: Mutex<BTreeMap<u64, usize>>,
    taken: AtomicU64,
    selectors: AtomicU64,
    folded: AtomicU64,
}

impl fmt::Debug for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epochs").field("current", &self.current).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Epochs {
    /// An empty table, whose hashes depend on `seed`.
    pub fn new(limits: Limits, seed: u64) -> Arc<Self> {
        let shards = limits.shards.max(1);
        Arc::new(Self {
            current: AtomicU64::new(0),
            hard_all: AtomicU64::new(0),
            soft_all: AtomicU64::new(0),
            shards: (0..shards).map(|_| RwLock::new(HashMap::default())).collect(),
            room: (limits.selectors / shards).max(2),
            lengths: Lengths::new(),
            hasher: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()),
            base: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            writer: Mutex::new(Counts::default()),
            alive: Mutex::new(BTreeMap::new()),
            taken: AtomicU64::new(0),
            selectors: AtomicU64::new(0),
            folded: AtomicU64::new(0),
        })
    }

    /// Purges applied.
    pub fn current(&self) -> u64 {
        self.current.load(Ordering::Acquire)
    }

    /// Selectors in the table.
    pub fn selectors(&self) -> u64 {
        self.selectors.load(Ordering::Relaxed)
    }

    /// Selectors that were folded for want of room.
    pub fn folded(&self) -> u64 {
        self.folded.load(Ordering::Relaxed)
    }

    /// Stamps that were ever taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Applies one purge, and returns its number.
    pub fn apply<'s>(
        &self,
        selectors: impl IntoIterator<Item = Selector<'s>>,
        strength: Strength,
    ) -> u64 {
        let mut writer = lock(&self.writer);
        let epoch = self.current.load(Ordering::Relaxed) + 1;
        let newest = Newest::at(epoch, strength);
        for selector in selectors {
            match self.entry(selector, newest) {
                Some((hash, entry)) => self.raise(&mut writer, hash, entry),
                None => self.raise_all(newest),
            }
        }
        self.current.store(epoch, Ordering::Release);
        epoch
    }

    /// The stamp of a fetch whose request leaves after this.
    pub fn stamp(self: &Arc<Self>) -> Stamp {
        let mut alive = lock(&self.alive);
        // Read under the lock: a sweep that begins later knows this stamp, or a number not above it.
        let epoch = self.current();
        *alive.entry(epoch).or_default() += 1;
        self.taken.fetch_add(1, Ordering::Relaxed);
        drop(alive);
        Stamp { epoch, epochs: Arc::clone(self) }
    }

    /// The tags of a response, ready to be checked.
    pub fn tags<'t>(&self, tags: impl Iterator<Item = &'t str>) -> Tags {
        let hashes: Vec<u64> = tags.map(|tag| self.hash(&(Kind::Tag, tag))).collect();
        Tags((!hashes.is_empty()).then(|| hashes.into()))
    }

    /// The tags and groups of a response that is stored at `place`, ready to be checked.
    pub fn labels<'t>(
        &self,
        tags: impl Iterator<Item = &'t str>,
        place: &Place<'_>,
        groups: impl Iterator<Item = &'t str>,
    ) -> Tags {
        let Place { site, host, .. } = *place;
        let groups = groups.map(|name| self.hash(&(Kind::Group, Group { site, host, name })));
        let tags = tags.map(|tag| self.hash(&(Kind::Tag, tag)));
        let hashes: Vec<u64> = tags.chain(groups).collect();
        Tags((!hashes.is_empty()).then(|| hashes.into()))
    }

    /// What is left of the response with `mark` that is stored at `place`, which is asked for only
    /// if there was a purge since the last check.
    pub fn standing<'p>(&self, mark: &Mark, place: impl FnOnce() -> Place<'p>) -> Standing {
        let now = self.current();
        if mark.checked.load(Ordering::Relaxed) == now {
            return Standing::Current;
        }
        let newest = self.newest(&place(), &mark.tags);
        if mark.stamp < newest.hard {
            return Standing::Purged;
        }
        let outdated = mark.stamp < newest.soft;
        // What a sweep found stands here before it forgets the selector.
        let found = if outdated {
            mark.checked.load(Ordering::Acquire)
        } else {
            mark.checked.fetch_max(now, Ordering::AcqRel)
        };
        match found {
            PURGED => Standing::Purged,
            OUTDATED => Standing::Outdated,
            _ if outdated => Standing::Outdated,
            _ => Standing::Current,
        }
    }

    /// What who arrives now for `place` may ask of a fetch under way.
    pub fn demand(&self, place: &Place<'_>) -> Demand {
        let arrival = self.current();
        Demand { arrival, known: self.newest(place, &Tags::default()).either() }
    }

    /// Whether who arrived with `demand` may have what a fetch of `stamp` has brought, now that its
    /// tags are known.
    pub fn may_share(&self, demand: Demand, stamp: u64, place: &Place<'_>, tags: &Tags) -> bool {
        // Of purges that came later only the newest is known: with any in between, it decides.
        stamp >= demand.arrival || stamp >= self.newest(place, tags).either()
    }

    /// The newest epochs of all selectors that match.
    pub fn newest(&self, place: &Place<'_>, tags: &Tags) -> Newest {
        let mut newest = self.newest_of_all();
        newest.raise(self.find(self.hash(&(Kind::Url, place))));
        self.each_prefix(place, |_, found| newest.raise(found));
        for tag in tags.hashes() {
            newest.raise(self.find(*tag));
        }
        newest
    }

    /// The newest epochs of one selector.
    pub fn of(&self, selector: Selector<'_>) -> Newest {
        let entry = self.entry(selector, Newest::default());
        entry.map_or_else(|| self.newest_of_all(), |(hash, _)| self.find(hash))
    }

    /// Every prefix in the table that matches `place`, a whole site as the empty one, with its
    /// epochs.
    pub fn prefixes<'p>(&self, place: &Place<'p>) -> Vec<(Selector<'p>, Newest)> {
        let mut found = Vec::new();
        self.each_prefix(place, |selector, newest| {
            if newest.either() > 0 {
                found.push((selector, newest));
            }
        });
        found
    }

    /// Begins a sweep: everything stored is then looked at with [`Epochs::settle`].
    pub fn begin_sweep(&self) -> Sweep {
        let alive = lock(&self.alive);
        let current = self.current();
        Sweep { upto: alive.keys().next().copied().unwrap_or(current).min(current) }
    }

    /// Remembers in `mark` what the purges so far leave of it.
    pub fn settle<'p>(&self, mark: &Mark, place: impl FnOnce() -> Place<'p>) -> Standing {
        let standing = self.standing(mark, place);
        match standing {
            Standing::Current => {}
            Standing::Outdated => {
                mark.checked.fetch_max(OUTDATED, Ordering::AcqRel);
            }
            Standing::Purged => {
                mark.checked.fetch_max(PURGED, Ordering::AcqRel);
            }
        }
        standing
    }

    /// Forgets the selectors that concern nothing any more, now that everything that was stored
    /// when `sweep` began is settled, and returns how many.
    pub fn end_sweep(&self, sweep: Sweep) -> usize {
        let mut forgotten = 0;
        for shard in &self.shards {
            // Taken for each shard anew: who applies waits for one of them, not for all.
            let mut writer = lock(&self.writer);
            let mut table = shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = table.len();
            table.retain(|_, entry| {
                let stays = entry.newest.either() > sweep.upto;
                if !stays {
                    self.lengths.remove(&mut writer, entry.length);
                }
                stays
            });
            forgotten += before - table.len();
        }
        self.selectors.fetch_sub(forgotten as u64, Ordering::Relaxed);
        forgotten
    }

    fn hash(&self, of: &impl std::hash::Hash) -> u64 {
        std::hash::BuildHasher::hash_one(&self.hasher, of)
    }

    /// Where a selector stands in the table; `None`: beside it.
    fn entry(&self, selector: Selector<'_>, newest: Newest) -> Option<(u64, Entry)> {
        let site_of = |site: &str| self.hash_prefix(Some(site), 0, 0);
        Some(match selector {
            Selector::All | Selector::Prefix { site: None, path: "" } => return None,
            Selector::Site(site) => {
                let length = Some(Length { any_site: false, bytes: 0 });
                (site_of(site), Entry { newest, home: None, length })
            }
            Selector::Url(place) => {
                let home = Some(site_of(place.site));
                (self.hash(&(Kind::Url, place)), Entry { newest, home, length: None })
            }
            Selector::Prefix { site, path } => {
                let bytes = path.as_bytes();
                let bytes = bytes.get(..MAX_PREFIX).unwrap_or(bytes);
                let hash = self.hash_prefix(site, self.roll(0, bytes), bytes.len());
                let length = Some(Length { any_site: site.is_none(), bytes: bytes.len() });
                let home = site.filter(|_| !bytes.is_empty()).map(site_of);
                (hash, Entry { newest, home, length })
            }
            Selector::Tag(tag) => {
                (self.hash(&(Kind::Tag, tag)), Entry { newest, home: None, length: None })
            }
            Selector::Group(group) => {
                let home = Some(site_of(group.site));
                (self.hash(&(Kind::Group, group)), Entry { newest, home, length: None })
            }
        })
    }

    /// Goes on with the hash of a path over its next bytes.
    fn roll(&self, hash: u64, bytes: &[u8]) -> u64 {
        let step = |hash: u64, byte: &u8| {
            (hash.rotate_left(5) ^ u64::from(*byte)).wrapping_add(1).wrapping_mul(self.base)
        };
        bytes.iter().fold(hash, step)
    }

    fn hash_prefix(&self, site: Option<&str>, rolled: u64, length: usize) -> u64 {
        self.hash(&(Kind::Prefix, site, rolled, length))
    }

    fn shard(&self, hash: u64) -> &Shard {
        let index = usize::try_from(hash >> 32).unwrap_or_default() % self.shards.len();
        self.shards.get(index).expect("there is at least one shard, and the index is below")
    }

    fn find(&self, hash: u64) -> Newest {
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&hash).map_or(Newest::default(), |entry| entry.newest)
    }

    fn newest_of_all(&self) -> Newest {
        Newest {
            hard: self.hard_all.load(Ordering::Acquire),
            soft: self.soft_all.load(Ordering::Acquire),
        }
    }

    /// Visits the prefixes of the path that are as long as some prefix in the table.
    fn each_prefix<'p>(&self, place: &Place<'p>, mut visit: impl FnMut(Selector<'p>, Newest)) {
        let path = place.path();
        let (mut rolled, mut at) = (0, 0);
        self.lengths.upto(path.len(), |length, of_one, of_all| {
            let step = path.as_bytes().get(at..length).unwrap_or_default();
            (rolled, at) = (self.roll(rolled, step), length);
            // Lengths that split a character are those of no prefix.
            let Some(path) = path.get(..length) else { return };
            for (is_set, site) in [(of_one, Some(place.site)), (of_all, None)] {
                if is_set {
                    let found = self.find(self.hash_prefix(site, rolled, length));
                    visit(Selector::Prefix { site, path }, found);
                }
            }
        });
    }

    fn raise_all(&self, newest: Newest) {
        self.hard_all.fetch_max(newest.hard, Ordering::AcqRel);
        self.soft_all.fetch_max(newest.soft, Ordering::AcqRel);
    }

    fn raise(&self, writer: &mut Counts, hash: u64, new: Entry) {
        let mut shard = self.shard(hash).write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = shard.get_mut(&hash) {
            entry.newest.raise(new.newest);
            return;
        }
        let full = shard.len() >= self.room;
        self.lengths.add(writer, new.length);
        shard.insert(hash, new);
        self.selectors.fetch_add(1, Ordering::Relaxed);
        drop(shard);
        if full {
            self.fold(writer, self.shard(hash));
        }
    }

    /// Folds the older half of a shard into what contains it. Sites stay: they are few, and what
    /// contains them is everything.
    fn fold(&self, writer: &mut Counts, shard: &Shard) {
        let site = Length { any_site: false, bytes: 0 };
        let table = shard.read().unwrap_or_else(PoisonError::into_inner);
        let mut oldest: Vec<(u64, Entry)> = table
            .iter()
            .filter(|(_, entry)| entry.length != Some(site))
            .map(|(hash, entry)| (*hash, *entry))
            .collect();
        drop(table);
        oldest.sort_unstable_by_key(|(_, entry)| entry.newest.either());
        oldest.truncate(oldest.len().div_ceil(2));
        for (_, entry) in &oldest {
            match entry.home {
                Some(home) => {
                    let length = Some(site);
                    self.raise(writer, home, Entry { newest: entry.newest, home: None, length });
                }
                None => self.raise_all(entry.newest),
            }
        }
        // Only now: who checks meanwhile finds the selector or what contains it.
        let mut table = shard.write().unwrap_or_else(PoisonError::into_inner);
        let mut folded = 0;
        for (hash, entry) in &oldest {
            // Raising what contains it may have folded this very shard: once is enough.
            if table.remove(hash).is_some() {
                self.lengths.remove(writer, entry.length);
                folded += 1;
            }
        }
        self.folded.fetch_add(folded, Ordering::Relaxed);
        self.selectors.fetch_sub(folded, Ordering::Relaxed);
    }
}

/// Keeps hashes of different kinds apart.
#[derive(Debug, Clone, Copy, Hash)]
enum Kind {
    Url,
    Prefix,
    Tag,
    Group,
}
