//! A control replica: everything checked and bound, then served.
//!
//! One replica for now: it is alone with its ledger and agrees with nobody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meridian_config::control::Control;
use meridian_config::units::NodeName;
use meridian_control_wire::EdgeState;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::asker::Prefixes;
use crate::auth::Tokens;
use crate::context::Context;
use crate::error::RunError;
use crate::ledger::Ledger;
use crate::metrics::ControlMetrics;
use crate::node::{guarded, joined, listen};
use crate::{api, server, world};

/// A replica that has everything it needs and listens, but does not answer yet.
#[derive(Debug)]
pub struct Bound {
    context: Arc<Context>,
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
    let context = Arc::new(Context { config, ledger, tokens, prefixes, metrics, started });
    Ok(Bound { context, listener, address })
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
        let Self { context, listener, address } = self;
        tracing::info!(name = %context.config.name, %address, "control replica answers");
        let mut tasks = JoinSet::new();
        let api = Api(Arc::clone(&context));
        let (stopped, limits) = (stop.clone(), context.config.limits.clone());
        tasks.spawn(async move { server::serve(listener, &limits, api, stopped).await });
        tasks.spawn(watch(Arc::clone(&context), stop.clone()));
        let outcome = joined(tasks, &stop).await;
        let patience = context.config.limits.drain_timeout.get();
        if tokio::time::timeout(patience, context.ledger.end()).await.is_err() {
            tracing::warn!("the disk does not answer: leaving without it");
        }
        outcome
    }
}

/// Tells the log how edges turn, records it, and strikes edges that stay away.
async fn watch(context: Arc<Context>, stop: CancellationToken) {
    const LEAST: Duration = Duration::from_millis(10);
    const MOST: Duration = Duration::from_secs(1);
    // A turn is seen at the latest a quarter of a lapse after it happened; answers about edges do
    // not wait for that, they settle what they tell.
    let period = (context.config.health.edge_lapse.get() / 4).clamp(LEAST, MOST);
    let mut told: BTreeMap<_, EdgeState> = BTreeMap::new();
    let forever = async {
        loop {
            tokio::time::sleep(period).await;
            tell_turns(&context, &mut told);
            keep_record(&context).await;
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
    match context.ledger.keep().await {
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
