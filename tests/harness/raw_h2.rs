//! HTTP/2 frame by frame: fields that no library would send, and what becomes of their stream.
//!
//! Writes every field as a literal without Huffman or table (RFC 7541 §6.2.2), and of answers reads
//! only what the tests ask for: a status of the static table, data, resets.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster::address;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// What became of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered; a status that is not in the static table of HPACK shows as 0.
    Answered(u16, Vec<u8>),
    /// It was reset.
    Reset,
    /// The whole connection was ended.
    Ended,
}

/// A raw connection over HTTP/2.
#[derive(Debug)]
pub struct RawH2 {
    stream: TcpStream,
}

impl RawH2 {
    /// Connects with prior knowledge; `settings` are sent as they are (RFC 9113 §6.5.1).
    pub async fn connect(url: &str, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address(url)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(PREFACE).await.unwrap();
        let mut client = Self { stream };
        client.frame(SETTINGS, 0, 0, settings).await;
        client
    }

    /// Sends a frame; a server that has closed already may not take it.
    async fn frame(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = length.get(1..).unwrap().to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(id.to_be_bytes());
        bytes.extend(payload);
        drop(self.stream.write_all(&bytes).await);
    }

    /// Opens a stream with these fields, whatever they are. Names and values below 127 bytes.
    pub async fn open(&mut self, id: u32, fields: &[(&[u8], &[u8])], ends: bool) {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap());
                block.extend(*text);
            }
        }
        let flags = if ends { END_HEADERS | END_STREAM } else { END_HEADERS };
        self.frame(HEADERS, flags, id, &block).await;
    }

    /// Sends data on a stream.
    pub async fn data(&mut self, id: u32, bytes: &[u8], ends: bool) {
        self.frame(DATA, if ends { END_STREAM } else { 0 }, id, bytes).await;
    }

    /// Asks whether the other end is still there (RFC 9113 §6.7).
    pub async fn ping(&mut self) {
        self.frame(PING, 0, 0, &[0; 8]).await;
    }

    /// Waits for what becomes of a stream.
    pub async fn outcome(&mut self, id: u32) -> Outcome {
        timeout(PATIENCE, self.read(id)).await.expect("an answer, a reset or an end")
    }

    async fn read(&mut self, id: u32) -> Outcome {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let mut head = [0; 9];
            if self.stream.read_exact(&mut head).await.is_err() {
                return Outcome::Ended;
            }
            let [a, b, c, kind, flags, w, x, y, z] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            if self.stream.read_exact(&mut payload).await.is_err() {
                return Outcome::Ended;
            }
            let is_own = u32::from_be_bytes([w, x, y, z]) == id;
            match kind {
                SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]).await,
                GOAWAY if payload.get(4..8) != Some(&[0; 4]) => return Outcome::Ended,
                RST_STREAM if is_own => return Outcome::Reset,
                HEADERS if is_own => status = known(payload.first().copied().unwrap_or_default()),
                DATA if is_own => body.extend(payload),
                _ => {}
            }
            if is_own && matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return Outcome::Answered(status, body);
            }
        }
    }
}

/// The status of an indexed field (RFC 7541, Appendix A), or 0.
const fn known(byte: u8) -> u16 {
    match byte {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        _ => 0,
    }
}
