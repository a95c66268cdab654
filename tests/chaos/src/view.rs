//! What is told of links, in `GET /v1/links` and in the answer to an order.

use meridian_config::units::{Address, ByteSize, HumanDuration, NodeName, Region};
use serde::{Deserialize, Serialize};

/// All links, or those that an order changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// Sorted by the node that dials, then by the one that is dialled.
    pub links: Vec<LinkView>,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkView {
    /// The node that dials.
    pub from: NodeName,
    /// Where it stands, if anywhere.
    pub from_region: Option<Region>,
    /// The node that is dialled.
    pub to: NodeName,
    /// Where it stands.
    pub to_region: Option<Region>,
    /// What the dialling node dials.
    pub listen: String,
    /// Where the link leads.
    pub dial: Address,
    /// Its connections.
    pub connections: Connections,
    /// The way from the node that dials.
    pub there: WayView,
    /// The way to it.
    pub back: WayView,
}

/// What became of the connections of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Open now.
    pub open: u64,
    /// Accepted so far.
    pub accepted: u64,
    /// Reset by the link: on order, when a cut was healed, or because the other end was not there.
    pub reset: u64,
}

/// One way of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayView {
    /// Nothing gets through.
    pub cut: bool,
    /// Each byte takes this much longer.
    pub delay: HumanDuration,
    /// And up to this much more.
    pub jitter: HumanDuration,
    /// Per second.
    pub rate: Option<ByteSize>,
    /// The largest write.
    pub slice: Option<ByteSize>,
    /// Bytes that got through.
    pub bytes: u64,
    /// Bytes that vanished in a cut.
    pub lost_bytes: u64,
    /// Bytes that wait for their time.
    pub held_bytes: u64,
}

impl WayView {
    /// Whether bytes pass as they come.
    pub fn is_plain(&self) -> bool {
        !self.cut
            && self.delay.get().is_zero()
            && self.jitter.get().is_zero()
            && self.rate.is_none()
            && self.slice.is_none()
    }
}
