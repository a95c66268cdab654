//! An origin: what it serves, and with which header fields.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::pattern::PathPattern;
use crate::shared::{Log, Token};
use crate::units::{ByteSize, HumanDuration, NodeName, Region, listen_address};

mod check;

/// An origin node.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Origin {
    /// Its name.
    pub name: NodeName,
    /// The region it stands in.
    pub region: Region,
    /// Where edges come in.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// Faults, request counts, metrics, health. Loopback unless a token is configured.
    #[serde(deserialize_with = "listen_address")]
    pub admin: SocketAddr,
    /// What it serves.
    pub content: Content,
    /// Header fields by path, `[[rule]]`: the first that matches wins, field by field.
    #[serde(default)]
    pub rule: Vec<Rule>,
    /// The order book at `/v1/orders`.
    #[serde(default)]
    pub orders: Orders,
    /// Limits towards whoever asks.
    #[serde(default)]
    pub limits: Limits,
    /// Who may change something at the admin listener.
    #[serde(default)]
    pub token: Vec<Token>,
    /// The log.
    #[serde(default)]
    pub log: Log,
}

/// `[content]`: exactly one of the three.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Content {
    /// A folder of files.
    pub folder: Option<PathBuf>,
    /// The synthetic objects of a trace: a CSV with the columns `key` and `size`.
    pub trace: Option<PathBuf>,
    /// The built-in sample site.
    pub sample: bool,
    /// The size of an object of the trace that has none there. Default 1KiB.
    pub default_size: Option<ByteSize>,
}

/// `[[rule]]`: header fields for the paths that match.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Rule {
    /// Which paths.
    pub path: PathPattern,
    /// The `Cache-Control` they get. Without any rule: `max-age=60`.
    #[serde(default)]
    pub cache_control: Option<String>,
    /// The `Surrogate-Key` they get: tags separated by spaces.
    #[serde(default)]
    pub surrogate_key: Option<String>,
}

/// `[orders]`: an order book that shows what lost replies do, and what keys do against it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Orders {
    /// The file that keeps orders and keys. Without one no orders are taken.
    pub file: Option<PathBuf>,
    /// What a second request with the key of one that is at work gets.
    pub duplicates: Duplicates,
    /// How long a duplicate waits for the first.
    pub max_wait: HumanDuration,
    /// How long a key stands for its order.
    pub key_expiry: HumanDuration,
    /// Keys that are remembered; with more, orders with a key are refused.
    pub max_keys: NonZeroU32,
    /// Orders in the book; with more, they are refused.
    pub max_orders: NonZeroU32,
    /// How long the work on an order takes, beside the disk.
    pub work: HumanDuration,
}

/// `orders.duplicates`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// It waits, and gets the first one's answer.
    Wait,
    /// 409.
    Refuse,
}

impl Default for Orders {
    fn default() -> Self {
        let some = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            file: None,
            duplicates: Duplicates::Wait, // a client that repeats wants the answer, not an error
            max_wait: HumanDuration::secs(10), // below what edges wait for a first byte
            key_expiry: HumanDuration::secs(86_400), // as the common payment APIs do
            max_keys: some(1_000_000),
            max_orders: some(1_000_000), // at some 300 bytes each: 300 MB
            work: HumanDuration::secs(0),
        }
    }
}

/// `[limits]` of an origin.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Limits {
    /// Open connections; more wait in the listener's backlog.
    pub max_connections: NonZeroU32,
    /// A request's head.
    pub head_size: ByteSize,
    /// From the first byte of a head to its end.
    pub head_timeout: HumanDuration,
    /// A connection with no request on it. Above what edges keep, so that they close first.
    pub idle_timeout: HumanDuration,
    /// A client that takes no byte of its response.
    pub send_timeout: HumanDuration,
    /// Concurrent streams of one HTTP/2 connection.
    pub max_streams: NonZeroU32,
    /// The body of a request to the admin listener.
    pub body_size: ByteSize,
    /// Ranges in one request; with more the whole is sent (RFC 9110 §14.2).
    pub max_ranges: NonZeroU32,
    /// Distinct paths that are counted one by one; the rest is counted together.
    pub max_counted_paths: NonZeroU32,
    /// Distinct edges that are counted one by one; the rest is counted together.
    pub max_counted_edges: NonZeroU32,
    /// Files whose content hash is remembered; beyond it the oldest is computed again.
    pub max_hashed_files: NonZeroU32,
    /// Faults in force at once.
    pub max_faults: NonZeroU32,
    /// Requests that faults delay or leave hanging; one more is shed.
    pub max_held: NonZeroU32,
    /// From the order to stop until what is still in flight is cut.
    pub drain_timeout: HumanDuration,
}

impl Default for Limits {
    fn default() -> Self {
        let some = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            max_connections: some(8_192), // edges bound their own; this is the last line
            head_size: ByteSize::kib(64), // twice what an edge accepts: it adds fields
            head_timeout: HumanDuration::secs(10),
            idle_timeout: HumanDuration::secs(75), // edges keep 30 s, common proxies 60 s
            send_timeout: HumanDuration::secs(30), // a stalled reader holds a file open
            max_streams: some(128),                // RFC 9113 §6.5.2 advises no less than 100
            body_size: ByteSize::kib(64),          // a hundred faults, written at length
            max_ranges: some(16),
            max_counted_paths: some(1_000_000), // the objects of the largest trace
            max_counted_edges: some(1_000),     // as many as a control plane registers
            max_hashed_files: some(100_000),    // at some 300 bytes each: 30 MB
            max_faults: some(100),
            max_held: some(1_024), // an edge sends at most 256 at once by default
            drain_timeout: HumanDuration::secs(5),
        }
    }
}
