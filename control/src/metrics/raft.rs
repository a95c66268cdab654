//! What a replica counts of the agreement with others.

use std::time::Duration;

use meridian_config::units::NodeName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// From a tenth of a millisecond to the end of any call, in seconds.
const LATENCIES: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// Orders of one batch, which has at most 1,024.
const SIZES: [f64; 8] = [1.0, 2.0, 4.0, 16.0, 64.0, 256.0, 512.0, 1_024.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabel {
    peer: String,
}

/// What a replica counts of the agreement with others; zero on one that is alone.
#[derive(Debug)]
pub(crate) struct RaftMetrics {
    term: Gauge,
    role: Family<RoleLabel, Gauge>,
    applied: Gauge,
    /// Terms that began.
    pub(crate) elections: Counter,
    /// Batches that were proposed.
    pub(crate) proposals: Counter,
    commit: Histogram,
    batch: Histogram,
    /// Snapshots that stand for the log's past, made here or received.
    pub(crate) snapshots: Counter,
    /// Requests that were passed on to the leader.
    pub(crate) forwards: Counter,
    failures: Family<PeerLabel, Counter>,
}

/// What a replica may be to the others.
const ROLES: [&str; 5] = ["leader", "follower", "candidate", "learner", "stopped"];

impl Default for RaftMetrics {
    fn default() -> Self {
        let all = Self {
            term: Gauge::default(),
            role: Family::default(),
            applied: Gauge::default(),
            elections: Counter::default(),
            proposals: Counter::default(),
            commit: Histogram::new(LATENCIES),
            batch: Histogram::new(SIZES),
            snapshots: Counter::default(),
            forwards: Counter::default(),
            failures: Family::default(),
        };
        for role in ROLES {
            drop(all.role.get_or_create(&RoleLabel { role }));
        }
        all
    }
}

impl RaftMetrics {
    /// Names all of them in `registry`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "The term of the agreement. A rise: the leader died, or was cut off";
        registry.register("raft_term", help, self.term.clone());
        let help = "1 for what this replica is. More than one `leader` at a time: one is cut off";
        registry.register("raft_role", help, self.role.clone());
        let help = "Entries of the agreed log that are applied here. Behind the others': it lags";
        registry.register("raft_applied", help, self.applied.clone());
        let help = "Terms that this replica saw begin. A rise: the network or a disk is slow";
        registry.register("raft_elections", help, self.elections.clone());
        let help =
            "Batches proposed by this replica. Standing still while clients write: no leader";
        registry.register("raft_proposals", help, self.proposals.clone());
        let help = "From a proposal to its effect. A rise: a disk or the network is slow";
        registry.register("raft_commit_seconds", help, self.commit.clone());
        let help = "Orders of one batch. A rise: writers share the disk, it is near its limit";
        registry.register("raft_batch_orders", help, self.batch.clone());
        let help = "Snapshots made or received. Received ones: this replica was away for long";
        registry.register("raft_snapshots", help, self.snapshots.clone());
        let help = "Requests passed on to the leader. All of them: clients know one follower only";
        registry.register("raft_forwards", help, self.forwards.clone());
        let help = "Messages to a replica that brought nothing. A rise: it is dead or cut off";
        registry.register("raft_rpc_failures", help, self.failures.clone());
    }

    /// Counts from zero for each of `peers`.
    pub(crate) fn expect<'p>(&self, peers: impl Iterator<Item = &'p NodeName>) {
        for peer in peers {
            drop(self.failures.get_or_create(&PeerLabel { peer: peer.to_string() }));
        }
    }

    /// Counts a message to `peer` that brought nothing.
    pub(crate) fn failed(&self, peer: &NodeName) {
        self.failures.get_or_create(&PeerLabel { peer: peer.to_string() }).inc();
    }

    /// Counts a batch of `orders` that took `took` to have its effect.
    pub(crate) fn committed(&self, orders: usize, took: Duration) {
        self.commit.observe(took.as_secs_f64());
        self.batch.observe(f64::from(u32::try_from(orders).unwrap_or(u32::MAX)));
    }

    /// Notes what this replica is.
    pub(crate) fn observe(&self, role: &'static str, term: u64, applied: u64) {
        for known in ROLES {
            let label = RoleLabel { role: known };
            self.role.get_or_create(&label).set(i64::from(known == role));
        }
        self.term.set(i64::try_from(term).unwrap_or(i64::MAX));
        self.applied.set(i64::try_from(applied).unwrap_or(i64::MAX));
    }
}
