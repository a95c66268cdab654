//! The body of a request on its way upstream: nothing, the client's own, counted, or the client's
//! own held in memory so that it can be sent more than once. Trailers go on without those that would
//! say more than a client may: hyper 1.12 sends those that the request's `Trailer` field names,
//! behind a body in chunks.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use meridian_edge_rules::trailers::remove_forbidden;
use tokio_util::sync::CancellationToken;

use crate::body_memory::{BodyMemory, Held};
use crate::error::BodyError;
use crate::pace::{Paced, Waits};

/// A request body.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// All of it, in memory: it can be sent again.
    Whole(Bytes, Held),
    /// The client's, at most `left` more bytes of it.
    Client {
        /// The body.
        body: Incoming,
        /// Bytes that may still come.
        left: u64,
        /// The limit (`accept.body_size`), for the message.
        limit: u64,
        /// The pace of its connection.
        paced: Arc<Paced>,
        /// Held while it is waited for.
        waits: Option<Waits>,
        /// Dropped when the last of it was taken, or when nobody takes it any more: the answer is
        /// due only from then on.
        under_way: UnderWay,
    },
}

/// A request body that is still being sent. Dropping it tells that it no longer is.
#[derive(Debug)]
pub(crate) struct UnderWay(CancellationToken);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl RequestBody {
    /// The client's body, or nothing where it has none.
    pub(crate) fn of(body: Incoming, limit: u64, paced: &Arc<Paced>) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        let under_way = UnderWay(CancellationToken::new());
        let paced = Arc::clone(paced);
        Self::Client { body, left: limit, limit, paced, waits: None, under_way }
    }

    /// The same body held in memory, so that nobody upstream waits for its client and so that it can
    /// be sent again, if it says beforehand that it is no longer than `most` bytes and there is
    /// room; else as it was.
    pub(crate) async fn gathered(self, most: u64, memory: &BodyMemory) -> Result<Self, BodyError> {
        if !self.is_of_client() {
            return Ok(self);
        }
        let length = self.size_hint().upper().filter(|length| *length <= most);
        let Some(held) = length.and_then(|length| memory.take(length)) else { return Ok(self) };
        Ok(Self::Whole(self.collect().await?.to_bytes(), held))
    }

    /// Whether it goes on as its client sends it.
    pub(crate) fn is_of_client(&self) -> bool {
        matches!(self, Self::Client { .. })
    }

    /// The same body once more; `None`: it is gone as it is sent.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Whole(bytes, held) => Some(Self::Whole(bytes.clone(), held.clone())),
            Self::Client { .. } => None,
        }
    }

    /// Says in `fields` where it ends: a plain number for what has a length, whatever the client's
    /// digits were, and chunks for what has none, also where the method rarely has a body.
    pub(crate) fn announce(&self, fields: &mut HeaderMap) {
        fields.remove(header::TRANSFER_ENCODING);
        let said = fields.remove(header::CONTENT_LENGTH).is_some();
        match self.size_hint().exact() {
            Some(0) if !said => {}
            Some(length) => drop(fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
            None => {
                fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
    }

    /// Cancelled when all of it is sent, or as much as ever will be. `None`: nothing is to be sent.
    pub(crate) fn sent(&self) -> Option<CancellationToken> {
        match self {
            Self::Empty | Self::Whole(..) => None,
            Self::Client { under_way, .. } => Some(under_way.0.clone()),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let (body, left, limit, paced, waits) = match this {
            Self::Empty => return Poll::Ready(None),
            Self::Whole(bytes, _) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                return Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))));
            }
            Self::Client { body, left, limit, paced, waits, .. } => {
                (body, left, limit, paced, waits)
            }
        };
        let polled = Pin::new(&mut *body).poll_frame(context);
        if polled.is_pending() {
            waits.get_or_insert_with(|| paced.waits());
        } else {
            *waits = None;
        }
        let next = match ready!(polled) {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    remove_forbidden(trailers);
                }
                let n = frame.data_ref().map_or(0, |data| data.len() as u64);
                paced.pace.count(frame.data_ref().map_or(0, Bytes::len));
                match left.checked_sub(n) {
                    Some(less) => {
                        *left = less;
                        Some(Ok(frame))
                    }
                    None => Some(Err(BodyError::TooLarge(*limit))),
                }
            }
            Some(Err(_)) => Some(Err(BodyError::ClientGone)),
            None => None,
        };
        if next.is_none() || body.is_end_stream() {
            *this = Self::Empty;
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes, _) => bytes.is_empty(),
            Self::Client { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Self::Client { body, .. } => body.size_hint(),
        }
    }
}
