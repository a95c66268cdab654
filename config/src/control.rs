//! A control replica and the front door that follows it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::etcd::{Cp, CpEngine, Etcd};
use crate::control::raft::Raft;
use crate::places::place;
use crate::shared::{Location, Log, Peers, Token};
use crate::units::{ByteSize, HumanDuration, NodeName, Region, listen_address};

mod check;
pub mod etcd;
pub mod raft;

/// A control replica.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Control {
    /// Its name.
    pub name: NodeName,
    /// The region it stands in.
    pub region: Region,
    /// The API, with metrics and health on the same listener.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// The folder of its durable state.
    pub data: PathBuf,
    /// The replicas by name, this one among them. Several agree by majority.
    #[serde(default)]
    pub replicas: Vec<NodeName>,
    /// From names to addresses: other replicas, and the admin listeners of edges.
    #[serde(default)]
    pub peers: Peers,
    /// Where clients are, `[[prefix]]`, for `GET /v1/steer`: what the front doors have.
    #[serde(default)]
    pub prefix: Vec<Prefix>,
    /// CP or AP, per class of data.
    #[serde(default)]
    pub consistency: Consistency,
    /// What brings several replicas to one order.
    #[serde(default)]
    pub cp: Cp,
    /// How several replicas agree.
    #[serde(default)]
    pub raft: Raft,
    /// Where etcd is, as their engine.
    #[serde(default)]
    pub etcd: Etcd,
    /// When an edge counts as gone.
    #[serde(default)]
    pub health: Health,
    /// The log of purges and configuration registers.
    #[serde(default)]
    pub journal: Journal,
    /// The streams to the edges.
    #[serde(default)]
    pub stream: Stream,
    /// Limits of the API.
    #[serde(default)]
    pub limits: Limits,
    /// Who may change something.
    #[serde(default)]
    pub token: Vec<Token>,
    /// The log.
    #[serde(default)]
    pub log: Log,
}

impl Control {
    /// A call that needs a majority is refused when it has none for this long.
    pub fn quorum_timeout(&self) -> Duration {
        match self.cp.engine {
            CpEngine::Raft => self.raft.quorum_timeout.get(),
            CpEngine::Etcd => self.etcd.quorum_timeout.get(),
        }
    }
}

/// `[consistency]`: the engine of each class of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Consistency {
    /// Purges.
    pub purges: Engine,
    /// Configuration registers.
    pub config: Engine,
    /// Health and operator intents.
    pub health: Engine,
}

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// Consistent: one agreed order; a minority refuses.
    #[default]
    Cp,
    /// Available: every replica answers; siblings are kept.
    Ap,
}

/// `[health]`: from beats to states.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Health {
    /// Unheard for this long, an edge is unhealthy. Must be above the edges' `beat`.
    pub edge_lapse: HumanDuration,
    /// Heard again for this long, it is healthy again.
    pub edge_recovery: HumanDuration,
    /// Unheard for this long, it leaves the register and must start empty when it returns.
    pub edge_expiry: HumanDuration,
    /// For how long an edge may use what it stored for routes that are `fail_closed` without hearing
    /// from the control plane; `ack=effective` waits for one that is cut off no longer than this.
    pub lease: HumanDuration,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            edge_lapse: HumanDuration::secs(1), // four beats of 250 ms: steered away within 2 s
            edge_recovery: HumanDuration::millis(500), // two beats: not the first sign of life
            edge_expiry: HumanDuration::secs(86_400),
            lease: HumanDuration::secs(3), // an election, and a dozen beats
        }
    }
}

/// `[journal]`: how much of the past is kept.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Journal {
    /// Purges and configuration changes kept one by one: the history, and what an edge that was
    /// cut off gets exactly. Older ones are folded into a snapshot.
    pub keep: NonZeroU32,
    /// Selectors in the snapshot. An edge that misses even older ones drops everything it stored.
    pub max_folded: NonZeroU32,
    /// A repeated `Idempotency-Key` gets the first answer for this long.
    pub key_expiry: HumanDuration,
    /// `Idempotency-Key`s remembered; beyond it the oldest go before they expire.
    pub max_keys: NonZeroU32,
    /// Configuration registers, deleted ones that edges must still learn of among them.
    pub max_registers: NonZeroU32,
    /// The value of one register, as JSON.
    pub register_size: ByteSize,
    /// Changes that wait for the disk; one more waits at the API.
    pub max_queue: NonZeroU32,
}

impl Default for Journal {
    fn default() -> Self {
        let some = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            keep: some(200_000), // minutes at a thousand purges a second; some 50 MB of disk
            max_folded: some(50_000), // some 10 MB of memory
            key_expiry: HumanDuration::secs(86_400), // a client that retries later made a new order
            max_keys: some(1_000_000), // a day at eleven a second
            max_registers: some(1_000),
            register_size: ByteSize::kib(64), // a site with long lists takes a few KiB
            max_queue: some(1_024),           // what one write to disk takes with it
        }
    }
}

/// `[stream]`: towards each edge.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Stream {
    /// A frame comes at least this often.
    pub heartbeat: HumanDuration,
    /// After telling an edge of a change, what comes within this time is told together. The first
    /// change after a pause is told at once.
    pub gather: HumanDuration,
    /// Pieces of at most 1,000 frames that may wait for one edge to take them.
    pub queue: NonZeroU32,
    /// An edge that takes none for this long is told to come again, and cut off.
    pub patience: HumanDuration,
    /// The longest that a purge may wait for edges, `?timeout=`.
    pub max_wait: HumanDuration,
    /// Purges whose way to each edge is remembered with its latency.
    pub tracked: NonZeroU32,
}

impl Default for Stream {
    fn default() -> Self {
        let some = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            heartbeat: HumanDuration::millis(250), // an edge knows within a second that it is alone
            gather: HumanDuration::millis(4), // 250 reads a second at most cost an edge 1 % of a core
            queue: some(16),                  // a few MiB for an edge that catches up
            patience: HumanDuration::secs(5), // longer than a pause of a busy machine
            max_wait: HumanDuration::secs(60), // what clients and proxies bear
            tracked: some(1_024),
        }
    }
}

/// `[limits]` of a control replica.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Limits {
    /// Open connections; more wait in the listener's backlog.
    pub max_connections: NonZeroU32,
    /// A request's head.
    pub head_size: ByteSize,
    /// From the first byte of a head to its end.
    pub head_timeout: HumanDuration,
    /// A request's body.
    pub body_size: ByteSize,
    /// Edges in the register.
    pub max_edges: NonZeroU32,
    /// One API call, forwarding included.
    pub call_timeout: HumanDuration,
    /// From the order to stop until what is still in flight is cut.
    pub drain_timeout: HumanDuration,
}

impl Default for Limits {
    fn default() -> Self {
        let some = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            max_connections: some(4_096),
            head_size: ByteSize::kib(32),
            head_timeout: HumanDuration::secs(10),
            body_size: ByteSize::mib(1),
            max_edges: some(1_000),
            call_timeout: HumanDuration::secs(2),
            drain_timeout: HumanDuration::secs(5),
        }
    }
}

/// The front door.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Front {
    /// Its name.
    pub name: NodeName,
    /// Where clients come in.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// Metrics and health. Loopback unless a token is configured.
    #[serde(deserialize_with = "listen_address")]
    pub admin: SocketAddr,
    /// Control replicas by name, in the order in which they are tried.
    pub replicas: Vec<NodeName>,
    /// From their names to addresses.
    #[serde(default)]
    pub peers: Peers,
    /// Believes a client's `Meridian-From` header.
    #[serde(default)]
    pub trust_from: bool,
    /// Where clients are, `[[prefix]]`: the longest that matches wins.
    #[serde(default)]
    pub prefix: Vec<Prefix>,
    /// Where a client is taken to be if nothing else tells. Default: the first region heard of.
    #[serde(default)]
    pub default_from: Option<Region>,
    /// How often it asks the control plane for the edges. Default 200ms.
    #[serde(default = "default_poll")]
    pub poll: HumanDuration,
    /// Limits towards clients.
    #[serde(default)]
    pub limits: Limits,
    /// Who may change something at the admin listener.
    #[serde(default)]
    pub token: Vec<Token>,
    /// The log.
    #[serde(default)]
    pub log: Log,
}

fn default_poll() -> HumanDuration {
    HumanDuration::millis(200)
}

/// `[[prefix]]`: addresses and where they are.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Prefix {
    /// Addresses in CIDR form: `"192.0.2.0/24"`, `"2001:db8::/32"`.
    pub net: String,
    /// A code of the table of places, or `"lat,lon"`.
    pub from: String,
}

impl Prefix {
    /// The network: its address and the length of its prefix in bits. Else, what is wrong.
    pub fn network(&self) -> Result<(IpAddr, u32), String> {
        let rule = "must be a network in CIDR form, such as \"192.0.2.0/24\" or \"2001:db8::/32\"";
        let (address, length) = self.net.split_once('/').ok_or(rule)?;
        let address: IpAddr = address.parse().map_err(|error| format!("{rule}: {error}"))?;
        let length: u32 = length.parse().map_err(|error| format!("{rule}: {error}"))?;
        // The bits of the address, aligned to the left of 128.
        let (bits, most) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        if length > most {
            return Err(format!("must have a prefix of at most {most} bits"));
        }
        if bits.checked_shl(length).unwrap_or(0) != 0 {
            return Err(format!("must have no bit set after the first {length}"));
        }
        Ok((address, length))
    }

    /// Where the network is.
    pub fn location(&self) -> Option<Location> {
        place(&self.from).map(|place| place.location).or_else(|| self.from.parse().ok())
    }
}
