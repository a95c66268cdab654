//! Tables that every role has: the name table, tokens, the log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::units::{Address, NodeName};

/// `[peers]`: where the nodes are that this one dials. Nowhere else stands an address of another
/// node: names travel, each node looks them up here. That is what lets a link be cut.
pub type Peers = BTreeMap<NodeName, Address>;

/// `[[token]]`: a bearer token that this node accepts, by name, with what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Token {
    /// Who the token belongs to; every logged operation carries it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The file that holds the secret: one line, 16 visible characters at least.
    pub file: PathBuf,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Purge stored responses.
    Purge,
    /// Publish and roll back releases, seed.
    Publish,
    /// Write configuration registers.
    Config,
    /// Drain regions, set faults and breakers, remove edges.
    Operate,
    /// Register as an edge.
    Edge,
}

/// `[log]` of a node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Log {
    /// The least level that is written.
    pub level: Level,
    /// One wide line per request. Off: it costs.
    pub access: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::Info, access: false }
    }
}

/// How much a log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A person is needed.
    Error,
    /// Something was absorbed.
    Warn,
    /// An operator did it or must know.
    Info,
    /// The inputs of decisions.
    Debug,
}

/// A place on Earth: latitude and longitude in degrees, written `[50.03, 8.57]`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
pub struct Location(pub f64, pub f64);
