//! `meridian region`: what an operator wants of a region.

use serde_json::{Value, json};

use crate::cli::{RegionAction, RegionArgs};
use crate::error::CommandError;
use crate::output::{Format, write_result};
use crate::run::runtime;
use crate::target::Target;

/// Tells the control plane.
pub(crate) fn region(args: &RegionArgs) -> Result<(), CommandError> {
    let (intent, told) = match args.action {
        RegionAction::Drain => ("drained", "drained: it gets no new clients"),
        RegionAction::Undrain => ("active", "active: it gets clients again, if it is healthy"),
        RegionAction::Add => return Err(CommandError::NotOffered("region add".to_owned())),
        RegionAction::Remove => return Err(CommandError::NotOffered("region remove".to_owned())),
    };
    let target = Target::find(&args.target)?;
    let path = format!("/v1/regions/{}/intent", args.region);
    let order = json!({ "state": intent });
    let answer: Value = runtime(1)?.block_on(target.control.put(&path, &order))?;
    write_result(&answer, Format::of(args.target.json), |_| format!("{} is {told}", args.region))
}
