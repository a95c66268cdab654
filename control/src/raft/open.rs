//! Makes the agreement of a replica, from its configuration.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use meridian_config::control::Control;
use meridian_control_wire::secret::Secret;
use openraft::Config;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Fingerprint;
use crate::disk::Folder;
use crate::error::RunError;
use crate::machine::Machine;
use crate::machine::tables::Engine;
use crate::metrics::raft::RaftMetrics;
use crate::order::Bounds;
use crate::peers::Peers;
use crate::raft::engine::{Replication, bearer_of, settings};
use crate::raft::listener::Listener;
use crate::raft::log::{LogWriter, RaftLog};
use crate::raft::network::{Links, Speaker};
use crate::raft::proposer::{Proposer, proposer};
use crate::raft::state::{Raft, StateMachine};
use crate::raft::store::RaftStore;
use crate::watcher::EdgeWatcher;
use crate::world;

/// The folder of snapshots, within `data`.
const SNAPSHOTS: &str = "snapshots";

/// What an agreement is made of.
pub(crate) struct Parts {
    pub(crate) watcher: Arc<dyn EdgeWatcher>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) metrics: Arc<RaftMetrics>,
    pub(crate) secret: Option<Secret>,
    pub(crate) bounds: Bounds,
}

/// Who has to run for an agreement to go on.
#[derive(Debug)]
pub(crate) struct Runners {
    pub(crate) proposer: Proposer,
    pub(crate) writer: LogWriter,
}

/// Makes it. Nothing is said before [`Replication::run`].
pub(crate) async fn open(
    config: &Control,
    parts: Parts,
) -> Result<(Arc<Replication>, Runners), RunError> {
    let Parts { watcher, peers, metrics, secret, bounds } = parts;
    let limits = config.raft.clone();
    let (disk, snapshots) = (Folder(config.data.clone()), config.data.join(SNAPSHOTS));
    let folder = snapshots.clone();
    let (log, writer, machine, state) = world::blocking(move || {
        let (log, writer) = RaftLog::open(&disk, world::random_u64())?;
        let machine = Arc::new(Machine::open(&disk, Engine::Raft, watcher)?);
        let state = StateMachine::open(Arc::clone(&machine), &folder);
        let state = state.map_err(|error| RunError::Agreement(error.to_string()))?;
        Ok::<_, RunError>((log, writer, machine, state))
    })
    .await??;
    let node = log.node();
    metrics.expect(config.replicas.iter().filter(|name| **name != config.name));
    let speaker = Arc::new(Speaker {
        node,
        peers,
        machine: Arc::clone(&machine),
        limits: limits.clone(),
        bearer: secret.as_ref().and_then(|secret| bearer_of(secret.expose())),
        metrics: Arc::clone(&metrics),
    });
    let settings = settings(&limits, config.replicas.len()).validate();
    let settings: Config = settings.map_err(|error| RunError::Agreement(error.to_string()))?;
    let links = Links(Arc::clone(&speaker));
    let raft = Raft::build(node, Arc::new(settings), links, log, state).await;
    let raft = raft.map_err(|error| RunError::Agreement(error.to_string()))?;
    let listener = Arc::new(Listener {
        raft: raft.clone(),
        name: config.name.clone(),
        speaker: Arc::clone(&speaker),
        secret: secret.as_ref().map(|secret| Fingerprint::of(secret.expose())),
        folder: snapshots,
        body_size: body_size(config),
        heard: Mutex::default(),
        receiving: tokio::sync::Mutex::default(),
    });
    let most = usize::try_from(config.journal.max_queue.get()).unwrap_or(usize::MAX);
    let (inbox, proposer) = proposer(raft.clone(), limits.clone(), bounds, most, metrics);
    let store = Arc::new(RaftStore {
        raft: raft.clone(),
        machine,
        speaker: Arc::clone(&speaker),
        listener: Arc::clone(&listener),
        inbox,
        limits,
        recovered: AtomicBool::new(false),
        seen: Mutex::default(),
    });
    let replication = Arc::new(Replication {
        raft,
        speaker,
        listener,
        store,
        replicas: config.replicas.clone(),
        tasks: TaskTracker::new(),
        ending: CancellationToken::new(),
    });
    Ok((replication, Runners { proposer, writer }))
}

/// The longest message: one entry always fits, however it is written.
fn body_size(config: &Control) -> usize {
    let entry = config.raft.batch_size.to_usize() + config.limits.body_size.to_usize();
    config.raft.message_size.to_usize().max(entry).saturating_mul(2)
}
