//! The body of a response, in pieces that are made or read when the client takes them.
//!
//! # Invariants
//! - As many bytes as were promised, or an error that ends the connection: a length never lies.
//! - At most one chunk of a response is in memory here, however large the representation.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::account::Account;
use crate::synthetic::Pattern;
use crate::version::Version;

/// The bytes that are made or read at once.
const CHUNK: u64 = 64 << 10;

/// Where the bytes of a representation come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// They are there.
    Memory(Bytes),
    /// They are made.
    Made(Pattern),
    /// They are read, as long as the file stays what it was when it was hashed.
    File(Arc<File>, Version),
}

/// One piece of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Text between parts.
    Text(Bytes),
    /// `length` bytes of the source from `at`.
    Stretch { at: u64, length: u64 },
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Self::Text(text) => length_of(text),
            Self::Stretch { length, .. } => *length,
        }
    }
}

fn length_of(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The body of a response.
#[derive(Debug)]
pub(crate) struct Body {
    pieces: VecDeque<Piece>,
    source: Source,
    remaining: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// Who counts it; absent at the admin listener.
    account: Option<Account>,
    /// A fault: after this many bytes the connection is dropped.
    cut_after: Option<u64>,
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::pieces(Source::Memory(Bytes::new()), [])
    }

    /// These bytes.
    pub(crate) fn of(bytes: impl Into<Bytes>) -> Self {
        Self::pieces(Source::Memory(Bytes::new()), [Piece::Text(bytes.into())])
    }

    /// Pieces of `source`, one after the other.
    pub(crate) fn pieces(source: Source, pieces: impl IntoIterator<Item = Piece>) -> Self {
        let pieces: VecDeque<Piece> =
            pieces.into_iter().filter(|piece| piece.length() > 0).collect();
        let remaining = pieces.iter().map(Piece::length).fold(0, u64::saturating_add);
        Self { pieces, source, remaining, reading: None, account: None, cut_after: None }
    }

    /// Counts it for `account`, which also keeps the request in flight until the body is gone.
    pub(crate) fn counted(mut self, account: Account) -> Self {
        self.account = Some(account);
        self
    }

    /// After `bytes` the connection is dropped, if more was promised: says whether it was. Needs
    /// [`Self::counted`].
    pub(crate) fn cut_after(&mut self, bytes: u64) -> bool {
        let cuts = bytes < self.remaining;
        if cuts {
            self.cut_after = Some(bytes);
        }
        cuts
    }

    /// The next bytes of the first piece, and nothing else.
    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(reading) = self.reading.as_mut() {
                let read = ready!(Pin::new(reading).poll(context));
                self.reading = None;
                return Poll::Ready(Some(read.map_err(io::Error::other).flatten()));
            }
            let Some(piece) = self.pieces.front_mut() else { return Poll::Ready(None) };
            let (from, length) = match piece {
                Piece::Text(text) => {
                    let text = std::mem::take(text);
                    self.pieces.pop_front();
                    return Poll::Ready(Some(Ok(text)));
                }
                Piece::Stretch { length: 0, .. } => {
                    self.pieces.pop_front();
                    continue;
                }
                Piece::Stretch { at, length } => {
                    let (from, chunk) = (*at, CHUNK.min(*length));
                    *at += chunk;
                    *length -= chunk;
                    (from, usize::try_from(chunk).unwrap_or_default())
                }
            };
            match &self.source {
                Source::Memory(bytes) => {
                    let from = usize::try_from(from).unwrap_or(usize::MAX);
                    let end = from.saturating_add(length);
                    let there = end <= bytes.len();
                    let bytes = there.then(|| bytes.slice(from..end));
                    return Poll::Ready(Some(bytes.ok_or_else(|| gone("the bytes end early"))));
                }
                Source::Made(pattern) => {
                    let mut made = vec![0; length];
                    pattern.fill(from, &mut made);
                    return Poll::Ready(Some(Ok(made.into())));
                }
                Source::File(file, version) => {
                    let (file, version) = (Arc::clone(file), *version);
                    self.reading =
                        Some(spawn_blocking(move || read_chunk(&file, version, from, length)));
                }
            }
        }
    }
}

fn gone(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Reads, and then looks whether what was read is still what was hashed.
fn read_chunk(file: &File, version: Version, from: u64, length: usize) -> io::Result<Bytes> {
    let mut chunk = vec![0; length];
    file.read_exact_at(&mut chunk, from)?;
    if version.holds_same_content(&Version::of(&file.metadata()?)) {
        Ok(chunk.into())
    } else {
        Err(gone("the file changed while it was sent"))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.cut_after == Some(0) {
            if let Some(account) = &this.account {
                account.connection().drop_when_flushed();
            }
            return Poll::Pending; // the connection's end drops this body
        }
        let mut chunk = match ready!(this.poll_chunk(context)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => {
                tracing::warn!(%error, "a response was broken off");
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(chunk)) => chunk,
        };
        if let Some(left) = &mut this.cut_after {
            chunk.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= length_of(&chunk);
        }
        let length = length_of(&chunk);
        this.remaining -= length;
        if let Some(account) = &mut this.account {
            account.sends(length);
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
