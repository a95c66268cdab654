//! Why a replica or a front door does not start, or ended by itself.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What a person has to change, or what broke.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address cannot be had.
    #[error("cannot listen on {address} ({key}): {source}; is another process on that port?")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Everybody could change something.
    #[error("{key} = {address} is beyond loopback: add a [[token]], or listen on 127.0.0.1")]
    Unguarded {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A token's file cannot be used.
    #[error("token {name}: {file}: {why}")]
    Token {
        /// The token's name.
        name: String,
        /// Its file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A network of `[[prefix]]` cannot be used.
    #[error("prefix {net}: {why}")]
    Prefix {
        /// The network as written.
        net: String,
        /// What is wrong.
        why: String,
    },
    /// A replica has no address.
    #[error("replica {name} has no address in [peers]: add {name} = \"host:port\" there")]
    NoAddress {
        /// The replica's name.
        name: String,
    },
    /// The secret of the replicas cannot be used.
    #[error("raft.secret: {file}: {why}")]
    Secret {
        /// Its file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The password for etcd cannot be used.
    #[error("etcd.password: {file}: {why}")]
    Password {
        /// Its file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// This program was built without the engine that is configured.
    #[error(
        "cp.engine = {engine:?} is not in this program: build it with the feature of that name \
         (cargo build --features {engine}), or set cp.engine = \"raft\""
    )]
    NotBuilt {
        /// The engine, which is the feature's name too.
        engine: &'static str,
    },
    /// The agreement with the other replicas cannot begin.
    #[error("the agreement with the other replicas cannot begin: {0}")]
    Agreement(String),
    /// The durable state cannot be had.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task of the node panicked; its message is in the log.
    #[error("a task of this node broke: {0}")]
    Broke(#[from] tokio::task::JoinError),
}

/// Why durable state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made.
    #[error("cannot make the folder data = {folder}: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has the file.
    #[error("{file} is open in another process: a replica needs a folder `data` of its own")]
    Taken {
        /// The file.
        file: PathBuf,
    },
    /// The file cannot be used.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database said no.
    #[error("{file}: {source}")]
    Database {
        /// The file.
        file: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// Another version wrote it.
    #[error("{file} has format {found}, this version reads format {known}")]
    Format {
        /// The file.
        file: PathBuf,
        /// The format of the file.
        found: u64,
        /// The only format that this version reads.
        known: u64,
    },
    /// A replica that is alone and one that agrees with others do not go on with each other's files.
    #[error(
        "{file} is of a replica that was alone and now has others in `replicas`, or the other way \
         round, or of another cp.engine: give it another folder `data`, or the `replicas` and the \
         cp.engine that it had"
    )]
    Engine {
        /// The file.
        file: PathBuf,
    },
    /// A row makes no sense.
    #[error("{file}: table {table}, row {row}: {why}; restore the file from a copy or remove it")]
    Row {
        /// The file.
        file: PathBuf,
        /// The table.
        table: &'static str,
        /// The key of the row.
        row: String,
        /// What is wrong.
        why: String,
    },
}
