//! Following the control plane: asks one replica for the edges, the next when it does not answer.
//!
//! Only `GET /v1/edges` is asked for: with the intent of its region in every edge it holds all
//! that steering needs, and one answer cannot contradict itself.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use meridian_config::units::Address;
use meridian_control_wire::Edges;
use tokio_util::sync::CancellationToken;

use crate::dial::{DialError, Link};
use crate::front::door::Door;
use crate::world;

/// Why a poll brought nothing.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{address} answered {status}")]
    Status { address: Address, status: StatusCode },
    #[error("{address} answered with no list of edges: {source}")]
    Nonsense { address: Address, source: serde_json::Error },
    #[error("{address} did not answer within {limit:?}")]
    Overdue { address: Address, limit: std::time::Duration },
}

/// Asks again and again until `stop`. Dropping a question that is on its way loses nothing.
pub(super) async fn follow(door: Arc<Door>, stop: CancellationToken) {
    let mut follower = Follower { at: 0, link: None, reached: true };
    let forever = async {
        loop {
            follower.poll(&door).await;
            tokio::time::sleep(world::jittered(door.config.poll.get())).await;
        }
    };
    stop.run_until_cancelled(forever).await;
}

/// Whom to ask next, and over what.
struct Follower {
    at: usize,
    link: Option<Link>,
    /// Whether the last round reached anybody: the log tells turns, not states.
    reached: bool,
}

impl Follower {
    /// One round: each replica is asked at most once, until one answers.
    async fn poll(&mut self, door: &Door) {
        let mut last = None;
        for _ in &door.replicas {
            let Some((name, address)) = door.replicas.get(self.at % door.replicas.len()) else {
                break;
            };
            match self.ask(door, address).await {
                Ok(edges) => {
                    door.metrics.polls.inc();
                    if !self.reached {
                        tracing::info!(replica = %name, "the control plane answers again");
                    }
                    self.reached = true;
                    door.learn(edges.edges);
                    return;
                }
                Err(error) => {
                    tracing::debug!(replica = %name, %error, "a replica does not answer");
                    self.at = self.at.wrapping_add(1);
                    self.link = None;
                    last = Some(error);
                }
            }
        }
        door.metrics.poll_failures.inc();
        if let Some(error) = last.filter(|_| self.reached) {
            self.reached = false;
            tracing::warn!(%error, "no replica answers: going on with what is known");
        }
    }

    async fn ask(&mut self, door: &Door, address: &Address) -> Result<Edges, PollError> {
        let limit = door.config.limits.call_timeout.get();
        let most = door.config.limits.body_size.to_usize();
        let answer = tokio::time::timeout(limit, self.get(address, most))
            .await
            .map_err(|_elapsed| PollError::Overdue { address: address.clone(), limit })??;
        if answer.status() != StatusCode::OK {
            let status = answer.status();
            return Err(PollError::Status { address: address.clone(), status });
        }
        serde_json::from_slice(answer.body())
            .map_err(|source| PollError::Nonsense { address: address.clone(), source })
    }

    /// Over the open connection if there is one, else, or if that one broke meanwhile, over a new
    /// one. What is asked for may be asked twice.
    async fn get(&mut self, address: &Address, most: usize) -> Result<Response<Bytes>, DialError> {
        if let Some(mut link) = self.link.take().filter(Link::is_open)
            && let Ok(answer) = link.get("/v1/edges", most).await
        {
            self.link = Some(link);
            return Ok(answer);
        }
        let mut link = Link::to(address).await?;
        let answer = link.get("/v1/edges", most).await?;
        self.link = Some(link);
        Ok(answer)
    }
}
