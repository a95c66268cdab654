//! `meridian status`: nodes, regions, health, requests, hit ratios, stores.
//!
//! Asks every node itself, beside the control plane: when the control plane is gone, the rest is
//! still told.

use std::collections::BTreeMap;
use std::time::Duration;

use meridian_config::units::ByteSize;
use meridian_control_wire::{EdgeView, Edges, RegionView, Regions};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::cli::StatusArgs;
use crate::client::Client;
use crate::cluster::Cluster;
use crate::error::{CommandError, chain};
use crate::origins::{OriginView, origins};
use crate::output::{Format, write_result};
use crate::run::runtime;
use crate::table::Table;
use crate::target::Target;

/// A node that does not answer within this is not well, whatever it may say later.
const PATIENCE: Duration = Duration::from_secs(2);

/// The state of a cluster.
#[derive(Debug, Serialize)]
struct Status {
    /// The front door, if the cluster runs in a folder here.
    front: Option<String>,
    control: String,
    nodes: Vec<NodeStatus>,
    /// Empty if the control plane did not answer.
    regions: Vec<RegionView>,
    /// What could not be found out, and why.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NodeStatus {
    name: String,
    role: &'static str,
    region: Option<String>,
    url: String,
    admin: Option<String>,
    pid: Option<u32>,
    /// `ready`, or why it is not.
    health: String,
    /// What the control plane says of an edge.
    state: Option<&'static str>,
    traffic: Option<Traffic>,
    /// How an edge sees its origins.
    origins: Vec<OriginView>,
}

/// What an edge says of itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Traffic {
    requests: u64,
    /// Answered without a fetch of their own: from the store, or collapsed.
    hits: u64,
    hit_ratio: Option<f64>,
    store_bytes: u64,
    store_capacity_bytes: u64,
    store_urls: u64,
}

/// Asks and shows.
pub(crate) fn status(args: &StatusArgs) -> Result<(), CommandError> {
    if args.pacelc {
        return Err(CommandError::NotOffered("status --pacelc".to_owned()));
    }
    let target = Target::find(&args.target)?;
    let status = runtime(1)?.block_on(gather(&target))?;
    write_result(&status, Format::of(args.target.json), text)
}

async fn gather(target: &Target) -> Result<Status, CommandError> {
    let control = target.control.clone().within(PATIENCE);
    let mut notes = Vec::new();
    let (nodes, edges, regions) = if let Some(cluster) = &target.cluster {
        let (nodes, edges, regions) = tokio::join!(
            ask_all(described(cluster)),
            control.get::<Edges>("/v1/edges"),
            control.get::<Regions>("/v1/regions"),
        );
        let regions = regions.map(|regions| regions.regions).unwrap_or_else(|error| {
            notes.push(format!("what the control plane knows is missing: {}", chain(&error)));
            Vec::new()
        });
        (nodes?, edges.map(|edges| edges.edges).unwrap_or_default(), regions)
    } else {
        let edges: Edges = control.get("/v1/edges").await?;
        let regions: Regions = control.get("/v1/regions").await?;
        let nodes = ask_all(registered(&target.control_url, &edges.edges)).await?;
        (nodes, edges.edges, regions.regions)
    };
    let front = target.cluster.as_ref().map(|cluster| cluster.front.clone());
    let nodes = nodes.into_iter().map(|node| judged(node, &edges)).collect();
    Ok(Status { front, control: target.control_url.clone(), nodes, regions, notes })
}

/// A node, not yet asked.
fn node(name: &str, role: &'static str, region: Option<&str>, url: &str) -> NodeStatus {
    NodeStatus {
        name: name.to_owned(),
        role,
        region: region.map(str::to_owned),
        url: url.to_owned(),
        admin: None,
        pid: None,
        health: String::new(),
        state: None,
        traffic: None,
        origins: Vec::new(),
    }
}

/// Every node of a cluster that runs here.
fn described(cluster: &Cluster) -> Vec<NodeStatus> {
    let front = node("front", "front", None, &cluster.front);
    let controls = cluster.controls.iter().map(|control| NodeStatus {
        pid: control.pid,
        ..node(control.name.as_str(), "control", Some(control.region.as_str()), &control.url)
    });
    let origins = cluster.origins.iter().map(|origin| NodeStatus {
        admin: origin.admin.clone(),
        pid: origin.pid,
        ..node(origin.name.as_str(), "origin", Some(origin.region.as_str()), &origin.url)
    });
    let edges = cluster.edges.iter().map(|edge| NodeStatus {
        admin: Some(edge.admin.clone()),
        pid: edge.pid,
        ..node(edge.name.as_str(), "edge", Some(edge.region.as_str()), &edge.url)
    });
    std::iter::once(front).chain(controls).chain(origins).chain(edges).collect()
}

/// Every node that a control replica knows, itself first.
fn registered(control: &str, edges: &[EdgeView]) -> Vec<NodeStatus> {
    let edges = edges.iter().map(|edge| NodeStatus {
        admin: Some(edge.admin.to_string()),
        ..node(edge.name.as_str(), "edge", Some(edge.region.as_str()), edge.url.as_str())
    });
    std::iter::once(node("control", "control", None, control)).chain(edges).collect()
}

/// The node with what the control plane says of it.
fn judged(node: NodeStatus, edges: &[EdgeView]) -> NodeStatus {
    let view = edges.iter().find(|edge| edge.name.as_str() == node.name);
    NodeStatus { state: view.map(|view| view.state.token()), ..node }
}

/// Asks every node at once; they come back in the order in which they went.
async fn ask_all(nodes: Vec<NodeStatus>) -> Result<Vec<NodeStatus>, CommandError> {
    let mut asking = JoinSet::new();
    for (at, node) in nodes.into_iter().enumerate() {
        asking.spawn(async move { (at, ask(node).await) });
    }
    let mut answered = BTreeMap::new();
    while let Some(joined) = asking.join_next().await {
        let (at, node) = joined.map_err(|error| CommandError::Failed(error.to_string()))?;
        answered.insert(at, node);
    }
    Ok(answered.into_values().collect())
}

async fn ask(mut node: NodeStatus) -> NodeStatus {
    let (listener, target) = match (&node.admin, node.role) {
        (Some(admin), _) => (admin, "/readyz"),
        (None, "control") => (&node.url, "/readyz"),
        (None, "front") => (&node.url, "/"), // its admin listener is not described: see if it works
        (None, _) => {
            node.health = "not ours".to_owned(); // somebody's web server: no health to ask for
            return node;
        }
    };
    let client = match Client::new(listener, None) {
        Ok(client) => client.within(PATIENCE),
        Err(error) => {
            node.health = chain(&error);
            return node;
        }
    };
    node.health = match client.probe(target).await {
        Ok((status, _)) if status.is_success() || status.is_redirection() => "ready".to_owned(),
        Ok((status, why)) if why.is_empty() => format!("not ready ({status})"),
        Ok((_, why)) => format!("not ready: {why}"),
        Err(error) => chain(&error),
    };
    if node.role == "edge"
        && let Ok(text) = client.text("/metrics").await
    {
        node.traffic = Some(traffic(&text));
        node.origins = origins(&text);
    }
    node
}

/// Reads the metrics of an edge (OpenMetrics text).
fn traffic(text: &str) -> Traffic {
    let mut traffic = Traffic {
        requests: 0,
        hits: 0,
        hit_ratio: None,
        store_bytes: 0,
        store_capacity_bytes: 0,
        store_urls: 0,
    };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<u64>() else { continue };
        match series.split('{').next().unwrap_or(series) {
            "edge_store_bytes" => traffic.store_bytes = value,
            "edge_store_capacity_bytes" => traffic.store_capacity_bytes = value,
            "edge_store_urls" => traffic.store_urls = value,
            "edge_requests_total" => {
                let is = |word: &str| series.contains(&format!("cache=\"{word}\""));
                traffic.requests += value;
                if is("hit") || is("hit-stale") || is("collapsed") {
                    traffic.hits += value;
                }
            }
            _ => {}
        }
    }
    let ratio = |hits: u64, requests: u64| hits as f64 / requests as f64;
    traffic.hit_ratio = (traffic.requests > 0).then(|| ratio(traffic.hits, traffic.requests));
    traffic
}

fn text(status: &Status) -> String {
    let mut nodes = Table::default()
        .words("node")
        .words("role")
        .words("region")
        .words("url")
        .words("health")
        .numbers("requests")
        .numbers("hit ratio")
        .numbers("stored")
        .numbers("of");
    for node in &status.nodes {
        let traffic = node.traffic.as_ref();
        let number =
            |read: fn(&Traffic) -> u64| traffic.map_or(String::new(), |t| read(t).to_string());
        let ratio = traffic.and_then(|traffic| traffic.hit_ratio);
        nodes.row([
            node.name.clone(),
            node.role.to_owned(),
            node.region.clone().unwrap_or_else(|| "-".to_owned()),
            node.url.clone(),
            health(node),
            number(|traffic| traffic.requests),
            ratio.map_or(String::new(), |ratio| format!("{:.1} %", ratio * 100.0)),
            traffic.map_or(String::new(), |traffic| size(traffic.store_bytes)),
            traffic.map_or(String::new(), |t| ByteSize::bytes(t.store_capacity_bytes).to_string()),
        ]);
    }
    let mut regions = Table::default()
        .words("region")
        .words("city")
        .words("state")
        .words("intent")
        .words("healthy edges");
    for region in &status.regions {
        regions.row([
            region.region.to_string(),
            region.city.clone(),
            region.state.token().to_owned(),
            region.intent.token().to_owned(),
            format!("{} of {}", region.edges.healthy, region.edges.total),
        ]);
    }
    let breakers = breakers(&status.nodes);
    let notes: String = status.notes.iter().map(|note| format!("\nnote: {note}")).collect();
    let regions = if status.regions.is_empty() { String::new() } else { format!("\n{regions}") };
    format!("{nodes}{breakers}{regions}{notes}")
}

/// What each edge thinks of its origins, and how much it asks of them.
fn breakers(nodes: &[NodeStatus]) -> String {
    let mut table = Table::default()
        .words("edge")
        .words("origin")
        .words("breaker")
        .words("alive")
        .numbers("in flight")
        .numbers("asked")
        .numbers("attempts per request")
        .numbers("refused");
    let mut rows = 0;
    for (node, view) in nodes.iter().flat_map(|node| node.origins.iter().map(move |o| (node, o))) {
        rows += 1;
        table.row([
            node.name.clone(),
            view.origin.clone(),
            view.breaker.clone(),
            if view.up { "yes" } else { "no" }.to_owned(),
            view.in_flight.to_string(),
            view.asked.to_string(),
            view.amplification.map_or(String::new(), |ratio| format!("{ratio:.2}")),
            view.refused.to_string(),
        ]);
    }
    if rows == 0 { String::new() } else { format!("\n{table}") }
}

/// What the node says, and what the control plane thinks if that differs.
fn health(node: &NodeStatus) -> String {
    match (node.health.as_str(), node.state) {
        ("ready", Some("unhealthy")) => "ready (control: unhealthy)".to_owned(),
        (health, _) => health.to_owned(),
    }
}

/// A number of bytes, rounded for people.
fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    let units = [("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1_024.0)];
    let unit = units.iter().find(|(_, unit)| bytes >= *unit);
    unit.map_or(format!("{bytes} B"), |(name, unit)| format!("{:.1} {name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::{Traffic, size, traffic};

    #[test]
    fn the_metrics_of_an_edge_are_added_up_over_its_sites() {
        let text = "# HELP edge_requests Answered requests\n# TYPE edge_requests counter\n\
            edge_requests_total{site=\"a\",cache=\"hit\"} 5\n\
            edge_requests_total{site=\"a\",cache=\"hit-stale\"} 1\n\
            edge_requests_total{site=\"b\",cache=\"collapsed\"} 2\n\
            edge_requests_total{site=\"b\",cache=\"uri-miss\"} 8\n\
            edge_store_bytes 2048\nedge_store_capacity_bytes 1048576\nedge_store_urls 3\n\
            nonsense\nedge_requests_total{site=\"a\",cache=\"hit\"} many\n# EOF\n";
        let want = Traffic {
            requests: 16,
            hits: 8,
            hit_ratio: Some(0.5),
            store_bytes: 2048,
            store_capacity_bytes: 1_048_576,
            store_urls: 3,
        };
        assert_eq!(traffic(text), want);
        assert_eq!(traffic("").hit_ratio, None, "nothing asked is no hit ratio of 0");
    }

    #[test]
    fn sizes_are_rounded() {
        let rows = [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (3 << 30, "3.0 GiB")];
        for (bytes, want) in rows {
            assert_eq!(size(bytes), want);
        }
    }
}
