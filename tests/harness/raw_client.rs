//! A connection over which a test says any bytes, and which reads answers by the letter.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster::address;
use crate::raw_origin::{chunks, fields};

/// How long an answer, or the end of a connection, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a server says nothing that has nothing to say.
const QUIET: Duration = Duration::from_millis(500);

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawAnswer {
    /// Its status.
    pub status: u16,
    /// Its head, with the empty line.
    pub head: String,
    /// Its body, without chunk framing.
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// The first value of a field.
    pub fn value(&self, name: &str) -> Option<&str> {
        fields(&self.head).find(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1)
    }

    /// Its body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What came next on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A whole answer.
    Answer(RawAnswer),
    /// The end of the connection, in good order or not, after these bytes that are no whole answer.
    End(Vec<u8>),
}

/// A raw connection.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    received: Vec<u8>,
}

impl RawClient {
    /// Connects to the server at `url`.
    pub async fn connect(url: &str) -> Self {
        let stream = TcpStream::connect(address(url)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new() }
    }

    /// Sends bytes; a server that has closed already may not take them.
    pub async fn send(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes).await);
    }

    /// Says that no more comes.
    pub async fn finish(&mut self) {
        drop(self.stream.shutdown().await);
    }

    /// Waits until the head of an answer is there, which [`Self::next`] then reads.
    pub async fn begun(&mut self) {
        let begun = async {
            while !self.received.windows(4).any(|four| four == b"\r\n\r\n") {
                let read = self.stream.read_buf(&mut self.received).await;
                assert!(matches!(read, Ok(1..)), "the connection ended before a head");
            }
        };
        timeout(PATIENCE, begun).await.expect("the head of an answer");
    }

    /// The next answer, to a request that may have a body in its answer, or the end.
    pub async fn next(&mut self) -> Next {
        self.next_to("GET").await
    }

    /// The next answer, to a request with `method`.
    pub async fn next_to(&mut self, method: &str) -> Next {
        timeout(PATIENCE, self.read(method)).await.unwrap_or_else(|_elapsed| {
            let so_far = String::from_utf8_lossy(&self.received);
            panic!("neither an answer nor an end within {PATIENCE:?}; so far: {so_far:?}")
        })
    }

    async fn read(&mut self, method: &str) -> Next {
        let mut ended = false;
        loop {
            if let Some((answer, rest)) = whole(&self.received, method, ended) {
                self.received = rest;
                if !(100..=199).contains(&answer.status) {
                    return Next::Answer(answer);
                }
                continue;
            }
            if ended {
                return Next::End(std::mem::take(&mut self.received));
            }
            ended = !matches!(self.stream.read_buf(&mut self.received).await, Ok(1..));
        }
    }

    /// All whole answers, until the connection ends or nothing more comes for a while: a server that
    /// was told of more than was said waits for it.
    pub async fn until_quiet(&mut self) -> Vec<RawAnswer> {
        let mut answers = Vec::new();
        while let Ok(Next::Answer(answer)) = timeout(QUIET, self.read("GET")).await {
            answers.push(answer);
        }
        answers
    }

    /// All answers until the connection ends, and what no answer is.
    pub async fn all(&mut self) -> (Vec<RawAnswer>, Vec<u8>) {
        let mut answers = Vec::new();
        loop {
            match self.next().await {
                Next::Answer(answer) => answers.push(answer),
                Next::End(rest) => return (answers, rest),
            }
        }
    }
}

/// The first whole answer in `bytes`, and what follows it.
fn whole(bytes: &[u8], method: &str, ended: bool) -> Option<(RawAnswer, Vec<u8>)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, after) = bytes.split_at(end + 4);
    let head = String::from_utf8_lossy(head).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let value =
        |wanted: &str| fields(&head).find(|f| f.0.eq_ignore_ascii_case(wanted)).map(|f| f.1);
    let is_bodiless = method == "HEAD" || matches!(status, 100..=199 | 204 | 304);
    let (body, rest) = if is_bodiless {
        (Vec::new(), after)
    } else if value("transfer-encoding").is_some() {
        chunks(after).unwrap_or_else(|why| panic!("{why} in an answer: {head}"))?
    } else if let Some(length) = value("content-length") {
        let (body, rest) = after.split_at_checked(length.parse().ok()?)?;
        (body.to_vec(), rest)
    } else if ended {
        (after.to_vec(), &[][..])
    } else {
        return None;
    };
    Some((RawAnswer { status, head: head.clone(), body }, rest.to_vec()))
}
