//! A client that sees every byte, and how a connection ends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Beyond this a test has failed; nothing here takes a tenth of it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    ahead: Vec<u8>,
}

/// A response, or what came of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The only field of this name, if there is one.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().skip(1).filter_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        });
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is repeated in\n{}", self.head);
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The member `code` of a problem.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = timeout(DEADLINE, TcpStream::connect(address)).await.unwrap().unwrap();
        Self { stream, ahead: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request without a body; `fields` are whole lines.
    pub(crate) async fn ask(&mut self, method: &str, target: &str, fields: &[&str]) {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")).await;
    }

    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        self.exchange("GET", target, &[]).await
    }

    pub(crate) async fn exchange(&mut self, method: &str, target: &str, fields: &[&str]) -> Answer {
        self.ask(method, target, fields).await;
        self.answer(method).await
    }

    pub(crate) async fn send_json(&mut self, method: &str, target: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}");
        self.send(format!("{head}\r\n\r\n{body}")).await;
        self.answer(method).await
    }

    /// Posts `body`; `fields` are whole lines. The answer is still to be read.
    pub(crate) async fn post(&mut self, target: &str, fields: &[&str], body: &str) {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let head = format!("POST {target} HTTP/1.1\r\nHost: test\r\n{fields}");
        self.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
    }

    /// Reads one answer of exactly the length that it says.
    pub(crate) async fn answer(&mut self, method: &str) -> Answer {
        let mut answer = self.head().await;
        let bodiless = method == "HEAD" || answer.status == 304;
        let length = match answer.field("content-length") {
            Some(length) if !bodiless => length.parse().unwrap(),
            _ => 0,
        };
        while self.ahead.len() < length {
            assert_ne!(self.read().await.unwrap(), 0, "ended early: {answer:?}");
        }
        answer.body = self.ahead.drain(..length).collect();
        answer
    }

    /// Reads the head of an answer, and not its body.
    pub(crate) async fn head(&mut self) -> Answer {
        loop {
            if let Some(end) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8(self.ahead.drain(..end + 4).collect()).unwrap();
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Answer { status, head, body: Vec::new() };
            }
            assert_ne!(self.read().await.unwrap(), 0, "ended before an answer");
        }
    }

    /// Reads until the connection ends: what came, and how it ended.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, io::Result<()>) {
        loop {
            match self.read().await {
                Ok(0) => return (std::mem::take(&mut self.ahead), Ok(())),
                Ok(_) => {}
                Err(error) => return (std::mem::take(&mut self.ahead), Err(error)),
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        timeout(DEADLINE, self.stream.read_buf(&mut self.ahead)).await.expect("within the deadline")
    }
}
