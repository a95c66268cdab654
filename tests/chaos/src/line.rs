//! The bytes of one connection under way in one direction, and when each is due.
//!
//! # Invariants
//! - Reads no clock and no socket: the caller brings the time and what it read.
//! - What was pushed first is due first, ends included.
//! - Holds at most [`MOST_HELD`] beyond the piece that was pushed last.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use crate::pace::Pace;
use crate::shape::Shape;

/// Read and written at once.
pub(crate) const PIECE: usize = 32 << 10;

/// Bytes of one connection under way in one direction: 1 MiB fills 80 Mbit/s over 100 ms.
pub(crate) const MOST_HELD: usize = 1 << 20;

/// Under a rate, this much time's worth is taken in ahead.
const AHEAD: Duration = Duration::from_millis(100);

/// Between two slices: long enough for a reader to see them apart.
const SLICE_GAP: Duration = Duration::from_millis(1);

/// How a direction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The sender has no more to say.
    Close,
    /// The connection broke.
    Reset,
}

/// What is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next<'l> {
    Bytes(&'l [u8]),
    End(End),
}

/// One direction of one connection.
#[derive(Debug)]
pub(crate) struct Line {
    shape: Shape,
    chance: StdRng,
    queue: VecDeque<Held>,
    held: usize,
    /// After a slice, nothing is written before this.
    pause: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    arrived: Instant,
    due: Instant,
    what: What,
}

#[derive(Debug)]
enum What {
    Bytes(Bytes),
    End(End),
}

impl Line {
    /// Empty; `seed` decides the jitter.
    pub(crate) fn new(shape: Shape, seed: u64) -> Self {
        let chance = StdRng::seed_from_u64(seed);
        Self { shape, chance, queue: VecDeque::new(), held: 0, pause: None }
    }

    /// How it behaves.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes under way.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// From `now` on it behaves otherwise; says how many bytes are lost by that. What is under
    /// way comes no later than it would, and sooner if the delay is shorter.
    pub(crate) fn reshape(&mut self, shape: Shape, now: Instant) -> usize {
        self.shape = shape;
        self.pause = None;
        if shape.cut {
            self.queue.clear();
            return std::mem::take(&mut self.held);
        }
        let mut before = now;
        for held in &mut self.queue {
            let sooner = (held.arrived + shape.delay + shape.jitter).max(before);
            held.due = held.due.min(sooner);
            before = held.due;
        }
        0
    }

    /// How many bytes may be pushed now; 0: the sender has to wait.
    pub(crate) fn room(&self) -> usize {
        let Some(rate) = self.shape.rate.filter(|_| !self.shape.cut) else {
            return MOST_HELD.saturating_sub(self.held).min(PIECE);
        };
        let worth = |time: Duration| {
            let bytes = time.as_millis().saturating_mul(u128::from(rate.get())) / 1_000;
            usize::try_from(bytes).unwrap_or(usize::MAX)
        };
        let under_way = AHEAD.saturating_add(self.shape.delay).saturating_add(self.shape.jitter);
        let most = worth(under_way).clamp(1, MOST_HELD);
        most.saturating_sub(self.held).min(worth(AHEAD / 2).clamp(1, PIECE))
    }

    /// Takes bytes that arrived at `now`; says how many of them are lost.
    pub(crate) fn push(&mut self, bytes: Bytes, now: Instant, pace: &Pace) -> usize {
        if self.shape.cut {
            return bytes.len();
        }
        let sent = self.shape.rate.map_or(now, |rate| pace.book(now, bytes.len(), rate));
        self.held += bytes.len();
        self.put(sent, now, What::Bytes(bytes));
        0
    }

    /// Takes an end that arrived at `now`.
    pub(crate) fn end(&mut self, end: End, now: Instant) {
        if !self.shape.cut {
            self.put(now, now, What::End(end));
        }
    }

    fn put(&mut self, sent: Instant, arrived: Instant, what: What) {
        let jitter = match self.shape.jitter {
            Duration::ZERO => Duration::ZERO,
            most => self.chance.random_range(Duration::ZERO..=most),
        };
        let due = sent + self.shape.delay + jitter;
        let due = self.queue.back().map_or(due, |before| before.due.max(due));
        self.queue.push_back(Held { arrived, due, what });
    }

    /// When the next thing is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        let due = self.queue.front()?.due;
        Some(self.pause.map_or(due, |pause| pause.max(due)))
    }

    /// The next thing, due or not.
    pub(crate) fn next(&self) -> Option<Next<'_>> {
        match &self.queue.front()?.what {
            What::End(end) => Some(Next::End(*end)),
            What::Bytes(bytes) => {
                let slice = self.shape.slice.and_then(|slice| usize::try_from(slice.get()).ok());
                let most = slice.unwrap_or(usize::MAX).min(bytes.len());
                Some(Next::Bytes(bytes.get(..most).unwrap_or(bytes)))
            }
        }
    }

    /// `count` bytes of the next thing were delivered at `now`, or, if it is an end, all of it.
    pub(crate) fn delivered(&mut self, count: usize, now: Instant) {
        let Some(front) = self.queue.front_mut() else { return };
        let is_done = match &mut front.what {
            What::End(_) => true,
            What::Bytes(bytes) => {
                let count = count.min(bytes.len());
                drop(bytes.split_to(count));
                self.held -= count;
                bytes.is_empty()
            }
        };
        if is_done {
            self.queue.pop_front();
        }
        self.pause = self.shape.slice.map(|_| now + SLICE_GAP);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;
    use tokio::time::Instant;

    use super::{End, Line, MOST_HELD, Next, PIECE};
    use crate::pace::Pace;
    use crate::shape::Shape;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn line(shape: Shape) -> (Line, Pace, Instant) {
        (Line::new(shape, 7), Pace::default(), Instant::now())
    }

    #[test]
    fn bytes_and_the_end_after_them_are_due_after_the_delay() {
        let (mut line, pace, now) = line(Shape::delayed(ms(30)));
        assert_eq!(line.push(Bytes::from_static(b"abc"), now, &pace), 0);
        line.end(End::Close, now + ms(5));
        assert_eq!((line.due(), line.held()), (Some(now + ms(30)), 3));
        assert_eq!(line.next(), Some(Next::Bytes(b"abc")));
        line.delivered(2, now);
        assert_eq!(line.next(), Some(Next::Bytes(b"c")));
        line.delivered(1, now);
        assert_eq!((line.due(), line.next()), (Some(now + ms(35)), Some(Next::End(End::Close))));
        line.delivered(0, now);
        assert!(line.is_empty() && line.held() == 0);
    }

    #[test]
    fn a_cut_loses_what_is_under_way_and_what_comes() {
        let (mut line, pace, now) = line(Shape::delayed(ms(30)));
        line.push(Bytes::from_static(b"abc"), now, &pace);
        assert_eq!(line.reshape(Shape { cut: true, ..Shape::default() }, now), 3);
        assert_eq!(line.push(Bytes::from_static(b"de"), now, &pace), 2);
        line.end(End::Reset, now);
        assert!(line.is_empty() && line.held() == 0);
        assert_eq!(line.room(), PIECE, "who sends into a cut is not held back");
    }

    #[test]
    fn a_shorter_delay_hurries_what_is_under_way_and_a_longer_one_does_not_hold_it() {
        let (mut line, pace, now) = line(Shape::delayed(ms(30_000)));
        line.push(Bytes::from_static(b"abc"), now, &pace);
        line.reshape(Shape::delayed(ms(40_000)), now + ms(10));
        assert_eq!(line.due(), Some(now + ms(30_000)));
        line.reshape(Shape::delayed(ms(50)), now + ms(10));
        assert_eq!(line.due(), Some(now + ms(50)));
        line.reshape(Shape::default(), now + ms(20));
        assert_eq!(line.due(), Some(now + ms(20)));
    }

    #[test]
    fn a_rate_spreads_bytes_and_takes_in_little_ahead() {
        let rate = NonZeroU64::new(10_000);
        let (mut line, pace, now) = line(Shape { rate, ..Shape::default() });
        assert_eq!(line.room(), 500, "50 ms' worth");
        line.push(Bytes::from(vec![0; 500]), now, &pace);
        line.push(Bytes::from(vec![0; 500]), now, &pace);
        assert_eq!((line.due(), line.room()), (Some(now + ms(50)), 0));
        line.delivered(500, now + ms(50));
        assert_eq!((line.due(), line.room()), (Some(now + ms(100)), 500));
    }

    #[test]
    fn slices_come_one_after_the_other() {
        let slice = NonZeroU64::new(2);
        let (mut line, pace, now) = line(Shape { slice, ..Shape::default() });
        line.push(Bytes::from_static(b"abc"), now, &pace);
        assert_eq!((line.due(), line.next()), (Some(now), Some(Next::Bytes(b"ab"))));
        line.delivered(2, now);
        assert_eq!((line.due(), line.next()), (Some(now + ms(1)), Some(Next::Bytes(b"c"))));
    }

    #[test]
    fn a_full_line_takes_no_more() {
        let (mut line, pace, now) = line(Shape::delayed(ms(30_000)));
        while line.room() > 0 {
            line.push(Bytes::from(vec![0; line.room()]), now, &pace);
        }
        assert_eq!(line.held(), MOST_HELD);
    }

    proptest! {
        /// Whatever is set meanwhile, bytes come out in order, none twice, and all that are not
        /// counted as lost.
        #[test]
        fn bytes_keep_their_order(
            seed in any::<u64>(),
            steps in prop::collection::vec((0u64..40, 0u64..30, 0u64..30, 1usize..9, 0u8..12), 1..60),
        ) {
            let pace = Pace::default();
            let mut now = Instant::now();
            let mut line = Line::new(Shape::default(), seed);
            let (mut sent, mut got, mut lost) = (Vec::new(), Vec::new(), 0);
            for (pass, delay, jitter, count, kind) in steps {
                now += ms(pass);
                let before = line.due();
                match kind {
                    0 => lost += line.reshape(Shape { cut: true, ..Shape::default() }, now),
                    1..4 => {
                        let slice = NonZeroU64::new(delay % 3);
                        let (delay, jitter) = (ms(delay), ms(jitter));
                        lost += line.reshape(Shape { delay, jitter, slice, ..Shape::default() }, now);
                    }
                    _ => {
                        let bytes: Vec<u8> = (0..count).map(|_| rand::random()).collect();
                        let gone = line.push(Bytes::from(bytes.clone()), now, &pace);
                        if gone == 0 { sent.extend(bytes) }
                        prop_assert!(before.is_none() || line.due() == before, "the front stays");
                    }
                }
                while let Some(Next::Bytes(bytes)) = line.next().filter(|_| line.due() <= Some(now)) {
                    let bytes = bytes.to_vec();
                    got.extend_from_slice(&bytes);
                    line.delivered(bytes.len(), now);
                }
                if kind == 0 { sent.truncate(got.len()); }
                prop_assert!(sent.starts_with(&got));
                prop_assert_eq!(sent.len() - got.len(), line.held());
            }
            prop_assert!(lost < 1 << 20);
        }
    }
}
