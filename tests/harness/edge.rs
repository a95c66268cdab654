//! One edge alone, in front of a scripted origin, without a control plane.

use std::net::{Ipv4Addr, SocketAddr};

use meridian_config::edge::{Edge, Site, Upstream};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::client::{Client, Reply, metric};
use crate::origin::ScriptedOrigin;
use crate::process::Process;
use crate::wait::{PATIENCE, eventually};

/// An edge process.
#[derive(Debug)]
pub struct EdgeProcess {
    process: Process,
    url: String,
    admin: String,
    /// Keep the ports from others.
    _ports: [Socket; 2],
    _home: TempDir,
}

impl EdgeProcess {
    /// Starts an edge `fra-1` whose default site has its content from `origin`, after `change` has
    /// had a look at its configuration, and waits until it is ready.
    pub async fn start(origin: &ScriptedOrigin, change: impl FnOnce(&mut Edge)) -> Self {
        Self::before(&origin.address(), change).await
    }

    /// The same before whatever listens at `origin`, `host:port`.
    pub async fn before(origin: &str, change: impl FnOnce(&mut Edge)) -> Self {
        let home = tempfile::tempdir().unwrap();
        let ports = [port(), port()];
        let [listen, admin] = ports.each_ref().map(bound);
        let mut config = configuration(listen, admin, origin);
        change(&mut config);
        let file = home.path().join("edge.toml");
        std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();

        let arguments = ["edge", "--config", file.to_str().unwrap()];
        let process = Process::start(home.path(), &arguments);
        let (url, admin) = (format!("http://{listen}"), format!("http://{admin}"));
        let mut edge = Self { process, url, admin, _ports: ports, _home: home };
        edge.ready().await;
        edge
    }

    async fn ready(&mut self) {
        let ready = format!("{}/readyz", self.admin);
        eventually("the edge is ready", PATIENCE, async || {
            assert!(self.process.runs(), "the edge has ended:\n{}", self.process.stderr());
            Client::try_get(&ready).await.ok().filter(|reply| reply.status == 200)
        })
        .await;
    }

    /// Where clients come in.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Metrics, health, explain.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks for a path over a connection of its own.
    pub async fn get(&self, path: &str) -> Reply {
        Client::get(&format!("{}{path}", self.url)).await
    }

    /// The value of a metric without labels, or the sum over them.
    pub async fn metric(&self, name: &str) -> f64 {
        metric(&self.admin, name).await
    }
}

/// The configuration of a lone edge: everything by default.
fn configuration(listen: SocketAddr, admin: SocketAddr, origin: &str) -> Edge {
    let text = format!(
        "name = \"fra-1\"\nregion = \"fra\"\nlisten = \"{listen}\"\nadmin = \"{admin}\"\ncores = 1\n\
         [peers]\norigin-1 = \"{origin}\"\n"
    );
    let mut edge: Edge = toml::from_str(&text).unwrap();
    edge.origin.push(toml::from_str::<Upstream>("name = \"origin-1\"").unwrap());
    let site = "name = \"default\"\ndefault = true\norigins = [\"origin-1\"]";
    edge.site.push(toml::from_str::<Site>(site).unwrap());
    edge
}

/// A port that nobody else is given while the socket lives. It never listens; whoever binds the
/// same port with `SO_REUSEPORT` gets its connections.
fn port() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket
}

fn bound(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}
