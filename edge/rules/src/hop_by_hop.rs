//! Which fields end at this node (RFC 9110 §7.6.1).

use http::header::{
    CONNECTION, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

use crate::list;

/// Removes the fields that are about one connection, those that `Connection` names, and those of
/// proxy authentication, which is between a client and its proxy. What must go on (`Host`,
/// `Content-Length`, fields this node adds) the caller sets afterwards.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let mut named: Vec<HeaderName> = Vec::new();
    for line in headers.get_all(CONNECTION) {
        let names = list::members(line.as_bytes());
        named.extend(names.filter_map(|member| HeaderName::from_bytes(member.text).ok()));
    }
    let always = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("http2-settings"),
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        HeaderName::from_static("proxy-authentication-info"),
    ];
    for name in named.iter().chain(&always) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::headers;

    #[test]
    fn fields_of_one_connection_end_here_and_the_others_go_on() {
        let mut fields = headers(
            "Connection: close, X-A\nConnection: x-b,, bad name, Keep-Alive\nX-A: 1\nX-B: 2\nX-C: 3
             Keep-Alive: 5\nProxy-Connection: x\nTE: trailers\nTrailer: x\nUpgrade: h2c
             Transfer-Encoding: chunked\nHTTP2-Settings: x\nProxy-Authenticate: x
             Proxy-Authorization: x\nProxy-Authentication-Info: x\nProxy-Status: kept
             Close: 1",
        );
        remove_hop_by_hop(&mut fields);
        // `close` is a connection option; a field of that name would be one of that connection.
        assert_eq!(fields, headers("X-C: 3\nProxy-Status: kept"));
    }
}
