//! Two nodes and the link between them: the tests are the nodes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::time::Duration;

use meridian_config::shared::{Scope, Token};
use meridian_tests_chaos::names::Node;
use meridian_tests_chaos::net::{LinkSpec, Net, Spec};
use meridian_tests_chaos::order::{Action, Order};
use meridian_tests_chaos::shape::{Shape, Ways};
use meridian_tests_chaos::view::{LinkView, Links};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long anything may take that happens soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A connection attempt to a listener of this machine that lasts longer hangs.
pub(crate) const HANGS: Duration = Duration::from_millis(300);

pub(crate) const SECRET: &str = "0123456789abcdef";
pub(crate) const PURGER: &str = "fedcba9876543210";

/// `fra-1` dials `origin-1` through a link, and `front` does too.
pub(crate) struct Rig {
    pub(crate) net: Net,
    pub(crate) api: SocketAddr,
    /// What `fra-1` dials.
    pub(crate) link: SocketAddr,
    /// `origin-1`.
    pub(crate) server: TcpListener,
    _files: TempDir,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(Ways::default()).await
    }

    /// With a link that is so from the start.
    pub(crate) async fn with(base: Ways<Shape>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let token = |name: &str, secret: &str, scope| {
            let file = files.path().join(name);
            std::fs::write(&file, format!("{secret}\n")).unwrap();
            Token { name: name.to_owned(), scopes: vec![scope], file }
        };
        let tokens =
            vec![token("boss", SECRET, Scope::Operate), token("purger", PURGER, Scope::Purge)];
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dial: meridian_config::units::Address =
            server.local_addr().unwrap().to_string().parse().unwrap();
        let node = |name: &str, role, region: Option<&str>| Node {
            name: name.parse().unwrap(),
            role,
            region: region.map(|region| region.parse().unwrap()),
        };
        let listener = || StdListener::bind("127.0.0.1:0").unwrap();
        let link = |from: &str, base| LinkSpec {
            from: from.parse().unwrap(),
            to: "origin-1".parse().unwrap(),
            listener: listener(),
            dial: dial.clone(),
            base,
        };
        let links = vec![link("fra-1", base), link("front", Ways::default())];
        let address = links.first().unwrap().listener.local_addr().unwrap();
        let api = listener();
        let api_address = api.local_addr().unwrap();
        let nodes = vec![
            node("front", "front", None),
            node("fra-1", "edge", Some("fra")),
            node("origin-1", "origin", Some("iad")),
        ];
        let net = Net::start(Spec { nodes, links, api, tokens, seed: 7 }).unwrap();
        Self { net, api: api_address, link: address, server, _files: files }
    }

    /// Connects through the link: the dialer's end and the server's.
    pub(crate) async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = timeout(PATIENCE, TcpStream::connect(self.link)).await.unwrap().unwrap();
        let (server, _) = timeout(PATIENCE, self.server.accept()).await.unwrap().unwrap();
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        (client, server)
    }

    /// The state of the link from `fra-1`.
    pub(crate) fn view(&self) -> LinkView {
        let links = self.net.view().links;
        links.into_iter().find(|link| link.from.as_str() == "fra-1").unwrap()
    }

    /// Orders, with the right token.
    pub(crate) async fn order(&self, order: &Order) -> Links {
        let body = serde_json::to_string(order).unwrap();
        let (status, answer) = self.ask("POST", "/v1/links", Some(SECRET), &body).await;
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    }

    /// An order about all that is between the two.
    pub(crate) async fn act(&self, action: Action) -> Links {
        self.order(&Order::between(action, "fra-1", "origin-1")).await
    }

    /// One exchange with the API: status and body.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> (u16, String) {
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: net\r\nConnection: close\r\n{}\
             Content-Length: {}\r\n\r\n{body}",
            token.unwrap_or_default(),
            body.len()
        );
        let api = self.api;
        let exchange = move || {
            let mut stream = StdStream::connect(api).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let answer = tokio::task::spawn_blocking(exchange).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }
}

/// Waits for a condition, with a deadline.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let looking = async {
        let mut pace = interval(Duration::from_millis(5));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !condition() {
            pace.tick().await;
        }
    };
    assert!(timeout(PATIENCE, looking).await.is_ok(), "waited in vain until {what}");
}

/// Reads exactly as many bytes.
pub(crate) async fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

/// Reads on: the number of bytes, or the error.
pub(crate) async fn read_on(stream: &mut TcpStream) -> std::io::Result<usize> {
    timeout(PATIENCE, stream.read(&mut [0; 1024])).await.unwrap()
}
