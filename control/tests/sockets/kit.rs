//! Nodes, a client and waiting: what every test here starts from.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meridian_config::control::etcd::{Cp, Etcd};
use meridian_config::control::raft::Raft;
use meridian_config::control::{
    Consistency, Control, Front, Health, Journal, Limits, Prefix, Stream,
};
use meridian_config::shared::{Log, Scope, Token};
use meridian_config::units::HumanDuration;
use meridian_control::error::RunError;
use meridian_control::{front, replica};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// The longest that anything here may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// The secrets of the tokens, by the only scope that each has.
pub(crate) const OPERATOR: &str = "operator-0123456789";
pub(crate) const EDGE: &str = "edge-0123456789abcdef";
pub(crate) const PURGER: &str = "purger-0123456789";
pub(crate) const CONFIGURER: &str = "configurer-0123456789";

/// The clock by which tests measure.
#[expect(clippy::disallowed_methods, reason = "a test looks at the real clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until `condition` gives something; fails, naming `what`, when it takes too long.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let start = now();
    let mut look = tokio::time::interval(Duration::from_millis(5));
    loop {
        look.tick().await;
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
    }
}

/// Whatever runs on its own and ends with the test.
pub(crate) fn aside(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "the handle owns it")]
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The token of a problem, which is a well-formed one.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        assert_eq!(problem["type"], "about:blank", "{problem}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        problem["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A request to be sent.
pub(crate) struct Ask {
    address: SocketAddr,
    request: http::request::Builder,
    body: String,
}

/// A request to `address`, with `Host`.
pub(crate) fn ask(address: SocketAddr, method: &str, target: &str) -> Ask {
    let request = Request::builder().method(method).uri(target);
    Ask { address, request, body: String::new() }
}

impl Ask {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub(crate) fn bearer(self, secret: &str) -> Self {
        self.header("authorization", &format!("Bearer {secret}"))
    }

    pub(crate) fn body(mut self, body: impl ToString) -> Self {
        self.body = body.to_string();
        self
    }

    /// Sends it over a connection of its own; `None` if that broke.
    pub(crate) async fn try_send(self) -> Option<Answer> {
        let stream = TcpStream::connect(self.address).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let _driver = aside(async move { drop(connection.await) });
        let request = self.request.header("host", self.address.to_string());
        let request = request.body(Full::<Bytes>::from(self.body)).unwrap();
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    pub(crate) async fn send(self) -> Answer {
        tokio::time::timeout(DEADLINE, self.try_send()).await.unwrap().expect("an answer")
    }

    /// Sends it by HTTP/2 with prior knowledge.
    pub(crate) async fn send_h2(self) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let _driver = aside(async move { drop(connection.await) });
        let mut request = self.request.body(Full::<Bytes>::from(self.body)).unwrap();
        let target = format!("http://{}{}", self.address, request.uri());
        *request.uri_mut() = target.parse().unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        assert_eq!(head.version, http::Version::HTTP_2);
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }
}

/// Sends `bytes` as they are and reads until the other side closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The other side may have answered and closed before it took everything.
        drop(stream.write_all(bytes).await);
        let mut got = Vec::new();
        drop(stream.read_to_end(&mut got).await);
        String::from_utf8_lossy(&got).into_owned()
    };
    tokio::time::timeout(DEADLINE, exchange).await.expect("the other side closes")
}

/// Where a node may be told to listen: any free port of this machine.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn ms(n: u64) -> HumanDuration {
    HumanDuration::millis(n)
}

pub(crate) fn count(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

/// A task that serves, and how to end it.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    fn start(serve: impl FnOnce(CancellationToken) -> JoinHandle<Result<(), RunError>>) -> Self {
        let stop = CancellationToken::new();
        Self { stop: stop.clone(), task: serve(stop) }
    }

    async fn end(self) -> Duration {
        let start = now();
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap().unwrap();
        start.elapsed()
    }
}

/// The configuration of a replica with `data` and tokens in `folder`.
pub(crate) fn control_config(folder: &Path) -> Control {
    let token = |name: &str, secret: &str, scope| {
        let file = folder.join(name);
        std::fs::write(&file, format!("{secret}\n")).unwrap();
        Token { name: name.to_owned(), scopes: vec![scope], file }
    };
    Control {
        name: "control-1".parse().unwrap(),
        region: "iad".parse().unwrap(),
        listen: any_port(),
        data: folder.join("data"),
        replicas: vec!["control-1".parse().unwrap()],
        peers: BTreeMap::new(),
        prefix: Vec::new(),
        consistency: Consistency::default(),
        cp: Cp::default(),
        raft: Raft::default(),
        etcd: Etcd::default(),
        // Generous: on a busy machine a scripted edge must not lapse unasked.
        health: Health {
            edge_lapse: ms(2_000),
            edge_recovery: ms(300),
            edge_expiry: ms(600_000),
            lease: ms(600),
        },
        journal: Journal::default(),
        stream: Stream::default(),
        limits: Limits::default(),
        token: vec![
            token("anna", OPERATOR, Scope::Operate),
            token("edges", EDGE, Scope::Edge),
            token("ci", PURGER, Scope::Purge),
            token("ops", CONFIGURER, Scope::Config),
        ],
        log: Log::default(),
    }
}

/// What orders for a replica besides itself.
#[cfg(feature = "etcd")]
type Orderer = Option<crate::etcd_server::EtcdServer>;
#[cfg(not(feature = "etcd"))]
type Orderer = Option<std::convert::Infallible>;

/// Has another engine order for the replica of `config`, where the environment asks for it: what
/// is true of one engine is true of each.
#[cfg(feature = "etcd")]
async fn ordered(config: &mut Control) -> Orderer {
    crate::etcd_server::demanded(config).await
}
#[cfg(not(feature = "etcd"))]
fn ordered(_: &mut Control) -> std::future::Ready<Orderer> {
    std::future::ready(None)
}

/// Whether another engine orders for each replica that is not part of a cluster.
pub(crate) fn is_ordered_elsewhere() -> bool {
    #[cfg(feature = "etcd")]
    return crate::etcd_server::is_demanded();
    #[cfg(not(feature = "etcd"))]
    false
}

/// A replica.
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    pub(crate) folder: TempDir,
    orderer: Orderer,
    config: Control,
    running: Running,
}

impl Replica {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Control)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = control_config(folder.path());
        let orderer = ordered(&mut config).await;
        change(&mut config);
        Self::run(folder, config, orderer).await
    }

    async fn run(folder: TempDir, config: Control, orderer: Orderer) -> Self {
        let bound = replica::bind(config.clone()).await.unwrap();
        let address = bound.address();
        #[expect(clippy::disallowed_methods, reason = "`Running` owns it")]
        let running = Running::start(|stop| tokio::spawn(bound.serve(stop)));
        Self { address, folder, orderer, config, running }
    }

    /// Ends it; how long that took.
    pub(crate) async fn stop(self) -> Duration {
        self.running.end().await
    }

    /// Ends it and keeps what it needs to start again at the same address.
    pub(crate) async fn pause(self) -> Paused {
        let Self { address, folder, orderer, mut config, running } = self;
        running.end().await;
        config.listen = address;
        Paused { folder, config, orderer }
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        ask(self.address, "GET", target).send().await
    }

    /// The value of a metric; `name` with its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        metric(self.address, name).await
    }

    /// The register's line of one edge.
    pub(crate) async fn edge(&self, name: &str) -> Option<Value> {
        let edges = self.get("/v1/edges").await.json();
        edges["edges"].as_array().unwrap().iter().find(|edge| edge["name"] == name).cloned()
    }

    pub(crate) async fn until_state(&self, name: &str, state: &str) {
        let what = format!("{name} is {state}");
        eventually(&what, async || self.edge(name).await.filter(|edge| edge["state"] == state))
            .await;
    }

    /// Orders a purge; `target` with its parameters.
    pub(crate) fn purge(&self, target: &str, order: Value) -> Ask {
        ask(self.address, "POST", target).bearer(PURGER).body(order)
    }

    /// The whole history.
    pub(crate) async fn history(&self) -> Vec<Value> {
        let (mut purges, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/purges{after}")).await.json();
            purges.extend(page["purges"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next"].as_str() else { return purges };
            after = format!("?after={next}");
        }
    }

    pub(crate) async fn intend(&self, region: &str, state: &str) -> Answer {
        ask(self.address, "PUT", &format!("/v1/regions/{region}/intent"))
            .bearer(OPERATOR)
            .body(json!({ "state": state }))
            .send()
            .await
    }
}

/// A replica that is down.
pub(crate) struct Paused {
    pub(crate) folder: TempDir,
    pub(crate) config: Control,
    orderer: Orderer,
}

impl Paused {
    pub(crate) async fn resume(self) -> Replica {
        Replica::run(self.folder, self.config, self.orderer).await
    }
}

/// The value of a metric at `address`.
pub(crate) async fn metric(address: SocketAddr, name: &str) -> f64 {
    let answer = ask(address, "GET", "/metrics").send().await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let text = answer.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

/// A front door.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    running: Running,
}

impl Door {
    /// The configuration of one that follows `replicas`, in this order.
    pub(crate) fn config(replicas: &[(&str, SocketAddr)]) -> Front {
        let peers = replicas
            .iter()
            .map(|(name, address)| (name.parse().unwrap(), address.to_string().parse().unwrap()))
            .collect();
        Front {
            name: "front-1".parse().unwrap(),
            listen: any_port(),
            admin: any_port(),
            replicas: replicas.iter().map(|(name, _)| name.parse().unwrap()).collect(),
            peers,
            trust_from: false,
            prefix: Vec::new(),
            default_from: None,
            poll: ms(20),
            limits: Limits::default(),
            token: Vec::new(),
            log: Log::default(),
        }
    }

    pub(crate) async fn start(
        replicas: &[(&str, SocketAddr)],
        change: impl FnOnce(&mut Front),
    ) -> Self {
        let mut config = Self::config(replicas);
        change(&mut config);
        let bound = front::bind(config).await.unwrap();
        let (address, admin) = (bound.address(), bound.admin());
        #[expect(clippy::disallowed_methods, reason = "`Running` owns it")]
        let running = Running::start(|stop| tokio::spawn(bound.serve(stop)));
        Self { address, admin, running }
    }

    pub(crate) async fn stop(self) -> Duration {
        self.running.end().await
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        ask(self.address, "GET", target).send().await
    }

    /// Where `target` leads from a place.
    pub(crate) async fn from(&self, place: &str) -> String {
        let answer = self.get(&format!("/?meridian-from={place}")).await;
        format!("{}{}", answer.status, answer.header("location"))
    }

    /// Waits until it knows edges.
    pub(crate) async fn until_ready(&self) {
        let ready = async || ask(self.admin, "GET", "/readyz").send().await.status == 200;
        eventually("the front door is ready", async || ready().await.then_some(())).await;
    }

    /// Waits until clients at `place` are sent to `url`.
    pub(crate) async fn until_sends(&self, place: &str, url: &str) {
        let want = format!("307{url}/");
        let what = format!("clients at {place} are sent to {url}");
        eventually(&what, async || (self.from(place).await == want).then_some(())).await;
    }
}

/// The configuration of a prefix.
pub(crate) fn prefix(net: &str, from: &str) -> Prefix {
    Prefix { net: net.to_owned(), from: from.to_owned() }
}

/// An edge that registers, and beats as long as it lives.
pub(crate) struct FakeEdge {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) secret: String,
    beating: Option<AbortOnDropHandle<()>>,
}

/// What an edge says when it registers.
pub(crate) fn registration(name: &str, region: &str) -> Value {
    let place = meridian_config::places::place(region).unwrap();
    json!({
        "name": name, "region": region, "city": place.city,
        "location": [place.location.0, place.location.1],
        "url": format!("http://{name}.example:8080"), "admin": "http://127.0.0.1:1",
    })
}

/// Registers with the token of edges.
pub(crate) async fn register(control: SocketAddr, registration: &Value) -> Answer {
    ask(control, "POST", "/v1/edges").bearer(EDGE).body(registration).send().await
}

/// A beat.
pub(crate) fn ping(control: SocketAddr, name: &str, secret: &str, sequence: u64) -> Ask {
    let body = json!({
        "active_requests": 3, "requests_total": 1_000 + sequence, "store_bytes": 4_096,
        "store_entries": 7, "sequence": sequence,
    });
    ask(control, "POST", &format!("/v1/edge/{name}/ping")).bearer(secret).body(body)
}

impl FakeEdge {
    /// Registers, and beats.
    pub(crate) async fn start(control: SocketAddr, name: &str, region: &str) -> Self {
        Self::start_as(control, &registration(name, region)).await
    }

    pub(crate) async fn start_as(control: SocketAddr, registration: &Value) -> Self {
        let answer = register(control, registration).await;
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        let registered = answer.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (name, url) = (text(&registration["name"]), text(&registration["url"]));
        let secret = text(&registered["secret"]);
        let mut edge = Self { name, url, secret, beating: None };
        edge.live(control, 1);
        edge
    }

    /// Beats on, from `sequence`. Goes on when the replica is away.
    pub(crate) fn live(&mut self, control: SocketAddr, mut sequence: u64) {
        let (name, secret) = (self.name.clone(), self.secret.clone());
        self.beating = Some(aside(async move {
            let mut beat = tokio::time::interval(Duration::from_millis(50));
            loop {
                beat.tick().await;
                drop(ping(control, &name, &secret, sequence).try_send().await);
                sequence += 1;
            }
        }));
    }

    /// Falls silent.
    pub(crate) fn die(&mut self) {
        self.beating = None;
    }
}
