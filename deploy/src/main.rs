//! The binary: the local CDN, one node of a role, and the commands that talk to a cluster.
//!
//! - [`cli`] what may be written
//! - [`up`] the local CDN: one child process per node · [`run`] one node in the foreground,
//!   signals, drain · [`telemetry`] its log
//! - [`status`], [`explain`], [`region`], [`purge`], [`config`], [`net`], [`check`], [`load`] one
//!   command each · [`target`] which cluster they talk to · [`cluster`] its description ·
//!   [`client`] HTTP
//! - [`demo`] narrated scenarios: a cluster, clients, verdicts
//! - [`output`], [`table`] results · [`error`] exit codes
//!
//! Absent on purpose: decisions. What a request, a region or an edge gets is its role's to say.

mod check;
mod cli;
mod client;
mod cluster;
mod config;
mod demo;
mod error;
mod explain;
mod load;
mod net;
mod origins;
mod output;
mod purge;
mod region;
mod run;
#[cfg(test)]
mod scripted;
mod status;
mod table;
mod target;
mod telemetry;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::error::{CommandError, chain};
use crate::output::tell;

fn main() -> ExitCode {
    match obey(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error @ CommandError::Configuration(_)) => {
            tell(&error.to_string()); // one line for each violation, each with its file
            error.exit_code()
        }
        Err(error) => {
            tell(&format!("meridian: {}", chain(&error)));
            error.exit_code()
        }
    }
}

fn obey(command: Command) -> Result<(), CommandError> {
    let later = |what: &str| Err(CommandError::NotOffered(what.to_owned()));
    match command {
        Command::Up(args) => up::up(&args),
        Command::Edge(args) => run::node(&args, meridian_edge::run),
        Command::Origin(args) => run::node(&args, meridian_origin::run),
        Command::Control(args) => run::node(&args, meridian_control::run),
        Command::Front(args) => run::node(&args, meridian_control::front::run),
        Command::Status(args) => status::status(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Region(args) => region::region(&args),
        Command::Check(args) => check::check(&args),
        Command::Load(args) => load::load(*args),
        Command::Net(args) => net::net(&args),
        Command::Publish(_) => later("publish"),
        Command::Rollback(_) => later("rollback"),
        Command::Purge(args) => purge::purge(&args),
        Command::Seed(_) => later("seed"),
        Command::Config(args) => config::config(&args),
        Command::Demo(args) => demo::demo(&args),
    }
}
