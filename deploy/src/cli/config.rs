//! What may be written after `meridian config`.

use clap::{Args, Subcommand};

use crate::cli::later::LaterArgs;
use crate::cli::target::TargetArgs;

/// `meridian config`.
#[derive(Debug, Args)]
#[command(after_help = "\
A key site/NAME holds a site, with the keys that a [[site]] in the file of an edge has; every edge
obeys it at once, and requests in flight end as they began. Other keys are free storage.

Examples:
  meridian config get site/default > site.json
  meridian config put site/default @site.json
  meridian config put site/default @site.toml --if-match '\"12\"'
  meridian config put banner '\"closed on Monday\"'")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

/// `meridian config get|put|conflicts|resolve`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show a value; its ETag goes to standard error
    Get(ConfigGetArgs),
    /// Set a value
    Put(ConfigPutArgs),
    /// Not offered yet: list keys with several values
    Conflicts(LaterArgs),
    /// Not offered yet: choose among several values
    Resolve(LaterArgs),
}

/// `meridian config get`.
#[derive(Debug, Args)]
pub(crate) struct ConfigGetArgs {
    /// The key, such as site/default
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}

/// `meridian config put`.
#[derive(Debug, Args)]
pub(crate) struct ConfigPutArgs {
    /// The key, such as site/default
    pub(crate) key: String,
    /// JSON, or @FILE (JSON, or TOML if it ends in .toml), or - for JSON on standard input
    #[arg(value_name = "VALUE|@FILE|-", default_value = "-", hide_default_value = true)]
    pub(crate) value: String,
    /// Only if the value still has this ETag; "*": only if there is one
    #[arg(long, value_name = "ETAG")]
    pub(crate) if_match: Option<String>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
}
