//! One node as a child process: started, watched, started again, drained.
//!
//! # Invariants
//! - Unless it was told to stop, a child that dies is started again within a second.
//! - Told to stop, a child is gone within its drain time and [`KILL_AFTER`].
//! - Whatever becomes of `up`, the child's standard input closes, and it ends by itself.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::up::log::{Attention, LogFile, for_people, read_lines};
use crate::up::plan::Kind;

/// How often a starting node is asked whether it is ready.
const READY_STEP: Duration = Duration::from_millis(10);

/// A restarted node that is not ready by then is reported.
const READY_LATE: Duration = Duration::from_secs(10);

/// The longest pause before a child is started again.
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// The pause before the second restart in a row; then it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Who lived this long did not die of its start.
const LIVED: Duration = Duration::from_secs(5);

/// Beyond its drain time, a node gets this long until it is killed.
const KILL_AFTER: Duration = Duration::from_secs(1);

/// Who holds a dead child's standard error open is not waited for longer than this.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How to run one node.
#[derive(Debug)]
pub(crate) struct Spec {
    /// Its place in the plan.
    pub(crate) index: usize,
    /// Its role.
    pub(crate) kind: Kind,
    /// Its configuration file.
    pub(crate) config: PathBuf,
    /// Its log file.
    pub(crate) log: PathBuf,
    /// The listener that answers `/readyz`.
    pub(crate) health: String,
    /// From the order to stop until it cuts what is in flight.
    pub(crate) drain: Duration,
}

/// What happens to a node.
#[derive(Debug)]
pub(crate) struct Event {
    /// Its place in the plan.
    pub(crate) index: usize,
    /// What happened.
    pub(crate) what: What,
}

/// What happens to a node.
#[derive(Debug)]
pub(crate) enum What {
    /// It answers that it can do its work.
    Ready {
        /// Its process.
        pid: u32,
    },
    /// It ended without being told to.
    Died(Death),
    /// It was started again and is still not ready.
    Late,
    /// It had to be killed after the order to stop.
    Killed,
    /// A line of its log that a person should see.
    Said(String),
}

/// How a node ended.
#[derive(Debug)]
pub(crate) enum Death {
    /// Its process ended.
    Exit(ExitStatus),
    /// It could not be started, watched or heard.
    Unstarted(io::Error),
}

/// Orders to a node.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    /// Drain and end.
    pub(crate) stop: CancellationToken,
    /// End now.
    pub(crate) kill: CancellationToken,
}

/// Runs a node until it is told to stop and is gone.
pub(crate) async fn supervise(spec: Arc<Spec>, events: mpsc::Sender<Event>, orders: Orders) {
    let mut pause = None;
    loop {
        let started = Instant::now();
        let death = match Running::start(&spec, &events) {
            Ok(running) => match running.live(&spec, &events, &orders).await {
                Some(status) => Death::Exit(status),
                None => return, // as told
            },
            Err(error) => Death::Unstarted(error),
        };
        tell(&spec, &events, What::Died(death)).await;
        let next = next_pause(pause, started.elapsed());
        pause = Some(next);
        let wait = orders.stop.run_until_cancelled(sleep(next));
        if wait.await.is_none() || orders.stop.is_cancelled() {
            return;
        }
    }
}

/// At once the first time; later if it keeps dying young.
fn next_pause(last: Option<Duration>, lived: Duration) -> Duration {
    match last {
        Some(last) if lived < LIVED => (last * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE),
        Some(_) | None => Duration::ZERO,
    }
}

async fn tell(spec: &Spec, events: &mpsc::Sender<Event>, what: What) {
    // Nobody listens any more only when `up` itself is on its way out.
    events.send(Event { index: spec.index, what }).await.ok();
}

/// A child and the task that hears it.
struct Running {
    child: Child,
    /// Closing it is the order to drain. Kept apart from the child, whose `wait` would close it.
    stdin: ChildStdin,
    hearing: JoinSet<()>,
}

impl Running {
    fn start(spec: &Spec, events: &mpsc::Sender<Event>) -> io::Result<Self> {
        let mut log = LogFile::open(&spec.log)?;
        let mut child = Command::new(program()?)
            .arg(spec.kind.word())
            .arg("--config")
            .arg(&spec.config)
            .arg("--supervised")
            .stdin(Stdio::piped()) // held: it closes when we are gone
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0) // Ctrl-C reaches us only; we give the order
            .kill_on_drop(true)
            .spawn()?;
        let no_pipe = || io::Error::other("it has no pipe to us");
        let stdin = child.stdin.take().ok_or_else(no_pipe)?;
        let stderr = child.stderr.take().ok_or_else(no_pipe)?;
        let (index, events) = (spec.index, events.clone());
        let mut hearing = JoinSet::new();
        hearing.spawn(async move {
            let mut attention = Attention::new(Instant::now());
            read_lines(stderr, |line| {
                let written = log.write(line);
                let unwritten = written.err().map(|error| format!("its log is not kept: {error}"));
                for shown in for_people(line).into_iter().chain(unwritten) {
                    hear(index, &events, &mut attention, shown);
                }
            })
            .await;
        });
        Ok(Self { child, stdin, hearing })
    }

    /// Waits for its end; `None` if it was told to.
    async fn live(
        mut self,
        spec: &Spec,
        events: &mpsc::Sender<Event>,
        orders: &Orders,
    ) -> Option<ExitStatus> {
        let pid = self.child.id().unwrap_or_default();
        let mut getting_ready = std::pin::pin!(report_ready(spec, events, pid));
        let mut is_ready = false;
        loop {
            tokio::select! { // dropping the order and the wait for the end loses nothing
                status = self.child.wait() => {
                    timeout(LAST_WORDS, self.hearing.join_next()).await.ok();
                    return Some(status.unwrap_or_default());
                }
                () = &mut getting_ready, if !is_ready => is_ready = true,
                () = orders.stop.cancelled() => break,
                () = orders.kill.cancelled() => break,
            }
        }
        self.drain(spec, events, orders).await;
        None
    }

    /// Has it drain and, if it does not, ends it.
    async fn drain(mut self, spec: &Spec, events: &mpsc::Sender<Event>, orders: &Orders) {
        drop(self.stdin); // the order
        let in_time = timeout(spec.drain + KILL_AFTER, self.child.wait());
        match orders.kill.run_until_cancelled(in_time).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => {
                self.child.kill().await.ok(); // fails only if it is gone already
                tell(spec, events, What::Killed).await;
            }
            None => {
                self.child.kill().await.ok();
            }
        }
        timeout(LAST_WORDS, self.hearing.join_next()).await.ok();
    }
}

/// This very program, also if its file was replaced since `up` began, as a build does: a node of
/// another version must not join by dying.
fn program() -> io::Result<PathBuf> {
    let file = env::current_exe()?;
    Ok(if file.exists() { file } else { PathBuf::from("/proc/self/exe") })
}

/// Shows a line, if there are not too many.
fn hear(index: usize, events: &mpsc::Sender<Event>, attention: &mut Attention, shown: String) {
    let Some(kept_back) = attention.admit(Instant::now()) else { return };
    let text = match kept_back {
        0 => shown,
        more => format!("{shown} ({more} more lines before it, see its log)"),
    };
    // Full: the terminal does not keep up. The line is in the log.
    events.try_send(Event { index, what: What::Said(text) }).ok();
}

/// Reports when the node is ready, and once if that takes too long.
async fn report_ready(spec: &Spec, events: &mpsc::Sender<Event>, pid: u32) {
    let ready = wait_ready(&spec.health, "/readyz");
    tokio::pin!(ready);
    if timeout(READY_LATE, &mut ready).await.is_err() {
        tell(spec, events, What::Late).await;
        ready.await;
    }
    tell(spec, events, What::Ready { pid }).await;
}

/// Asks until the node answers that it can do its work.
pub(super) async fn wait_ready(health: &str, target: &str) {
    let Ok(client) = Client::new(health, None) else { return };
    loop {
        if client.probe(target).await.is_ok_and(|(status, _)| status.is_success()) {
            return;
        }
        sleep(READY_STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LIVED, LONGEST_PAUSE, next_pause};

    #[test]
    fn who_lived_is_restarted_at_once_and_who_dies_young_a_little_later() {
        assert_eq!(next_pause(None, Duration::ZERO), Duration::ZERO, "the first time");
        let (mut pause, mut all) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..10 {
            pause = next_pause(Some(pause), Duration::ZERO);
            all += pause;
            assert!(pause <= LONGEST_PAUSE, "within a second, with time to start");
        }
        assert_eq!(pause, LONGEST_PAUSE);
        assert!(all > Duration::from_secs(5), "not a busy loop");
        assert_eq!(next_pause(Some(pause), LIVED), Duration::ZERO, "forgiven");
    }
}
