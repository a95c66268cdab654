//! `meridian up`: a whole CDN on this machine, one process per node.
//!
//! In reading order: [`options`] what was asked for · [`dir`] the folder · [`ports`] reserved for
//! good · [`plan`] nodes and their configuration · [`links`] between them · [`child`] one process ·
//! [`log`] what it says · [`report`] what a person is told. This file starts, watches and ends all
//! of them.
//!
//! # Invariants
//! - `cluster.json` is there only while every node has answered, and is gone at the end.
//! - At the end no process is left, whatever happened in between.
//! - Links live in this process, on threads of their own, from before the first node to after the
//!   last: they work whatever dies, and a node that is started again finds them where they were.

mod child;
mod dir;
pub(crate) mod error;
mod links;
mod log;
mod options;
mod plan;
mod ports;
mod report;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use meridian_config::units::NodeName;
use meridian_tests_chaos::net::Net;
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::cli::UpArgs;
use crate::cluster::Cluster;
use crate::error::CommandError;
use crate::output::{Format, write_result, write_text};
use crate::run::{Signals, follow_stdin, runtime};
use crate::up::child::{Event, Orders, Spec, What, supervise, wait_ready};
use crate::up::dir::ClusterDir;
use crate::up::error::UpError;
use crate::up::options::{Options, Site};
use crate::up::plan::{Kind, Node, Plan};
use crate::up::ports::Ports;

/// Every node answers within this, or `up` gives up.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Events that wait to be told; more of what nodes say stays in their logs.
const MOST_EVENTS: usize = 1_024;

/// Lines of its log that a node's failure is told with.
const TAIL: usize = 12;

/// Open files that are asked for, if the system lets us.
const MOST_OPEN_FILES: u64 = 65_536;

/// Threads that watch and hear the nodes.
const WORKERS: usize = 2;

/// Runs the CDN until a signal ends it.
pub(crate) fn up(args: &UpArgs) -> Result<(), CommandError> {
    let started = Instant::now();
    let options = Options::of(args)?;
    let dir = ClusterDir::open(&options.dir, options.start, &options.remembered())?;
    let (mut ports, front) = Ports::from(options.port)?;
    let mut plan = Plan::new(&options, &dir, &mut ports, front)?;
    dir.ensure_secrets()?;
    raise_open_files();
    if args.supervised {
        follow_stdin(end_myself);
    }
    let links = plan.links.take().map(Net::start).transpose().map_err(UpError::Links)?;
    for node in &plan.nodes {
        let file = dir.node_file(&node.name);
        fs::write(&file, &node.config).map_err(UpError::file("write", file))?;
    }
    let runtime = runtime(WORKERS)?;
    let outcome = runtime.block_on(async {
        let signals = Signals::new()?;
        let mut running = Running::start(&plan, &dir);
        let outcome = running.lead(&options, &dir, signals, started).await;
        running.kill_all().await;
        outcome
    });
    Cluster::remove(dir.path()).map_err(UpError::file("remove", dir.cluster_file()))?;
    drop(links); // needed until the last node has drained
    drop(ports); // held until nobody listens any more
    outcome
}

/// Each connection over a link takes two files here, and nodes inherit the limit. Who may not have
/// more goes on with what there is.
pub(crate) fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(MOST_OPEN_FILES, |maximum| maximum.min(MOST_OPEN_FILES));
    if current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).ok();
    }
}

/// The same as a signal from outside: it drains, at any moment of the start too.
fn end_myself() {
    kill_process(getpid(), Signal::TERM).ok(); // who may run may tell itself to end
}

/// The nodes, running.
struct Running {
    nodes: Vec<Watched>,
    cluster: Cluster,
    events: mpsc::Receiver<Event>,
    stages: BTreeMap<Kind, Stage>,
    kill: CancellationToken,
}

/// A node and what is known of its process.
struct Watched {
    node: Node,
    spec: Arc<Spec>,
    /// The process that was ready last.
    pid: Option<u32>,
}

/// The nodes that are drained together.
struct Stage {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    /// Starts every node, all at once: whoever needs another keeps asking until it is there.
    fn start(plan: &Plan, dir: &ClusterDir) -> Self {
        let (sender, events) = mpsc::channel(MOST_EVENTS);
        let kill = CancellationToken::new();
        let stage = || Stage { stop: CancellationToken::new(), tasks: JoinSet::new() };
        let mut stages: BTreeMap<Kind, Stage> = Kind::ALL.map(|kind| (kind, stage())).into();
        let mut nodes = Vec::new();
        for (index, node) in plan.nodes.iter().enumerate() {
            let spec = Arc::new(Spec {
                index,
                kind: node.kind,
                config: dir.node_file(&node.name),
                log: dir.log_file(&node.name),
                health: format!("http://{}", node.health),
                drain: node.drain,
            });
            if let Some(stage) = stages.get_mut(&node.kind) {
                let orders = Orders { stop: stage.stop.clone(), kill: kill.clone() };
                stage.tasks.spawn(supervise(Arc::clone(&spec), sender.clone(), orders));
            }
            nodes.push(Watched { node: node.clone(), spec, pid: None });
        }
        Self { nodes, cluster: plan.cluster.clone(), events, stages, kill }
    }

    /// From the start to the drained end.
    async fn lead(
        &mut self,
        options: &Options,
        dir: &ClusterDir,
        mut signals: Signals,
        started: Instant,
    ) -> Result<(), CommandError> {
        let early = tokio::select! { // dropping the wait is how it is given up
            ready = self.become_ready(started + READY_WITHIN) => ready.map(|()| None),
            signal = signals.next() => Ok(Some(signal)),
        }?;
        let signal = if let Some(signal) = early {
            signal
        } else {
            self.describe(dir)?;
            dir.remember(&options.remembered())?;
            self.tell_addresses(options, dir, started.elapsed())?;
            self.watch(dir, &mut signals).await?
        };
        report::event("up", &format!("{signal}: draining (again: end at once)"));
        self.drain(dir, &mut signals).await
    }

    /// Waits until every node is ready; gives up at the first that dies, or at the deadline.
    async fn become_ready(&mut self, deadline: Instant) -> Result<(), UpError> {
        let timeout = sleep_until(deadline.into());
        tokio::pin!(timeout);
        while self.nodes.iter().any(|watched| watched.pid.is_none()) {
            tokio::select! { // dropping `recv` loses no event
                event = self.events.recv() => self.while_starting(event)?,
                () = &mut timeout => {
                    let late = self.nodes.iter().find(|watched| watched.pid.is_none());
                    let what = format!("was not ready within {} s", READY_WITHIN.as_secs());
                    return late.map_or(Ok(()), |watched| Err(not_ready(watched, what)));
                }
            }
        }
        self.become_known(deadline).await
    }

    /// Waits until the front door knows every edge: a client is then sent to the nearest, and
    /// not to the first that happened to be registered.
    async fn become_known(&self, deadline: Instant) -> Result<(), UpError> {
        let edges = self.nodes.iter().filter(|watched| watched.node.kind == Kind::Edge).count();
        let Some(front) = self.nodes.iter().find(|watched| watched.node.kind == Kind::Front) else {
            return Ok(());
        };
        let target = format!("/readyz?edges={edges}");
        let ready = wait_ready(&front.spec.health, &target);
        timeout_at(deadline.into(), ready).await.map_err(|_elapsed| {
            let within = READY_WITHIN.as_secs();
            not_ready(front, format!("did not hear of all {edges} edges within {within} s"))
        })
    }

    fn while_starting(&mut self, event: Option<Event>) -> Result<(), UpError> {
        let Some(Event { index, what }) = event else { return Ok(()) };
        let Some(watched) = self.nodes.get_mut(index) else { return Ok(()) };
        match what {
            What::Ready { pid } => watched.pid = Some(pid),
            What::Died(death) => return Err(not_ready(watched, report::death(&death))),
            // If it matters, the node does not get ready, and the end of its log is told then.
            What::Said(_) | What::Late | What::Killed => {}
        }
        Ok(())
    }

    /// Tells what happens to the nodes until a signal comes.
    async fn watch(
        &mut self,
        dir: &ClusterDir,
        signals: &mut Signals,
    ) -> Result<&'static str, UpError> {
        loop {
            tokio::select! { // dropping either loses nothing
                signal = signals.next() => return Ok(signal),
                Some(event) = self.events.recv() => self.tell(event, Some(dir))?,
            }
        }
    }

    /// Tells one event; a node that is ready again stands in the description with its new
    /// process, as long as there is one (`dir`).
    fn tell(&mut self, event: Event, dir: Option<&ClusterDir>) -> Result<(), UpError> {
        let Some(watched) = self.nodes.get_mut(event.index) else { return Ok(()) };
        let name = watched.node.name.to_string();
        match event.what {
            What::Said(text) => report::event(&name, &text),
            What::Died(death) => {
                report::event(&name, &format!("{}; starting it again", report::death(&death)));
            }
            What::Late => report::event(&name, "is still not ready; see its log"),
            What::Killed => report::event(&name, "did not end in time and was killed"),
            What::Ready { pid } => {
                watched.pid = Some(pid);
                let Some(dir) = dir else { return Ok(()) }; // too late to matter
                report::event(&name, &format!("is ready again (pid {pid})"));
                return self.describe(dir);
            }
        }
        Ok(())
    }

    /// Writes `cluster.json` with the processes as they are.
    fn describe(&mut self, dir: &ClusterDir) -> Result<(), UpError> {
        let pid = |nodes: &[Watched], name: &NodeName| {
            nodes.iter().find(|watched| watched.node.name == *name).and_then(|found| found.pid)
        };
        for origin in &mut self.cluster.origins {
            origin.pid = pid(&self.nodes, &origin.name);
        }
        for control in &mut self.cluster.controls {
            control.pid = pid(&self.nodes, &control.name);
        }
        for edge in &mut self.cluster.edges {
            edge.pid = pid(&self.nodes, &edge.name);
        }
        self.cluster.write(dir.path()).map_err(UpError::file("write", dir.cluster_file()))
    }

    fn tell_addresses(
        &self,
        options: &Options,
        dir: &ClusterDir,
        took: Duration,
    ) -> Result<(), CommandError> {
        if options.format == Format::Json {
            return write_result(&self.cluster, Format::Json, |_| String::new());
        }
        let nodes: Vec<_> = self.nodes.iter().map(|seen| (&seen.node, seen.pid)).collect();
        let origin = match &options.site {
            Site::Server(address) => Some(format!("http://{address}")),
            Site::Sample | Site::Folder(_) | Site::Trace(_) => None,
        };
        let front = &self.cluster.front;
        let dir = (dir.path(), self.cluster.net.is_some());
        write_text(&report::addresses(&nodes, front, origin.as_deref(), dir, took))
    }

    /// Ends the nodes, stage by stage; a signal ends all that is left at once.
    async fn drain(&mut self, dir: &ClusterDir, signals: &mut Signals) -> Result<(), CommandError> {
        Cluster::remove(dir.path()).map_err(UpError::file("remove", dir.cluster_file()))?;
        for kind in Kind::ALL {
            let Some(mut stage) = self.stages.remove(&kind) else { continue };
            stage.stop.cancel();
            loop {
                tokio::select! { // dropping any of these loses nothing
                    ended = stage.tasks.join_next() => match ended {
                        Some(ended) => ended.map_err(UpError::Panicked)?,
                        None => break,
                    },
                    Some(event) = self.events.recv() => self.tell(event, None)?,
                    _ = signals.next(), if !self.kill.is_cancelled() => self.kill.cancel(),
                }
            }
        }
        while let Ok(event) = self.events.try_recv() {
            self.tell(event, None)?;
        }
        report::event("up", "all nodes have ended");
        Ok(())
    }

    /// Ends whatever is left, without regard; nothing after a drain.
    async fn kill_all(&mut self) {
        self.kill.cancel();
        let mut stages = std::mem::take(&mut self.stages);
        for stage in stages.values_mut() {
            stage.stop.cancel();
        }
        let ended = async {
            for stage in stages.values_mut() {
                while stage.tasks.join_next().await.is_some() {}
            }
        };
        tokio::select! { // what nobody hears must not keep the nodes' tasks from ending
            _ = timeout(READY_WITHIN, ended) => {}
            () = async { while self.events.recv().await.is_some() {} } => {}
        }
    }
}

/// `what` a node did instead of getting ready, with the end of its log.
fn not_ready(watched: &Watched, what: String) -> UpError {
    let log = log::tail(&watched.spec.log, TAIL);
    UpError::NotReady { node: watched.node.name.clone(), what, log }
}
