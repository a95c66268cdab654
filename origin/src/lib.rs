//! The origin: the source of truth that edges ask, or a stand-in for one.
//!
//! - [`bind`], [`run`]: start, stop; [`error`]: why not
//! - `accept`: listeners, permits, protocols, drain; `connection`: what one is doing, and its end
//! - `serve`: one request, and the faults that it meets; `target`: what it asks for; `faults`:
//!   delay, 5xx, cut; `account`, `counts`, `metrics`: who counts it
//! - `content`: what is served; `folder`, `trace`, `sample`: the three kinds of it; `version`: of a
//!   file; [`synthetic`]: the bytes of a trace's objects; `representation`: what is found;
//!   `listing`: all of it
//! - `answer`: how much of it, under which conditions; `caching`: with which header fields;
//!   `body`: piece by piece; `problem`: errors; `hex`: digits
//! - `orders`: an order book with idempotent writes; `received`: the bodies of requests
//! - `admin`: the other listener; `tokens`: who may change something there
//!
//! Absent on purpose: whatever edges do. Their names come in with `Via` and are only counted.
//! Releases and precompressed variants are not offered yet.

mod accept;
mod connection;

mod serve;

mod account;
mod counts;
mod faults;
mod metrics;
mod target;

mod content;
mod listing;

mod folder;
mod sample;
mod trace;

mod representation;
pub mod synthetic;
mod version;

mod answer;
mod body;
mod caching;
mod hex;
mod problem;

mod orders;
mod received;

mod admin;
mod tokens;

pub mod error;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use meridian_config::origin::{self, Limits};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::accept::{Acceptor, listen};
use crate::admin::Admin;
use crate::caching::Caching;
use crate::content::Content;
use crate::counts::Counts;
use crate::error::RunError;
use crate::faults::Faults;
use crate::folder::Folder;
use crate::metrics::Metrics;
use crate::orders::Orders;
use crate::sample::Sample;
use crate::serve::Site;
use crate::tokens::Tokens;
use crate::trace::Trace;

/// Runs an origin until `stop`, and drains it.
///
/// # Errors
/// Whatever is wrong with what the configuration names, before anything answers; or a defect of
/// this program.
pub async fn run(config: origin::Origin, stop: CancellationToken) -> Result<(), RunError> {
    bind(config).await?.serve(stop).await
}

/// Checks everything and opens both listeners: from here on connections wait to be served.
///
/// # Errors
/// Whatever is wrong with what the configuration names.
pub async fn bind(config: origin::Origin) -> Result<Origin, RunError> {
    bind_with(config, StdRng::from_rng(&mut rand::rng())).await
}

/// [`bind`] with the randomness that decides which share of requests meets a fault.
///
/// # Errors
/// As [`bind`].
pub async fn bind_with(
    config: origin::Origin,
    rng: impl Rng + Send + 'static,
) -> Result<Origin, RunError> {
    // The task ends with its blocking work; its panic is ours.
    let prepared = spawn_blocking(move || Prepared::new(config, Box::new(rng))).await??;
    let data = listen("listen", prepared.config.listen)?;
    let admin = listen("admin", prepared.config.admin)?;
    let told = |key, address, listener: &TcpListener| {
        listener.local_addr().map_err(|source: io::Error| RunError::Listen { key, address, source })
    };
    let addresses = Addresses {
        data: told("listen", prepared.config.listen, &data)?,
        admin: told("admin", prepared.config.admin, &admin)?,
    };
    Ok(Origin { prepared, data, admin, addresses })
}

/// Where an origin listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For edges.
    pub data: SocketAddr,
    /// For faults, counts, metrics and health.
    pub admin: SocketAddr,
}

/// An origin that listens and does not answer yet.
#[derive(Debug)]
pub struct Origin {
    prepared: Prepared,
    data: TcpListener,
    admin: TcpListener,
    addresses: Addresses,
}

impl Origin {
    /// Where it listens: with port 0 configured, the ports that it got.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Answers until `stop`, and drains: first the data listener, then the admin listener, which
    /// tells meanwhile that the origin is stopping.
    ///
    /// # Errors
    /// A defect of this program.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), RunError> {
        let Prepared { config, content, caching, orders, tokens, metrics, rng } = self.prepared;
        let limits = &config.limits;
        let site = Arc::new(site(&config, content, caching, orders, &metrics, rng, stop.clone()));
        let admin = Admin {
            site: Arc::clone(&site),
            tokens,
            address: self.addresses.admin,
            max_faults: count(limits.max_faults.get()),
            body_size: limits.body_size,
            body_timeout: limits.head_timeout,
        };
        let stop_admin = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let data = acceptor(self.data, site, limits, &metrics);
        let data_ends = stop_admin.clone().drop_guard();
        tasks.spawn(async move {
            data.accept(stop).await;
            drop(data_ends); // also if it panics
        });
        tasks.spawn(acceptor(self.admin, Arc::new(admin), limits, &metrics).accept(stop_admin));
        tracing::info!(
            name = %config.name,
            listen = %self.addresses.data,
            admin = %self.addresses.admin,
            "the origin serves"
        );
        let mut outcome = Ok(());
        while let Some(ended) = tasks.join_next().await {
            outcome = outcome.and(ended.map_err(RunError::Panicked));
        }
        outcome
    }
}

fn acceptor<S>(
    listener: TcpListener,
    service: Arc<S>,
    limits: &Limits,
    metrics: &Arc<Metrics>,
) -> Acceptor<S> {
    Acceptor { listener, service, limits: limits.clone(), metrics: Arc::clone(metrics) }
}

/// What can be checked and read before anything is opened to the network.
struct Prepared {
    config: origin::Origin,
    content: Content,
    caching: Caching,
    orders: Option<Orders>,
    tokens: Tokens,
    metrics: Arc<Metrics>,
    rng: Box<dyn Rng + Send>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Prepared {
    /// Blocks.
    fn new(config: origin::Origin, rng: Box<dyn Rng + Send>) -> Result<Self, RunError> {
        let tokens = Tokens::read(&config.token)?;
        if !config.admin.ip().to_canonical().is_loopback() && config.token.is_empty() {
            return Err(RunError::Unguarded(config.admin));
        }
        let metrics = Arc::new(Metrics::new());
        let content = content(&config, &metrics)?;
        let unless_told = match &content {
            Content::Trace(_) => trace::CACHE_CONTROL,
            Content::Folder(_) | Content::Sample(_) => caching::UNLESS_TOLD,
        };
        let caching = Caching::new(&config.rule, unless_told)?;
        let orders = orders(&config, &metrics)?;
        Ok(Self { config, content, caching, orders, tokens, metrics, rng })
    }
}

fn content(config: &origin::Origin, metrics: &Arc<Metrics>) -> Result<Content, RunError> {
    let origin::Content { folder, trace, sample, default_size } = &config.content;
    match (folder, trace, sample) {
        (Some(path), None, false) => {
            let most = count(config.limits.max_hashed_files.get());
            Folder::open(path, most, Arc::clone(metrics)).map(Content::Folder)
        }
        (None, Some(path), false) => {
            let trace = Trace::read(path, *default_size)?;
            tracing::info!(objects = trace.len(), "the trace is read");
            Ok(Content::Trace(trace))
        }
        (None, None, true) => Ok(Content::Sample(Sample::new())),
        _ => Err(RunError::Content),
    }
}

fn orders(config: &origin::Origin, metrics: &Arc<Metrics>) -> Result<Option<Orders>, RunError> {
    let Some(path) = &config.orders.file else { return Ok(None) };
    let open = Orders::open(path, &config.orders, &config.limits, metrics);
    open.map(Some).map_err(|source| RunError::Orders { path: path.clone(), source })
}

fn site(
    config: &origin::Origin,
    content: Content,
    caching: Caching,
    orders: Option<Orders>,
    metrics: &Arc<Metrics>,
    rng: Box<dyn Rng + Send>,
    stop: CancellationToken,
) -> Site {
    let limits = &config.limits;
    Site {
        content,
        caching,
        orders,
        counts: Arc::new(Counts::new(
            count(limits.max_counted_paths.get()),
            count(limits.max_counted_edges.get()),
        )),
        faults: Arc::new(Faults::none(rng)),
        held: Semaphore::new(count(limits.max_held.get())),
        max_ranges: count(limits.max_ranges.get()),
        access_log: config.log.access,
        metrics: Arc::clone(metrics),
        stop,
    }
}

/// A count of the configuration as one in memory.
fn count(configured: u32) -> usize {
    usize::try_from(configured).unwrap_or(usize::MAX)
}
