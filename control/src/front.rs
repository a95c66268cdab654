//! The front door: sends each client to the nearest usable edge by a 307.
//!
//! - `front/door.rs`: what it knows of the edges. `front/follow.rs`: asks any replica for them,
//!   and goes on with what it knows when none is there
//! - `front/redirect.rs`: from a request to its `Location`. `front/admin.rs`: metrics and health
//!
//! It is a process of its own: it shares rules with the replicas, and no state.
//!
//! # Invariants
//! - A client is only ever sent to the URL of a registered edge; what it sent decides path and
//!   query, nothing else.
//! - The control plane is never asked on behalf of a request.

mod admin;
mod door;
mod follow;
mod redirect;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use http::Request;
use hyper::body::Incoming;
use meridian_config::control::Front;
use meridian_control_wire::problem::ErrorCode;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::asker::Prefixes;
use crate::auth::Tokens;
use crate::error::RunError;
use crate::front::admin::Admin;
use crate::front::door::Door;
use crate::front::redirect::redirect;
use crate::metrics::{FrontMetrics, Outcome};
use crate::node::{guarded, joined, listen};
use crate::server::{self, Answers};
use crate::steer::Loads;
use crate::world::{self, TcpListener};

/// Runs a front door until `stop` is cancelled and what was in flight is answered or, after
/// `limits.drain_timeout`, cut.
///
/// # Errors
/// What keeps it from starting (before anything is answered), or a task of its own that failed.
pub async fn run(config: Front, stop: CancellationToken) -> Result<(), RunError> {
    bind(config).await?.serve(stop).await
}

/// A front door that listens but does not answer yet.
#[derive(Debug)]
pub struct Bound {
    door: Arc<Door>,
    listener: TcpListener,
    address: SocketAddr,
    admin_listener: TcpListener,
    admin: SocketAddr,
}

/// Checks tokens, prefixes and replicas, and listens. With port 0 any free port is taken.
///
/// # Errors
/// What a person has to change, named.
pub async fn bind(config: Front) -> Result<Bound, RunError> {
    guarded("admin", config.admin, config.token.is_empty())?;
    let prefixes = Prefixes::of(&config.prefix)?;
    let replicas = config
        .replicas
        .iter()
        .map(|name| match config.peers.get(name) {
            Some(address) => Ok((name.clone(), address.clone())),
            None => Err(RunError::NoAddress { name: name.to_string() }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let tokens = config.token.clone();
    // Nothing here needs a token yet; files that cannot be read are told now all the same.
    world::blocking(move || Tokens::read(&tokens)).await??;
    let (listener, address) = listen("listen", config.listen).await?;
    let (admin_listener, admin) = listen("admin", config.admin).await?;
    let door = Door {
        config,
        replicas,
        prefixes,
        view: ArcSwap::default(),
        loads: Mutex::new(Loads::new(world::now())),
        metrics: FrontMetrics::new(),
        ready: AtomicBool::new(false),
    };
    Ok(Bound { door: Arc::new(door), listener, address, admin_listener, admin })
}

impl Bound {
    /// Where clients come in.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and health are.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Serves until `stop` is cancelled and everything is drained or cut.
    ///
    /// # Errors
    /// A task of its own that broke.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), RunError> {
        let Self { door, listener, address, admin_listener, admin } = self;
        tracing::info!(name = %door.config.name, %address, %admin, "front door answers");
        let mut tasks = JoinSet::new();
        let (limits, stopped) = (door.config.limits.clone(), stop.clone());
        let entrance = Entrance(Arc::clone(&door));
        tasks.spawn(async move { server::serve(listener, &limits, entrance, stopped).await });
        let (limits, stopped) = (door.config.limits.clone(), stop.clone());
        let service = Admin(Arc::clone(&door));
        tasks.spawn(async move { server::serve(admin_listener, &limits, service, stopped).await });
        tasks.spawn(follow::follow(door, stop.clone()));
        joined(tasks, &stop).await
    }
}

/// Answers clients.
#[derive(Debug, Clone)]
struct Entrance(Arc<Door>);

impl Answers for Entrance {
    fn answer(
        self,
        request: Request<Incoming>,
        from: IpAddr,
    ) -> impl Future<Output = Answer> + Send + 'static {
        let answer = self.answered(&request, from);
        async move { answer }
    }
}

impl Entrance {
    fn answered(&self, request: &Request<Incoming>, from: IpAddr) -> Answer {
        match redirect(&self.0, request, from) {
            Ok(answer) => {
                self.0.metrics.count(Outcome::Redirected);
                answer
            }
            Err(refusal) => {
                let outcome = match refusal.code() {
                    ErrorCode::NoEdge => Outcome::NoEdge,
                    _ => Outcome::Refused,
                };
                self.0.metrics.count(outcome);
                refusal.into_answer()
            }
        }
    }
}
