//! What a run is made of.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::uri::PathAndQuery;
use meridian_config::units::{NodeName, Region};

use crate::endpoint::Endpoint;
use crate::error::LoadError;
use crate::sizes::Sizes;
use crate::spread::Shares;

/// A run of the load generator.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who is asked. At least one region, each with at least one edge.
    pub regions: Vec<RegionTarget>,
    /// Admin listeners of the origins, asked before and after the run how often each edge came.
    /// Empty: the counters of the edges' own admin listeners are taken, where all have one.
    pub origins: Vec<Endpoint>,
    /// The host that names the site in each request. Default: the address of the edge.
    pub host: Option<String>,
    /// What is asked for.
    pub workload: Workload,
    /// How many requests. Default: [`ZIPF_REQUESTS`], or the whole trace.
    pub requests: Option<NonZeroU64>,
    /// Connections per region, each with one request at a time.
    pub connections: NonZeroU32,
    /// How the requests are spread over the regions, where the trace does not say it.
    pub shares: Shares,
    /// Decides every random choice.
    pub seed: u64,
    /// From sending a request to the last byte of its answer; then it counts as an error.
    pub timeout: Duration,
}

/// How many requests a run by Zipf's law sends unless told: a few seconds on a laptop.
pub const ZIPF_REQUESTS: u64 = 100_000;

/// One region.
#[derive(Debug, Clone)]
pub struct RegionTarget {
    /// Its label.
    pub name: Region,
    /// Its edges. The same path always goes to the same one, as the front door does it.
    pub edges: Vec<EdgeTarget>,
}

/// One edge, or any other HTTP cache.
#[derive(Debug, Clone)]
pub struct EdgeTarget {
    /// Its name: the origin counts by it.
    pub name: NodeName,
    /// Where clients come in.
    pub url: Endpoint,
    /// Its metrics, if it has some.
    pub admin: Option<Endpoint>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Workload {
    /// Objects whose popularity follows Zipf's law: the object of rank `r` is asked for in
    /// proportion to `1 / r^alpha`.
    Zipf {
        /// The objects, most popular first.
        objects: Objects,
        /// The exponent.
        alpha: Alpha,
    },
    /// The requests of a trace, in its order, at full speed: see [`crate::trace`].
    Trace {
        /// The CSV file.
        file: PathBuf,
    },
}

/// The objects of a run by Zipf's law.
#[derive(Debug, Clone)]
pub enum Objects {
    /// `/o/1` to `/o/N`, as an origin serves them from [`crate::catalogue::write_trace`]'s file.
    Numbered {
        /// How many there are.
        count: NonZeroU64,
        /// How large they are; with it, an answer of another size counts as an error.
        sizes: Option<Sizes>,
    },
    /// These, in an order that the seed decides (a list's own order, mostly that of the alphabet,
    /// says nothing about popularity).
    Listed(Vec<Listed>),
}

/// One object of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What is asked for.
    pub path: PathAndQuery,
    /// The size of the whole body, if known; an answer of another size counts as an error.
    pub size: Option<u64>,
}

/// The exponent of Zipf's law: 0 to 10. Web traffic has 0.6 to 1.2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alpha(f64);

impl Alpha {
    /// The exponent as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Default for Alpha {
    fn default() -> Self {
        Self(0.9) // the middle of what web traces show
    }
}

impl FromStr for Alpha {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<f64>() {
            Ok(alpha) if (0.0..=10.0).contains(&alpha) => Ok(Self(alpha)),
            _ => Err(format!("{text:?} is not an exponent between 0 and 10")),
        }
    }
}

impl fmt::Display for Alpha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Options {
    /// Refuses what contradicts itself, before anything is opened.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        if self.regions.is_empty() {
            return Err(LoadError::options("there is no region to ask"));
        }
        for region in &self.regions {
            if region.edges.is_empty() {
                return Err(LoadError::options(format!("region {} has no edge", region.name)));
            }
        }
        if self.timeout.is_zero() {
            return Err(LoadError::options("the timeout must be above 0s"));
        }
        if let Workload::Zipf { objects: Objects::Listed(list), .. } = &self.workload
            && list.is_empty()
        {
            return Err(LoadError::options("the list of paths is empty: nothing to ask for"));
        }
        self.check_names()
    }

    /// Names must tell edges apart: the origin's counts come by them.
    fn check_names(&self) -> Result<(), LoadError> {
        let mut edges: Vec<&str> = self
            .regions
            .iter()
            .flat_map(|region| region.edges.iter().map(|edge| edge.name.as_str()))
            .collect();
        edges.sort_unstable();
        if let Some([twice, _]) = edges.array_windows().find(|[a, b]| a == b) {
            return Err(LoadError::options(format!("two edges are named {twice}")));
        }
        Ok(())
    }
}
