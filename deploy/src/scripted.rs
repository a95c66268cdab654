//! For tests: a listener that answers as a test says, and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What is done with one request.
#[derive(Debug, Clone)]
pub(crate) enum Reaction {
    /// An answer with these header fields, each with its line end.
    Answer(u16, &'static str, Value),
    /// The connection ends without an answer.
    Lost,
}

/// 200 with a JSON body.
pub(crate) fn ok(body: Value) -> Reaction {
    Reaction::Answer(200, "", body)
}

/// A listener; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Scripted {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Scripted {
    /// Does the `reactions` one after the other, the last of them again and again.
    pub(crate) async fn start(reactions: impl IntoIterator<Item = Reaction>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, reactions.into_iter().collect(), Arc::clone(&asked)));
        Self { url, asked, _serving: serving }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Every request so far, head and body as they came.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    listener: TcpListener,
    mut reactions: VecDeque<Reaction>,
    asked: Arc<Mutex<Vec<String>>>,
) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read(&mut stream).await;
        asked.lock().unwrap().push(request);
        let reaction = match reactions.len() {
            1 => reactions.front().unwrap().clone(),
            _ => reactions.pop_front().unwrap(),
        };
        if let Reaction::Answer(status, fields, body) = reaction {
            let body = body.to_string();
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
            let answer = format!("{head}connection: close\r\n{fields}\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

/// One request with a `Content-Length`, or without a body.
async fn read(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        text.push_str(str::from_utf8(&bytes[..count]).unwrap());
        if count == 0 {
            return text;
        }
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return text;
        }
    }
}
