//! A link between two replicas that can be cut: bytes stop, and nobody is told.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::kit::{any_port, aside};

/// A link. Cut, it swallows what comes and opens nothing; healed, what was open is reset.
pub(crate) struct Cable {
    pub(crate) address: SocketAddr,
    cut: watch::Sender<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Cable {
    /// A link to `target`.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = watch::Sender::new(false);
        let watched = cut.subscribe();
        let task = aside(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(relay(stream, target, watched.clone()));
            }
        });
        Self { address, cut, _task: task }
    }

    pub(crate) fn set_cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

/// One connection, until one side ends it, or until it was cut and is healed again.
async fn relay(here: TcpStream, target: SocketAddr, cut: watch::Receiver<bool>) {
    let mut healed = cut.clone();
    let over = async {
        if healed.wait_for(|cut| *cut).await.is_ok() {
            drop(healed.wait_for(|cut| !*cut).await);
        }
    };
    let carried = async {
        if *cut.borrow() {
            std::future::pending::<()>().await;
        }
        let Ok(there) = TcpStream::connect(target).await else { return };
        let (from_here, to_here) = here.into_split();
        let (from_there, to_there) = there.into_split();
        tokio::select! {
            () = carry(from_here, to_there, cut.clone()) => {}
            () = carry(from_there, to_here, cut.clone()) => {}
        }
    };
    tokio::select! {
        () = carried => {}
        () = over => {}
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    cut: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(taken @ 1..) = from.read(&mut bytes).await {
        if *cut.borrow() {
            std::future::pending::<()>().await;
        }
        if to.write_all(&bytes[..taken]).await.is_err() {
            return;
        }
    }
}
