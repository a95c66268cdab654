//! Ports that stay ours while `up` lives, whoever of our children listens on them just now.
//!
//! A reserved port is held by a socket that is bound with `SO_REUSEPORT` and never listens: a
//! child binds beside it (also with `SO_REUSEPORT`) and gets every connection; nobody without that
//! option, and no other user, can take the port while the child restarts.
//!
//! # Invariants
//! - A port is reserved only after a socket *without* `SO_REUSEPORT` listened on it: somebody
//!   else's listener is found even if it shares its port. That socket is given up only when the
//!   reservation stands, so two `up`s never reserve the same port.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::up::error::UpError;

/// Connections that wait to be accepted at a listener of our own.
const BACKLOG: i32 = 1_024;

/// Ports in the order in which they are asked for. Dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Ports {
    /// The port that comes next; none if any will do.
    next: Option<u16>,
    held: Vec<Socket>,
}

impl Ports {
    /// Ports from `first` on; 0: all are free ones. The first must be had, or it is an error.
    pub(crate) fn from(first: u16) -> Result<(Self, SocketAddr), UpError> {
        let (address, socket) = reserve(first).map_err(|source| match source.kind() {
            ErrorKind::AddrInUse if first > 0 => UpError::PortTaken { port: first },
            _ => UpError::Port { port: first, source },
        })?;
        let next = if first == 0 { None } else { first.checked_add(1) };
        Ok((Self { next, held: vec![socket] }, address))
    }

    /// The next port, or a free one if that is taken.
    pub(crate) fn next(&mut self) -> Result<SocketAddr, UpError> {
        let wanted = self.next;
        self.next = wanted.and_then(|port| port.checked_add(1));
        let (address, socket) = wanted
            .and_then(|port| reserve(port).ok())
            .map_or_else(|| reserve(0), Ok)
            .map_err(|source| UpError::Port { port: 0, source })?;
        self.held.push(socket);
        Ok(address)
    }

    /// A listener of our own at the next port, or at a free one if that is taken.
    pub(crate) fn listen(&mut self) -> Result<TcpListener, UpError> {
        let wanted = self.next;
        self.next = wanted.and_then(|port| port.checked_add(1));
        wanted.and_then(|port| listen(port).ok()).map_or_else(listen_anywhere, Ok)
    }
}

/// A listener of our own at any free port: nobody needs to know it beforehand.
pub(crate) fn listen_anywhere() -> Result<TcpListener, UpError> {
    listen(0).map_err(|source| UpError::Port { port: 0, source })
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let socket = socket(address, |socket| socket.set_reuse_address(true))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Reserves `port` on the loopback address; 0 is any free one.
fn reserve(port: u16) -> io::Result<(SocketAddr, Socket)> {
    let test = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), |socket| {
        socket.set_reuse_address(true) // connections that linger from before do not count
    })?;
    test.listen(1)?; // only listening tells whether somebody else is bound
    let address = test
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("a TCP socket has no address"))?;
    test.set_reuse_port(true)?;
    let held = socket(address, |socket| socket.set_reuse_port(true))?;
    Ok((address, held))
}

fn socket(
    address: SocketAddr,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    prepare(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use socket2::Socket;

    use super::{Ports, socket};
    use crate::up::error::UpError;

    /// Listens as a node does.
    fn node(address: SocketAddr) -> std::io::Result<Socket> {
        let socket = socket(address, |socket| {
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)
        })?;
        socket.listen(16)?;
        Ok(socket)
    }

    #[test]
    fn a_reserved_port_is_a_nodes_again_and_again_and_nobody_elses() {
        let (_ports, address) = Ports::from(0).unwrap();
        for _ in 0..3 {
            let listener: TcpListener = node(address).unwrap().into();
            let mut client = TcpStream::connect(address).unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            client.write_all(b"x").unwrap();
            accepted.read_exact(&mut [0]).unwrap();
            // The node dies with its connection open; what lingers must not keep it out.
            drop((accepted, listener));
            assert!(TcpListener::bind(address).is_err(), "the port is not up for grabs");
        }
    }

    #[test]
    fn someone_elses_port_is_an_error_also_if_it_is_shared() {
        let plain = TcpListener::bind("127.0.0.1:0").unwrap();
        let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
        let shared = node("127.0.0.1:0".parse().unwrap()).unwrap();
        let shared_port = shared.local_addr().unwrap().as_socket().unwrap().port();
        let (_ours, reserved) = Ports::from(0).unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        for taken in [port(&plain), port(&everywhere), shared_port, reserved.port()] {
            let error = Ports::from(taken).unwrap_err();
            assert!(matches!(error, UpError::PortTaken { port } if port == taken), "{error}");
        }
    }

    #[test]
    fn other_ports_follow_in_order_or_are_free_ones() {
        // A stretch of four ports that is free now; another process may take one meanwhile.
        for _ in 0..50 {
            let (probe, first) = Ports::from(0).unwrap();
            drop(probe);
            let Some(last) = first.port().checked_add(3) else { continue };
            let Ok((mut ports, front)) = Ports::from(first.port()) else { continue };
            let Ok(taken) = TcpListener::bind(("127.0.0.1", first.port() + 2)) else { continue };
            let got = [(); 3].map(|()| ports.next().unwrap().port());
            if got[0] != first.port() + 1 || got[2] != last {
                continue;
            }
            assert_eq!(front, first);
            assert_ne!(got[1], taken.local_addr().unwrap().port());
            return;
        }
        panic!("found no four free ports in a row in fifty tries");
    }

    #[test]
    fn reservations_are_distinct_and_the_end_of_the_range_is_no_panic() {
        let (mut ports, first) = Ports::from(0).unwrap();
        let rest = (0..50).map(|_| ports.next().unwrap());
        let all: BTreeSet<_> = rest.chain([first]).collect();
        assert_eq!(all.len(), 51);
        if let Ok((mut ports, last)) = Ports::from(u16::MAX) {
            assert_eq!(last.port(), u16::MAX);
            assert_ne!(ports.next().unwrap().port(), 0);
        }
    }
}
