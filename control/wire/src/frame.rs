//! The stream from a control replica to an edge: frames, as server-sent events.
//!
//! `GET /v1/edge/{id}/stream` answers with them, without end:
//! ```text
//! event: op
//! id: <cursor>
//! data: <JSON on one line>
//! (an empty line)
//! ```
//! Only frames after which a reader may start again carry an `id`: a snapshot does so at its end.
//!
//! # Invariants
//! - A frame is at most [`MAX_FRAME`] bytes; a decoder never holds more than one that is unfinished.
//! - A kind of frame that this version does not know is skipped; an unknown field is ignored.
//! - Nothing here panics on bytes from the network.

use meridian_config::units::NodeName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cursor::{Cursor, Position};
use crate::operation::{Operation, selectors};
use crate::selector::Selector;

/// The largest frame, in bytes.
pub const MAX_FRAME: usize = 2 << 20;

/// The version of the stream, in its first frame.
pub const VERSION: u32 = 1;

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// The first one: who speaks, and how.
    Hello(Hello),
    /// What follows replaces what the edge knows.
    SnapBegin {
        /// Where the snapshot will lead.
        cursor: Cursor,
        /// Nothing that the edge knows can be trusted: it drops everything it stored.
        purge_all: bool,
    },
    /// Purges of a snapshot, older than its cursor.
    SnapItem(SnapItem),
    /// The snapshot is whole; the stream goes on from here.
    SnapEnd {
        /// Where it led.
        cursor: Cursor,
    },
    /// A purge.
    Op {
        /// Where the edge is after it.
        cursor: Cursor,
        /// The purge.
        operation: Operation,
    },
    /// A configuration key has this value now.
    Config {
        /// Where the edge is after it.
        cursor: Cursor,
        /// The key: `site/<name>`.
        key: String,
        /// The value; none: there is no such key any more.
        value: Option<Value>,
    },
    /// Everything up to here was written to this stream before.
    Bookmark {
        /// Where the edge is.
        cursor: Cursor,
    },
    /// The last one: come again.
    Bye(Bye),
}

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The replica.
    pub server: NodeName,
    /// How replicas agree on purges.
    pub mode: Mode,
    /// Which life of the log this is.
    pub incarnation: u64,
    /// The log goes back to here; whoever is further behind gets a snapshot.
    pub low_water: Position,
    /// A frame comes at least this often.
    pub heartbeat_ms: u64,
}

/// How replicas agree on purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In one order.
    Cp,
    /// Each accepts, and they exchange.
    Ap,
}

/// Purges of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapItem {
    /// What was purged; at least one.
    #[serde(deserialize_with = "selectors")]
    pub selectors: Vec<Selector>,
    /// Softly.
    #[serde(default)]
    pub soft: bool,
}

/// Why a stream ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    /// Why.
    pub reason: ByeReason,
    /// Come again after this long.
    pub retry_after_ms: u64,
    /// Other replicas, by name.
    #[serde(default)]
    pub alternatives: Vec<NodeName>,
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByeReason {
    /// The edge takes its frames too slowly.
    Slow,
    /// The replica ends.
    Stopping,
    /// The edge has opened another stream, or registered again.
    Replaced,
    /// The edge is no longer registered.
    Unregistered,
    /// The log cannot be read.
    Broken,
    /// The replica reaches no majority: what it knows grows old.
    NoQuorum,
    /// A reason of a later version.
    #[serde(other)]
    Other,
}

impl ByeReason {
    /// The word in JSON, logs and metrics.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Stopping => "stopping",
            Self::Replaced => "replaced",
            Self::Unregistered => "unregistered",
            Self::NoQuorum => "no_quorum",
            Self::Broken => "broken",
            Self::Other => "other",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    hello: T,
}

#[derive(Serialize, Deserialize)]
struct Beginning {
    cursor: Cursor,
    purge_all: bool,
}

#[derive(Serialize, Deserialize)]
struct Register<K, V> {
    key: K,
    value: V,
}

#[derive(Serialize)]
struct Nothing {}

impl Frame {
    /// Where the edge is after it, if it may start again from there.
    pub fn cursor(&self) -> Option<&Cursor> {
        match self {
            Self::SnapEnd { cursor }
            | Self::Op { cursor, .. }
            | Self::Config { cursor, .. }
            | Self::Bookmark { cursor } => Some(cursor),
            Self::Hello(_) | Self::SnapBegin { .. } | Self::SnapItem(_) | Self::Bye(_) => None,
        }
    }

    /// Writes it behind what is in `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => event(out, "hello", None, &Versioned { version: VERSION, hello }),
            Self::SnapBegin { cursor, purge_all } => {
                let (cursor, purge_all) = (cursor.clone(), *purge_all);
                event(out, "snap-begin", None, &Beginning { cursor, purge_all });
            }
            Self::SnapItem(item) => event(out, "snap-item", None, item),
            Self::SnapEnd { cursor } => event(out, "snap-end", Some(cursor), &Nothing {}),
            Self::Op { cursor, operation } => event(out, "op", Some(cursor), operation),
            Self::Config { cursor, key, value } => {
                event(out, "config", Some(cursor), &Register { key, value });
            }
            Self::Bookmark { cursor } => event(out, "bookmark", Some(cursor), &Nothing {}),
            Self::Bye(bye) => event(out, "bye", None, bye),
        }
    }

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

fn event(out: &mut Vec<u8>, name: &str, id: Option<&Cursor>, data: &impl Serialize) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    if let Some(id) = id {
        out.extend_from_slice(b"\nid: ");
        out.extend_from_slice(id.as_str().as_bytes());
    }
    out.extend_from_slice(b"\ndata: ");
    serde_json::to_writer(&mut *out, data).expect("memory takes JSON with text for keys");
    out.extend_from_slice(b"\n\n");
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than any frame may be.
    #[error("a frame of the stream exceeds {MAX_FRAME} bytes")]
    TooLong,
    /// Not text.
    #[error("a frame of the stream is not UTF-8")]
    NotText,
    /// Of another version.
    #[error("the stream has version {found}, this node reads version {VERSION}")]
    Version {
        /// That one.
        found: u32,
    },
    /// Not what its kind should hold.
    #[error("a frame {event:?} of the stream is broken: {why}")]
    Broken {
        /// Its kind.
        event: String,
        /// What is wrong.
        why: String,
    },
}

/// Reads a stream as its bytes arrive.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    unread: Vec<u8>,
}

impl FrameDecoder {
    /// Takes the next bytes; answers with the frames that they complete.
    ///
    /// # Errors
    /// The stream cannot be read on: it has to be opened again. Frames before the fault in the
    /// same bytes are lost with it; the cursor of the last applied one gets them again.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, WireError> {
        // An end of a frame may begin with the last byte that came before.
        let mut from = self.unread.len().saturating_sub(1);
        self.unread.extend_from_slice(bytes);
        let (mut frames, mut start) = (Vec::new(), 0);
        while let Some(end) = end_of_event(&self.unread, from) {
            let event = self.unread.get(start..end).unwrap_or_default();
            if event.len() > MAX_FRAME {
                return Err(WireError::TooLong);
            }
            let text = std::str::from_utf8(event).map_err(|_invalid| WireError::NotText)?;
            frames.extend(frame(text)?);
            start = end + 2;
            from = start;
        }
        self.unread.drain(..start);
        if self.unread.len() > MAX_FRAME {
            return Err(WireError::TooLong);
        }
        Ok(frames)
    }
}

/// Where the next empty line begins, at or after `from`.
fn end_of_event(bytes: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(2).position(|two| two == b"\n\n").map(|at| from + at)
}

/// The frame that an event is; none if its kind is unknown, or if it is a comment.
fn frame(text: &str) -> Result<Option<Frame>, WireError> {
    let (mut event, mut id, mut data) = ("", None, String::new());
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event = value,
            "id" => id = Some(value),
            "data" => data.push_str(value),
            _ => {}
        }
    }
    let broken = |why: String| WireError::Broken { event: event.to_owned(), why };
    let cursor = || {
        let id = id.ok_or_else(|| broken("it has no id".to_owned()))?;
        id.parse::<Cursor>().map_err(|rule| broken(format!("its id {rule}")))
    };
    Ok(Some(match event {
        "hello" => Frame::Hello(hello(&data)?),
        "snap-begin" => {
            let Beginning { cursor, purge_all } = json(event, &data)?;
            Frame::SnapBegin { cursor, purge_all }
        }
        "snap-item" => Frame::SnapItem(json(event, &data)?),
        "snap-end" => Frame::SnapEnd { cursor: cursor()? },
        "op" => Frame::Op { cursor: cursor()?, operation: json(event, &data)? },
        "config" => {
            let Register { key, value } = json(event, &data)?;
            Frame::Config { cursor: cursor()?, key, value }
        }
        "bookmark" => Frame::Bookmark { cursor: cursor()? },
        "bye" => Frame::Bye(json(event, &data)?),
        _ => return Ok(None),
    }))
}

/// The version is looked at first: another one may mean something else by every other field.
fn hello(data: &str) -> Result<Hello, WireError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version: found } = json("hello", data)?;
    if found == VERSION { json("hello", data) } else { Err(WireError::Version { found }) }
}

fn json<T: DeserializeOwned>(event: &str, data: &str) -> Result<T, WireError> {
    serde_json::from_str(data)
        .map_err(|error| WireError::Broken { event: event.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests;
