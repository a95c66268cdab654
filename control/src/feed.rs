//! The streams to the edges: who is told what, in which order, and who has applied it.
//!
//! Answers nothing about who may listen: `api/feed.rs` does.
//!
//! # Invariants
//! - One task per stream writes in the order of the log, from where its edge is: nothing is left
//!   out, and a bookmark comes after everything before it.
//! - What waits for one edge is bounded in pieces and in time; an edge that is slower is told to
//!   come again and catches up by its cursor. It never holds another one up.
//! - An edge has one stream: a later one ends the earlier one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use meridian_config::control::Stream as Limits;
use meridian_config::units::NodeName;
use meridian_control_wire::cursor::{Cursor, Position};
use meridian_control_wire::frame::{Bye, ByeReason, Frame, Hello, Mode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::Body;
use crate::control_store::{ControlStore, Denied, Recent, Snapshot, Standing, is_site};
use crate::delivery::{Level, Member, Progress};
use crate::leases::Leases;
use crate::machine::frame_of;
use crate::metrics::ControlMetrics;
use crate::register::millis;
use crate::server::Busy;
use crate::world;

mod leasing;

/// Entries that are read from disk at once.
const PAGE: usize = 1_000;

/// How soon an edge may come again after a bye.
const RETRY: Duration = Duration::from_millis(50);

/// All streams of a replica.
#[derive(Debug)]
pub(crate) struct Hub {
    store: Arc<dyn ControlStore>,
    server: NodeName,
    limits: Limits,
    metrics: Arc<ControlMetrics>,
    streams: Mutex<BTreeMap<NodeName, oneshot::Sender<ByeReason>>>,
    progress: Mutex<Progress>,
    leases: Mutex<Leases>,
    /// Changes whenever an edge got further.
    moved: watch::Sender<u64>,
    tasks: TaskTracker,
    ending: CancellationToken,
}

impl Hub {
    pub(crate) fn new(
        store: Arc<dyn ControlStore>,
        server: NodeName,
        limits: Limits,
        lease: Duration,
        metrics: Arc<ControlMetrics>,
    ) -> Arc<Self> {
        let tracked = usize::try_from(limits.tracked.get()).unwrap_or(usize::MAX);
        Arc::new(Self {
            store,
            server,
            limits,
            metrics,
            streams: Mutex::default(),
            progress: Mutex::new(Progress::new(tracked)),
            leases: Mutex::new(Leases::new(lease)),
            moved: watch::Sender::new(0),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        })
    }

    /// Lets no stream go on.
    pub(crate) fn close(&self) {
        self.ending.cancel();
        self.tasks.close();
    }

    /// Waits until every stream has said good-bye.
    pub(crate) async fn ended(&self) {
        self.close();
        self.tasks.wait().await;
    }

    /// How far the edges are. Held for memory's time only, never across an await.
    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<NodeName, oneshot::Sender<ByeReason>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets an edge that starts anew, or is gone; ends its stream.
    pub(crate) fn forget(&self, edge: &str, reason: ByeReason) {
        self.progress().forget(edge);
        self.leases().forget(edge);
        let stream = self.streams().remove(edge);
        if stream.is_some_and(|stream| stream.send(reason).is_err()) {
            tracing::debug!(edge, "its stream has ended already");
        }
    }

    /// Notes that `edge` has applied everything up to `cursor`, if that is of this history.
    pub(crate) async fn acked(&self, edge: &NodeName, cursor: &Cursor) -> Result<bool, Denied> {
        let Standing::Known(seq) = self.store.standing(cursor).await? else { return Ok(false) };
        self.applied(edge, seq, world::now());
        Ok(true)
    }

    /// Notes that `edge` has applied everything up to the entry `seq`.
    pub(crate) fn applied(&self, edge: &NodeName, seq: u64, now: Instant) {
        self.progress().acked(edge, seq, now);
        self.moved.send_modify(|moves| *moves = moves.wrapping_add(1));
    }

    /// Where a stream begins for an edge that shows `cursor`.
    pub(crate) async fn start(&self, cursor: Option<Cursor>) -> Result<Start, Denied> {
        let Some(cursor) = cursor else { return Ok(Start::Empty) };
        Ok(match self.store.standing(&cursor).await? {
            Standing::Known(seq) => Start::After(seq),
            Standing::Foreign => Start::Foreign(cursor),
        })
    }

    /// Waits until the purge of the entry `seq` got as far as `level` asks for, or `deadline`.
    pub(crate) async fn reached(
        &self,
        level: &Level,
        seq: u64,
        members: impl Fn() -> Vec<Member>,
        patience: Duration,
    ) {
        let mut moved = self.moved.subscribe();
        let wait = async {
            loop {
                let members = members();
                if self.has_reached(level, seq, &members) {
                    return;
                }
                tokio::select! {
                    moved = moved.changed() => if moved.is_err() { return },
                    () = self.next_lapse(level, seq, &members) => {}
                }
            }
        };
        // Dropping it loses nothing: whoever asks looks at the progress itself.
        tokio::select! {
            () = wait => {}
            () = tokio::time::sleep(patience) => {}
            () = self.ending.cancelled() => {}
        }
    }

    /// Opens the stream of `edge`, which is at `from`.
    pub(crate) fn open(self: &Arc<Self>, edge: NodeName, from: Start, busy: Busy) -> Body {
        let queue = usize::try_from(self.limits.queue.get()).unwrap_or(usize::MAX);
        let (pieces, taken) = mpsc::channel(queue);
        let (end, ended) = oneshot::channel();
        let last = Arc::new(OnceLock::new());
        drop(self.streams().insert(edge.clone(), end)); // dropping the sender is word enough
        let at = self.store.state().last;
        let feeder = Feeder {
            hub: Arc::clone(self),
            edge,
            pieces,
            ended,
            at,
            told: None,
            spoke: world::now(),
        };
        let cell = Arc::clone(&last);
        self.tasks.spawn(async move {
            let gauge = feeder.hub.metrics.streams.clone();
            gauge.inc();
            feeder.run(from, cell).await;
            gauge.dec();
            drop(busy);
        });
        Body::Stream(taken, last)
    }

    fn hello(&self) -> Frame {
        let state = self.store.state();
        Frame::Hello(Hello {
            server: self.server.clone(),
            mode: Mode::Cp,
            incarnation: state.incarnation,
            low_water: Position::of(state.low_water),
            heartbeat_ms: millis(self.limits.heartbeat.get()),
        })
    }
}

/// Where a stream begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// The edge knows nothing and has nothing.
    Empty,
    /// It has everything up to this entry.
    After(u64),
    /// It has what is of another history.
    Foreign(Cursor),
}

/// One stream.
struct Feeder {
    hub: Arc<Hub>,
    edge: NodeName,
    pieces: mpsc::Sender<Bytes>,
    ended: oneshot::Receiver<ByeReason>,
    /// Everything up to this entry is in the stream, or need not be.
    at: u64,
    /// The last entry whose cursor was written.
    told: Option<u64>,
    /// When a piece was handed over last.
    spoke: Instant,
}

/// Why a stream ends: with a word, or because nobody listens any more.
type Ended = Option<ByeReason>;

impl Feeder {
    async fn run(mut self, from: Start, last: Arc<OnceLock<Bytes>>) {
        let Err(ended) = self.feed(from).await;
        if let Some(reason) = ended {
            self.hub.metrics.byes(reason);
            tracing::info!(edge = %self.edge, reason = reason.token(), "a stream ends");
            let bye = Bye {
                reason,
                retry_after_ms: millis(world::jittered(RETRY)),
                alternatives: Vec::new(),
            };
            drop(last.set(Frame::Bye(bye).to_bytes().into()));
        }
        // The cell goes before the channel closes: who reads the end of one finds the other whole.
        drop(last);
        drop(self.pieces);
    }

    async fn feed(&mut self, from: Start) -> Result<std::convert::Infallible, Ended> {
        let mut first = self.hub.hello().to_bytes();
        match from {
            Start::Empty => self.write_present(&mut first),
            Start::After(seq) => {
                // An edge moves its cursor only over what it has applied.
                self.hub.applied(&self.edge, seq, world::now());
                self.at = seq;
            }
            Start::Foreign(cursor) => {
                tracing::warn!(edge = %self.edge, "its cursor is of another history: it has to \
                    drop everything it stored");
                self.write_reset(&cursor, &mut first);
            }
        }
        self.put(first).await?;
        loop {
            match self.hub.store.recent(self.at) {
                Recent::Frames(frames, at) => {
                    self.put(frames.concat()).await?;
                    (self.at, self.told) = (at, Some(at));
                }
                Recent::Older => self.put_page().await?,
                Recent::UpToDate => self.idle().await?,
            }
        }
    }

    /// What an edge without a past needs: the sites, then the present.
    fn write_present(&self, out: &mut Vec<u8>) {
        // It begins at nothing until all of it is there.
        self.write_sites(&self.hub.store.cursor(0), out);
    }

    /// What an edge with a past of its own needs: to drop it, and the present.
    fn write_reset(&mut self, theirs: &Cursor, out: &mut Vec<u8>) {
        self.write_sites(theirs, out); // it stays where it is until all of it is there
        let cursor = self.hub.store.cursor(self.at);
        Frame::SnapBegin { cursor: cursor.clone(), purge_all: true }.write(out);
        Frame::SnapEnd { cursor }.write(out);
        self.told = Some(self.at);
    }

    fn write_sites(&self, cursor: &Cursor, out: &mut Vec<u8>) {
        for (key, value) in self.hub.store.sites(self.at) {
            debug_assert!(is_site(&key));
            Frame::Config { cursor: cursor.clone(), key, value }.write(out);
        }
    }

    /// Entries from the disk; or, if they are not there any more, what stands for them.
    async fn put_page(&mut self) -> Result<(), Ended> {
        let mut out = Vec::new();
        match self.hub.store.entries(self.at, PAGE).await {
            Ok(entries) => {
                let mut at = self.at;
                for entry in entries {
                    at = entry.seq;
                    let cursor = self.hub.store.cursor(at);
                    frame_of(entry, cursor).write(&mut out);
                }
                if at == self.at {
                    return Err(Some(ByeReason::Broken)); // there should be some
                }
                self.put(out).await?;
                (self.at, self.told) = (at, Some(at));
                Ok(())
            }
            Err(Denied::Compacted { .. }) => self.put_snapshot(out).await,
            Err(_) => Err(Some(ByeReason::Broken)),
        }
    }

    async fn put_snapshot(&mut self, mut out: Vec<u8>) -> Result<(), Ended> {
        let Snapshot { at, items } = self.hub.store.snapshot(self.at);
        let theirs = self.hub.store.cursor(self.at);
        self.at = at;
        self.write_sites(&theirs, &mut out);
        let cursor = self.hub.store.cursor(at);
        let purge_all = items.is_none();
        Frame::SnapBegin { cursor: cursor.clone(), purge_all }.write(&mut out);
        self.hub.metrics.snapshots.inc();
        for some in items.unwrap_or_default().chunks(PAGE) {
            for item in some {
                Frame::SnapItem(item.clone()).write(&mut out);
            }
            self.put(std::mem::take(&mut out)).await?;
        }
        Frame::SnapEnd { cursor }.write(&mut out);
        self.put(out).await?;
        self.told = Some(at);
        Ok(())
    }

    /// Waits for something to tell, and tells at each heartbeat that there is nothing.
    async fn idle(&mut self) -> Result<(), Ended> {
        let mut last = self.hub.store.last();
        if self.told != Some(self.at) {
            self.put_bookmark().await?;
        }
        let at = self.at;
        let heartbeat = self.hub.limits.heartbeat.get();
        let more = tokio::select! {
            more = tokio::time::timeout(heartbeat, last.wait_for(|last| *last > at)) => more.is_ok(),
            () = self.pieces.closed() => return Err(None),
            reason = &mut self.ended => return Err(Some(reason.unwrap_or(ByeReason::Replaced))),
            () = self.hub.ending.cancelled() => return Err(Some(ByeReason::Stopping)),
        };
        if !more {
            return self.put_bookmark().await;
        }
        // In a flood of changes every read costs the edge more than what it reads.
        let pause =
            self.hub.limits.gather.get().saturating_sub(world::now().duration_since(self.spoke));
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            reason = &mut self.ended => Err(Some(reason.unwrap_or(ByeReason::Replaced))),
            () = self.hub.ending.cancelled() => Err(Some(ByeReason::Stopping)),
        }
    }

    async fn put_bookmark(&mut self) -> Result<(), Ended> {
        let cursor = self.hub.store.cursor(self.at);
        self.put(Frame::Bookmark { cursor }.to_bytes()).await?;
        self.told = Some(self.at);
        Ok(())
    }

    /// Hands over a piece, as soon as there is room for it.
    async fn put(&mut self, bytes: Vec<u8>) -> Result<(), Ended> {
        if bytes.is_empty() {
            return Ok(());
        }
        let patience = self.hub.limits.patience.get();
        self.spoke = world::now();
        // A piece that is not handed over is lost with the stream; the edge's cursor stands before.
        tokio::select! {
            sent = tokio::time::timeout(patience, self.pieces.send(bytes.into())) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_gone)) => Err(None),
                Err(_elapsed) => Err(Some(ByeReason::Slow)),
            },
            reason = &mut self.ended => Err(Some(reason.unwrap_or(ByeReason::Replaced))),
            () = self.hub.ending.cancelled() => Err(Some(ByeReason::Stopping)),
        }
    }
}

#[cfg(test)]
mod tests;
