//! Why something failed, one enum per seam.
//!
//! The variants of [`FetchError`] bear the names of RFC 9209 §2.3, so that `token()` serves
//! `Proxy-Status`, the metric label and the log alike. Not here: what the client is told
//! ([`crate::respond`]).

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;

/// Why the next hop gave no usable response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// No connection within the limit.
    #[error("{upstream} did not accept a connection within {limit:?}")]
    ConnectionTimeout { upstream: String, limit: Duration },
    /// Nobody listens there, or the network says no.
    #[error("{upstream} refused the connection")]
    ConnectionRefused { upstream: String, source: io::Error },
    /// The name has no address.
    #[error("{upstream} has no address")]
    DnsError { upstream: String, source: io::Error },
    /// The connection broke before the head of the answer was there.
    #[error("{upstream} ended the connection before it answered")]
    ConnectionTerminated { upstream: String, source: hyper::Error },
    /// No head of an answer within the limit.
    #[error("{upstream} did not begin to answer within {limit:?}")]
    HttpResponseTimeout { upstream: String, limit: Duration },
    /// Its answer began, and its body broke off or came too slowly.
    #[error("{upstream} did not bring its answer to an end: {source}")]
    HttpResponseIncomplete { upstream: String, source: BodyError },
    /// Every place to this origin is taken, and every place in its queue too.
    #[error("{upstream} has {limit} requests in flight and its queue is full")]
    ConnectionLimitReached { upstream: String, limit: u32 },
    /// It has failed so much that it is not asked for a while.
    #[error("{upstream} is not asked: its breaker is open")]
    DestinationUnavailable { upstream: String, retry_after: Duration },
    /// What came is no answer to what was asked.
    #[error("{upstream} broke the protocol: {reason}")]
    HttpProtocolError { upstream: String, reason: &'static str },
    /// The request's body turned out larger than `accept.body_size` on its way.
    #[error("the request body is larger than {limit} bytes")]
    RequestTooLarge { limit: u64 },
    /// The request could not be written for the next hop.
    #[error("the request cannot be sent on: {reason}")]
    HttpRequestError { reason: &'static str },
    /// A request for the same thing failed, and this one waited for it.
    #[error("{upstream} answered {status} to the request that this one waited for")]
    SharedFailure { upstream: String, status: StatusCode },
    /// The edge itself gave up: it is stopping, or a task of its own ended early.
    #[error("the edge stopped before the answer was there")]
    ProxyInternalError,
}

impl FetchError {
    /// The word of RFC 9209 §2.3, in `Proxy-Status`, metrics and logs.
    pub(crate) const fn token(&self) -> &'static str {
        match self {
            Self::ConnectionTimeout { .. } => "connection_timeout",
            Self::ConnectionRefused { .. } => "connection_refused",
            Self::DnsError { .. } => "dns_error",
            Self::ConnectionTerminated { .. } => "connection_terminated",
            Self::HttpResponseTimeout { .. } => "http_response_timeout",
            Self::HttpResponseIncomplete { .. } => "http_response_incomplete",
            Self::ConnectionLimitReached { .. } => "connection_limit_reached",
            Self::DestinationUnavailable { .. } => "destination_unavailable",
            Self::HttpProtocolError { .. } => "http_protocol_error",
            Self::RequestTooLarge { .. } | Self::HttpRequestError { .. } => "http_request_error",
            Self::SharedFailure { .. } => "destination_unavailable",
            Self::ProxyInternalError => "proxy_internal_error",
        }
    }

    /// Every token, for metrics that are exported from zero.
    pub(crate) const TOKENS: [&'static str; 11] = [
        "connection_timeout",
        "connection_refused",
        "dns_error",
        "connection_terminated",
        "http_response_timeout",
        "http_response_incomplete",
        "connection_limit_reached",
        "destination_unavailable",
        "http_protocol_error",
        "http_request_error",
        "proxy_internal_error",
    ];

    /// The status that a client gets: 504 for what took too long, 503 for what was shed,
    /// 502 for everything else that went wrong upstream.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::ConnectionTimeout { .. } | Self::HttpResponseTimeout { .. } => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::ConnectionLimitReached { .. }
            | Self::DestinationUnavailable { .. }
            | Self::ProxyInternalError => StatusCode::SERVICE_UNAVAILABLE,
            Self::RequestTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HttpRequestError { .. } => StatusCode::BAD_REQUEST,
            Self::SharedFailure { status, .. } => *status,
            Self::ConnectionRefused { .. }
            | Self::DnsError { .. }
            | Self::HttpProtocolError { .. }
            | Self::HttpResponseIncomplete { .. }
            | Self::ConnectionTerminated { .. } => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whether the next who asks at once would very likely hear the same.
    pub(crate) const fn is_lasting(&self) -> bool {
        match self {
            Self::ConnectionTimeout { .. }
            | Self::ConnectionRefused { .. }
            | Self::DnsError { .. }
            | Self::HttpResponseTimeout { .. } => true,
            // What broke off is asked for again by the next.
            Self::ConnectionTerminated { .. }
            | Self::HttpResponseIncomplete { .. }
            | Self::HttpProtocolError { .. }
            | Self::ConnectionLimitReached { .. }
            | Self::DestinationUnavailable { .. }
            | Self::RequestTooLarge { .. }
            | Self::HttpRequestError { .. }
            | Self::SharedFailure { .. }
            | Self::ProxyInternalError => false,
        }
    }

    /// When it is worth asking again, where that is known.
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::DestinationUnavailable { retry_after, .. } => Some(*retry_after),
            Self::ConnectionTimeout { .. }
            | Self::ConnectionRefused { .. }
            | Self::DnsError { .. }
            | Self::ConnectionTerminated { .. }
            | Self::HttpResponseTimeout { .. }
            | Self::HttpResponseIncomplete { .. }
            | Self::ConnectionLimitReached { .. }
            | Self::HttpProtocolError { .. }
            | Self::RequestTooLarge { .. }
            | Self::HttpRequestError { .. }
            | Self::SharedFailure { .. }
            | Self::ProxyInternalError => None,
        }
    }

    /// The next hop that it is about.
    pub(crate) fn next_hop(&self) -> Option<&str> {
        match self {
            Self::ConnectionTimeout { upstream, .. }
            | Self::ConnectionRefused { upstream, .. }
            | Self::DnsError { upstream, .. }
            | Self::ConnectionTerminated { upstream, .. }
            | Self::HttpResponseTimeout { upstream, .. }
            | Self::HttpResponseIncomplete { upstream, .. }
            | Self::ConnectionLimitReached { upstream, .. }
            | Self::DestinationUnavailable { upstream, .. }
            | Self::HttpProtocolError { upstream, .. }
            | Self::SharedFailure { upstream, .. } => Some(upstream),
            Self::RequestTooLarge { .. }
            | Self::HttpRequestError { .. }
            | Self::ProxyInternalError => None,
        }
    }

    /// What a client may know beside the token: limits and reasons of this edge's own, never what a
    /// system or an origin said.
    pub(crate) fn details(&self) -> Option<String> {
        match self {
            Self::ConnectionTimeout { limit, .. } => {
                Some(format!("no connection within {limit:?}"))
            }
            Self::HttpResponseTimeout { limit, .. } => Some(format!("no answer within {limit:?}")),
            Self::ConnectionLimitReached { limit, .. } => {
                Some(format!("{limit} requests are in flight and the queue is full"))
            }
            Self::HttpProtocolError { reason, .. } | Self::HttpRequestError { reason } => {
                Some((*reason).to_owned())
            }
            Self::RequestTooLarge { limit } => Some(format!("a body is at most {limit} bytes")),
            Self::DestinationUnavailable { .. } => Some("its breaker is open".to_owned()),
            Self::SharedFailure { .. } => {
                Some("the request that this one waited for failed".to_owned())
            }
            Self::ProxyInternalError => {
                Some("the edge is stopping, or a task of its own ended early".to_owned())
            }
            Self::ConnectionRefused { .. }
            | Self::DnsError { .. }
            | Self::HttpResponseIncomplete { .. }
            | Self::ConnectionTerminated { .. } => None,
        }
    }

    /// What the next hop answered, where it is not what the client gets.
    pub(crate) fn received_status(&self) -> Option<StatusCode> {
        match self {
            Self::SharedFailure { status, .. } => Some(*status),
            Self::ConnectionTimeout { .. }
            | Self::ConnectionRefused { .. }
            | Self::DnsError { .. }
            | Self::ConnectionTerminated { .. }
            | Self::HttpResponseTimeout { .. }
            | Self::HttpResponseIncomplete { .. }
            | Self::ConnectionLimitReached { .. }
            | Self::DestinationUnavailable { .. }
            | Self::HttpProtocolError { .. }
            | Self::RequestTooLarge { .. }
            | Self::HttpRequestError { .. }
            | Self::ProxyInternalError => None,
        }
    }

    /// Whether the client's request is to blame, and not the next hop.
    pub(crate) const fn is_of_client(&self) -> bool {
        matches!(self, Self::RequestTooLarge { .. } | Self::HttpRequestError { .. })
    }

    /// Whether the next hop certainly saw nothing of the request, so that another may get it.
    pub(crate) const fn nothing_was_sent(&self) -> bool {
        matches!(
            self,
            Self::ConnectionTimeout { .. }
                | Self::ConnectionRefused { .. }
                | Self::DnsError { .. }
                | Self::ConnectionLimitReached { .. }
                | Self::DestinationUnavailable { .. }
        )
    }
}

/// Why a body broke off after its head had been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The upstream ended it early or reset the connection.
    #[error("the upstream broke off its answer")]
    Incomplete,
    /// The upstream sent nothing for too long.
    #[error("the upstream sent nothing for {0:?}")]
    Stalled(Duration),
    /// The upstream sent less than that in a second, over that time of waiting for it.
    #[error("the upstream sent less than {0} bytes a second for {1:?}")]
    TooSlow(u64, Duration),
    /// A request body larger than the limit.
    #[error("the request body is larger than {0} bytes")]
    TooLarge(u64),
    /// The client ended its request body early.
    #[error("the client broke off its request")]
    ClientGone,
    /// The origin has another representation now than the one that was being sent.
    #[error("the representation changed while it was sent")]
    Changed,
    /// Nobody wanted the rest.
    #[error("nobody wanted the rest")]
    Abandoned,
}

impl BodyError {
    /// Whether it is the upstream that did not bring the body to its end.
    pub(crate) const fn is_of_upstream(self) -> bool {
        match self {
            Self::Incomplete | Self::Stalled(_) | Self::TooSlow(..) => true,
            Self::TooLarge(_) | Self::ClientGone | Self::Changed | Self::Abandoned => false,
        }
    }
}

/// Why an edge could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener could not be opened.
    #[error("cannot listen on {address}: {source}; is another process using the port?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A token file could not be used.
    #[error("cannot use the token file {}: {reason}", path.display())]
    Token {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The configuration names something that is not there.
    #[error("{key} = {value:?}: {rule}")]
    Config {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A thread could not be started.
    #[error("cannot start the thread {name}: {source}")]
    Thread {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A thread or task ended by a panic.
    #[error("{0} ended by a panic: this is a defect, please report it with the log")]
    Panicked(String),
}

#[cfg(test)]
mod tests {
    use meridian_edge_rules::proxy_status::ERROR_TYPES;

    use super::FetchError;

    #[test]
    fn every_error_bears_a_name_that_rfc_9209_knows() {
        for token in FetchError::TOKENS {
            assert!(ERROR_TYPES.contains(&token), "{token}");
            let same = FetchError::TOKENS.iter().filter(|other| **other == token);
            assert_eq!(same.count(), 1, "{token}");
        }
    }
}
