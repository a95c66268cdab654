//! The agreement of this replica with the others: made, run, ended, changed, shown.
//!
//! # Invariants
//! - It speaks to nobody before everything that it answers with is there.
//! - When [`Replication::end`] returns, what was applied is on disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use meridian_config::control::raft::Raft as Limits;
use meridian_config::units::NodeName;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Config, SnapshotPolicy};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agreement::{AgreementView, PeerView};
use crate::raft::listener::Listener;
use crate::raft::members::{self, MemberChange, MemberView, Unchanged};
use crate::raft::network::Speaker;
use crate::raft::proposer::Proposer;
use crate::raft::state::Raft;
use crate::raft::store::RaftStore;
use crate::register::millis;
use crate::world;

/// Entries of one message, which are bounded in bytes too.
const ENTRIES_AT_ONCE: u64 = 16;

/// Entries that a new member may be behind before it gets a vote.
const CLOSE: u64 = 1_000;

/// The agreement of this replica with the others.
#[derive(Debug)]
pub(crate) struct Replication {
    pub(crate) raft: Raft,
    pub(crate) speaker: Arc<Speaker>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) store: Arc<RaftStore>,
    /// The replicas as they are configured.
    pub(crate) replicas: Vec<NodeName>,
    /// Changes of the members that go on after whoever asked for them has left.
    pub(crate) tasks: TaskTracker,
    pub(crate) ending: CancellationToken,
}

/// What openraft is told.
pub(crate) fn settings(limits: &Limits, replicas: usize) -> Config {
    let lease = millis(limits.election_max.get());
    Config {
        cluster_name: "meridian".to_owned(),
        heartbeat_interval: millis(limits.heartbeat.get()),
        election_timeout_min: millis(limits.election_min.get()),
        election_timeout_max: lease,
        enable_pre_vote: Some(true),
        // With five or more a leader without a majority may keep a majority from electing another.
        quorum_loss_probe_interval: (replicas >= 5).then(|| lease.saturating_mul(2) + 100),
        install_snapshot_timeout: millis(limits.snapshot_timeout.get()),
        max_payload_entries: ENTRIES_AT_ONCE,
        replication_lag_threshold: CLOSE,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.snapshot_every.get().into()),
        max_in_snapshot_log_to_keep: limits.keep_entries.get().into(),
        ..Config::default()
    }
}

impl Replication {
    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Runs what the agreement needs besides its engine, until `stop`.
    pub(crate) async fn run(self: Arc<Self>, proposer: Proposer, stop: CancellationToken) {
        self.raft.run();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(proposer.run(stop.clone()));
        if self.replicas.first() == Some(&self.listener.name) {
            let (raft, speaker) = (self.raft.clone(), Arc::clone(&self.speaker));
            tasks.spawn(members::found(raft, speaker, self.replicas.clone(), stop.clone()));
        }
        let (replication, stopped) = (Arc::clone(&self), stop.clone());
        tasks.spawn(async move {
            let recovery = replication.raft.wait_for_recovery(None);
            if let Some(Ok(_)) = stopped.run_until_cancelled(recovery).await {
                replication.store.recovered();
                tracing::info!("what was agreed before the start is applied");
            }
        });
        let (replication, stopped) = (Arc::clone(&self), stop.clone());
        tasks.spawn(async move {
            stopped.run_until_cancelled(replication.tell_turns()).await;
        });
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the agreement broke");
            }
        }
    }

    /// Tells the log who leads, whenever that changes.
    async fn tell_turns(&self) {
        let mut changes = self.raft.server_metrics();
        let (mut term, mut leader) = (0, None);
        loop {
            let view = self.view();
            if view.term > term {
                self.speaker.metrics.elections.inc();
                term = view.term;
            }
            if view.leader != leader {
                match &view.leader {
                    Some(name) => tracing::info!(leader = %name, term, "a replica leads"),
                    None => tracing::warn!(term, "no replica is known to lead"),
                }
                leader = view.leader;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends the agreement: hands the lead to another first, if this replica has it.
    pub(crate) async fn end(&self) {
        self.ending.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.hand_over().await;
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "the agreement did not end well");
        }
        let machine = Arc::clone(&self.speaker.machine);
        match world::blocking(move || machine.sync()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "what was applied is not on disk"),
            Err(error) => tracing::error!(%error, "what was applied is not on disk"),
        }
    }

    async fn hand_over(&self) {
        let heir = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
            let copied = metrics.replication.iter().flatten();
            let others =
                copied.filter(|(node, _)| **node != self.speaker.node && voters.contains(node));
            others.max_by_key(|(_, log)| log.map(|log| log.index)).map(|(node, _)| *node)
        };
        let Some(heir) = heir else { return };
        if self.raft.trigger().transfer_leader(heir).await.is_err() {
            return;
        }
        let patience = self.speaker.limits.election_min.get();
        let given = async {
            let mut changes = self.raft.server_metrics();
            while self.store.leads_now() && changes.changed().await.is_ok() {}
        };
        drop(tokio::time::timeout(patience, given).await);
    }

    /// The members by name.
    pub(crate) fn members(&self) -> Vec<MemberView> {
        members::members(&self.raft)
    }

    /// Changes the members; none: it takes longer than `patience`, and goes on.
    pub(crate) async fn change(
        &self,
        change: MemberChange,
        patience: Duration,
    ) -> Option<Result<(), Unchanged>> {
        let (raft, speaker) = (self.raft.clone(), Arc::clone(&self.speaker));
        let ending = self.ending.clone();
        let task = self.tasks.spawn(async move {
            let changing = members::change(&raft, &speaker, &change);
            let changed = ending.run_until_cancelled(changing).await;
            let changed = changed.unwrap_or(Err(Unchanged::NotLeader));
            match &changed {
                Ok(()) => tracing::info!(?change, "the members have changed"),
                Err(error) => tracing::warn!(?change, %error, "the members have not changed"),
            }
            changed
        });
        match tokio::time::timeout(patience, task).await {
            Ok(changed) => {
                Some(changed.unwrap_or_else(|error| Err(Unchanged::Failed(error.to_string()))))
            }
            Err(_elapsed) => None,
        }
    }

    /// Has `to` lead.
    pub(crate) async fn transfer(&self, to: &NodeName) -> Result<(), Unchanged> {
        let node = {
            let metrics = self.raft.metrics();
            let membership = metrics.borrow_watched().membership_config.clone();
            let voters: BTreeSet<u64> = membership.voter_ids().collect();
            let mut named =
                membership.nodes().filter(|(node, one)| one.name == *to && voters.contains(node));
            named.next().map(|(node, _)| *node)
        };
        let node = node.ok_or_else(|| Unchanged::Stranger(to.clone()))?;
        let asked = self.raft.trigger().transfer_leader(node).await;
        asked.map_err(|error| Unchanged::Failed(error.to_string()))
    }

    /// Has a snapshot made.
    pub(crate) async fn snapshot(&self) -> Result<(), Unchanged> {
        let asked = self.raft.trigger().snapshot().await;
        asked.map_err(|error| Unchanged::Failed(error.to_string()))
    }

    /// How the agreement is.
    pub(crate) fn view(&self) -> AgreementView {
        let role = self.store.role();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let membership = &metrics.membership_config;
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let index = |log: &Option<_>| -> u64 { openraft::LogIdOptionExt::index(log).unwrap_or(0) };
        let last = metrics.last_log_index.unwrap_or(0);
        let now = world::now();
        let patience = self.speaker.limits.election_min.get();
        let peer = |(node, replica): (&u64, &crate::raft::types::Replica)| {
            let me = *node == self.speaker.node;
            let leads = metrics.current_leader == Some(*node);
            let role = match (leads, voters.contains(node)) {
                (true, _) => "leader",
                (false, true) => "follower",
                (false, false) => "learner",
            };
            let beaten = metrics.heartbeat.as_ref().and_then(|beats| beats.get(node));
            let reachable = match (me, role == "leader", beaten) {
                (true, _, _) => Some(true),
                (_, _, Some(beat)) => {
                    Some(beat.is_some_and(|at| openraft::Instant::elapsed(&*at) < patience))
                }
                (_, true, None) => {
                    Some(self.listener.heard_ago(*node, now).is_some_and(|ago| ago < patience))
                }
                (_, false, None) => None,
            };
            let copied = metrics.replication.as_ref().and_then(|copied| copied.get(node));
            let lag = match (me, copied) {
                (true, _) => Some(last.saturating_sub(index(&metrics.last_applied))),
                (false, Some(log)) => Some(last.saturating_sub(index(log))),
                (false, None) => None,
            };
            PeerView {
                name: replica.name.clone(),
                node: Some(members::shown(*node)),
                role,
                reachable,
                lag,
            }
        };
        let mut peers: Vec<PeerView> = membership.nodes().map(peer).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        let leader = metrics.current_leader.and_then(|leader| membership.get_node(&leader));
        AgreementView {
            role,
            term: metrics.current_term,
            leader: leader.map(|replica| replica.name.clone()),
            peers,
            committed: index(&metrics.cluster_committed),
            applied: index(&metrics.last_applied),
            snapshot: index(&metrics.snapshot),
            sound: metrics.running_state.is_ok(),
        }
    }
}

/// What replicas show each other, as a field.
pub(crate) fn bearer_of(secret: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {secret}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
