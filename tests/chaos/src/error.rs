//! Why the links of a cluster could not be made.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use meridian_config::units::NodeName;

/// Why the links of a cluster could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The machine gives no threads.
    #[error("cannot start the threads of the links")]
    Threads(#[source] io::Error),
    /// A listener cannot be used.
    #[error("cannot listen on {address} for the links")]
    Listener {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A listener that has no address.
    #[error("a listener of the links is not bound")]
    Unbound(#[source] io::Error),
    /// A link leads from or to a node that is not named.
    #[error("a link leads from {from} to {to}: one of them is no node")]
    NoNode {
        /// From.
        from: NodeName,
        /// To.
        to: NodeName,
    },
    /// The file of a token cannot be used.
    #[error("token {name:?}: {} {rule}", file.display())]
    Token {
        /// Whose it is.
        name: String,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        rule: String,
    },
}
