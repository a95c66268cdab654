//! Which cluster a command means, and how it answers.

use std::path::PathBuf;

use clap::Args;

/// Which cluster is meant.
#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// The folder of a running `meridian up`
    #[arg(long, env = "MERIDIAN_DIR", default_value = ".meridian")]
    pub(crate) dir: PathBuf,
    /// A control replica instead, with the token in the environment variable MERIDIAN_TOKEN
    #[arg(long, value_name = "URL")]
    pub(crate) control: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    pub(crate) json: bool,
}
