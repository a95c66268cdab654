//! Tables that every role has: the name table, tokens, the log.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

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

impl Location {
    /// Whether both degrees are on the globe.
    pub fn is_on_earth(self) -> bool {
        (-90.0..=90.0).contains(&self.0) && (-180.0..=180.0).contains(&self.1)
    }
}

/// Reads `lat,lon`.
impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rule = "must be latitude,longitude in degrees, such as 50.03,8.57";
        let (latitude, longitude) = text.split_once(',').ok_or(rule)?;
        let degrees =
            |text: &str| text.trim().parse::<f64>().map_err(|error| format!("{rule}: {error}"));
        let location = Self(degrees(latitude)?, degrees(longitude)?);
        if location.is_on_earth() { Ok(location) } else { Err(rule.to_owned()) }
    }
}
