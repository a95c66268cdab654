//! What a link costs: throughput of one connection and the time of one exchange, direct and through
//! a link with nothing set, in turns, so that both see the same machine.
//!
//! `cargo run --release -p meridian-tests-chaos --example cost`

#![expect(clippy::unwrap_used, reason = "a measurement that fails has nothing to tell")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use meridian_tests_chaos::names::Node;
use meridian_tests_chaos::net::{LinkSpec, Net, Spec};
use meridian_tests_chaos::shape::Ways;

/// Rounds; the best of each is told, as whatever disturbs only slows.
const ROUNDS: usize = 5;

/// Bytes of a transfer.
const MUCH: usize = 1 << 30;

/// Exchanges of one byte, and of a small answer.
const EXCHANGES: u32 = 20_000;

fn main() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let direct = server.local_addr().unwrap();
    thread::spawn(move || {
        for stream in server.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    let node = |name: &str, role| Node { name: name.parse().unwrap(), role, region: None };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let through = listener.local_addr().unwrap();
    let link = LinkSpec {
        from: "fra-1".parse().unwrap(),
        to: "origin-1".parse().unwrap(),
        listener,
        dial: direct.to_string().parse().unwrap(),
        base: Ways::default(),
    };
    let net = Net::start(Spec {
        nodes: vec![node("fra-1", "edge"), node("origin-1", "origin")],
        links: vec![link],
        api: TcpListener::bind("127.0.0.1:0").unwrap(),
        tokens: Vec::new(),
        seed: 1,
    });
    let net = net.unwrap();
    let mut best = [Cost::default(), Cost::default()];
    for _ in 0..ROUNDS {
        for (best, address) in best.iter_mut().zip([direct, through]) {
            best.lower(&Cost {
                transfer: Some(transfer(address)),
                exchange: Some(exchange(address)),
                connect: Some(connect(address)),
            });
        }
    }
    let mut out = std::io::stdout().lock();
    for (name, cost) in ["direct", "link"].iter().zip(best) {
        let Cost { transfer, exchange, connect } = cost;
        let rate = MUCH as f64 / transfer.unwrap().as_secs_f64() / 1e9;
        let (exchange, connect) = (exchange.unwrap(), connect.unwrap());
        writeln!(
            out,
            "{name:<7} {rate:.2} GB/s   exchange {exchange:?}   connect and exchange {connect:?}"
        )
        .unwrap();
    }
    drop(net);
}

/// What was measured; the lowest so far.
#[derive(Default)]
struct Cost {
    transfer: Option<Duration>,
    exchange: Option<Duration>,
    connect: Option<Duration>,
}

impl Cost {
    fn lower(&mut self, other: &Self) {
        let lower = |best: Option<Duration>, now: Option<Duration>| match (best, now) {
            (Some(best), Some(now)) => Some(best.min(now)),
            (best, now) => best.or(now),
        };
        self.transfer = lower(self.transfer, other.transfer);
        self.exchange = lower(self.exchange, other.exchange);
        self.connect = lower(self.connect, other.connect);
    }
}

/// Answers one byte with one byte, until a zero: then sends much.
fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|count| count == 1) {
        if byte == [0] {
            let piece = vec![0; 256 << 10];
            for _ in 0..MUCH / piece.len() {
                stream.write_all(&piece).unwrap();
            }
            return;
        }
        stream.write_all(&byte).unwrap();
    }
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn transfer(address: SocketAddr) -> Duration {
    let mut stream = dial(address);
    let start = Instant::now();
    stream.write_all(&[0]).unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut got = 0;
    while got < MUCH {
        got += stream.read(&mut buffer).unwrap();
    }
    start.elapsed()
}

fn exchange(address: SocketAddr) -> Duration {
    let mut stream = dial(address);
    let start = Instant::now();
    for _ in 0..EXCHANGES {
        stream.write_all(&[1]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    start.elapsed() / EXCHANGES
}

fn connect(address: SocketAddr) -> Duration {
    const TIMES: u32 = 2_000;
    let start = Instant::now();
    for _ in 0..TIMES {
        let mut stream = dial(address);
        stream.write_all(&[1]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    start.elapsed() / TIMES
}
