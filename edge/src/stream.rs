//! Follows the stream of a control replica: applies what it brings, in order, and tells how far.
//!
//! The place in the stream outlives connections and replicas: whoever is asked next is told the
//! cursor of what was applied last, and goes on from there. It does not outlive the process: the
//! store is empty then, and so the stream begins with the present.
//!
//! A replica is left for another one when it fails, when it is silent, when it says so, and when it
//! does not bring what a ping has shown to be there: it may be cut off from the others and not know.
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
use http_body_util::BodyExt;
use meridian_config::units::NodeName;
use meridian_control_wire::cursor::Cursor;
use meridian_control_wire::frame::{Bye, ByeReason, Frame, FrameDecoder};
use meridian_control_wire::operation::{Ack, Pong};
use rand::RngExt;
use rand::seq::IndexedRandom;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::control_lag::Fresh;
use crate::core::Edge;
use crate::line::{CALL, CallError, Identity, Line, Replica};
use crate::ring::{Pauses, Ring};
use crate::sites::{Declared, SiteBook};

/// Between two streams.
const PAUSES: Pauses = Pauses { first: Duration::from_millis(10), last: Duration::from_secs(1) };
/// The longest that a replica's wish to be left alone is heeded.
const MAX_REST: Duration = Duration::from_secs(30);
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
    /// A stream that is behind for longer is given up.
    patience: Duration,
}

#[derive(Default)]
struct Progress {
    /// Everything up to it is applied; `None`: the present has not been reached yet.
    cursor: Option<Cursor>,
    /// Configuration keys told since the last frame of another kind.
    told: BTreeSet<String>,
    heartbeat: Duration,
    /// When the stream began, or brought something last.
    moved: Option<Instant>,
}

/// Who can be asked, and as whom.
pub(crate) struct Access<'a> {
    pub(crate) replicas: &'a [Replica],
    /// `None`: the edge is not registered now.
    pub(crate) identity: watch::Receiver<Option<Arc<Identity>>>,
    /// To be told when a replica says that the edge is not known as it is.
    pub(crate) doubt: &'a Notify,
}

/// One replica, asked as somebody.
struct Asking<'a> {
    replica: &'a Replica,
    identity: &'a Identity,
}

impl Stream {
    pub(crate) fn new(
        edge: Arc<Edge>,
        book: SiteBook,
        ack_pause: Duration,
        patience: Duration,
    ) -> Self {
        Self { edge, book, progress: Mutex::default(), ack_pause, patience }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replica has answered a ping that was sent at `asked`, in which the edge said `told` of
    /// its routes.
    pub(crate) fn answered(&self, pong: Pong, asked: Instant, told: Declared) {
        let lease = pong.lease.map(|lease| Duration::from_millis(lease.ms));
        self.edge.staleness().answered(pong.cursor, Fresh { at: asked, lease });
        self.book.declared(&self.edge, told);
    }

    /// What a ping may say of the routes of this edge.
    pub(crate) fn to_declare(&self) -> Declared {
        self.book.to_declare()
    }

    /// Everything up to here is applied; `None`: the present has not been reached yet.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.progress().cursor.clone()
    }

    /// Follows for ever, one replica after the other. Safe to drop at any point.
    pub(crate) async fn follow(&self, mut access: Access<'_>) -> Infallible {
        let mut ring = Ring::new(access.replicas.len(), PAUSES, &mut rand::rng());
        let mut told = false;
        loop {
            let known = access.identity.wait_for(Option::is_some).await.map(|known| known.clone());
            let (Ok(Some(identity)), Some(replica)) = (known, access.replicas.get(ring.at()))
            else {
                return pending().await; // the registrar has ended, and so will this
            };
            let asking = Asking { replica, identity: &identity };
            let (acks, seen) = watch::channel(None);
            let mut came = false;
            let ended = tokio::select! {
                ended = self.read(&asking, &acks, &mut came) => ended,
                never = self.acknowledge(&asking, seen) => match never {},
                _ = access.identity.changed() => continue, // as somebody else from now on
            };
            self.edge.counters.stream_open.store(0, Ordering::Relaxed);
            if came {
                ring.answered();
                told = false;
            }
            let pause = match ended {
                Ok(bye) => self.sent_away(&access, &mut ring, &bye),
                Err(error) => {
                    if came || !std::mem::replace(&mut told, true) {
                        let replica = replica.name.as_str();
                        warn!(replica, %error, came, "no stream of purges from this replica");
                    }
                    if error.doubts_identity() {
                        access.doubt.notify_one();
                    }
                    self.edge.counters.rotations.fetch_add(1, Ordering::Relaxed);
                    ring.failed(&mut rand::rng())
                }
            };
            sleep(pause).await;
        }
    }

    /// The replica has ended its stream in good order. After which pause who is asked next.
    fn sent_away(&self, access: &Access<'_>, ring: &mut Ring, bye: &Bye) -> Duration {
        info!(reason = bye.reason.token(), "the replica ends the stream of purges");
        let named = |name: &NodeName| {
            access.replicas.iter().position(|replica| replica.name == name.as_str())
        };
        let mut others: Vec<usize> = bye.alternatives.iter().filter_map(named).collect();
        let next = match bye.reason {
            // Nothing is wrong with the replica.
            ByeReason::Slow | ByeReason::Replaced | ByeReason::Unregistered => ring.at(),
            ByeReason::Stopping | ByeReason::Broken | ByeReason::NoQuorum | ByeReason::Other => {
                self.edge.counters.rotations.fetch_add(1, Ordering::Relaxed);
                others.retain(|other| *other != ring.at());
                others.choose(&mut rand::rng()).copied().unwrap_or_else(|| ring.next())
            }
        };
        if bye.reason == ByeReason::Unregistered {
            access.doubt.notify_one();
        }
        let asked = Duration::from_millis(bye.retry_after_ms).min(MAX_REST);
        // What it asks for concerns itself: another replica may be asked at any time until then,
        // and not by all of its edges at once.
        let rest = if next == ring.at() {
            asked
        } else {
            rand::rng().random_range(Duration::ZERO..=asked.min(PAUSES.last))
        };
        rest + ring.sent_away(next, &mut rand::rng())
    }

    /// Reads one stream to its end. `Ok`: it said when to come again.
    async fn read(
        &self,
        asking: &Asking<'_>,
        acks: &watch::Sender<Option<Ack>>,
        came: &mut bool,
    ) -> Result<Bye, CallError> {
        let Identity { id, secret, .. } = asking.identity;
        let mut line = Line::open(asking.replica).await?;
        let cursor = self.cursor();
        let mut body =
            line.stream(&format!("/v1/edge/{id}/stream"), secret, cursor.as_ref()).await?;
        self.edge.counters.streams.fetch_add(1, Ordering::Relaxed);
        self.edge.counters.stream_open.store(1, Ordering::Relaxed);
        self.progress().moved = Some(self.edge.clock.now().mono);
        let mut decoder = FrameDecoder::default();
        loop {
            let silence = (self.progress().heartbeat * HEARTBEATS).max(CALL);
            let next = tokio::select! {
                next = timeout(silence, body.frame()) => next,
                () = self.behind() => return Err(CallError::Behind(self.patience)),
            };
            let Some(piece) = next.map_err(|_elapsed| CallError::Silent(silence))? else {
                return Err(CallError::Ended);
            };
            let Ok(bytes) = piece?.into_data() else { continue };
            let mut bye = None;
            for frame in decoder.push(&bytes)? {
                *came |= frame.cursor().is_some();
                bye = bye.or(self.apply(frame));
            }
            let cursor = self.cursor();
            acks.send_if_modified(|last| self.note(last, cursor));
            if let Some(bye) = bye {
                return Ok(bye);
            }
        }
    }

    /// Waits until the stream has not moved for too long, though there is more to bring.
    async fn behind(&self) {
        loop {
            sleep(self.patience / 4).await;
            let now = self.edge.clock.now().mono;
            let moved = self.progress().moved;
            let missing = self.edge.staleness().missing_since();
            let since = missing.max(moved).filter(|_| missing.is_some());
            if since.is_some_and(|since| now.saturating_duration_since(since) > self.patience) {
                return;
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

    /// Applies a frame. `Some`: it was the last one.
    fn apply(&self, frame: Frame) -> Option<Bye> {
        let edge = &self.edge;
        let mut progress = self.progress();
        let is_news = match &frame {
            Frame::Hello(_) | Frame::Bye(_) => false,
            Frame::Bookmark { cursor } => progress.cursor.as_ref() != Some(cursor),
            Frame::SnapBegin { .. }
            | Frame::SnapItem(_)
            | Frame::SnapEnd { .. }
            | Frame::Op { .. }
            | Frame::Config { .. } => true,
        };
        if is_news {
            progress.moved = Some(edge.clock.now().mono);
        }
        match frame {
            Frame::Hello(hello) => {
                let heartbeat = Duration::from_millis(hello.heartbeat_ms);
                progress.heartbeat = heartbeat.min(MAX_HEARTBEAT);
                progress.told.clear();
            }
            Frame::SnapBegin { purge_all, cursor } => {
                edge.cursors.begin_snapshot(&cursor, edge.epochs.current(), purge_all);
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
                edge.cursors.announce(&cursor, edge.epochs.current());
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
            Frame::Bye(bye) => return Some(bye),
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
        if is_first {
            self.edge.cursors.announce(&cursor, self.edge.epochs.current());
        }
        if is_first && self.edge.epochs.taken() > 0 {
            self.edge.purges.purge_all();
        }
        if is_first {
            self.edge.counters.attached.store(1, Ordering::Relaxed);
            info!(target: "event", "follows the stream of purges");
        }
        self.edge.cursors.passed(&cursor, self.edge.epochs.current());
        self.edge.staleness().passed(&cursor);
        progress.cursor = Some(cursor);
    }

    /// Tells how far the stream has come, as often as there is something to tell. What cannot be
    /// told is told with the next: an acknowledgement stands for all before it.
    async fn acknowledge(
        &self,
        asking: &Asking<'_>,
        mut seen: watch::Receiver<Option<Ack>>,
    ) -> Infallible {
        let mut line = None;
        let mut wait = PAUSES.first;
        loop {
            if seen.changed().await.is_err() {
                return pending().await; // the stream has ended, and so will this
            }
            loop {
                let Some(ack) = seen.borrow_and_update().clone() else { break };
                match self.tell(asking, &mut line, &ack).await {
                    Ok(()) => {
                        self.edge.counters.acks.fetch_add(1, Ordering::Relaxed);
                        wait = PAUSES.first;
                        sleep(self.ack_pause).await;
                        break;
                    }
                    Err(error) => {
                        warn!(replica = asking.replica.name, %error, "cannot acknowledge purges");
                        line = None;
                        wait = (wait * 2).min(PAUSES.last);
                        let pause = rand::rng().random_range(Duration::ZERO..=wait);
                        sleep(pause).await;
                    }
                }
            }
        }
    }

    async fn tell(
        &self,
        asking: &Asking<'_>,
        line: &mut Option<Line>,
        ack: &Ack,
    ) -> Result<(), CallError> {
        let text: Bytes = serde_json::to_vec(ack)
            .map_err(|error| CallError::Unreadable(error.to_string()))?
            .into();
        let open = match line {
            Some(open) => open,
            None => line.insert(Line::open(asking.replica).await?),
        };
        let Identity { id, secret, .. } = asking.identity;
        let (status, body) = open.call(&format!("/v1/edge/{id}/ack"), secret, text).await?;
        if status.is_success() {
            Ok(())
        } else {
            Err(CallError::Refused { status, body: crate::line::lossy(&body) })
        }
    }
}
