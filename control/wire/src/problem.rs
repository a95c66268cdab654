//! How an API tells an error: `application/problem+json` (RFC 9457) with a `code`.
//!
//! # Invariants
//! - One token, one status: a client may decide by either.

use serde::{Deserialize, Serialize};

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The body of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank`: the status and the code say it all (RFC 9457 §4.2.1).
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// What, which value, which rule; for people.
    pub detail: String,
    /// Each rule that a value breaks, where several may be broken at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Broken>,
}

/// A rule that a value breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// Where in the value, such as `query.keep[0]`; empty: the value as a whole.
    pub key: String,
    /// What stands there, in short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The rule.
    pub rule: String,
}

impl Problem {
    /// `code`, told to a person as `detail`.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            violations: Vec::new(),
        }
    }
}

/// Declares the codes once: variant, token, status, title.
macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $token:literal, $status:literal, $title:literal;)*) => {
        /// What went wrong, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $token)] $name,)*
            /// A token of a later version; decide by the status.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// Every code that this version knows.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word in the body, in logs and metrics.
            pub const fn token(self) -> &'static str {
                match self {
                    $(Self::$name => $token,)*
                    Self::Unknown => "unknown",
                }
            }

            /// The status that goes with it.
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)*
                    Self::Unknown => 500,
                }
            }

            /// The title that goes with it.
            pub const fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                    Self::Unknown => "Unknown",
                }
            }
        }
    };
}

error_codes! {
    /// The request is not well-formed, or a value in it breaks a rule.
    BadRequest = "bad_request", 400, "Bad Request";
    /// No token, or none that is known.
    Unauthorized = "unauthorized", 401, "Unauthorized";
    /// No edge is registered under this name here: it should register again.
    UnknownEdge = "unknown_edge", 401, "Unknown Edge";
    /// The token lacks the scope, or the secret is not this edge's latest.
    Forbidden = "forbidden", 403, "Forbidden";
    /// There is no such thing.
    NotFound = "not_found", 404, "Not Found";
    /// The thing is there, the method is not offered on it.
    MethodNotAllowed = "method_not_allowed", 405, "Method Not Allowed";
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", 408, "Request Timeout";
    /// The history does not go back that far any more.
    CursorCompacted = "cursor_compacted", 410, "Gone";
    /// The register has another revision than `If-Match` demands.
    RevConflict = "rev_conflict", 412, "Precondition Failed";
    /// The request's body exceeds the limit.
    TooLarge = "too_large", 413, "Content Too Large";
    /// The value is well-formed, and breaks rules: `violations` has all of them.
    InvalidValue = "invalid_value", 422, "Unprocessable Content";
    /// This `Idempotency-Key` was used with another request.
    IdempotencyMismatch = "idempotency_mismatch", 422, "Unprocessable Content";
    /// The request's head exceeds the limit.
    HeadTooLarge = "head_too_large", 431, "Request Header Fields Too Large";
    /// A fault of this node.
    Internal = "internal", 500, "Internal Server Error";
    /// The contract has it, this version does not.
    NotOffered = "not_offered", 501, "Not Offered";
    /// This message is for another node, or another cluster.
    Misdirected = "misdirected", 421, "Misdirected Request";
    /// The next node could not be reached, or broke off.
    UpstreamUnreachable = "upstream_unreachable", 502, "Bad Gateway";
    /// The next node answered what cannot be used.
    UpstreamBadAnswer = "upstream_bad_answer", 502, "Bad Gateway";
    /// The next node did not answer in time.
    UpstreamTimeout = "upstream_timeout", 504, "Gateway Timeout";
    /// Not known whether it is done; repeating it does no harm.
    OutcomeUnknown = "outcome_unknown", 504, "Outcome Unknown";
    /// There is no majority to agree with: nothing is done.
    NoQuorum = "no_quorum", 503, "No Quorum";
    /// A limit is reached; later may work.
    Overloaded = "overloaded", 503, "Service Unavailable";
    /// The register has no room for another edge.
    RegisterFull = "register_full", 503, "Service Unavailable";
    /// No edge can take clients.
    NoEdge = "no_edge", 503, "Service Unavailable";
    /// The node runs but cannot do its work yet, or not any more.
    NotReady = "not_ready", 503, "Service Unavailable";
}

#[cfg(test)]
mod tests {
    use super::{ErrorCode, Problem};

    #[test]
    fn every_code_is_written_and_read_as_its_token() {
        for code in ErrorCode::ALL {
            let text = serde_json::to_string(code).unwrap();
            assert_eq!(text, format!("{:?}", code.token()));
            assert_eq!(serde_json::from_str::<ErrorCode>(&text).unwrap(), *code);
        }
    }

    #[test]
    fn a_code_of_a_later_version_is_still_a_problem() {
        let text = r#"{"type":"about:blank","title":"X","status":507,"code":"moon","detail":""}"#;
        let read: Problem = serde_json::from_str(text).unwrap();
        assert_eq!((read.code, read.status), (ErrorCode::Unknown, 507));
    }
}
