//! `cluster.json`: what every outside script starts from, written by `up`, read by the others.
//!
//! Answers what stands in it and where it is; never whether the nodes are well.
//!
//! # Invariants
//! - It appears and changes in one step (a rename), so nobody reads half of it.
//! - `net` is `null` as long as the links between the nodes cannot be cut.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use meridian_config::shared::Location;
use meridian_config::units::{NodeName, Region};
use serde::{Deserialize, Serialize};

/// The file's name in the folder of a cluster.
pub(crate) const FILE: &str = "cluster.json";

/// The form of the file that this version writes and reads.
pub(crate) const VERSION: u32 = 1;

/// A running cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    /// Of this form.
    pub(crate) version: u32,
    /// `cp` or `ap`.
    pub(crate) consistency: String,
    /// The front door.
    pub(crate) front: String,
    /// Where links are cut and delayed; `null` while they cannot be.
    pub(crate) net: Option<String>,
    /// The file with the token of all scopes, as an absolute path.
    pub(crate) token_file: PathBuf,
    /// The origins.
    pub(crate) origins: Vec<OriginEntry>,
    /// The control replicas.
    pub(crate) controls: Vec<ControlEntry>,
    /// The edges.
    pub(crate) edges: Vec<EdgeEntry>,
}

/// An origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OriginEntry {
    /// Its name.
    pub(crate) name: NodeName,
    /// The region it stands in.
    pub(crate) region: Region,
    /// Where edges reach it.
    pub(crate) url: String,
    /// Its admin listener; `null` if it is somebody else's web server.
    pub(crate) admin: Option<String>,
    /// Its process; `null` if it is somebody else's.
    pub(crate) pid: Option<u32>,
}

/// A control replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControlEntry {
    /// Its name.
    pub(crate) name: NodeName,
    /// The region it stands in.
    pub(crate) region: Region,
    /// Its API.
    pub(crate) url: String,
    /// Its process.
    pub(crate) pid: Option<u32>,
}

/// An edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EdgeEntry {
    /// Its name.
    pub(crate) name: NodeName,
    /// The region it stands in.
    pub(crate) region: Region,
    /// The city, for people.
    pub(crate) city: String,
    /// Latitude and longitude in degrees.
    pub(crate) location: Location,
    /// Where clients reach it.
    pub(crate) url: String,
    /// Its admin listener.
    pub(crate) admin: String,
    /// Its process.
    pub(crate) pid: Option<u32>,
}

/// Why there is no cluster to talk to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// No `up` runs there.
    #[error(
        "no cluster runs in {}: there is no {FILE}; start one with `meridian up`, \
         or name another with --dir or --control", dir.display()
    )]
    Absent {
        /// The folder.
        dir: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} is no description of a cluster", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// Where it goes wrong.
        source: serde_json::Error,
    },
    /// Another version wrote the file.
    #[error("{} has version {found}; this meridian reads version {VERSION}", file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// The version in it.
        found: u32,
    },
    /// `--control` names what cannot be dialled.
    #[error("--control {url}: {rule}")]
    ControlUrl {
        /// What was given.
        url: String,
        /// What it should be.
        rule: String,
    },
    /// The description lists no control replica.
    #[error("the {FILE} in {} names no control replica", dir.display())]
    NoControl {
        /// The folder.
        dir: PathBuf,
    },
}

impl ClusterError {
    /// Whether the command line is to blame.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::ControlUrl { .. })
    }
}

impl Cluster {
    /// Reads the cluster that runs in `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self, ClusterError> {
        let file = dir.join(FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ClusterError::Absent { dir: dir.to_owned() });
            }
            Err(source) => return Err(ClusterError::Unreadable { file, source }),
        };
        let version = |text| serde_json::from_str::<Versioned>(text);
        match version(&text) {
            Ok(Versioned { version: VERSION }) => serde_json::from_str(&text)
                .map_err(|source| ClusterError::Malformed { file, source }),
            Ok(Versioned { version: found }) => Err(ClusterError::Version { file, found }),
            Err(source) => Err(ClusterError::Malformed { file, source }),
        }
    }

    /// Writes the file in `dir`, in one step.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        write_atomically(&dir.join(FILE), text.as_bytes())
    }

    /// Removes the file from `dir`, if it is there.
    pub(crate) fn remove(dir: &Path) -> io::Result<()> {
        match fs::remove_file(dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// What every version of the file has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Puts `bytes` into `file` so that a reader sees all of the old or all of the new.
pub(crate) fn write_atomically(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    fs::write(&new, bytes)?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Cluster, ClusterError};

    /// The example of the contract, with what it leaves out filled in.
    const CONTRACT: &str = r#"{"version":1,"consistency":"cp","front":"http://127.0.0.1:8080","net":null,"token_file":"/abs/.meridian/token","origins":[{"name":"origin-1","region":"iad","url":"http://127.0.0.1:8083","admin":"http://127.0.0.1:8084","pid":1}],"controls":[{"name":"control-1","region":"iad","url":"http://127.0.0.1:8082","pid":2}],"edges":[{"name":"fra-1","region":"fra","city":"Frankfurt","location":[50.03,8.57],"url":"http://127.0.0.1:8085","admin":"http://127.0.0.1:8086","pid":3}]}"#;

    #[test]
    fn the_file_has_the_fields_of_the_contract_in_its_order() {
        let cluster: Cluster = serde_json::from_str(CONTRACT).unwrap();
        assert_eq!(serde_json::to_string(&cluster).unwrap(), CONTRACT);
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let cluster: Cluster = serde_json::from_str(CONTRACT).unwrap();
        assert!(matches!(Cluster::read(dir.path()), Err(ClusterError::Absent { .. })));
        cluster.write(dir.path()).unwrap();
        assert_eq!(Cluster::read(dir.path()).unwrap(), cluster);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        Cluster::remove(dir.path()).unwrap();
        Cluster::remove(dir.path()).unwrap();
        assert!(matches!(Cluster::read(dir.path()), Err(ClusterError::Absent { .. })));
    }

    #[test]
    fn another_version_and_half_a_file_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(super::FILE);
        fs::write(&file, r#"{"version":2,"whatever":[]}"#).unwrap();
        let error = Cluster::read(dir.path()).unwrap_err();
        assert!(matches!(error, ClusterError::Version { found: 2, .. }), "{error}");
        fs::write(&file, &CONTRACT[..100]).unwrap();
        let error = Cluster::read(dir.path()).unwrap_err();
        assert!(matches!(error, ClusterError::Malformed { .. }), "{error}");
    }
}
