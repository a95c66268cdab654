//! What the edge sends to clients, and what it takes from them.
//!
//! A response body is nothing, bytes that are already there, a [`Flow`](crate::flow) that is
//! still arriving, [`Segments`] of either kind, or an upstream body passed on. Whatever it is, it keeps its connection marked
//! as busy until it is gone ([`crate::connection::Busy`]).
//!
//! Trailers go on behind a body that passes through or is still arriving, where the client takes
//! them: hyper 1.12 sends them over HTTP/1.1 if the request says `TE: trailers`, the answer is in
//! chunks, and its `Trailer` field names them; over HTTP/2 always. What is stored has none: a
//! response from the store has a length instead (RFC 9110 §6.5.2 lets a recipient discard them).

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use meridian_edge_rules::ranges::ByteRange;
use meridian_edge_rules::trailers::remove_forbidden;
use tokio::time::{Sleep, sleep};

use crate::access::Line;
use crate::connection::Busy;
use crate::error::BodyError;
use crate::flow::Reader;
use crate::pace::Waits;
use crate::upstream::drip::Drip;
use crate::upstream::exchange::Lease;

/// A response body.
#[derive(Debug)]
pub(crate) struct Body {
    kind: Kind,
    /// Held for its `Drop`.
    busy: Option<Busy>,
    /// Held while the client is what the rest waits for.
    withheld: Option<Waits>,
    /// Written when this body is gone.
    line: Option<Box<Line>>,
}

#[derive(Debug)]
enum Kind {
    Empty,
    Whole(Bytes),
    Pieces { left: u64, pieces: VecDeque<Bytes> },
    Arriving(Arriving),
    Assembled { left: u64, now: Box<Kind>, rest: Box<dyn Segments> },
    Upstream(Box<UpstreamBody>),
}

/// Parts of a body, each of which is known when the one before it has been sent.
pub(crate) trait Segments: fmt::Debug + Send {
    /// The next of them, the end, or why there is no next one.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Segment, BodyError>>>;
}

/// One of them.
#[derive(Debug)]
pub(crate) enum Segment {
    /// It is there.
    There(VecDeque<Bytes>),
    /// It is this range of what arrives.
    Arriving(Reader, ByteRange),
}

impl Body {
    const fn of(kind: Kind) -> Self {
        Self { kind, busy: None, withheld: None, line: None }
    }

    /// No body.
    pub(crate) const fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    /// Bytes that are there.
    pub(crate) const fn whole(bytes: Bytes) -> Self {
        Self::of(Kind::Whole(bytes))
    }

    /// Bytes that are there, in pieces.
    pub(crate) fn pieces(pieces: VecDeque<Bytes>) -> Self {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self::of(Kind::Pieces { left, pieces })
    }

    /// A body that is still arriving: all of it, or one range of it.
    pub(crate) const fn arriving(
        reader: Reader,
        length: Option<u64>,
        range: Option<ByteRange>,
    ) -> Self {
        let (skip, left) = match range {
            Some(range) => (range.first, Some(range.last - range.first + 1)),
            None => (0, length),
        };
        Self::of(Kind::Arriving(Arriving { reader, skip, left, ended: false }))
    }

    /// A body of `length` bytes in segments.
    pub(crate) fn assembled(length: u64, rest: Box<dyn Segments>) -> Self {
        Self::of(Kind::Assembled { left: length, now: Box::new(Kind::Empty), rest })
    }

    /// An upstream body passed on.
    pub(crate) fn upstream(body: UpstreamBody) -> Self {
        Self::of(Kind::Upstream(Box::new(body)))
    }

    /// Keeps the connection marked as busy until this body is gone.
    pub(crate) fn busy(mut self, busy: Busy) -> Self {
        // Until it is asked for its first bytes; one from the store holds nothing that is scarce.
        self.withheld = match &self.kind {
            Kind::Empty | Kind::Whole(_) | Kind::Pieces { .. } => None,
            Kind::Arriving(_) | Kind::Assembled { .. } | Kind::Upstream(_) => busy.withheld(),
        };
        self.busy = Some(busy);
        self
    }

    /// Has a line in the access log when it is gone.
    pub(crate) fn logged(mut self, line: Line) -> Self {
        self.line = Some(Box::new(line));
        self
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.withheld = None;
        let frame = self.kind.poll_frame(context);
        if let Poll::Ready(Some(Ok(_))) = &frame
            && !self.is_end_stream()
        {
            self.withheld = self.busy.as_ref().and_then(Busy::withheld);
        }
        if let (Some(line), Poll::Ready(Some(Ok(frame)))) = (&mut self.line, &frame) {
            line.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Pieces { left, .. } => *left == 0,
            Kind::Arriving(arriving) => arriving.left == Some(0),
            Kind::Assembled { left, .. } => *left == 0,
            Kind::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Pieces { left, .. } | Kind::Assembled { left, .. } => SizeHint::with_exact(*left),
            Kind::Arriving(arriving) => {
                arriving.left.map_or_else(SizeHint::new, SizeHint::with_exact)
            }
            Kind::Upstream(body) => body.size_hint(),
        }
    }
}

impl Kind {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Pieces { left, pieces } => Poll::Ready(pieces.pop_front().map(|piece| {
                *left -= piece.len() as u64;
                Ok(Frame::data(piece))
            })),
            Self::Arriving(arriving) => arriving.poll_frame(context),
            Self::Assembled { left, now, rest } => poll_assembled(left, now, &mut **rest, context),
            Self::Upstream(body) => Pin::new(body.as_mut()).poll_frame(context),
        }
    }
}

fn poll_assembled(
    left: &mut u64,
    now: &mut Kind,
    rest: &mut dyn Segments,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    while *left > 0 {
        if let Some(frame) = ready!(now.poll_frame(context)) {
            if frame.as_ref().is_ok_and(Frame::is_trailers) {
                continue; // of one segment, not of the whole
            }
            let sent = frame.as_ref().ok().and_then(|frame| frame.data_ref()).map_or(0, Bytes::len);
            *left = left.saturating_sub(sent as u64);
            return Poll::Ready(Some(frame));
        }
        *now = match ready!(rest.poll_next(context)) {
            Some(Ok(Segment::There(pieces))) => Body::pieces(pieces).kind,
            Some(Ok(Segment::Arriving(reader, range))) => {
                Body::arriving(reader, None, Some(range)).kind
            }
            // Ended early: what was announced is not there.
            None => return Poll::Ready(Some(Err(BodyError::Incomplete))),
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
        };
    }
    Poll::Ready(None)
}

/// A reader of a flow, cut to one range.
#[derive(Debug)]
struct Arriving {
    reader: Reader,
    /// Bytes to pass over before the first that is wanted.
    skip: u64,
    /// Bytes still wanted; `None`: all.
    left: Option<u64>,
    /// Whether the end has been seen, and with it the trailers.
    ended: bool,
}

impl Arriving {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.left == Some(0) || self.ended {
                return Poll::Ready(None);
            }
            let mut chunk = match ready!(self.reader.poll_next(context)) {
                Some(Ok(chunk)) => chunk,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.ended = true;
                    let trailers = self.reader.trailers();
                    return Poll::Ready(trailers.map(|fields| Ok(Frame::trailers(fields))));
                }
            };
            let over = self.skip.min(chunk.len() as u64);
            self.skip -= over;
            chunk = chunk.slice(usize::try_from(over).unwrap_or(usize::MAX)..);
            if let Some(left) = &mut self.left {
                let wanted = (*left).min(chunk.len() as u64);
                *left -= wanted;
                chunk.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
            }
            if !chunk.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
        }
    }
}

/// The body of an upstream response, with its deadline between two parts and its least rate, and with
/// the connection and the place at the bulkhead, which go back when it has ended well and vanish when
/// it has not.
#[derive(Debug)]
pub(crate) struct UpstreamBody {
    body: Incoming,
    lease: Option<Lease>,
    between_bytes: Duration,
    drip: Option<Drip>,
    /// Runs while the upstream is silent.
    silence: Option<Pin<Box<Sleep>>>,
}

impl UpstreamBody {
    pub(crate) fn new(
        body: Incoming,
        lease: Lease,
        between_bytes: Duration,
        drip: Option<Drip>,
    ) -> Self {
        let lease = if body.is_end_stream() {
            lease.give_back();
            None
        } else {
            Some(lease)
        };
        Self { body, lease, between_bytes, drip, silence: None }
    }

    /// What follows a head that ends HTTP on its connection: nothing.
    pub(crate) fn none(body: Incoming) -> Self {
        Self { body, lease: None, between_bytes: Duration::ZERO, drip: None, silence: None }
    }

    /// It ends without being whole.
    fn break_off(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(lease) = self.lease.take() {
            lease.broke_off(error);
        }
        Poll::Ready(Some(Err(error)))
    }
}

impl HttpBody for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    remove_forbidden(trailers);
                }
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                if let Some(lease) = &self.lease {
                    lease.count_bytes(bytes as u64);
                }
                self.silence = None;
                if self.body.is_end_stream() {
                    if let Some(lease) = self.lease.take() {
                        lease.give_back();
                    }
                } else if let Some(Err(slow)) = self.drip.as_mut().map(|drip| drip.came(bytes)) {
                    return self.break_off(slow);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => self.break_off(BodyError::Incomplete),
            Poll::Ready(None) => {
                if let Some(lease) = self.lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
            Poll::Pending => {
                let limit = self.between_bytes;
                if let Some(drip) = &mut self.drip {
                    drip.wait();
                }
                let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(limit)));
                ready!(silence.as_mut().poll(context));
                self.break_off(BodyError::Stalled(limit))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
