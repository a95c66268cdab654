//! How an intermediary tells which error it met: `Proxy-Status` (RFC 9209).
//!
//! Does not choose the error; knows which there are, and how a member is written.

use std::fmt;

use http::{HeaderName, StatusCode};

use crate::cache_status::{write_string, write_token_or_string};

/// `Proxy-Status`.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The error types of RFC 9209 §2.3, in its order.
pub const ERROR_TYPES: [&str; 32] = [
    "dns_timeout",
    "dns_error",
    "destination_not_found",
    "destination_unavailable",
    "destination_ip_prohibited",
    "destination_ip_unroutable",
    "connection_refused",
    "connection_terminated",
    "connection_timeout",
    "connection_read_timeout",
    "connection_write_timeout",
    "connection_limit_reached",
    "tls_protocol_error",
    "tls_certificate_error",
    "tls_alert_received",
    "http_request_error",
    "http_request_denied",
    "http_response_incomplete",
    "http_response_header_section_size",
    "http_response_header_size",
    "http_response_body_size",
    "http_response_trailer_section_size",
    "http_response_trailer_size",
    "http_response_transfer_coding",
    "http_response_content_coding",
    "http_response_timeout",
    "http_upgrade_failed",
    "http_protocol_error",
    "proxy_internal_response",
    "proxy_internal_error",
    "proxy_configuration_error",
    "proxy_loop_detected",
];

/// One member of `Proxy-Status`; `Display` writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyStatus<'a> {
    /// The name of this intermediary.
    pub proxy: &'a str,
    /// One of [`ERROR_TYPES`].
    pub error: Option<&'a str>,
    /// The next hop, by the name that the configuration gives it.
    pub next_hop: Option<&'a str>,
    /// What the next hop answered, where the client is not answered that.
    pub received_status: Option<StatusCode>,
    /// Of `http_request_error`: the status that was made for it.
    pub status_code: Option<StatusCode>,
    /// Anything else worth a word; clients read it.
    pub details: Option<&'a str>,
}

impl fmt::Display for ProxyStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_token_or_string(f, self.proxy)?;
        if let Some(error) = self.error {
            write!(f, "; error={error}")?;
        }
        if let Some(status) = self.status_code {
            write!(f, "; status-code={}", status.as_u16())?;
        }
        if let Some(next_hop) = self.next_hop {
            f.write_str("; next-hop=")?;
            write_token_or_string(f, next_hop)?;
        }
        if let Some(status) = self.received_status {
            write!(f, "; received-status={}", status.as_u16())?;
        }
        if let Some(details) = self.details {
            f.write_str("; details=")?;
            write_string(f, details)?; // §2.1.5: a string, always
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structured::{Bare, Parser};

    #[test]
    fn members_read_as_rfc_9209_writes_them() {
        let base = ProxyStatus { proxy: "fra-1", ..ProxyStatus::default() };
        let rows = [
            (
                ProxyStatus {
                    error: Some("connection_timeout"),
                    next_hop: Some("origin-1"),
                    details: Some("no connection within 2s"),
                    ..base
                },
                "fra-1; error=connection_timeout; next-hop=origin-1; \
                 details=\"no connection within 2s\"",
            ),
            (
                ProxyStatus {
                    error: Some("http_request_error"),
                    status_code: Some(StatusCode::PAYLOAD_TOO_LARGE),
                    ..base
                },
                "fra-1; error=http_request_error; status-code=413",
            ),
            (
                ProxyStatus { received_status: Some(StatusCode::BAD_GATEWAY), ..base },
                "fra-1; received-status=502",
            ),
            (
                ProxyStatus { next_hop: Some("10.0.0.1:80"), ..base },
                "fra-1; next-hop=\"10.0.0.1:80\"",
            ),
        ];
        for (status, want) in rows {
            assert_eq!(status.to_string(), want);
        }
    }

    proptest::proptest! {
        #[test]
        fn a_member_reads_back_as_written(
            (proxy, details) in ("[ -~]{0,12}", "[ -~]{0,24}"),
            error in proptest::sample::select(ERROR_TYPES.to_vec()),
            next_hop in proptest::option::of("[ -~]{0,12}"),
            (received, code) in (proptest::option::of(100..999_u16), 100..999_u16),
        ) {
            let status = |code| StatusCode::from_u16(code).unwrap();
            let written = ProxyStatus {
                proxy: &proxy,
                error: Some(error),
                next_hop: next_hop.as_deref(),
                received_status: received.map(status),
                status_code: Some(status(code)),
                details: Some(&details),
            }
            .to_string();
            let mut parser = Parser { rest: written.as_bytes() };
            let text = |bare: &Bare| match bare {
                Bare::String(text) | Bare::Token(text) => Some(text.clone()),
                Bare::Integer(_) | Bare::Boolean(_) | Bare::Other => None,
            };
            proptest::prop_assert_eq!(parser.bare().as_ref().and_then(text), Some(proxy));
            let parameters = parser.parameters().unwrap();
            proptest::prop_assert!(parser.rest.is_empty(), "{}", written);
            let find =
                |name| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value);
            let number = |code: u16| Bare::Integer(i64::from(code));
            proptest::prop_assert_eq!(find("error"), Some(&Bare::Token(error.to_owned())));
            proptest::prop_assert_eq!(find("details"), Some(&Bare::String(details)));
            proptest::prop_assert_eq!(find("next-hop").and_then(text), next_hop);
            proptest::prop_assert_eq!(find("status-code"), Some(&number(code)));
            let received = received.map(number);
            proptest::prop_assert_eq!(find("received-status"), received.as_ref());
        }
    }
}
