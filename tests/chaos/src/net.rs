//! All links of a cluster, on threads of their own.
//!
//! # Invariants
//! - Links live as long as the [`Net`], whatever becomes of the nodes at their ends; their
//!   addresses never change.
//! - Link traffic shares no thread with whoever started it.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::num::NonZeroUsize;
use std::sync::Arc;

use meridian_config::shared::Token;
use meridian_config::units::{Address, NodeName};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use crate::api::{self, Api};
use crate::error::NetError;
use crate::gate;
use crate::link::Link;
use crate::names::Node;
use crate::relay::Pool;
use crate::shape::{Shape, Ways};
use crate::table::Table;
use crate::tokens::Tokens;
use crate::view::Links;

/// Threads that carry bytes.
const WORKERS: NonZeroUsize = NonZeroUsize::new(2).expect("2 is not 0");

/// What links there shall be.
#[derive(Debug)]
pub struct Spec {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The links between them.
    pub links: Vec<LinkSpec>,
    /// Where they are shown and changed.
    pub api: StdListener,
    /// Who may change them: those of the scope `operate`.
    pub tokens: Vec<Token>,
    /// Decides the jitter.
    pub seed: u64,
}

/// One link.
#[derive(Debug)]
pub struct LinkSpec {
    /// The node that dials.
    pub from: NodeName,
    /// The node that is dialled.
    pub to: NodeName,
    /// What the dialling node dials instead.
    pub listener: StdListener,
    /// Where the other node is.
    pub dial: Address,
    /// How the link behaves until told otherwise, and when it is healed.
    pub base: Ways<Shape>,
}

/// The links, alive. Dropped, all their connections end.
#[derive(Debug)]
pub struct Net {
    runtime: Option<Runtime>,
    table: Arc<Table>,
}

impl Net {
    /// Makes the links. Blocks; not to be called on a thread that carries tasks.
    ///
    /// # Errors
    /// When the system refuses threads or listeners, a link has no node, or a token no secret.
    pub fn start(spec: Spec) -> Result<Self, NetError> {
        let tokens = Tokens::read(&spec.tokens)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS.get())
            .thread_name("links")
            .enable_all()
            .build()
            .map_err(NetError::Threads)?;
        let pool = Arc::new(Pool::default());
        let mut links = Vec::new();
        let entered = runtime.enter(); // listeners are registered with this runtime
        for (at, link) in spec.links.into_iter().enumerate() {
            let (from, to) = (node(&spec.nodes, &link.from), node(&spec.nodes, &link.to));
            let (Some(from), Some(to)) = (from, to) else {
                return Err(NetError::NoNode { from: link.from, to: link.to });
            };
            let (listener, address) = listen(link.listener)?;
            let seed = spec.seed.wrapping_add(u64::try_from(at).unwrap_or(0) << 40);
            let made = Link::new((from, to), address, link.dial, link.base, seed);
            detach(&runtime, gate::serve(Arc::clone(&made), listener, Arc::clone(&pool)));
            links.push(made);
        }
        let key = |link: &Arc<Link>| (link.from.name.clone(), link.to.name.clone());
        links.sort_by_key(key);
        let table = Arc::new(Table { nodes: spec.nodes, links });
        let (listener, _) = listen(spec.api)?;
        let api = Api { table: Arc::clone(&table), tokens };
        detach(&runtime, api::serve(Arc::new(api), listener));
        drop(entered);
        Ok(Self { runtime: Some(runtime), table })
    }

    /// What is told of all links.
    pub fn view(&self) -> Links {
        self.table.view()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // ends all tasks; may be called anywhere
        }
    }
}

/// Runs a task until the runtime ends: nothing it gives back is wanted.
fn detach(runtime: &Runtime, task: impl Future<Output = ()> + Send + 'static) {
    drop(runtime.spawn(task));
}

fn node(nodes: &[Node], name: &NodeName) -> Option<Node> {
    nodes.iter().find(|node| node.name == *name).cloned()
}

fn listen(listener: StdListener) -> Result<(TcpListener, SocketAddr), NetError> {
    let address = listener.local_addr().map_err(NetError::Unbound)?;
    let refused = |source: io::Error| NetError::Listener { address, source };
    listener.set_nonblocking(true).map_err(refused)?;
    Ok((TcpListener::from_std(listener).map_err(refused)?, address))
}
