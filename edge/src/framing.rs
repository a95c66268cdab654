//! Where each message in a client's bytes ends (RFC 9112 §6), so that the lines of every head are
//! seen as they came.
//!
//! The HTTP library takes a bare LF for the end of a line, and does not tell. What stands in front
//! of this edge may take it for a part of a value: then one of the two is led to a request that the
//! other does not see. So heads are handed on one by one, and what follows a head only once the
//! library has said what it took the head for: there is one reading of the framing, not two.
//!
//! Does not parse heads, nor judge bodies: what is malformed the library refuses.
//!
//! # Invariants
//! - At most one head has been handed on whose body is not known yet.

use std::io;

use memchr::memchr_iter;

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// The next head.
    Nothing,
    /// So many bytes of a body.
    Length(u64),
    /// A body in chunks.
    Chunks,
    /// Another protocol.
    Tunnel,
}

/// Where in its messages a connection is.
#[derive(Debug)]
pub(crate) enum Framing {
    /// In a head, or before one.
    Head(Lines),
    /// Behind a whole head. Nothing is handed on before it is known what follows.
    Asked,
    /// In a body of a known length.
    Body(u64),
    /// In a body in chunks.
    Chunks(Chunks),
    /// Bytes that are no messages of HTTP/1.
    Opaque,
}

/// How much of some bytes may be handed on, and what was found in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) bytes: usize,
    /// A line of a head ended in a bare LF.
    pub(crate) bare_lf: bool,
}

impl Framing {
    pub(crate) fn new() -> Self {
        Self::Head(Lines::default())
    }

    /// What follows the head that was handed on last.
    pub(crate) fn settle(&mut self, follows: Follows) {
        *self = match follows {
            Follows::Nothing | Follows::Length(0) => Self::new(),
            Follows::Length(length) => Self::Body(length),
            Follows::Chunks => Self::Chunks(Chunks::default()),
            Follows::Tunnel => Self::Opaque,
        };
    }

    /// Goes on over `bytes`, up to the end of the head or the body that they belong to.
    ///
    /// # Errors
    /// When they can be no chunks.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> io::Result<Passed> {
        let clean = |bytes| Ok(Passed { bytes, bare_lf: false });
        match self {
            Self::Head(lines) => {
                let (end, bare_lf) = lines.pass(bytes);
                if end.is_some() {
                    *self = Self::Asked;
                }
                Ok(Passed { bytes: end.unwrap_or(bytes.len()), bare_lf })
            }
            Self::Asked => clean(0),
            Self::Body(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= n as u64;
                if *left == 0 {
                    *self = Self::new();
                }
                clean(n)
            }
            Self::Chunks(chunks) => {
                let end = chunks.pass(bytes)?;
                if end.is_some() {
                    *self = Self::new();
                }
                clean(end.unwrap_or(bytes.len()))
            }
            Self::Opaque => clean(bytes.len()),
        }
    }
}

/// The lines of a head, as far as they came.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// A line with something in it has ended: the next empty one ends the head.
    began: bool,
    /// Of the line that has not ended: its length, and whether CR is the last of it.
    length: usize,
    after_cr: bool,
}

impl Lines {
    /// Where the head ends in `bytes`, if it does, and whether a line of it ended in a bare LF.
    fn pass(&mut self, bytes: &[u8]) -> (Option<usize>, bool) {
        let (mut start, mut bare) = (0, false);
        for at in memchr_iter(b'\n', bytes) {
            let after_cr = match at.checked_sub(1).filter(|before| *before >= start) {
                Some(before) => bytes.get(before) == Some(&b'\r'),
                None => self.after_cr,
            };
            let length = self.length + (at - start);
            bare |= !after_cr;
            (self.length, self.after_cr) = (0, false);
            start = at + 1;
            let is_empty = length == usize::from(after_cr);
            if is_empty && self.began {
                return (Some(start), bare);
            }
            self.began |= !is_empty;
        }
        if let Some(last) = bytes.get(start..).and_then(<[u8]>::last) {
            self.length = self.length.saturating_add(bytes.len() - start);
            self.after_cr = *last == b'\r';
        }
        (None, bare)
    }
}

/// A body in chunks, as far as it came (RFC 9112 §7.1).
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    part: Part,
    /// The last byte was the CR of a line.
    after_cr: bool,
}

#[derive(Debug)]
enum Part {
    /// In the line of a size, perhaps behind its digits.
    Size { size: u64, in_digits: bool },
    /// In data and the CRLF behind it: so many bytes are left.
    Data(u64),
    /// In the trailer section: whether something stands in the line that has not ended.
    Trailer { empty: bool },
}

impl Default for Part {
    fn default() -> Self {
        Self::Size { size: 0, in_digits: true }
    }
}

impl Chunks {
    /// Where the body ends in `bytes`, if it does. Lines end in CRLF and have no other CR.
    fn pass(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            if let Part::Data(left) = &mut self.part {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += n;
                *left -= n as u64;
                if *left == 0 {
                    self.part = Part::default();
                }
                continue;
            }
            at += 1;
            if self.after_cr != (byte == b'\n') {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.after_cr = byte == b'\r';
            if byte == b'\n' {
                match self.part {
                    Part::Size { size: 0, .. } | Part::Trailer { empty: false } => {
                        self.part = Part::Trailer { empty: true };
                    }
                    Part::Trailer { empty: true } => return Ok(Some(at)),
                    Part::Size { size, .. } => {
                        let with_end = size.checked_add(2).ok_or(io::ErrorKind::InvalidData)?;
                        self.part = Part::Data(with_end);
                    }
                    Part::Data(_) => {}
                }
            } else if !self.after_cr {
                self.within_line(byte)?;
            }
        }
        Ok(None)
    }

    fn within_line(&mut self, byte: u8) -> io::Result<()> {
        match &mut self.part {
            Part::Size { size, in_digits } => match char::from(byte).to_digit(16) {
                Some(digit) if *in_digits => {
                    let sixteen = size.checked_mul(16).ok_or(io::ErrorKind::InvalidData)?;
                    *size = sixteen | u64::from(digit);
                }
                Some(_) | None => *in_digits = false,
            },
            Part::Trailer { empty } => *empty = false,
            Part::Data(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Hands on `bytes` in parts of these lengths, and what is left when all has come.
    fn head(bytes: &[u8], parts: &[usize]) -> (Option<usize>, bool) {
        let (mut lines, mut done, mut bare) = (Lines::default(), 0, false);
        let mut parts = parts.iter().copied().chain(std::iter::repeat(bytes.len() + 1));
        while done < bytes.len() {
            let part = bytes.get(done..).unwrap_or_default();
            let part = part.get(..parts.next().unwrap().max(1)).unwrap_or(part);
            let (end, is_bare) = lines.pass(part);
            bare |= is_bare;
            if let Some(end) = end {
                return (Some(done + end), bare);
            }
            done += part.len();
        }
        (None, bare)
    }

    #[test]
    fn a_head_ends_with_its_first_empty_line_and_bare_lf_is_seen() {
        let rows: [(&[u8], Option<usize>, bool); 11] = [
            (b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest", Some(24), false),
            (b"\r\n\r\nGET / HTTP/1.1\r\n\r\nrest", Some(22), false),
            (b"GET / HTTP/1.1\nA: b\r\n\r\n", Some(23), true),
            (b"GET / HTTP/1.1\r\nA: b\n\r\n", Some(23), true),
            (b"GET / HTTP/1.1\r\nA: b\r\n\n", Some(23), true),
            (b"GET / HTTP/1.1\n\n", Some(16), true),
            (b"\nGET / HTTP/1.1\r\n\r\n", Some(19), true),
            (b"GET / HTTP/1.1\r\n\r", None, false),
            (b"GET / HTTP/1.1\r\n\r\r\n", None, false),
            (b"", None, false),
            (b"\r\n\r\n", None, false),
        ];
        for (bytes, end, bare) in rows {
            assert_eq!(head(bytes, &[]), (end, bare), "{:?}", String::from_utf8_lossy(bytes));
            assert_eq!(head(bytes, &vec![1; bytes.len()]), (end, bare), "byte by byte");
        }
    }

    fn body(bytes: &[u8], parts: &[usize]) -> Option<usize> {
        let (mut chunks, mut done) = (Chunks::default(), 0);
        let mut parts = parts.iter().copied().chain(std::iter::repeat(bytes.len() + 1));
        while done < bytes.len() {
            let part = bytes.get(done..).unwrap_or_default();
            let part = part.get(..parts.next().unwrap().max(1)).unwrap_or(part);
            if let Some(end) = chunks.pass(part).ok()? {
                return Some(done + end);
            }
            done += part.len();
        }
        None
    }

    #[test]
    fn chunks_end_behind_their_trailers() {
        let rows: [(&[u8], Option<usize>); 11] = [
            (b"0\r\n\r\nGET", Some(5)),
            (b"5\r\nhello\r\n0\r\n\r\nGET", Some(15)),
            (b"5;a=b\r\nhello\r\n0;c\r\nX: y\r\n\r\nGET", Some(27)),
            (b"A\r\n0\r\n\r\n0\r\n\r\n\r\n000\r\n\r\nGET", Some(22)),
            (b"0\n\r\n", None),
            (b"0\r\n\n", None),
            (b"0\r\nX: y\nZ: w\r\n\r\n", None),
            (b"0\rX\n\r\n", None),
            (b"5\r\nhello\r\n0\r\n\r", None),
            (b"ffffffffffffffff\r\n", None),
            (b"10000000000000000\r\n", None),
        ];
        for (bytes, end) in rows {
            assert_eq!(body(bytes, &[]), end, "{:?}", String::from_utf8_lossy(bytes));
            assert_eq!(body(bytes, &vec![1; bytes.len()]), end, "byte by byte");
        }
    }

    proptest! {
        #[test]
        fn what_is_found_does_not_depend_on_how_the_bytes_are_cut(
            bytes in vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'a'), any::<u8>()], 0..60),
            parts in vec(1..9_usize, 0..20),
        ) {
            prop_assert_eq!(head(&bytes, &[]), head(&bytes, &parts));
            prop_assert_eq!(body(&bytes, &[]), body(&bytes, &parts));
        }

        #[test]
        fn no_bytes_are_lost_or_made_up(
            bytes in vec(any::<u8>(), 0..80),
            follows in prop_oneof![
                Just(Follows::Nothing), (0..9_u64).prop_map(Follows::Length), Just(Follows::Chunks),
            ],
        ) {
            let mut framing = Framing::new();
            let mut left = &bytes[..];
            while !left.is_empty() {
                let Ok(passed) = framing.pass(left) else { break };
                prop_assert!(passed.bytes <= left.len());
                left = left.get(passed.bytes..).unwrap();
                if matches!(framing, Framing::Asked) {
                    framing.settle(follows);
                } else {
                    prop_assert!(passed.bytes > 0, "it stands still");
                }
            }
        }
    }
}
