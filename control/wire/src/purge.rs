//! The purge API: what clients order, and what they are told.

use std::fmt;

use meridian_config::units::NodeName;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::cursor::Position;
use crate::selector::{KINDS, Selector, check_batch, field};

/// The fields of an order.
const FIELDS: [&str; 7] = ["all", "host", "url", "prefix", "tag", "selectors", "soft"];

/// `POST /v1/purges`: one selector, `{"tag":"a"}`, or several, `{"selectors":[...]}`; and `soft`.
///
/// It serializes in the second form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PurgeOrder {
    /// What to remove; at least one.
    pub selectors: Vec<Selector>,
    /// Only ask for revalidation.
    pub soft: bool,
}

impl<'de> Deserialize<'de> for PurgeOrder {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Order)
    }
}

struct Order;

impl<'de> Visitor<'de> for Order {
    type Value = PurgeOrder;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with one of {}, or selectors", KINDS.join(", "))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PurgeOrder, A::Error> {
        let mut order = PurgeOrder { selectors: Vec::new(), soft: false };
        let mut first: Option<String> = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == "soft" {
                order.soft = map.next_value()?;
                continue;
            }
            if let Some(first) = &first {
                let rule = format!("has {first} and {name}: several selectors go into selectors");
                return Err(de::Error::custom(rule));
            }
            if name == "selectors" {
                order.selectors = map.next_value()?;
            } else {
                let selector = field(&name, &mut map)?
                    .ok_or_else(|| de::Error::unknown_field(&name, &FIELDS))?;
                order.selectors.push(selector);
            }
            first = Some(name);
        }
        check_batch(&order.selectors).map_err(de::Error::custom)?;
        Ok(order)
    }
}

/// The answer to an order: 202, the purge is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeReceipt {
    /// What it is known by.
    pub id: String,
    /// Its place in the history.
    pub position: Position,
    /// An earlier order with this `Idempotency-Key` did it.
    pub replayed: bool,
    /// How far it got.
    pub edges: Delivery,
}

/// How far a purge got, by the names of edges.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Delivery {
    /// Registered edges.
    pub total: usize,
    /// Those that have applied it.
    pub acked: usize,
    /// Those that have not.
    pub pending: Vec<NodeName>,
    /// Those that have not, and whose lease has run out: they serve nothing of it any more.
    #[serde(default)]
    pub lapsed: Vec<NodeName>,
}

/// `GET /v1/purges/{id}`: one purge, and how far it got at each edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PurgeView {
    /// The purge.
    #[serde(flatten)]
    pub purge: PurgeEntry,
    /// How far it got.
    pub edges: Delivery,
    /// Each registered edge.
    pub delivery: Vec<EdgeDelivery>,
}

/// One purge at one edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeDelivery {
    /// The edge.
    pub edge: NodeName,
    /// Whether it has applied it.
    pub state: DeliveryState,
    /// From acceptance to the edge's acknowledgement, if this replica saw both.
    pub latency_ms: Option<f64>,
}

/// Whether an edge has applied a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It has.
    Acked,
    /// It has not.
    Pending,
    /// It has not, and its lease has run out.
    Lapsed,
}

/// One purge of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeEntry {
    /// What it is known by.
    pub id: String,
    /// Its place in the history.
    pub position: Position,
    /// What it removed.
    pub selectors: Vec<Selector>,
    /// Only asked for revalidation.
    pub soft: bool,
    /// When it was accepted: RFC 3339, UTC. For display.
    pub at: String,
    /// The name of the token that ordered it.
    pub by: String,
}

/// `GET /v1/purges?after=POSITION`: a page of the history, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeHistory {
    /// At most 1,000 of them.
    pub purges: Vec<PurgeEntry>,
    /// Where the next page starts after; `null`: this is the last one.
    pub next: Option<Position>,
}

#[cfg(test)]
mod tests {
    use super::PurgeOrder;

    #[test]
    fn an_order_has_one_selector_or_a_list() {
        let rows = [
            (r#"{"tag":"a"}"#, r#"{"selectors":[{"tag":"a"}],"soft":false}"#),
            (r#"{"soft":true,"all":true}"#, r#"{"selectors":[{"all":true}],"soft":true}"#),
            (
                r#"{"selectors":[{"url":"/a"},{"tag":"b"}]}"#,
                r#"{"selectors":[{"url":"/a"},{"tag":"b"}],"soft":false}"#,
            ),
        ];
        for (text, want) in rows {
            let order: PurgeOrder = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&order).unwrap(), want);
            assert_eq!(serde_json::from_str::<PurgeOrder>(want).unwrap(), order);
        }
    }

    #[test]
    fn a_bad_order_is_told_why() {
        let many = format!(r#"{{"selectors":[{}]}}"#, vec![r#"{"tag":"a"}"#; 1_001].join(","));
        let rows = [
            ("{}", "a selector is required"),
            (r#"{"soft":true}"#, "a selector is required"),
            (r#"{"selectors":[]}"#, "a selector is required"),
            (r#"{"tag":"a","sfot":true}"#, "has tag and sfot"),
            (r#"{"sfot":true,"tag":"a"}"#, "unknown field `sfot`"),
            (r#"{"tag":"a","selectors":[]}"#, "has tag and selectors"),
            (r#"{"tag":"a","soft":1}"#, "expected a boolean"),
            (r#"{"selectors":[{"tag":"a","soft":true}]}"#, "unknown field `soft`"),
            (&many, "at most 1000"),
            ("7", "an object with one of"),
        ];
        for (text, want) in rows {
            let error = serde_json::from_str::<PurgeOrder>(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
