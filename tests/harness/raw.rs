//! Bytes over a plain connection: what no HTTP library would send, and what came back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cluster::address;

/// How long an answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);

/// Sends `bytes` to the server at `url` and reads until it closes the connection, or until
/// `enough` says that what came is enough.
pub async fn exchange(url: &str, bytes: &[u8], enough: impl Fn(&str) -> bool) -> String {
    let stream = TcpStream::connect(address(url)).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let mut answer = Vec::new();
    let read = async {
        let mut part = [0; 4096];
        // A server that refuses may reset the connection while bytes are still on their way:
        // what it said before counts.
        while let Ok(length @ 1..) = from.read(&mut part).await {
            answer.extend_from_slice(part.get(..length).unwrap());
            if enough(&String::from_utf8_lossy(&answer)) {
                break;
            }
        }
    };
    let write = async {
        // It may stop reading in the middle, for the same reason.
        drop(to.write_all(bytes).await);
        drop(to.flush().await);
    };
    let both = async { tokio::join!(read, write) };
    timeout(ANSWER_PATIENCE, both).await.expect("the server answers or closes in time");
    String::from_utf8_lossy(&answer).into_owned()
}

/// An origin that answers every connection with `answer` and closes it, until the set is dropped.
pub async fn origin(answer: &'static [u8]) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (address, serving)
}

/// An origin that answers the first request of each connection with `answer`, takes a second one,
/// and closes the connection instead of answering it.
pub async fn fickle_origin(answer: &'static [u8]) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in [answer, b""] {
                let mut asked = Vec::new();
                while !is_whole_message(&String::from_utf8_lossy(&asked))
                    && stream.read_buf(&mut asked).await.unwrap() > 0
                {}
                stream.write_all(answer).await.unwrap();
            }
        }
    });
    (address, serving)
}

/// An origin that takes one request in chunks to its end, answers it with `answer`, and gives back
/// what it heard.
pub async fn hearing_origin(answer: &'static [u8]) -> (SocketAddr, JoinSet<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        // The last chunk, and the empty line behind the trailers.
        let is_whole = |heard: &[u8]| {
            let text = String::from_utf8_lossy(heard);
            text.rsplit_once("\r\n0\r\n").is_some_and(|(_, rest)| rest.ends_with("\r\n"))
                && text.ends_with("\r\n\r\n")
        };
        while !is_whole(&heard) && stream.read_buf(&mut heard).await.unwrap() > 0 {}
        stream.write_all(answer).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8_lossy(&heard).into_owned()
    });
    (address, serving)
}

/// The status of the first answer in `text`.
pub fn status(text: &str) -> u16 {
    let line = text.lines().next().unwrap_or_default();
    let code = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no status in {text:?}"))
}

/// Whether a whole message has come; without `Content-Length` it has no body.
fn is_whole_message(text: &str) -> bool {
    let has_length = text.to_ascii_lowercase().contains("\r\ncontent-length:");
    if has_length { is_whole(text) } else { text.contains("\r\n\r\n") }
}

/// Whether a whole answer with `Content-Length` has come.
pub fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| body.len() >= length)
}
