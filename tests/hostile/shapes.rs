//! Shapes of request smuggling over HTTP/1, and what an edge makes of each.
//!
//! `@` stands for the path of the row, which no other row has. In what is smuggled the path ends in
//! `/smuggled`, which no origin may ever see as a target.

/// What must come of a shape.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Want {
    /// One answer with this status, nothing at the origin, and the connection ends.
    Refused(u16),
    /// One answer with this status, nothing at the origin, and the connection goes on.
    Declined(u16),
    /// As refused, but the origin may have seen the head of a request that never became whole.
    Broken(&'static [u16]),
    /// These requests reach the origin: the rest of the target, and the body. The connection goes
    /// on.
    GoesOn(&'static [(&'static str, &'static str)]),
    /// The same, and the connection ends after the answer to the last of them.
    Ends(&'static [(&'static str, &'static str)]),
}

use Want::{Broken, Declined, Ends, GoesOn, Refused};

/// What it is, what is sent, what must come of it.
pub(crate) type Shape = (&'static str, &'static [u8], Want);

const EMPTY: &[(&str, &str)] = &[("", "")];

/// Where a message ends: `Content-Length`.
pub(crate) const LENGTHS: &[Shape] = &[
    ("a sound length", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
        GoesOn(&[("", "hello")])),
    ("two equal lengths", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        GoesOn(&[("", "hello")])),
    ("two lengths that differ", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        Refused(400)),
    ("a list of lengths", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello", Refused(400)),
    ("a list of lengths that differ", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 0, 5\r\n\r\nhello", Refused(400)),
    ("+5", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello", Refused(400)),
    ("-5", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\nhello", Refused(400)),
    ("0x5", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello", Refused(400)),
    ("5.0", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 5.0\r\n\r\nhello", Refused(400)),
    ("an inner space", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 1 5\r\n\r\nhello", Refused(400)),
    ("an empty length", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\nhello", Refused(400)),
    ("beyond 64 bits", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551621\r\n\r\nhello", Refused(400)),
    ("2^64 - 1", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551615\r\n\r\nhello", Refused(431)),
    ("leading zeros", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 00005\r\n\r\nhello", GoesOn(&[("", "hello")])),
    ("zeros only, on GET", b"GET @ HTTP/1.1\r\nHost: h\r\nContent-Length: 000\r\n\r\n", GoesOn(EMPTY)),
    ("CL.0: a body that a careless origin takes for a request",
        b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 44\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\nX: y\r\n\r\n",
        GoesOn(&[("", "GET /smuggled HTTP/1.1\r\nHost: evil\r\nX: y\r\n\r\n")])),
    ("GET with a body that looks like a request",
        b"GET @ HTTP/1.1\r\nHost: h\r\nContent-Length: 39\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n\r",
        GoesOn(&[("", "GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n\r")])),
    ("DELETE with a body that looks like a request",
        b"DELETE @ HTTP/1.1\r\nHost: h\r\nContent-Length: 39\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n\r",
        GoesOn(&[("", "GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n\r")])),
    ("TRACE with a body", b"TRACE @ HTTP/1.1\r\nHost: h\r\nContent-Length: 38\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n",
        Declined(405)),
    ("HTTP/1.0 with a length that keeps the connection",
        b"POST @ HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        GoesOn(&[("", "hello")])),
    ("HTTP/1.0 that does not", b"POST @ HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
        Ends(&[("", "hello")])),
    ("Connection names the length", b"POST @ HTTP/1.1\r\nHost: h\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello",
        GoesOn(&[("", "hello")])),
];

/// Where a message ends: `Transfer-Encoding`.
pub(crate) const CODINGS: &[Shape] = &[
    ("sound chunks", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        GoesOn(&[("", "hello")])),
    ("CL.TE", b"POST @ HTTP/1.1\r\nHost: h\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET @/smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
        Ends(EMPTY)),
    ("TE.CL", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Ends(&[("", "hello")])),
    ("Connection names the coding", b"POST @ HTTP/1.1\r\nHost: h\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        GoesOn(&[("", "hello")])),
    ("case and spaces around it", b"POST @ HTTP/1.1\r\nHost: h\r\ntRANSFER-eNCODING: \t CHUNKED \t\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        GoesOn(&[("", "hello")])),
    ("a space before the colon", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(400)),
    ("a tab before the colon", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\t: chunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(400)),
    ("a vertical tab", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\x0bchunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(400)),
    ("a form feed", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0cchunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(400)),
    ("a byte beyond ASCII", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \xffchunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(400)),
    ("xchunked", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(400)),
    ("quoted", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("with a parameter", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;q=1\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("chunked twice, in a list", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(400)),
    ("chunked twice, in lines", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(400)),
    ("chunked, identity", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(400)),
    ("identity, chunked", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(501)),
    ("identity, then chunked in a line of its own", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(501)),
    ("gzip, chunked: a coding that would be lost", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(501)),
    ("an empty coding", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \r\nContent-Length: 5\r\n\r\nhello", Refused(400)),
    ("an empty member", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: , chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("a folded line", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(400)),
    ("folded into another field", b"POST @ HTTP/1.1\r\nHost: h\r\nX: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(400)),
    ("HTTP/1.0 with chunks", b"POST @ HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Refused(400)),
    ("underscore for hyphen", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
        GoesOn(&[("", "hello")])),
];

/// Where a chunk ends.
pub(crate) const CHUNKS: &[Shape] = &[
    ("extensions end at the edge", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n",
        GoesOn(&[("", "hello")])),
    ("leading zeros and either case", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0000A\r\nhellohello\r\n00\r\n\r\n",
        GoesOn(&[("", "hellohello")])),
    ("spaces behind a size", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5 \t\r\nhello\r\n0\r\n\r\n",
        GoesOn(&[("", "hello")])),
    ("an extension with a bare LF", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n", Broken(&[400])),
    ("a size with a bare LF", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", Broken(&[400])),
    ("a size with a bare CR", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\n", Broken(&[400])),
    ("data with a bare LF behind it", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", Broken(&[400])),
    ("data with nothing behind it", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", Broken(&[400])),
    ("data longer than its size", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n", Broken(&[400])),
    ("a size of 2^64 and more", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", Broken(&[400])),
    ("+5", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", Broken(&[400])),
    ("-5", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", Broken(&[400])),
    ("0x5", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", Broken(&[400])),
    ("a space before the size", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", Broken(&[400])),
    ("a space within the size", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0 5\r\nhello\r\n0\r\n\r\n", Broken(&[400])),
    ("an empty size", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", Broken(&[400])),
    ("trailers that would be framing", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: content-length\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: x\r\nHost: evil\r\n\r\n",
        GoesOn(&[("", "hello")])),
    ("trailers with a bare LF", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\nZ: w\r\n\r\n",
        Broken(&[400])),
    ("an end with a bare LF", b"POST @ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\n", Broken(&[400])),
];

/// Where a line ends, what stands in it.
pub(crate) const LINES: &[Shape] = &[
    ("bare LF at the end of a field", b"POST @ HTTP/1.1\r\nHost: h\nContent-Length: 5\r\n\r\nhello", Refused(400)),
    ("bare LF at the end of the request line", b"GET @ HTTP/1.1\nHost: h\r\n\r\n", Refused(400)),
    ("bare LF at the end of the head", b"GET @ HTTP/1.1\r\nHost: h\r\n\n", Refused(400)),
    ("bare LF everywhere", b"GET @ HTTP/1.1\nHost: h\n\n", Refused(400)),
    ("a field hidden behind a bare LF", b"POST @ HTTP/1.1\r\nHost: h\r\nX: y\nTransfer-Encoding: chunked\r\nContent-Length: 51\r\n\r\n0\r\n\r\nGET @/smuggled HTTP/1.1\r\nHost: h\r\n\r\n", Refused(400)),
    ("bare CR in a value", b"GET @ HTTP/1.1\r\nHost: h\r\nX: a\rY: b\r\n\r\n", Refused(400)),
    ("bare CR at the end of the request line", b"GET @ HTTP/1.1\rHost: h\r\n\r\n", Refused(400)),
    ("two CRs", b"GET @ HTTP/1.1\r\nHost: h\r\r\n\r\n", Refused(400)),
    ("NUL in a value", b"GET @ HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", Refused(400)),
    ("BEL in a value", b"GET @ HTTP/1.1\r\nHost: h\r\nX: a\x07b\r\n\r\n", Refused(400)),
    ("DEL in a value", b"GET @ HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n", Refused(400)),
    ("NUL in a name", b"GET @ HTTP/1.1\r\nHost: h\r\nX\x00: a\r\n\r\n", Refused(400)),
    ("a space in a name", b"GET @ HTTP/1.1\r\nHost: h\r\nX Y: a\r\n\r\n", Refused(400)),
    ("an empty name", b"GET @ HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n", Refused(400)),
    ("a line without a colon", b"GET @ HTTP/1.1\r\nHost: h\r\nabc\r\n\r\n", Refused(400)),
    ("a space before the first field", b"GET @ HTTP/1.1\r\n Host: h\r\n\r\n", Refused(400)),
    ("a folded value", b"GET @ HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", Refused(400)),
    ("a folded value with a tab", b"GET @ HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n", Refused(400)),
    ("an empty line before the request", b"\r\nGET @ HTTP/1.1\r\nHost: h\r\n\r\n", GoesOn(EMPTY)),
    ("two spaces in the request line", b"GET  @ HTTP/1.1\r\nHost: h\r\n\r\n", Refused(400)),
    ("two spaces before the version", b"GET @  HTTP/1.1\r\nHost: h\r\n\r\n", Refused(400)),
    ("a tab in the request line", b"GET\t@\tHTTP/1.1\r\nHost: h\r\n\r\n", Refused(400)),
    ("a space behind the version", b"GET @ HTTP/1.1 \r\nHost: h\r\n\r\n", Refused(400)),
    ("a space within the target", b"GET @ /b HTTP/1.1\r\nHost: h\r\n\r\n", Refused(400)),
    ("a method with a colon", b"GET: @ HTTP/1.1\r\nHost: h\r\n\r\n", Refused(400)),
    ("no version: HTTP/0.9", b"GET @\r\n\r\n", Refused(400)),
    ("HTTP/1.2", b"GET @ HTTP/1.2\r\nHost: h\r\n\r\n", Refused(400)),
    ("http/1.1 in small letters", b"GET @ http/1.1\r\nHost: h\r\n\r\n", Refused(400)),
    ("HTTP/2.0 without its preface", b"GET @ HTTP/2.0\r\nHost: h\r\n\r\n", Refused(400)),
    ("HTTP/1.1 in the target", b"GET @ HTTP/1.1 HTTP/1.1\r\nHost: h\r\n\r\n", Refused(400)),
    ("a control in the target", b"GET @\x01 HTTP/1.1\r\nHost: h\r\n\r\n", Refused(400)),
    ("a byte beyond ASCII in the target", b"GET @\xff HTTP/1.1\r\nHost: h\r\n\r\n", Refused(400)),
];

/// Whom a message is for, and what follows it.
pub(crate) const PLACES: &[Shape] = &[
    ("no Host", b"GET @ HTTP/1.1\r\n\r\n", Refused(400)),
    ("two Hosts", b"GET @ HTTP/1.1\r\nHost: h\r\nHost: evil\r\n\r\n", Refused(400)),
    ("two equal Hosts", b"GET @ HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", Refused(400)),
    ("a list of hosts", b"GET @ HTTP/1.1\r\nHost: h, evil\r\n\r\n", Refused(400)),
    ("a host with a path", b"GET @ HTTP/1.1\r\nHost: h/evil\r\n\r\n", Refused(400)),
    ("a host with a name of its own", b"GET @ HTTP/1.1\r\nHost: h@evil\r\n\r\n", Refused(400)),
    ("a host with a space", b"GET @ HTTP/1.1\r\nHost: h evil\r\n\r\n", Refused(400)),
    ("a host with a port that is none", b"GET @ HTTP/1.1\r\nHost: h:80:80\r\n\r\n", Refused(400)),
    ("a host with a port of letters", b"GET @ HTTP/1.1\r\nHost: h:evil\r\n\r\n", Refused(400)),
    ("absolute form wins over Host", b"GET http://h@ HTTP/1.1\r\nHost: evil\r\n\r\n", GoesOn(EMPTY)),
    ("absolute form with a name", b"GET http://evil:x@h@ HTTP/1.1\r\nHost: h\r\n\r\n", Refused(400)),
    ("a foreign scheme", b"GET ftp://h@ HTTP/1.1\r\nHost: h\r\n\r\n", Refused(400)),
    ("a fragment ends at the edge", b"GET @#/smuggled HTTP/1.1\r\nHost: h\r\n\r\n", GoesOn(EMPTY)),
    ("two requests at once", b"GET @ HTTP/1.1\r\nHost: h\r\n\r\nPOST @/2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok",
        GoesOn(&[("", ""), ("/2", "ok")])),
    ("a line between two requests", b"GET @ HTTP/1.1\r\nHost: h\r\n\r\n\r\nGET @/2 HTTP/1.1\r\nHost: h\r\n\r\n",
        GoesOn(&[("", ""), ("/2", "")])),
    ("the first of two asks to close", b"GET @ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET @/smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
        Ends(EMPTY)),
    ("close, undone by a second line", b"GET @ HTTP/1.1\r\nHost: h\r\nConnection: close\r\nConnection: keep-alive\r\n\r\nGET @/smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
        Ends(EMPTY)),
];
