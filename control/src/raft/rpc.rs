//! What replicas send each other: paths, fields, bodies. Both sides of the wire read it here.
//!
//! # Invariants
//! - Every message names the node that it is for and the one that it is from, and the cluster as
//!   far as its sender knows it: an address that was given to another node is no way into it.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use meridian_config::units::NodeName;
use openraft::alias::{LogIdOf, SnapshotMetaOf, VoteOf};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::raft::types::TypeConfig;

/// The node that a message is for.
pub(crate) const TO: HeaderName = HeaderName::from_static("meridian-to-node");

/// The node that a message is from.
pub(crate) const FROM: HeaderName = HeaderName::from_static("meridian-from-node");

/// The cluster, 32 hexadecimal digits; absent as long as the sender knows none.
pub(crate) const CLUSTER: HeaderName = HeaderName::from_static("meridian-cluster");

/// What a replica may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rpc {
    /// Entries of the log, or none: the leader lives.
    Append,
    Vote,
    PreVote,
    /// A piece of a snapshot.
    Snapshot,
    /// All pieces are there: it is to be installed.
    Install,
    /// The leader wants this one to lead.
    Transfer,
    /// Up to where a read has to see the log.
    ReadIndex,
    /// Who this is.
    Identity,
}

impl Rpc {
    const ALL: [Self; 8] = [
        Self::Append,
        Self::Vote,
        Self::PreVote,
        Self::Snapshot,
        Self::Install,
        Self::Transfer,
        Self::ReadIndex,
        Self::Identity,
    ];

    /// What stands behind `/raft/`.
    pub(crate) const fn token(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Vote => "vote",
            Self::PreVote => "prevote",
            Self::Snapshot => "snapshot",
            Self::Install => "install",
            Self::Transfer => "transfer",
            Self::ReadIndex => "read-index",
            Self::Identity => "identity",
        }
    }

    /// What `token` names.
    pub(crate) fn named(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rpc| rpc.token() == token)
    }
}

/// Who sends a message, and to whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'s> {
    /// None: whoever is there.
    pub(crate) to: Option<u64>,
    pub(crate) from: u64,
    pub(crate) cluster: Option<[u8; 16]>,
    /// What replicas show each other.
    pub(crate) bearer: Option<&'s HeaderValue>,
}

/// A message whose body is `bytes`.
pub(crate) fn message(
    rpc: Rpc,
    query: &str,
    envelope: Envelope<'_>,
    bytes: Bytes,
) -> Request<Bytes> {
    let mut request = Request::new(bytes);
    *request.method_mut() = http::Method::POST;
    if let Ok(target) = format!("/raft/{}{query}", rpc.token()).try_into() {
        *request.uri_mut() = target;
    }
    let fields = request.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(FROM, HeaderValue::from(envelope.from));
    if let Some(to) = envelope.to {
        fields.insert(TO, HeaderValue::from(to));
    }
    if let Some(cluster) = envelope.cluster
        && let Ok(value) = HeaderValue::try_from(hex(&cluster))
    {
        fields.insert(CLUSTER, value);
    }
    if let Some(bearer) = envelope.bearer {
        fields.insert(AUTHORIZATION, bearer.clone());
    }
    request
}

/// The number of a node in the field `name`.
pub(crate) fn node_in(fields: &HeaderMap, name: &HeaderName) -> Option<u64> {
    fields.get(name)?.to_str().ok()?.parse().ok()
}

/// 32 hexadecimal digits.
pub(crate) fn hex(cluster: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*cluster))
}

/// `value` as the body of a message. Nothing that replicas say fails to be written.
pub(crate) fn body_of(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("memory takes JSON with text or numbers for keys").into()
}

/// What a body says.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes)
}

/// A snapshot that is whole and is to be installed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Install {
    /// The number of the transfer whose pieces it is made of.
    pub(crate) transfer: u64,
    /// Its bytes.
    pub(crate) length: u64,
    pub(crate) vote: VoteOf<TypeConfig>,
    pub(crate) meta: SnapshotMetaOf<TypeConfig>,
}

/// How fresh a read has to be, as the leader is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Freshness {
    /// Everything that was acknowledged to anybody before.
    ReadIndex,
    /// The same, as far as clocks run alike.
    Lease,
    /// Everything that was acknowledged before this many milliseconds ago.
    Bounded(u64),
}

/// The question for a read index.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReadQuestion {
    pub(crate) freshness: Freshness,
    /// How long the leader may ask around for it.
    pub(crate) patience_ms: u64,
}

/// Up to where a read has to see the log.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ReadAnswer {
    At {
        log: LogIdOf<TypeConfig>,
        term: u64,
    },
    /// Not the leader, or without a majority.
    No,
}

/// Who a replica is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) name: NodeName,
    pub(crate) node: u64,
    /// It belongs to no cluster yet.
    pub(crate) pristine: bool,
    /// Who leads, as far as it knows.
    pub(crate) leader: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::Rpc;

    #[test]
    fn every_message_has_a_path_of_its_own() {
        for rpc in Rpc::ALL {
            assert_eq!(Rpc::named(rpc.token()), Some(rpc));
        }
        assert_eq!(Rpc::named("other"), None);
    }
}
