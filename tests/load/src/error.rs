//! Why a run could not be made. What goes wrong with single requests is counted, not raised.

use std::io;
use std::path::PathBuf;

use meridian_config::units::NodeName;
use tokio::task::JoinError;

use crate::endpoint::Endpoint;
use crate::trace::TraceError;

/// Why a run could not be made, or a file not be written.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The options contradict themselves.
    #[error("{rule}")]
    Options {
        /// What is wrong, and with which value.
        rule: String,
    },
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// An edge takes no connection before the run starts.
    #[error("edge {edge} at {url} takes no connection")]
    Unreachable {
        /// The edge.
        edge: NodeName,
        /// Where it should be.
        url: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// An admin listener did not answer as it should.
    #[error("cannot read {what} from {url}: {reason}")]
    Admin {
        /// What was asked for.
        what: &'static str,
        /// Where.
        url: Endpoint,
        /// What came instead.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {verb} {}", file.display())]
    File {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A list of paths holds a line that is none.
    #[error("{}:{line}: {rule}", file.display())]
    Paths {
        /// The file.
        file: PathBuf,
        /// Its line, from 1.
        line: u64,
        /// What is wrong, and with which value.
        rule: String,
    },
    /// A task of the generator panicked.
    #[error("a connection of the load generator broke down")]
    Panicked(#[source] JoinError),
}

impl LoadError {
    pub(crate) fn options(rule: impl Into<String>) -> Self {
        Self::Options { rule: rule.into() }
    }
}
