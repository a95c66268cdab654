//! Who belongs to the cluster: founding it once, and changing its members.
//!
//! # Invariants
//! - A cluster is founded once: by the first of `replicas`, as long as none of them belongs to
//!   one, and all of them said so. Whoever lost its disk cannot found a second one.
//! - A member is the number of one disk's life. What comes under the same name with another number
//!   is another member, and has a vote only after the log has been copied to it.
//! - One change at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use meridian_config::units::NodeName;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::raft::network::Speaker;
use crate::raft::rpc::{Identity, Rpc};
use crate::raft::state::Raft;
use crate::raft::types::{Replica, TypeConfig};
use crate::world;

/// How often the others are asked who they are before there is a cluster.
const ROUND: Duration = Duration::from_millis(100);

/// What an operator wants of the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberChange {
    /// It joins, and votes once it has the log.
    Add(NodeName),
    /// It leaves.
    Remove(NodeName),
    /// It lost its disk, and takes its own place again.
    Replace(NodeName),
}

/// Why the members stay as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unchanged {
    #[error("{0} has no address in [peers] of the leader")]
    Unnamed(NodeName),
    #[error("{0} does not answer")]
    Silent(NodeName),
    #[error("{0} is a member already")]
    Member(NodeName),
    #[error("{0} is no member")]
    Stranger(NodeName),
    #[error("{0} still has its disk: it is the member that it was")]
    Whole(NodeName),
    #[error("another change of the members is on its way")]
    InProgress,
    #[error("{0} belongs to a cluster already: remove its folder `data` to let it join this one")]
    Taken(NodeName),
    #[error("this replica does not lead")]
    NotLeader,
    #[error("the change did not go through: {0}")]
    Failed(String),
}

/// One member, for people.
#[derive(Debug, Serialize)]
pub(crate) struct MemberView {
    pub(crate) name: NodeName,
    /// The number of its disk's life, in hexadecimal.
    pub(crate) node: String,
    pub(crate) voter: bool,
}

/// How a number of a node is shown.
pub(crate) fn shown(node: u64) -> String {
    format!("{node:016x}")
}

/// The members as this replica knows them, by name.
pub(crate) fn members(raft: &Raft) -> Vec<MemberView> {
    let membership = raft.metrics().borrow_watched().membership_config.clone();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let view = |(node, replica): (&u64, &Replica)| MemberView {
        name: replica.name.clone(),
        node: shown(*node),
        voter: voters.contains(node),
    };
    let mut members: Vec<MemberView> = membership.nodes().map(view).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members
}

/// Founds the cluster of `replicas`, of which this one is the first, unless there is one.
pub(crate) async fn found(
    raft: Raft,
    speaker: Arc<Speaker>,
    replicas: Vec<NodeName>,
    stop: CancellationToken,
) {
    let mut told = false;
    let founding = async {
        loop {
            match raft.is_initialized().await {
                Ok(true) | Err(_) => return,
                Ok(false) => {}
            }
            if try_found(&raft, &speaker, &replicas, &mut told).await {
                return;
            }
            tokio::time::sleep(world::jittered(ROUND)).await;
        }
    };
    stop.run_until_cancelled(founding).await;
}

/// Whether there is nothing more to do.
async fn try_found(raft: &Raft, speaker: &Speaker, replicas: &[NodeName], told: &mut bool) -> bool {
    let Some((me, others)) = replicas.split_first() else { return true };
    let mut members = BTreeMap::from([(speaker.node, Replica { name: me.clone() })]);
    for name in others {
        let Some(identity) = identity_of(speaker, name).await else { return false };
        if !identity.pristine {
            if !std::mem::replace(told, true) {
                tracing::error!(
                    replica = %name,
                    "there is a cluster, and this disk is not of it: have this replica replaced \
                     (POST /v1/admin/members)"
                );
            }
            return false;
        }
        members.insert(identity.node, Replica { name: name.clone() });
    }
    if members.len() != replicas.len() {
        return false;
    }
    match raft.initialize(members).await {
        Ok(()) => {
            tracing::info!(members = replicas.len(), "a cluster is founded");
            true
        }
        Err(error) => {
            tracing::warn!(%error, "the cluster cannot be founded");
            matches!(error, RaftError::Fatal(_))
        }
    }
}

/// Who answers under `name`.
async fn identity_of(speaker: &Speaker, name: &NodeName) -> Option<Identity> {
    let limit = speaker.limits.rpc_timeout.get();
    let asked = (Rpc::Identity, "", Bytes::from_static(b"null"));
    let identity: Identity = speaker.say(name, None, asked, limit).await.ok()?;
    (identity.name == *name).then_some(identity)
}

/// Makes `change`, on the replica that leads. Dropping the future may leave it half-way: a member
/// that has the log and no vote. Asking for it again completes it.
pub(crate) async fn change(
    raft: &Raft,
    speaker: &Speaker,
    change: &MemberChange,
) -> Result<(), Unchanged> {
    let membership = raft.metrics().borrow_watched().membership_config.clone();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let number = |name: &NodeName| -> Vec<u64> {
        let named = membership.nodes().filter(|(_, replica)| replica.name == *name);
        named.map(|(node, _)| *node).collect()
    };
    match change {
        MemberChange::Add(name) => {
            if number(name).iter().any(|node| voters.contains(node)) {
                return Err(Unchanged::Member(name.clone()));
            }
            let node = joined(raft, speaker, name).await?;
            made(raft.change_membership(ChangeMembers::AddVoterIds([node].into()), false).await)
        }
        MemberChange::Remove(name) => {
            let nodes: BTreeSet<u64> = number(name).into_iter().collect();
            if nodes.is_empty() {
                return Err(Unchanged::Stranger(name.clone()));
            }
            left(raft, nodes, &voters).await
        }
        MemberChange::Replace(name) => {
            let old: BTreeSet<u64> = number(name).into_iter().collect();
            if old.is_empty() {
                return Err(Unchanged::Stranger(name.clone()));
            }
            let new = joined(raft, speaker, name).await?;
            if old.contains(&new) && voters.contains(&new) {
                return Err(Unchanged::Whole(name.clone()));
            }
            let gone: BTreeSet<u64> = old.iter().copied().filter(|node| *node != new).collect();
            let kept = voters.iter().copied().filter(|node| !gone.contains(node));
            let wanted: BTreeSet<u64> = kept.chain([new]).collect();
            made(raft.change_membership(wanted, false).await)?;
            left(raft, gone, &BTreeSet::new()).await
        }
    }
}

/// Lets `name` join without a vote, and waits until it has the log; its number.
async fn joined(raft: &Raft, speaker: &Speaker, name: &NodeName) -> Result<u64, Unchanged> {
    if !speaker.peers.knows(name) {
        return Err(Unchanged::Unnamed(name.clone()));
    }
    let identity =
        identity_of(speaker, name).await.ok_or_else(|| Unchanged::Silent(name.clone()))?;
    let membership = raft.metrics().borrow_watched().membership_config.clone();
    let member = membership.get_node(&identity.node).is_some();
    if !member && !identity.pristine {
        return Err(Unchanged::Taken(name.clone()));
    }
    let replica = Replica { name: name.clone() };
    made(raft.add_learner(identity.node, replica, true).await)?;
    Ok(identity.node)
}

/// Takes `nodes` out, with their votes if they are among `voters`.
async fn left(raft: &Raft, nodes: BTreeSet<u64>, voters: &BTreeSet<u64>) -> Result<(), Unchanged> {
    let voting: BTreeSet<u64> = nodes.intersection(voters).copied().collect();
    if !voting.is_empty() {
        made(raft.change_membership(ChangeMembers::RemoveVoters(voting), false).await)?;
    }
    let membership = raft.metrics().borrow_watched().membership_config.clone();
    let there = nodes.into_iter().filter(|node| membership.get_node(node).is_some());
    let there: BTreeSet<u64> = there.collect();
    if there.is_empty() {
        return Ok(());
    }
    made(raft.change_membership(ChangeMembers::RemoveNodes(there), false).await)
}

type Made<T> = Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

fn made<T>(made: Made<T>) -> Result<(), Unchanged> {
    use openraft::errors::ChangeMembershipError::InProgress;
    match made {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Err(Unchanged::NotLeader),
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(InProgress(_)))) => {
            Err(Unchanged::InProgress)
        }
        Err(error) => Err(Unchanged::Failed(error.to_string())),
    }
}
