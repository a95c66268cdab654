//! Asking other replicas by their names: connections that are kept, answers that are bounded.
//!
//! Answers with what the other one said, whatever it is. Who may be asked for what is the caller's.
//!
//! # Invariants
//! - A name is looked up in `[peers]` and nowhere else: names travel, and a link can be cut.
//! - A connection on which something went wrong, or whose answer nobody waited for, is not used
//!   again: an answer is never taken for that of a later question.
//! - A request that failed tells whether the other one may have got it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use meridian_config::shared::Peers as Addresses;
use meridian_config::units::{Address, NodeName};
use tokio::task::JoinSet;

use crate::world;

/// Connections to one replica that are kept for later.
const MOST_KEPT: usize = 32;

/// The replicas that this one asks.
#[derive(Debug)]
pub(crate) struct Peers {
    addresses: Addresses,
    kept: Mutex<BTreeMap<NodeName, Vec<Kept>>>,
    /// One that was not used for so long may be closed by the other side at any moment.
    fresh: Duration,
}

#[derive(Debug)]
struct Kept {
    connection: Connection,
    since: Instant,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Drives it; ends with it.
    _driver: JoinSet<()>,
}

/// Why another replica gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{name} has no address in [peers]")]
    Unnamed { name: NodeName },
    #[error("cannot connect to {name} at {address}: {source}")]
    Connect { name: NodeName, address: Address, source: io::Error },
    #[error("the connection to {name} broke: {source}")]
    Broken { name: NodeName, sent: bool, source: hyper::Error },
    #[error("{name} did not answer within {limit:?}")]
    Overdue { name: NodeName, sent: bool, limit: Duration },
    #[error("the answer of {name} is larger than {limit} bytes, or broke off: {source}")]
    Body { name: NodeName, limit: usize, source: Box<dyn std::error::Error + Send + Sync> },
}

impl CallError {
    /// Whether the other one may have got the request.
    pub(crate) fn was_sent(&self) -> bool {
        match self {
            Self::Unnamed { .. } | Self::Connect { .. } => false,
            Self::Broken { sent, .. } | Self::Overdue { sent, .. } => *sent,
            Self::Body { .. } => true,
        }
    }
}

impl Peers {
    /// Those of `addresses`; a connection is kept for `fresh`.
    pub(crate) fn new(addresses: Addresses, fresh: Duration) -> Self {
        Self { addresses, kept: Mutex::default(), fresh }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<NodeName, Vec<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `name` has an address.
    pub(crate) fn knows(&self, name: &NodeName) -> bool {
        self.addresses.contains_key(name)
    }

    /// Sends `request` (its target is path and query) to `name`; the answer's body has at most
    /// `most` bytes, and comes within `limit`. Dropping the future gives the connection up.
    pub(crate) async fn call(
        &self,
        name: &NodeName,
        request: Request<Bytes>,
        most: usize,
        limit: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        let mut sent = false;
        let answer = tokio::time::timeout(limit, self.exchange(name, request, most, &mut sent));
        match answer.await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                // The link may be cut: what is kept would make the next questions wait as long.
                self.kept().remove(name);
                Err(CallError::Overdue { name: name.clone(), sent, limit })
            }
        }
    }

    async fn exchange(
        &self,
        name: &NodeName,
        mut request: Request<Bytes>,
        most: usize,
        sent: &mut bool,
    ) -> Result<Response<Bytes>, CallError> {
        let address =
            self.addresses.get(name).ok_or_else(|| CallError::Unnamed { name: name.clone() })?;
        if let Ok(host) = HeaderValue::from_str(address.as_str()) {
            request.headers_mut().insert(HOST, host);
        }
        let mut connection = match self.take(name) {
            Some(connection) => connection,
            None => Connection::to(name, address).await?,
        };
        let broken = |sent| move |source| CallError::Broken { name: name.clone(), sent, source };
        connection.sender.ready().await.map_err(broken(false))?;
        *sent = true;
        let request = request.map(Full::new);
        let answer = connection.sender.send_request(request).await;
        // What hyper cancels it has not begun to write.
        let answer = answer.map_err(|error| broken(!error.is_canceled())(error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, most).collect().await;
        let body =
            body.map_err(|source| CallError::Body { name: name.clone(), limit: most, source });
        let answer = Response::from_parts(head, body?.to_bytes());
        self.keep(name, connection);
        Ok(answer)
    }

    fn take(&self, name: &NodeName) -> Option<Connection> {
        let now = world::now();
        let mut kept = self.kept();
        let connections = kept.get_mut(name)?;
        let fresh = |kept: &Kept| now.saturating_duration_since(kept.since) < self.fresh;
        connections.retain(|kept| fresh(kept) && !kept.connection.sender.is_closed());
        connections.pop().map(|kept| kept.connection)
    }

    fn keep(&self, name: &NodeName, connection: Connection) {
        let kept = Kept { connection, since: world::now() };
        let mut all = self.kept();
        let connections = all.entry(name.clone()).or_default();
        if connections.len() < MOST_KEPT {
            connections.push(kept);
        }
    }
}

impl Connection {
    async fn to(name: &NodeName, address: &Address) -> Result<Self, CallError> {
        let stream = world::connect(address).await.map_err(|source| {
            let (name, address) = (name.clone(), address.clone());
            CallError::Connect { name, address, source }
        })?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|source| CallError::Broken { name: name.clone(), sent: false, source })?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to another replica broke");
            }
        });
        Ok(Self { sender, _driver: driver })
    }
}
