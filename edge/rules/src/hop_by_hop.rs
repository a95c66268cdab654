//! Which fields end at this node (RFC 9110 §7.6.1), and which requests (§7.6.2).

use http::header::{
    CONNECTION, HeaderMap, HeaderName, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};

use crate::list;

/// Removes the fields that are about one connection, those that `Connection` names, and those of
/// proxy authentication, which is between a client and its proxy. What must go on (`Host`,
/// `Content-Length`, fields this node adds) the caller sets afterwards. `Trailer` is none of these:
/// it goes where the trailers go (RFC 9110 §6.6.2).
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

/// `Max-Forwards` (RFC 9110 §7.6.2), where it is one number. It counts for `OPTIONS` and `TRACE`.
pub fn max_forwards(headers: &HeaderMap) -> Option<u64> {
    list::decimal(list::only(headers, &MAX_FORWARDS)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::headers;

    #[test]
    fn max_forwards_is_one_number_or_nothing() {
        let rows = [
            ("Max-Forwards: 0", Some(0)),
            ("Max-Forwards: 010", Some(10)),
            ("Max-Forwards: 99999999999999999999", Some(u64::MAX)),
            ("Max-Forwards: -1", None),
            ("Max-Forwards: 1, 1", None),
            ("Max-Forwards: 1\nMax-Forwards: 1", None),
            ("X: 1", None),
        ];
        for (fields, want) in rows {
            assert_eq!(max_forwards(&headers(fields)), want, "{fields}");
        }
    }

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
        assert_eq!(fields, headers("X-C: 3\nTrailer: x\nProxy-Status: kept"));
    }
}
