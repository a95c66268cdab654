//! Commands of the contract that are not built yet.

use std::ffi::OsString;

use clap::Args;

/// A command that is not built yet: whatever is written after it.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct LaterArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) rest: Vec<OsString>,
}
