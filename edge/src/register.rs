//! The edge in the register of the control plane: it introduces itself, then beats.
//!
//! One replica at a time, by name; the next when one fails. Nothing of serving waits for this:
//! with the control plane gone the edge goes on with what it knows, and says so in its metrics.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use meridian_control_wire::secret::Secret;
use meridian_control_wire::{Ping, Registered, Registration};
use rand::RngExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::core::Edge;
use crate::error::RunError;

/// One call to a replica, connecting included.
const CALL: Duration = Duration::from_secs(2);
/// The largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;
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
}

/// A control replica: its name, and the address from the name table.
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) address: String,
}

/// Why a replica was of no use.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("no answer within {CALL:?}")]
    Timeout,
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("it answered {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("its answer cannot be read: {0}")]
    Unreadable(String),
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

fn bearer(secret: &Secret) -> Result<HeaderValue, header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", secret.expose()))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Registrar {
    /// # Errors
    /// When the token file is of no use.
    pub(crate) fn new(
        edge: Arc<Edge>,
        registration: &Registration,
        replicas: Vec<Replica>,
        token_file: &Path,
        beat: Duration,
    ) -> Result<Self, RunError> {
        let registration = serde_json::to_vec(registration).unwrap_or_default().into();
        Ok(Self { edge, registration, replicas, token: token(token_file)?, beat })
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
            self.beat(&mut line, &registered).await?;
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
    async fn beat(&self, line: &mut Line, registered: &Registered) -> Result<(), CallError> {
        let path = format!("/v1/edge/{}/ping", registered.id);
        let secret =
            bearer(&registered.secret).map_err(|error| CallError::Unreadable(error.to_string()))?;
        let beat = self.beat.min(registered.beat());
        for sequence in 1.. {
            let ping = serde_json::to_vec(&self.ping(sequence))
                .map_err(|error| CallError::Unreadable(error.to_string()))?;
            let (status, body) = line.call(&path, &secret, ping.into()).await?;
            match status {
                StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => return Ok(()),
                status if status.is_success() => {}
                status => return Err(CallError::Refused { status, body: lossy(&body) }),
            }
            sleep(beat).await;
        }
        Ok(())
    }

    fn ping(&self, sequence: u64) -> Ping {
        let counts = self.edge.store.counts();
        let sites = self.edge.sites.load();
        let per_core = sites.all().iter().flat_map(|site| &site.counters);
        Ping {
            active_requests: self.edge.loads.iter().map(|load| load.requests()).sum(),
            requests_total: per_core.map(|core| core.requests()).sum(),
            store_bytes: counts.bytes,
            store_entries: counts.urls,
            sequence,
        }
    }
}

fn lossy(body: &[u8]) -> String {
    String::from_utf8_lossy(body.get(..body.len().min(512)).unwrap_or_default()).into_owned()
}

/// One connection to a replica.
struct Line {
    host: HeaderValue,
    sender: SendRequest<Full<Bytes>>,
    /// Drives the connection; ends with this.
    _driver: JoinSet<()>,
}

impl Line {
    async fn open(replica: &Replica) -> Result<Self, CallError> {
        let opening = async {
            let stream = TcpStream::connect(replica.address.as_str()).await?;
            stream.set_nodelay(true)?;
            Ok::<_, CallError>(handshake(TokioIo::new(stream)).await?)
        };
        let (sender, connection) =
            timeout(CALL, opening).await.map_err(|_elapsed| CallError::Timeout)??;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the line to the control plane broke");
            }
        });
        let host = HeaderValue::from_str(&replica.address)
            .map_err(|error| CallError::Unreadable(error.to_string()))?;
        Ok(Self { host, sender, _driver: driver })
    }

    async fn call(
        &mut self,
        path: &str,
        secret: &HeaderValue,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() =
            path.parse().map_err(|_invalid| CallError::Unreadable(path.to_owned()))?;
        let fields = request.headers_mut();
        fields.insert(header::HOST, self.host.clone());
        fields.insert(header::AUTHORIZATION, secret.clone());
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let calling = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| CallError::Unreadable(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        timeout(CALL, calling).await.map_err(|_elapsed| CallError::Timeout)?
    }
}
