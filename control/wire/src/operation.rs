//! One purge as the log holds it and as it travels to edges; what edges tell in return.

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::cursor::{Cursor, is_url_safe};
use crate::selector::{Selector, check_batch};

/// The longest id of an operation, in bytes.
pub const MAX_ID: usize = 64;

/// A purge. Immutable: whoever knows its id knows all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What it is known by everywhere: 1 to [`MAX_ID`] URL-safe characters. One id is one effect.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// What it removes; at least one.
    #[serde(deserialize_with = "selectors")]
    pub selectors: Vec<Selector>,
    /// Stored responses need revalidation, and may still be served stale meanwhile.
    #[serde(default)]
    pub soft: bool,
    /// When it was accepted, in milliseconds since 1970. For display: nothing is decided by it.
    pub at_ms: u64,
}

/// `POST /v1/edge/{id}/ack`: how far this edge has applied the stream. Answered by 204.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Everything up to it is applied.
    pub cursor: Cursor,
    /// The edge's own count of purges.
    pub epoch: u64,
    /// Operations that it has applied since it started.
    pub applied_operations: u64,
}

/// The answer to a ping, 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Everything that was acknowledged before the ping came is at or before it. An edge that has
    /// applied the stream up to it is no staler than the ping is old.
    pub cursor: Cursor,
    /// For the routes that are `fail_closed`, if the edge has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
}

/// For how long an edge may go on as if it knew every purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who granted it, for the next ping to name: another number with each leader.
    pub by: u64,
    /// From the moment when the edge sent the ping, once it has applied the cursor beside it.
    pub ms: u64,
}

fn id<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if (1..=MAX_ID).contains(&text.len()) && is_url_safe(&text) {
        Ok(text)
    } else {
        Err(de::Error::custom(format!("id must be 1 to {MAX_ID} URL-safe characters")))
    }
}

/// Selectors within the bounds of one operation.
pub(crate) fn selectors<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Selector>, D::Error> {
    let selectors = Vec::deserialize(from)?;
    check_batch(&selectors).map_err(de::Error::custom)?;
    Ok(selectors)
}

#[cfg(test)]
mod tests {
    use super::Operation;

    #[test]
    fn an_operation_keeps_its_bytes_and_its_bounds() {
        let golden = r#"{"id":"k-1","selectors":[{"tag":"a"},{"all":true}],"soft":true,"at_ms":7}"#;
        let read: Operation = serde_json::from_str(golden).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), golden);
        for (from, to) in [("k-1", ""), ("k-1", "a/b"), (r#"{"tag":"a"},{"all":true}"#, "")] {
            let text = golden.replacen(from, to, 1);
            assert!(serde_json::from_str::<Operation>(&text).is_err(), "{text}");
        }
        let id = |n: usize| golden.replacen("k-1", &"x".repeat(n), 1);
        assert!(serde_json::from_str::<Operation>(&id(super::MAX_ID)).is_ok());
        assert!(serde_json::from_str::<Operation>(&id(super::MAX_ID + 1)).is_err());
    }
}
