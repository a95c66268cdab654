//! Three replicas, each on threads of its own, whose links can be cut and whose disks can be lost.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;

use meridian_config::control::Control;
use meridian_control::replica;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::cable::Cable;
use crate::kit::{Answer, Ask, CONFIGURER, PURGER, any_port, ask, control_config, eventually};

/// A cluster of replicas. Their names are `control-1` and so on, their numbers begin at 0.
pub(crate) struct Cluster {
    configs: Vec<Control>,
    addresses: Vec<SocketAddr>,
    /// From the one that dials to the one that is dialled.
    cables: BTreeMap<(usize, usize), Cable>,
    running: Vec<Mutex<Option<Running>>>,
    _folders: Vec<TempDir>,
    _ports: Vec<Socket>,
}

/// A replica on a runtime of its own: killed, all of it is gone at once.
struct Running {
    runtime: Option<Runtime>,
    stop: CancellationToken,
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A port that stays ours over restarts of whoever listens on it.
fn reserved() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&any_port().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

impl Cluster {
    /// `count` replicas that have agreed on a leader.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, |_| ()).await
    }

    pub(crate) async fn start_with(count: usize, change: impl Fn(&mut Control)) -> Self {
        let cluster = Self::configured(count, change).await;
        for n in 0..count {
            cluster.resume(n);
        }
        cluster.leader().await;
        cluster
    }

    /// All of it, none of it running.
    pub(crate) async fn configured(count: usize, change: impl Fn(&mut Control)) -> Self {
        let (mut folders, mut ports, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            folders.push(tempfile::tempdir().unwrap());
            let (socket, address) = reserved();
            ports.push(socket);
            addresses.push(address);
        }
        let mut cables = BTreeMap::new();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                cables.insert((from, to), Cable::to(addresses[to]).await);
            }
        }
        let names: Vec<_> = (0..count).map(|n| name(n).parse().unwrap()).collect();
        let config = |n: usize| {
            let mut config = control_config(folders[n].path());
            config.name = name(n).parse().unwrap();
            config.listen = addresses[n];
            config.replicas.clone_from(&names);
            for to in (0..count).filter(|to| *to != n) {
                let cable: &Cable = &cables[&(n, to)];
                let address = cable.address.to_string().parse().unwrap();
                config.peers.insert(name(to).parse().unwrap(), address);
            }
            change(&mut config);
            config
        };
        let configs = (0..count).map(config).collect();
        let running = (0..count).map(|_| Mutex::new(None)).collect();
        Self { configs, addresses, cables, running, _folders: folders, _ports: ports }
    }

    /// Starts the replica `n`, where it was.
    pub(crate) fn resume(&self, n: usize) {
        let config = self.configs[n].clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let (tell, ended) = tokio::sync::oneshot::channel();
        let stopped = stop.clone();
        runtime.spawn(async move {
            let bound = replica::bind(config).await.unwrap();
            bound.serve(stopped).await.unwrap();
            let _told: Result<(), ()> = tell.send(());
        });
        let running = Running { runtime: Some(runtime), stop, ended };
        *self.running[n].lock().unwrap() = Some(running);
    }

    /// Ends the replica `n` between two instructions.
    pub(crate) async fn kill(&self, n: usize) {
        let mut running = self.running[n].lock().unwrap().take().unwrap();
        let runtime = running.runtime.take().unwrap();
        // Waits for the threads: a disk that is still being written is no disk of the dead.
        let limit = std::time::Duration::from_secs(20);
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(limit)).await.unwrap();
    }

    /// Ends the replica `n` as an operator does.
    pub(crate) async fn stop(&self, n: usize) {
        let mut running = self.running[n].lock().unwrap().take().unwrap();
        running.stop.cancel();
        let limit = std::time::Duration::from_secs(20);
        tokio::time::timeout(limit, &mut running.ended).await.unwrap().unwrap();
    }

    pub(crate) async fn stop_all(self) {
        for n in 0..self.running.len() {
            if self.runs(n) {
                self.stop(n).await;
            }
        }
    }

    fn runs(&self, n: usize) -> bool {
        self.running[n].lock().unwrap().is_some()
    }

    pub(crate) fn data(&self, n: usize) -> PathBuf {
        self.configs[n].data.clone()
    }

    pub(crate) fn address(&self, n: usize) -> SocketAddr {
        self.addresses[n]
    }

    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Cuts the replica `n` off the others, or lets it back.
    pub(crate) fn isolate(&self, n: usize, cut: bool) {
        for ((from, to), cable) in &self.cables {
            if *from == n || *to == n {
                cable.set_cut(cut);
            }
        }
    }

    pub(crate) fn ask(&self, n: usize, method: &str, target: &str) -> Ask {
        ask(self.addresses[n], method, target)
    }

    pub(crate) fn get(&self, n: usize, target: &str) -> Ask {
        self.ask(n, "GET", target)
    }

    pub(crate) fn purge(&self, n: usize, tag: &str) -> Ask {
        self.ask(n, "POST", "/v1/purges").bearer(PURGER).body(json!({ "tag": tag }))
    }

    pub(crate) fn put(&self, n: usize, key: &str, value: &Value) -> Ask {
        let target = format!("/v1/config/{key}");
        self.ask(n, "PUT", &target).bearer(CONFIGURER).body(json!({ "value": value }))
    }

    /// What the replica `n` says of itself, if it is there.
    pub(crate) async fn status(&self, n: usize) -> Option<Value> {
        self.get(n, "/v1/status").try_send().await.map(|answer| answer.json())
    }

    /// The replica on which a majority agrees, as soon as there is one.
    pub(crate) async fn leader(&self) -> usize {
        self.leader_but(usize::MAX).await
    }

    /// The leader that a majority follows, and that is not `other`.
    pub(crate) async fn leader_but(&self, other: usize) -> usize {
        eventually("there is a leader", async || {
            let mut votes = BTreeMap::new();
            for n in (0..self.len()).filter(|n| *n != other && self.runs(*n)) {
                if let Some(name) =
                    self.status(n).await.and_then(|s| s["leader"].as_str().map(str::to_owned))
                {
                    *votes.entry(name).or_insert(0) += 1;
                }
            }
            let (name, count) = votes.into_iter().max_by_key(|(_, count)| *count)?;
            let leader = (0..self.len()).find(|n| self::name(*n) == name)?;
            (count * 2 > self.len() && leader != other).then_some(leader)
        })
        .await
    }

    /// The purges that the replica `n` has, as of now.
    pub(crate) async fn history(&self, n: usize) -> Vec<Value> {
        let (mut purges, mut after) = (Vec::new(), String::new());
        loop {
            let answer = self.get(n, &format!("/v1/purges{after}")).send().await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let page = answer.json();
            purges.extend(page["purges"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next"].as_str() else { return purges };
            after = format!("?after={next}");
        }
    }

    /// Waits until every replica that runs answers reads, and checks that they say the same.
    pub(crate) async fn agree(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for n in (0..self.len()).filter(|n| self.runs(*n)) {
            let ready = async || self.done(self.get(n, "/v1/purges")).await;
            eventually("a replica answers reads", ready).await;
            all.push(self.history(n).await);
        }
        let first = all.pop().unwrap();
        assert!(all.iter().all(|other| *other == first), "{all:?} {first:?}");
        first
    }

    async fn done(&self, asked: Ask) -> Option<Answer> {
        asked.try_send().await.filter(|answer| answer.status < 300)
    }
}

/// The name of the replica `n`.
pub(crate) fn name(n: usize) -> String {
    format!("control-{}", n + 1)
}
