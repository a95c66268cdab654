//! The listener of one link: open, or shut so that connection attempts hang.
//!
//! A cut link must not answer a SYN, as no cut cable does. A listener whose queue of accepted
//! connections is full does not: its backlog is taken down to nothing and filled with connections
//! of its own. What else got into the queue stays there unheard, which looks the same to whoever
//! sends. Where a kernel counts backlogs otherwise, that alone is what happens.
//!
//! # Invariants
//! - No connection that was made while the link was cut is ever served: it is reset on heal.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::link::Link;
use crate::relay::{Pool, abort, relay};

/// Connections of one link; more wait in its listener's backlog.
const MOST_CONNECTIONS: usize = 4_096;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// A connection to a listener of this machine that takes longer found its queue full.
const FULL: Duration = Duration::from_millis(20);

/// Connections that fill a queue: one is enough on Linux.
const MOST_FILLERS: usize = 8;

/// After an accept that failed (no file descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves a link until it is dropped.
pub(crate) async fn serve(link: Arc<Link>, listener: TcpListener, pool: Arc<Pool>) {
    let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut states = link.follow();
    loop {
        let state = *states.borrow_and_update();
        if state.is_cut() {
            let fillers = shut(&listener, link.listen).await;
            link.settle(&state);
            loop {
                if states.changed().await.is_err() {
                    return;
                }
                let state = *states.borrow_and_update();
                if !state.is_cut() {
                    break;
                }
                link.settle(&state);
            }
            drop(fillers);
            open(&listener, &link);
            states.mark_changed(); // what it is now is settled above
            continue;
        }
        link.settle(&state);
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (listener.accept().await, permit)
        };
        tokio::select! { // dropping `accepted` loses no connection
            biased;
            changed = states.changed() => if changed.is_err() { return },
            Some(_ended) = connections.join_next(), if !connections.is_empty() => {}
            (accepted, permit) = accepted => match (accepted, permit) {
                (Ok((stream, _)), Ok(permit)) => {
                    let number = link.accepted.fetch_add(1, Ordering::Relaxed);
                    let relayed = relay(Arc::clone(&link), stream, state, number, Arc::clone(&pool));
                    connections.spawn(async move {
                        relayed.await;
                        drop(permit);
                    });
                }
                (Ok(_), Err(_closed)) => return, // never: nobody closes the permits
                (Err(_refused), _) => sleep_until(Instant::now() + ACCEPT_PAUSE).await,
            },
        }
    }
}

/// Shuts the listener at `address`: from now on connection attempts hang. It stays shut as long
/// as what is returned lives.
async fn shut(listener: &TcpListener, address: SocketAddr) -> Vec<TcpStream> {
    let mut fillers = Vec::new();
    if SockRef::from(listener).listen(0).is_err() {
        return fillers; // they will wait in the queue instead
    }
    while fillers.len() < MOST_FILLERS {
        let Ok(socket) = TcpSocket::new_v4() else { break };
        match timeout(FULL, socket.connect(address)).await {
            Ok(Ok(filler)) => fillers.push(filler),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    fillers
}

/// Opens it again, and resets whoever got in meanwhile.
fn open(listener: &TcpListener, link: &Link) {
    let socket = SockRef::from(listener);
    loop {
        match socket.accept() {
            Ok((stream, _)) => {
                link.reset.fetch_add(1, Ordering::Relaxed);
                abort(&stream);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_none_left) => break,
        }
    }
    // It listened with this before; a kernel that refuses now would have then.
    drop(socket.listen(BACKLOG));
}
