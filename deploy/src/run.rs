//! One node in the foreground: start, signals, drain.
//!
//! # Invariants
//! - Whatever a role does, the process ends: a bounded time after the order to stop, or at once
//!   at a second order.

use std::error::Error;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::process;
use std::thread;
use std::time::Duration;

use meridian_config::control::{Control, Front};
use meridian_config::edge::Edge;
use meridian_config::load::load;
use meridian_config::origin::Origin;
use meridian_config::role::Role;
use meridian_config::shared::Log;
use meridian_config::units::NodeName;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cli::NodeArgs;
use crate::error::CommandError;
use crate::telemetry;

/// Threads of a role's runtime; an edge serves on threads of its own beside them.
const WORKERS: usize = 2;

/// After `drain_timeout`, a role has this long to put away what it holds.
const GRACE: Duration = Duration::from_secs(3);

/// Tasks that block (files, names) get this long when all else is done.
const BLOCKING_GRACE: Duration = Duration::from_millis(500);

/// What every role's configuration says about its process.
pub(crate) trait Node: Role {
    /// Its name.
    fn name(&self) -> &NodeName;
    /// Where it listens.
    fn listen(&self) -> SocketAddr;
    /// Its log.
    fn log(&self) -> &Log;
    /// From the order to stop until what is in flight is cut.
    fn drain_timeout(&self) -> Duration;
}

macro_rules! node {
    ($role:ty, $limits:ident) => {
        impl Node for $role {
            fn name(&self) -> &NodeName {
                &self.name
            }
            fn listen(&self) -> SocketAddr {
                self.listen
            }
            fn log(&self) -> &Log {
                &self.log
            }
            fn drain_timeout(&self) -> Duration {
                self.$limits.drain_timeout.get()
            }
        }
    };
}

node!(Edge, accept);
node!(Origin, limits);
node!(Control, limits);
node!(Front, limits);

/// Runs the node that `args` configures, by the `run` of its role, until it is told to stop.
pub(crate) fn node<C, F, E>(
    args: &NodeArgs,
    run: impl FnOnce(C, CancellationToken) -> F,
) -> Result<(), CommandError>
where
    C: Node,
    F: Future<Output = Result<(), E>>,
    E: Error + Send + Sync + 'static,
{
    let config: C = load(&args.config)?;
    telemetry::init(config.log());
    let name = config.name().to_string();
    let limit = config.drain_timeout() + GRACE;
    tracing::info!(role = C::NAME, node = name, listen = %config.listen(), "starting");

    let stop = CancellationToken::new();
    if args.supervised {
        let stop = stop.clone();
        follow_stdin(move || stop.cancel());
    }
    let runtime = runtime(WORKERS)?;
    let outcome = runtime.block_on(async {
        let signals = Signals::new()?;
        let running = run(config, stop.clone());
        tokio::select! { // dropping the other two loses nothing that is still wanted
            outcome = running => {
                outcome.map_err(|source| CommandError::Node { node: name, source: source.into() })
            }
            () = overdue(&stop, limit) => {
                Err(CommandError::Overdue { node: name, seconds: limit.as_secs() })
            }
            () = obey(signals, &stop) => process::exit(1), // told twice: at once
        }
    });
    runtime.shutdown_timeout(BLOCKING_GRACE);
    if outcome.is_ok() {
        tracing::info!("drained");
    }
    outcome
}

/// A runtime with `workers` threads.
pub(crate) fn runtime(workers: usize) -> Result<Runtime, CommandError> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(|source| CommandError::System { what: "start a runtime", source })
}

/// Resolves when the role has had its time to stop, and more.
async fn overdue(stop: &CancellationToken, limit: Duration) {
    stop.cancelled().await;
    sleep(limit).await;
}

/// Passes the first signal on as the order to stop; resolves at the second.
async fn obey(mut signals: Signals, stop: &CancellationToken) {
    let first = signals.next().await;
    tracing::info!(signal = first, "told to stop: draining");
    stop.cancel();
    signals.next().await;
}

/// Calls `end` when standard input ends, which is when the process at its other end is gone or says
/// so. A thread of its own, because a read of standard input cannot be cancelled.
pub(crate) fn follow_stdin(end: impl FnOnce() + Send + 'static) {
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut bytes = [0; 64];
        loop {
            match input.read(&mut bytes) {
                Ok(1..) => {} // nobody has anything to say here
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        end();
    });
}

/// The signals that tell a process to stop.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// From now on these signals no longer end the process by themselves.
    pub(crate) fn new() -> Result<Self, CommandError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|source| CommandError::System { what: "listen to signals", source })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The name of the next signal. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}
