//! What of the bytes of an HTTP/2 connection moves a message: heads, trailers and content (RFC 9113
//! §6.1, §6.2). Settings, pings and windows are about the connection: who sends nothing else, and
//! takes nothing, stands still.
//!
//! Follows the frames by their lengths, in whatever pieces they come. Does not judge them: that is
//! for the library that speaks the protocol.

use std::io::IoSlice;

/// The head of a frame (RFC 9113 §4.1).
const HEAD: usize = 9;
/// What a client says first (RFC 9113 §3.4).
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// What some bytes did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Motion {
    /// Some of them are of a message.
    pub(crate) moves: bool,
    /// So many are content.
    pub(crate) content: usize,
}

impl Motion {
    /// Of bytes that are all of messages.
    pub(crate) const fn of(bytes: usize) -> Self {
        Self { moves: bytes > 0, content: bytes }
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Bytes until the next head.
    left: usize,
    kind: u8,
    head: [u8; HEAD],
    /// Bytes of the next head that are there.
    known: usize,
}

impl Frames {
    /// The direction that begins with the preface.
    pub(crate) fn from_client() -> Self {
        Self { left: PREFACE, kind: u8::MAX, ..Self::default() }
    }

    /// What the first `bytes` of these slices do.
    pub(crate) fn motion_of(&mut self, slices: &[IoSlice<'_>], mut bytes: usize) -> Motion {
        let mut all = Motion::of(0);
        for slice in slices {
            let now = slice.get(..bytes.min(slice.len())).unwrap_or_default();
            let Motion { moves, content } = self.motion(now);
            all = Motion { moves: all.moves | moves, content: all.content + content };
            bytes -= now.len();
        }
        all
    }

    /// What these bytes do.
    pub(crate) fn motion(&mut self, mut bytes: &[u8]) -> Motion {
        let mut all = Motion::of(0);
        while !bytes.is_empty() {
            let is_head = self.left == 0;
            let wanted = if is_head { HEAD - self.known } else { self.left };
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            if is_head {
                self.learn(now);
            } else {
                self.left -= now.len();
                all.moves |= [DATA, HEADERS, CONTINUATION].contains(&self.kind);
                all.content += if self.kind == DATA { now.len() } else { 0 };
            }
            bytes = rest;
        }
        all
    }

    /// Takes in bytes of a head.
    fn learn(&mut self, bytes: &[u8]) {
        for (known, byte) in self.head.iter_mut().skip(self.known).zip(bytes) {
            *known = *byte;
        }
        self.known += bytes.len();
        if self.known >= HEAD {
            let [a, b, c, kind, ..] = self.head;
            self.left = u32::from_be_bytes([0, a, b, c]) as usize;
            (self.kind, self.known) = (kind, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 6;
    const SETTINGS: u8 = 4;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 1]);
        bytes.resize(HEAD + length, DATA); // whatever is in it is no frame
        bytes
    }

    fn of(frames: &mut Frames, pieces: &[&[u8]]) -> Motion {
        let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        frames.motion_of(&slices, pieces.iter().map(|piece| piece.len()).sum())
    }

    #[test]
    fn only_heads_and_content_move_a_message() {
        let rows = [
            (vec![frame(PING, 8), frame(PING, 8)], false, 0),
            (vec![frame(SETTINGS, 0), frame(8, 4)], false, 0), // a window
            (vec![frame(PING, 8), frame(HEADERS, 5)], true, 0),
            (vec![frame(DATA, 0)], false, 0),
            (vec![frame(DATA, 100), frame(PING, 8), frame(DATA, 1)], true, 101),
        ];
        for (sent, moves, content) in rows {
            let bytes = sent.concat();
            let want = Motion { moves, content };
            assert_eq!(of(&mut Frames::default(), &[&bytes]), want, "{sent:?}");
            let mut client = Frames::from_client();
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
            assert_eq!(of(&mut client, &[preface]), Motion::of(0));
            assert_eq!(of(&mut client, &[&bytes]), want, "{sent:?}");
        }
    }

    #[test]
    fn of_a_write_only_what_was_taken_counts() {
        let (head, content) = (frame(DATA, 10), [0; 10]);
        let slices = [IoSlice::new(&head[..HEAD]), IoSlice::new(&content)];
        let mut frames = Frames::default();
        assert_eq!(frames.motion_of(&slices, HEAD + 4), Motion { moves: true, content: 4 });
        let rest = [IoSlice::new(&content[4..])];
        assert_eq!(frames.motion_of(&rest, 6).content, 6);
        assert_eq!(frames.motion_of(&[], 0), Motion::of(0));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_frames_come(
            sent in proptest::collection::vec((0_u8..10, 0_usize..40), 0..20),
            cuts in proptest::collection::vec(1_usize..30, 1..20),
        ) {
            let bytes = sent.iter().flat_map(|(kind, length)| frame(*kind, *length));
            let bytes: Vec<u8> = bytes.collect();
            let mut frames = Frames::default();
            let (mut rest, mut content) = (bytes.as_slice(), 0);
            for cut in cuts.iter().cycle() {
                let (now, after) = rest.split_at((*cut).min(rest.len()));
                content += frames.motion(now).content;
                rest = after;
                if rest.is_empty() { break; }
            }
            let data = sent.iter().filter(|(kind, _)| *kind == DATA);
            prop_assert_eq!(content, data.map(|(_, length)| length).sum::<usize>());
        }
    }
}
