//! An edge from its configuration to its end: build everything, open the listeners, serve, drain.

use std::io;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use meridian_config::edge::{Edge as EdgeConfig, Follow};
use meridian_config::shared::Location;
use meridian_control_wire::Registration;
use meridian_control_wire::base_url::BaseUrl;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::info;

use crate::accept::{Listener, listen};
use crate::admin::Admin;
use crate::body_memory::BodyMemory;
use crate::clock::{SharedClock, SystemClock};
use crate::collapse::Collapse;
use crate::compress::{Compressor, step_back};
use crate::connection::Load;
use crate::control_lag::ControlLag;
use crate::core::{Core, Edge};
use crate::counters::EdgeCounters;
use crate::cursors::Cursors;
use crate::epochs::{Epochs, Limits};
use crate::error::RunError;
use crate::flow::InFlight;
use crate::hops::{OwnLoop, Via};
use crate::line::Replica;
use crate::metrics;
use crate::nodes::Nodes;
use crate::not_stored::NotStored;
use crate::purge::Purges;
use crate::register::Registrar;
use crate::route;
use crate::serve::Clients;
use crate::shields::Shields;
use crate::sites::SiteBook;
use crate::staleness::Staleness;
use crate::store::Store;
use crate::stream::Stream;
use crate::sweep::Sweeper;
use crate::tokens::Tokens;
use crate::tunnel::Tunnels;
use crate::upkeep::upkeep;
use crate::upstream::Upstream;
use crate::world::{self, Taken};

/// Connections of operators at once.
const MAX_ADMIN: usize = 256;

/// Locks of the table of purges: purges and checks of the hit path rarely meet at one.
const EPOCH_SHARDS: usize = 256;

/// Where an edge listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For clients.
    pub listen: SocketAddr,
    /// For operators.
    pub admin: SocketAddr,
}

/// An edge with its listeners open, that serves nobody yet.
pub struct Bound {
    edge: Arc<Edge>,
    fronts: Vec<Taken>,
    admin: Taken,
    tokens: Arc<Tokens>,
    addresses: Addresses,
    registrar: Option<Registrar>,
    silence: Duration,
    sweep_pause: Duration,
    /// Threads that compress.
    compressors: u16,
}

/// Runs an edge until `stop`, and drains it.
///
/// # Errors
/// When something of its configuration is of no use, an address cannot be bound, or a thread of
/// it ends by a panic.
pub async fn run(config: EdgeConfig, stop: CancellationToken) -> Result<(), RunError> {
    bind(&config)?.serve(stop).await
}

/// Checks and builds everything and opens the listeners. Port 0 takes a free one.
///
/// # Errors
/// As [`run`].
pub fn bind(config: &EdgeConfig) -> Result<Bound, RunError> {
    let clock: SharedClock = Arc::new(SystemClock);
    let cores = config.cores.map_or_else(
        || thread::available_parallelism().map_or(1, NonZeroUsize::get),
        |cores| usize::from(cores.get()),
    );
    let first = listen(config.listen)?;
    let of = |socket: &Taken, address| {
        socket.address().map_err(|source| RunError::Listen { address, source })
    };
    let at = of(&first, config.listen)?;
    let lag = Arc::new(ControlLag::new(clock.now().mono));
    let book = SiteBook::open(config, cores, &lag);
    let tokens = Arc::new(Tokens::read(&config.token)?);
    let edge = build(config, &book, at, cores, (clock, lag))?;
    let mut fronts = vec![first];
    for _ in 1..cores {
        fronts.push(listen(at)?);
    }
    let admin = listen(config.admin)?;
    let addresses = Addresses { listen: at, admin: of(&admin, config.admin)? };
    let registrar = match &config.control {
        Some(follow) => {
            let (pause, patience) = (follow.ack_pause.get(), follow.patience.get());
            let stream = Stream::new(Arc::clone(&edge), book, pause, patience);
            Some(registrar(config, follow, &edge, stream, addresses)?)
        }
        None => None,
    };
    let longest = |upstream: &Arc<Upstream>| upstream.limits.total + upstream.limits.between_bytes;
    let upstream = edge.upstreams.iter().map(longest).max().unwrap_or_default();
    let silence = config.accept.send_timeout.get() + upstream;
    let sweep_pause = config.purge.sweep_pause.get();
    let compressors = config.compression.workers.get();
    Ok(Bound {
        edge,
        fronts,
        admin,
        tokens,
        addresses,
        registrar,
        silence,
        sweep_pause,
        compressors,
    })
}

fn build(
    config: &EdgeConfig,
    book: &SiteBook,
    listen: SocketAddr,
    cores: usize,
    (clock, lag): (SharedClock, Arc<ControlLag>),
) -> Result<Arc<Edge>, RunError> {
    let shield = config.shield.as_ref();
    let shields = shield.map(|shield| shield.nodes.as_slice()).unwrap_or_default();
    let upstreams = config
        .origin
        .iter()
        .map(|origin| Upstream::new(origin, &config.peers, shields, cores, &clock))
        .collect::<Result<Vec<_>, _>>()?;
    let sites = book.first(&upstreams)?;
    let at_most = |n: NonZeroU32| usize::try_from(n.get()).unwrap_or(usize::MAX);
    let most = at_most(config.purge.max_selectors);
    let max_operations = at_most(config.purge.max_operations);
    let max_background = at_most(config.cache.max_background);
    let epochs = Epochs::new(Limits { selectors: most, shards: EPOCH_SHARDS }, rand::random());
    let began = clock.now().mono;
    let name = config.name.to_string();
    let bad_name = |_| RunError::Config {
        key: "name".to_owned(),
        value: config.name.to_string(),
        rule: "must fit into a header field",
    };
    Ok(Arc::new(Edge {
        via: Via::new(&name).map_err(bad_name)?,
        own_loop: OwnLoop::new(&name, rand::random()),
        name,
        clock,
        authorities: authorities(config, listen),
        sites: ArcSwap::from_pointee(sites),
        shields: Shields::of(&upstreams),
        nodes: shield.map(|shield| Nodes::new(config.name.as_str(), shield)).transpose()?,
        cursors: Cursors::new(shield.map_or(1, |shield| at_most(shield.max_cursors))),
        upstreams,
        store: Store::new(&config.cache, Arc::clone(&epochs)),
        collapse: Collapse::new(Arc::clone(&epochs)),
        purges: Purges::new(Arc::clone(&epochs), max_operations),
        epochs,
        not_stored: NotStored::default(),
        in_flight: InFlight::new(config.cache.in_flight.get()),
        body_memory: BodyMemory::new(config.accept.body_memory.get()),
        background: Arc::new(Semaphore::new(max_background)),
        tunnels: Tunnels::new(
            config.accept.max_tunnels.get(),
            config.accept.tunnel_idle_timeout.get(),
        ),
        compressor: Compressor::new(&config.compression),
        cache: config.cache.clone(),
        accept: config.accept.clone(),
        counters: EdgeCounters::default(),
        staleness: Mutex::new(Staleness::new(Arc::clone(&lag))),
        lag,
        began,
        follows: config.control.is_some(),
        access_log: config.log.access,
        runtimes: Arc::default(),
        loads: (0..cores).map(|_| Arc::default()).collect(),
    }))
}

/// Where clients reach the edge: where it listens, and by its public URL.
fn authorities(config: &EdgeConfig, listen: SocketAddr) -> Vec<String> {
    let public = config.public_url.as_deref().and_then(|url| url.split_once("://"));
    let public = public.map(|(_scheme, rest)| route::folded(rest.trim_end_matches('/')));
    let local = listen.ip().is_loopback().then(|| format!("localhost:{}", listen.port()));
    let local = local.map(|local| route::folded(&local));
    [Some(route::folded(&listen.to_string())), local, public].into_iter().flatten().collect()
}

fn registrar(
    config: &EdgeConfig,
    follow: &Follow,
    edge: &Arc<Edge>,
    stream: Stream,
    addresses: Addresses,
) -> Result<Registrar, RunError> {
    let violates =
        |key: &str, value: String, rule| RunError::Config { key: key.to_owned(), value, rule };
    let url = |key: &str, configured: &Option<String>, address: SocketAddr| {
        let url = configured.clone().unwrap_or_else(|| format!("http://{address}"));
        url.parse::<BaseUrl>()
            .map_err(|_rule| violates(key, url, "must be scheme://host, without a path"))
    };
    let replicas = follow.replicas.iter().map(|name| {
        let address = config.peers.get(name).ok_or_else(|| {
            violates("control.replicas", name.to_string(), "must stand in [peers]")
        })?;
        Ok(Replica { name: name.to_string(), address: address.to_string() })
    });
    let registration = Registration {
        name: config.name.clone(),
        region: config.region.clone(),
        city: config.stands_in().unwrap_or_default().to_owned(),
        location: config.stands_at().unwrap_or(Location(0.0, 0.0)),
        url: url("public_url", &config.public_url, addresses.listen)?,
        admin: url("admin_url", &config.admin_url, addresses.admin)?,
    };
    let replicas = replicas.collect::<Result<_, _>>()?;
    let edge = Arc::clone(edge);
    Registrar::new(edge, stream, &registration, replicas, &follow.token_file, follow.beat.get())
}

impl Bound {
    /// Where it listens.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `stop`, and drains.
    ///
    /// # Errors
    /// When a thread or task of the edge ends by a panic, or a thread cannot be started.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), RunError> {
        let edge = self.edge;
        let limits = edge.accept.clone();
        let most = usize::try_from(limits.max_connections.get()).unwrap_or(usize::MAX);
        let permits = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        info!(listen = %self.addresses.listen, admin = %self.addresses.admin, "listening");

        let mut tasks = JoinSet::new();
        let serving = TaskTracker::new();
        serving.close();
        for (index, socket) in self.fronts.into_iter().enumerate() {
            let load = edge.loads.get(index).map_or_else(Arc::<Load>::default, Arc::clone);
            let core = Core { edge: Arc::clone(&edge), index, tasks: TaskTracker::new() };
            let listener = Listener {
                limits: limits.clone(),
                permits: Arc::clone(&permits),
                silence: self.silence,
                clock: Arc::clone(&edge.clock),
                load,
                handler: Clients(Arc::new(core)),
            };
            let drain = Drain { stop: stop.clone(), here: serving.token(), all: serving.clone() };
            let name = format!("edge-{index}");
            let ended = start(name.clone(), listener, socket, drain)?;
            tasks.spawn(async move {
                let gone = |_| RunError::Panicked("a serving thread".into());
                ended.await.map_err(gone)?.map_err(|source| RunError::Thread { name, source })
            });
        }
        compress(&edge, self.compressors, &stop, &mut tasks)?;
        let admin = Listener {
            limits,
            permits: Arc::new(Semaphore::new(MAX_ADMIN)),
            silence: self.silence,
            clock: Arc::clone(&edge.clock),
            load: Arc::default(),
            handler: Admin {
                registry: Arc::new(metrics::registry(Arc::clone(&edge))),
                edge: Arc::clone(&edge),
                stop: stop.clone(),
                tokens: self.tokens,
                address: self.addresses.admin,
            },
        };
        let (socket, address) = (self.admin, self.addresses.admin);
        // The admin listener outlives the others, so that a drain can be watched.
        let served = stop.child_token();
        let drained = CancellationToken::new();
        let admin_stop = drained.clone();
        let mut admin_task = JoinSet::new();
        admin_task.spawn(async move {
            admin
                .run(socket, admin_stop)
                .await
                .map_err(|source| RunError::Listen { address, source })
        });
        if let Some(registrar) = self.registrar {
            let stop = served.clone();
            tasks.spawn(async move {
                registrar.run(stop).await;
                Ok(())
            });
        }
        tasks.spawn(upkeep(Arc::clone(&edge), served.clone()));
        let (sweeper, pause) = (Sweeper(edge), self.sweep_pause);
        tasks.spawn(async move { sweeper.run(pause, served).await });
        let outcome = join(&mut tasks, &stop).await;
        drained.cancel();
        outcome.and(join(&mut admin_task, &stop).await)
    }
}

/// Starts the threads that compress, until `stop`.
fn compress(
    edge: &Arc<Edge>,
    threads: u16,
    stop: &CancellationToken,
    tasks: &mut JoinSet<Result<(), RunError>>,
) -> Result<(), RunError> {
    // A simulation has one thread, and nobody to compress for.
    let threads = if cfg!(simulation) { 0 } else { threads };
    for index in 0..threads {
        let (tell, ended) = oneshot::channel();
        let (edge, name) = (Arc::clone(edge), format!("compress-{index}"));
        let work = move || {
            step_back();
            edge.compressor.work(&edge.store);
            // Nobody listens any more only if the edge is gone.
            let _told = tell.send(());
        };
        let spawned = thread::Builder::new().name(name.clone()).spawn(work);
        spawned.map_err(|source| RunError::Thread { name, source })?;
        tasks.spawn(async move {
            ended.await.map_err(|_gone| RunError::Panicked("a compressing thread".into()))
        });
    }
    let (edge, stop) = (Arc::clone(edge), stop.clone());
    tasks.spawn(async move {
        stop.cancelled().await;
        edge.compressor.close();
        Ok(())
    });
    Ok(())
}

/// Waits for all; whichever ends first, by order, error or panic, ends the rest.
async fn join(
    tasks: &mut JoinSet<Result<(), RunError>>,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        stop.cancel();
        let ended = ended.map_err(|error| RunError::Panicked(error.to_string()));
        outcome = outcome.and(ended.flatten());
    }
    outcome
}

/// How the cores end together.
struct Drain {
    stop: CancellationToken,
    /// Held while this core serves clients.
    here: TaskTrackerToken,
    /// The tokens of all cores.
    all: TaskTracker,
}

/// One core: a thread with a runtime of its own.
fn start(
    name: String,
    listener: Listener<Clients>,
    socket: Taken,
    drain: Drain,
) -> Result<oneshot::Receiver<io::Result<()>>, RunError> {
    let core = Arc::clone(&listener.handler.0);
    let work = async move {
        core.edge.runtimes.add(&Handle::current());
        let Drain { stop, here, all } = drain;
        listener.run(socket, stop).await?;
        core.tasks.close();
        // Fetches are shared: one that began here may have readers on a core that still drains.
        drop(here);
        all.wait().await;
        Ok(()) // what still runs is background work that no client waits for
    };
    world::start(name.clone(), work).map_err(|source| RunError::Thread { name, source })
}
