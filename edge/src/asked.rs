//! What a client asked for, once its request is taken apart for the way upstream.

use std::net::SocketAddr;

use http::{HeaderMap, Method, Uri};

use crate::route;

/// A request's head.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query as the client wrote them.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    /// Host and port that it was sent to, as the client wrote them.
    pub(crate) authority: Option<String>,
    pub(crate) peer: SocketAddr,
}

impl Asked {
    pub(crate) fn new(method: Method, uri: &Uri, headers: HeaderMap, peer: SocketAddr) -> Self {
        let authority = route::authority(uri, &headers).map(str::to_owned);
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Self { method, target, headers, authority, peer }
    }
}
