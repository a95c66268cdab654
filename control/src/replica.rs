//! A control replica: everything checked and bound, then served.
//!
//! One replica for now: it is alone with its ledger and agrees with nobody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian_config::control::Control;
use meridian_control_wire::EdgeState;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::asker::Prefixes;
use crate::auth::Tokens;
use crate::error::RunError;
use crate::ledger::Ledger;
use crate::metrics::ControlMetrics;
use crate::{api, server, world};

/// What the resources of the API share.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) config: Control,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) tokens: Tokens,
    pub(crate) prefixes: Prefixes,
    pub(crate) metrics: ControlMetrics,
    pub(crate) started: Instant,
}

/// A replica that has everything it needs and listens, but does not answer yet.
#[derive(Debug)]
pub struct Bound {
    replica: Arc<Replica>,
    listener: TcpListener,
    address: SocketAddr,
}

/// Checks tokens and prefixes, opens the store, listens. With port 0 any free port is taken.
///
/// # Errors
/// What a person has to change, named.
pub async fn bind(config: Control) -> Result<Bound, RunError> {
    guarded("listen", config.listen, config.token.is_empty())?;
    let prefixes = Prefixes::of(&config.prefix)?;
    let (config, tokens, ledger) = tokio::task::spawn_blocking(move || {
        let tokens = Tokens::read(&config.token)?;
        let ledger = Ledger::open(&config)?;
        Ok::<_, RunError>((config, tokens, ledger))
    })
    .await??;
    let (listener, address) = listen("listen", config.listen)?;
    if config.token.is_empty() {
        tracing::warn!("no [[token]]: no edge can register, nobody can drain a region");
    }
    let metrics = ControlMetrics::new(api::RESOURCES);
    let (ledger, started) = (Arc::new(ledger), world::now());
    let replica = Arc::new(Replica { config, ledger, tokens, prefixes, metrics, started });
    Ok(Bound { replica, listener, address })
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
        let Self { replica, listener, address } = self;
        tracing::info!(name = %replica.config.name, %address, "control replica answers");
        let mut tasks = JoinSet::new();
        let api = Api::new(Arc::clone(&replica));
        let (stopped, limits) = (stop.clone(), replica.config.limits.clone());
        tasks.spawn(async move { server::serve(listener, &limits, api, stopped).await });
        tasks.spawn(watch(replica, stop.clone()));
        joined(tasks, &stop).await
    }
}

/// Joins `tasks`; whoever ends first, by order or by panic, ends the rest.
pub(crate) async fn joined(
    mut tasks: JoinSet<()>,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        stop.cancel();
        outcome = outcome.and(ended.map_err(RunError::Broke));
    }
    outcome
}

/// Binds `address`, that the configuration calls `key`.
pub(crate) fn listen(
    key: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), RunError> {
    let broken = |source| RunError::Listen { key, address, source };
    let listener = world::listen(address).map_err(broken)?;
    let bound = listener.local_addr().map_err(broken)?;
    Ok((listener, bound))
}

/// Refuses an address beyond loopback where there are no tokens.
pub(crate) fn guarded(
    key: &'static str,
    address: SocketAddr,
    tokenless: bool,
) -> Result<(), RunError> {
    if tokenless && !address.ip().to_canonical().is_loopback() {
        return Err(RunError::Unguarded { key, address });
    }
    Ok(())
}

/// Tells the log how edges turn, records it, and strikes edges that stay away.
async fn watch(replica: Arc<Replica>, stop: CancellationToken) {
    const LEAST: Duration = Duration::from_millis(10);
    const MOST: Duration = Duration::from_secs(1);
    // A turn is seen at the latest a quarter of a lapse after it happened; answers about edges do
    // not wait for that, they settle what they tell.
    let period = (replica.config.health.edge_lapse.get() / 4).clamp(LEAST, MOST);
    let mut told: BTreeMap<_, EdgeState> = BTreeMap::new();
    let pause = || stop.run_until_cancelled(tokio::time::sleep(period));
    while pause().await.is_some() {
        for turn in replica.ledger.settle(&mut told) {
            replica.metrics.turned(turn.state);
            let (edge, region) = (turn.edge, turn.region);
            match turn.state {
                EdgeState::Healthy => tracing::info!(%edge, %region, "edge is healthy"),
                EdgeState::Unhealthy => {
                    tracing::warn!(%edge, %region, unheard = ?turn.unheard, "edge is unhealthy");
                }
            }
        }
        match replica.ledger.keep().await {
            Ok(expired) => {
                for edge in expired {
                    tracing::info!(%edge, "edge leaves the register: unheard for edge_expiry");
                }
            }
            Err(refusal) => {
                tracing::warn!(detail = refusal.problem.detail, "cannot record how edges are");
            }
        }
    }
}
