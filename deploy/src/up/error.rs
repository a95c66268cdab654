//! Why a local CDN could not be started, or broke.

use std::io;
use std::path::PathBuf;

use meridian_config::units::NodeName;
use meridian_config::violation::Violations;
use meridian_tests_chaos::error::NetError;

/// Why a local CDN could not be started, or broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    /// An option that makes no sense.
    #[error("{0}")]
    Option(String),
    /// The site cannot be served.
    #[error("{site}: {rule}")]
    Site {
        /// What was given.
        site: String,
        /// What is wrong with it.
        rule: String,
    },
    /// The folder of the cluster holds something else.
    #[error(
        "{} holds files of somebody else; name an empty or a new folder with --dir", dir.display()
    )]
    ForeignFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// Another `up` is alive in the folder.
    #[error("another `meridian up` runs in {} (pid {pid})", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        pid: String,
    },
    /// The folder was made with other options.
    #[error(
        "{} was made with other options: {differences}; start with those, \
         or with --fresh to start empty", dir.display()
    )]
    OtherOptions {
        /// The folder.
        dir: PathBuf,
        /// Which.
        differences: String,
    },
    /// The front door's port is taken.
    #[error(
        "port {port} of the front door is held by someone else; \
         choose another with --port, or --port 0 for free ones"
    )]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// A port cannot be had for another reason.
    #[error("cannot reserve port {port} on 127.0.0.1")]
    Port {
        /// The port; 0 is any free one.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// A file or folder of the cluster cannot be used.
    #[error("cannot {verb} {}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration of a node that follows from the options breaks rules.
    #[error("the options do not make a cluster: {0}")]
    Configuration(#[from] Violations),
    /// The configuration of a node cannot be written down.
    #[error("cannot write the configuration of {node}")]
    Unwritable {
        /// The node.
        node: NodeName,
        /// Why.
        source: toml::ser::Error,
    },
    /// A node ended, or did not answer, before the cluster was ready.
    #[error("{node} {what}{}", tail(log))]
    NotReady {
        /// The node.
        node: NodeName,
        /// What it did instead.
        what: String,
        /// The end of its log.
        log: Vec<String>,
    },
    /// The links between the nodes cannot be made.
    #[error("the links between the nodes cannot be made")]
    Links(#[from] NetError),
    /// A task of `up` itself panicked.
    #[error("the supervision of the nodes broke down")]
    Panicked(#[source] tokio::task::JoinError),
}

impl UpError {
    /// Whether the command line is to blame.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Option(_)
            | Self::Site { .. }
            | Self::ForeignFolder { .. }
            | Self::OtherOptions { .. }
            | Self::Configuration(_) => true,
            Self::InUse { .. }
            | Self::PortTaken { .. }
            | Self::Port { .. }
            | Self::File { .. }
            | Self::Unwritable { .. }
            | Self::NotReady { .. }
            | Self::Links(_)
            | Self::Panicked(_) => false,
        }
    }

    /// For `map_err`: `verb` was tried on `path`.
    pub(crate) fn file(verb: &'static str, path: impl Into<PathBuf>) -> impl Fn(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { verb, path: path.clone(), source }
    }
}

/// The end of a log, indented, on lines of its own.
fn tail(log: &[String]) -> String {
    log.iter().map(|line| format!("\n  {line}")).collect()
}
