//! Thousands of clients that say next to nothing, each at another point of a conversation, while
//! others are served, what is not stored as well as what is: those in a body hold no more than the share
//! of uploads of the places at their origin.
//!
//! `MERIDIAN_SLOW_CLIENTS` says how many; ten thousand need as many open files here and in the edge.

use std::time::{Duration, Instant};

use meridian_config::units::{ByteSize, HumanDuration};
use meridian_tests::cluster::address;
use meridian_tests::edge::EdgeProcess;
use meridian_tests::origin::{ScriptedOrigin, ok};
use meridian_tests::wait::eventually;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

const CLIENTS: usize = 2_000;
/// Room for those who are served meanwhile, and no more.
const ROOM: usize = 64;
const PATIENCE: Duration = Duration::from_secs(120);
/// What one of these connections may cost the edge.
const EACH: u64 = 64 * 1024;

/// Where they stop: before the protocol is known, in a head, in a body; with the rest a byte a second.
const STARTS: [&str; 6] = [
    "",
    "P",
    "PRI * HTTP/2.0\r\n",
    "GET /slow HTTP/1.1\r\nHost: h\r\nX-Slow: ",
    "POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
];

fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Connects that many, and says a byte a second on every second one of them until told to stop.
async fn slow_clients(at: &str, clients: usize) -> JoinSet<usize> {
    let mut open: Vec<(usize, TcpStream)> = Vec::new();
    for n in 0..clients {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let start = STARTS[n % STARTS.len()];
        drop(stream.write_all(start.as_bytes()).await); // who is cut already is cut
        open.push((n, stream));
    }
    let mut slow = JoinSet::new();
    slow.spawn(async move {
        let mut pace = interval(Duration::from_secs(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut left = open.len();
        while left > 0 {
            pace.tick().await;
            left = 0;
            for (n, stream) in &mut open {
                let is_silent = (*n / STARTS.len()).is_multiple_of(2);
                let is_open = is_silent || stream.try_write(b"x").is_ok();
                left += usize::from(is_open && !is_silent);
            }
        }
        open.len()
    });
    slow
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_slow_clients_hold_up_nobody_and_are_all_reclaimed() {
    let set = std::env::var("MERIDIAN_SLOW_CLIENTS").ok().and_then(|text| text.parse().ok());
    let clients: usize = set.unwrap_or(CLIENTS);
    raise_open_files();
    let origin = ScriptedOrigin::start().await;
    origin.script("/kept", ok("kept").header("cache-control", "max-age=600"));
    origin.script("/passed", ok("passed").header("cache-control", "no-store"));
    origin.script("/slow", ok("never"));
    let most = u32::try_from(clients + ROOM).unwrap();
    let mut edge = EdgeProcess::start(&origin, |edge| {
        edge.accept.max_connections = most.try_into().unwrap();
        edge.accept.head_timeout = HumanDuration::secs(10);
        edge.accept.idle_timeout = HumanDuration::secs(10);
        edge.accept.least_rate = ByteSize::bytes(256);
        edge.accept.rate_grace = HumanDuration::secs(10);
    })
    .await;
    let pid = edge.process().pid();
    let before = resident(pid);

    assert_eq!(edge.get("/kept").await.status, 200);
    let began = Instant::now();
    let mut slow = slow_clients(address(edge.url()), clients).await;
    let (mut peak, mut highest, mut slowest) = (0.0_f64, 0, Duration::ZERO);
    let mut answered = 0;
    eventually("all of them are reclaimed", PATIENCE, async || {
        let asked = Instant::now();
        let kept = edge.get("/kept").await;
        assert_eq!((kept.status.as_u16(), kept.text()), (200, "kept"));
        let passed = edge.get("/passed").await;
        assert_eq!((passed.status.as_u16(), passed.text()), (200, "passed"), "nobody is shed");
        slowest = slowest.max(asked.elapsed());
        answered += 1;
        let connections = edge.metric("edge_connections").await;
        peak = peak.max(connections);
        highest = highest.max(resident(pid));
        (peak > 0.0 && connections == 0.0).then_some(())
    })
    .await;
    let took = began.elapsed();
    let overdue = edge.metric("edge_connections_overdue_total").await;
    println!(
        "{clients} slow clients: at most {peak} open, {overdue} cut, all gone after {took:?}; \
         meanwhile {answered} others had what is stored and what is not, the slowest pair took {slowest:?}; resident {} MiB before, {} MiB at most",
        before >> 20,
        highest >> 20
    );
    assert!(peak <= f64::from(most), "{peak} open");
    assert!(peak >= f64::from(most) / 2.0, "only {peak} of them were open at once");
    assert!(answered >= 100, "{answered} answered in {took:?}");
    assert!(slowest < Duration::from_secs(5), "the slowest took {slowest:?}");
    let allowed = before + (clients as u64) * EACH + (64 << 20);
    assert!(highest < allowed, "{highest} bytes resident, {allowed} allowed");
    assert_eq!(edge.metric("edge_requests_in_flight").await, 0.0);
    slow.abort_all();
    while slow.join_next().await.is_some() {}
}
