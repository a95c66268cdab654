//! What the agreed log is made of.

use std::fmt;

use meridian_config::units::NodeName;
use serde::{Deserialize, Serialize};

use crate::order::{Batch, Outcome};

openraft::declare_raft_types!(
    /// The log: batches of orders, and what came of each order of one.
    #[derive(Serialize, Deserialize)]
    pub(crate) TypeConfig:
        D = Batch,
        R = Vec<Outcome>,
        NodeId = u64,
        Node = Replica,
);

/// A member of the cluster, under the number of its incarnation: a disk that was lost is another
/// member of the same name. Named, not addressed: each replica looks the name up in its `[peers]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replica {
    pub(crate) name: NodeName,
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Replica;

    #[test]
    fn a_member_is_shown_by_its_name() {
        assert_eq!(Replica { name: "iad-1".parse().unwrap() }.to_string(), "iad-1");
    }
}
