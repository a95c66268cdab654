//! `/v1/orders`: a tiny order book, to show what a lost reply does, and what a key does against it.
//!
//! A POST with an `Idempotency-Key` has one effect, however often it comes: whoever comes second
//! gets the first result, with `Idempotency-Replayed: true`. Without a key each is an order.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/orders`, any JSON | 201, `Location`, `{"id","order","at","key_expires"}` |
//! | `GET /v1/orders?after=ID` | `{"count","orders":[...],"next":ID or null}`, the oldest first |
//! | `GET /v1/orders/ID` | the order |
//!
//! Errors: 422 `idempotency_mismatch`, 409 `idempotency_in_flight` (with `duplicates = "refuse"`),
//! 503 `overloaded` when the book is full or a duplicate has waited too long.
//!
//! # Invariants
//! - An order is on disk, with the record of its key, before it is answered.

pub(crate) mod book;
mod turns;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;
use meridian_config::origin::{Duplicates, Limits, Orders as OrdersConfig};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::body::Body;
use crate::hex::hex;
use crate::metrics::{Metrics, Ordered};
use crate::orders::book::{Book, BookError, Order, Placed, Wish};
use crate::orders::turns::Turns;
use crate::problem::{Code, Problem};
use crate::received::whole;

/// Where it is found.
pub(crate) const PATH: &str = "/v1/orders";

/// The longest `Idempotency-Key`, in characters.
const MAX_KEY: usize = 255;
/// Orders on one page of the list.
const PAGE: usize = 1_000;

/// The order book, as requests meet it.
#[derive(Debug)]
pub(crate) struct Orders {
    book: Arc<Book>,
    turns: Turns,
    config: OrdersConfig,
    limits: Limits,
    metrics: Arc<Metrics>,
}

/// An order as clients see it.
#[derive(Serialize)]
struct View {
    id: String,
    order: Value,
    /// RFC 3339, UTC.
    at: String,
    /// Until then the key stands for this order.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_expires: Option<String>,
}

#[derive(Serialize)]
struct Page {
    count: u64,
    orders: Vec<View>,
    next: Option<String>,
}

impl Orders {
    /// Opens the book. Blocks.
    pub(crate) fn open(
        file: &Path,
        config: &OrdersConfig,
        limits: &Limits,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, BookError> {
        let most = (u64::from(config.max_orders.get()), u64::from(config.max_keys.get()));
        Ok(Self {
            book: Arc::new(Book::open(file, most.0, most.1)?),
            turns: Turns::default(),
            config: config.clone(),
            limits: limits.clone(),
            metrics: Arc::clone(metrics),
        })
    }

    /// Whether `path` is one of the book's.
    pub(crate) fn has(path: &str) -> bool {
        path.strip_prefix(PATH).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Answers a request for a path of the book.
    pub(crate) async fn answer(&self, head: &Parts, body: Incoming) -> Response<Body> {
        let path = head.uri.path().strip_prefix(PATH).unwrap_or_default();
        let answer = match (&head.method, path.strip_prefix('/')) {
            (&Method::POST, None) => self.post(head, body).await,
            (&Method::GET | &Method::HEAD, None) => self.list(head.uri.query()).await,
            (&Method::GET | &Method::HEAD, Some(id)) => self.order(id).await,
            (method, _) => Ok(refused(method)),
        };
        answer.unwrap_or_else(|problem| {
            let mut response = problem.response();
            if problem.code == Code::IdempotencyInFlight {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        })
    }

    async fn post(&self, head: &Parts, body: Incoming) -> Result<Response<Body>, Problem> {
        let key = key(&head.headers)?;
        let body = whole(body, self.limits.body_size, self.limits.head_timeout).await?;
        let order = order_in(&body)?;
        let expiry = u64::try_from(self.config.key_expiry.get().as_millis()).unwrap_or(u64::MAX);
        let fingerprint = hex(&Sha256::digest(&body));
        let wish = Wish { key, fingerprint, order, now_ms: now_ms(), key_lasts_ms: expiry };
        let placed = self.place(wish).await?;
        let (order, kind) = match placed {
            Placed::Now(order) => (order, Ordered::Placed),
            Placed::Before(order) => (order, Ordered::Replayed),
            Placed::Mismatch => {
                self.metrics.ordered(Ordered::Refused);
                let detail = "this Idempotency-Key was used with another order";
                return Err(Problem::new(Code::IdempotencyMismatch, detail));
            }
            Placed::Full(limit) => {
                self.metrics.ordered(Ordered::Refused);
                let detail = format!("the order book is full: {limit}");
                return Err(Problem::new(Code::Overloaded, detail));
            }
        };
        self.metrics.ordered(kind);
        let location = format!("{PATH}/{}", order.number);
        let mut response = json(StatusCode::CREATED, &View::of(order))?;
        let fields = response.headers_mut();
        if let Ok(location) = HeaderValue::from_str(&location) {
            fields.insert(LOCATION, location);
        }
        if kind == Ordered::Replayed {
            fields.insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        Ok(response)
    }

    /// Does the work, unless it was done before; where there is a key, in turn.
    async fn place(&self, wish: Wish) -> Result<Placed, Problem> {
        let Some(key) = wish.key.clone() else { return self.work(wish).await };
        let (wish, before) = self.recorded(wish).await?;
        if let Some(before) = before {
            return Ok(before);
        }
        let _turn = self.turn(&key).await?;
        match self.recorded(wish).await? {
            (_, Some(before)) => Ok(before), // by whoever had the turn
            (wish, None) => self.work(wish).await,
        }
    }

    async fn recorded(&self, wish: Wish) -> Result<(Wish, Option<Placed>), Problem> {
        let wish = wish.at(now_ms());
        self.with_book(move |book| book.recorded(&wish).map(|before| (wish, before))).await
    }

    async fn work(&self, wish: Wish) -> Result<Placed, Problem> {
        sleep(self.config.work.get()).await;
        let wish = wish.at(now_ms());
        self.with_book(move |book| book.place(wish)).await
    }

    /// The turn of `key`, at once or after who has it, as configured.
    async fn turn(&self, key: &str) -> Result<turns::Turn, Problem> {
        match self.config.duplicates {
            Duplicates::Refuse => self.turns.take(key).map_err(|_busy| {
                self.metrics.ordered(Ordered::Refused);
                let detail = "an order with this Idempotency-Key is being worked on";
                Problem::new(Code::IdempotencyInFlight, detail)
            }),
            Duplicates::Wait => {
                let most = self.config.max_wait.get();
                timeout(most, self.turns.wait(key)).await.map_err(|_elapsed| {
                    self.metrics.ordered(Ordered::Refused);
                    let detail = format!("the order with this key is at work for over {most:?}");
                    Problem::new(Code::Overloaded, detail)
                })
            }
        }
    }

    async fn list(&self, query: Option<&str>) -> Result<Response<Body>, Problem> {
        let after = match query.map(|query| query.strip_prefix("after=").map(str::parse)) {
            None => 0,
            Some(Some(Ok(after))) => after,
            Some(_) => {
                let detail = "the query may be after=ID, with the number of an order";
                return Err(Problem::new(Code::BadRequest, detail));
            }
        };
        let (count, orders) = self.with_book(move |book| book.list(after, PAGE)).await?;
        let last = orders.last().filter(|_| orders.len() == PAGE);
        let next = last.map(|order| order.number.to_string());
        let orders = orders.into_iter().map(View::of).collect();
        json(StatusCode::OK, &Page { count, orders, next })
    }

    async fn order(&self, id: &str) -> Result<Response<Body>, Problem> {
        let nothing = || Problem::new(Code::NotFound, "there is no such order");
        let number = id.parse().map_err(|_not_a_number| nothing())?;
        let order = self.with_book(move |book| book.order(number)).await?;
        json(StatusCode::OK, &View::of(order.ok_or_else(nothing)?))
    }

    /// Works with the book off the async threads. What began ends, also if the client leaves.
    async fn with_book<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Book) -> Result<T, BookError> + Send + 'static,
    ) -> Result<T, Problem> {
        let book = Arc::clone(&self.book);
        let done = spawn_blocking(move || work(&book)).await;
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                tracing::error!(%error, "the order book failed");
                Err(Problem::new(Code::Internal, "the order book failed; see the log"))
            }
            Err(error) => {
                tracing::error!(%error, "the order book's work panicked");
                Err(Problem::new(Code::Internal, "the order book failed; see the log"))
            }
        }
    }
}

impl View {
    fn of(order: Order) -> Self {
        Self {
            id: order.number.to_string(),
            order: order.order,
            at: told(order.at_ms),
            key_expires: order.key_ends_ms.map(told),
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn told(ms: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_millis(at).to_string()
}

fn refused(method: &Method) -> Response<Body> {
    let detail = format!("{method} is not offered here; POST and GET are");
    let mut response = Problem::new(Code::MethodNotAllowed, detail).response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    response
}

fn json(status: StatusCode, value: &impl Serialize) -> Result<Response<Body>, Problem> {
    let text = serde_json::to_vec(value)
        .map_err(|error| Problem::new(Code::Internal, format!("cannot be written: {error}")))?;
    let mut response = Response::new(Body::of(text));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn order_in(body: &Bytes) -> Result<Value, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::new(Code::BadRequest, format!("the order is not JSON: {error}")))
}

/// The `Idempotency-Key`, bare or as a quoted string (RFC 9110 §5.6.4), if there is one.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let rule = "Idempotency-Key must be one key of 1 to 255 visible characters, bare or quoted";
    let bad = || Problem::new(Code::BadRequest, rule);
    let text = value.to_str().map_err(|_invisible| bad())?;
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let key = quoted.map_or_else(|| text.to_owned(), unescaped);
    let is_key = (1..=MAX_KEY).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_graphic())
        && (quoted.is_some() || !text.starts_with('"'));
    if is_key && values.next().is_none() { Ok(Some(key)) } else { Err(bad()) }
}

fn unescaped(quoted: &str) -> String {
    let mut key = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => key.extend(characters.next()),
            '"' => return String::new(), // it ends the text before its end
            _ => key.push(character),
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::key;

    #[test]
    fn a_key_is_one_run_of_visible_characters_bare_or_quoted() {
        let long = "k".repeat(255);
        let longer = "k".repeat(256);
        let rows = [
            ("a", Some("a")),
            ("\"a\"", Some("a")),
            ("\"a\\\"b\"", Some("a\"b")),
            (&long, Some(long.as_str())),
            (&longer, None),
            ("", None),
            ("\"\"", None),
            ("\"a", None),
            ("\"a\"b\"", None),
            ("a b", None),
            ("\u{e9}", None),
        ];
        for (text, want) in rows {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", HeaderValue::from_bytes(text.as_bytes()).unwrap());
            assert_eq!(key(&headers).ok().flatten().as_deref(), want, "{text:?}");
            headers.append("idempotency-key", HeaderValue::from_static("b"));
            assert!(key(&headers).is_err(), "two keys");
        }
        assert_eq!(key(&HeaderMap::new()), Ok(None));
    }
}
