//! HTTP/1.1 or HTTP/2 with prior knowledge (RFC 9113 §3.3), by the first bytes.
//!
//! hyper-util has such a detection, but waits for the first bytes without any limit.

use std::io;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use crate::server::socket::Socket;
use crate::world::TcpStream;

/// The connection preface of HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Reads as much as it takes to tell, and gives it back within the socket. The caller bounds the
/// time. A connection that ends before is left to the parser of HTTP/1.1, which says why.
pub(super) async fn detect(mut stream: TcpStream) -> io::Result<(Protocol, Socket)> {
    let mut early = BytesMut::with_capacity(PREFACE.len());
    loop {
        let read = stream.read_buf(&mut early).await?;
        if let Some(protocol) = protocol(&early).or((read == 0).then_some(Protocol::Http1)) {
            return Ok((protocol, Socket::new(stream, early.freeze())));
        }
    }
}

/// What `early` begins, if it is enough to tell.
fn protocol(early: &[u8]) -> Option<Protocol> {
    if early.starts_with(PREFACE) {
        Some(Protocol::Http2)
    } else if PREFACE.starts_with(early) {
        None
    } else {
        Some(Protocol::Http1)
    }
}

#[cfg(test)]
mod tests {
    use super::{PREFACE, Protocol, protocol};

    #[test]
    fn the_first_bytes_tell_the_protocol() {
        let rows = [
            (&b""[..], None),
            (b"G", Some(Protocol::Http1)),
            (b"P", None),
            (b"PO", Some(Protocol::Http1)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", Some(Protocol::Http1)),
            (PREFACE, Some(Protocol::Http2)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Some(Protocol::Http2)),
        ];
        for (early, want) in rows {
            assert_eq!(protocol(early), want, "{early:?}");
        }
    }
}
