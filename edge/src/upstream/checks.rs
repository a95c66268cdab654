//! Active checks of an origin: a GET now and then, over a connection of its own.
//!
//! What comes of them is for [`crate::upstream::health`] to judge.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use meridian_config::edge::resilience::Health;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::request_body::RequestBody;
use crate::upstream::Upstream;
use crate::upstream::deadline::Deadline;
use crate::upstream::exchange::connect;
use crate::upstream::health::Sign;

/// Checks `upstream` for ever, if it is to be checked.
///
/// Cancel safe.
pub(crate) async fn check(upstream: Arc<Upstream>) -> Option<Infallible> {
    let path = upstream.checks.path.clone()?;
    loop {
        let is_good = is_good(&upstream, &path).await;
        let sign = if is_good { Sign::CheckGood } else { Sign::CheckFailed };
        upstream.guard.see(sign, upstream.clock.now().mono);
        sleep(pause(&upstream.checks, rand::random())).await;
    }
}

/// Until the next check; `chance` is from 0 up to but without 1.
fn pause(checks: &Health, chance: f64) -> Duration {
    checks.interval.get().mul_f64(1.0 + checks.jitter.get() * (chance - 0.5))
}

async fn is_good(upstream: &Arc<Upstream>, path: &str) -> bool {
    let (now, timeout) = (upstream.clock.now().mono, upstream.checks.timeout.get());
    let deadline = Deadline::after(now, timeout);
    match deadline.bound(now, timeout, ask(upstream, path, deadline)).await {
        Ok(Ok(answer)) => answer.status().as_u16() < 400,
        Ok(Err(error)) => {
            debug!(origin = upstream.name, error, "a check failed");
            false
        }
        Err(limit) => {
            debug!(origin = upstream.name, ?limit, "a check took too long");
            false
        }
    }
}

async fn ask(
    upstream: &Arc<Upstream>,
    path: &str,
    deadline: Deadline,
) -> Result<Response<Incoming>, String> {
    let mut request = Request::new(RequestBody::Empty);
    *request.uri_mut() = path.parse().map_err(|error| format!("{error}"))?;
    let fields = request.headers_mut();
    fields.insert(header::HOST, upstream.authority.clone());
    fields.insert(header::USER_AGENT, HeaderValue::from_static("Meridian-check"));
    fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let connection = connect(upstream, deadline, &TaskTracker::new()).await;
    let mut connection = connection.map_err(|error| error.to_string())?;
    connection.send_request(request).await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use meridian_config::units::{HumanDuration, Ratio};

    use super::*;

    #[test]
    fn checks_are_spread_around_their_interval() {
        let checks = Health {
            interval: HumanDuration::secs(10),
            jitter: Ratio::new(0.2),
            ..Health::default()
        };
        for (chance, want) in [(0.0, 9.0), (0.5, 10.0), (0.999_999, 11.0)] {
            let got = pause(&checks, chance).as_secs_f64();
            assert!((got - want).abs() < 0.001, "{chance}: {got}");
        }
    }
}
