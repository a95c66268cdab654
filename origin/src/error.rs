//! Why an origin does not start, or stops working.
//!
//! What one request meets is [`crate::problem`]'s.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::task::JoinError;

use crate::orders::book::BookError;

/// Why an origin did not start, or ended without being told to. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder cannot be read.
    #[error("content.folder {path:?} cannot be read: name a folder that exists and is readable")]
    Folder {
        /// The folder as configured.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The folder is none.
    #[error("content.folder {path:?} is not a folder: name one, or use content.trace for a file")]
    NotAFolder {
        /// The path as configured.
        path: PathBuf,
    },
    /// The trace cannot be read, or is not one.
    #[error("content.trace {path:?}: {why}")]
    Trace {
        /// The file as configured.
        path: PathBuf,
        /// The line, the value, the rule.
        why: String,
    },
    /// There is nothing to serve, or too much.
    #[error("[content] must have exactly one of folder, trace and sample")]
    Content,
    /// A header field of a rule cannot be sent.
    #[error("rule[{index}].{key} cannot be a header field: use visible ASCII characters only")]
    Rule {
        /// The place of the rule.
        index: usize,
        /// The key in it.
        key: &'static str,
        /// What is wrong with it.
        source: http::header::InvalidHeaderValue,
    },
    /// The order book cannot be used.
    #[error("orders.file {path:?} cannot be used: name a file of its own that can be written")]
    Orders {
        /// The file as configured.
        path: PathBuf,
        /// What is wrong with it.
        source: BookError,
    },
    /// A token cannot be used.
    #[error("token {name:?}: {file:?} {why}")]
    Token {
        /// The token's name.
        name: String,
        /// Its file.
        file: PathBuf,
        /// What is wrong, never the secret.
        why: String,
    },
    /// Whoever reaches the admin listener could change something.
    #[error("admin {0} is beyond loopback: add a [[token]], or use a loopback address")]
    Unguarded(SocketAddr),
    /// A listener could not be opened.
    #[error("{key} {address} cannot be listened on: free it, or choose another (port 0: any)")]
    Listen {
        /// `listen` or `admin`.
        key: &'static str,
        /// The address as configured.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// A defect of this program.
    #[error("a task of the origin panicked; its state may be broken, so it ends")]
    Panicked(#[from] JoinError),
}
