//! A whole cluster: `meridian up` as a process, and what its `cluster.json` says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;

use crate::client::{Client, Reply};
use crate::process::{Ended, Process, Signal, all_gone, children, runs_meridian, send};
use crate::wait::{PATIENCE, eventually, soon};

/// How long a cluster may take to be ready. Far above what it takes: the machine may be busy.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A running cluster. Dropped, it is told to end; a test whose cluster leaves a process fails.
#[derive(Debug)]
pub struct Cluster {
    up: Process,
    dir: PathBuf,
    /// Every process that `up` had as a child when the harness looked.
    seen: Vec<u32>,
    _home: TempDir,
}

/// `cluster.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ClusterFile {
    /// Of its form: 1.
    pub version: u32,
    /// `cp` or `ap`.
    pub consistency: String,
    /// The front door.
    pub front: String,
    /// Where links are shown and changed; none if they are direct.
    pub net: Option<String>,
    /// The file with a token of all scopes.
    pub token_file: PathBuf,
    /// The origins; none if the site stands elsewhere.
    pub origins: Vec<Node>,
    /// The control replicas.
    pub controls: Vec<Node>,
    /// The edges.
    pub edges: Vec<Node>,
}

/// One node in `cluster.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The region it stands in.
    pub region: String,
    /// Where it listens.
    pub url: String,
    /// Its admin listener, if it has one of its own.
    #[serde(default)]
    pub admin: Option<String>,
    /// Its process; none if it is somebody else's.
    pub pid: Option<u32>,
}

impl Node {
    /// Its admin listener.
    pub fn admin(&self) -> &str {
        self.admin.as_deref().unwrap()
    }

    /// Whether something at its address answers its health check.
    pub async fn is_healthy(&self) -> bool {
        let listener = self.admin.as_deref().unwrap_or(&self.url);
        let answer = Client::try_get(&format!("{listener}/healthz")).await;
        answer.is_ok_and(|reply| reply.status == 200)
    }
}

impl Cluster {
    /// Starts `meridian up --port 0` in a folder of its own with further `arguments`, and waits
    /// until it is ready.
    pub async fn start(arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("meridian");
        let mut all = vec!["up", "--port", "0", "--dir", dir.to_str().unwrap()];
        all.extend(arguments);
        let up = Process::start(home.path(), &all);
        let mut cluster = Self { up, dir, seen: Vec::new(), _home: home };
        cluster.ready().await;
        cluster
    }

    async fn ready(&mut self) {
        let file = eventually("cluster.json is there", START_PATIENCE, async || {
            assert!(self.up.runs(), "`meridian up` has ended:\n{}", self.up.stderr());
            read(&self.dir.join("cluster.json"))
        })
        .await;
        self.see();
        let named: Vec<u32> = file.nodes().filter_map(|node| node.pid).collect();
        let all_seen = named.iter().all(|pid| self.seen.contains(pid));
        assert!(all_seen, "{named:?} in cluster.json, but {:?} are children", self.seen);
    }

    /// What `cluster.json` says now.
    pub fn file(&self) -> ClusterFile {
        read(&self.dir.join("cluster.json")).expect("cluster.json is there")
    }

    /// Remembers the processes that `up` has now.
    fn see(&mut self) {
        let now = children(self.up.pid());
        self.seen.extend(now);
        self.seen.sort_unstable();
        self.seen.dedup();
    }

    /// Its folder, for `--dir`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The `meridian up` process itself.
    pub fn up(&self) -> &Process {
        &self.up
    }

    /// The first edge of a region.
    pub fn edge(&self, region: &str) -> Node {
        let edges = self.file().edges;
        edges.into_iter().find(|edge| edge.region == region).unwrap()
    }

    /// The token of all scopes.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.file().token_file).unwrap().trim().to_owned()
    }

    /// Asks the origin's own count of requests for `path`, or for all paths.
    pub async fn origin_requests(&self, path: Option<&str>) -> u64 {
        let origin = self.file().origins.first().unwrap().clone();
        let query = path.map(|path| format!("?path={path}")).unwrap_or_default();
        let counted = Client::get(&format!("{}/v1/requests{query}", origin.admin())).await.json();
        counted.get("requests").and_then(serde_json::Value::as_u64).unwrap()
    }

    /// Sets the faults of the origin.
    pub async fn set_faults(&self, faults: serde_json::Value) -> Reply {
        let origin = self.file().origins.first().unwrap().clone();
        let body = serde_json::json!({ "faults": faults }).to_string();
        Client::put_json(&format!("{}/v1/faults", origin.admin()), &body, None).await
    }

    /// Kills a node with SIGKILL, as `kill -9` does, and says what it was.
    pub fn kill(&self, name: &str) -> Node {
        let node = self.file().node(name);
        send(node.pid.unwrap(), Signal::KILL);
        node
    }

    /// The process of the front door: the child that no entry of `cluster.json` names.
    pub fn front_pid(&self) -> Option<u32> {
        let named: Vec<u32> = self.file().nodes().filter_map(|node| node.pid).collect();
        children(self.up.pid()).into_iter().find(|pid| !named.contains(pid))
    }

    /// Kills the front door with SIGKILL and says which process it was.
    pub fn kill_front(&self) -> u32 {
        let pid = self.front_pid().expect("the front door runs");
        send(pid, Signal::KILL);
        pid
    }

    /// Waits until a node that was killed is there again, as another process and at the same
    /// address, and healthy.
    pub async fn restarted(&mut self, killed: &Node) -> Node {
        let what = format!("{} is restarted", killed.name);
        let node = eventually(what, PATIENCE, async || {
            let node = read(&self.dir.join("cluster.json"))?.node(&killed.name);
            (node.pid != killed.pid && node.is_healthy().await).then_some(node)
        })
        .await;
        assert_eq!((&node.url, &node.admin), (&killed.url, &killed.admin), "{}", killed.name);
        self.see();
        node
    }

    /// Ends the cluster with a signal, checks that nothing of it is left, and says what `up` said.
    pub async fn stop(mut self, signal: Signal) -> Ended {
        let file = self.file();
        self.see();
        self.up.signal(signal);
        let ended = self.up.end().await;
        all_gone(&self.seen).await;
        assert!(!self.dir.join("cluster.json").exists(), "cluster.json is left behind");
        file.nobody_listens().await;
        ended
    }

    /// Kills `up` itself with SIGKILL and waits until its children have ended by themselves.
    pub async fn orphan(mut self) {
        let file = self.file();
        self.see();
        self.up.signal(Signal::KILL);
        self.up.end().await;
        all_gone(&self.seen).await;
        file.nobody_listens().await;
    }
}

impl ClusterFile {
    /// All nodes but the front door, which has no entry of its own.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.origins.iter().chain(&self.controls).chain(&self.edges)
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Node {
        self.nodes().find(|node| node.name == name).expect("the node is in cluster.json").clone()
    }

    /// Every address of the cluster.
    pub fn addresses(&self) -> Vec<String> {
        let nodes = self.nodes().flat_map(|node| [Some(&node.url), node.admin.as_ref()]);
        let others = [Some(&self.front), self.net.as_ref()];
        nodes.chain(others).flatten().map(|url| address(url).to_owned()).collect()
    }

    async fn nobody_listens(&self) {
        for address in self.addresses() {
            let answer = tokio::net::TcpStream::connect(&address).await;
            assert!(answer.is_err(), "somebody still listens at {address}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.up.runs() {
            self.see();
            self.up.signal(Signal::TERM);
        }
        let ended = soon(PATIENCE, || !self.up.runs());
        let gone = ended && soon(PATIENCE, || self.seen.iter().all(|pid| !runs_meridian(*pid)));
        if !gone {
            for pid in self.seen.iter().filter(|pid| runs_meridian(**pid)) {
                send(*pid, Signal::KILL);
            }
            if !std::thread::panicking() {
                panic!("the cluster left processes behind");
            }
        }
    }
}

/// `host:port` of a URL without a path.
pub fn address(url: &str) -> &str {
    url.strip_prefix("http://").unwrap().trim_end_matches('/')
}

/// Reads `cluster.json`, if it is there. It is replaced atomically, so it is whole.
fn read(file: &Path) -> Option<ClusterFile> {
    let text = std::fs::read_to_string(file).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}")))
}
