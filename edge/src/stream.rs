//! Follows the stream of a control replica: applies what it brings, in order, and tells how far.
//!
//! The place in the stream outlives connections and replicas: whoever is asked next is told the
//! cursor of what was applied last, and goes on from there. It does not outlive the process: the
//! store is empty then, and so the stream begins with the present.
//!
//! # Invariants
//! - A cursor is kept, and told, only after everything up to it has been applied.
//! - Until the present is reached for the first time, the edge may have missed a purge of what it
//!   fetched before: all that is dropped at that moment.
//! - The memory of a frame is bounded by the wire, that of cursors by [`crate::staleness`].

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt;
use meridian_control_wire::cursor::Cursor;
use meridian_control_wire::frame::{Frame, FrameDecoder};
use meridian_control_wire::operation::{Ack, Pong};
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::core::Edge;
use crate::line::{CALL, CallError, Line, Replica};
use crate::sites::SiteBook;

/// The first wait after a stream has ended; it doubles up to the greatest.
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// The greatest.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// A stream is silent after this many heartbeats, and no less than [`CALL`].
const HEARTBEATS: u32 = 4;
/// The greatest heartbeat that is believed.
const MAX_HEARTBEAT: Duration = Duration::from_secs(60);

/// The stream, and how far it has come.
pub(crate) struct Stream {
    edge: Arc<Edge>,
    book: SiteBook,
    progress: Mutex<Progress>,
    /// Between two acknowledgements; what comes meanwhile goes with the next.
    ack_pause: Duration,
}

#[derive(Default)]
struct Progress {
    /// Everything up to it is applied; `None`: the present has not been reached yet.
    cursor: Option<Cursor>,
    /// Configuration keys told since the last frame of another kind.
    told: BTreeSet<String>,
    heartbeat: Duration,
}

/// Who is asked, and as whom.
pub(crate) struct Access<'a> {
    pub(crate) replica: &'a Replica,
    /// The edge's id, in paths.
    pub(crate) id: &'a str,
    pub(crate) secret: &'a HeaderValue,
}

impl Stream {
    pub(crate) fn new(edge: Arc<Edge>, book: SiteBook, ack_pause: Duration) -> Self {
        Self { edge, book, progress: Mutex::default(), ack_pause }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replica has answered a ping that was sent at `asked`.
    pub(crate) fn answered(&self, pong: Pong, asked: Instant) {
        self.edge.staleness().answered(pong.cursor, asked);
    }

    /// Follows for ever, over one connection after the other. Safe to drop at any point.
    pub(crate) async fn follow(&self, access: &Access<'_>) -> Infallible {
        let (mut wait, mut told) = (FIRST_WAIT, false);
        loop {
            let (acks, seen) = watch::channel(None);
            let mut came = false;
            let ended = tokio::select! {
                ended = self.read(access, &acks, &mut came) => ended,
                never = self.acknowledge(access, seen) => match never {},
            };
            self.edge.counters.stream_open.store(0, Ordering::Relaxed);
            let rest = match ended {
                Ok(rest) => rest,
                Err(error) => {
                    if came {
                        warn!(replica = access.replica.name, %error, "lost the stream of purges");
                    } else if !told {
                        warn!(replica = access.replica.name, %error, "no stream of purges yet");
                    }
                    told = !came;
                    Duration::ZERO
                }
            };
            wait = if came { FIRST_WAIT } else { (wait * 2).min(LAST_WAIT) };
            // Full jitter: edges that lost one replica together do not come back together.
            let pause = rand::rng().random_range(Duration::ZERO..=wait);
            sleep(pause.max(rest.min(LAST_WAIT))).await;
        }
    }

    /// Reads one stream to its end. `Ok`: it said when to come again.
    async fn read(
        &self,
        access: &Access<'_>,
        acks: &watch::Sender<Option<Ack>>,
        came: &mut bool,
    ) -> Result<Duration, CallError> {
        let mut line = Line::open(access.replica).await?;
        let cursor = self.progress().cursor.clone();
        let path = format!("/v1/edge/{}/stream", access.id);
        let mut body = line.stream(&path, access.secret, cursor.as_ref()).await?;
        self.edge.counters.streams.fetch_add(1, Ordering::Relaxed);
        self.edge.counters.stream_open.store(1, Ordering::Relaxed);
        let mut decoder = FrameDecoder::default();
        loop {
            let silence = (self.progress().heartbeat * HEARTBEATS).max(CALL);
            let next = timeout(silence, body.frame());
            let Some(piece) = next.await.map_err(|_elapsed| CallError::Silent(silence))? else {
                return Err(CallError::Ended);
            };
            let Ok(bytes) = piece?.into_data() else { continue };
            let mut rest = None;
            for frame in decoder.push(&bytes)? {
                *came |= frame.cursor().is_some();
                rest = rest.or(self.apply(frame));
            }
            let cursor = self.progress().cursor.clone();
            acks.send_if_modified(|last| self.note(last, cursor));
            if let Some(rest) = rest {
                return Ok(rest);
            }
        }
    }

    /// Puts what is to be acknowledged into `last`, if there is something new.
    fn note(&self, last: &mut Option<Ack>, cursor: Option<Cursor>) -> bool {
        let Some(cursor) = cursor else { return false };
        if last.as_ref().is_some_and(|ack| ack.cursor == cursor) {
            return false;
        }
        let (epoch, applied_operations) = (self.edge.epochs.current(), self.edge.purges.applied());
        *last = Some(Ack { cursor, epoch, applied_operations });
        true
    }

    /// Applies a frame. `Some`: it was the last one, and says when to come again.
    fn apply(&self, frame: Frame) -> Option<Duration> {
        let edge = &self.edge;
        let mut progress = self.progress();
        match frame {
            Frame::Hello(hello) => {
                let heartbeat = Duration::from_millis(hello.heartbeat_ms);
                progress.heartbeat = heartbeat.min(MAX_HEARTBEAT);
                progress.told.clear();
            }
            Frame::SnapBegin { purge_all, .. } => {
                edge.purges.counters.snapshots.fetch_add(1, Ordering::Relaxed);
                if purge_all {
                    warn!(target: "event", "the purges missed cannot be told: dropping everything");
                    edge.purges.purge_all();
                }
            }
            Frame::SnapItem(item) => {
                edge.purges.purge(&edge.sites.load(), &item.selectors, item.soft);
            }
            Frame::SnapEnd { cursor } => {
                self.book.keep_only(edge, &std::mem::take(&mut progress.told));
                self.reached(&mut progress, cursor);
            }
            Frame::Op { cursor, operation } => {
                progress.told.clear();
                edge.purges.apply(&edge.sites.load(), &operation);
                self.advance(&mut progress, cursor);
            }
            Frame::Config { cursor, key, value } => {
                self.book.obey(edge, &key, value.as_ref());
                progress.told.insert(key);
                self.advance(&mut progress, cursor);
            }
            Frame::Bookmark { cursor } => {
                let told = std::mem::take(&mut progress.told);
                if progress.cursor.is_none() {
                    self.book.keep_only(edge, &told);
                }
                self.reached(&mut progress, cursor);
            }
            Frame::Bye(bye) => {
                info!(reason = bye.reason.token(), "the replica ends the stream of purges");
                return Some(Duration::from_millis(bye.retry_after_ms));
            }
        }
        None
    }

    /// Everything up to `cursor` is applied, unless it is only on its way to the present.
    fn advance(&self, progress: &mut Progress, cursor: Cursor) {
        if progress.cursor.is_some() {
            self.reached(progress, cursor);
        }
    }

    /// Everything up to `cursor` is applied.
    fn reached(&self, progress: &mut Progress, cursor: Cursor) {
        let is_first = progress.cursor.is_none();
        if is_first && self.edge.epochs.taken() > 0 {
            self.edge.purges.purge_all();
        }
        if is_first {
            self.edge.counters.attached.store(1, Ordering::Relaxed);
            info!(target: "event", "follows the stream of purges");
        }
        self.edge.staleness().passed(&cursor);
        progress.cursor = Some(cursor);
    }

    /// Tells how far the stream has come, as often as there is something to tell. What cannot be
    /// told is told with the next: an acknowledgement stands for all before it.
    async fn acknowledge(
        &self,
        access: &Access<'_>,
        mut seen: watch::Receiver<Option<Ack>>,
    ) -> Infallible {
        let path = format!("/v1/edge/{}/ack", access.id);
        let mut line = None;
        let mut wait = FIRST_WAIT;
        loop {
            if seen.changed().await.is_err() {
                return pending().await; // the stream has ended, and so will this
            }
            loop {
                let Some(ack) = seen.borrow_and_update().clone() else { break };
                match self.tell(access, &path, &mut line, &ack).await {
                    Ok(()) => {
                        self.edge.counters.acks.fetch_add(1, Ordering::Relaxed);
                        wait = FIRST_WAIT;
                        sleep(self.ack_pause).await;
                        break;
                    }
                    Err(error) => {
                        warn!(replica = access.replica.name, %error, "cannot acknowledge purges");
                        line = None;
                        wait = (wait * 2).min(LAST_WAIT);
                        let pause = rand::rng().random_range(Duration::ZERO..=wait);
                        sleep(pause).await;
                    }
                }
            }
        }
    }

    async fn tell(
        &self,
        access: &Access<'_>,
        path: &str,
        line: &mut Option<Line>,
        ack: &Ack,
    ) -> Result<(), CallError> {
        let text: Bytes = serde_json::to_vec(ack)
            .map_err(|error| CallError::Unreadable(error.to_string()))?
            .into();
        let open = match line {
            Some(open) => open,
            None => line.insert(Line::open(access.replica).await?),
        };
        let (status, body) = open.call(path, access.secret, text).await?;
        if status.is_success() {
            Ok(())
        } else {
            Err(CallError::Refused { status, body: crate::line::lossy(&body) })
        }
    }
}
