//! The folder of a cluster: whose it is, and what stands where in it.
//!
//! ```text
//! up.lock        held while an `up` is alive; its process id
//! options.json   the options that the folder is held to, once it was ready with them
//! token          the secret of all scopes, readable by its owner only
//! node-secret    the secret that edges show each other, with a shield; as well
//! cluster.json   addresses; there only while every node answers
//! nodes/         NAME.toml, what each node runs with
//! log/           NAME.log, what each node says; NAME.log.1 before that
//! data/          NAME/, what a node keeps
//! ```
//!
//! # Invariants
//! - One `up` per folder: the lock goes with the process, however it ends.
//! - Nothing is removed that no `up` made; a folder with somebody else's files is refused.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use meridian_config::units::NodeName;

use crate::cluster::{self, Cluster, write_atomically};
use crate::up::error::UpError;
use crate::up::options::{Remembered, Start};

const LOCK: &str = "up.lock";
const OPTIONS: &str = "options.json";
const TOKEN: &str = "token";
const NODE_SECRET: &str = "node-secret";
const NODES: &str = "nodes";
const LOG: &str = "log";
const DATA: &str = "data";

/// Bytes of chance in a secret.
const TOKEN_BYTES: usize = 32;

/// The folder of a cluster, held by this process.
#[derive(Debug)]
pub(crate) struct ClusterDir {
    path: PathBuf,
    _lock: File,
}

impl ClusterDir {
    /// Takes the folder `dir`, which is made if it is not there, for a cluster with the options
    /// `asked`.
    pub(crate) fn open(dir: &Path, start: Start, asked: &Remembered) -> Result<Self, UpError> {
        fs::create_dir_all(dir).map_err(UpError::file("make the folder", dir))?;
        let path = dir.canonicalize().map_err(UpError::file("open", dir))?;
        refuse_foreign(&path)?;
        let lock = lock(&path)?;
        let dir = Self { path, _lock: lock };
        Cluster::remove(&dir.path).map_err(UpError::file("remove", dir.cluster_file()))?;
        match start {
            Start::Fresh => dir.empty()?,
            Start::Continue => dir.compare(asked)?,
        }
        for (name, mode) in [(NODES, 0o755), (LOG, 0o755), (DATA, 0o700)] {
            let folder = dir.path.join(name);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&folder)
                .map_err(UpError::file("make the folder", &folder))?;
        }
        Ok(dir)
    }

    /// The folder itself, as an absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the addresses stand.
    pub(crate) fn cluster_file(&self) -> PathBuf {
        self.path.join(cluster::FILE)
    }

    /// Where the configuration of a node stands.
    pub(crate) fn node_file(&self, node: &NodeName) -> PathBuf {
        self.path.join(NODES).join(format!("{node}.toml"))
    }

    /// Where the log of a node stands.
    pub(crate) fn log_file(&self, node: &NodeName) -> PathBuf {
        self.path.join(LOG).join(format!("{node}.log"))
    }

    /// Where a node keeps what it keeps.
    pub(crate) fn data(&self, node: &NodeName) -> PathBuf {
        self.path.join(DATA).join(node.as_str())
    }

    /// Where the token stands.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.path.join(TOKEN)
    }

    /// Where the secret stands that edges show each other.
    pub(crate) fn node_secret_file(&self) -> PathBuf {
        self.path.join(NODE_SECRET)
    }

    /// Makes the token, and the secret that edges show each other, unless an earlier run did.
    pub(crate) fn ensure_secrets(&self) -> Result<(), UpError> {
        ensure_secret(self.token_file())?;
        ensure_secret(self.node_secret_file())
    }

    /// From now on the folder is held to `options`.
    pub(crate) fn remember(&self, options: &Remembered) -> Result<(), UpError> {
        let file = self.path.join(OPTIONS);
        let text = serde_json::to_string_pretty(options).map_err(std::io::Error::from);
        text.and_then(|text| write_atomically(&file, text.as_bytes()))
            .map_err(UpError::file("write", file))
    }

    /// Removes what earlier runs made.
    fn empty(&self) -> Result<(), UpError> {
        for name in [NODES, LOG, DATA] {
            let folder = self.path.join(name);
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(UpError::file("remove", folder)(error));
                }
                _ => {}
            }
        }
        for name in [TOKEN, OPTIONS] {
            let file = self.path.join(name);
            match fs::remove_file(&file) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(UpError::file("remove", file)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses a folder that was made with other options.
    fn compare(&self, asked: &Remembered) -> Result<(), UpError> {
        let file = self.path.join(OPTIONS);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(UpError::file("read", file)(error)),
        };
        let differences = match serde_json::from_str::<Remembered>(&text) {
            Ok(made) if made.version == Remembered::VERSION => made.differences(asked),
            Ok(made) => format!("its version is {}", made.version),
            Err(error) => format!("its {OPTIONS} cannot be read ({error})"),
        };
        if differences.is_empty() {
            return Ok(());
        }
        Err(UpError::OtherOptions { dir: self.path.clone(), differences })
    }
}

/// Makes a secret, unless it is there.
fn ensure_secret(file: PathBuf) -> Result<(), UpError> {
    match fs::metadata(&file) {
        Ok(meta) if meta.len() > 0 => {
            return fs::set_permissions(&file, fs::Permissions::from_mode(0o600))
                .map_err(UpError::file("protect", file));
        }
        Ok(_) => {} // a crash between making and writing it
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(UpError::File { verb: "read", path: file, source }),
    }
    let bytes: [u8; TOKEN_BYTES] = rand::random();
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&file)
        .and_then(|mut file| writeln!(file, "{secret}"))
        .map_err(UpError::file("write", file))
}

/// Refuses a folder with files in it that no `up` was ever in.
fn refuse_foreign(dir: &Path) -> Result<(), UpError> {
    if dir.join(LOCK).exists() {
        return Ok(());
    }
    let mut entries = fs::read_dir(dir).map_err(UpError::file("list", dir))?;
    if entries.next().is_some() {
        return Err(UpError::ForeignFolder { dir: dir.to_owned() });
    }
    Ok(())
}

/// Takes the lock. The system gives it back when this process ends, however it ends.
fn lock(dir: &Path) -> Result<File, UpError> {
    let file = dir.join(LOCK);
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file)
        .map_err(UpError::file("open", &file))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            lock.read_to_string(&mut pid).map_err(UpError::file("read", &file))?;
            return Err(UpError::InUse { dir: dir.to_owned(), pid: pid.trim().to_owned() });
        }
        Err(TryLockError::Error(error)) => return Err(UpError::file("lock", file)(error)),
    }
    lock.set_len(0)
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(UpError::file("write", file))?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::ClusterDir;
    use crate::cli::{Cli, Command};
    use crate::up::error::UpError;
    use crate::up::options::{Options, Remembered, Start};

    fn remembered(words: &[&str]) -> Remembered {
        let words = ["meridian", "up"].iter().chain(words);
        let Command::Up(args) = Cli::try_parse_from(words).unwrap().command else { panic!() };
        Options::of(&args).unwrap().remembered()
    }

    #[test]
    fn one_up_per_folder_and_the_next_when_it_is_gone() {
        let temp = tempfile::tempdir().unwrap();
        let (path, asked) = (temp.path().join("made"), remembered(&[]));
        let first = ClusterDir::open(&path, Start::Continue, &asked).unwrap();
        let error = ClusterDir::open(&path, Start::Fresh, &asked).unwrap_err();
        let own = std::process::id().to_string();
        assert!(matches!(&error, UpError::InUse { pid, .. } if *pid == own), "{error}");
        drop(first);
        assert!(ClusterDir::open(&path, Start::Continue, &asked).is_ok());
    }

    #[test]
    fn other_options_are_refused_only_after_a_ready_run_and_not_with_fresh() {
        let temp = tempfile::tempdir().unwrap();
        let open = |start, words: &[&str]| ClusterDir::open(temp.path(), start, &remembered(words));
        drop(open(Start::Continue, &["--edges", "3"]).unwrap()); // never became ready
        let dir = open(Start::Continue, &[]).unwrap();
        dir.remember(&remembered(&[])).unwrap();
        drop(dir);
        let error = open(Start::Continue, &["--edges", "2"]).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("edges was 1, now 2"), "{error}");
        drop(open(Start::Continue, &["--port", "9"]).unwrap());
        drop(open(Start::Fresh, &["--edges", "2"]).unwrap());
        assert!(open(Start::Continue, &["--edges", "2"]).is_ok(), "fresh forgets");
    }

    #[test]
    fn a_folder_with_files_of_somebody_else_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let precious = temp.path().join("data");
        fs::write(&precious, "precious").unwrap();
        for start in [Start::Continue, Start::Fresh] {
            let error = ClusterDir::open(temp.path(), start, &remembered(&[])).unwrap_err();
            assert!(matches!(error, UpError::ForeignFolder { .. }), "{error}");
        }
        assert_eq!(fs::read_to_string(precious).unwrap(), "precious");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_token_is_kept_private_and_renewed_when_fresh() {
        let temp = tempfile::tempdir().unwrap();
        let asked = remembered(&[]);
        let token = |start| {
            let dir = ClusterDir::open(temp.path(), start, &asked).unwrap();
            dir.ensure_secrets().unwrap();
            for file in [dir.token_file(), dir.node_secret_file()] {
                let mode = fs::metadata(file).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
            }
            fs::read_to_string(dir.token_file()).unwrap()
        };
        let first = token(Start::Continue);
        assert_eq!(first.trim_end().len(), 64);
        assert_eq!(token(Start::Continue), first);
        assert_ne!(token(Start::Fresh), first);
    }

    #[test]
    fn a_stale_description_is_gone_before_anything_starts() {
        let temp = tempfile::tempdir().unwrap();
        let asked = remembered(&[]);
        let dir = ClusterDir::open(temp.path(), Start::Continue, &asked).unwrap();
        fs::write(dir.cluster_file(), "{}").unwrap();
        drop(dir);
        let dir = ClusterDir::open(temp.path(), Start::Continue, &asked).unwrap();
        assert!(!dir.cluster_file().exists());
    }
}
