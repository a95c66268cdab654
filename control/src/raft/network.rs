//! What this replica sends to the others: the network of openraft, by HTTP over `[peers]`.
//!
//! # Invariants
//! - Every message has a deadline, and nothing is taken for granted: a vote, a vote beforehand and
//!   an acknowledgement count only when the other side said so.
//! - One message is bounded: what exceeds it goes in several.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use meridian_config::control::raft::Raft as Limits;
use meridian_config::units::NodeName;
use openraft::alias::{LogIdOf, SnapshotOf, VoteOf};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use serde::de::DeserializeOwned;

use crate::machine::Machine;
use crate::metrics::raft::RaftMetrics;
use crate::peers::{CallError, Peers};
use crate::raft::rpc::{self, Envelope, Install, Rpc};
use crate::raft::snapshot::SnapshotFile;
use crate::raft::types::{Replica, TypeConfig};
use crate::world;

/// The longest answer to a message.
const ANSWER_SIZE: usize = 64 << 10;

/// How this replica speaks to others.
#[derive(Debug)]
pub(crate) struct Speaker {
    pub(crate) node: u64,
    pub(crate) peers: Arc<Peers>,
    pub(crate) machine: Arc<Machine>,
    pub(crate) limits: Limits,
    pub(crate) bearer: Option<HeaderValue>,
    pub(crate) metrics: Arc<RaftMetrics>,
}

/// Why a message brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsaid {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{name} answered {status}: {what}")]
    Status { name: NodeName, status: StatusCode, what: String },
    #[error("{name} answered what cannot be read: {source}")]
    Nonsense { name: NodeName, source: serde_json::Error },
}

impl Speaker {
    /// Says `body` to `name`, which has to be `to`; its answer, within `limit`.
    pub(crate) async fn say<T: DeserializeOwned>(
        &self,
        name: &NodeName,
        to: Option<u64>,
        (rpc, query, body): (Rpc, &str, Bytes),
        limit: Duration,
    ) -> Result<T, Unsaid> {
        let said = self.said(name, to, (rpc, query, body), limit).await;
        if let Err(error) = &said {
            self.metrics.failed(name);
            tracing::debug!(%error, peer = %name, rpc = rpc.token(), "a replica gives no answer");
        }
        said
    }

    async fn said<T: DeserializeOwned>(
        &self,
        name: &NodeName,
        to: Option<u64>,
        (rpc, query, body): (Rpc, &str, Bytes),
        limit: Duration,
    ) -> Result<T, Unsaid> {
        let (from, bearer) = (self.node, self.bearer.as_ref());
        let envelope = Envelope { to, from, cluster: self.machine.cluster(), bearer };
        let request = rpc::message(rpc, query, envelope, body);
        let answer = self.peers.call(name, request, ANSWER_SIZE, limit).await?;
        if answer.status() != StatusCode::OK {
            let (status, what) = (answer.status(), String::from_utf8_lossy(answer.body()));
            let (name, what) = (name.clone(), what.chars().take(200).collect());
            return Err(Unsaid::Status { name, status, what });
        }
        rpc::read(answer.body()).map_err(|source| Unsaid::Nonsense { name: name.clone(), source })
    }
}

/// Makes the links to the other members.
#[derive(Debug)]
pub(crate) struct Links(pub(crate) Arc<Speaker>);

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Replica) -> Link {
        Link { speaker: Arc::clone(&self.0), target, name: node.name.clone() }
    }
}

/// The way to one member.
#[derive(Debug)]
pub(crate) struct Link {
    speaker: Arc<Speaker>,
    target: u64,
    name: NodeName,
}

type Failed = RPCError<TypeConfig>;

impl Link {
    async fn ask<T: DeserializeOwned>(
        &self,
        rpc: Rpc,
        body: Bytes,
        action: RPCTypes,
        limit: Duration,
    ) -> Result<T, Failed> {
        let said = self.speaker.say(&self.name, Some(self.target), (rpc, "", body), limit).await;
        said.map_err(|error| self.failed(error, action))
    }

    /// What a failure means to openraft: whom to give a rest.
    fn failed(&self, error: Unsaid, action: RPCTypes) -> Failed {
        match error {
            Unsaid::Call(CallError::Overdue { limit, .. }) => {
                let (id, target) = (self.speaker.node, self.target);
                RPCError::Timeout(Timeout { action, id, target, timeout: limit })
            }
            Unsaid::Call(error @ (CallError::Unnamed { .. } | CallError::Connect { .. })) => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
            Unsaid::Call(error @ (CallError::Broken { .. } | CallError::Body { .. })) => {
                RPCError::Network(NetworkError::new(&error))
            }
            error @ (Unsaid::Status { .. } | Unsaid::Nonsense { .. }) => {
                RPCError::Unreachable(Unreachable::new(&error))
            }
        }
    }

    /// Sends the pieces of a snapshot, then asks for it to be installed.
    async fn send_snapshot(
        &self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let limits = &self.speaker.limits;
        let (transfer, piece) = (world::random_u64(), limits.message_size.to_usize());
        let file = snapshot.snapshot;
        let broken = |error: std::io::Error| StreamingError::Network(NetworkError::new(&error));
        let length = file.len().map_err(broken)?;
        let mut offset = 0;
        while offset < length {
            let from = file.clone();
            let read = world::blocking(move || from.read(offset, piece)).await;
            let bytes = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            let bytes = bytes.map_err(broken)?;
            if bytes.is_empty() {
                break;
            }
            let taken = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let query = format!("?transfer={transfer}&offset={offset}");
            let said = (Rpc::Snapshot, query.as_str(), Bytes::from(bytes));
            let limit = limits.rpc_timeout.get().max(limits.snapshot_timeout.get() / 10);
            let said = self.speaker.say::<()>(&self.name, Some(self.target), said, limit).await;
            said.map_err(|error| self.failed(error, RPCTypes::InstallSnapshot))?;
            offset += taken;
        }
        let install = Install { transfer, length, vote, meta: snapshot.meta };
        let limit = limits.snapshot_timeout.get();
        let body = rpc::body_of(&install);
        Ok(self.ask(Rpc::Install, body, RPCTypes::InstallSnapshot, limit).await?)
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        mut request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Failed> {
        let limits = &self.speaker.limits;
        // A heartbeat that is late is none; entries wait for a disk over there.
        let limit =
            if request.entries.is_empty() { option.soft_ttl() } else { limits.rpc_timeout.get() };
        let most = limits.message_size.to_usize();
        let mut cut: Option<LogIdOf<TypeConfig>> = None;
        let mut body = rpc::body_of(&request);
        while body.len() > most && request.entries.len() > 1 {
            request.entries.truncate(request.entries.len() / 2);
            cut = request.entries.last().map(|entry| entry.log_id);
            body = rpc::body_of(&request);
        }
        let answer = self.ask(Rpc::Append, body, RPCTypes::AppendEntries, limit).await?;
        Ok(match (answer, cut) {
            (AppendEntriesResponse::Success, Some(last)) => {
                AppendEntriesResponse::PartialSuccess(Some(last))
            }
            (answer, _) => answer,
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failed> {
        self.ask(Rpc::Vote, rpc::body_of(&request), RPCTypes::Vote, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Failed> {
        self.ask(Rpc::PreVote, rpc::body_of(&request), RPCTypes::Vote, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let limit = self.speaker.limits.snapshot_timeout.get();
        // What is dropped half-way the other side forgets when the next one begins.
        tokio::select! {
            sent = tokio::time::timeout(limit, self.send_snapshot(vote, snapshot)) => {
                sent.unwrap_or_else(|_elapsed| {
                    let (id, target) = (self.speaker.node, self.target);
                    let action = RPCTypes::InstallSnapshot;
                    Err(StreamingError::Timeout(Timeout { action, id, target, timeout: limit }))
                })
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Failed> {
        let body = rpc::body_of(&request);
        self.ask(Rpc::Transfer, body, RPCTypes::TransferLeader, option.soft_ttl()).await
    }
}
