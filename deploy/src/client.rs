//! A small HTTP client for the control API and for admin listeners.
//!
//! One connection per call: an operator's command makes a handful of them. Cleartext HTTP only.
//!
//! # Invariants
//! - A call ends within a limit, by default [`CALL_TIMEOUT`], and reads at most
//!   [`LARGEST_ANSWER`].

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HOST, HeaderName, IF_MATCH, USER_AGENT,
};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// One call, from the connection to the last byte: longer than any node's own limits.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer is read up to this size: metrics of many sites, explanations of long tables.
const LARGEST_ANSWER: usize = 16 << 20;

/// Names an order, so that it is obeyed once however often it is sent.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where a listener is: `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    authority: String,
    dial: String,
}

impl Base {
    /// Takes `url` for a base if it is one.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let uri: http::Uri = url.parse().map_err(|error| format!("is not a URL: {error}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err("https is not offered yet".to_owned()),
            _ => return Err("must be http://host:port".to_owned()),
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err("must be http://host:port, without a path".to_owned());
        }
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        if authority.contains('@') || uri.host().is_none_or(str::is_empty) {
            return Err("must be http://host:port, without a user".to_owned());
        }
        let host = uri.host().unwrap_or_default();
        let dial = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        Ok(Self { authority, dial })
    }

    /// `host:port`, to dial.
    pub(crate) fn address(&self) -> &str {
        &self.dial
    }
}

/// Why a call gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The URL cannot be dialled.
    #[error("{url}: {rule}")]
    Url {
        /// What was given.
        url: String,
        /// What it should be.
        rule: String,
    },
    /// Nobody is there.
    #[error("{url} takes no connection (is it running?)")]
    Unreachable {
        /// Who was dialled.
        url: String,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long.
    #[error("{url} did not answer within {limit:?}")]
    Timeout {
        /// Who was asked.
        url: String,
        /// How long it had.
        limit: Duration,
    },
    /// The answer broke off, or is no HTTP.
    #[error("{url} broke off")]
    Broken {
        /// Who was asked.
        url: String,
        /// How.
        source: hyper::Error,
    },
    /// The answer is too long, or is not what was asked for.
    #[error("{url} answered what cannot be used: {reason}")]
    Unusable {
        /// Who was asked.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The answer is an error.
    #[error("{url} answered {status}: {}{}", told(detail, code.as_deref()), lines(violations))]
    Refused {
        /// Who was asked.
        url: String,
        /// The status.
        status: StatusCode,
        /// The token of the problem (RFC 9457), if it is one.
        code: Option<String>,
        /// What went wrong, for people.
        detail: String,
        /// Each rule that was broken, with its key and value.
        violations: Vec<String>,
    },
}

impl ClientError {
    /// Whether the same call may succeed a moment later: nobody was there, or whoever was there
    /// could not finish.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Broken { .. } => true,
            Self::Refused { status, code, .. } => {
                let passing = [
                    StatusCode::BAD_GATEWAY,
                    StatusCode::SERVICE_UNAVAILABLE,
                    StatusCode::GATEWAY_TIMEOUT,
                ];
                passing.contains(status) || code.as_deref() == Some("idempotency_in_flight")
            }
            Self::Url { .. } | Self::Unusable { .. } => false,
        }
    }

    /// Whether the other side may have obeyed although it did not say so.
    pub(crate) fn may_have_happened(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::Broken { .. } | Self::Unusable { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::Url { .. } | Self::Unreachable { .. } => false,
        }
    }
}

fn told(detail: &str, code: Option<&str>) -> String {
    match (detail, code) {
        ("", None) => "nothing more".to_owned(),
        ("", Some(code)) => code.to_owned(),
        (detail, None) => detail.to_owned(),
        (detail, Some(code)) => format!("{detail} ({code})"),
    }
}

fn lines(violations: &[String]) -> String {
    violations.iter().map(|violation| format!("\n  {violation}")).collect()
}

/// Asks one listener.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: Base,
    token: Option<String>,
    limit: Duration,
}

/// One request.
#[derive(Debug)]
struct Ask<'a> {
    method: Method,
    target: &'a str,
    body: Bytes,
    /// A header field that this request has and others have not.
    field: Option<(HeaderName, &'a str)>,
}

impl<'a> Ask<'a> {
    fn of(method: Method, target: &'a str) -> Self {
        Self { method, target, body: Bytes::new(), field: None }
    }
}

/// A whole answer.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn etag(&self) -> Option<String> {
        let tag = self.headers.get(ETAG)?.to_str().ok()?;
        Some(tag.to_owned())
    }
}

impl Client {
    /// Asks the listener at `url`, with the bearer token `token` if there is one.
    pub(crate) fn new(url: &str, token: Option<String>) -> Result<Self, ClientError> {
        let base =
            Base::parse(url).map_err(|rule| ClientError::Url { url: url.to_owned(), rule })?;
        Ok(Self { base, token, limit: CALL_TIMEOUT })
    }

    /// The same, but each call ends within `limit`.
    #[must_use]
    pub(crate) fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// `GET target`, as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let answer = self.success(Ask::of(Method::GET, target)).await?;
        self.json(target, &answer.body)
    }

    /// `GET target`, as JSON, with its entity tag if it has one.
    pub(crate) async fn get_tagged(
        &self,
        target: &str,
    ) -> Result<(Value, Option<String>), ClientError> {
        let answer = self.success(Ask::of(Method::GET, target)).await?;
        Ok((self.json(target, &answer.body)?, answer.etag()))
    }

    /// `GET target`, as text.
    pub(crate) async fn text(&self, target: &str) -> Result<String, ClientError> {
        let answer = self.success(Ask::of(Method::GET, target)).await?;
        String::from_utf8(answer.body.to_vec())
            .map_err(|error| self.unusable(target, error.to_string()))
    }

    /// `PUT target` with a JSON body; what the answer says, if anything.
    pub(crate) async fn put(&self, target: &str, body: &Value) -> Result<Value, ClientError> {
        Ok(self.put_if(target, body, None).await?.0)
    }

    /// `PUT target` with a JSON body, if what is there has the entity tag `if_match`; what the
    /// answer says, if anything, and the new tag.
    pub(crate) async fn put_if(
        &self,
        target: &str,
        body: &Value,
        if_match: Option<&str>,
    ) -> Result<(Value, Option<String>), ClientError> {
        let mut ask = Ask::of(Method::PUT, target);
        ask.body = body.to_string().into();
        ask.field = if_match.map(|tag| (IF_MATCH, tag));
        let answer = self.success(ask).await?;
        let told =
            if answer.body.is_empty() { Value::Null } else { self.json(target, &answer.body)? };
        Ok((told, answer.etag()))
    }

    /// `POST target` with a JSON body.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let mut ask = Ask::of(Method::POST, target);
        ask.body = serde_json::to_vec(body)
            .map_err(|error| self.unusable(target, error.to_string()))?
            .into();
        let answer = self.success(ask).await?;
        self.json(target, &answer.body)
    }

    /// `POST target` with a JSON body, which is obeyed once for each `key`.
    pub(crate) async fn post_once<T: DeserializeOwned>(
        &self,
        target: &str,
        body: Bytes,
        key: &str,
    ) -> Result<T, ClientError> {
        let field = Some((IDEMPOTENCY_KEY, key));
        let answer = self.success(Ask { method: Method::POST, target, body, field }).await?;
        self.json(target, &answer.body)
    }

    /// The status of `GET target`, and what went wrong in words.
    pub(crate) async fn probe(&self, target: &str) -> Result<(StatusCode, String), ClientError> {
        let answer = self.call(Ask::of(Method::GET, target)).await?;
        Ok((answer.status, problem(&answer.body).1))
    }

    async fn success(&self, ask: Ask<'_>) -> Result<Answer, ClientError> {
        let url = self.url(ask.target);
        let answer = self.call(ask).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let (code, detail) = problem(&answer.body);
        let violations = violations(&answer.body);
        Err(ClientError::Refused { url, status: answer.status, code, detail, violations })
    }

    async fn call(&self, ask: Ask<'_>) -> Result<Answer, ClientError> {
        let limit = self.limit;
        timeout(limit, self.exchange(ask))
            .await
            .unwrap_or_else(|_elapsed| Err(ClientError::Timeout { url: self.url(""), limit }))
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<Answer, ClientError> {
        let target = ask.target;
        let request = self.request(ask)?;
        let stream = TcpStream::connect(self.base.address())
            .await
            .map_err(|source| ClientError::Unreachable { url: self.url(""), source })?;
        let broken = |source| ClientError::Broken { url: self.url(target), source };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let mut tasks = JoinSet::new(); // ends with this exchange
        tasks.spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body =
            Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| match error
                .downcast::<hyper::Error>(
            ) {
                Ok(source) => broken(*source),
                Err(error) if error.is::<LengthLimitError>() => {
                    self.unusable(target, format!("it is longer than {LARGEST_ANSWER} bytes"))
                }
                Err(error) => self.unusable(target, error.to_string()),
            })?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, ClientError> {
        let Ask { method, target, body, field } = ask;
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, &self.base.authority)
            .header(ACCEPT, "application/json, application/problem+json, text/plain, */*")
            .header(USER_AGENT, concat!("meridian/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some((name, value)) = field {
            request = request.header(name, value);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body)).map_err(|error| ClientError::Url {
            url: self.url(target),
            rule: format!("cannot be asked for: {error}"),
        })
    }

    fn json<T: DeserializeOwned>(&self, target: &str, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| self.unusable(target, error.to_string()))
    }

    fn unusable(&self, target: &str, reason: String) -> ClientError {
        ClientError::Unusable { url: self.url(target), reason }
    }

    fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.base.authority)
    }
}

/// Code and detail of a problem (RFC 9457); of anything else, its beginning.
fn problem(body: &[u8]) -> (Option<String>, String) {
    const SHOWN: usize = 200; // enough of a stranger's error page to recognise it
    if let Ok(Value::Object(problem)) = serde_json::from_slice(body) {
        let text = |name| problem.get(name).and_then(Value::as_str).map(str::to_owned);
        if let Some(detail) = text("detail").or_else(|| text("title")) {
            return (text("code"), detail);
        }
    }
    let text = String::from_utf8_lossy(body);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (None, line.chars().take(SHOWN).collect())
}

/// What a problem says of each rule that was broken, one line each.
fn violations(body: &[u8]) -> Vec<String> {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let all = problem.get("violations").and_then(Value::as_array);
    let text = |violation: &Value, name| {
        violation.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let line = |violation: &Value| {
        let (key, value) = (text(violation, "key"), text(violation, "value"));
        let equals = if value.is_empty() { "" } else { " = " };
        format!("{key}{equals}{value}: {}", text(violation, "rule"))
    };
    all.into_iter().flatten().map(line).collect()
}

/// `text` as one value within a query string (RFC 3986 §3.4).
pub(crate) fn query_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            value.push(char::from(byte));
        } else {
            value.push_str(&format!("%{byte:02X}"));
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::{Base, problem, query_value, violations};

    #[test]
    fn only_a_cleartext_listener_can_be_asked() {
        let rows = [
            ("http://127.0.0.1:8082", Ok("127.0.0.1:8082")),
            ("http://127.0.0.1:8082/", Ok("127.0.0.1:8082")),
            ("http://control", Ok("control:80")),
            ("http://[::1]:80", Ok("[::1]:80")),
            ("https://control", Err("https is not offered yet")),
            ("http://control/v1", Err("must be http://host:port, without a path")),
            ("http://user@control", Err("must be http://host:port, without a user")),
            ("control:8082", Err("must be http://host:port")),
        ];
        for (url, want) in rows {
            let base = Base::parse(url);
            let got = base.as_ref().map(Base::address).map_err(String::as_str);
            assert_eq!(got, want, "{url}");
        }
    }

    #[test]
    fn a_query_value_cannot_end_its_parameter() {
        assert_eq!(
            query_value("http://a:1/b c?d=1&e#f%20+"),
            "http://a:1/b%20c%3Fd%3D1%26e%23f%2520%2B"
        );
    }

    #[test]
    fn a_problem_is_told_by_its_detail_and_a_page_by_its_beginning() {
        let body =
            br#"{"title":"Forbidden","code":"forbidden","detail":"scope operate is missing"}"#;
        let want = (Some("forbidden".to_owned()), "scope operate is missing".to_owned());
        assert_eq!(problem(body), want);
        assert_eq!(problem(b"<h1>\n oops</h1>"), (None, "<h1> oops</h1>".to_owned()));
        assert_eq!(problem(b"[1]"), (None, "[1]".to_owned()));
        assert_eq!(violations(b"[1]"), Vec::<String>::new());
        let body = br#"{"violations":[{"key":"a","value":"7","rule":"must be 1"},
            {"key":"b","value":null,"rule":"is required"}]}"#;
        assert_eq!(violations(body), ["a = 7: must be 1", "b: is required"]);
    }
}
