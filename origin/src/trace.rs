//! The synthetic objects of a trace: exactly as many bytes as the trace says, made when asked for.
//!
//! # Invariants
//! - An object costs its key and its size, however large it is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder, Trim};
use http::header::HeaderValue;
use meridian_config::units::ByteSize;
use meridian_edge_rules::validate::{EntityTag, Validators};
use sha2::{Digest, Sha256};

use crate::body::Source;
use crate::error::RunError;
use crate::hex::hex;
use crate::listing::{Collector, Listing};
use crate::problem::{Code, Problem};
use crate::representation::{Found, Representation};
use crate::synthetic::Pattern;
use crate::target::Target;

/// What is sent where no rule says otherwise: objects of a trace never change.
pub(crate) const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=86400");

/// The size of an object that has none, where the configuration does not say.
const DEFAULT_SIZE: ByteSize = ByteSize::kib(1);

/// The objects of a trace.
#[derive(Debug)]
pub(crate) struct Trace {
    /// By request target, as the trace writes it.
    sizes: HashMap<Box<str>, u64>,
    /// From the normal form of a target to how the trace writes it, where the two differ.
    written: HashMap<Box<str>, Box<str>>,
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
        let written = sizes.keys().filter_map(|key| {
            let normal = normalised(key);
            (normal != **key).then(|| (normal.into(), key.clone()))
        });
        Ok(Self { written: written.collect(), sizes })
    }

    pub(crate) fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Somebody on the way may have written the target in another, equivalent form.
    fn object(&self, target: &str) -> Option<(&str, u64)> {
        let as_written = self.sizes.get_key_value(target);
        let (key, size) = as_written.or_else(|| {
            let normal = normalised(target);
            let written = self.written.get(&*normal).map_or(&*normal, |written| written);
            self.sizes.get_key_value(written)
        })?;
        Some((key, *size))
    }

    /// A page of what is served.
    pub(crate) fn list(&self, after: Option<&str>) -> Listing {
        let mut collector = Collector::new(after);
        for (target, size) in &self.sizes {
            collector.offer(target, *size);
        }
        collector.page()
    }

    pub(crate) fn find(&self, target: &Target) -> Found {
        let Some((key, size)) = self.object(&target.written) else {
            let detail = "the trace has no object with this path and query";
            return Found::Nothing(Problem::new(Code::NotFound, detail));
        };
        let mut tag = Sha256::new();
        tag.update(key.as_bytes());
        tag.update(b" "); // no key holds one: no other key and size give the same bytes
        tag.update(size.to_string());
        let tag = hex(&tag.finalize());
        Found::Here(Representation {
            validators: Validators { etag: EntityTag::strong(&tag), ..Validators::default() },
            content_type: HeaderValue::from_static("application/octet-stream"),
            length: size,
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

/// The form of a target that all its equivalents share (RFC 3986 §6.2.2): escapes in upper case,
/// and none where none is needed.
fn normalised(target: &str) -> String {
    let mut pieces = target.split('%');
    let mut normal = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).unwrap_or((piece, ""));
        match u8::from_str_radix(digits, 16) {
            Ok(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                normal.push(char::from(byte));
            }
            _ => {
                normal.push('%');
                normal.push_str(&digits.to_ascii_uppercase());
            }
        }
        normal.push_str(rest);
    }
    normal
}

fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
