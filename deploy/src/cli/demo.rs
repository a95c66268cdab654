//! `meridian demo`: what may be written.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// `meridian demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each demo starts a small cluster of its own, tells what it does, shows a line for each second, and
ends with a verdict for each claim. Without a name: the list of demos.

Exit status: 0 all claims hold, 1 one does not, 2 wrong usage.

Examples:
  meridian demo outage
  meridian demo outage --dir .meridian           with the cluster that runs there
  meridian demo slow-origin --seconds 20 --report slow.html")]
pub(crate) struct DemoArgs {
    /// Which one
    #[arg(value_enum)]
    pub(crate) name: Option<DemoName>,
    /// The folder of a running `meridian up` to play with [default: a cluster of its own]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// How long each phase is watched; below 8, times are measured and not judged
    #[arg(long, value_name = "N", default_value = "10")]
    pub(crate) seconds: NonZeroU32,
    /// One JSON document instead of the live lines, which then go to standard error
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write a page with the timeline as a plot, complete in itself
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// The demos of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoName {
    /// The origin is gone: what is stored is served on, the rest fails fast
    Outage,
    /// The origin takes 30 s for everything: nobody else waits
    SlowOrigin,
    /// The origin comes and goes every few seconds: its breaker does not go along
    Flapping,
    /// Everything fails: attempts per miss without retry budget and breaker, and with
    RetryStorm,
    /// Hundreds ask for one cold object: one request for each edge goes to the origin
    Herd,
    /// Answers to orders get lost: one order with a key, several without
    LostReply,
    /// Not offered yet
    StalePurge,
    /// Not offered yet
    PartitionCp,
    /// Not offered yet
    PartitionAp,
    /// Not offered yet
    Release,
    /// Not offered yet
    ColdRegion,
}

impl DemoName {
    /// As it is written.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Outage => "outage",
            Self::SlowOrigin => "slow-origin",
            Self::Flapping => "flapping",
            Self::RetryStorm => "retry-storm",
            Self::Herd => "herd",
            Self::LostReply => "lost-reply",
            Self::StalePurge => "stale-purge",
            Self::PartitionCp => "partition-cp",
            Self::PartitionAp => "partition-ap",
            Self::Release => "release",
            Self::ColdRegion => "cold-region",
        }
    }
}
