//! An origin that keeps exactly the bytes that it was sent, and answers byte for byte.
//!
//! It reads requests by the letter of RFC 9112: whatever it cannot read so, it keeps as
//! [`RawOrigin::malformed`] and closes the connection. An edge that sends it something that two
//! readers could take for different things is found out here.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRequest {
    /// The connection that it came over, from 0 on.
    pub connection: usize,
    /// Its place on that connection, from 0 on.
    pub nth: usize,
    /// Its head, with the empty line.
    pub head: String,
    /// Its body, without chunk framing.
    pub body: Vec<u8>,
}

impl RawRequest {
    /// Its method.
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// Its target.
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The values of a field, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        fields(&self.head).filter(|field| field.0.eq_ignore_ascii_case(name)).map(|f| f.1).collect()
    }
}

/// What the origin does once it has read a request.
#[derive(Debug, Clone)]
pub struct Bytes {
    bytes: Vec<u8>,
    closes: bool,
}

/// Answers with these bytes and keeps the connection.
pub fn keep(bytes: impl Into<Vec<u8>>) -> Bytes {
    Bytes { bytes: bytes.into(), closes: false }
}

/// Answers with these bytes and closes the connection.
pub fn close(bytes: impl Into<Vec<u8>>) -> Bytes {
    Bytes { bytes: bytes.into(), closes: true }
}

/// Answers 200 with `body`, its length, and `fields` (each with its CRLF).
pub fn plain(fields: &str, body: &str) -> Bytes {
    keep(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()))
}

type Answers = Arc<dyn Fn(&RawRequest) -> Bytes + Send + Sync>;

#[derive(Debug, Default)]
struct Log {
    connections: usize,
    requests: Vec<RawRequest>,
    malformed: Vec<String>,
}

/// An origin server on a free port of this machine; it ends when it is dropped.
#[derive(Debug)]
pub struct RawOrigin {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    _serving: JoinSet<()>,
}

impl RawOrigin {
    /// Starts an origin that answers each request as `answer` says.
    pub async fn start(answer: impl Fn(&RawRequest) -> Bytes + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Log::default()));
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::new(answer), Arc::clone(&log)));
        Self { address, log, _serving: serving }
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// All that it could read.
    pub fn requests(&self) -> Vec<RawRequest> {
        self.log.lock().unwrap().requests.clone()
    }

    /// The requests whose target begins with `start`.
    pub fn requests_for(&self, start: &str) -> Vec<RawRequest> {
        self.requests().into_iter().filter(|request| request.target().starts_with(start)).collect()
    }

    /// What it could not read.
    pub fn malformed(&self) -> Vec<String> {
        self.log.lock().unwrap().malformed.clone()
    }
}

async fn accept(listener: TcpListener, answer: Answers, log: Arc<Mutex<Log>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let number = {
            let mut log = log.lock().unwrap();
            log.connections += 1;
            log.connections - 1
        };
        let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
        connections.spawn(async move { serve(stream, number, &answer, &log).await });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, connection: usize, answer: &Answers, log: &Mutex<Log>) {
    let mut received = Vec::new();
    let mut nth = 0;
    loop {
        match read(&received) {
            Read::Whole { head, body, rest } => {
                let request = RawRequest { connection, nth, head, body };
                received = rest;
                nth += 1;
                log.lock().unwrap().requests.push(request.clone());
                let answer = answer(&request);
                if stream.write_all(&answer.bytes).await.is_err() || answer.closes {
                    drop(stream.shutdown().await);
                    return;
                }
            }
            Read::More => match stream.read_buf(&mut received).await {
                Ok(1..) => {}
                // A request that broke off is no request, and no mistake of the edge either.
                Ok(0) | Err(_) => return,
            },
            Read::Malformed(why) => {
                let text = format!("{why}: {:?}", String::from_utf8_lossy(&received));
                log.lock().unwrap().malformed.push(text);
                return;
            }
        }
    }
}

enum Read {
    Whole { head: String, body: Vec<u8>, rest: Vec<u8> },
    More,
    Malformed(&'static str),
}

/// The fields of a head.
pub(crate) fn fields(head: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = head.split("\r\n").skip(1).filter(|line| !line.is_empty());
    lines.filter_map(|line| line.split_once(':').map(|(name, value)| (name, value.trim())))
}

/// The first request in `bytes`, by the letter.
fn read(bytes: &[u8]) -> Read {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Read::More;
    };
    let (head, after) = bytes.split_at(end + 4);
    // Byte by byte: a value may hold any above ASCII (RFC 9110 §5.5).
    let head: String = head.iter().copied().map(char::from).collect();
    let head = head.as_str();
    if let Some(why) = broken_head(head) {
        return Read::Malformed(why);
    }
    let values = |wanted: &str| -> Vec<&str> {
        fields(head).filter(|field| field.0.eq_ignore_ascii_case(wanted)).map(|f| f.1).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let whole = |(body, rest): (Vec<u8>, &[u8])| Read::Whole {
        head: head.to_owned(),
        body,
        rest: rest.to_vec(),
    };
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => whole((Vec::new(), after)),
        ([length], []) => {
            let is_plain = length.bytes().all(|byte| byte.is_ascii_digit())
                && (*length == "0" || !length.starts_with('0'));
            match length.parse::<usize>() {
                Ok(length) if is_plain => match after.split_at_checked(length) {
                    Some((body, rest)) => whole((body.to_vec(), rest)),
                    None => Read::More,
                },
                Ok(_) | Err(_) => Read::Malformed("a length that is no plain number"),
            }
        }
        ([], ["chunked"]) => match chunks(after) {
            Ok(Some(found)) => whole(found),
            Ok(None) => Read::More,
            Err(why) => Read::Malformed(why),
        },
        _ => Read::Malformed("a framing that can be read in two ways"),
    }
}

/// What is wrong with a head, if anything: lines, request line, names, values.
fn broken_head(head: &str) -> Option<&'static str> {
    let text = head.strip_suffix("\r\n\r\n").unwrap_or(head);
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts.as_slice() else {
        return Some("a request line that is none");
    };
    let is_token = |text: &str| {
        let mark = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(mark)
    };
    if !is_token(method) || target.is_empty() || target.bytes().any(|b| b <= b' ' || b == 0x7f) {
        return Some("a method or a target that is none");
    }
    let is_sound = |line: &str| {
        let Some((name, value)) = line.split_once(':') else { return false };
        let is_value = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
        is_token(name) && value.bytes().all(is_value)
    };
    let hosts = fields(head).filter(|field| field.0.eq_ignore_ascii_case("host")).count();
    match (lines.all(is_sound), hosts) {
        (false, _) => Some("a field line that is none"),
        (true, 1) => None,
        (true, _) => Some("not exactly one Host"),
    }
}

/// A body, and the bytes that follow it.
type Unchunked<'a> = (Vec<u8>, &'a [u8]);

/// The body in chunks, and what follows it; `None`: more must come.
pub(crate) fn chunks(bytes: &[u8]) -> Result<Option<Unchunked<'_>>, &'static str> {
    let (mut body, mut rest) = (Vec::new(), bytes);
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            let is_long = rest.len() > 16 * 1024;
            return if is_long { Err("a chunk line without an end") } else { Ok(None) };
        };
        let (line, after) = rest.split_at(end);
        let after = after.get(2..).unwrap_or_default();
        let line = std::str::from_utf8(line).map_err(|_invalid| "a chunk line that is no text")?;
        let digits = !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = usize::from_str_radix(line, 16).ok().filter(|_| digits);
        let size = size.ok_or("a chunk size that is none")?;
        if size == 0 {
            let Some(end) = after.windows(2).position(|two| two == b"\r\n") else {
                return Ok(None);
            };
            let (trailer, rest) = after.split_at(end);
            let rest = rest.get(2..).unwrap_or_default();
            return if trailer.is_empty() { Ok(Some((body, rest))) } else { Err("a trailer") };
        }
        let Some((data, next)) = after.split_at_checked(size) else { return Ok(None) };
        body.extend_from_slice(data);
        match next.split_at_checked(2) {
            Some((b"\r\n", next)) => rest = next,
            Some(_) => return Err("a chunk longer than it says"),
            None => return Ok(None),
        }
    }
}
