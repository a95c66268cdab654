//! The whole run: look first, then ask, then work out what it was.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::HeaderValue;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Failure, open};
use crate::counts::{Count, Counter, Reading};
use crate::error::LoadError;
use crate::feed::Feed;
use crate::options::{Objects, Options, RegionTarget, Workload};
use crate::report::{CountedBy, EdgeFigures, Figures, RegionFigures, Report};
use crate::tally::Tally;
use crate::workload::{Source, survey, zipf_requests};

/// Hears how far a run is. Called from one task, about ten times a second.
pub trait Progress: Send + Sync {
    /// `done` requests of `total` have ended, `failed` of them badly.
    fn advance(&self, done: u64, failed: u64, total: u64);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn advance(&self, _done: u64, _failed: u64, _total: u64) {}
}

/// How often progress is told: smooth to the eye, nothing to the processor.
const PROGRESS_STEP: Duration = Duration::from_millis(100);

/// After the order to stop, requests in flight may take this long to end well.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// A connection that was refused is not tried again at once: an edge that is gone for a second
/// should cost its clients that second, not the rest of the workload.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// Runs the load and reports. When `stop` is cancelled it sends nothing more and reports what was
/// done by then. Errors are those that make a run impossible; single requests that fail are
/// counted in the report. Dropping the future ends everything at once.
pub async fn run(
    options: Options,
    progress: &dyn Progress,
    stop: CancellationToken,
) -> Result<Report, LoadError> {
    options.check()?;
    let options = Arc::new(options);
    let requests = requests(&options).await?;
    let feed = Arc::new(Feed::new(Source::new(&options, requests)?));
    let tallies = Tallies::new(&options.regions);
    for edge in options.regions.iter().flat_map(|region| &region.edges) {
        if let Err(source) = open(edge.url.address()).await {
            let (edge, url) = (edge.name.clone(), edge.url.clone());
            return Err(LoadError::Unreachable { edge, url, source });
        }
    }
    let counter = Counter::of(&options);
    let before = counter.read().await?;

    let started = Instant::now();
    let mut connections = connect(&options, &feed, &tallies, &stop)?;
    attend(&mut connections, &tallies, progress, requests, &stop).await?;
    let duration = started.elapsed();
    if let Some(error) = feed.failure() {
        return Err(error);
    }
    let counted = Counted::after(counter, before).await;
    Ok(report(&options, &tallies, counted, duration, stop.is_cancelled()))
}

/// How many requests there will be; reads a trace to its end, off the runtime's own threads.
async fn requests(options: &Arc<Options>) -> Result<u64, LoadError> {
    let Workload::Trace { file } = &options.workload else { return Ok(zipf_requests(options)) };
    let (file, options) = (file.clone(), Arc::clone(options));
    let surveyed = spawn_blocking(move || survey(&file, &options)).await;
    surveyed.map_err(LoadError::Panicked).flatten()
}

/// The tallies of all edges, by region and edge as in the options.
#[derive(Clone)]
struct Tallies(Arc<Vec<Vec<Mutex<Tally>>>>);

impl Tallies {
    fn new(regions: &[RegionTarget]) -> Self {
        let of =
            |region: &RegionTarget| region.edges.iter().map(|_| Mutex::new(Tally::new())).collect();
        Self(Arc::new(regions.iter().map(of).collect()))
    }

    /// Does something with the tally of one edge; the lock is held no longer than that.
    fn with<T>(&self, region: usize, edge: usize, act: impl FnOnce(&mut Tally) -> T) -> Option<T> {
        let tally = self.0.get(region)?.get(edge)?;
        Some(act(&mut tally.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Requests ended, and those that ended badly.
    fn so_far(&self) -> (u64, u64) {
        let all = self.0.iter().flatten().map(|tally| {
            let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            (tally.requests, tally.failed())
        });
        all.fold((0, 0), |(done, failed), (requests, bad)| (done + requests, failed + bad))
    }
}

/// Starts the connections of every region, each a task of its own.
fn connect(
    options: &Options,
    feed: &Arc<Feed>,
    tallies: &Tallies,
    stop: &CancellationToken,
) -> Result<JoinSet<()>, LoadError> {
    let mut connections = JoinSet::new();
    for (at, region) in options.regions.iter().enumerate() {
        for _ in 0..options.connections.get() {
            let clients: Result<Vec<Client>, LoadError> = region
                .edges
                .iter()
                .map(|edge| {
                    let host = options.host.as_deref().unwrap_or_else(|| edge.url.address());
                    let host = HeaderValue::try_from(host).map_err(|error| {
                        LoadError::options(format!("host {host:?} cannot be sent: {error}"))
                    })?;
                    Ok(Client::new(&edge.url, host, options.timeout))
                })
                .collect();
            let (feed, tallies) = (Arc::clone(feed), tallies.clone());
            connections.spawn(ask(at, clients?, feed, tallies, stop.clone()));
        }
    }
    Ok(connections)
}

/// One connection of a region (one to each of its edges): a request after the other.
async fn ask(
    region: usize,
    mut clients: Vec<Client>,
    feed: Arc<Feed>,
    tallies: Tallies,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let next = stop.run_until_cancelled(feed.next(region)).await;
        let Some(job) = next.flatten() else { return };
        let Some(client) = clients.get_mut(job.edge) else { return };
        let sent = Instant::now();
        let outcome = client.get(&job.path).await;
        let took = sent.elapsed();
        let refused = matches!(outcome, Err(Failure::Connect(_)));
        tallies.with(region, job.edge, |tally| tally.record(&job, took, outcome));
        if refused && timeout(REFUSED_PAUSE, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}

/// Tells progress until all connections are done; after the order to stop, waits for what is in
/// flight no longer than [`STOP_GRACE`].
async fn attend(
    connections: &mut JoinSet<()>,
    tallies: &Tallies,
    progress: &dyn Progress,
    total: u64,
    stop: &CancellationToken,
) -> Result<(), LoadError> {
    let mut pace = interval(PROGRESS_STEP);
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let tell = || {
        let (done, failed) = tallies.so_far();
        progress.advance(done, failed, total);
    };
    loop {
        tokio::select! { // dropping any of these loses nothing
            ended = connections.join_next() => match ended {
                Some(ended) => ended.map_err(LoadError::Panicked)?,
                None => break,
            },
            _ = pace.tick() => tell(),
            () = stop.cancelled() => {
                let rest = async { while connections.join_next().await.is_some() {} };
                if timeout(STOP_GRACE, rest).await.is_err() {
                    connections.shutdown().await;
                }
                break;
            }
        }
    }
    tell();
    Ok(())
}

/// What was counted upstream during the run, if it was.
struct Counted {
    by: CountedBy,
    readings: Option<(Reading, Reading)>,
    notes: Vec<String>,
}

impl Counted {
    async fn after(counter: Counter, before: Reading) -> Self {
        let by = match counter {
            Counter::Origins(_) => CountedBy::Origin,
            Counter::Edges(_) => CountedBy::Edges,
            Counter::Nobody => CountedBy::Nobody,
        };
        let mut notes = Vec::new();
        let readings = match (by, counter.read_settled().await) {
            (CountedBy::Nobody, _) => None,
            (_, Ok(after)) => Some((before, after)),
            (_, Err(error)) => {
                notes.push(format!("hit ratios are not measured: {error}"));
                None
            }
        };
        Self { by, readings, notes }
    }

    fn of(&self, edge: &str) -> Option<Count> {
        let (before, after) = self.readings.as_ref()?;
        after.since(before, edge)
    }

    fn others(&self, edges: &[&str]) -> u64 {
        let readings = self.readings.as_ref();
        readings.map_or(0, |(before, after)| after.others_since(before, edges))
    }
}

fn report(
    options: &Options,
    tallies: &Tallies,
    counted: Counted,
    duration: Duration,
    stopped: bool,
) -> Report {
    let seconds = duration.as_secs_f64();
    let mut total = Sum::new();
    let mut regions = Vec::new();
    for (at, region) in options.regions.iter().enumerate() {
        let mut sum = Sum::new();
        let mut edges = Vec::new();
        for (place, edge) in region.edges.iter().enumerate() {
            let origin = counted.of(edge.name.as_str());
            tallies.with(at, place, |tally| {
                let distinct = tally.asked.len() as u64;
                let figures = Figures::new(tally, distinct, origin, seconds);
                edges.push(EdgeFigures { edge: edge.name.clone(), figures });
                for sum in [&mut sum, &mut total] {
                    sum.add(tally, distinct, origin);
                }
            });
        }
        regions.push(RegionFigures {
            region: region.name.clone(),
            figures: sum.figures(seconds),
            edges,
        });
    }
    Report {
        version: 1,
        workload: describe(&options.workload),
        seed: options.seed,
        connections: NonZeroU32::get(options.connections),
        stopped,
        duration_seconds: seconds,
        counted_by: counted.by,
        notes: notes(options, counted, &total),
        total: total.figures(seconds),
        regions,
    }
}

/// Several edges together.
struct Sum {
    tally: Tally,
    distinct: u64,
    /// Absent as soon as one of them was not counted.
    origin: Option<Count>,
}

impl Sum {
    fn new() -> Self {
        Self { tally: Tally::new(), distinct: 0, origin: Some(Count::default()) }
    }

    fn add(&mut self, tally: &Tally, distinct: u64, origin: Option<Count>) {
        self.tally.add(tally);
        self.distinct += distinct;
        self.origin = self.origin.zip(origin).map(|(sum, more)| Count {
            requests: sum.requests + more.requests,
            bytes: sum.bytes + more.bytes,
        });
    }

    fn figures(&self, seconds: f64) -> Figures {
        Figures::new(&self.tally, self.distinct, self.origin, seconds)
    }
}

/// What a reader of the figures must know.
fn notes(options: &Options, counted: Counted, total: &Sum) -> Vec<String> {
    let edges: Vec<&str> = options
        .regions
        .iter()
        .flat_map(|region| region.edges.iter().map(|edge| edge.name.as_str()))
        .collect();
    let others = counted.others(&edges);
    let lost = counted.readings.is_some() && total.origin.is_none();
    let mut notes = counted.notes;
    if lost {
        notes.push(
            "hit ratios are not measured everywhere: who counts was restarted during the run"
                .to_owned(),
        );
    }
    if others > 0 {
        notes.push(format!(
            "{others} more requests reached the origin by other ways than these edges"
        ));
    }
    if total.tally.failed() > 0 {
        notes.push("latencies are those of the requests that did not fail".to_owned());
    }
    let lost = total.tally.requests.saturating_sub(total.tally.answered);
    if lost > 0 {
        notes.push(format!(
            "{lost} requests had no answer: what they cost the origin lowers the measured ratios"
        ));
    }
    notes
}

fn describe(workload: &Workload) -> String {
    match workload {
        Workload::Trace { file } => format!("trace {}", file.display()),
        Workload::Zipf { objects: Objects::Listed(list), alpha } => {
            format!("zipf over {} listed objects, alpha {alpha}", list.len())
        }
        Workload::Zipf { objects: Objects::Numbered { count, sizes }, alpha } => {
            let sizes = sizes.as_ref().map(|sizes| format!(", sizes {sizes}")).unwrap_or_default();
            format!("zipf over {count} numbered objects{sizes}, alpha {alpha}")
        }
    }
}
