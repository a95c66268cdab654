//! One child process of a test: its output, its signals, its end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

use crate::binary::meridian;
use crate::wait::{PATIENCE, eventually, soon};

/// How long a process may take to end when it is told to, before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// A `meridian` process. Dropped, it is told to end, and killed if it does not.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

/// What a process left.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// All it said on stdout.
    pub stdout: String,
    /// All it said on stderr.
    pub stderr: String,
}

impl Process {
    /// Starts `meridian` with `arguments`; what it says goes to files in `logs`. Its stdin stays
    /// open as long as the test runs.
    pub fn start<A: AsRef<std::ffi::OsStr>>(logs: &Path, arguments: &[A]) -> Self {
        let (stdout, stderr) = (logs.join("stdout"), logs.join("stderr"));
        let child = Command::new(meridian())
            .args(arguments)
            .env_remove("MERIDIAN_DIR")
            .env_remove("MERIDIAN_TOKEN")
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Self { child, stdout, stderr, ended: None }
    }

    /// Runs `meridian` with `arguments` to its end.
    pub async fn run<A: AsRef<std::ffi::OsStr>>(arguments: &[A]) -> Ended {
        let logs = tempfile::tempdir().unwrap();
        let mut process = Self::start(logs.path(), arguments);
        drop(process.child.stdin.take());
        process.end().await
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "it has ended already");
        send(self.pid(), signal);
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended.is_none()
    }

    /// Waits until it has ended by itself.
    pub async fn end(&mut self) -> Ended {
        let what = format!("process {} has ended", self.pid());
        eventually(what, END_PATIENCE, async || (!self.runs()).then_some(())).await;
        Ended { status: self.ended.unwrap(), stdout: self.stdout(), stderr: self.stderr() }
    }

    /// What it has said on stdout so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stdout).unwrap()).into_owned()
    }

    /// What it has said on stderr so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.stderr).unwrap()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- process {} on stderr:\n{}", self.pid(), self.stderr());
        }
        if !self.runs() {
            return;
        }
        send(self.pid(), Signal::TERM);
        if soon(END_PATIENCE, || !self.runs()) {
            return;
        }
        // Killing is all that is left; if even that fails, the failure below says more.
        drop(self.child.kill());
        drop(self.child.wait());
        if !std::thread::panicking() {
            panic!("process {} did not end within {END_PATIENCE:?} of SIGTERM", self.pid());
        }
    }
}

/// Sends a signal to a process that the test has started, by its id.
pub fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {} // gone already is as good
        Err(error) => panic!("cannot send a signal to {pid:?}: {error}"),
    }
}

/// A process that stands still until this is dropped, as if its machine had lost all power to run
/// but not its network: connections stay open and nobody answers.
#[derive(Debug)]
pub struct Frozen {
    pid: u32,
}

/// Stops a process that the test has started.
pub fn freeze(pid: u32) -> Frozen {
    let frozen = Frozen { pid };
    send(pid, Signal::STOP);
    let stopped = soon(PATIENCE, || stat(pid).is_some_and(|stat| stat.stopped));
    assert!(stopped, "process {pid} does not stop");
    frozen
}

impl Drop for Frozen {
    fn drop(&mut self) {
        send(self.pid, Signal::CONT);
    }
}

/// Whether a process of that id runs `meridian`. A zombie that nobody has waited for does not: it
/// has ended. An id that another program has taken over does not either.
pub fn runs_meridian(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.name == "meridian" && !stat.ended)
}

/// The processes that `parent` has started and that have not ended.
pub fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent && !stat.ended)).collect()
}

/// What `/proc/PID/stat` says: proc_pid_stat(5).
struct Stat {
    name: String,
    ended: bool,
    stopped: bool,
    parent: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `pid (name) state ppid ...`; the name may hold anything but ends at the last parenthesis.
    let (head, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    Some(Stat {
        name: head.split_once('(')?.1.to_owned(),
        ended: matches!(state, "Z" | "X"),
        stopped: state == "T",
        parent: fields.next()?.parse().ok()?,
    })
}

/// Waits until none of these processes runs any more.
pub async fn all_gone(pids: &[u32]) {
    let what = format!("processes {pids:?} are gone");
    let gone = async || pids.iter().all(|pid| !runs_meridian(*pid)).then_some(());
    eventually(what, PATIENCE, gone).await;
}
