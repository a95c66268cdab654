//! The cluster that a demo plays with: one of its own, or one that runs.
//!
//! # Invariants
//! - A cluster of its own leaves no process and no file, however the demo ends: its `up` ends when
//!   its standard input does, and is waited for.
//! - In a cluster that ran before, faults and links are at the end as they are at a start.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::fs::File;
use std::ops::Deref;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use meridian_control_wire::purge::{PurgeOrder, PurgeReceipt};
use meridian_control_wire::selector::Selector;
use meridian_tests_chaos::order::{Action, Order};
use meridian_tests_chaos::view::Links;
use meridian_tests_load::endpoint::Endpoint;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::Client;
use crate::cluster::Cluster;
use crate::demo::pulse::Pulse;
use crate::error::CommandError;

/// A cluster of its own is ready within this; `up` gives up earlier by itself.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// From the end of its input until it is killed: its nodes drain in this time.
const ENDS_WITHIN: Duration = Duration::from_secs(25);

/// Between two looks at a process or a file.
const LOOK: Duration = Duration::from_millis(20);

/// How long an edge may take to tell its metrics: it must not hold up the second.
const PULSE_WITHIN: Duration = Duration::from_millis(800);

/// A cluster, and how it is talked to.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Its description.
    pub(crate) cluster: Cluster,
    origin: Client,
    origin_url: String,
    control: Client,
    net: Option<Client>,
    edges: Vec<Client>,
    /// Dropped last: the cluster itself.
    own: Option<Own>,
}

/// A cluster that somebody else keeps, or one of its own.
#[derive(Debug)]
pub(crate) enum Held<'a> {
    Running(&'a Stage),
    Own(Box<Stage>),
}

impl<'a> Held<'a> {
    /// The cluster that runs, or one of its own: see [`Stage::open`].
    pub(crate) async fn of(
        running: Option<&'a Stage>,
        regions: &str,
        settings: &str,
    ) -> Result<Self, CommandError> {
        match running {
            Some(stage) => Ok(Self::Running(stage)),
            None => Ok(Self::Own(Box::new(Stage::open(regions, settings).await?))),
        }
    }
}

impl Deref for Held<'_> {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        match self {
            Self::Running(stage) => stage,
            Self::Own(stage) => stage,
        }
    }
}

/// A cluster of its own.
#[derive(Debug)]
struct Own {
    up: Child,
    home: TempDir,
}

impl Stage {
    /// Starts a cluster of edges in `regions`, whose origin is spoken to as `settings` says (TOML
    /// of an `[[origin]]` table of an edge).
    pub(crate) async fn open(regions: &str, settings: &str) -> Result<Self, CommandError> {
        let own = Own::start(regions, settings)?;
        let own = own.ready().await?;
        let cluster = Cluster::read(&own.dir())?;
        Self::of(cluster, Some(own))
    }

    /// The cluster that runs in `dir`.
    pub(crate) fn running(dir: &Path) -> Result<Self, CommandError> {
        Self::of(Cluster::read(dir)?, None)
    }

    fn of(cluster: Cluster, own: Option<Own>) -> Result<Self, CommandError> {
        let token = fs::read_to_string(&cluster.token_file).ok();
        let token = token.map(|token| token.trim().to_owned());
        let missing = |what: &str| CommandError::Usage(format!("this cluster has no {what}"));
        let origin = cluster.origins.iter().find_map(|origin| origin.admin.clone());
        let origin_url = origin.ok_or_else(|| missing("origin of ours that obeys"))?;
        let control = &cluster.controls.first().ok_or_else(|| missing("control replica"))?.url;
        let edge = |url: &str| Client::new(url, token.clone());
        let edges: Result<Vec<_>, _> = cluster
            .edges
            .iter()
            .map(|entry| Ok(edge(&entry.admin)?.within(PULSE_WITHIN)))
            .collect();
        Ok(Self {
            origin: Client::new(&origin_url, token.clone())?,
            control: Client::new(control, token.clone())?,
            net: cluster.net.as_ref().map(|url| Client::new(url, token.clone())).transpose()?,
            edges: edges.map_err(|error: CommandError| error)?,
            origin_url,
            cluster,
            own,
        })
    }

    /// Where clients ask.
    pub(crate) fn edges(&self) -> Result<Vec<Endpoint>, CommandError> {
        self.cluster.edges.iter().map(|edge| endpoint(&edge.url)).collect()
    }

    /// The admin listener of the origin.
    pub(crate) fn origin_admin(&self) -> Result<Endpoint, CommandError> {
        endpoint(&self.origin_url)
    }

    /// Has the origin meet its requests with these faults.
    pub(crate) async fn faults(&self, faults: &Value) -> Result<(), CommandError> {
        self.origin.put("/v1/faults", &json!({ "faults": faults })).await?;
        Ok(())
    }

    /// Requests that the origin has counted.
    pub(crate) async fn origin_requests(&self) -> Result<u64, CommandError> {
        let counted: Value = self.origin.get("/v1/requests").await?;
        Ok(counted.get("requests").and_then(Value::as_u64).unwrap_or_default())
    }

    /// Cuts every link between edges and origin, so that whatever is sent vanishes.
    pub(crate) async fn cut_origin(&self) -> Result<(), CommandError> {
        self.link(&Order::between(Action::Cut, "edge", "origin")).await
    }

    /// All links as they were at the start.
    pub(crate) async fn heal(&self) -> Result<(), CommandError> {
        self.link(&Order::heal_all()).await
    }

    async fn link(&self, order: &Order) -> Result<(), CommandError> {
        let direct = || "the links of this cluster are direct: start it without --direct";
        let net = self.net.as_ref().ok_or_else(|| CommandError::Usage(direct().to_owned()))?;
        let _links: Links = net.post("/v1/links", order).await?;
        Ok(())
    }

    /// Marks everything stored as stale, at every edge.
    pub(crate) async fn expire_all(&self) -> Result<(), CommandError> {
        let order = PurgeOrder { selectors: vec![Selector::All], soft: true };
        let body = serde_json::to_vec(&order)
            .map_err(|error| CommandError::Failed(format!("a purge cannot be written: {error}")))?;
        let key = format!("demo-{:032x}", rand::random::<u128>());
        let target = "/v1/purges?ack=effective&timeout=3s";
        let receipt: PurgeReceipt = self.control.post_once(target, body.into(), &key).await?;
        let known: BTreeSet<_> =
            receipt.edges.pending.iter().chain(&receipt.edges.lapsed).collect();
        if known.is_empty() {
            return Ok(());
        }
        Err(CommandError::Failed("not every edge has applied a purge within 3 s".to_owned()))
    }

    /// What all edges say now.
    pub(crate) async fn pulse(&self) -> Pulse {
        let mut asking = JoinSet::new();
        for client in &self.edges {
            let client = client.clone();
            asking.spawn(async move {
                client.text("/metrics").await.ok().map(|text| Pulse::read(&text))
            });
        }
        let mut sum = Pulse::default();
        for pulse in asking.join_all().await.into_iter().flatten() {
            sum += pulse;
        }
        sum
    }

    /// Puts back what was changed, where somebody goes on with the cluster.
    pub(crate) async fn leave(&self) -> Result<(), CommandError> {
        if self.own.is_some() {
            return Ok(());
        }
        self.faults(&json!([])).await?;
        if self.net.is_some() { self.heal().await } else { Ok(()) }
    }
}

fn endpoint(url: &str) -> Result<Endpoint, CommandError> {
    url.parse().map_err(CommandError::Failed)
}

impl Own {
    fn start(regions: &str, settings: &str) -> Result<Self, CommandError> {
        let system = |what| move |source| CommandError::System { what, source };
        let home = TempDir::with_prefix("meridian-demo-").map_err(system("make a folder"))?;
        let file = home.path().join("origin.toml");
        fs::write(&file, settings).map_err(system("write the settings of a cluster"))?;
        let log = File::create(home.path().join("up.log")).map_err(system("write a log"))?;
        let program = env::current_exe().map_err(system("find this program"))?;
        let up = Command::new(program)
            .args(["up", "--supervised", "--fresh", "--port", "0", "--regions", regions])
            .arg("--origin-settings")
            .arg(&file)
            .arg("--dir")
            .arg(home.path().join("cluster"))
            .env_remove("MERIDIAN_DIR")
            .process_group(0) // Ctrl-C is for the demo, which then ends its cluster
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(system("start a cluster"))?;
        Ok(Self { up, home })
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("cluster")
    }

    async fn ready(mut self) -> Result<Self, CommandError> {
        let deadline = Instant::now() + READY_WITHIN;
        while Cluster::read(&self.dir()).is_err() {
            let ended = self.up.try_wait().is_ok_and(|ended| ended.is_some());
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(self.home.path().join("up.log")).unwrap_or_default();
                return Err(CommandError::Failed(format!("the cluster did not start:\n{log}")));
            }
            sleep(LOOK).await;
        }
        Ok(self)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.up.stdin.take()); // the order to drain
        let deadline = Instant::now() + ENDS_WITHIN;
        while self.up.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > deadline {
                // Its nodes end by themselves when it is gone.
                self.up.kill().ok();
                self.up.wait().ok();
                return;
            }
            thread::sleep(LOOK);
        }
    }
}
