//! A control replica: everything checked and bound, then served.
//!
//! One that is configured alone orders changes itself; several agree, or follow another engine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meridian_config::control::Control;
use meridian_config::control::etcd::CpEngine;
use meridian_config::units::NodeName;
use meridian_control_wire::EdgeState;
use meridian_control_wire::frame::ByeReason;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::asker::Prefixes;
use crate::auth::{Tokens, secret_in};
use crate::context::Context;
use crate::control_store::ControlStore;
use crate::error::RunError;
use crate::feed::Hub;
use crate::ledger::Ledger;
use crate::metrics::ControlMetrics;
use crate::node::{guarded, joined, listen};
use crate::peers::Peers;
use crate::raft::engine::Replication;
use crate::raft::open::{Parts, Runners};
use crate::single::{Single, Writer};
use crate::world::TcpListener;
use crate::{api, raft, server, single, world};

/// A replica that has everything it needs and listens, but does not answer yet.
#[derive(Debug)]
pub struct Bound {
    context: Arc<Context>,
    listener: TcpListener,
    address: SocketAddr,
    engine: Engine,
}

/// Who orders changes.
#[derive(Debug)]
enum Engine {
    Single(Arc<Single>, Writer),
    Agreement(Arc<Replication>, Box<Runners>),
    #[cfg(feature = "etcd")]
    Etcd(Box<crate::etcd::open::Runners>),
}

/// The store of a replica, and who has to run for it.
type Opened = (Arc<dyn ControlStore>, Engine, Option<Arc<Replication>>);

/// Checks tokens and prefixes, opens the store, listens. With port 0 any free port is taken.
///
/// # Errors
/// What a person has to change, named.
pub async fn bind(config: Control) -> Result<Bound, RunError> {
    guarded("listen", config.listen, config.token.is_empty())?;
    let prefixes = Prefixes::of(&config.prefix)?;
    let (config, tokens, ledger, opened, secret) = world::blocking(move || {
        let tokens = Tokens::read(&config.token)?;
        let ledger = Arc::new(Ledger::new(&config));
        let agree = config.cp.engine == CpEngine::Raft;
        let alone = agree && config.replicas.len() <= 1;
        let open = || single::open(&config, Arc::clone(&ledger) as _);
        let store = alone.then(open).transpose()?;
        let secret = config.raft.secret.as_ref().filter(|_| agree && !alone).map(|file| {
            let broken = |why| RunError::Secret { file: file.clone(), why };
            secret_in(file).map_err(broken)
        });
        let secret = secret.transpose()?;
        Ok::<_, RunError>((config, tokens, ledger, store, secret))
    })
    .await??;
    let (listener, address) = listen("listen", config.listen).await?;
    if config.replicas.len() > 1 && config.replicas.len().is_multiple_of(2) {
        tracing::warn!("an even number of replicas bears the loss of no more than one fewer does");
    }
    if config.token.is_empty() {
        tracing::warn!("no [[token]]: no edge can register, nobody can drain a region");
    }
    let metrics = Arc::new(ControlMetrics::new(api::RESOURCES));
    let started = world::now();
    let fresh = config.limits.head_timeout.get() / 2;
    let peers = Arc::new(Peers::new(config.peers.clone(), fresh));
    let (store, engine, raft): Opened = match opened {
        Some((single, writer)) => {
            let single = Arc::new(single);
            (Arc::clone(&single) as _, Engine::Single(single, writer), None)
        }
        None => {
            let bounds = single::bounds(&config);
            let parts = Parts {
                watcher: Arc::clone(&ledger) as _,
                peers: Arc::clone(&peers),
                metrics: Arc::clone(&metrics.raft),
                secret,
                bounds,
            };
            together(&config, parts).await?
        }
    };
    let (name, limits) = (config.name.clone(), config.stream.clone());
    let lease = config.health.lease.get();
    let hub = Hub::new(Arc::clone(&store), name, limits, lease, Arc::clone(&metrics));
    ledger.govern(&hub);
    let context = Arc::new(Context {
        config,
        ledger,
        tokens,
        prefixes,
        store,
        hub,
        metrics,
        peers,
        raft,
        started,
    });
    Ok(Bound { context, listener, address, engine })
}

/// Opens the store of a replica that has others, or might.
async fn together(config: &Control, parts: Parts) -> Result<Opened, RunError> {
    match config.cp.engine {
        CpEngine::Raft => {
            let (replication, runners) = raft::open::open(config, parts).await?;
            let store = Arc::clone(&replication.store);
            let engine = Engine::Agreement(Arc::clone(&replication), Box::new(runners));
            Ok((store as _, engine, Some(replication)))
        }
        #[cfg(feature = "etcd")]
        CpEngine::Etcd => {
            let (store, runners) = crate::etcd::open::open(config, parts.watcher).await?;
            Ok((store as _, Engine::Etcd(Box::new(runners)), None))
        }
        #[cfg(not(feature = "etcd"))]
        CpEngine::Etcd => Err(RunError::NotBuilt { engine: "etcd" }),
    }
}

impl Bound {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is cancelled and everything is drained or cut.
    ///
    /// # Errors
    /// A task of its own that broke.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), RunError> {
        let Self { context, listener, address, engine } = self;
        tracing::info!(name = %context.config.name, %address, "control replica answers");
        let mut tasks = JoinSet::new();
        let api = Api(Arc::clone(&context));
        let (stopped, limits) = (stop.clone(), context.config.limits.clone());
        let hub = Arc::clone(&context.hub);
        let ended = CancellationToken::new();
        let drained = ended.clone();
        let last = match engine {
            Engine::Single(single, writer) => {
                tasks.spawn_blocking(move || writer.run());
                Last::Single(single)
            }
            Engine::Agreement(replication, runners) => {
                let Runners { proposer, writer } = *runners;
                tasks.spawn_blocking(move || writer.run());
                tasks.spawn(Arc::clone(&replication).run(proposer, ended));
                Last::Agreement(replication)
            }
            #[cfg(feature = "etcd")]
            Engine::Etcd(runners) => {
                tasks.spawn(runners.run(ended));
                Last::Etcd
            }
        };
        tasks.spawn(async move {
            server::serve(listener, &limits, api, stopped).await;
            hub.ended().await;
            // Nobody is left who could order anything.
            match last {
                Last::Single(single) => single.end().await,
                Last::Agreement(replication) => {
                    drained.cancel();
                    replication.end().await;
                }
                #[cfg(feature = "etcd")]
                Last::Etcd => drained.cancel(), // its own task ends with what it has in hand
            }
        });
        tasks.spawn(bid_farewell(Arc::clone(&context.hub), stop.clone()));
        tasks.spawn(watch(Arc::clone(&context), stop.clone()));
        joined(tasks, &stop).await
    }
}

/// Whatever orders changes, as it is ended.
enum Last {
    Single(Arc<Single>),
    Agreement(Arc<Replication>),
    #[cfg(feature = "etcd")]
    Etcd,
}

/// Ends the streams when the replica is to end: its listener waits for them.
async fn bid_farewell(hub: Arc<Hub>, stop: CancellationToken) {
    stop.cancelled().await;
    hub.close();
}

/// Tells the log how edges turn, records it, and strikes edges that stay away.
async fn watch(context: Arc<Context>, stop: CancellationToken) {
    const LEAST: Duration = Duration::from_millis(10);
    const MOST: Duration = Duration::from_secs(1);
    // A turn is seen at the latest a quarter of a lapse after it happened; answers about edges do
    // not wait for that, they settle what they tell.
    let period = (context.config.health.edge_lapse.get() / 4).clamp(LEAST, MOST);
    let (mut told, mut leads): (BTreeMap<_, EdgeState>, _) = (BTreeMap::new(), Some(0));
    let forever = async {
        loop {
            tokio::time::sleep(period).await;
            let now = context.store.leads();
            if now.is_none() || now != leads {
                // Edges beat at the leader: who has not led until now has heard of none of them.
                context.ledger.register().unhear(world::now());
                told.clear();
            }
            leads = now;
            if leads.is_some() {
                tell_turns(&context, &mut told);
                keep_record(&context).await;
            }
        }
    };
    // What the ledger began to write is written also when this is dropped.
    stop.run_until_cancelled(forever).await;
}

fn tell_turns(context: &Context, told: &mut BTreeMap<NodeName, EdgeState>) {
    for turn in context.ledger.settle(told) {
        context.metrics.turned(turn.state);
        let (edge, region) = (turn.edge, turn.region);
        match turn.state {
            EdgeState::Healthy => tracing::info!(%edge, %region, "edge is healthy"),
            EdgeState::Unhealthy => {
                tracing::warn!(%edge, %region, unheard = ?turn.unheard, "edge is unhealthy");
            }
        }
    }
}

async fn keep_record(context: &Context) {
    match context.ledger.keep(&*context.store).await {
        Ok(expired) => {
            for edge in expired {
                context.hub.forget(edge.as_str(), ByeReason::Unregistered);
                tracing::info!(%edge, "edge leaves the register: unheard for edge_expiry");
            }
        }
        Err(denied) => {
            tracing::warn!(%denied, "cannot record how edges are");
        }
    }
}
