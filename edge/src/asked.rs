//! What a client asked for, once its request is taken apart for the way upstream.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use http::header::HeaderName;
use http::request::Parts;
use http::{HeaderMap, Method, Version, header};
use meridian_edge_rules::authority::is_authority;
use meridian_edge_rules::hop_by_hop::remove_hop_by_hop;
use meridian_edge_rules::target::write_target;

use crate::connection::Connection;
use crate::nodes::{Asker, Child};
use crate::route::{self, Site};
use crate::site_rules::Matched;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Who sent a request to this edge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer<'c> {
    pub(crate) address: SocketAddr,
    /// Whether its word is taken on where the request comes from (`accept.trusted_proxies`).
    pub(crate) trusted: bool,
    /// The connection that it came over.
    pub(crate) connection: &'c Arc<Connection>,
    /// The rules of the site that match its request, once they are looked for.
    pub(crate) matched: Matched,
    /// The edge of this CDN that it is, if it is one.
    pub(crate) child: Option<&'c Arc<Child>>,
}

impl Peer<'_> {
    /// The scheme that the client used, which is part of the key: what answers differ by.
    pub(crate) fn scheme(&self, headers: &HeaderMap) -> &'static str {
        // TLS is not offered here: only who stands in front can know of it.
        let told = || headers.get(X_FORWARDED_PROTO);
        if self.trusted
            && told().is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
        {
            "https"
        } else {
            "http"
        }
    }
}

/// A request's head.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query, spelled as the key is.
    pub(crate) target: String,
    /// Without those that end at this edge: what a client names in `Connection` no origin sees, so
    /// that it must not select a variant either.
    pub(crate) headers: HeaderMap,
    /// Host and port that it was sent to, as the client wrote them.
    pub(crate) authority: Option<String>,
    /// The version in which it came.
    pub(crate) version: Version,
    /// Whether the client takes trailers (RFC 9110 §10.1.4).
    pub(crate) takes_trailers: bool,
    /// The scheme that the client used.
    pub(crate) scheme: &'static str,
    pub(crate) address: IpAddr,
    /// Whether its word is taken on where the request comes from.
    pub(crate) trusted: bool,
    /// Where interim responses go, if anywhere: a connection, and the request's number there.
    pub(crate) interim: Option<(Arc<Connection>, u64)>,
    /// The rules of its site that match it.
    pub(crate) matched: Matched,
    /// When it came.
    pub(crate) since: Instant,
    /// The edge of this CDN that it comes from, if it comes from one.
    pub(crate) asker: Asker,
}

impl Asked {
    pub(crate) fn new(head: Parts, peer: Peer<'_>) -> Self {
        let Parts { method, uri, version, mut headers, .. } = head;
        let authority = route::authority(&uri, &headers).map(str::to_owned);
        let scheme = peer.scheme(&headers);
        let takes_trailers = takes_trailers(&headers);
        remove_hop_by_hop(&mut headers);
        let mut target = String::with_capacity(64);
        write_target(&mut target, uri.path(), uri.query());
        Self {
            method,
            target,
            headers,
            authority,
            version,
            takes_trailers,
            scheme,
            address: peer.address.ip(),
            trusted: peer.trusted,
            interim: None,
            matched: peer.matched,
            since: peer.connection.now(),
            asker: peer.child.cloned(),
        }
    }

    /// With interim responses sent on to the client, where `site` says so and the client can take
    /// them.
    pub(crate) fn interim(mut self, site: &Site, peer: Peer<'_>) -> Self {
        if site.interim && self.version == Version::HTTP_11 {
            self.interim = Some((Arc::clone(peer.connection), peer.connection.interim.open()));
        }
        self
    }

    /// The host that the client used, as far as this edge can know.
    pub(crate) fn told_host(&self) -> Option<&str> {
        let told = self.headers.get(X_FORWARDED_HOST).filter(|_| self.trusted);
        told.filter(|host| is_authority(host.as_bytes()))
            .and_then(|host| host.to_str().ok())
            .or(self.authority.as_deref())
    }
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::TE).iter().filter_map(|line| line.to_str().ok());
    let mut codings = lines.flat_map(|line| line.split(','));
    codings.any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}
