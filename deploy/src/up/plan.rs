//! From options, folder and ports to nodes, their configuration files and `cluster.json`.
//!
//! # Invariants
//! - The order in which ports are taken is the documented one (`meridian up --help`).
//! - A node knows another by its name and finds the address in its own `[peers]`, nowhere else.
//!   Unless links are direct, that is the address of a link.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use meridian_config::control::etcd::{Cp, Etcd};
use meridian_config::control::raft::Raft;
use meridian_config::control::{Consistency, Control, Front, Health, Journal, Limits, Stream};
use meridian_config::edge::compression::Compressor;
use meridian_config::edge::shield::Shield;
use meridian_config::edge::{Accept, Cache, Edge, Follow, Purge, Site as EdgeSite, Upstream};
use meridian_config::load::check;
use meridian_config::origin::{Content, Limits as OriginLimits, Orders, Origin};
use meridian_config::places::Place;
use meridian_config::role::Role;
use meridian_config::shared::{Log, Peers, Scope, Token};
use meridian_config::units::{Address, ByteSize, HumanDuration, NodeName, Region};
use meridian_tests_chaos::net::Spec;
use serde::de::DeserializeOwned;

use crate::cluster::{Cluster, ControlEntry, EdgeEntry, OriginEntry, VERSION};
use crate::up::dir::ClusterDir;
use crate::up::error::UpError;
use crate::up::links::{Party, Wiring};
use crate::up::options::{Options, Site};
use crate::up::ports::Ports;

/// After Ctrl-C, clients of an edge get this long to end well: a page, not a long download.
const EDGE_DRAIN: HumanDuration = HumanDuration::secs(5);

/// The others answer short requests.
const OTHER_DRAIN: HumanDuration = HumanDuration::secs(2);

/// The name of the token of all scopes, in logs.
const TOKEN_NAME: &str = "up";

/// The nodes of a local CDN, and how to describe them.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The nodes, in the order in which their addresses are told.
    pub(crate) nodes: Vec<Node>,
    /// The description; process ids are not in it yet.
    pub(crate) cluster: Cluster,
    /// The links between the nodes; none if they are direct.
    pub(crate) links: Option<Spec>,
}

/// One node: one process.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: NodeName,
    /// Its role.
    pub(crate) kind: Kind,
    /// Where it stands; a front door stands nowhere.
    pub(crate) place: Option<&'static Place>,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// Where its health is asked for: the admin listener, of a control replica the only one.
    pub(crate) health: SocketAddr,
    /// Its configuration, as TOML.
    pub(crate) config: String,
    /// From the order to stop until it cuts what is in flight.
    pub(crate) drain: Duration,
}

impl Node {
    /// `http://` and where it listens.
    pub(crate) fn url(&self) -> String {
        url(self.listen)
    }

    /// `http://` and where its health is asked for, if that is not where it listens.
    pub(crate) fn admin(&self) -> Option<String> {
        (self.health != self.listen).then(|| url(self.health))
    }
}

/// The role of a node, in the order in which they are drained: whoever sends requests stops
/// before whoever answers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The front door.
    Front,
    /// An edge.
    Edge,
    /// A control replica.
    Control,
    /// An origin.
    Origin,
}

impl Kind {
    /// All of them, in the order in which they are drained.
    pub(crate) const ALL: [Self; 4] = [Self::Front, Self::Edge, Self::Control, Self::Origin];

    /// As the command line says it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Front => Front::NAME,
            Self::Edge => Edge::NAME,
            Self::Control => Control::NAME,
            Self::Origin => Origin::NAME,
        }
    }
}

impl Plan {
    /// Plans the cluster: takes ports, makes every node's configuration and checks it.
    pub(crate) fn new(
        options: &Options,
        dir: &ClusterDir,
        ports: &mut Ports,
        front: SocketAddr,
    ) -> Result<Self, UpError> {
        let addresses = Addresses::take(options, ports, front)?;
        let wiring = addresses.wire(options)?;
        let planner = Planner { options, dir, addresses, wiring };
        let mut nodes = vec![planner.front()?, planner.control()?];
        nodes.extend(planner.origin()?);
        for edge in &planner.addresses.edges {
            nodes.push(planner.edge(edge)?);
        }
        let (mut cluster, tokens) = (planner.cluster(), planner.tokens());
        let links = planner.wiring.into_spec(ports, tokens)?;
        cluster.net = links.as_ref().and_then(|links| links.api.local_addr().ok()).map(url);
        Ok(Self { nodes, cluster, links })
    }
}

/// Who listens where.
struct Addresses {
    front: Pair,
    control: SocketAddr,
    origin: Origins,
    edges: Vec<EdgeAddresses>,
}

#[derive(Debug, Clone, Copy)]
struct Pair {
    listen: SocketAddr,
    admin: SocketAddr,
}

enum Origins {
    Ours(Pair),
    Server(Address),
}

struct EdgeAddresses {
    name: NodeName,
    place: &'static Place,
    pair: Pair,
}

impl Addresses {
    fn take(options: &Options, ports: &mut Ports, front: SocketAddr) -> Result<Self, UpError> {
        let front = Pair { listen: front, admin: ports.next()? };
        let control = ports.next()?;
        let mut pair = || Ok::<_, UpError>(Pair { listen: ports.next()?, admin: ports.next()? });
        let origin = match &options.site {
            Site::Server(server) => Origins::Server(server.clone()),
            Site::Sample | Site::Folder(_) | Site::Trace(_) => Origins::Ours(pair()?),
        };
        let mut edges = Vec::new();
        for place in &options.regions {
            for number in 1..=options.edges_per_region {
                let name = node_name(&format!("{}-{number}", place.code));
                edges.push(EdgeAddresses { name, place, pair: pair()? });
            }
        }
        Ok(Self { front, control, origin, edges })
    }

    /// Where edges reach the origin in the end: ours, or somebody's web server.
    fn origin(&self) -> Address {
        match &self.origin {
            Origins::Ours(pair) => address(pair.listen),
            Origins::Server(server) => server.clone(),
        }
    }

    /// The edges that `edge` asks before the origin.
    fn shields_of<'s>(
        &'s self,
        options: &Options,
        edge: &EdgeAddresses,
    ) -> impl Iterator<Item = &'s EdgeAddresses> {
        let region = options.shield.filter(|place| *place != edge.place);
        self.edges.iter().filter(move |other| Some(other.place) == region)
    }

    /// Lays the links: who dials whom.
    fn wire(&self, options: &Options) -> Result<Wiring, UpError> {
        let home = options.regions.first().copied();
        let party = |name: &str, kind: Kind, place, address| Party {
            name: node_name(name),
            role: kind.word(),
            place,
            address,
        };
        let mut parties = vec![
            party("front", Kind::Front, None, None),
            party("control-1", Kind::Control, home, Some(address(self.control))),
            party("origin-1", Kind::Origin, home, Some(self.origin())),
        ];
        parties.extend(self.edges.iter().map(|edge| {
            let admin = Some(address(edge.pair.admin));
            party(edge.name.as_str(), Kind::Edge, Some(edge.place), admin)
        }));
        let mut wiring = Wiring::new(options.links, parties);
        let (front, control, origin) =
            (node_name("front"), node_name("control-1"), node_name("origin-1"));
        wiring.lay(&front, &control)?;
        for edge in &self.edges {
            wiring.lay(&edge.name, &origin)?;
            wiring.lay(&edge.name, &control)?;
            wiring.lay(&control, &edge.name)?; // its admin listener
            for shield in self.shields_of(options, edge) {
                wiring.lay_at(&edge.name, &shield.name, &address(shield.pair.listen))?;
            }
        }
        Ok(wiring)
    }
}

struct Planner<'a> {
    options: &'a Options,
    dir: &'a ClusterDir,
    addresses: Addresses,
    wiring: Wiring,
}

impl Planner<'_> {
    fn front(&self) -> Result<Node, UpError> {
        let name = node_name("front");
        let control = node_name("control-1");
        let Pair { listen, admin } = self.addresses.front;
        let config = Front {
            name: name.clone(),
            listen,
            admin,
            peers: self.peers(&name, [&control]),
            replicas: vec![control],
            trust_from: true, // whoever asks sits at this machine
            prefix: Vec::new(),
            default_from: Some(region(self.home())),
            poll: HumanDuration::millis(100), // a restarted edge has clients again at once
            limits: Limits { drain_timeout: OTHER_DRAIN, ..Limits::default() },
            token: self.tokens(),
            log: self.log(),
        };
        node(Kind::Front, name, None, (listen, admin), OTHER_DRAIN, &config)
    }

    fn control(&self) -> Result<Node, UpError> {
        let name = node_name("control-1");
        let listen = self.addresses.control;
        let home = self.home();
        let edges = self.addresses.edges.iter().map(|edge| &edge.name);
        let config = Control {
            name: name.clone(),
            region: region(home),
            listen,
            data: self.dir.data(&name),
            replicas: vec![name.clone()],
            peers: self.peers(&name, edges),
            consistency: Consistency::default(),
            cp: Cp::default(),
            raft: Raft::default(),
            etcd: Etcd::default(),
            health: Health::default(),
            journal: Journal::default(),
            stream: Stream::default(),
            prefix: Vec::new(),
            limits: Limits { drain_timeout: OTHER_DRAIN, ..Limits::default() },
            token: self.tokens(),
            log: self.log(),
        };
        node(Kind::Control, name, Some(home), (listen, listen), OTHER_DRAIN, &config)
    }

    fn origin(&self) -> Result<Option<Node>, UpError> {
        let Origins::Ours(pair) = &self.addresses.origin else { return Ok(None) };
        let (listen, admin) = (pair.listen, pair.admin);
        let name = node_name("origin-1");
        let home = self.home();
        let mut content = Content::default();
        match &self.options.site {
            Site::Sample => content.sample = true,
            Site::Folder(path) => content.folder = Some(path.clone()),
            Site::Trace(path) => content.trace = Some(path.clone()),
            Site::Server(_) => return Ok(None),
        }
        let config = Origin {
            name: name.clone(),
            region: region(home),
            listen,
            admin,
            content,
            rule: Vec::new(),
            orders: Orders {
                file: Some(self.dir.data(&name).join("orders.redb")),
                ..Orders::default()
            },
            limits: OriginLimits { drain_timeout: OTHER_DRAIN, ..OriginLimits::default() },
            token: self.tokens(),
            log: self.log(),
        };
        let node = node(Kind::Origin, name, Some(home), (listen, admin), OTHER_DRAIN, &config)?;
        Ok(Some(node))
    }

    fn edge(&self, edge: &EdgeAddresses) -> Result<Node, UpError> {
        let (origin, control) = (node_name("origin-1"), node_name("control-1"));
        let Pair { listen, admin } = edge.pair;
        let shields = self.addresses.shields_of(self.options, edge);
        let shields: Vec<NodeName> = shields.map(|shield| shield.name.clone()).collect();
        let config = Edge {
            name: edge.name.clone(),
            region: region(edge.place),
            city: Some(edge.place.city.to_owned()),
            location: Some(edge.place.location),
            listen,
            admin,
            public_url: Some(url(listen)),
            admin_url: Some(url(admin)),
            cores: None,
            accept: Accept { drain_timeout: EDGE_DRAIN, ..Accept::default() },
            cache: self.cache(),
            compression: Compressor::default(),
            purge: Purge::default(),
            control: Some(Follow {
                token_file: self.dir.token_file(),
                state: Some(self.dir.data(&edge.name)),
                ..table("replicas = [\"control-1\"]\ntoken_file = \"\"")
            }),
            peers: self.peers(&edge.name, [&control, &origin].into_iter().chain(&shields)),
            origin: std::iter::once(Upstream {
                authority: Some(self.addresses.origin()), // whatever link leads there
                ..self.upstream()
            })
            .chain(shields.iter().map(shield))
            .collect(),
            shield: self.options.shield.map(|_| Shield {
                nodes: shields.clone(),
                secret_file: self.dir.node_secret_file(),
                ..table("secret_file = \"\"")
            }),
            site: vec![EdgeSite {
                default: true,
                profile: self.options.profile,
                ..table("name = \"default\"\norigins = [\"origin-1\"]")
            }],
            token: self.tokens(),
            log: self.log(),
        };
        let name = edge.name.clone();
        node(Kind::Edge, name, Some(edge.place), (listen, admin), EDGE_DRAIN, &config)
    }

    /// What every edge is told of its origin.
    fn upstream(&self) -> Upstream {
        let mut settings = self.options.origin_settings.clone();
        settings.insert("name".to_owned(), "origin-1".into());
        settings.try_into().expect("options hold settings that were read as these before")
    }

    /// A store of the size that was asked for; what is bounded by it stays in proportion.
    fn cache(&self) -> Cache {
        let default = Cache::default();
        let Some(capacity) = self.options.capacity else { return default };
        let at_most = |size: ByteSize, part: u64| size.min(ByteSize::bytes(capacity.get() / part));
        Cache {
            capacity,
            max_body: at_most(default.max_body, 4),
            in_flight: default.in_flight,
            max_variants: default.max_variants,
            max_parts: default.max_parts,
            finish_abandoned: at_most(default.finish_abandoned, 16),
            max_background: default.max_background,
        }
    }

    fn cluster(&self) -> Cluster {
        let home = region(self.home());
        let edge = |edge: &EdgeAddresses| EdgeEntry {
            name: edge.name.clone(),
            region: region(edge.place),
            city: edge.place.city.to_owned(),
            location: edge.place.location,
            url: url(edge.pair.listen),
            admin: url(edge.pair.admin),
            pid: None,
        };
        Cluster {
            version: VERSION,
            consistency: "cp".to_owned(),
            front: url(self.addresses.front.listen),
            net: None,
            token_file: self.dir.token_file(),
            origins: vec![OriginEntry {
                name: node_name("origin-1"),
                region: home.clone(),
                url: format!("http://{}", self.addresses.origin()),
                admin: match &self.addresses.origin {
                    Origins::Ours(pair) => Some(url(pair.admin)),
                    Origins::Server(_) => None,
                },
                pid: None,
            }],
            controls: vec![ControlEntry {
                name: node_name("control-1"),
                region: home,
                url: url(self.addresses.control),
                pid: None,
            }],
            edges: self.addresses.edges.iter().map(edge).collect(),
        }
    }

    /// The table of a node from the names of those that it dials to addresses.
    fn peers<'n>(&self, node: &NodeName, dialled: impl IntoIterator<Item = &'n NodeName>) -> Peers {
        let entry = |name: &NodeName| Some((name.clone(), self.wiring.address(node, name)?));
        dialled.into_iter().filter_map(entry).collect()
    }

    /// Where the origin and the control plane stand.
    fn home(&self) -> &'static Place {
        self.options.regions.first().copied().expect("options have at least one region")
    }

    fn tokens(&self) -> Vec<Token> {
        let file: PathBuf = self.dir.token_file();
        let scopes = vec![Scope::Purge, Scope::Publish, Scope::Config, Scope::Operate, Scope::Edge];
        vec![Token { name: TOKEN_NAME.to_owned(), scopes, file }]
    }

    fn log(&self) -> Log {
        Log { level: self.options.level, ..Log::default() }
    }
}

/// What an edge is told of a shield: there is another way, so it is left sooner than an origin.
fn shield(name: &NodeName) -> Upstream {
    Upstream {
        name: name.clone(),
        connect_timeout: HumanDuration::secs(1),
        ..table("name = \"shield\"")
    }
}

/// A table of a configuration that says only this and has defaults for the rest.
fn table<T: DeserializeOwned>(text: &str) -> T {
    toml::from_str(text).expect("a table with the keys that have no default is complete")
}

/// Checks `config` as its role does when it starts, and writes it down.
fn node<R: Role>(
    kind: Kind,
    name: NodeName,
    place: Option<&'static Place>,
    (listen, health): (SocketAddr, SocketAddr),
    drain: HumanDuration,
    config: &R,
) -> Result<Node, UpError> {
    check(config, name.as_str())?;
    let config = toml::to_string(config)
        .map_err(|source| UpError::Unwritable { node: name.clone(), source })?;
    Ok(Node { name, kind, place, listen, health, config, drain: drain.get() })
}

fn node_name(text: &str) -> NodeName {
    text.parse().expect("a role or a place's code, a dash and a number are a name")
}

fn region(place: &Place) -> Region {
    place.code.parse().expect("a place's code is a label")
}

fn address(socket: SocketAddr) -> Address {
    socket.to_string().parse().expect("an address and a port that is not 0 are host:port")
}

fn url(socket: SocketAddr) -> String {
    format!("http://{socket}")
}

#[cfg(test)]
mod tests;
