//! Requests that arrive at a fixed rate, whatever becomes of those before them; and many at once.
//!
//! An open loop, as users are one: nobody waits with a click until others have their answer.
//! Latency counts from the moment in which a request was due, so that a late sender hides nothing.
//!
//! # Invariants
//! - At most `most_in_flight` requests are under way; what is due beyond them is counted, not sent.
//! - Every request ends within `timeout` of its sending.

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderValue;
use http::uri::PathAndQuery;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::cache_status::Claim;
use crate::client::{Client, Failure};
use crate::endpoint::Endpoint;
use crate::error::LoadError;
use crate::seen::{Board, Kind};

/// What arrives.
#[derive(Debug, Clone)]
pub struct Arrivals {
    /// Who is asked, one after the other. Not empty.
    pub servers: Vec<Endpoint>,
    /// What the servers were asked for before. Not empty.
    pub stored: Vec<PathAndQuery>,
    /// A path that, with a query of its own each time, nobody has asked for.
    pub unique: PathAndQuery,
    /// The share of requests for such paths.
    pub unique_share: f64,
    /// Requests per second.
    pub rate: f64,
    /// Requests under way.
    pub most_in_flight: usize,
    /// For one request.
    pub timeout: Duration,
    /// Decides every random choice, and which paths are unique.
    pub seed: u64,
}

/// A server and the connections to it that are free.
struct Server {
    endpoint: Endpoint,
    host: HeaderValue,
    idle: Vec<Client>,
}

fn servers(endpoints: &[Endpoint]) -> Result<Vec<Server>, LoadError> {
    let server = |endpoint: &Endpoint| {
        let host = HeaderValue::try_from(endpoint.address());
        let host = host.map_err(|error| LoadError::Options { rule: error.to_string() })?;
        Ok(Server { endpoint: endpoint.clone(), host, idle: Vec::new() })
    };
    endpoints.iter().map(server).collect()
}

fn unusable(rule: String) -> LoadError {
    LoadError::Options { rule }
}

/// `path` with a query that no other number gives.
fn unique(path: &PathAndQuery, seed: u64, number: u64) -> Result<PathAndQuery, LoadError> {
    let text = format!("{}?unique={seed:x}-{number}", path.path());
    PathAndQuery::try_from(text).map_err(|error| unusable(error.to_string()))
}

/// Sends what arrives until `stop`, then waits for what is under way.
pub async fn arrive(
    arrivals: &Arrivals,
    board: &Arc<Board>,
    stop: &CancellationToken,
) -> Result<(), LoadError> {
    let Arrivals { stored, most_in_flight, timeout, seed, .. } = arrivals;
    if arrivals.servers.is_empty() || stored.is_empty() {
        return Err(unusable("nobody, or nothing, is to be asked".to_owned()));
    }
    let mut servers = servers(&arrivals.servers)?;
    let mut random = ChaCha8Rng::seed_from_u64(*seed);
    let mut under_way: JoinSet<(usize, Client)> = JoinSet::new();
    let begun = Instant::now();
    let mut number = 0_u64;
    loop {
        let due = begun + Duration::from_secs_f64(number as f64 / arrivals.rate);
        tokio::select! { // dropping any of these loses nothing
            () = stop.cancelled() => break,
            Some(Ok((at, client))) = under_way.join_next(), if !under_way.is_empty() => {
                if let Some(server) = servers.get_mut(at) {
                    server.idle.push(client);
                }
                continue;
            }
            () = sleep_until(due) => {}
        }
        number += 1;
        let is_unique = random.random::<f64>() < arrivals.unique_share;
        if under_way.len() >= *most_in_flight {
            board.lock().unsent += 1;
            continue;
        }
        let (kind, path) = if is_unique {
            (Kind::Unique, unique(&arrivals.unique, *seed, number)?)
        } else {
            let at = random.random_range(0..stored.len());
            (Kind::Stored, stored.get(at).unwrap_or(&arrivals.unique).clone())
        };
        let at = random.random_range(0..servers.len());
        let Some(server) = servers.get_mut(at) else { continue };
        let free = server.idle.pop();
        let new = || Client::new(&server.endpoint, server.host.clone(), *timeout);
        let client = free.unwrap_or_else(new);
        under_way.spawn(ask(client, path, kind, due, Arc::clone(board), at));
    }
    while under_way.join_next().await.is_some() {}
    Ok(())
}

async fn ask(
    mut client: Client,
    path: PathAndQuery,
    kind: Kind,
    due: Instant,
    board: Arc<Board>,
    at: usize,
) -> (usize, Client) {
    let outcome = client.get(&path).await;
    board.lock().count(kind, &outcome, due.elapsed());
    (at, client)
}

/// What one of many at once got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The status of a whole answer.
    pub status: Option<u16>,
    /// It says that somebody else's fetch answered it.
    pub is_collapsed: bool,
    /// No answer within the time.
    pub is_late: bool,
    /// From when it was due.
    pub took: Duration,
}

/// Many clients evenly within `over`, or at once, each over a connection of its own: client `n`
/// asks the server `n` modulo their number for path `n` modulo theirs.
pub async fn burst(
    endpoints: &[Endpoint],
    paths: &[PathAndQuery],
    clients: usize,
    over: Duration,
    timeout: Duration,
) -> Result<Vec<Asked>, LoadError> {
    let servers = servers(endpoints)?;
    let mut asking = JoinSet::new();
    let begun = Instant::now();
    for ((number, server), path) in
        (0..clients).zip(servers.iter().cycle()).zip(paths.iter().cycle())
    {
        let mut client = Client::new(&server.endpoint, server.host.clone(), timeout);
        let path = path.clone();
        let due = begun + over.mul_f64(number as f64 / clients as f64);
        asking.spawn(async move {
            sleep_until(due).await;
            let outcome = client.get(&path).await;
            let took = due.elapsed();
            let is_late = matches!(outcome, Err(Failure::Timeout));
            let answer = outcome.ok();
            let is_collapsed =
                answer.as_ref().is_some_and(|answer| matches!(answer.claim, Claim::Collapsed(_)));
            let status = answer.map(|answer| answer.status.as_u16());
            Asked { status, is_collapsed, is_late, took }
        });
    }
    Ok(asking.join_all().await)
}

/// `count` paths that nobody has asked for, made from `path`.
pub fn unique_paths(
    path: &PathAndQuery,
    seed: u64,
    count: usize,
) -> Result<Vec<PathAndQuery>, LoadError> {
    (0..count as u64).map(|number| unique(path, seed, number)).collect()
}

#[cfg(test)]
mod tests;
