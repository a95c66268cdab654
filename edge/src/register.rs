//! The edge in the register of the control plane: it introduces itself once, then beats.
//!
//! What it is given then, its id and its secret, is good at every replica: it registers again only
//! when it is told that it is unknown, or that its secret is not the latest. Beats and the stream
//! of purges go to one replica each, any of them to begin with, and rotate apart: a replica that
//! takes no beats may still tell purges, and the other way round.
//!
//! Nothing of serving waits for this: with the control plane gone the edge goes on with what it
//! knows, and says so in its metrics and, once, in its log.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use meridian_control_wire::operation::Pong;
use meridian_control_wire::secret::Secret;
use meridian_control_wire::{FailClosed, Ping, Registered, Registration};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::core::Edge;
use crate::error::RunError;
use crate::line::{CallError, Identity, Line, Replica, bearer, lossy};
use crate::ring::{Pauses, Ring};
use crate::stream::{Access, Stream};

/// Between two replicas that fail.
const PAUSES: Pauses = Pauses { first: Duration::from_millis(25), last: Duration::from_secs(1) };

/// What it takes to be in the register.
pub(crate) struct Registrar {
    edge: Arc<Edge>,
    registration: Bytes,
    replicas: Vec<Replica>,
    token: HeaderValue,
    beat: Duration,
    stream: Stream,
    /// What the edge was given; `None`: it has to register.
    identity: watch::Sender<Option<Arc<Identity>>>,
    /// The stream was told that the edge is not known: ask at once whether that is so.
    doubt: Notify,
}

/// What beats remember from one replica to the next.
struct Beats {
    ring: Ring,
    /// Of the last beat: it grows as long as the process lives.
    sequence: u64,
    /// Who granted a lease last, or answered without granting one.
    lease_by: Option<u64>,
    /// Some replica has answered since the start.
    heard: bool,
    /// The log says that none does.
    lost: bool,
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
        Ok(Self {
            edge,
            registration,
            replicas,
            token: token(token_file)?,
            beat,
            stream,
            identity: watch::Sender::new(None),
            doubt: Notify::new(),
        })
    }

    /// Registers, beats and follows until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let access = Access {
            replicas: &self.replicas,
            identity: self.identity.subscribe(),
            doubt: &self.doubt,
        };
        tokio::select! {
            () = stop.cancelled() => {}
            never = self.keep_beating() => match never {},
            never = self.stream.follow(access) => match never {},
        }
    }

    /// Goes from replica to replica for ever. Safe to drop at any point.
    async fn keep_beating(&self) -> Infallible {
        let ring = Ring::new(self.replicas.len(), PAUSES, &mut rand::rng());
        let mut beats = Beats { ring, sequence: 0, lease_by: None, heard: false, lost: false };
        loop {
            let Some(replica) = self.replicas.get(beats.ring.at()) else {
                return std::future::pending().await; // no configuration without a replica is let in
            };
            let Err(error) = self.stay_with(replica, &mut beats).await;
            self.edge.counters.control_reachable.store(0, Ordering::Relaxed);
            self.edge.counters.rotations.fetch_add(1, Ordering::Relaxed);
            let pause = beats.ring.failed(&mut rand::rng());
            // At the start the control plane may come a moment after its edges.
            let is_lost = beats.ring.has_failed_whole() && (beats.heard || beats.ring.is_patient());
            if is_lost && !std::mem::replace(&mut beats.lost, true) {
                warn!(
                    target: "event",
                    replica = replica.name, %error,
                    "no control replica answers: serving goes on with what is known"
                );
            } else {
                debug!(replica = replica.name, %error, "a control replica takes no beats");
            }
            sleep(pause).await;
        }
    }

    async fn stay_with(
        &self,
        replica: &Replica,
        beats: &mut Beats,
    ) -> Result<Infallible, CallError> {
        let mut line = Line::open(replica).await?;
        loop {
            let known = self.identity.borrow().clone();
            let identity = match known {
                Some(identity) => identity,
                None => self.register(replica, &mut line, beats).await?,
            };
            self.beat(replica, &mut line, &identity, beats).await?;
        }
    }

    /// A replica has answered as it should.
    fn heard(&self, replica: &Replica, beats: &mut Beats) {
        self.edge.counters.control_reachable.store(1, Ordering::Relaxed);
        beats.ring.answered();
        beats.heard = true;
        if std::mem::take(&mut beats.lost) {
            info!(target: "event", replica = replica.name, "a control replica answers again");
        }
    }

    async fn register(
        &self,
        replica: &Replica,
        line: &mut Line,
        beats: &mut Beats,
    ) -> Result<Arc<Identity>, CallError> {
        let (status, body) = line.call("/v1/edges", &self.token, self.registration.clone()).await?;
        if !status.is_success() {
            return Err(CallError::Refused { status, body: lossy(&body) });
        }
        let unreadable = |error: String| CallError::Unreadable(error);
        let registered: Registered =
            serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string()))?;
        let secret = bearer(&registered.secret).map_err(|error| unreadable(error.to_string()))?;
        let beat = registered.beat();
        let identity = Arc::new(Identity { id: registered.id.to_string(), secret, beat });
        self.heard(replica, beats);
        self.edge.counters.registrations.fetch_add(1, Ordering::Relaxed);
        self.identity.send_replace(Some(Arc::clone(&identity)));
        info!(replica = replica.name, "registered with the control plane");
        Ok(identity)
    }

    /// Beats until the control plane no longer knows this edge as it is.
    async fn beat(
        &self,
        replica: &Replica,
        line: &mut Line,
        identity: &Identity,
        beats: &mut Beats,
    ) -> Result<(), CallError> {
        let path = format!("/v1/edge/{}/ping", identity.id);
        let beat = self.beat.min(identity.beat);
        loop {
            beats.sequence += 1;
            let declared = self.stream.to_declare();
            let ping = self.ping(beats, declared.fail_closed);
            let ping = serde_json::to_vec(&ping)
                .map_err(|error| CallError::Unreadable(error.to_string()))?;
            // Before it leaves: what its answer knows may be as old as this.
            let asked = self.edge.clock.now().mono;
            let (status, body) = line.call(&path, &identity.secret, ping.into()).await?;
            match status {
                StatusCode::OK => {
                    let pong: Pong = serde_json::from_slice(&body)
                        .map_err(|error| CallError::Unreadable(error.to_string()))?;
                    beats.lease_by = pong.lease.map(|lease| lease.by);
                    self.stream.answered(pong, asked, declared);
                }
                StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => {
                    self.identity.send_replace(None);
                    return Ok(());
                }
                StatusCode::FORBIDDEN => {
                    // Somebody registered under this name since: another process, or this one, by
                    // a call whose answer was lost. In the first case two will take turns, so not
                    // in haste.
                    self.identity.send_replace(None);
                    return Err(CallError::Refused { status, body: lossy(&body) });
                }
                status if status.is_success() => {} // of a replica that has no log of purges
                status => {
                    return Err(CallError::Refused { status, body: lossy(&body) });
                }
            }
            self.heard(replica, beats);
            // Doubt that comes while nobody waits is kept for the next time.
            drop(timeout(beat, self.doubt.notified()).await);
        }
    }

    fn ping(&self, beats: &Beats, fail_closed: FailClosed) -> Ping {
        let counts = self.edge.store.counts();
        let sites = self.edge.sites.load();
        let per_core = sites.all().iter().flat_map(|site| site.counters.iter());
        Ping {
            active_requests: self.edge.loads.iter().map(|load| load.requests()).sum(),
            requests_total: per_core.map(|core| core.requests()).sum(),
            store_bytes: counts.bytes,
            store_entries: counts.urls,
            sequence: beats.sequence,
            cursor: self.stream.cursor(),
            fail_closed,
            lease_by: beats.lease_by,
        }
    }
}
