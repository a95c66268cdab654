//! What an edge makes of a stored response for clients that accept a content coding.

use std::num::{NonZeroU16, NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::limits::{unique, within};
use crate::media::MediaPattern;
use crate::units::ByteSize;
use crate::violation::{Place, Violation};

/// `[compression]`: what all sites together may cost.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Compressor {
    /// Threads that compress, beside those that serve, at a lower priority where the system knows
    /// one.
    pub workers: NonZeroU16,
    /// Bodies that wait for one of them; while so many do, further ones are served as they are.
    pub queue: NonZeroU32,
}

impl Default for Compressor {
    fn default() -> Self {
        Self {
            workers: NonZeroU16::MIN, // at 50 MB/s: the text of a whole site within a minute
            queue: NonZeroU32::new(1_024).unwrap_or(NonZeroU32::MIN), // none of them holds a body
        }
    }
}

/// `[site.compression]`: which responses are compressed here, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Compression {
    /// In order of preference among those that a client likes equally; none: nothing is
    /// compressed. Default: all three in `cdn`, none in `rfc`.
    pub codings: Option<Vec<Coding>>,
    /// Media types that are worth it.
    pub types: Vec<MediaPattern>,
    /// Smaller bodies stay as they are.
    pub min_size: ByteSize,
    /// So do larger ones.
    pub max_size: ByteSize,
    /// 1-9.
    pub gzip_level: u8,
    /// 0-9.
    pub br_level: u8,
    /// 1-19.
    pub zstd_level: u8,
}

/// A content coding that can be made here, by its registered name (RFC 9110 §8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Br,
    /// RFC 8878.
    Zstd,
}

/// What is text, or as sparse as text. Images, videos and archives are compressed already, and so
/// are `font/woff` and `font/woff2`.
const TYPES: [&str; 12] = [
    "text/*",
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/xml",
    "application/*+json",
    "application/*+xml",
    "application/wasm",
    "image/svg+xml",
    "image/bmp",
    "font/ttf",
    "font/otf",
];

impl Default for Compression {
    fn default() -> Self {
        Self {
            codings: None,
            types: TYPES.into_iter().filter_map(|text| text.parse().ok()).collect(),
            min_size: ByteSize::kib(1), // below a packet nothing is gained
            max_size: ByteSize::mib(10), // 0.2 s of a worker
            // At these levels a further step costs more time than it saves bytes.
            gzip_level: 6,
            br_level: 5,
            zstd_level: 7,
        }
    }
}

impl Coding {
    /// All of them. Brotli first: at equal cost its bodies are the smallest, and they are made
    /// once.
    pub const ALL: [Self; 3] = [Self::Br, Self::Zstd, Self::Gzip];

    /// Its registered name.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Br => "br",
            Self::Zstd => "zstd",
        }
    }
}

impl Compressor {
    pub(super) fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let most = NonZeroU16::new(256).unwrap_or(NonZeroU16::MAX);
        within(&at.key("workers"), self.workers, NonZeroU16::MIN, most, found);
        let most = NonZeroU32::new(1_000_000).unwrap_or(NonZeroU32::MAX);
        within(&at.key("queue"), self.queue, NonZeroU32::MIN, most, found);
    }
}

impl Compression {
    pub(super) fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let codings = self.codings.as_deref().unwrap_or_default();
        unique(&at.key("codings"), None, codings.iter().map(|coding| coding.token()), found);
        unique(&at.key("types"), None, self.types.iter().map(MediaPattern::as_str), found);
        if self.min_size > self.max_size {
            let rule = format!("must be at most max_size = \"{}\"", self.max_size);
            let violation = at.key("min_size").breaks(&self.min_size, rule);
            found.push(violation.with(&at.key("max_size")));
        }
        // Each worker holds what it makes until it is whole.
        let most = ByteSize::mib(256);
        within(&at.key("max_size"), self.max_size, ByteSize::kib(1), most, found);
        within(&at.key("gzip_level"), self.gzip_level, 1, 9, found);
        // Above 9 a body takes seconds, and little is gained.
        within(&at.key("br_level"), self.br_level, 0, 9, found);
        within(&at.key("zstd_level"), self.zstd_level, 1, 19, found);
    }
}
