//! An edge: what it listens on, stores, asks upstream, and which sites it answers for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::control_loss::{ControlLoss, default_max_lag};
use crate::edge::compression::{Coding, Compression, Compressor};
use crate::edge::resilience::{Adaptive, Breaker, FirstByte, Health, Retry};
use crate::edge::shield::Shield;
use crate::edge::statuses::Statuses;
use crate::network::Network;
use crate::places::place;
use crate::query::Query;
use crate::shared::{Location, Log, Peers, Token};
use crate::site_rule::SiteRule;
use crate::units::{
    Address, ByteSize, Host, HumanDuration, Language, NodeName, Protocol, Ratio, Region, SiteName,
    listen_address,
};

mod check;
mod check_shield;
pub mod compression;
pub mod resilience;
pub mod shield;
pub mod site_value;
pub mod statuses;

/// An edge node.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Edge {
    /// Its name, in `Via`, `Cache-Status` and the register of edges.
    pub name: NodeName,
    /// The region it stands in.
    pub region: Region,
    /// The city, for people. Default: from the table of places, if `region` is a code there.
    #[serde(default)]
    pub city: Option<String>,
    /// Where it stands. Default: from the table of places, if `region` is a code there.
    #[serde(default)]
    pub location: Option<Location>,
    /// Where clients come in.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// Metrics, health, explain. Loopback unless a token is configured.
    #[serde(deserialize_with = "listen_address")]
    pub admin: SocketAddr,
    /// How clients reach `listen` from outside. Default: `http://` and `listen`.
    #[serde(default)]
    pub public_url: Option<String>,
    /// How others reach `admin` from outside. Default: `http://` and `admin`.
    #[serde(default)]
    pub admin_url: Option<String>,
    /// Threads that serve, each with a listener of its own. Default: one per core.
    #[serde(default)]
    pub cores: Option<NonZeroU16>,
    /// Limits towards clients.
    #[serde(default)]
    pub accept: Accept,
    /// The store.
    #[serde(default)]
    pub cache: Cache,
    /// What compressing may cost.
    #[serde(default)]
    pub compression: Compressor,
    /// What is remembered of purges.
    #[serde(default)]
    pub purge: Purge,
    /// The control plane it follows; without it the edge stands alone.
    #[serde(default)]
    pub control: Option<Follow>,
    /// From the names below to addresses.
    #[serde(default)]
    pub peers: Peers,
    /// The origin servers, `[[origin]]`, and the shields among them.
    #[serde(default)]
    pub origin: Vec<Upstream>,
    /// What it has to do with other edges of this CDN; without it they are clients like any other.
    #[serde(default)]
    pub shield: Option<Shield>,
    /// The sites, `[[site]]`.
    #[serde(default)]
    pub site: Vec<Site>,
    /// Who may change something at the admin listener.
    #[serde(default)]
    pub token: Vec<Token>,
    /// The log.
    #[serde(default)]
    pub log: Log,
}

impl Edge {
    /// Where it stands: what `location` says, else the place that `region` is a code of.
    pub fn stands_at(&self) -> Option<Location> {
        self.location.or_else(|| place(self.region.as_str()).map(|place| place.location))
    }

    /// The city it stands in: what `city` says, else the place that `region` is a code of.
    pub fn stands_in(&self) -> Option<&str> {
        self.city.as_deref().or_else(|| place(self.region.as_str()).map(|place| place.city))
    }
}

/// `[accept]`: what one client, and all of them together, may cost.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Accept {
    /// Open connections of the whole node; more wait in the listener's backlog.
    pub max_connections: NonZeroU32,
    /// Requests on one connection before it is closed in good order.
    pub max_requests: NonZeroU32,
    /// Concurrent streams of one HTTP/2 connection.
    pub max_streams: NonZeroU32,
    /// A request's head: request line and all fields.
    pub head_size: ByteSize,
    /// A request's target: path and query. A longer one is answered 414.
    pub target_size: ByteSize,
    /// A request's header fields.
    pub head_fields: NonZeroU16,
    /// From the first byte of a head to its end, also while the protocol is being detected.
    pub head_timeout: HumanDuration,
    /// A connection with no request on it.
    pub idle_timeout: HumanDuration,
    /// A client that takes no byte of its response.
    pub send_timeout: HumanDuration,
    /// Bytes in a second that a client takes of its responses, or gives of its requests' bodies,
    /// while it is what is waited for. 0B: any number.
    pub least_rate: ByteSize,
    /// Time of waiting for a client that `least_rate` is the average of.
    pub rate_grace: HumanDuration,
    /// A request's body.
    pub body_size: ByteSize,
    /// Memory for request bodies that are held until they are whole (`origin.retry_buffer`); beyond
    /// it they go on as they come.
    pub body_memory: ByteSize,
    /// From the order to stop until what is still in flight is cut.
    pub drain_timeout: HumanDuration,
    /// Whose word is taken on where a request comes from: `X-Forwarded-*` and `Forwarded` of these
    /// are kept and added to. Default: nobody's; what clients claim is dropped.
    pub trusted_proxies: Vec<Network>,
    /// Connections of the whole node that have become tunnels (`site.upgrade`); one more is refused.
    pub max_tunnels: NonZeroU32,
    /// A tunnel without a byte in either direction.
    pub tunnel_idle_timeout: HumanDuration,
    /// Answers `TRACE` (RFC 9110 §9.3.8), and sends it on. Default: 405.
    pub trace: bool,
}

impl Default for Accept {
    fn default() -> Self {
        let some = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            max_connections: some(16_384), // at 10 kB an idle connection: 160 MB
            max_requests: some(1_000_000), // long enough to cost nothing, short enough to move
            max_streams: some(128),        // RFC 9113 §6.5.2 advises no less than 100
            head_size: ByteSize::kib(32),  // what large browsers' cookies need, twice
            target_size: ByteSize::kib(8), // RFC 9112 §3 advises no less than 8000 bytes
            head_fields: NonZeroU16::new(128).unwrap_or(NonZeroU16::MIN), // browsers send about 20
            head_timeout: HumanDuration::secs(10), // a slow phone, not a slowloris
            idle_timeout: HumanDuration::secs(60), // what browsers keep
            send_timeout: HumanDuration::secs(30), // a stalled reader holds memory
            least_rate: ByteSize::bytes(256), // a tenth of the slowest mobile networks
            rate_grace: HumanDuration::secs(60), // a train in a tunnel
            body_size: ByteSize::mib(64),  // uploads belong to the origin's own limits
            body_memory: ByteSize::mib(64), // a thousand of the longest that are held
            drain_timeout: HumanDuration::secs(10), // below the 30 s that orchestrators grant
            trusted_proxies: Vec::new(),   // anybody may write these fields
            max_tunnels: some(1_024),      // each holds two connections and a place at its origin
            tunnel_idle_timeout: HumanDuration::secs(120), // twice what browsers' pings take
            trace: false,                  // it shows what others in between have added
        }
    }
}

/// `[cache]`: the store.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Cache {
    /// Memory for stored responses, heads and bodies together.
    pub capacity: ByteSize,
    /// The largest body that is stored; a larger one passes through.
    pub max_body: ByteSize,
    /// Memory for bodies that are still arriving; beyond it they pass through unstored.
    pub in_flight: ByteSize,
    /// Stored variants of one URL; the oldest goes first.
    pub max_variants: NonZeroU16,
    /// Parts of one response that are stored without the whole; the smallest goes first.
    pub max_parts: NonZeroU16,
    /// A body whose last client has left is still fetched to its end, and stored, if no more than
    /// this of it is missing; else the fetch is given up.
    pub finish_abandoned: ByteSize,
    /// Fetches at once that no client waits for; what one more would have refreshed is served stale
    /// until it is asked for again.
    pub max_background: NonZeroU32,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            capacity: ByteSize::mib(256), // three edges, an origin and a browser fit in 4 GiB
            max_body: ByteSize::mib(64),  // a quarter of the capacity
            in_flight: ByteSize::mib(128), // half of the capacity
            max_variants: NonZeroU16::new(32).unwrap_or(NonZeroU16::MIN), // encodings by languages
            max_parts: NonZeroU16::new(16).unwrap_or(NonZeroU16::MIN), // head, index, some seeks
            finish_abandoned: ByteSize::mib(16), // seconds of a common line
            // A quarter of the places at an origin, by their default.
            max_background: NonZeroU32::new(64).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// `[purge]`: what is remembered of purges.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Purge {
    /// Selectors that are remembered; with more the oldest are folded into a purge of their site.
    pub max_selectors: NonZeroU32,
    /// Operations whose ids are remembered, so that one that comes again changes nothing.
    pub max_operations: NonZeroU32,
    /// Between two looks through the store, which drop what was purged and forget selectors.
    pub sweep_pause: HumanDuration,
}

impl Default for Purge {
    fn default() -> Self {
        let some = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self {
            max_selectors: some(500_000),         // at 64 bytes each: 32 MB
            max_operations: some(100_000),        // what a busy minute brings
            sweep_pause: HumanDuration::secs(60), // a look at a million responses costs a second
        }
    }
}

/// `[control]` of an edge: whom it follows.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Follow {
    /// Control replicas by name: it follows any, and goes on to the next one when that fails.
    pub replicas: Vec<NodeName>,
    /// The file with the token of scope `edge` that it registers with.
    pub token_file: PathBuf,
    /// How often it reports. Default 250ms: three missed beats and steering turns within a second.
    #[serde(default = "default_beat")]
    pub beat: HumanDuration,
    /// Between two acknowledgements of purges; what is applied meanwhile goes with the next. The
    /// first after a pause goes at once.
    #[serde(default = "default_ack_pause")]
    pub ack_pause: HumanDuration,
    /// A replica that lacks for longer what another one has told by a ping is left.
    #[serde(default = "default_patience")]
    pub patience: HumanDuration,
    /// The folder that keeps the last good version of what the control plane said about sites.
    /// Default: none; a restarted edge then begins with the sites of its own file.
    #[serde(default)]
    pub state: Option<PathBuf>,
}

fn default_beat() -> HumanDuration {
    HumanDuration::millis(250)
}

/// A hundred acknowledgements a second, whatever comes.
fn default_ack_pause() -> HumanDuration {
    HumanDuration::millis(10)
}

/// Longer than a replica lags behind the others, shorter than a purge should take.
fn default_patience() -> HumanDuration {
    HumanDuration::secs(1)
}

/// `[[origin]]`: one origin server, or a shield, as the edge reaches it.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Upstream {
    /// Its name; the address stands in `[peers]`.
    pub name: NodeName,
    /// What it gets as `Host`. Default: its address in `[peers]`.
    #[serde(default)]
    pub authority: Option<Address>,
    /// Until the connection stands. 1-60 s make sense; default 2s.
    #[serde(default = "default_connect")]
    pub connect_timeout: HumanDuration,
    /// From the request to the first byte of its answer; default 15s. `"adaptive"`: as `adaptive`
    /// says.
    #[serde(default = "default_first_byte")]
    pub first_byte_timeout: FirstByte,
    /// Between two parts of a body; default 10s.
    #[serde(default = "default_between_bytes")]
    pub between_bytes_timeout: HumanDuration,
    /// The head of the answer at the latest, queue and retries included; default 30s.
    #[serde(default = "default_total")]
    pub total_timeout: HumanDuration,
    /// Bytes in a second that it sends of a body while it is what is waited for; default 256B. 0B:
    /// any number.
    #[serde(default = "default_least_rate")]
    pub least_rate: ByteSize,
    /// Time of waiting for it that `least_rate` is the average of; default 30s.
    #[serde(default = "default_rate_grace")]
    pub rate_grace: HumanDuration,
    /// Requests in flight to it from this edge; default 256.
    #[serde(default = "default_max_requests")]
    pub max_requests: NonZeroU32,
    /// Requests that wait for one of those places; one more is shed. Default 1024.
    #[serde(default = "default_max_queue")]
    pub max_queue: NonZeroU32,
    /// Connections kept open without a request, per core; default 64.
    #[serde(default = "default_max_idle")]
    pub max_idle: NonZeroU32,
    /// How long one is kept; default 30s, below the 60 s and more of common servers.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: HumanDuration,
    /// The body of a request is held in memory up to this length before it goes on, so that a slow
    /// client takes no place at the origin meanwhile, and so that it can be sent again; default 64KiB.
    #[serde(default = "default_retry_buffer")]
    pub retry_buffer: ByteSize,
    /// How long a request waits for one of its places; default 1s.
    #[serde(default = "default_queue_timeout")]
    pub queue_timeout: HumanDuration,
    /// The share of its places that background refreshes leave to clients; default 0.25.
    #[serde(default = "default_client_reserve")]
    pub client_reserve: Ratio,
    /// The share of places and queue that requests may take whose client is still sending the body.
    #[serde(default = "default_upload_share")]
    pub upload_share: Ratio,
    /// Lowers the number of places while its latency grows; default: no.
    #[serde(default)]
    pub adaptive_limit: bool,
    /// The request field that tells it how many milliseconds the edge will wait. Default: none.
    #[serde(default)]
    pub deadline_field: Option<String>,
    /// `[origin.adaptive]`.
    #[serde(default)]
    pub adaptive: Adaptive,
    /// `[origin.retry]`.
    #[serde(default)]
    pub retry: Retry,
    /// `[origin.breaker]`.
    #[serde(default)]
    pub breaker: Breaker,
    /// `[origin.health]`.
    #[serde(default)]
    pub health: Health,
}

fn default_connect() -> HumanDuration {
    HumanDuration::secs(2)
}
fn default_first_byte() -> FirstByte {
    FirstByte::Fixed(HumanDuration::secs(15))
}
fn default_queue_timeout() -> HumanDuration {
    HumanDuration::secs(1) // who has waited a second for a place only adds to the crowd
}
fn default_client_reserve() -> Ratio {
    Ratio::new(0.25)
}
fn default_upload_share() -> Ratio {
    Ratio::new(0.5) // slow clients cost other uploads their place, never who only reads
}
fn default_between_bytes() -> HumanDuration {
    HumanDuration::secs(10)
}
fn default_total() -> HumanDuration {
    HumanDuration::secs(30)
}
fn default_least_rate() -> ByteSize {
    ByteSize::bytes(256) // what clients have to keep up; nobody reads a page that comes slower
}
fn default_rate_grace() -> HumanDuration {
    HumanDuration::secs(30) // as long as the head may take
}
fn default_max_requests() -> NonZeroU32 {
    NonZeroU32::new(256).unwrap_or(NonZeroU32::MIN)
}
fn default_max_queue() -> NonZeroU32 {
    NonZeroU32::new(1024).unwrap_or(NonZeroU32::MIN)
}
fn default_max_idle() -> NonZeroU32 {
    NonZeroU32::new(64).unwrap_or(NonZeroU32::MIN)
}
fn default_idle_timeout() -> HumanDuration {
    HumanDuration::secs(30)
}

fn default_retry_buffer() -> ByteSize {
    ByteSize::kib(64) // forms and JSON, not uploads
}

/// `[[site]]`: one customer host, or the default site that takes every host no other claims.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Site {
    /// Its name, in metrics and logs.
    pub name: SiteName,
    /// The hosts it answers to.
    #[serde(default)]
    pub hosts: Vec<Host>,
    /// Takes every host that no site claims. At most one site.
    #[serde(default)]
    pub default: bool,
    /// The defaults of a careful CDN, or RFC 9111 to the letter.
    #[serde(default)]
    pub profile: Profile,
    /// Its origin servers by name, in order of preference.
    pub origins: Vec<NodeName>,
    /// Origins that are asked only when those do not look alive or cannot be reached.
    #[serde(default)]
    pub backup_origins: Vec<NodeName>,
    /// Asks the shields before them, where the edge has any (`shield.nodes`). Default: yes.
    #[serde(default = "default_shielded")]
    pub shielded: bool,
    /// Takes its origins as equally good: each request goes to the better of two picked at random.
    #[serde(default)]
    pub spread: bool,
    /// With fewer than this share of its origins alive all count as alive. Default 0.5.
    #[serde(default = "default_panic_threshold")]
    pub panic_threshold: Ratio,
    /// Retries and breakers at its origins. Default: yes in `cdn`, no in `rfc`.
    #[serde(default)]
    pub resilience: Option<bool>,
    /// How long a fetch that failed (5xx, or no answer) is the answer to all who ask for the same.
    /// Default: 1s in `cdn`, 0s in `rfc`.
    #[serde(default)]
    pub failure_lifetime: Option<HumanDuration>,
    /// How long a client waits for an origin while something stale may stand in. Default: 1s in
    /// `cdn`; in `rfc` until the fetch has failed.
    #[serde(default)]
    pub stale_patience: Option<HumanDuration>,
    /// Sends the client's own `Host` upstream; the host is then part of the key.
    #[serde(default)]
    pub preserve_host: bool,
    /// Lifetime of a response that says nothing and gives no ground for a heuristic. Default: none.
    #[serde(default)]
    pub default_lifetime: Option<HumanDuration>,
    /// Cap of heuristic lifetimes (RFC 9111 §4.2.2). Default: 1h in `cdn`, 1d in `rfc`.
    #[serde(default)]
    pub heuristic_max: Option<HumanDuration>,
    /// Stores responses with `Set-Cookie`. Default: no in `cdn`, yes in `rfc`.
    #[serde(default)]
    pub store_set_cookie: Option<bool>,
    /// Stores errors that one request's own fields provoked, such as 400 and 431, where they state
    /// a lifetime. Default: by profile.
    #[serde(default)]
    pub store_provoked_errors: Option<bool>,
    /// Obeys a client's `Cache-Control` on requests. Default: no.
    #[serde(default)]
    pub honour_client_directives: Option<bool>,
    /// Serves stale after an error if the response does not say how long (RFC 5861 §4).
    /// Default: 1d in `cdn`, 0s in `rfc`.
    #[serde(default)]
    pub stale_if_error: Option<HumanDuration>,
    /// Cap on what a response may allow by `stale-if-error` and `stale-while-revalidate`.
    /// Default 7d.
    #[serde(default)]
    pub stale_max: Option<HumanDuration>,
    /// Share of the time since `Last-Modified` that a response without a stated lifetime stays
    /// fresh (RFC 9111 §4.2.2); 0: no heuristics. Default 0.1.
    #[serde(default)]
    pub heuristic_fraction: Option<Ratio>,
    /// Serves stale where no origin can be reached if the response does not say how long
    /// (RFC 9111 §4.2.4). Default: 1d in `cdn`, 7d in `rfc`.
    #[serde(default)]
    pub stale_if_disconnected: Option<HumanDuration>,
    /// Lets a `stale-while-revalidate` or `stale-if-error` hold beside `s-maxage`, which alone
    /// forbids stale use. Default: yes in `cdn`, no in `rfc`.
    #[serde(default)]
    pub stale_beside_s_maxage: Option<bool>,
    /// Obeys `CDN-Cache-Control` (RFC 9213). Default: yes.
    #[serde(default)]
    pub obey_cdn_cache_control: Option<bool>,
    /// Obeys `Surrogate-Control`. Default: yes in `cdn`, no in `rfc`.
    #[serde(default)]
    pub obey_surrogate_control: Option<bool>,
    /// Stores the answer to a POST for later GETs where it says that it stands for its own target
    /// and for how long (RFC 9110 §9.3.3). Default: no in `cdn`, yes in `rfc`.
    #[serde(default)]
    pub store_post: Option<bool>,
    /// The order of languages of one weight in `Accept-Language` tells requests apart.
    /// Default: yes in `cdn`, no in `rfc`.
    #[serde(default)]
    pub language_order: Option<bool>,
    /// A response that varies by `Accept-Language` also answers who wants its `Content-Language`
    /// above all others. Default: no in `cdn`, yes in `rfc`.
    #[serde(default)]
    pub match_content_language: Option<bool>,
    /// The languages that the site has, the default one first. `Accept-Language` is mapped to the
    /// best of them, for its variants and towards the origin. Default: it is left as it is.
    #[serde(default)]
    pub languages: Vec<Language>,
    /// Lifetimes of responses that state none and have no `Last-Modified`, by status or class of
    /// statuses. Default: 3s for 404 and 410 and 1s for 5xx in `cdn`, none in `rfc`.
    #[serde(default)]
    pub negative: Option<BTreeMap<Statuses, HumanDuration>>,
    /// Protocols that a client may change to over HTTP/1.1 (RFC 9110 §7.8), such as `websocket`.
    /// Default: none; the wish is dropped, and the request goes on as HTTP.
    #[serde(default)]
    pub upgrade: Vec<Protocol>,
    /// Passes interim responses (1xx) on to clients of HTTP/1.1, such as 103 with early hints.
    /// Default: no in `cdn`, yes in `rfc`.
    #[serde(default)]
    pub interim_responses: Option<bool>,
    /// What a client's `Range` makes the edge fetch of what is not stored. Default: `whole` in
    /// `cdn`, `pass` in `rfc`.
    #[serde(default)]
    pub range_fill: Option<RangeFill>,
    /// The size of a slice, where `range_fill` is `slices`. Default 1MiB.
    #[serde(default = "default_slice_size")]
    pub slice_size: ByteSize,
    /// A range that begins further than this beyond what has arrived is fetched by itself, where
    /// `range_fill` is `whole`. Default 4MiB.
    #[serde(default = "default_range_skip")]
    pub range_skip: ByteSize,
    /// Stores what came of a 206 with less content than its `Content-Range` says. Default: no in
    /// `cdn`, yes in `rfc`.
    #[serde(default)]
    pub store_short_parts: Option<bool>,
    /// What is done with stored responses while purges of `max_control_lag` may be unknown.
    #[serde(default)]
    pub control_loss: ControlLoss,
    /// See `control_loss`; default 10s.
    #[serde(default = "default_max_lag")]
    pub max_control_lag: HumanDuration,
    /// Lets `Surrogate-Key`, `Cache-Tag` and `Surrogate-Control` through to clients.
    #[serde(default)]
    pub expose_surrogate_fields: bool,
    /// The query string within the key.
    #[serde(default)]
    pub query: Query,
    /// Responses that are compressed here.
    #[serde(default)]
    pub compression: Compression,
    /// Tells clients by `Cache-Status` what the cache did.
    #[serde(default = "default_cache_status")]
    pub cache_status: bool,
    /// Says the key in `Cache-Status`, too.
    #[serde(default)]
    pub cache_status_key: bool,
    /// What it does otherwise for some requests, `[[site.rule]]`.
    #[serde(default)]
    pub rule: Vec<SiteRule>,
}

fn default_cache_status() -> bool {
    true
}

fn default_shielded() -> bool {
    true
}

impl Site {
    /// The codings that are made of its stored responses, in order of preference.
    pub fn codings(&self) -> &[Coding] {
        match (&self.compression.codings, self.profile) {
            (Some(codings), _) => codings,
            // Users expect it of a CDN; an origin that minds says `no-transform`.
            (None, Profile::Cdn) => &Coding::ALL,
            // A transformation that nobody asked for is not the letter.
            (None, Profile::Rfc) => &[],
        }
    }
}

fn default_slice_size() -> ByteSize {
    ByteSize::mib(1) // a round trip's worth of a fast line; a 10 GB film has 10,000 of them
}
fn default_range_skip() -> ByteSize {
    ByteSize::mib(4) // what a fast origin sends within the time of a second request
}

/// What a client's `Range` makes the edge fetch of what is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RangeFill {
    /// All of it: the client reads its part while it arrives.
    Whole,
    /// Every slice that the part touches, also for clients that want all of it.
    Slices,
    /// That part and no more; parts are stored, and combined where validators allow it.
    Pass,
}

fn default_panic_threshold() -> Ratio {
    Ratio::new(0.5)
}

/// Which defaults a site has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// The careful side where users expect it of a CDN.
    #[default]
    Cdn,
    /// RFC 9111 to the letter, with every switch the standards allow.
    Rfc,
}
