//! `[cp]` and `[etcd]`: which engine brings replicas to one order, and etcd as that engine.
//!
//! Says nothing of who the replicas are: `replicas` and `[peers]` do.

use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::limits::{path, time_limit, within};
use crate::units::{Address, ByteSize, HumanDuration};
use crate::violation::{Place, Violation};

/// `[cp]`: what brings several replicas to one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Cp {
    /// The engine. Never changes over the life of a folder `data`.
    pub engine: CpEngine,
}

/// An engine of one agreed order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CpEngine {
    /// The replicas agree among themselves; one that is alone decides.
    #[default]
    Raft,
    /// An etcd cluster orders, and the replicas follow it.
    Etcd,
}

/// `[etcd]`: the engine of that name.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Etcd {
    /// Where its members answer clients.
    pub endpoints: Vec<Address>,
    /// What every key begins with: one for each cluster of replicas.
    pub prefix: String,
    /// Who the replicas are to etcd. None: it asks nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file with that user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<PathBuf>,
    /// A call that needs etcd is refused (`no_quorum`) when it has no answer for this long.
    pub quorum_timeout: HumanDuration,
    /// How long the replica that hears the edges may be silent before another one does.
    pub lease: HumanDuration,
    /// The most of one request: changes that share an entry, or a piece of a snapshot.
    pub request_size: ByteSize,
    /// Answers `Consistency: local`, from what this replica has, marked as such.
    pub allow_local_reads: bool,
    /// Entries of the log after which a snapshot takes their place.
    pub snapshot_every: NonZeroU32,
    /// Entries that stay behind a snapshot, for a replica that was away for a moment.
    pub keep_entries: NonZeroU32,
    /// Bytes of entries after which a snapshot takes the place of all of them.
    pub log_size: ByteSize,
}

impl Default for Etcd {
    fn default() -> Self {
        let some = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            endpoints: Vec::new(),
            prefix: "/meridian".to_owned(),
            user: None,
            password: None,
            quorum_timeout: HumanDuration::millis(800), // told within a second
            lease: HumanDuration::secs(2), // the least that etcd grants with its own defaults
            request_size: ByteSize::mib(1), // etcd takes 1.5 MiB unless it is told otherwise
            allow_local_reads: false,      // nobody reads the past unasked
            snapshot_every: some(10_000),  // its quota is 2 GiB: the log is not its archive
            keep_entries: some(1_000),     // a restart of a replica needs no snapshot
            log_size: ByteSize::mib(64),
        }
    }
}

impl Etcd {
    pub(super) fn check(&self, engine: CpEngine, at: &Place<'_>, found: &mut Vec<Violation>) {
        let count = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let key = |name: &str| at.key(name);
        if engine == CpEngine::Etcd && self.endpoints.is_empty() {
            let rule = "must name a member of etcd where cp.engine = \"etcd\"";
            found.push(key("endpoints").breaks(&self.endpoints, rule));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
        if !self.prefix.starts_with('/')
            || self.prefix.ends_with('/')
            || self.prefix.len() > 200
            || !self.prefix.chars().all(plain)
        {
            let rule = "must begin with a slash, not end with one, and have at most 200 of the \
                        characters a-z, A-Z, 0-9, /, -, _ and .";
            found.push(key("prefix").breaks(&self.prefix, rule));
        }
        match (&self.user, &self.password) {
            (Some(user), None) if engine == CpEngine::Etcd => {
                found.push(key("user").breaks(user, "must have an etcd.password"));
            }
            (None, Some(password)) if engine == CpEngine::Etcd => {
                found.push(key("password").breaks(password, "must have an etcd.user"));
            }
            (Some(_) | None, Some(_) | None) => {}
        }
        if let Some(password) = &self.password {
            path(&key("password"), password, found);
        }
        let minute = HumanDuration::secs(60);
        time_limit(&key("quorum_timeout"), self.quorum_timeout, minute, found);
        within(&key("lease"), self.lease, HumanDuration::secs(1), minute, found);
        let (least, most) = (ByteSize::kib(64), ByteSize::mib(64));
        within(&key("request_size"), self.request_size, least, most, found);
        within(&key("snapshot_every"), self.snapshot_every, count(1), count(1_000_000), found);
        within(&key("keep_entries"), self.keep_entries, count(1), count(1_000_000), found);
        let (least, most) = (ByteSize::mib(1), ByteSize::mib(1024));
        within(&key("log_size"), self.log_size, least, most, found);
    }
}
