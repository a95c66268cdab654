//! An edge that follows the stream, of which every step is scripted.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use meridian_control_wire::frame::{Frame, FrameDecoder};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::kit::{Answer, FakeEdge, aside, ask};

const DEADLINE: Duration = Duration::from_secs(20);

/// An open stream.
pub(crate) struct Listening {
    body: Incoming,
    decoder: FrameDecoder,
    read: VecDeque<Frame>,
    _driver: AbortOnDropHandle<()>,
}

impl Listening {
    /// Opens the stream of `edge`, from `cursor` or from the present.
    pub(crate) async fn open(control: SocketAddr, edge: &FakeEdge, cursor: Option<&str>) -> Self {
        let stream = TcpStream::connect(control).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driver = aside(async move { drop(connection.await) });
        let mut request = http::Request::get(format!("/v1/edge/{}/stream", edge.name))
            .header("host", control.to_string())
            .header("authorization", format!("Bearer {}", edge.secret));
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let body = answer.into_body();
        let (decoder, read) = (FrameDecoder::default(), VecDeque::new());
        let mut listening = Self { body, decoder, read, _driver: driver };
        let hello = listening.next().await;
        assert!(matches!(hello, Some(Frame::Hello(_))), "{hello:?}");
        listening
    }

    /// The next frame; none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        while self.read.is_empty() {
            let piece = tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("a frame");
            let piece = piece?.ok()?.into_data().unwrap();
            self.read.extend(self.decoder.push(&piece).unwrap());
        }
        self.read.pop_front()
    }

    /// Frames up to the first bookmark, with its cursor; bookmarks are the ends of what is known.
    pub(crate) async fn until_bookmark(&mut self) -> (Vec<Frame>, String) {
        let mut frames = Vec::new();
        loop {
            match self.next().await.expect("a bookmark") {
                Frame::Bookmark { cursor } => return (frames, cursor.to_string()),
                frame => frames.push(frame),
            }
        }
    }

    /// The next frame that is no bookmark.
    pub(crate) async fn news(&mut self) -> Frame {
        loop {
            match self.next().await.expect("a frame") {
                Frame::Bookmark { .. } => {}
                frame => return frame,
            }
        }
    }

    /// The id of the next purge, and the cursor after it.
    pub(crate) async fn purge(&mut self) -> (String, String) {
        match self.news().await {
            Frame::Op { cursor, operation } => (operation.id, cursor.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

/// Says that `edge` has applied everything up to `cursor`.
pub(crate) async fn ack(control: SocketAddr, edge: &FakeEdge, cursor: &str) -> Answer {
    ask(control, "POST", &format!("/v1/edge/{}/ack", edge.name))
        .bearer(&edge.secret)
        .body(json!({"cursor": cursor, "epoch": 1, "applied_operations": 1}))
        .send()
        .await
}
