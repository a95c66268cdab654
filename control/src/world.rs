//! The only clock, randomness and sockets of this package.
//!
//! Everything else takes time and randomness as values, or asks here. Built with `--cfg simulation`
//! it runs on the network of a simulator, which also brings the clock and the randomness of the
//! whole process; everything else of this package is what runs in earnest.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use meridian_config::units::Address;
use rand::RngExt;

#[cfg(not(simulation))]
pub(crate) use tokio::net::{TcpListener, TcpStream};
#[cfg(simulation)]
pub(crate) use turmoil::net::{TcpListener, TcpStream};

/// Connections that wait for an accept.
#[cfg(not(simulation))]
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

/// A number that nobody had before.
pub(crate) fn random_u64() -> u64 {
    rand::rng().random()
}

/// `span`, give or take a fifth: keeps nodes that started together from acting together.
pub(crate) fn jittered(span: Duration) -> Duration {
    span.mul_f64(rand::rng().random_range(0.8..=1.2))
}

/// A listener. `SO_REUSEPORT`, so that whoever reserves the port for a restart may keep it bound.
#[cfg(not(simulation))]
#[expect(clippy::unused_async, reason = "the simulated network takes its time")]
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};

    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A listener on the simulated network.
#[cfg(simulation)]
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Runs `work`, which blocks, where it does not hold up the others.
#[cfg(not(simulation))]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await
}

/// Runs `work` here and now: there is one thread, and time stands while it works.
#[cfg(simulation)]
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    Ok(work())
}

/// A connection to a node's address. The caller bounds the time.
pub(crate) async fn connect(address: &Address) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address.as_str()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
