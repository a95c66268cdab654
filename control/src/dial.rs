//! Asking another node over HTTP/1.1: one request at a time, small answers.
//!
//! # Invariants
//! - A connection that failed once is not used again; dropping a [`Link`] closes it.
//! - No answer is larger than the caller allows. The caller bounds the time.

use std::io;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use meridian_config::units::Address;
use tokio::task::JoinSet;

use crate::world;

/// An open connection to a node.
#[derive(Debug)]
pub(crate) struct Link {
    address: Address,
    sender: SendRequest<Empty<Bytes>>,
    /// Drives the connection; ends with this link.
    _driver: JoinSet<()>,
}

/// Why a node gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: Address, source: io::Error },
    #[error("the connection to {address} broke: {source}")]
    Broken { address: Address, source: hyper::Error },
    #[error("the answer of {address} is larger than {limit} bytes, or broke off: {source}")]
    Body { address: Address, limit: usize, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{target:?} cannot be asked for: {source}")]
    Target { target: String, source: http::Error },
}

impl DialError {
    /// Whether the answer was too large.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self, Self::Body { source, .. } if source.is::<LengthLimitError>())
    }
}

impl Link {
    /// Connects. Dropping the future gives the connection up.
    pub(crate) async fn to(address: &Address) -> Result<Self, DialError> {
        let stream = world::connect(address)
            .await
            .map_err(|source| DialError::Connect { address: address.clone(), source })?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|source| DialError::Broken { address: address.clone(), source })?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to another node broke");
            }
        });
        Ok(Self { address: address.clone(), sender, _driver: driver })
    }

    /// GETs `target` (path and query); the answer's body has at most `limit` bytes. After an
    /// error, or when the future was dropped, the link is of no use any more.
    pub(crate) async fn get(
        &mut self,
        target: &str,
        limit: usize,
    ) -> Result<Response<Bytes>, DialError> {
        let broken = |source| DialError::Broken { address: self.address.clone(), source };
        let request = Request::get(target)
            .header(HOST, self.address.as_str())
            .body(Empty::new())
            .map_err(|source| DialError::Target { target: target.to_owned(), source })?;
        self.sender.ready().await.map_err(broken)?;
        let (head, body) = self.sender.send_request(request).await.map_err(broken)?.into_parts();
        let collected = Limited::new(body, limit)
            .collect()
            .await
            .map_err(|source| DialError::Body { address: self.address.clone(), limit, source })?;
        Ok(Response::from_parts(head, collected.to_bytes()))
    }

    /// Whether another request may be tried on it.
    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}
