//! A connection to a control replica: one call after the other, or one answer without end.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use meridian_control_wire::cursor::Cursor;
use meridian_control_wire::frame::WireError;
use meridian_control_wire::secret::Secret;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::world::TcpStream;

/// One call to a replica, connecting included.
pub(crate) const CALL: Duration = Duration::from_secs(2);
/// The largest answer that is read.
const MAX_ANSWER: usize = 64 * 1024;

/// A control replica: its name, and the address from the name table.
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) address: String,
}

/// Why a replica was of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no answer within {CALL:?}")]
    Timeout,
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("it answered {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("its answer cannot be read: {0}")]
    Unreadable(String),
    #[error("its stream cannot be read: {0}")]
    Stream(#[from] WireError),
    #[error("its stream ended")]
    Ended,
    #[error("its stream was silent for {0:?}")]
    Silent(Duration),
    #[error("its stream has not brought within {0:?} what is known elsewhere")]
    Behind(Duration),
}

impl CallError {
    /// Whether the replica may not know who asks. It may merely not know it yet: who leads does.
    pub(crate) fn doubts_identity(&self) -> bool {
        let denials = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::NOT_FOUND];
        matches!(self, Self::Refused { status, .. } if denials.contains(status))
    }
}

/// As whom an edge asks: what the control plane gave it, the same at every replica.
pub(crate) struct Identity {
    /// Its id, in paths.
    pub(crate) id: String,
    pub(crate) secret: HeaderValue,
    /// The replicas ask for a beat at least this often.
    pub(crate) beat: Duration,
}

/// The value of `Authorization` with `secret`.
pub(crate) fn bearer(secret: &Secret) -> Result<HeaderValue, header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", secret.expose()))?;
    value.set_sensitive(true);
    Ok(value)
}

pub(crate) fn lossy(body: &[u8]) -> String {
    String::from_utf8_lossy(body.get(..body.len().min(512)).unwrap_or_default()).into_owned()
}

/// One connection to a replica.
pub(crate) struct Line {
    host: HeaderValue,
    sender: SendRequest<Full<Bytes>>,
    /// Drives the connection; ends with this.
    _driver: JoinSet<()>,
}

impl Line {
    pub(crate) async fn open(replica: &Replica) -> Result<Self, CallError> {
        let opening = async {
            let stream = TcpStream::connect(replica.address.as_str()).await?;
            stream.set_nodelay(true)?;
            Ok::<_, CallError>(handshake(TokioIo::new(stream)).await?)
        };
        let (sender, connection) =
            timeout(CALL, opening).await.map_err(|_elapsed| CallError::Timeout)??;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the line to the control plane broke");
            }
        });
        let host = HeaderValue::from_str(&replica.address)
            .map_err(|error| CallError::Unreadable(error.to_string()))?;
        Ok(Self { host, sender, _driver: driver })
    }

    /// Posts `body`, and takes the whole answer.
    pub(crate) async fn call(
        &mut self,
        path: &str,
        secret: &HeaderValue,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let mut request = self.request(Method::POST, path, secret, body)?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        let calling = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| CallError::Unreadable(error.to_string()))?;
            Ok((status, body.to_bytes()))
        };
        timeout(CALL, calling).await.map_err(|_elapsed| CallError::Timeout)?
    }

    /// Asks for the stream behind `cursor`, and answers with its head; it has no end.
    pub(crate) async fn stream(
        &mut self,
        path: &str,
        secret: &HeaderValue,
        cursor: Option<&Cursor>,
    ) -> Result<Incoming, CallError> {
        let mut request = self.request(Method::GET, path, secret, Bytes::new())?;
        let fields = request.headers_mut();
        fields.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(cursor) = cursor {
            let cursor = HeaderValue::from_str(cursor.as_str())
                .map_err(|error| CallError::Unreadable(error.to_string()))?;
            fields.insert("last-event-id", cursor);
        }
        let asking = async {
            self.sender.ready().await?;
            Ok::<_, CallError>(self.sender.send_request(request).await?)
        };
        let (head, body): (_, Incoming) = timeout(CALL, asking)
            .await
            .map_err(|_elapsed| CallError::Timeout)?
            .map(Response::into_parts)?;
        if head.status == StatusCode::OK {
            return Ok(body);
        }
        let reading = Limited::new(body, MAX_ANSWER).collect();
        let told = timeout(CALL, reading).await.map_err(|_elapsed| CallError::Timeout)?;
        let told = told.map(|body| lossy(&body.to_bytes())).unwrap_or_default();
        Err(CallError::Refused { status: head.status, body: told })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        secret: &HeaderValue,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, CallError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() =
            path.parse().map_err(|_invalid| CallError::Unreadable(path.to_owned()))?;
        let fields = request.headers_mut();
        fields.insert(header::HOST, self.host.clone());
        fields.insert(header::AUTHORIZATION, secret.clone());
        Ok(request)
    }
}
