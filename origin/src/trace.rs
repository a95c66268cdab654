//! The synthetic objects of a trace: exactly as many bytes as the trace says, made when asked for.
//!
//! # Invariants
//! - The bytes of an object depend on its key and nothing else, and any stretch of them can be
//!   made on its own: another process can verify what it got with [`fill`].
//! - A body costs no memory, whatever its size.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder, Trim};
use http::header::HeaderValue;
use meridian_config::units::ByteSize;
use meridian_edge_rules::validate::{EntityTag, Validators};
use sha2::{Digest, Sha256};

use crate::body::Source;
use crate::content::{Found, Representation};
use crate::error::RunError;
use crate::problem::{Code, Problem};
use crate::target::Target;

/// What is sent where no rule says otherwise: objects of a trace never change.
pub(crate) const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=86400");

/// The size of an object that has none, where the configuration does not say.
const DEFAULT_SIZE: ByteSize = ByteSize::kib(1);

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
    fn of(key: &str) -> Self {
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

/// The objects of a trace, by request target.
#[derive(Debug)]
pub(crate) struct Trace {
    sizes: HashMap<Box<str>, u64>,
}

impl Trace {
    /// Reads a CSV with a header line that names the columns `key` and `size`; the others are
    /// ignored. An object that has several sizes keeps the first. Blocks.
    pub(crate) fn read(path: &Path, default_size: Option<ByteSize>) -> Result<Self, RunError> {
        let broken = |why: String| RunError::Trace { path: path.to_owned(), why };
        let mut reader = ReaderBuilder::new()
            .flexible(true)
            .trim(Trim::All)
            .from_path(path)
            .map_err(|error| broken(format!("cannot be read: {error}")))?;
        let headers = reader.byte_headers().map_err(|error| broken(error.to_string()))?;
        let column = |name: &str| headers.iter().position(|header| header == name.as_bytes());
        let key_column = column("key").ok_or_else(|| {
            broken("its first line must name the columns, and one of them must be \"key\"".into())
        })?;
        let size_column = column("size");
        let default_size = default_size.unwrap_or(DEFAULT_SIZE).get();

        let (mut sizes, mut resized) = (HashMap::new(), 0_u64);
        let mut record = ByteRecord::new();
        while reader.read_byte_record(&mut record).map_err(|error| broken(error.to_string()))? {
            let line = record.position().map_or(0, csv::Position::line);
            let object = record.get(key_column).and_then(target_of).ok_or_else(|| {
                broken(format!("line {line}: the key must be a number, or start with '/'"))
            })?;
            let size = match size_column.and_then(|column| record.get(column)) {
                None | Some(b"") => default_size,
                Some(text) => number(text).ok_or_else(|| {
                    let text = String::from_utf8_lossy(text);
                    broken(format!("line {line}: the size {text:?} must be a number of bytes"))
                })?,
            };
            match sizes.entry(object) {
                Entry::Vacant(place) => drop(place.insert(size)),
                Entry::Occupied(first) => resized += u64::from(*first.get() != size),
            }
        }
        if sizes.is_empty() {
            return Err(broken("holds no object: there must be lines below the first".into()));
        }
        if resized > 0 {
            tracing::warn!(lines = resized, "objects of the trace keep the first of their sizes");
        }
        Ok(Self { sizes })
    }

    pub(crate) fn len(&self) -> usize {
        self.sizes.len()
    }

    pub(crate) fn find(&self, target: &Target) -> Found {
        let Some((key, size)) = self.sizes.get_key_value(&*target.written) else {
            let detail = "the trace has no object with this path and query";
            return Found::Nothing(Problem::new(Code::NotFound, detail));
        };
        let mut tag = Sha256::new();
        tag.update(key.as_bytes());
        tag.update(b" "); // no key holds one: no other key and size give the same bytes
        tag.update(size.to_string());
        let tag = crate::hex(&tag.finalize());
        Found::Here(Representation {
            validators: Validators { etag: EntityTag::strong(&tag), ..Validators::default() },
            content_type: HeaderValue::from_static("application/octet-stream"),
            length: *size,
            source: Source::Made(Pattern::of(key)),
        })
    }
}

/// The request target of a key: `/o/N` for a number, a path as it stands.
fn target_of(key: &[u8]) -> Option<Box<str>> {
    let key = std::str::from_utf8(key).ok()?;
    if key.starts_with('/') {
        let visible = key.bytes().all(|byte| byte > b' ' && byte != 0x7f);
        return visible.then(|| key.into());
    }
    let is_number = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| format!("/o/{key}").into())
}

fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
