//! A request that waited for a flight, and what the flight's landing is to it: a share of the
//! answer, what is stored in place of an error, or nothing.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Response, StatusCode, header};
use meridian_edge_rules::cache_status::CacheStatus;
use meridian_edge_rules::decide::Forward;
use meridian_edge_rules::exchange::RequestView;
use meridian_edge_rules::reusable::{
    has_grant_on_error, has_grant_when_disconnected, may_serve_stale_on_error,
    may_serve_when_disconnected,
};
use meridian_edge_rules::time::Now;
use tokio::time::timeout;

use crate::asked::Asked;
use crate::body::Body;
use crate::collapse::{Flight, Landing};
use crate::control_doubt::Doubt;
use crate::core::Core;
use crate::cover::Silent;
use crate::epochs::{Demand, Standing, Tags};
use crate::error::FetchError;
use crate::fetch;
use crate::key::CacheKey;
use crate::not_stored::Reason;
use crate::outcome::Outcome;
use crate::respond;
use crate::route::Site;
use crate::store::Stored;
use crate::tell;

/// Why something stale went out: the origin takes too long.
const SLOW: &str = "slow-upstream";
/// The origin is not asked at all.
const BREAKER_OPEN: &str = "breaker-open";

/// A fetch that ends with its client's time is let say why.
const GRACE: Duration = Duration::from_millis(100);

/// How upstream failed.
#[derive(Debug, Clone, Copy)]
enum Failure {
    /// It answered 5xx.
    ServerError,
    /// It gave no answer.
    Disconnected,
}

/// A request that waited for a flight, as its leader or with it.
pub(crate) struct Waiter<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) site: &'a Arc<Site>,
    pub(crate) key: &'a CacheKey,
    pub(crate) asked: &'a Arc<Asked>,
    pub(crate) forward: &'a Forward<Stored>,
    pub(crate) demand: Demand,
    pub(crate) leads: bool,
    /// Whether purges may have been missed.
    pub(crate) doubt: &'a Doubt,
}

impl Waiter<'_> {
    /// The landing of `flight`; or what is stored, where that may stand in for an origin that has
    /// taken too long already; or that the client's own time is over. The fetch goes on behind its
    /// back.
    pub(crate) async fn landed(&self, flight: &Flight) -> Result<Landing, Response<Body>> {
        let patience = self.site.resilience.stale_patience.filter(|_| self.forward.stale.is_some());
        if let Some(patience) = patience {
            let landing = self.patiently(patience, flight.began(), flight.landed()).await;
            if let Some(landing) = landing {
                return Ok(landing);
            }
            if let Some(stale) = self.stale(Failure::ServerError, None, Some(SLOW)) {
                return Err(stale);
            }
        }
        self.in_time(flight.landed())
            .await
            .map_err(|error| self.instead_of(&error).unwrap_or_else(|| self.failed(&error)))
    }

    /// What `waiting` comes to, unless that takes longer than who may get something stale waits for
    /// origins that were asked at `since`.
    pub(crate) async fn patiently<T>(
        &self,
        patience: Duration,
        since: Instant,
        waiting: impl Future<Output = T>,
    ) -> Option<T> {
        let silent = Silent(self.site.origins_for(self.asked.matched));
        let mut waiting = pin!(waiting);
        let left = |limit: Duration| {
            limit.saturating_sub(self.core.now().mono.saturating_duration_since(since))
        };
        if let Ok(done) = timeout(left(silent.patience(patience)), waiting.as_mut()).await {
            return Some(done);
        }
        if !silent.lasts(since)
            && let Ok(done) = timeout(left(patience), waiting).await
        {
            return Some(done);
        }
        silent.begins(since);
        None
    }

    /// What `waiting` comes to within the time that the client has in all.
    ///
    /// # Errors
    /// When it is over.
    pub(crate) async fn in_time<T>(
        &self,
        waiting: impl Future<Output = T>,
    ) -> Result<T, FetchError> {
        in_time(self.core, self.site, self.asked, waiting).await
    }

    /// What `asking` comes to; or what is stored, where that may stand in for an origin that takes
    /// too long.
    pub(crate) async fn patient<T>(
        &self,
        asking: impl Future<Output = T>,
    ) -> Result<T, Response<Body>> {
        let mut asking = pin!(asking);
        if let Some(patience) = self.site.resilience.stale_patience {
            let since = self.core.now().mono;
            if let Some(answered) = self.patiently(patience, since, asking.as_mut()).await {
                return Ok(answered);
            }
            if let Some(stale) = self.stale(Failure::ServerError, None, Some(SLOW)) {
                return Err(stale);
            }
        }
        Ok(asking.await)
    }

    /// What is stored in place of an error, if it may stand there.
    pub(crate) fn instead_of(&self, error: &FetchError) -> Option<Response<Body>> {
        let is_open = matches!(*error, FetchError::DestinationUnavailable { .. });
        let detail = if is_open { BREAKER_OPEN } else { error.token() };
        self.stale(Failure::Disconnected, None, Some(detail))
    }

    /// What is stored in place of an answer with this status, if it may stand there.
    pub(crate) fn instead_of_answer(&self, status: StatusCode) -> Option<Response<Body>> {
        let is_error = status.is_server_error();
        is_error.then(|| self.stale(Failure::ServerError, Some(status), None))?
    }

    /// Its answer; `None` if the landing is not for it.
    pub(crate) fn land(&self, flight: &Flight, landing: Landing) -> Option<Response<Body>> {
        match landing {
            Landing::Shared(partial) => {
                if !partial.head.vary.matches(&self.asked.headers)
                    || !self.may_share(flight, &partial.tags)
                {
                    return None;
                }
                let reader = partial.flow.read()?;
                let now = self.core.now();
                let status = CacheStatus {
                    fwd_status: Some(match partial.part {
                        Some(_) => StatusCode::PARTIAL_CONTENT,
                        None => partial.head.status,
                    }),
                    ttl: Some(partial.head.ttl(now)),
                    stored: true, // for who waited with it, too: it is the response that they got
                    ..self.status()
                };
                let age = partial.head.current_age(now);
                let mut response =
                    respond::from_partial(&self.asking(), &partial, reader, age, &status);
                tell::of_partial(&self.asked.asker, &partial, &mut response);
                Some(self.counted(response))
            }
            Landing::Validated(stored) => {
                if !stored.head().vary.matches(&self.asked.headers)
                    || !respond::suffices(&self.asking(), &stored)
                    || !self.may_share(flight, stored.mark().tags())
                {
                    return None;
                }
                let now = self.core.now();
                let status = CacheStatus {
                    fwd_status: Some(StatusCode::NOT_MODIFIED),
                    ttl: Some(stored.head().ttl(now)),
                    stored: true, // for who waited with it, too: it is the response that they got
                    ..self.status()
                };
                Some(self.counted(self.reused(&stored, now, &status)))
            }
            Landing::Stored | Landing::Changed => None,
            Landing::Private => self.own(flight),
            Landing::Refused { upstream, status } => {
                if let Some(stale) = self.stale(Failure::ServerError, Some(status), None) {
                    return Some(stale);
                }
                self.own(flight).or_else(|| {
                    let upstream = upstream.to_string();
                    Some(self.failed(&FetchError::SharedFailure { upstream, status }))
                })
            }
            Landing::Failed(error) => self.instead_of(&error).or_else(|| Some(self.failed(&error))),
        }
    }

    /// Whether the fetch began after every purge that was applied before this request came, now
    /// that the tags of its answer are known.
    fn may_share(&self, flight: &Flight, tags: &Tags) -> bool {
        let epochs = &self.core.edge.epochs;
        let place = self.key.place();
        // What came through a shield may be older than this edge's own fetch of it; what a soft
        // purge made stale may go out all the same.
        epochs.may_share(self.demand, flight.stamp(), &place, tags)
            && (!flight.is_older() || flight.filled() >= epochs.newest(&place, tags).hard)
    }

    fn asking(&self) -> RequestView<'_> {
        RequestView { method: &self.asked.method, headers: &self.asked.headers }
    }

    fn status(&self) -> CacheStatus<'_> {
        CacheStatus {
            fwd: Some(self.forward.why),
            collapsed: !self.leads,
            detail: self.doubt.detail(),
            ..self.site.cache_status(&self.core.edge.name, Some(self.key.as_str()))
        }
    }

    fn counted(&self, response: Response<Body>) -> Response<Body> {
        let outcome =
            if self.leads { Outcome::Forwarded(self.forward.why) } else { Outcome::Collapsed };
        self.core.counted(self.site, outcome, response)
    }

    /// What only the leader gets, if it is what the leader wants.
    fn own(&self, flight: &Flight) -> Option<Response<Body>> {
        let response = if self.leads {
            flight.take()?
        } else {
            return None;
        };
        let is_whole = response.status() == StatusCode::OK;
        if is_whole && self.asked.headers.contains_key(header::RANGE) {
            // It was asked for as all might have shared it. Who wants a part of what is theirs
            // alone asks for that part.
            return None;
        }
        let why = response.extensions().get::<Reason>().map(|why| why.0);
        let code = Some(response.status());
        let detail = why.or(self.doubt.detail());
        let status = CacheStatus { fwd_status: code, detail, ..self.status() };
        let asker = &self.asked.asker;
        let response = fetch::for_client(self.site, self.asked.matched, asker, response);
        Some(self.counted(respond::from_upstream(response, &status)))
    }

    /// The stored response in place of an error, if it may stand there (RFC 5861 §4).
    fn stale(
        &self,
        failure: Failure,
        code: Option<StatusCode>,
        detail: Option<&str>,
    ) -> Option<Response<Body>> {
        let stored = self.forward.stale.as_ref()?;
        if self.core.edge.store.standing(self.key.as_str(), stored) == Standing::Purged {
            return None;
        }
        if !respond::suffices(&self.asking(), stored) {
            return None;
        }
        let now = self.core.now();
        let policy = &self.site.policy;
        let may = match failure {
            Failure::ServerError => may_serve_stale_on_error(stored.head(), policy, now),
            Failure::Disconnected => may_serve_when_disconnected(stored.head(), policy, now),
        };
        // What is doubted is fresh no more.
        let is_granted = || match failure {
            Failure::ServerError => has_grant_on_error(stored.head(), policy),
            Failure::Disconnected => has_grant_when_disconnected(stored.head(), policy),
        };
        if !may || (self.doubt.detail().is_some() && !is_granted()) {
            return None;
        }
        let (core, site) = (self.core, self.site);
        let ttl = Some(stored.head().ttl(now));
        if detail == Some(BREAKER_OPEN) {
            // Nothing went forward.
            let told = site.cache_status(&core.edge.name, Some(self.key.as_str()));
            let status = CacheStatus { hit: true, ttl, detail, ..told };
            let response = self.reused(stored, now, &status);
            return Some(core.counted(site, Outcome::HitStale, response));
        }
        let detail = self.doubt.detail().or(detail);
        let status = CacheStatus { fwd_status: code, ttl, detail, ..self.status() };
        Some(self.counted(self.reused(stored, now, &status)))
    }

    fn reused(&self, stored: &Stored, now: Now, status: &CacheStatus<'_>) -> Response<Body> {
        let (core, age) = (self.core, stored.head().current_age(now));
        let mut response =
            respond::from_stored(core, self.site, &self.asking(), stored, age, status);
        let asker = self.asked.asker.as_deref();
        tell::of_stored(core, asker, self.key.as_str(), stored, &mut response);
        response
    }

    fn failed(&self, error: &FetchError) -> Response<Body> {
        let status = self.status();
        let name = &self.core.edge.name;
        self.counted(respond::upstream_error(name, &self.asked.method, error, &status))
    }
}

/// What `waiting` comes to within the time that the client has in all.
///
/// # Errors
/// When it is over.
pub(crate) async fn in_time<T>(
    core: &Core,
    site: &Site,
    asked: &Asked,
    waiting: impl Future<Output = T>,
) -> Result<T, FetchError> {
    let Some(origin) = site.origins_for(asked.matched).first() else { return Ok(waiting.await) };
    let limit = origin.limits.total;
    let end = asked.since + limit + GRACE;
    let left = end.saturating_duration_since(core.now().mono);
    timeout(left, waiting).await.map_err(|_elapsed| {
        let upstream = origin.name.clone();
        FetchError::HttpResponseTimeout { upstream, limit }
    })
}
