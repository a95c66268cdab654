//! The bytes of a stored response: all of them, some parts, or none here because its slices are
//! stored by themselves.
//!
//! # Invariants
//! - What is held is copied to exactly the memory that it needs, in pieces of at most [`PIECE`];
//!   a core that copies lets others run between two pieces.
//! - The length is that of the whole representation, whatever is held of it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use meridian_edge_rules::partial::{Content, ContentRange, Limits, Parts};
use meridian_edge_rules::ranges::ByteRange;
use tokio::task::yield_now;

/// Bodies above this are kept in pieces of it: no allocation is larger, and no copy takes longer.
pub(crate) const PIECE: usize = 1 << 20;
/// Two pieces of one part that are no larger together become one.
const SMALL: usize = 64 << 10;

/// The body of a stored response.
#[derive(Debug, Clone)]
pub(crate) enum StoredBody {
    /// All of it, in one piece.
    One(Bytes),
    /// All of it, in several.
    Many { pieces: Arc<[Bytes]>, len: u64 },
    /// Parts of it.
    Parts(Arc<Parts<Rope>>),
    /// Slices of `size` bytes each, stored by themselves.
    Sliced { len: u64, size: u64 },
}

/// Bytes in pieces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rope(Vec<Bytes>);

impl Rope {
    /// Copies `chunks` to exactly the memory that they need: as they came they may be small
    /// windows into large read buffers. Others run on this core after each [`PIECE`].
    pub(crate) async fn compact(chunks: &[Bytes]) -> Self {
        let len: usize = chunks.iter().map(Bytes::len).sum();
        let mut pieces = Vec::with_capacity(len.div_ceil(PIECE));
        let mut piece = BytesMut::with_capacity(PIECE.min(len));
        let mut left = len;
        for chunk in chunks {
            let mut chunk = chunk.clone();
            while !chunk.is_empty() {
                let part = chunk.split_to(chunk.len().min(PIECE - piece.len()));
                piece.extend_from_slice(&part);
                if piece.len() == PIECE {
                    left -= PIECE;
                    let next = BytesMut::with_capacity(PIECE.min(left));
                    pieces.push(std::mem::replace(&mut piece, next).freeze());
                    if left > 0 {
                        yield_now().await;
                    }
                }
            }
        }
        if !piece.is_empty() {
            pieces.push(piece.freeze());
        }
        Self(pieces)
    }

    pub(crate) fn pieces(&self) -> &[Bytes] {
        &self.0
    }
}

impl Content for Rope {
    /// A piece of which something is left out is copied: what is kept must be what is weighed.
    fn cut(&self, range: ByteRange) -> Self {
        let mut start = 0_u64;
        let mut out = Vec::new();
        for piece in &self.0 {
            let end = start + piece.len() as u64;
            if range.first <= start && end <= range.last + 1 {
                out.push(piece.clone());
            } else {
                let first = range.first.saturating_sub(start);
                let last = range.last.checked_sub(start);
                let part =
                    last.map(|last| slice(std::slice::from_ref(piece), ByteRange { first, last }));
                out.extend(part.into_iter().flatten().map(|part| Bytes::copy_from_slice(&part)));
            }
            start = end;
        }
        Self(out)
    }

    fn then(mut self, next: Self) -> Self {
        let mut next = next.0.into_iter();
        if let (Some(last), Some(first)) = (self.0.last_mut(), next.as_slice().first())
            && last.len() + first.len() <= SMALL
        {
            *last = [last.as_ref(), first.as_ref()].concat().into();
            next.next();
        }
        self.0.extend(next);
        self
    }
}

impl StoredBody {
    /// All of a body, copied by [`Rope::compact`].
    pub(crate) async fn compact(chunks: &[Bytes]) -> Self {
        Self::whole(Rope::compact(chunks).await)
    }

    fn whole(Rope(mut pieces): Rope) -> Self {
        if pieces.len() > 1 {
            let len = pieces.iter().map(|piece| piece.len() as u64).sum();
            Self::Many { pieces: pieces.into(), len }
        } else {
            Self::One(pieces.pop().unwrap_or_default())
        }
    }

    /// A part of a body.
    pub(crate) fn part(of: ContentRange, content: Rope) -> Self {
        if of.is_whole() {
            Self::whole(content)
        } else {
            Self::Parts(Arc::new(Parts::new(of, content)))
        }
    }

    /// With a further part of the same representation; `None` where that makes no sense: all of it
    /// is there, or it is of another length, or kept in slices.
    pub(crate) fn with(&self, of: ContentRange, content: Rope, limits: Limits) -> Option<Self> {
        match self {
            Self::Parts(parts) if parts.complete_length() == of.complete_length => {
                let parts = parts.with(of, content, limits);
                let whole = parts.whole().cloned().map(Self::whole);
                Some(whole.unwrap_or_else(|| Self::Parts(Arc::new(parts))))
            }
            Self::Parts(_) | Self::One(_) | Self::Many { .. } | Self::Sliced { .. } => None,
        }
    }

    /// The length of the whole.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::One(bytes) => bytes.len() as u64,
            Self::Many { len, .. } | Self::Sliced { len, .. } => *len,
            Self::Parts(parts) => parts.complete_length(),
        }
    }

    /// Bytes that are held here.
    pub(crate) fn held(&self) -> u64 {
        match self {
            Self::One(_) | Self::Many { .. } => self.len(),
            Self::Parts(parts) => parts.bytes(),
            Self::Sliced { .. } => 0,
        }
    }

    /// Whether all of it is held here.
    pub(crate) const fn is_whole(&self) -> bool {
        matches!(self, Self::One(_) | Self::Many { .. })
    }

    /// Whether all of `range`, which lies within the representation, is held here.
    pub(crate) fn covers(&self, range: ByteRange) -> bool {
        match self {
            Self::One(_) | Self::Many { .. } => true,
            Self::Parts(parts) => parts.cover(range).is_some(),
            Self::Sliced { .. } => false,
        }
    }

    /// All of it, if it is held here.
    pub(crate) fn pieces(&self) -> &[Bytes] {
        match self {
            Self::One(bytes) => std::slice::from_ref(bytes),
            Self::Many { pieces, .. } => pieces,
            Self::Parts(_) | Self::Sliced { .. } => &[],
        }
    }

    /// The bytes of `range`, which must be held here.
    pub(crate) fn slice(&self, range: ByteRange) -> VecDeque<Bytes> {
        match self {
            Self::One(_) | Self::Many { .. } => slice(self.pieces(), range),
            Self::Parts(parts) => parts
                .cover(range)
                .map(|(content, range)| slice(&content.0, range))
                .unwrap_or_default(),
            Self::Sliced { .. } => VecDeque::new(),
        }
    }
}

fn slice(pieces: &[Bytes], range: ByteRange) -> VecDeque<Bytes> {
    let mut out = VecDeque::new();
    let mut start = 0_u64;
    for piece in pieces {
        let end = start + piece.len() as u64;
        let from = range.first.clamp(start, end) - start;
        let to = (range.last + 1).clamp(start, end) - start;
        if from < to {
            let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            out.push_back(piece.slice(index(from)..index(to)));
        }
        start = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_body_is_compacted_to_its_bytes_and_sliced_where_asked() {
        let large = bytes(PIECE * 2 + 10);
        let rows: [Vec<Bytes>; 4] = [
            vec![],
            vec![Bytes::from_static(b"abc"), Bytes::from_static(b"def")],
            vec![Bytes::copy_from_slice(&large[..PIECE])],
            large.chunks(700_001).map(Bytes::copy_from_slice).collect(),
        ];
        for chunks in rows {
            let whole = chunks.concat();
            let body = StoredBody::compact(&chunks).await;
            assert_eq!((body.len(), body.held()), (whole.len() as u64, whole.len() as u64));
            assert!(body.pieces().iter().all(|piece| piece.len() <= PIECE));
            let last = whole.len().saturating_sub(1);
            for (first, last) in [(0, last), (last / 2, last), (last, last), (1, last / 3)] {
                if first <= last && last < whole.len() {
                    let range = ByteRange { first: first as u64, last: last as u64 };
                    let slice: Vec<Bytes> = body.slice(range).into();
                    assert_eq!(slice.concat(), whole[first..=last], "{first}-{last}");
                }
            }
        }
    }

    #[test]
    fn who_compacts_a_large_body_lets_others_run_after_each_piece() {
        let chunks: Vec<Bytes> = (0..64)
            .flat_map(|_| {
                bytes(PIECE).chunks(100_000).map(Bytes::copy_from_slice).collect::<Vec<_>>()
            })
            .collect();
        let mut compacting = pin!(Rope::compact(&chunks));
        let mut polls = 1;
        let mut context = Context::from_waker(Waker::noop());
        let rope = loop {
            match compacting.as_mut().poll(&mut context) {
                Poll::Ready(rope) => break rope,
                Poll::Pending => polls += 1,
            }
        };
        assert_eq!((rope.pieces().len(), polls), (64, 64));
    }

    #[tokio::test]
    async fn parts_weigh_what_they_hold_and_become_the_whole() {
        let all = bytes(3_000);
        let part = async |first: usize, last: usize| {
            let range = ByteRange { first: first as u64, last: last as u64 };
            let content = Rope::compact(&[Bytes::copy_from_slice(&all[first..=last])]).await;
            (ContentRange { range, complete_length: 3_000 }, content)
        };
        let limits = Limits { parts: 4, bytes: 10_000 };
        let (of, content) = part(1_000, 1_999).await;
        let body = StoredBody::part(of, content);
        assert_eq!((body.len(), body.held(), body.is_whole()), (3_000, 1_000, false));
        assert!(body.covers(of.range) && !body.covers(ByteRange { first: 999, last: 1_000 }));
        let (of, content) = part(1_500, 2_999).await;
        let body = body.with(of, content, limits).unwrap();
        assert_eq!(body.held(), 2_000);
        let cut = body.slice(ByteRange { first: 1_400, last: 1_600 });
        assert_eq!(Vec::from(cut).concat(), all[1_400..=1_600]);
        let (of, content) = part(0, 1_100).await;
        let body = body.with(of, content, limits).unwrap();
        assert!(body.is_whole());
        assert_eq!(body.pieces().concat(), all);
    }
}
