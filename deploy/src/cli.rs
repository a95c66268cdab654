//! The command line: what may be written, with help. What it means is each command's own.
//!
//! Commands of the contract that are not built yet stand here too, so that they answer "not
//! offered yet" and not "unknown".

pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod later;
pub(crate) mod net;
pub(crate) mod purge;
pub(crate) mod target;

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use meridian_config::shared::Level;
use meridian_config::units::{ByteSize, HumanDuration, Region};
use meridian_tests_load::options::Alpha;
use meridian_tests_load::sizes::Sizes;
use meridian_tests_load::spread::Shares;

use crate::cli::config::ConfigArgs;
use crate::cli::demo::DemoArgs;
use crate::cli::later::LaterArgs;
use crate::cli::net::NetArgs;
use crate::cli::purge::PurgeArgs;
use crate::cli::target::TargetArgs;

/// A whole CDN in one binary: edges that cache, an origin behind them, a control plane that steers.
#[derive(Debug, Parser)]
#[command(name = "meridian", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Start here:
  meridian up                      a CDN on this machine, with a sample site
  meridian up ./public             the same with a site of your own
  meridian up http://127.0.0.1:8000   in front of any web server
  meridian status                  from another terminal

Exit status: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What is asked for.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole CDN here: origin, edges in several regions, control, front door
    Up(Box<UpArgs>),
    /// Run one edge in the foreground
    Edge(NodeArgs),
    /// Run one origin in the foreground
    Origin(NodeArgs),
    /// Run one control replica in the foreground
    Control(NodeArgs),
    /// Run one front door in the foreground
    Front(NodeArgs),
    /// Show nodes, regions, health, hit ratios and stores
    Status(StatusArgs),
    /// Say what an edge has stored for a URL and what the next request gets
    Explain(ExplainArgs),
    /// Drain a region, or take it back
    Region(RegionArgs),
    /// Validate configuration files without starting anything
    Check(CheckArgs),
    /// Measure: ask the edges, compare with what the origin saw
    Load(Box<LoadArgs>),
    /// Not offered yet: release a site with versioned URLs
    Publish(LaterArgs),
    /// Not offered yet: return to an earlier release
    Rollback(LaterArgs),
    /// Purge by URL, prefix, tag, host or everything, at every edge
    Purge(Box<PurgeArgs>),
    /// Not offered yet: push content to edges before the first request
    Seed(LaterArgs),
    /// Read and write configuration registers; sites among them are obeyed at once
    Config(ConfigArgs),
    /// Show, cut, delay and heal the links between the nodes of a running `up`
    Net(NetArgs),
    /// Narrated scenarios with a verdict: an origin that fails, and what clients notice
    Demo(DemoArgs),
}

/// `meridian up`.
#[derive(Debug, Args)]
#[command(after_help = "\
Ports, in this order from --port on: front door, its admin listener, control-1, origin-1, its
admin listener, then for each edge its listener and its admin listener, then what `meridian net`
talks to. Only the front door insists on its port: another node whose port is taken gets a free one.

Files in --dir: cluster.json (addresses; there only while all is ready), token (all scopes),
nodes/NAME.toml (what each node runs with), log/NAME.log, data/.

Examples:
  meridian up                                    a built-in sample site, http://127.0.0.1:8080/
  meridian up ./public --regions fra,sin --edges 2
  meridian up http://127.0.0.1:8000 --profile rfc
  meridian up --trace trace.csv --capacity 2GiB  for `meridian load --trace trace.csv`
  meridian up --port 0 --dir /tmp/other          a second one beside it

Ctrl-C drains all nodes and leaves no process; a second Ctrl-C ends them at once.")]
pub(crate) struct UpArgs {
    /// A folder, or the http:// URL of a web server to stand in front of [default: a sample site]
    pub(crate) site: Option<String>,
    /// Where the edges stand: codes of the built-in table of places
    #[arg(long, value_name = "CODES", value_delimiter = ',', default_value = "iad,fra,nrt")]
    pub(crate) regions: Vec<String>,
    /// Edges in each region
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) edges: NonZeroU16,
    /// Control replicas (above 1: not offered yet)
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) replicas: NonZeroU16,
    /// What a minority of the replicas does: refuse, or answer (ap: not offered yet)
    #[arg(long, value_enum, default_value = "cp")]
    pub(crate) consistency: ConsistencyArg,
    /// The front door's port; the others follow, or are free ones if taken. 0: all are free ones
    #[arg(long, default_value = "8080")]
    pub(crate) port: u16,
    /// Where data, logs and cluster.json are
    #[arg(long, env = "MERIDIAN_DIR", default_value = ".meridian")]
    pub(crate) dir: PathBuf,
    /// Start empty, whatever an earlier run left in the folder
    #[arg(long)]
    pub(crate) fresh: bool,
    /// The defaults of a careful CDN, or RFC 9111 to the letter
    #[arg(long, value_enum, default_value = "cdn")]
    pub(crate) profile: ProfileArg,
    /// Serve the synthetic objects of a trace (CSV with `key` and `size`) instead of a site
    #[arg(long, value_name = "FILE", conflicts_with = "site")]
    pub(crate) trace: Option<PathBuf>,
    /// One region whose edges the others ask instead of the origin
    #[arg(long, value_name = "REGION")]
    pub(crate) shield: Option<String>,
    /// Delays between regions as in the real world: half the round trip each way
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) rtt: RttArg,
    /// No link proxies between the nodes: nothing can be cut or delayed, nothing costs extra
    #[arg(long)]
    pub(crate) direct: bool,
    /// Memory of each edge for stored responses [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) capacity: Option<ByteSize>,
    /// How every edge speaks to its origin: a TOML file with what may stand in `[[origin]]`
    #[arg(long, value_name = "FILE")]
    pub(crate) origin_settings: Option<PathBuf>,
    /// The least level that the nodes log
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "info")]
    pub(crate) log: LevelArg,
    /// Print cluster.json when all is ready, instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// End when standard input ends: whoever started this cluster is gone
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
}

/// `--consistency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConsistencyArg {
    /// Refuse: never stale
    Cp,
    /// Answer: keep siblings
    Ap,
}

/// `--profile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileArg {
    /// The defaults of a careful CDN
    Cdn,
    /// RFC 9111 to the letter, with every switch the standards allow
    Rfc,
}

/// `--rtt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RttArg {
    /// From the built-in table of round-trip times
    Real,
    /// No delays
    None,
}

/// `--log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    /// A person is needed
    Error,
    /// Something was absorbed
    Warn,
    /// An operator did it or must know
    Info,
    /// The inputs of decisions
    Debug,
}

impl LevelArg {
    /// As the configuration says it.
    pub(crate) fn level(self) -> Level {
        match self {
            Self::Error => Level::Error,
            Self::Warn => Level::Warn,
            Self::Info => Level::Info,
            Self::Debug => Level::Debug,
        }
    }
}

/// `meridian edge|origin|control|front`.
#[derive(Debug, Args)]
#[command(after_help = "\
SIGTERM or SIGINT: finish what is in flight, then end; a second one ends at once.
Examples of every role's file are in config/examples.")]
pub(crate) struct NodeArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// End when standard input ends: whoever started this node is gone
    #[arg(long, hide = true)]
    pub(crate) supervised: bool,
}

/// `meridian status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Latency and staleness by consistency level (not offered yet)
    #[arg(long)]
    pub(crate) pacelc: bool,
}

/// `meridian explain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  meridian explain /style.css --region fra
  meridian explain http://127.0.0.1:8080/ --header 'Accept-Encoding: gzip'")]
pub(crate) struct ExplainArgs {
    /// A URL, or a path of the default site
    pub(crate) url: String,
    /// Only the edges of this region
    #[arg(long)]
    pub(crate) region: Option<Region>,
    /// A header field of the request, such as `Accept-Language: de`
    #[arg(long = "header", value_name = "FIELD")]
    pub(crate) headers: Vec<String>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// `meridian region`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  meridian region fra drain      the front door sends new clients elsewhere
  meridian region fra undrain    and back")]
pub(crate) struct RegionArgs {
    /// The region
    pub(crate) region: Region,
    /// What shall become of it (add, remove: not offered yet)
    #[arg(value_enum)]
    pub(crate) action: RegionAction,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// What shall become of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RegionAction {
    /// Not offered yet
    Add,
    /// Send no new clients there
    Drain,
    /// Send clients there again
    Undrain,
    /// Not offered yet
    Remove,
}

/// `meridian check`.
#[derive(Debug, Args)]
#[command(after_help = "\
The role of each file is found from its keys. Files given together are also checked against each
other: names used twice, intervals that do not fit.")]
pub(crate) struct CheckArgs {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `meridian load`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Hit ratios are measured: what clients got minus what the origin sent. Beside them stands what
Cache-Status claimed.

Without --trace, --objects and --paths it asks for everything that the origin lists.

Examples:
  meridian load --requests 20000
  meridian load objects trace.csv --objects 10000 --sizes lognormal:median=13KiB,p99=270KiB
  meridian up --trace trace.csv          (in another terminal)
  meridian load --trace trace.csv
  meridian load --objects 10000 --alpha 0.8 --regions fra=2,iad=1 --json")]
pub(crate) struct LoadArgs {
    #[command(subcommand)]
    pub(crate) command: Option<LoadCommand>,
    #[command(flatten)]
    pub(crate) run: LoadRunArgs,
}

/// `meridian load run|objects|plan|compare`.
#[derive(Debug, Subcommand)]
pub(crate) enum LoadCommand {
    /// Ask now; the same as `meridian load` without a word
    Run(LoadRunArgs),
    /// Write the file of numbered objects that `meridian up --trace` serves
    Objects(LoadObjectsArgs),
    /// Not offered yet: predict hit ratios by simulation
    Plan(LaterArgs),
    /// Not offered yet: compare reports
    Compare(LaterArgs),
}

/// `meridian load run`.
#[derive(Debug, Args)]
pub(crate) struct LoadRunArgs {
    /// Replay the requests of a trace: CSV with `key`, `size`, perhaps `client` and `region`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["objects", "paths", "alpha", "sizes"])]
    pub(crate) trace: Option<PathBuf>,
    /// Ask for the numbered objects /o/1 to /o/N, by Zipf's law
    #[arg(long, value_name = "N", conflicts_with = "paths")]
    pub(crate) objects: Option<NonZeroU64>,
    /// Ask for the paths in this file, one on each line, by Zipf's law
    #[arg(long, value_name = "FILE")]
    pub(crate) paths: Option<PathBuf>,
    /// How uneven popularity is: 0 all alike, 0.6 to 1.2 as in the web [default: 0.9]
    #[arg(long, value_name = "A")]
    pub(crate) alpha: Option<Alpha>,
    /// What the numbered objects must measure: `13KiB`, `uniform:min=1KiB,max=1MiB`,
    /// `lognormal:median=13KiB,p99=270KiB`; another size counts as an error
    #[arg(long, value_name = "SIZES", requires = "objects")]
    pub(crate) sizes: Option<Sizes>,
    /// How many requests [default: 100000, or the whole trace]
    #[arg(long, value_name = "N")]
    pub(crate) requests: Option<NonZeroU64>,
    /// Connections in each region, each with one request at a time
    #[arg(long, value_name = "N", default_value = "8")]
    pub(crate) connections: NonZeroU32,
    /// Regions that clients come from, with their shares: `fra,iad` or `fra=2,iad=1`
    /// [default: all, evenly]
    #[arg(long, value_name = "REGIONS")]
    pub(crate) regions: Option<String>,
    /// Decides every random choice
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) seed: u64,
    /// A request that takes longer counts as an error
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub(crate) timeout: HumanDuration,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// `meridian load objects`.
#[derive(Debug, Args)]
pub(crate) struct LoadObjectsArgs {
    /// Where to
    pub(crate) file: PathBuf,
    /// How many objects
    #[arg(long, value_name = "N", default_value = "10000")]
    pub(crate) objects: NonZeroU64,
    /// How large they are
    #[arg(long, value_name = "SIZES", default_value = "lognormal:median=13KiB,p99=270KiB")]
    pub(crate) sizes: Sizes,
}

/// `fra,iad` or `fra=2,iad=1`: who is asked, and how the requests are shared.
pub(crate) fn region_shares(text: &str) -> Result<Shares, String> {
    let shares: Vec<String> = text
        .split(',')
        .map(|part| if part.contains('=') { part.to_owned() } else { format!("{part}=1") })
        .collect();
    shares.join(",").parse()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, Command, LoadCommand, region_shares};

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_later_command_takes_whatever_the_contract_lets_one_write() {
        let rows: [&[&str]; 3] = [
            &["config", "resolve", "site/shop", "--take", "2"],
            &["seed", "http://a/b", "--region", "fra"],
            &["publish", "--help"],
        ];
        for words in rows {
            let parsed = Cli::try_parse_from(["meridian"].iter().chain(words));
            assert!(parsed.is_ok(), "{words:?}");
        }
    }

    #[test]
    fn load_without_a_word_is_load_run() {
        let parse = |words: &[&str]| Cli::try_parse_from(["meridian"].iter().chain(words));
        let Ok(Cli { command: Command::Load(short) }) = parse(&["load", "--requests", "7"]) else {
            panic!();
        };
        let Ok(Cli { command: Command::Load(long) }) = parse(&["load", "run", "--requests", "7"])
        else {
            panic!();
        };
        let Some(LoadCommand::Run(run)) = long.command else { panic!() };
        assert_eq!(short.run.requests, run.requests);
        assert!(parse(&["load", "--trace", "t.csv", "--objects", "5"]).is_err());
        assert!(parse(&["load", "--sizes", "13KiB"]).is_err(), "sizes of what?");
        assert!(parse(&["up", "site", "--trace", "t.csv"]).is_err());
    }

    #[test]
    fn regions_may_be_named_without_a_share() {
        assert_eq!(region_shares("fra,iad=3").unwrap(), "fra=1,iad=3".parse().unwrap());
        assert!(region_shares("").is_err() && region_shares("fra,fra").is_err());
    }
}
