//! Start and end of a replica that follows etcd.

use std::sync::Arc;

use meridian_config::control::Control;
use meridian_control_wire::secret::Secret;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::secret_in;
use crate::disk::Folder;
use crate::error::RunError;
use crate::etcd::driver::Driver;
use crate::etcd::hearing::Candidate;
use crate::etcd::history::History;
use crate::etcd::inbox::inbox;
use crate::etcd::log::Log;
use crate::etcd::place::At;
use crate::etcd::shared::Shared;
use crate::etcd::store::EtcdStore;
use crate::machine::Machine;
use crate::machine::tables::Engine;
use crate::watcher::EdgeWatcher;
use crate::{single, world};

/// The folder of snapshots on their way, within `data`.
const SNAPSHOTS: &str = "snapshots";

/// Who has to run for this replica to follow.
#[derive(Debug)]
pub(crate) struct Runners {
    driver: Driver,
    candidate: Candidate,
}

/// Opens the store. Nothing is said to etcd before [`Runners::run`].
pub(crate) async fn open(
    config: &Control,
    watcher: Arc<dyn EdgeWatcher>,
) -> Result<(Arc<EtcdStore>, Runners), RunError> {
    let (limits, folder) = (config.etcd.clone(), config.data.clone());
    let password = limits.password.clone();
    let opened = world::blocking(move || {
        let password = password.map(|file| {
            let broken = |why| RunError::Password { file: file.clone(), why };
            secret_in(&file).map_err(broken)
        });
        let password: Option<Secret> = password.transpose()?;
        let machine = Machine::open(&Folder(folder), Engine::Etcd, watcher)?;
        let at = At::noted(&machine)?;
        Ok::<_, RunError>((password, Arc::new(machine), at))
    });
    let (password, machine, at) = opened.await??;
    let log = Arc::new(Log::new(&limits, limits.user.clone().zip(password)));
    let shared = Arc::new(Shared::new(at.index));
    let most = usize::try_from(config.journal.max_queue.get()).unwrap_or(usize::MAX);
    let patience = limits.quorum_timeout.get();
    let (inbox, outlet) = inbox(most, limits.request_size.to_usize(), patience);
    let history = History {
        log: Arc::clone(&log),
        machine: Arc::clone(&machine),
        shared: Arc::clone(&shared),
        folder: config.data.join(SNAPSHOTS),
        at,
        base: None,
        bytes: 0,
        synced: at.index,
    };
    let driver = Driver {
        name: config.name.clone(),
        history,
        outlet,
        limits: limits.clone(),
        bounds: single::bounds(config),
        begun: None,
        confirmed: None,
        making: JoinSet::new(),
        rest_until: None,
    };
    let candidate = Candidate {
        log: Arc::clone(&log),
        shared: Arc::clone(&shared),
        name: config.name.clone(),
        lease: limits.lease.get(),
    };
    let store = EtcdStore {
        name: config.name.clone(),
        replicas: config.replicas.clone(),
        log,
        machine,
        shared,
        inbox,
        limits,
    };
    Ok((Arc::new(store), Runners { driver, candidate }))
}

impl Runners {
    /// Follows etcd until `stop`; when it returns, what was applied is on disk.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.driver.run(stop.clone()));
        tasks.spawn(self.candidate.run(stop));
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of this engine broke");
            }
        }
    }
}
