//! The seam between the API and whoever orders changes: purges, configuration registers, edges.
//!
//! One replica alone implements it now (`single`); an engine that agrees with other replicas, or
//! one that exchanges with them, implements it next. Whoever asks knows nothing of either.
//!
//! # Invariants
//! - A change is acknowledged only once it is durable, and then every later read here sees it.
//! - Sequence numbers grow by one; each names one entry. A cursor is a number with its origin.
//! - Dropping a future undoes nothing: what began may still be done.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meridian_config::units::NodeName;
use meridian_control_wire::cursor::Cursor;
use meridian_control_wire::frame::SnapItem;
use meridian_control_wire::operation::Operation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::agreement::AgreementView;
use crate::order::{Accepted, Change, EdgeChange, Outcome, PurgeRequest, Refused, Revision};

/// What a store will give.
pub(crate) type Promise<'s, T> = Pin<Box<dyn Future<Output = Result<T, Denied>> + Send + 's>>;

/// An entry of the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) row: Row,
}

/// An entry as it stands on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The name of the token.
    pub(crate) by: String,
    pub(crate) what: What,
}

/// What an entry changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    Purge(Operation),
    Config {
        key: String,
        /// None: it is gone. `null` is a value like any other.
        #[serde(
            default,
            deserialize_with = "crate::order::present",
            skip_serializing_if = "Option::is_none"
        )]
        value: Option<Value>,
    },
}

/// How fresh a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadLevel {
    /// Sees everything that was acknowledged to anybody before it.
    Linearizable,
    /// The same, as far as the clocks of the replicas run alike.
    Lease,
    /// Sees everything that was acknowledged this long before it.
    Bounded(Duration),
    /// Sees what is here.
    Local,
}

/// What a read that comes now is based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Barrier {
    /// What it sees: everything up to this entry.
    pub(crate) seq: u64,
    /// In a word.
    pub(crate) basis: &'static str,
    /// None: there are none.
    pub(crate) term: Option<u64>,
    /// For how long at most it has not seen what was acknowledged; none: nobody knows.
    pub(crate) staleness: Option<Duration>,
}

/// Who orders changes, and hears the edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lead {
    /// This replica.
    Here,
    /// That one.
    There(NodeName),
}

/// What a cursor is worth here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Everything up to this entry, of this very history.
    Known(u64),
    /// Of another cluster, or of a history that this one does not continue.
    Foreign,
}

/// What stands for everything up to an entry.
#[derive(Debug, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) at: u64,
    /// The purges up to there that whoever asked may have missed; none: nobody knows all of them.
    pub(crate) items: Option<Vec<SnapItem>>,
}

/// What came last, from memory.
#[derive(Debug, PartialEq)]
pub(crate) enum Recent {
    /// Frames up to an entry.
    Frames(Vec<Bytes>, u64),
    /// There is nothing newer.
    UpToDate,
    /// The log has to be read.
    Older,
}

/// How a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreState {
    pub(crate) incarnation: u64,
    pub(crate) last: u64,
    /// Entries after this one are in the log.
    pub(crate) low_water: u64,
    /// Whether the last write reached the disk.
    pub(crate) sound: bool,
}

/// Why a store does not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// It does nothing, and that is certain.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The log does not go back that far.
    #[error("the log begins after {low_water}")]
    Compacted {
        /// Entries after this one are there.
        low_water: u64,
    },
    /// Nobody knows whether it is durable.
    #[error("it may be done or not: repeating it with the same key does no harm")]
    Unknown,
    /// There is no majority that could be asked: nothing is done.
    #[error("there is no majority of replicas to agree with: nothing is done")]
    NoQuorum,
    /// Another replica orders changes: nothing is done.
    #[error("this replica does not lead any more: nothing is done")]
    NotLeader,
    /// More waits already than may: nothing is done.
    #[error("journal.max_queue changes wait already: nothing is done")]
    Busy,
    /// This store does not have that level.
    #[error("{0}")]
    NotOffered(&'static str),
    /// What is on disk cannot be read.
    #[error("the log cannot be read")]
    Unreadable,
    /// The replica ends.
    #[error("this replica is ending")]
    Ending,
}

/// Orders changes, keeps them, tells them.
pub(crate) trait ControlStore: std::fmt::Debug + Send + Sync {
    /// Orders a purge.
    fn purge(&self, request: PurgeRequest) -> Promise<'_, Accepted>;
    /// Changes a register.
    fn change(&self, change: Change) -> Promise<'_, Arc<Revision>>;
    /// Changes the registered edges, or what operators want of regions.
    fn edge(&self, change: EdgeChange) -> Promise<'_, Outcome>;
    /// What a register holds, as far as the last barrier saw; none: nothing.
    fn register(&self, key: &str) -> Promise<'_, Option<Arc<Revision>>>;
    /// Waits until a read that comes now is as fresh as `level` says.
    fn barrier(&self, level: ReadLevel) -> Promise<'_, Barrier>;
    /// Who leads, once that one is known to reach a majority from here.
    fn lead(&self) -> Promise<'_, Lead>;
    /// The term in which this replica leads; none: it does not.
    fn leads(&self) -> Option<u64>;
    /// The word for what makes a change durable.
    fn basis(&self) -> &'static str;
    /// Entries after `after`, at most `most`.
    fn entries(&self, after: u64, most: usize) -> Promise<'_, Vec<Entry>>;
    /// Frames after `after`.
    fn recent(&self, after: u64) -> Recent;
    /// What stands for the log before its beginning, for one who knows everything up to `after`.
    fn snapshot(&self, after: u64) -> Snapshot;
    /// The registers that edges obey and that changed last at or before `upto`, gone ones too.
    fn sites(&self, upto: u64) -> Vec<(String, Option<Value>)>;
    /// What a cursor is worth.
    fn standing<'s>(&'s self, cursor: &'s Cursor) -> Promise<'s, Standing>;
    /// The cursor of an entry.
    fn cursor(&self, seq: u64) -> Cursor;
    /// How it is.
    fn state(&self) -> StoreState;
    /// Tells the last entry whenever there is another.
    fn last(&self) -> watch::Receiver<u64>;
    /// How the order that this replica shares with others is; none: something else tells it.
    fn agreement(&self) -> Option<AgreementView> {
        None
    }
}

/// Whether edges obey the register `key`.
pub(crate) fn is_site(key: &str) -> bool {
    key.starts_with("site/")
}
