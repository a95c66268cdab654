//! How the order that several replicas share is doing, as one of them sees it.
//!
//! Answers nothing itself: engines fill it in, the API shows it.

use meridian_config::units::NodeName;

/// One replica, as this one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerView {
    pub(crate) name: NodeName,
    /// The number of its disk's life, where the engine tells disks apart.
    pub(crate) node: Option<String>,
    pub(crate) role: &'static str,
    /// None: this replica does not know.
    pub(crate) reachable: Option<bool>,
    /// Entries that it has not got yet; none: this replica does not know.
    pub(crate) lag: Option<u64>,
}

/// How the agreement is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgreementView {
    pub(crate) role: &'static str,
    pub(crate) term: u64,
    pub(crate) leader: Option<NodeName>,
    pub(crate) peers: Vec<PeerView>,
    /// The last entry of the agreed log that is known to be committed, and the last applied one.
    pub(crate) committed: u64,
    pub(crate) applied: u64,
    pub(crate) snapshot: u64,
    /// It takes part: no fault has ended it.
    pub(crate) sound: bool,
}
