//! What may be written after `meridian purge`.

use std::fmt;
use std::str::FromStr;

use clap::{ArgGroup, Args, Subcommand};
use meridian_config::units::{HumanDuration, Region};

use crate::cli::target::TargetArgs;

/// `meridian purge`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(group(
    ArgGroup::new("selectors").multiple(true).required(true)
        .args(["urls", "prefixes", "tags", "hosts", "all"])
))]
#[command(after_help = "\
Several selectors make one purge: all of them, or none, are applied by an edge.

A URL is purged with its exact query, in all variants, over both schemes; a path alone is one of
the default site. A prefix begins a path: /img/ on every site, shop.example/img/ on one. A tag is a
value of Surrogate-Key or Cache-Tag that the origin sent. A host is the site that answers to it.

--wait says when the command is done:
  none        the purge is durable; edges follow within milliseconds
  quorum      the majority of the edges has applied it
  region:fra  every edge of that region has
  effective   every edge has: no request that starts from now on gets what was purged
If it does not come to that within --timeout, the command names the edges that have not applied it
and exits with 1. The purge stands all the same.

A lost answer is no loss: the same order is sent again until --timeout, and applied once.

Examples:
  meridian purge --url /index.html
  meridian purge --tag sale --tag news --wait effective
  meridian purge --prefix shop.example/img/ --soft
  meridian purge history")]
pub(crate) struct PurgeArgs {
    #[command(subcommand)]
    pub(crate) command: Option<PurgeCommand>,
    #[command(flatten)]
    pub(crate) order: PurgeOrderArgs,
}

/// What else there is to purges.
#[derive(Debug, Subcommand)]
pub(crate) enum PurgeCommand {
    /// Show what was purged, by whom, and how far it got
    History(HistoryArgs),
}

/// One purge.
#[derive(Debug, Args)]
pub(crate) struct PurgeOrderArgs {
    /// One URL, or a path of the default site
    #[arg(long = "url", value_name = "URL")]
    pub(crate) urls: Vec<String>,
    /// Every URL whose path begins so
    #[arg(long = "prefix", value_name = "PREFIX")]
    pub(crate) prefixes: Vec<String>,
    /// Everything that bears this label
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Everything of the site that answers to this host
    #[arg(long = "host", value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// Everything
    #[arg(long)]
    pub(crate) all: bool,
    /// Keep what is stored, but revalidate it before it is used; stale copies still stand in for
    /// errors
    #[arg(long)]
    pub(crate) soft: bool,
    /// When the command is done: none, quorum, region:R, effective
    #[arg(long, value_name = "EDGES", default_value = "none")]
    pub(crate) wait: Wait,
    /// How long it may take, with repetitions
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pub(crate) timeout: HumanDuration,
    /// Names this purge, so that a repetition of the command is not a second one [default: random]
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// `meridian purge history`.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Only what was purged after this position
    #[arg(long, value_name = "POSITION")]
    pub(crate) after: Option<String>,
    /// The newest purges, so many of them
    #[arg(long, value_name = "N", default_value = "20")]
    pub(crate) last: usize,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// Which edges must have applied a purge before the command is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wait {
    /// None: it is durable.
    None,
    /// The majority.
    Quorum,
    /// All of a region.
    Region(Region),
    /// All.
    Effective,
}

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("region:")) {
            ("none", _) => Ok(Self::None),
            ("quorum", _) => Ok(Self::Quorum),
            ("effective", _) => Ok(Self::Effective),
            (_, Some(region)) => region.parse().map(Self::Region),
            (_, None) => Err("must be none, quorum, region:R or effective".to_owned()),
        }
    }
}

/// As the API says it.
impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Quorum => f.write_str("quorum"),
            Self::Region(region) => write!(f, "region:{region}"),
            Self::Effective => f.write_str("effective"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{PurgeArgs, PurgeCommand, Wait};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        purge: PurgeArgs,
    }

    fn parse(words: &[&str]) -> Result<PurgeArgs, clap::Error> {
        Line::try_parse_from(["purge"].iter().chain(words)).map(|line| line.purge)
    }

    #[test]
    fn a_purge_has_selectors_and_the_history_has_none() {
        let purge = parse(&["--tag", "a", "--url", "/b", "--tag", "c", "--soft"]).unwrap().order;
        assert_eq!((purge.tags, purge.urls), (vec!["a".into(), "c".into()], vec!["/b".into()]));
        assert!(purge.soft && !purge.all);
        let history = parse(&["history", "--last", "3"]).unwrap();
        assert!(matches!(history.command, Some(PurgeCommand::History(args)) if args.last == 3));
        for words in [&["--soft"][..], &[], &["--tag"], &["--tag", "a", "history"], &["future"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn what_is_waited_for_is_said_as_the_api_says_it() {
        for text in ["none", "quorum", "region:fra", "effective"] {
            let wait: Wait = text.parse().unwrap();
            assert_eq!(wait.to_string(), text);
        }
        for text in ["all", "region", "region:", "Quorum", ""] {
            assert!(text.parse::<Wait>().is_err(), "{text:?}");
        }
    }
}
