//! The frames of the newest entries, in memory.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::control_store::Recent as Told;

/// Frames of the newest entries that are kept in memory, and their bytes.
const FRAMES: usize = 4_096;
const BYTES: usize = 8 << 20;

/// Frames that are handed out at once.
const AT_ONCE: usize = 1_000;

/// The frames, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    frames: VecDeque<(u64, Bytes)>,
    bytes: usize,
}

impl Recent {
    /// Takes in the frames that come next.
    pub(crate) fn extend(&mut self, frames: Vec<(u64, Bytes)>) {
        for (seq, frame) in frames {
            self.bytes += frame.len();
            self.frames.push_back((seq, frame));
        }
        while self.frames.len() > FRAMES || self.bytes > BYTES {
            let Some((_, frame)) = self.frames.pop_front() else { break };
            self.bytes -= frame.len();
        }
    }

    /// The frames after `after`, in a log that ends at `last`.
    pub(crate) fn after(&self, after: u64, last: u64) -> Told {
        if after >= last {
            return Told::UpToDate;
        }
        let first = self.frames.front().map_or(u64::MAX, |(seq, _)| *seq);
        let Some(skipped) = after.saturating_add(1).checked_sub(first) else {
            return Told::Older;
        };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        let (mut at, mut frames) = (after, Vec::new());
        for (seq, frame) in self.frames.iter().skip(skipped).take(AT_ONCE) {
            at = *seq;
            frames.push(frame.clone());
        }
        Told::Frames(frames, at)
    }
}
