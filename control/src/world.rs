//! The only clock, randomness and sockets of this package.
//!
//! Everything else takes time and randomness as values, or asks here: a simulation replaces this
//! file and runs the rest as it is.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use meridian_config::units::Address;
use rand::RngExt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that wait for an accept.
const BACKLOG: i32 = 1_024;

/// Monotonic time; follows tokio's clock, so that a test may pause it.
#[expect(clippy::disallowed_methods, reason = "the one place that asks")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Wall time since 1970, for what has to outlive the process; zero on a clock before that.
#[expect(clippy::disallowed_methods, reason = "the one place that asks")]
pub(crate) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// 32 bytes that nobody can guess.
pub(crate) fn random_key() -> [u8; 32] {
    rand::rng().random()
}

/// `span`, give or take a fifth: keeps nodes that started together from acting together.
pub(crate) fn jittered(span: Duration) -> Duration {
    span.mul_f64(rand::rng().random_range(0.8..=1.2))
}

/// A listener. `SO_REUSEPORT`, so that whoever reserves the port for a restart may keep it bound.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A connection to a node's address. The caller bounds the time.
pub(crate) async fn connect(address: &Address) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address.as_str()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
