//! An origin on free ports that ends with its test.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use meridian_config::origin::{Content, Limits, Orders, Origin, Rule};
use meridian_config::shared::Log;
use meridian_origin::error::RunError;
use meridian_origin::{Addresses, bind_with};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::client::{Answer, Client, DEADLINE};

/// An origin that serves.
pub(crate) struct Running {
    pub(crate) addresses: Addresses,
    pub(crate) stop: CancellationToken,
    task: JoinSet<Result<(), RunError>>,
    dir: TempDir,
}

/// The configuration of a boring origin.
pub(crate) fn config(content: Content) -> Origin {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Origin {
        name: "origin-1".parse().unwrap(),
        region: "iad".parse().unwrap(),
        listen: any,
        admin: any,
        content,
        rule: Vec::new(),
        orders: Orders::default(),
        limits: Limits::default(),
        token: Vec::new(),
        log: Log::default(),
    }
}

pub(crate) fn sample() -> Content {
    Content { sample: true, ..Content::default() }
}

pub(crate) fn rule(path: &str, cache_control: Option<&str>, surrogate_key: Option<&str>) -> Rule {
    Rule {
        path: path.parse().unwrap(),
        cache_control: cache_control.map(str::to_owned),
        surrogate_key: surrogate_key.map(str::to_owned),
    }
}

impl Running {
    /// Serves the sample site.
    pub(crate) async fn sample() -> Self {
        Self::start(|_| config(sample())).await
    }

    /// Serves a folder with these files.
    pub(crate) async fn folder(files: &[(&str, &[u8])]) -> Self {
        Self::folder_with(files, |_| {}).await
    }

    /// The same, configured further.
    pub(crate) async fn folder_with(
        files: &[(&str, &[u8])],
        change: impl FnOnce(&mut Origin),
    ) -> Self {
        Self::start(|dir| {
            for (name, content) in files {
                let path = dir.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            let folder = Some(dir.to_owned());
            let mut config = config(Content { folder, ..Content::default() });
            change(&mut config);
            config
        })
        .await
    }

    /// Serves the objects of a trace.
    pub(crate) async fn trace(csv: &str) -> Self {
        Self::start(|dir| {
            let path = dir.join("trace.csv");
            fs::write(&path, csv).unwrap();
            config(Content { trace: Some(path), ..Content::default() })
        })
        .await
    }

    /// Serves what `configure` says; it gets a folder that lives as long as the origin.
    pub(crate) async fn start(configure: impl FnOnce(&Path) -> Origin) -> Self {
        let dir = TempDir::new().unwrap();
        let origin = bind_with(configure(dir.path()), StdRng::seed_from_u64(7)).await.unwrap();
        let (addresses, stop) = (origin.addresses(), CancellationToken::new());
        let mut task = JoinSet::new();
        task.spawn(origin.serve(stop.clone()));
        Self { addresses, stop, task, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.addresses.data).await
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.client().await.get(target).await
    }

    pub(crate) async fn exchange(&self, method: &str, target: &str, fields: &[&str]) -> Answer {
        self.client().await.exchange(method, target, fields).await
    }

    /// Asks the admin listener.
    pub(crate) async fn admin(&self, method: &str, target: &str, body: &str) -> Answer {
        Client::connect(self.addresses.admin).await.send_json(method, target, body).await
    }

    /// Puts these faults into force.
    pub(crate) async fn fault(&self, faults: &str) {
        let body = format!(r#"{{"faults":[{faults}]}}"#);
        let answer = self.admin("PUT", "/v1/faults", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// The value of a metric, labels included in its name.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let answer = self.admin("GET", "/metrics", "").await;
        let line =
            answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing in\n{}", answer.text())).parse().unwrap()
    }

    /// Waits until a metric has a value.
    pub(crate) async fn until(&self, name: &str, want: f64) {
        let reached = async {
            while self.metric(name).await < want {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, reached).await.unwrap_or_else(|_| panic!("{name} never reached {want}"));
    }

    /// Orders it to stop, and waits until it has.
    pub(crate) async fn stopped(mut self) {
        self.stop.cancel();
        self.ended().await;
    }

    /// Waits until it has stopped.
    pub(crate) async fn ended(&mut self) {
        let ended = timeout(DEADLINE, self.task.join_next()).await.expect("within the deadline");
        ended.unwrap().unwrap().unwrap();
    }
}
