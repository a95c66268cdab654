//! `meridian net`: what may be written.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use meridian_config::units::{ByteSize, HumanDuration};

/// `meridian net`.
#[derive(Debug, Args)]
#[command(after_help = "\
A and B are each a node (fra-1), a region (fra) or a role (edge, origin, control, front), `all`, or
`rest`: whatever the other one is not. Bytes are cut and delayed by who sends them, whoever dialled.

Examples:
  meridian net show
  meridian net cut edge origin             no edge reaches the origin; what is stored is served
  meridian net cut fra rest                a region alone
  meridian net cut fra-1 control --one-way its beats get lost, the answers would not
  meridian net delay fra origin 30s
  meridian net rate nrt-1 origin-1 1MiB
  meridian net heal                        everything as it was at the start")]
pub(crate) struct NetArgs {
    #[command(subcommand)]
    pub(crate) action: NetAction,
    /// The folder of a running `meridian up`
    #[arg(long, env = "MERIDIAN_DIR", default_value = ".meridian", global = true)]
    pub(crate) dir: PathBuf,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What becomes of the links.
#[derive(Debug, Subcommand)]
pub(crate) enum NetAction {
    /// All links, how they behave and what went over them
    Show,
    /// Nothing gets through: attempts to connect hang, bytes vanish, nothing comes later
    Cut {
        #[command(flatten)]
        ends: Ends,
        #[command(flatten)]
        ways: WaysArg,
    },
    /// Each byte takes this much longer, in each way
    Delay {
        #[command(flatten)]
        ends: Ends,
        /// How much; 0s: none
        delay: HumanDuration,
        /// And up to this much more, at random
        #[arg(long, value_name = "TIME")]
        jitter: Option<HumanDuration>,
        #[command(flatten)]
        ways: WaysArg,
    },
    /// This many bytes per second, in each way of each link
    Rate {
        #[command(flatten)]
        ends: Ends,
        /// Per second
        rate: ByteSize,
        #[command(flatten)]
        ways: WaysArg,
    },
    /// Bytes come in pieces of this size at most
    Slice {
        #[command(flatten)]
        ends: Ends,
        /// The largest piece
        size: ByteSize,
        #[command(flatten)]
        ways: WaysArg,
    },
    /// Open connections are reset; new ones are made as before
    Reset {
        #[command(flatten)]
        ends: Ends,
    },
    /// Open connections see the end of what the other side has to say
    HalfClose {
        #[command(flatten)]
        ends: Ends,
        #[command(flatten)]
        ways: WaysArg,
    },
    /// As it was at the start, between two names or everywhere; what was cut is reset
    Heal {
        /// A node, a region, a role
        #[arg(requires = "b")]
        a: Option<String>,
        /// Another one
        b: Option<String>,
    },
}

/// Between whom.
#[derive(Debug, Args)]
pub(crate) struct Ends {
    /// A node, a region, a role, `all` or `rest`
    pub(crate) a: String,
    /// Another one
    pub(crate) b: String,
}

/// Which way.
#[derive(Debug, Args)]
pub(crate) struct WaysArg {
    /// Only what A sends to B
    #[arg(long)]
    pub(crate) one_way: bool,
}
