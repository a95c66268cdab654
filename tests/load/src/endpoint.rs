//! Where something listens: `http://host:port`.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// The address of a listener, written `http://127.0.0.1:8081`. Cleartext HTTP only, no path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    address: String,
}

impl Endpoint {
    /// `host:port`, to dial and to send as `Host`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(format!("{text:?}: https is not offered yet")),
            _ => return Err(format!("{text:?} must be http://host:port")),
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(format!("{text:?} must be http://host:port, without a path"));
        }
        let Some(host) = uri.host().filter(|host| !host.is_empty()) else {
            return Err(format!("{text:?} has no host"));
        };
        Ok(Self { address: format!("{host}:{}", uri.port_u16().unwrap_or(80)) })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn an_endpoint_is_an_http_url_without_a_path() {
        let rows = [
            ("http://127.0.0.1:8081", Some("127.0.0.1:8081")),
            ("http://127.0.0.1:8081/", Some("127.0.0.1:8081")),
            ("http://[::1]:8081", Some("[::1]:8081")),
            ("http://edge", Some("edge:80")),
            ("https://edge", None),
            ("http://edge/path", None),
            ("http://edge/?q", None),
            ("edge:80", None),
            ("", None),
        ];
        for (text, want) in rows {
            let parsed = text.parse::<Endpoint>().ok();
            assert_eq!(parsed.as_ref().map(Endpoint::address), want, "{text}");
        }
    }
}
