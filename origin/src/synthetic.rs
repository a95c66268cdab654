//! The bytes of synthetic objects, made when asked for.
//!
//! # Invariants
//! - The bytes of an object depend on its key and nothing else, and any stretch of them can be
//!   made on its own: another process can verify what it got with [`fill`].

use sha2::{Digest, Sha256};

/// Writes the bytes of the object `key` from position `at` into `out`.
///
/// `key` is the request target without scheme and host: `/o/17` for the numeric key 17. The bytes
/// are the words `w(0)`, `w(1)`, … in little-endian order, eight bytes each, where `w(i)` is the
/// output `i` of SplitMix64 seeded with the first eight bytes, little-endian, of the SHA-256 of
/// `key`.
pub fn fill(key: &str, at: u64, out: &mut [u8]) {
    Pattern::of(key).fill(at, out);
}

/// The bytes of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pattern {
    seed: u64,
}

impl Pattern {
    pub(crate) fn of(key: &str) -> Self {
        let digest = Sha256::digest(key.as_bytes());
        let seed = digest.iter().take(8).rev().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        Self { seed }
    }

    /// Output `index` of SplitMix64.
    fn word(self, index: u64) -> [u8; 8] {
        let step = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed.wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }

    /// Writes the bytes from position `at` into `out`.
    pub(crate) fn fill(self, at: u64, out: &mut [u8]) {
        let mut index = at / 8;
        let skipped = usize::try_from(at % 8).unwrap_or_default();
        let (first, rest) = out.split_at_mut(out.len().min((8 - skipped) % 8));
        if !first.is_empty() {
            for (to, from) in first.iter_mut().zip(self.word(index).iter().skip(skipped)) {
                *to = *from;
            }
            index += 1;
        }
        let mut words = rest.chunks_exact_mut(8);
        for to in &mut words {
            to.copy_from_slice(&self.word(index));
            index += 1;
        }
        for (to, from) in words.into_remainder().iter_mut().zip(self.word(index)) {
            *to = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fill;
    use crate::hex::hex;

    #[test]
    fn the_bytes_of_an_object_are_what_the_documentation_says() {
        // Made by another program (Python): hashlib.sha256(b"/o/17"), SplitMix64.
        let mut bytes = [0; 20];
        fill("/o/17", 0, &mut bytes);
        assert_eq!(hex(&bytes), PYTHON_SAYS);
    }

    const PYTHON_SAYS: &str = "1697b9940f2f5f20fd7d42f65f0c55e7b230f57d";

    #[test]
    fn any_stretch_is_the_same_as_that_stretch_of_the_whole() {
        let mut whole = vec![0; 100];
        fill("/a?b", 0, &mut whole);
        for at in 0..100 {
            for length in 0..=100 - at {
                let mut stretch = vec![0; length];
                fill("/a?b", u64::try_from(at).unwrap(), &mut stretch);
                assert_eq!(stretch, whole[at..at + length], "{length} from {at}");
            }
        }
    }

    #[test]
    fn objects_differ() {
        let (mut one, mut other) = ([0; 64], [0; 64]);
        fill("/o/1", 0, &mut one);
        fill("/o/2", 0, &mut other);
        assert_ne!(one, other);
    }
}
