//! What a client asked for, once its request is taken apart for the way upstream.

use std::net::SocketAddr;

use http::{HeaderMap, Method, Uri};
use meridian_edge_rules::hop_by_hop::remove_hop_by_hop;

use crate::route;

/// A request's head.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query as the client wrote them.
    pub(crate) target: String,
    /// Without those that end at this edge: what a client names in `Connection` no origin sees, so
    /// that it must not select a variant either.
    pub(crate) headers: HeaderMap,
    /// Host and port that it was sent to, as the client wrote them.
    pub(crate) authority: Option<String>,
    pub(crate) peer: SocketAddr,
}

impl Asked {
    pub(crate) fn new(method: Method, uri: &Uri, mut headers: HeaderMap, peer: SocketAddr) -> Self {
        let authority = route::authority(uri, &headers).map(str::to_owned);
        remove_hop_by_hop(&mut headers);
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Self { method, target, headers, authority, peer }
    }
}
