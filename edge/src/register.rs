//! The edge in the register of the control plane: it introduces itself, then beats.
//!
//! One replica at a time, by name; the next when one fails. Nothing of serving waits for this:
//! with the control plane gone the edge goes on with what it knows, and says so in its metrics.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use meridian_control_wire::operation::Pong;
use meridian_control_wire::secret::Secret;
use meridian_control_wire::{Ping, Registered, Registration};
use rand::RngExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::core::Edge;
use crate::error::RunError;
use crate::line::{CallError, Line, Replica, bearer, lossy};
use crate::stream::{Access, Stream};

/// The first wait after every replica has failed once; it doubles up to the greatest.
const FIRST_WAIT: Duration = Duration::from_millis(25);
/// The greatest.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What it takes to be in the register.
pub(crate) struct Registrar {
    edge: Arc<Edge>,
    registration: Bytes,
    replicas: Vec<Replica>,
    token: HeaderValue,
    beat: Duration,
    stream: Stream,
}

/// Reads the one line of a token file.
///
/// # Errors
/// When it cannot be read, or is no secret.
fn token(path: &Path) -> Result<HeaderValue, RunError> {
    let refuse = |reason: String| RunError::Token { path: PathBuf::from(path), reason };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let secret = Secret::new(text.trim().to_owned()).map_err(&refuse)?;
    bearer(&secret).map_err(|error| refuse(error.to_string()))
}

impl Registrar {
    /// # Errors
    /// When the token file is of no use.
    pub(crate) fn new(
        edge: Arc<Edge>,
        stream: Stream,
        registration: &Registration,
        replicas: Vec<Replica>,
        token_file: &Path,
        beat: Duration,
    ) -> Result<Self, RunError> {
        let registration = serde_json::to_vec(registration).unwrap_or_default().into();
        Ok(Self { edge, registration, replicas, token: token(token_file)?, beat, stream })
    }

    /// Registers and beats until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    /// Goes from replica to replica for ever. Safe to drop at any point.
    async fn follow(&self) {
        let mut wait = FIRST_WAIT;
        let mut told = false;
        for replica in self.replicas.iter().cycle() {
            let mut heard = false;
            let Err(error) = self.stay_with(replica, &mut heard).await;
            self.edge.counters.control_reachable.store(0, Ordering::Relaxed);
            if heard {
                warn!(target: "event", replica = replica.name, %error, "lost the control plane");
                (wait, told) = (FIRST_WAIT, true);
            } else if !told && wait >= LAST_WAIT {
                warn!(target: "event", replica = replica.name, %error, "no control plane yet");
                told = true;
            }
            // Full jitter: edges that lost one replica together do not come to the next together.
            let pause = rand::rng().random_range(Duration::ZERO..=wait);
            sleep(pause).await;
            wait = (wait * 2).min(LAST_WAIT);
        }
    }

    async fn stay_with(
        &self,
        replica: &Replica,
        heard: &mut bool,
    ) -> Result<std::convert::Infallible, CallError> {
        let mut line = Line::open(replica).await?;
        loop {
            let registered = self.register(&mut line).await?;
            *heard = true;
            self.edge.counters.registrations.fetch_add(1, Ordering::Relaxed);
            self.edge.counters.control_reachable.store(1, Ordering::Relaxed);
            info!(replica = replica.name, "registered with the control plane");
            let secret = bearer(&registered.secret)
                .map_err(|error| CallError::Unreadable(error.to_string()))?;
            let access = Access { replica, id: registered.id.as_str(), secret: &secret };
            tokio::select! {
                ended = self.beat(&mut line, &registered, &secret) => ended?,
                never = self.stream.follow(&access) => match never {},
            }
        }
    }

    async fn register(&self, line: &mut Line) -> Result<Registered, CallError> {
        let (status, body) = line.call("/v1/edges", &self.token, self.registration.clone()).await?;
        if !status.is_success() {
            return Err(CallError::Refused { status, body: lossy(&body) });
        }
        serde_json::from_slice(&body).map_err(|error| CallError::Unreadable(error.to_string()))
    }

    /// Beats until the replica no longer knows this edge.
    async fn beat(
        &self,
        line: &mut Line,
        registered: &Registered,
        secret: &HeaderValue,
    ) -> Result<(), CallError> {
        let path = format!("/v1/edge/{}/ping", registered.id);
        let beat = self.beat.min(registered.beat());
        for sequence in 1.. {
            let ping = serde_json::to_vec(&self.ping(sequence))
                .map_err(|error| CallError::Unreadable(error.to_string()))?;
            let asked = self.edge.clock.now().mono;
            let (status, body) = line.call(&path, secret, ping.into()).await?;
            match status {
                StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => return Ok(()),
                StatusCode::OK => {
                    let pong: Pong = serde_json::from_slice(&body)
                        .map_err(|error| CallError::Unreadable(error.to_string()))?;
                    self.stream.answered(pong, asked);
                }
                status if status.is_success() => {} // of a replica that has no log of purges
                status => return Err(CallError::Refused { status, body: lossy(&body) }),
            }
            sleep(beat).await;
        }
        Ok(())
    }

    fn ping(&self, sequence: u64) -> Ping {
        let counts = self.edge.store.counts();
        let sites = self.edge.sites.load();
        let per_core = sites.all().iter().flat_map(|site| site.counters.iter());
        Ping {
            active_requests: self.edge.loads.iter().map(|load| load.requests()).sum(),
            requests_total: per_core.map(|core| core.requests()).sum(),
            store_bytes: counts.bytes,
            store_entries: counts.urls,
            sequence,
        }
    }
}
