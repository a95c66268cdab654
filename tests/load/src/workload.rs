//! The stream of requests: what is asked for, in which region, at which edge, and how large the
//! answer must be.
//!
//! # Invariants
//! - The stream is a function of the options: it does not depend on answers, threads or time.

use std::fs::File;
use std::path::{Path, PathBuf};

use http::uri::PathAndQuery;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::error::LoadError;
use crate::options::{Listed, Objects, Options, Workload, ZIPF_REQUESTS};
use crate::place::{Spread, hash};
use crate::sizes::Sizes;
use crate::trace::{Reader, Row, TraceError, path_of};

/// One request to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    /// Its region's place in the options.
    pub(crate) region: usize,
    /// Its edge's place in the region.
    pub(crate) edge: usize,
    /// What is asked for.
    pub(crate) path: PathAndQuery,
    /// The length that the whole body must have, if known.
    pub(crate) size: Option<u64>,
    /// A number for the path, to count distinct ones.
    pub(crate) key: u64,
}

/// The stream of requests of a run.
pub(crate) struct Source {
    stream: Stream,
    spread: Spread,
    random: ChaCha8Rng,
    left: u64,
}

enum Stream {
    Numbered { ranks: Zipf<f64>, sizes: Option<Sizes> },
    Listed { ranks: Zipf<f64>, list: Vec<Listed> },
    Trace(Box<Reader<File>>),
}

impl Source {
    /// The stream of a run. A trace must have been [surveyed](survey): `requests` are sent at most.
    pub(crate) fn new(options: &Options, requests: u64) -> Result<Self, LoadError> {
        let spread = Spread::new(&options.regions, &options.shares)?;
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        let stream = match &options.workload {
            Workload::Trace { file } => Stream::Trace(Box::new(Reader::open(file)?)),
            Workload::Zipf { objects: Objects::Numbered { count, sizes }, alpha } => {
                Stream::Numbered { ranks: law(count.get(), alpha.get())?, sizes: sizes.clone() }
            }
            Workload::Zipf { objects: Objects::Listed(list), alpha } => {
                let mut list = list.clone();
                list.shuffle(&mut random);
                Stream::Listed { ranks: law(list.len() as u64, alpha.get())?, list }
            }
        };
        Ok(Self { stream, spread, random, left: requests })
    }

    pub(crate) fn regions(&self) -> usize {
        self.spread.regions()
    }

    /// The next request, or `None` at the end.
    pub(crate) fn next_job(&mut self) -> Result<Option<Job>, LoadError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let (path, size, region) = match &mut self.stream {
            Stream::Numbered { ranks, sizes } => {
                let number = rank(ranks, &mut self.random);
                let path = path_of(&number.to_string()).map_err(LoadError::options)?;
                let size = sizes.as_ref().map(|sizes| sizes.of(number));
                (path, size, self.spread.at(self.random.random()))
            }
            Stream::Listed { ranks, list } => {
                let place = usize::try_from(rank(ranks, &mut self.random) - 1).unwrap_or_default();
                let Some(listed) = list.get(place) else { return Ok(None) };
                let Listed { path, size } = listed.clone();
                (path, size, self.spread.at(self.random.random()))
            }
            Stream::Trace(reader) => {
                let Some(row) = reader.next_row()? else { return Ok(None) };
                let region = region_of(&row, &self.spread, &mut self.random);
                let (path, size) = (row.path, row.size);
                (path, size, region.map_err(|rule| reader.broken(rule))?)
            }
        };
        let key = hash(path.as_str());
        Ok(Some(Job { region, edge: self.spread.edge(region, key), path, size, key }))
    }
}

fn region_of(row: &Row<'_>, spread: &Spread, random: &mut ChaCha8Rng) -> Result<usize, String> {
    match (row.region, row.client) {
        (Some(name), _) => spread.named(name),
        (None, Some(client)) => Ok(spread.of_client(client)),
        (None, None) => Ok(spread.at(random.random())),
    }
}

/// Reads a whole trace once and says how many of its requests a run will send: errors in its last
/// line are told before the first request is sent. Blocks on the disk.
pub(crate) fn survey(file: &Path, options: &Options) -> Result<u64, LoadError> {
    let spread = Spread::new(&options.regions, &options.shares)?;
    let most = options.requests.map_or(u64::MAX, std::num::NonZeroU64::get);
    let mut reader = Reader::open(file)?;
    let mut found = 0;
    while found < most {
        let Some(row) = reader.next_row()? else { break };
        let stranger = row.region.and_then(|name| spread.named(name).err());
        if let Some(rule) = stranger {
            return Err(reader.broken(rule).into());
        }
        found += 1;
    }
    if found == 0 {
        let rule = "the trace holds no request".to_owned();
        return Err(TraceError::Row { file: PathBuf::from(file), line: 1, rule }.into());
    }
    Ok(found)
}

/// How many requests a run by Zipf's law sends.
pub(crate) fn zipf_requests(options: &Options) -> u64 {
    options.requests.map_or(ZIPF_REQUESTS, std::num::NonZeroU64::get)
}

/// Zipf's law over `1..=objects`, sampled in constant time (rejection-inversion).
fn law(objects: u64, alpha: f64) -> Result<Zipf<f64>, LoadError> {
    Zipf::new(objects as f64, alpha)
        .map_err(|error| LoadError::options(format!("{objects} objects, alpha {alpha}: {error}")))
}

#[expect(clippy::cast_possible_truncation, reason = "ranks are whole numbers from 1 to 2^53")]
fn rank(ranks: &Zipf<f64>, random: &mut ChaCha8Rng) -> u64 {
    ranks.sample(random).max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::num::{NonZeroU32, NonZeroU64};
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::{Job, Source, law, rank, survey, zipf_requests};
    use crate::options::{EdgeTarget, Listed, Objects, Options, RegionTarget, Workload};
    use crate::spread::Shares;

    fn options(workload: Workload) -> Options {
        let region = |name: &str| RegionTarget {
            name: name.parse().unwrap(),
            edges: vec![EdgeTarget {
                name: format!("{name}-1").parse().unwrap(),
                url: "http://127.0.0.1:1".parse().unwrap(),
                admin: None,
            }],
        };
        Options {
            regions: vec![region("fra"), region("iad")],
            origins: Vec::new(),
            host: None,
            workload,
            requests: NonZeroU64::new(1_000),
            connections: NonZeroU32::MIN,
            shares: Shares::default(),
            seed: 7,
            timeout: Duration::from_secs(1),
        }
    }

    fn numbered(count: u64) -> Workload {
        let objects = Objects::Numbered { count: NonZeroU64::new(count).unwrap(), sizes: None };
        Workload::Zipf { objects, alpha: "0.9".parse().unwrap() }
    }

    fn all(options: &Options, requests: u64) -> Vec<Job> {
        let mut source = Source::new(options, requests).unwrap();
        std::iter::from_fn(|| source.next_job().unwrap()).collect()
    }

    /// Pearson's chi-square of the ranks drawn against the law: with a fixed seed this is one
    /// number per row, and it must lie below the value that chance exceeds once in 10,000.
    #[test]
    fn zipf_frequencies_follow_the_law() {
        const DRAWS: u32 = 200_000;
        for alpha in [0.0, 0.6, 0.9, 1.0, 1.2, 2.0] {
            let ranks = law(50, alpha).unwrap();
            let mut random = ChaCha8Rng::seed_from_u64(42);
            let mut found = [0_u32; 50];
            for _ in 0..DRAWS {
                found[usize::try_from(rank(&ranks, &mut random) - 1).unwrap()] += 1;
            }
            let weight = |at: usize| (at as f64 + 1.0).powf(-alpha);
            let sum: f64 = (0..50).map(weight).sum();
            let chi_square: f64 = found
                .iter()
                .enumerate()
                .map(|(at, count)| {
                    let expected = weight(at) / sum * f64::from(DRAWS);
                    (f64::from(*count) - expected).powi(2) / expected
                })
                .sum();
            // 49 degrees of freedom: 95.1 is the quantile of 0.9999.
            assert!(chi_square < 95.1, "alpha {alpha}: chi-square {chi_square}");
        }
    }

    #[test]
    fn equal_seeds_give_equal_streams_and_others_do_not() {
        let one = options(numbered(500));
        let other = Options { seed: 8, ..one.clone() };
        assert_eq!(zipf_requests(&one), 1_000);
        assert_eq!(all(&one, 1_000), all(&one, 1_000));
        assert_ne!(all(&one, 1_000), all(&other, 1_000));
        assert_eq!(all(&one, 1_000).len(), 1_000);
    }

    #[test]
    fn a_list_is_shuffled_by_the_seed_and_keeps_its_sizes() {
        let list: Vec<Listed> = (0..40)
            .map(|at| Listed { path: format!("/{at}").parse().unwrap(), size: Some(at) })
            .collect();
        let workload =
            Workload::Zipf { objects: Objects::Listed(list), alpha: "1.2".parse().unwrap() };
        let one = options(workload);
        let favourite = |seed: u64| {
            let mut counts = std::collections::HashMap::new();
            for job in all(&Options { seed, ..one.clone() }, 2_000) {
                assert_eq!(job.path.as_str(), format!("/{}", job.size.unwrap()));
                *counts.entry(job.path.to_string()).or_insert(0) += 1;
            }
            counts.into_iter().max_by_key(|(_, count)| *count).unwrap().0
        };
        let favourites: std::collections::HashSet<String> = (0..8).map(favourite).collect();
        assert!(favourites.len() > 4, "{favourites:?}");
    }

    fn trace(text: &str) -> (tempfile::NamedTempFile, Options) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let options = options(Workload::Trace { file: file.path().into() });
        (file, options)
    }

    #[test]
    fn a_trace_keeps_its_order_and_its_regions() {
        let (file, options) = trace("key,region,size\n/a,iad,1\n/b,fra,2\n3,iad,\n");
        assert_eq!(survey(file.path(), &options).unwrap(), 3);
        let found: Vec<_> = all(&options, 3)
            .into_iter()
            .map(|job| (job.region, job.path.to_string(), job.size))
            .collect();
        let want = [(1, "/a", Some(1)), (0, "/b", Some(2)), (1, "/o/3", None)];
        assert_eq!(found, want.map(|(region, path, size)| (region, path.to_owned(), size)));
    }

    #[test]
    fn a_client_of_a_trace_stays_in_its_region() {
        let rows: String = (0..100).map(|at| format!("{},{at}\n", at % 10)).collect();
        let (_file, options) = trace(&format!("client,key\n{rows}"));
        let jobs = all(&options, 100);
        for (at, job) in jobs.iter().enumerate() {
            assert_eq!(job.region, jobs[at % 10].region, "request {at}");
        }
        assert!(jobs.iter().any(|job| job.region == 0) && jobs.iter().any(|job| job.region == 1));
    }

    #[test]
    fn a_survey_finds_what_is_wrong_before_the_run() {
        let rows = [
            ("key,region\n1,fra\n2,sfo\n", ":3: region \"sfo\" is none of fra, iad"),
            ("key\n", ":1: the trace holds no request"),
            ("key\n1\n2\nx\n", ":4: key \"x\" must be a number or begin with '/'"),
        ];
        for (text, rule) in rows {
            let (file, options) = trace(text);
            let error = survey(file.path(), &options).unwrap_err().to_string();
            assert!(error.ends_with(rule), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_limit_stops_before_the_end_of_the_trace() {
        let (file, options) = trace("key\n1\n2\nx\n");
        let options = Options { requests: NonZeroU64::new(2), ..options };
        assert_eq!(survey(file.path(), &options).unwrap(), 2);
        assert_eq!(all(&options, 2).len(), 2);
    }
}
