//! `[raft]`: how several replicas agree.
//!
//! Says nothing of who they are: `replicas` and `[peers]` do.

use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::limits::{path, time_limit, within};
use crate::units::{ByteSize, HumanDuration};
use crate::violation::{Place, Violation};

/// `[raft]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Raft {
    /// The leader speaks at least this often.
    pub heartbeat: HumanDuration,
    /// A follower that hears of no leader for this long, or up to `election_max`, asks to lead.
    pub election_min: HumanDuration,
    /// The most of it; also how long a leader that is cut off may go on accepting.
    pub election_max: HumanDuration,
    /// A call that needs a majority is refused (`no_quorum`) when it has none for this long.
    pub quorum_timeout: HumanDuration,
    /// One message to another replica, and its answer.
    pub rpc_timeout: HumanDuration,
    /// A snapshot on its way to another replica, until it is installed there.
    pub snapshot_timeout: HumanDuration,
    /// The most of one message: entries, or a piece of a snapshot. One entry always fits.
    pub message_size: ByteSize,
    /// Changes that one entry of the log takes, in bytes: what shares a write to disk.
    pub batch_size: ByteSize,
    /// Answers `Consistency: local`, from what this replica has, marked as such.
    pub allow_local_reads: bool,
    /// Entries of the log after which a snapshot is made.
    pub snapshot_every: NonZeroU32,
    /// Entries that stay behind a snapshot, for a replica that was away for a moment.
    pub keep_entries: NonZeroU32,
    /// The file with the secret that replicas show each other. None: only on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<PathBuf>,
}

impl Default for Raft {
    fn default() -> Self {
        let some = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            heartbeat: HumanDuration::millis(150), // shorter ones flap on a busy small machine
            election_min: HumanDuration::millis(450), // two heartbeats may be lost
            election_max: HumanDuration::millis(750), // writes resume within 1.5 s of a crash
            quorum_timeout: HumanDuration::millis(800), // told within a second
            rpc_timeout: HumanDuration::millis(500), // a write to a busy disk, and the way
            snapshot_timeout: HumanDuration::secs(60), // some 50 MB over a slow link
            message_size: ByteSize::mib(4),        // a few milliseconds of a gigabit
            batch_size: ByteSize::mib(1),          // what a disk takes at once without delay
            allow_local_reads: false,              // nobody reads the past unasked
            snapshot_every: some(50_000),          // a minute at a thousand writes a second
            keep_entries: some(10_000),            // a restart of a replica needs no snapshot
            secret: None,
        }
    }
}

impl Raft {
    pub(super) fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let count = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let key = |name: &str| at.key(name);
        let minute = HumanDuration::secs(60);
        time_limit(&key("heartbeat"), self.heartbeat, minute, found);
        above(at, "election_min", self.election_min, "heartbeat", self.heartbeat, found);
        above(at, "election_max", self.election_max, "election_min", self.election_min, found);
        within(&key("election_max"), self.election_max, HumanDuration::millis(0), minute, found);
        time_limit(&key("quorum_timeout"), self.quorum_timeout, minute, found);
        time_limit(&key("rpc_timeout"), self.rpc_timeout, minute, found);
        let hour = HumanDuration::secs(3_600);
        time_limit(&key("snapshot_timeout"), self.snapshot_timeout, hour, found);
        let (least, most) = (ByteSize::kib(64), ByteSize::mib(64));
        within(&key("message_size"), self.message_size, least, most, found);
        within(&key("batch_size"), self.batch_size, ByteSize::kib(4), most, found);
        within(&key("snapshot_every"), self.snapshot_every, count(1), count(10_000_000), found);
        within(&key("keep_entries"), self.keep_entries, count(1), count(10_000_000), found);
        if let Some(secret) = &self.secret {
            path(&key("secret"), secret, found);
        }
    }
}

/// `value`, the key `name`, is above `least`, the key `other`.
fn above(
    at: &Place<'_>,
    name: &str,
    value: HumanDuration,
    other: &str,
    least: HumanDuration,
    found: &mut Vec<Violation>,
) {
    if value <= least {
        let rule = format!("must be above raft.{other} = \"{least}\"");
        found.push(at.key(name).breaks(&value, rule).with(&at.key(other)));
    }
}
