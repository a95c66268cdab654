//! The data listener: one request, from its head to its answer, and the faults that it meets.
//!
//! # Invariants
//! - A request is counted before anything can harm it.
//! - Requests that a fault holds are bounded, and none of them outlives the order to stop.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{ALLOW, CACHE_CONTROL, HeaderMap, HeaderValue, LOCATION, SERVER};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::accept::Serve;
use crate::account::{Account, Line};
use crate::answer::{Asked, answer, page};
use crate::body::Body;
use crate::caching::{Caching, MISSING};
use crate::connection::Connection;
use crate::content::Content;
use crate::counts::Counts;
use crate::faults::{Fault, Faults};
use crate::metrics::{Harm, Metrics};
use crate::orders::{self, Orders};
use crate::problem::{Code, Problem, told};
use crate::representation::Found;
use crate::target::Target;

/// `Server`.
pub(crate) const SERVER_NAME: HeaderValue = HeaderValue::from_static("meridian-origin");

/// What the data listener needs to answer.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) content: Content,
    pub(crate) caching: Caching,
    pub(crate) orders: Option<Orders>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) faults: Arc<Faults>,
    /// Requests that faults may hold.
    pub(crate) held: Semaphore,
    pub(crate) max_ranges: usize,
    pub(crate) access_log: bool,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
}

/// A fault has ended the connection, or the connection is to end: there is nothing to answer.
struct Ended;

impl Serve for Site {
    async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Response<Body> {
        let target = Target::of(request.uri());
        let mut account = self.open(&request, &target, &connection);
        let fault = self.faults.meet(request.method(), &target.path);
        let outcome = match &fault {
            None => Ok(self.answer(request, &target).await),
            Some(fault) => self.harm(fault, request, &target, &connection).await,
        };
        let Ok(mut response) = outcome else {
            // The connection ends under this; on HTTP/2, all its streams do.
            return std::future::pending().await;
        };
        response.headers_mut().insert(SERVER, SERVER_NAME);
        account.answers(response.status());
        let mut response = response.map(|body| body.counted(account));
        if let Some(bytes) = fault.and_then(|fault| fault.cut_after)
            && response.body_mut().cut_after(bytes)
        {
            self.metrics.fault(Harm::CutAfter);
        }
        response
    }
}

impl Site {
    fn open(
        &self,
        request: &Request<Incoming>,
        target: &Target,
        connection: &Arc<Connection>,
    ) -> Account {
        let in_flight = connection.begin(!request.body().is_end_stream());
        let tally = self.counts.asked(&target.written, request.headers());
        let line = self
            .access_log
            .then(|| Line { method: request.method().clone(), path: target.path.clone() });
        Account::open(in_flight, tally, Arc::clone(&self.metrics), line)
    }

    /// Carries `fault` out, in the order in which it says what it does.
    async fn harm(
        &self,
        fault: &Fault,
        request: Request<Incoming>,
        target: &Target,
        connection: &Connection,
    ) -> Result<Response<Body>, Ended> {
        if fault.delay.is_some() || fault.hang {
            let Ok(_place) = self.held.try_acquire() else {
                self.metrics.fault(Harm::Shed);
                let detail = "limits.max_held requests are held by faults already";
                return Ok(Problem::new(Code::Overloaded, detail).response());
            };
            let _held = self.metrics.held();
            if let Some(delay) = fault.delay {
                self.metrics.fault(Harm::Delay);
                self.wait(delay.get()).await;
            }
            if fault.hang {
                self.metrics.fault(Harm::Hang);
                self.stop.cancelled().await;
                connection.drop_now();
                return Err(Ended);
            }
        }
        if fault.reset {
            self.metrics.fault(Harm::Reset);
            connection.reset();
            return Err(Ended);
        }
        if fault.lose_reply {
            self.metrics.fault(Harm::LoseReply);
            drop(self.answer(request, target).await);
            connection.drop_now();
            return Err(Ended);
        }
        if let Some(status) = fault.status {
            self.metrics.fault(Harm::Status);
            return Ok(told(status.0, "fault", "this answer was asked for at /v1/faults"));
        }
        Ok(self.answer(request, target).await)
    }

    /// A delay ends early when the origin stops: what it held is then answered at once.
    async fn wait(&self, delay: Duration) {
        tokio::select! {
            () = sleep(delay) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn answer(&self, request: Request<Incoming>, target: &Target) -> Response<Body> {
        let (head, body) = request.into_parts();
        match &self.orders {
            Some(orders) if Orders::has(head.uri.path()) => {
                return orders.answer(&head, body).await;
            }
            None if head.uri.path() == orders::PATH && head.method == Method::POST => {
                let detail = "this origin takes no orders: orders.file is not set";
                return Problem::new(Code::NotOffered, detail).response();
            }
            Some(_) | None => {}
        }
        let method = &head.method;
        if *method != Method::GET && *method != Method::HEAD {
            let detail = format!("{method} is not offered here; GET and HEAD are");
            let mut response = Problem::new(Code::MethodNotAllowed, detail).response();
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if let Err(bad) = target.check() {
            return Problem::new(Code::BadRequest, bad.to_string()).response();
        }
        let asked = Asked {
            method,
            headers: &head.headers,
            max_ranges: self.max_ranges,
            now: SystemTime::now(),
        };
        self.found(&asked, target, self.content.find(target).await)
    }

    fn found(&self, asked: &Asked<'_>, target: &Target, found: Found) -> Response<Body> {
        let mut fields = HeaderMap::new();
        match found {
            Found::Here(representation) => {
                self.caching.apply(&target.path, &mut fields);
                answer(asked, representation, fields)
            }
            Found::Elsewhere => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
                self.caching.apply(&target.path, response.headers_mut());
                response.headers_mut().insert(LOCATION, with_slash(target));
                response
            }
            Found::Missing(Some(representation)) => {
                fields.insert(CACHE_CONTROL, MISSING);
                self.caching.tag(&target.path, &mut fields);
                page(asked, StatusCode::NOT_FOUND, representation, fields)
            }
            Found::Missing(None) => {
                let detail = "there is nothing at this path";
                self.nothing(target, &Problem::new(Code::NotFound, detail))
            }
            Found::Nothing(problem) => self.nothing(target, &problem),
        }
    }

    fn nothing(&self, target: &Target, problem: &Problem) -> Response<Body> {
        let mut response = problem.response();
        if problem.code == Code::NotFound {
            response.headers_mut().insert(CACHE_CONTROL, MISSING);
            self.caching.tag(&target.path, response.headers_mut());
        }
        response
    }
}

/// The target with a slash behind its path. The path starts with one slash and not two: this
/// cannot name another host.
fn with_slash(target: &Target) -> HeaderValue {
    let path = target.written_path();
    let query = target.written.get(path.len()..).unwrap_or_default();
    // What came as a target can go as a field, unless it holds bytes beyond ASCII.
    HeaderValue::from_str(&format!("{path}/{query}"))
        .unwrap_or_else(|_| HeaderValue::from_static("/"))
}
