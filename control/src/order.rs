//! What a replica is told to do, and what came of it: the same in every engine, on disk and on the
//! way between replicas.
//!
//! Answers nothing about who orders or when it is durable: engines do. What an order does is
//! `machine`'s.
//!
//! # Invariants
//! - A batch is everything that its effect depends on, besides the state that it meets: time,
//!   chance and bounds are in it. Equal states that apply equal batches stay equal.

use std::fmt;
use std::sync::Arc;

use meridian_config::units::{NodeName, Region};
use meridian_control_wire::purge::PurgeOrder;
use meridian_control_wire::{EdgeState, Intent, Registration};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::auth::Fingerprint;

/// Orders that become durable together: one entry of an agreed log, one write to disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// When whoever proposed it did so: milliseconds of wall time since 1970. Time never steps
    /// back where it is applied: an earlier one counts as the latest that was seen.
    pub(crate) at_ms: u64,
    /// What whoever proposed it was configured with.
    pub(crate) bounds: Bounds,
    pub(crate) orders: Vec<Order>,
}

/// What the state may grow to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// Entries of the log.
    pub(crate) keep: u32,
    /// Selectors of purges that left the log.
    pub(crate) folded: u32,
    /// Keys of requests.
    pub(crate) keys: u32,
    /// For how long a key is known, in milliseconds.
    pub(crate) key_expiry_ms: u64,
    pub(crate) registers: u32,
    pub(crate) edges: u32,
}

/// One order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Purge {
        request: PurgeRequest,
        /// By chance: tells the id of this purge from that of any other history.
        nonce: u64,
    },
    Change(Change),
    Edge(EdgeChange),
    /// Another life of the history begins: see `lives`.
    Begin {
        /// From a clock and from chance: never the same twice.
        life: u64,
        /// What a history that has no name yet is called from now on.
        cluster: [u8; 16],
    },
}

/// A purge to be ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PurgeRequest {
    pub(crate) order: PurgeOrder,
    /// The name of the token.
    pub(crate) by: String,
    pub(crate) key: Option<RepeatKey>,
}

/// An `Idempotency-Key`, and what it was first used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepeatKey {
    /// The hash of the key.
    pub(crate) key: [u8; 32],
    /// The hash of the order.
    pub(crate) fingerprint: [u8; 32],
}

/// A change of a register.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) key: String,
    /// None: it goes. `null` is a value like any other.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Value>,
    pub(crate) condition: Condition,
    /// The name of the token.
    pub(crate) by: String,
}

/// What must hold for a change to be made (RFC 9110 §13.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Condition {
    /// Nothing.
    Any,
    /// The register is there.
    Exists,
    /// It is not.
    Absent,
    /// It has one of these revisions.
    Revisions(Vec<u64>),
}

/// A change of the edges that are registered, or of what operators want of regions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EdgeChange {
    /// An edge registers. One that is known keeps its state: registering is no way to get healthy.
    Enrol { registration: Box<Registration>, secret: Fingerprint },
    /// An edge goes, if there is one of this name.
    Remove(NodeName),
    /// What an operator wants of a region.
    Intend { region: Region, intent: Intent },
    /// How edges are, and which of them have been unheard for too long.
    Keep {
        states: Vec<EdgeRecord>,
        /// With the fingerprint of the secret: one that registered again meanwhile stays.
        expired: Vec<(NodeName, Fingerprint)>,
    },
}

/// How an edge is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EdgeRecord {
    pub(crate) name: NodeName,
    pub(crate) state: EdgeState,
    /// When it was last heard: milliseconds of wall time since 1970.
    pub(crate) heard_at_ms: u64,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Purged(Accepted),
    Changed(Arc<Revision>),
    /// Whether its name was known.
    Enrolled {
        known: bool,
    },
    /// None: there was no such edge.
    Removed(Option<Box<Registration>>),
    Intended,
    /// The edges that went.
    Kept(Vec<NodeName>),
    Begun,
    Refused(Refused),
}

/// A purge that was ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accepted {
    pub(crate) id: String,
    pub(crate) seq: u64,
    /// An earlier request with the same key did it.
    pub(crate) replayed: bool,
}

/// What a register holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Revision {
    /// None: it is gone. `null` is a value like any other.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Value>,
    /// The entry that made it so.
    pub(crate) seq: u64,
}

/// Why an order does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refused {
    /// The key was used with another order.
    #[error("this Idempotency-Key was used with another request")]
    Mismatch,
    /// The condition does not hold.
    #[error("the register has {}", match found {
        Some(revision) => format!("revision {revision}"),
        None => "no value".to_owned(),
    })]
    Conflict {
        /// The revision that it has.
        found: Option<u64>,
    },
    /// There is no such register.
    #[error("there is no such register")]
    Absent,
    /// There is no room for another register.
    #[error("there are journal.max_registers registers already")]
    Full,
    /// There is no room for another edge.
    #[error("the register has limits.max_edges edges already")]
    EdgesFull,
    /// Nothing is known of the region.
    #[error("nothing is known of this region")]
    UnknownRegion,
}

/// A value that is written is one, `null` too: none is not written.
pub(crate) fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} orders of {}", self.orders.len(), self.at_ms)
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::{
        Accepted, Batch, Bounds, Change, Condition, EdgeChange, EdgeRecord, Order, Outcome,
        PurgeOrder, PurgeRequest, Refused, RepeatKey, Revision,
    };
    use crate::auth::Fingerprint;

    fn comes_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
        let text = serde_json::to_string(value).unwrap();
        assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{text}");
    }

    fn orders() -> Vec<Order> {
        let registration = json!({"name": "fra-1", "region": "fra", "city": "", "url": "http://a",
            "location": [50.0, 8.5], "admin": "http://b"});
        let registration = serde_json::from_value(registration).unwrap();
        let secret = Fingerprint::of("0123456789abcdef");
        let purge: PurgeOrder = serde_json::from_value(json!({"tag": "a", "soft": true})).unwrap();
        let key = Some(RepeatKey { key: [1; 32], fingerprint: [2; 32] });
        let name = || "fra-1".parse().unwrap();
        let record = EdgeRecord {
            name: name(),
            state: meridian_control_wire::EdgeState::Healthy,
            heard_at_ms: 5,
        };
        let intent = meridian_control_wire::Intent::Drained;
        let change = |condition| {
            let (key, value) = ("site/a".to_owned(), Some(json!({"a": [1, null]})));
            Order::Change(Change { key, value, condition, by: "ops".to_owned() })
        };
        let value = |value| {
            let (key, condition) = ("a".to_owned(), Condition::Any);
            Order::Change(Change { key, value, condition, by: "ops".to_owned() })
        };
        vec![
            Order::Purge {
                request: PurgeRequest { order: purge, by: "ci".to_owned(), key },
                nonce: u64::MAX,
            },
            change(Condition::Any),
            change(Condition::Revisions(vec![1, 2])),
            value(Some(json!(null))), // not the same as none
            value(None),
            Order::Edge(EdgeChange::Enrol { registration, secret }),
            Order::Edge(EdgeChange::Remove(name())),
            Order::Edge(EdgeChange::Intend { region: "fra".parse().unwrap(), intent }),
            Order::Edge(EdgeChange::Keep { states: vec![record], expired: vec![(name(), secret)] }),
            Order::Begin { life: 7, cluster: [3; 16] },
        ]
    }

    #[test]
    fn a_batch_and_what_came_of_it_come_back_from_their_bytes() {
        let bounds =
            Bounds { keep: 1, folded: 2, keys: 3, key_expiry_ms: 4, registers: 5, edges: 6 };
        let batch = Batch { at_ms: 9, bounds, orders: orders() };
        assert_eq!(batch.to_string(), "10 orders of 9");
        comes_back(&batch);
        let accepted = Accepted { id: "1-a".to_owned(), seq: 1, replayed: true };
        let outcomes = vec![
            Outcome::Purged(accepted),
            Outcome::Changed(Revision { value: None, seq: 4 }.into()),
            Outcome::Changed(Revision { value: Some(json!(null)), seq: 4 }.into()),
            Outcome::Enrolled { known: true },
            Outcome::Removed(None),
            Outcome::Intended,
            Outcome::Kept(vec!["fra-1".parse().unwrap()]),
            Outcome::Begun,
            Outcome::Refused(Refused::Conflict { found: Some(3) }),
            Outcome::Refused(Refused::EdgesFull),
            Outcome::Refused(Refused::UnknownRegion),
        ];
        comes_back(&outcomes);
    }
}
