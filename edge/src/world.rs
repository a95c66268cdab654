//! The sockets and threads of this package.
//!
//! Built with `--cfg simulation` it runs on the network of a simulator, and on the thread that the
//! simulator gives it: everything else of this package is what runs in earnest.

use std::io;
use std::net::SocketAddr;

use tokio::sync::oneshot;

#[cfg(not(simulation))]
pub(crate) use tokio::net::{TcpListener, TcpStream};
#[cfg(simulation)]
pub(crate) use turmoil::net::{TcpListener, TcpStream};

/// The kernel's queue of connections that wait to be accepted.
#[cfg(not(simulation))]
const BACKLOG: i32 = 1024;

/// An address that is taken, before anybody is accepted there.
#[cfg(not(simulation))]
#[derive(Debug)]
pub(crate) struct Taken(std::net::TcpListener);

/// An address that will be taken when somebody is accepted there.
#[cfg(simulation)]
#[derive(Debug)]
pub(crate) struct Taken(SocketAddr);

#[cfg(not(simulation))]
impl Taken {
    /// Takes `address` together with the other cores, which share it. Port 0 is any free one.
    pub(crate) fn at(address: SocketAddr) -> io::Result<Self> {
        use socket2::{Domain, Protocol, Socket, Type};

        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self(socket.into()))
    }

    /// Where it is.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Begins to accept, on the runtime that calls.
    #[expect(clippy::unused_async, reason = "the simulated network takes its time")]
    pub(crate) async fn open(self) -> io::Result<TcpListener> {
        TcpListener::from_std(self.0)
    }
}

#[cfg(simulation)]
impl Taken {
    pub(crate) fn at(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(address))
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        Ok(self.0)
    }

    pub(crate) async fn open(self) -> io::Result<TcpListener> {
        TcpListener::bind(self.0).await
    }
}

/// Gives `work` a thread and a runtime of its own; what it left undone ends with it.
#[cfg(not(simulation))]
pub(crate) fn start<F>(name: String, work: F) -> io::Result<oneshot::Receiver<io::Result<()>>>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let (tell, ended) = oneshot::channel();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work)?;
        runtime.shutdown_background();
        Ok(())
    };
    std::thread::Builder::new().name(name).spawn(move || {
        // Nobody listens any more only if the edge is gone.
        drop(tell.send(run()));
    })?;
    Ok(ended)
}

/// Begins `work` here: there is one thread.
#[cfg(simulation)]
pub(crate) fn start<F>(_name: String, work: F) -> io::Result<oneshot::Receiver<io::Result<()>>>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let (tell, ended) = oneshot::channel();
    drop(tokio::spawn(async move { drop(tell.send(work.await)) }));
    Ok(ended)
}

/// Runs `work` where it does not hold up the others.
#[cfg(not(simulation))]
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    tokio::task::spawn_blocking(work).await
}

/// Runs `work` here and now: there is one thread, and time stands while it works.
#[cfg(simulation)]
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    Ok(work())
}
