//! Hands the stream of requests to the connections of each region, in its order.
//!
//! # Invariants
//! - Every request is handed out once, and within a region in the order of the stream.
//! - At most [`READ_AHEAD`] requests per region wait: a slow region holds back the stream, and
//!   with it the others, rather than losing its place in the order.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::error::LoadError;
use crate::workload::{Job, Source};

/// How far the stream may be ahead of one region: enough that a region that is slower for a
/// moment stops nobody, little enough that regions stay at about the same place of a trace.
const READ_AHEAD: usize = 1_024;

/// The stream, shared by all connections.
pub(crate) struct Feed {
    state: Mutex<State>,
    /// Somebody who waited for room or for an end should look again.
    changed: Notify,
}

struct State {
    source: Source,
    waiting: Vec<VecDeque<Job>>,
    /// Read, and without a place: its region's queue is full.
    held: Option<Job>,
    end: End,
}

enum End {
    Ahead,
    Reached,
    Failed(Option<LoadError>),
}

enum Next {
    Job(Job),
    Nothing,
    /// Another region must take something first.
    Full,
}

impl Feed {
    pub(crate) fn new(source: Source) -> Self {
        let waiting = (0..source.regions()).map(|_| VecDeque::new()).collect();
        let state = State { source, waiting, held: None, end: End::Ahead };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// The next request of a region, or `None` when there will be none. Dropping the future loses
    /// nothing: a request leaves the stream at the moment it is returned.
    pub(crate) async fn next(&self, region: usize) -> Option<Job> {
        loop {
            let changed = self.changed.notified();
            let (next, wake) = self.state().next(region);
            if wake {
                self.changed.notify_waiters();
            }
            match next {
                Next::Job(job) => return Some(job),
                Next::Nothing => return None,
                Next::Full => changed.await,
            }
        }
    }

    /// Why the stream broke off, if it did.
    pub(crate) fn failure(&self) -> Option<LoadError> {
        match &mut self.state().end {
            End::Failed(error) => error.take(),
            End::Ahead | End::Reached => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked while holding it ends the run through its task.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What the region gets now, and whether others should look again.
    fn next(&mut self, region: usize) -> (Next, bool) {
        let Some(own) = self.waiting.get_mut(region) else { return (Next::Nothing, false) };
        if let Some(job) = own.pop_front() {
            return (Next::Job(job), own.len() + 1 == READ_AHEAD);
        }
        loop {
            let job = match self.held.take().map_or_else(|| self.read(), Some) {
                Some(job) if job.region == region => return (Next::Job(job), true),
                Some(job) => job,
                None => return (Next::Nothing, true),
            };
            match self.waiting.get_mut(job.region) {
                Some(queue) if queue.len() < READ_AHEAD => queue.push_back(job),
                _ => {
                    self.held = Some(job);
                    return (Next::Full, false);
                }
            }
        }
    }

    fn read(&mut self) -> Option<Job> {
        if !matches!(self.end, End::Ahead) {
            return None;
        }
        match self.source.next_job() {
            Ok(Some(job)) => return Some(job),
            Ok(None) => self.end = End::Reached,
            Err(error) => self.end = End::Failed(Some(error)),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Feed, READ_AHEAD};
    use crate::options::{EdgeTarget, Options, RegionTarget, Workload};
    use crate::spread::Shares;
    use crate::workload::Source;

    fn feed(rows: impl Iterator<Item = (&'static str, usize)>) -> Feed {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "region,key").unwrap();
        for (region, key) in rows {
            writeln!(file, "{region},{key}").unwrap();
        }
        let region = |name: &str| RegionTarget {
            name: name.parse().unwrap(),
            edges: vec![EdgeTarget {
                name: name.parse().unwrap(),
                url: "http://127.0.0.1:1".parse().unwrap(),
                admin: None,
            }],
        };
        let options = Options {
            regions: vec![region("fra"), region("iad")],
            origins: Vec::new(),
            host: None,
            workload: Workload::Trace { file: file.path().into() },
            requests: None,
            connections: NonZeroU32::MIN,
            shares: Shares::default(),
            seed: 0,
            timeout: Duration::from_secs(1),
        };
        Feed::new(Source::new(&options, u64::MAX).unwrap())
    }

    async fn drain(feed: &Feed, region: usize) -> Vec<String> {
        let mut found = Vec::new();
        while let Some(job) = feed.next(region).await {
            found.push(job.path.to_string());
        }
        found
    }

    #[tokio::test]
    async fn each_region_gets_its_requests_in_order() {
        let feed = feed((0..100).map(|at| (if at % 3 == 0 { "fra" } else { "iad" }, at)));
        let fra = drain(&feed, 0).await;
        let iad = drain(&feed, 1).await;
        let want = |keep: fn(&usize) -> bool| {
            (0..100).filter(keep).map(|at| format!("/o/{at}")).collect::<Vec<_>>()
        };
        assert_eq!(fra, want(|at| at % 3 == 0));
        assert_eq!(iad, want(|at| at % 3 != 0));
    }

    #[tokio::test]
    async fn a_region_that_takes_nothing_holds_the_stream_back_and_loses_nothing() {
        // More for iad than may wait, then one for fra behind it all.
        let rows = (0..READ_AHEAD + 50).map(|at| ("iad", at)).chain([("fra", 9_999)]);
        let feed = Arc::new(feed(rows));
        let mut tasks = tokio::task::JoinSet::new();
        let fra = Arc::clone(&feed);
        tasks.spawn(async move { drain(&fra, 0).await });
        tokio::task::yield_now().await; // on this one thread, fra now waits behind the full queue
        let iad = drain(&feed, 1).await;
        assert_eq!(iad.len(), READ_AHEAD + 50);
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), ["/o/9999"]);
    }

    #[tokio::test]
    async fn a_broken_row_ends_the_stream_and_is_told() {
        let feed = feed([("fra", 1), ("sfo", 2), ("fra", 3)].into_iter());
        assert_eq!(drain(&feed, 0).await, ["/o/1"]);
        assert!(drain(&feed, 1).await.is_empty());
        let failure = feed.failure().unwrap().to_string();
        assert!(failure.ends_with(":3: region \"sfo\" is none of fra, iad"), "{failure}");
    }
}
