//! An etcd of one member, with a folder and a port of its own, for as long as a test lasts.
//!
//! Debian's is old, and known to be wrong under partitions of its own members: what is tested here
//! is how a replica uses etcd, not how consistent etcd is.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use meridian_config::control::Control;
use meridian_config::control::etcd::CpEngine;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server that is killed when it is dropped.
pub(crate) struct EtcdServer {
    child: Child,
    pub(crate) address: SocketAddr,
    folder: TempDir,
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the server says of itself.
async fn health(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await.ok()?;
    let mut told = String::new();
    stream.read_to_string(&mut told).await.ok()?;
    Some(told)
}

/// Whether `MERIDIAN_ENGINE=etcd` has an etcd of its own order for each replica that is not part of
/// a cluster. Then etcd has to be installed: nothing is skipped.
pub(crate) fn is_demanded() -> bool {
    std::env::var("MERIDIAN_ENGINE").is_ok_and(|engine| engine == "etcd")
}

/// The program; none: it is not installed, which is said, and nothing demands it.
fn program() -> Option<&'static str> {
    let there = Command::new("etcd").arg("--version").stdout(Stdio::null()).status();
    match there {
        Ok(status) if status.success() => Some("etcd"),
        other => {
            assert!(!is_demanded(), "MERIDIAN_ENGINE=etcd, but etcd does not run: {other:?}");
            eprintln!("skipped: etcd is not installed (apt-get install etcd-server)");
            None
        }
    }
}

fn spawned(program: &str, folder: &TempDir, address: SocketAddr) -> Child {
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let (client, peer) = (format!("http://{address}"), "http://127.0.0.1:1");
    Command::new(program)
        .args(["--data-dir", folder.path().join("data").to_str().unwrap()])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        // It is alone: nobody ever dials the address that it tells.
        .args(["--listen-peer-urls", "http://127.0.0.1:0", "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl EtcdServer {
    /// Starts one; none: there is no program, see [`program`].
    pub(crate) async fn start() -> Option<Self> {
        let program = program()?;
        let folder = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = spawned(program, &folder, address);
        let mut server = Self { child, address, folder };
        server.until_ready().await;
        Some(server)
    }

    async fn until_ready(&mut self) {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..1_000 {
            look.tick().await;
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = std::fs::read_to_string(self.folder.path().join("log"));
                panic!("etcd ended with {status}: {log:?}");
            }
            if health(self.address).await.is_some_and(|told| told.contains("true")) {
                return;
            }
        }
        panic!("etcd does not answer");
    }

    /// Ends it between two instructions, and everything that it had is gone; starts it empty.
    pub(crate) async fn lose_everything(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
        self.child = spawned("etcd", &self.folder, self.address);
        self.until_ready().await;
    }

    /// Has it order for the replica of `config`.
    pub(crate) fn order_for(&self, config: &mut Control) {
        order_at(self.address, config);
    }
}

/// Has the etcd at `address` order for the replica of `config`.
pub(crate) fn order_at(address: SocketAddr, config: &mut Control) {
    config.cp.engine = CpEngine::Etcd;
    config.etcd.endpoints = vec![address.to_string().parse().unwrap()];
    config.etcd.allow_local_reads = true;
}

/// One of its own for the replica of `config`, where the environment demands it.
pub(crate) async fn demanded(config: &mut Control) -> Option<EtcdServer> {
    if !is_demanded() {
        return None;
    }
    let server = EtcdServer::start().await;
    server.iter().for_each(|server| server.order_for(config));
    server
}
