//! What the other replicas say to this one: everything under `/raft/`.
//!
//! # Invariants
//! - Nothing is believed that is not from a member who shows the secret, meant for this node, and
//!   of this cluster. Without a secret only this machine may speak.
//! - One snapshot is received at a time; a later one takes the place of an earlier one.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use meridian_config::units::NodeName;
use meridian_control_wire::problem::ErrorCode;
use openraft::alias::SnapshotOf;
use openraft::errors::{Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::{LinearizerOption, ReadPolicy};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer::{Answer, Refusal, json};
use crate::auth::{Fingerprint, bearer};
use crate::raft::network::Speaker;
use crate::raft::rpc::{
    self, Freshness, Identity, Install, ReadAnswer, ReadQuestion, Rpc, hex, node_in,
};
use crate::raft::snapshot::SnapshotFile;
use crate::raft::state::Raft;
use crate::raft::types::TypeConfig;
use crate::world;

/// This replica as the others meet it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) raft: Raft,
    pub(crate) name: NodeName,
    pub(crate) speaker: Arc<Speaker>,
    /// What others have to show; none: they have to be on this machine.
    pub(crate) secret: Option<Fingerprint>,
    /// Where snapshots are received.
    pub(crate) folder: PathBuf,
    /// The longest body.
    pub(crate) body_size: usize,
    /// The leader that was heard last, and when.
    pub(crate) heard: Mutex<Option<(u64, Instant)>>,
    pub(crate) receiving: tokio::sync::Mutex<Option<Receiving>>,
}

/// A snapshot that is coming in.
#[derive(Debug)]
pub(crate) struct Receiving {
    transfer: u64,
    file: SnapshotFile,
    length: u64,
}

impl Listener {
    /// How long ago the leader `node` was heard.
    pub(crate) fn heard_ago(&self, node: u64, now: Instant) -> Option<Duration> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, at) = heard.filter(|(leader, _)| *leader == node)?;
        Some(now.saturating_duration_since(at))
    }

    /// Answers a message. Bounded by `snapshot_timeout` where a snapshot is installed, else by
    /// what its sender waits for.
    pub(crate) async fn answer(
        &self,
        rpc: Rpc,
        request: Request<Incoming>,
        from: IpAddr,
    ) -> Result<Answer, Refusal> {
        self.check(rpc, request.headers(), from)?;
        let sender = node_in(request.headers(), &rpc::FROM).unwrap_or_default();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let patience = match rpc {
            Rpc::Snapshot => self.speaker.limits.snapshot_timeout.get(),
            _ => self.speaker.limits.rpc_timeout.get().saturating_mul(2),
        };
        let body = Limited::new(request.into_body(), self.body_size).collect();
        let body = tokio::time::timeout(patience, body).await.map_err(|_elapsed| {
            Refusal::new(ErrorCode::RequestTimeout, format!("no whole body within {patience:?}"))
        })?;
        let body = body
            .map_err(|error| Refusal::new(ErrorCode::BadRequest, format!("the body: {error}")))?
            .to_bytes();
        match rpc {
            Rpc::Append => self.append(sender, &body).await,
            Rpc::Vote => said(self.raft.vote(read(&body)?).await),
            Rpc::PreVote => said(self.raft.pre_vote(read(&body)?).await),
            Rpc::Snapshot => self.take_piece(&query, body).await,
            Rpc::Install => self.install(read(&body)?).await,
            Rpc::Transfer => {
                let moved = self.raft.handle_transfer_leader(read(&body)?).await;
                moved.map_err(fatal).map(|moved| json(StatusCode::OK, &moved))
            }
            Rpc::ReadIndex => self.read_index(&read(&body)?).await,
            Rpc::Identity => self.identity().await,
        }
    }

    fn check(&self, rpc: Rpc, fields: &HeaderMap, from: IpAddr) -> Result<(), Refusal> {
        match &self.secret {
            Some(secret) if !secret.fits(bearer(fields)?) => {
                let detail = "this is not the secret of this cluster's replicas";
                return Err(Refusal::new(ErrorCode::Forbidden, detail));
            }
            None if !from.to_canonical().is_loopback() => {
                let detail = "without raft.secret replicas speak on one machine only";
                return Err(Refusal::new(ErrorCode::Forbidden, detail));
            }
            Some(_) | None => {}
        }
        let misdirected = |detail: String| Err(Refusal::new(ErrorCode::Misdirected, detail));
        let node = self.speaker.node;
        let to = node_in(fields, &rpc::TO);
        if to != Some(node) && (rpc != Rpc::Identity || to.is_some()) {
            return misdirected(format!("this is node {node}, not {to:?}"));
        }
        let ours = self.speaker.machine.cluster();
        let theirs = fields.get(rpc::CLUSTER);
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && theirs.as_bytes() != hex(&ours).as_bytes()
        {
            return misdirected(format!("this node belongs to the cluster {}", hex(&ours)));
        }
        if node_in(fields, &rpc::FROM).is_none() {
            return Err(Refusal::new(ErrorCode::BadRequest, "it does not say who sends it"));
        }
        Ok(())
    }

    async fn append(&self, sender: u64, body: &Bytes) -> Result<Answer, Refusal> {
        let request: AppendEntriesRequest<TypeConfig> = read(body)?;
        let appended = self.raft.append_entries(request).await;
        if let Ok(appended) = &appended
            && !matches!(appended, AppendEntriesResponse::HigherVote(_))
        {
            let heard = Some((sender, world::now()));
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = heard;
        }
        said(appended)
    }

    async fn read_index(&self, question: &ReadQuestion) -> Result<Answer, Refusal> {
        let patience = Duration::from_millis(question.patience_ms);
        let option = option(question.freshness, patience);
        let answer = match self.raft.get_read_linearizer(option).await {
            Ok(linearizer) => {
                ReadAnswer::At { log: *linearizer.read_log_id().log_id(), term: self.term() }
            }
            Err(RaftError::APIError(_)) => ReadAnswer::No,
            Err(RaftError::Fatal(error)) => return Err(fatal(error)),
        };
        Ok(json(StatusCode::OK, &answer))
    }

    fn term(&self) -> u64 {
        use openraft::async_runtime::watch::WatchReceiver;
        self.raft.metrics().borrow_watched().current_term
    }

    async fn identity(&self) -> Result<Answer, Refusal> {
        let pristine = !self.raft.is_initialized().await.map_err(fatal)?;
        let leader = self.raft.current_leader().await;
        let (name, node) = (self.name.clone(), self.speaker.node);
        Ok(json(StatusCode::OK, &Identity { name, node, pristine, leader }))
    }

    async fn take_piece(&self, query: &str, bytes: Bytes) -> Result<Answer, Refusal> {
        let number = |name: &str| -> Option<u64> {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name)?.1.parse().ok()
        };
        let bad = |detail: &str| Refusal::new(ErrorCode::BadRequest, detail);
        let (transfer, offset) = number("transfer")
            .zip(number("offset"))
            .ok_or_else(|| bad("a piece says its transfer and its offset"))?;
        let mut receiving = self.receiving.lock().await;
        if receiving.as_ref().is_none_or(|old| old.transfer != transfer) {
            if offset != 0 {
                return Err(bad("the pieces before this one are not here: begin again"));
            }
            let folder = self.folder.clone();
            let made = blocking(move || SnapshotFile::create(&folder, "received")).await?;
            *receiving = Some(Receiving { transfer, file: made, length: 0 });
        }
        let Some(current) = receiving.as_mut() else { return Err(bad("there is no transfer")) };
        if offset != current.length {
            return Err(bad("this piece is not the next one: begin again"));
        }
        let (file, taken) = (current.file.clone(), bytes.len());
        blocking(move || file.write(offset, &bytes)).await?;
        current.length = offset.saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
        Ok(json(StatusCode::OK, &()))
    }

    async fn install(&self, order: Install) -> Result<Answer, Refusal> {
        let received = {
            let mut receiving = self.receiving.lock().await;
            receiving.take_if(|received| {
                received.transfer == order.transfer && received.length == order.length
            })
        };
        let Some(Receiving { file, .. }) = received else {
            let detail = "not all of this snapshot is here: begin again";
            return Err(Refusal::new(ErrorCode::BadRequest, detail));
        };
        let bytes = order.length;
        tracing::info!(file = %file.path().display(), bytes, "a snapshot has been received");
        self.speaker.metrics.snapshots.inc();
        let synced = file.clone();
        blocking(move || synced.sync()).await?;
        let snapshot = SnapshotOf::<TypeConfig, _> { meta: order.meta, snapshot: file };
        let installed = self.raft.install_full_snapshot(order.vote, snapshot).await;
        installed.map_err(fatal).map(|answer| json(StatusCode::OK, &answer))
    }
}

/// How openraft is asked for a read of this freshness.
pub(crate) fn option(freshness: Freshness, patience: Duration) -> LinearizerOption {
    match freshness {
        Freshness::ReadIndex => {
            LinearizerOption::from(ReadPolicy::ReadIndex).with_wait_timeout(patience)
        }
        Freshness::Lease => LinearizerOption::from(ReadPolicy::LeaseRead),
        Freshness::Bounded(ms) => {
            LinearizerOption::new(Some(Duration::from_millis(ms)), true).with_wait_timeout(patience)
        }
    }
}

/// Runs what waits for the disk off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    let broken = |error: std::io::Error| {
        tracing::error!(%error, "a snapshot cannot be received");
        Refusal::new(ErrorCode::Internal, "the snapshot cannot be written")
    };
    let done = world::blocking(work).await;
    done.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(broken)
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    rpc::read(body)
        .map_err(|error| Refusal::new(ErrorCode::BadRequest, format!("the body: {error}")))
}

fn said<T: Serialize>(said: Result<T, RaftError<TypeConfig>>) -> Result<Answer, Refusal> {
    match said {
        Ok(said) => Ok(json(StatusCode::OK, &said)),
        Err(RaftError::Fatal(error)) => Err(fatal(error)),
        Err(RaftError::APIError(never)) => match never {},
    }
}

/// The engine has ended, or its disk broke.
fn fatal(error: Fatal<TypeConfig>) -> Refusal {
    tracing::warn!(%error, "agreement has ended on this replica");
    Refusal::new(ErrorCode::NotReady, "agreement has ended on this replica: look at its log")
}
