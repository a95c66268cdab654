//! How a command ends: its exit code, and what a person is told on stderr.
//!
//! # Invariants
//! - One place maps causes to exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::process::ExitCode;

use meridian_config::violation::Violations;
use meridian_tests_load::error::LoadError;

use crate::client::ClientError;
use crate::cluster::ClusterError;
use crate::up::error::UpError;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The command line asks for what makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The contract has it, this version does not.
    #[error("{0} is not offered yet")]
    NotOffered(String),
    /// A configuration file breaks rules; the message has one line for each.
    #[error("{0}")]
    Configuration(#[from] Violations),
    /// Every violation was told already.
    #[error("{}", unusable(*files, *of))]
    Checked {
        /// How many files cannot be used.
        files: usize,
        /// Of how many.
        of: usize,
    },
    /// The local CDN could not be started, or broke.
    #[error(transparent)]
    Up(#[from] UpError),
    /// Which cluster is meant cannot be found out.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A node did not answer as it should.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The load generator could not run.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A node could not start, or broke. Each role has an error type of its own and nobody
    /// decides by it: it is only told.
    #[error("{node} failed")]
    Node {
        /// The node.
        node: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A node was told to stop and did not.
    #[error("{node} did not stop within {seconds} s and was cut off")]
    Overdue {
        /// The node.
        node: String,
        /// How long it had.
        seconds: u64,
    },
    /// What was asked was done by some and not by all; the result says by whom.
    #[error("{0}")]
    Failed(String),
    /// The machine refuses what every command needs.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The result cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

fn unusable(files: usize, of: usize) -> String {
    match (files, of) {
        (0, _) => "the files do not fit together".to_owned(),
        (1, 1) => "the file cannot be used".to_owned(),
        (files, of) => format!("{files} of {of} files cannot be used"),
    }
}

impl CommandError {
    /// What the shell is told.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) | Self::NotOffered(_) => 2,
            Self::Cluster(error) if error.is_usage() => 2,
            Self::Up(error) if error.is_usage() => 2,
            Self::Load(LoadError::Options { .. }) => 2,
            Self::Configuration(_) | Self::Checked { .. } => 78, // EX_CONFIG of sysexits(3)
            Self::Up(_)
            | Self::Cluster(_)
            | Self::Client(_)
            | Self::Load(_)
            | Self::Node { .. }
            | Self::Overdue { .. }
            | Self::Failed(_)
            | Self::System { .. }
            | Self::Output(_) => 1,
        })
    }

    /// Whoever read the result has had enough: `meridian status | head -1` is no failure.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// An error and what caused it, on one line. A cause that the message before it tells already is
/// not told twice.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            write!(text, ": {told}").expect("writing to a String does not fail");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{CommandError, chain};

    #[test]
    fn causes_are_told_once() {
        let error = CommandError::System {
            what: "start a runtime",
            source: io::Error::other("no threads left"),
        };
        assert_eq!(chain(&error), "cannot start a runtime: no threads left");
    }

    #[test]
    fn a_reader_that_left_is_no_failure_but_a_full_disk_is() {
        let output = |kind| CommandError::Output(io::Error::from(kind));
        assert!(output(io::ErrorKind::BrokenPipe).is_closed_pipe());
        assert!(!output(io::ErrorKind::StorageFull).is_closed_pipe());
    }
}
