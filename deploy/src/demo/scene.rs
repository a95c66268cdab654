//! Clients that ask all the while, and whoever watches them and the edges, second by second.
//!
//! # Invariants
//! - Its clients have a thread and a runtime of their own: who watches, or lets others come besides,
//!   does not make them late. The machine does, which they share with the cluster.
//! - Each request of a phase is in exactly one [`Phase`], the one in which it came to its end.
//! - Whoever drops a scene ends its clients.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http::uri::PathAndQuery;
use meridian_tests_load::arrivals::{Arrivals, arrive, burst};
use meridian_tests_load::catalogue::list_origin;
use meridian_tests_load::error::LoadError;
use meridian_tests_load::options::Listed;
use meridian_tests_load::seen::{Board, Seen};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::demo::pulse::Pulse;
use crate::demo::stage::Stage;
use crate::demo::story::{Second, Story, milliseconds};
use crate::error::CommandError;
use crate::run::runtime;

/// Bodies above this are no small page: they would measure the machine.
const LARGEST: u64 = 64 << 10;

/// How many stored paths are asked for.
pub(crate) const STORED: usize = 40;

/// One in five requests is for a path that is not stored.
pub(crate) const UNIQUE_SHARE: f64 = 0.2;

/// What is asked for, of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) stored: Vec<PathAndQuery>,
    pub(crate) unique: PathAndQuery,
}

impl Paths {
    /// From what the origin serves: the same few files under many queries are many URLs.
    pub(crate) async fn of(stage: &Stage) -> Result<Self, CommandError> {
        let listed = list_origin(&stage.origin_admin()?).await?;
        let is_small = |listed: &&Listed| listed.size.is_none_or(|size| size <= LARGEST);
        let files: Vec<_> = listed.iter().filter(is_small).map(|listed| &listed.path).collect();
        let none = || CommandError::Failed("the origin lists no small file".to_owned());
        let unique = (*files.first().ok_or_else(none)?).clone();
        let stored = files.iter().cycle().take(STORED).enumerate().map(|(number, path)| {
            PathAndQuery::try_from(format!("{}?stored={number}", path.path()))
                .map_err(|error| CommandError::Failed(error.to_string()))
        });
        Ok(Self { stored: stored.collect::<Result<_, _>>()?, unique })
    }

    /// Asks every edge for every stored path, until each is stored everywhere.
    pub(crate) async fn warm(&self, stage: &Stage) -> Result<(), CommandError> {
        for edge in stage.edges()? {
            let timeout = Duration::from_secs(10);
            let asked =
                burst(&[edge], &self.stored, self.stored.len(), Duration::ZERO, timeout).await?;
            if asked.iter().any(|asked| asked.status != Some(200)) {
                let text = format!("a path could not be stored to begin with: {asked:?}");
                return Err(CommandError::Failed(text));
            }
        }
        Ok(())
    }
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) stage: &'a Stage,
    board: Arc<Board>,
    stop: CancellationToken,
    clients: oneshot::Receiver<Result<(), LoadError>>,
    /// Ends them at once.
    _guard: DropGuard,
    last: Pulse,
    next: Instant,
}

/// What was seen in a while.
#[derive(Debug, Default)]
pub(crate) struct Phase {
    pub(crate) seen: Seen,
    pub(crate) seconds: Vec<Second>,
    /// The last of what the edges said.
    pub(crate) end: Pulse,
}

impl Phase {
    /// The largest number of any second.
    pub(crate) fn most(&self, of: impl Fn(&Second) -> u64) -> f64 {
        self.seconds.iter().map(of).max().unwrap_or(0) as f64
    }
}

impl<'a> Scene<'a> {
    /// Lets clients begin.
    pub(crate) async fn begin(
        stage: &'a Stage,
        paths: &Paths,
        rate: f64,
        unique_share: f64,
        timeout: Duration,
    ) -> Result<Self, CommandError> {
        let arrivals = Arrivals {
            servers: stage.edges()?,
            stored: paths.stored.clone(),
            unique: paths.unique.clone(),
            unique_share,
            rate,
            most_in_flight: 4_000,
            timeout,
            seed: rand::random(),
        };
        let (board, stop) = (Arc::new(Board::default()), CancellationToken::new());
        let (told, stopped, gone) = (Arc::clone(&board), stop.clone(), CancellationToken::new());
        let (tell, clients) = oneshot::channel();
        let (own, dropped) = (runtime(1)?, gone.clone());
        thread::spawn(move || {
            let asking = arrive(&arrivals, &told, &stopped);
            let ended = own.block_on(dropped.run_until_cancelled(asking));
            own.shutdown_background();
            // Nobody listens any more only if the scene is gone.
            drop(ended.map(|ended| tell.send(ended)));
        });
        let (last, next) = (stage.pulse().await, Instant::now());
        Ok(Self { stage, board, stop, clients, _guard: gone.drop_guard(), last, next })
    }

    /// Watches for one second.
    async fn second(&mut self, story: &mut Story, phase: &mut Phase) -> Result<(), CommandError> {
        self.next = (self.next + Duration::from_secs(1)).max(Instant::now());
        sleep_until(self.next).await;
        let (pulse, seen) = (self.stage.pulse().await, self.board.take());
        let all = seen.all();
        let second = Second {
            at: story.now(),
            phase: story.marks.last().map(|mark| mark.phase.clone()).unwrap_or_default(),
            requests: all.requests,
            hits: all.hits,
            stale: all.stale,
            errors: all.errors,
            stored_errors: seen.stored.errors,
            p50_ms: all.latency(0.5).map(milliseconds),
            p99_ms: all.latency(0.99).map(milliseconds),
            unsent: seen.unsent,
            attempts: pulse.attempts.saturating_sub(self.last.attempts),
            breaker: pulse.breaker().to_owned(),
            in_flight: pulse.in_flight,
            queue: pulse.queue,
            connections: pulse.connections,
            clients: pulse.clients,
            tasks: pulse.tasks,
            files: pulse.files,
            memory_mib: pulse.memory_mib,
        };
        phase.seen.add(&seen);
        phase.seconds.push(second.clone());
        phase.end = pulse.clone();
        self.last = pulse;
        story.second(second)
    }

    /// Watches for so many seconds.
    pub(crate) async fn watch(
        &mut self,
        story: &mut Story,
        seconds: u32,
    ) -> Result<Phase, CommandError> {
        let mut phase = Phase::default();
        for _ in 0..seconds {
            self.second(story, &mut phase).await?;
        }
        Ok(phase)
    }

    /// Watches until the edges say what is waited for, or for `most` seconds; whether they do.
    pub(crate) async fn watch_until(
        &mut self,
        story: &mut Story,
        most: u32,
        come: impl Fn(&Phase) -> bool,
    ) -> Result<(Phase, bool), CommandError> {
        let mut phase = Phase::default();
        for _ in 0..most {
            self.second(story, &mut phase).await?;
            if come(&phase) {
                return Ok((phase, true));
            }
        }
        Ok((phase, false))
    }

    /// Lets the clients finish; what came since the last second.
    pub(crate) async fn end(self) -> Result<Seen, CommandError> {
        self.stop.cancel();
        let ended = self.clients.await;
        ended.map_err(|_gone| CommandError::Failed("the clients panicked".to_owned()))??;
        Ok(self.board.take())
    }
}
