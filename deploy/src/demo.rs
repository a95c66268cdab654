//! `meridian demo`: narrated scenarios with a verdict for each claim.
//!
//! In reading order: [`stage`] the cluster · [`pulse`] what its edges say of themselves ·
//! [`scene`] clients and who watches them · [`story`] what is told · [`outage`], [`slow_origin`],
//! [`flapping`], [`retry_storm`], [`herd`], [`lost_reply`] one demo each · [`page`] the report.
//!
//! # Invariants
//! - However a demo ends, by a failed claim, an error or a signal, its cluster is gone, and one
//!   that ran before is left with whole links and without faults.

mod flapping;
mod herd;
mod lost_reply;
mod outage;
mod page;
mod pulse;
mod retry_storm;
mod scene;
mod slow_origin;
mod stage;
mod story;

use std::fs;

use clap::ValueEnum;

use crate::cli::demo::{DemoArgs, DemoName};
use crate::demo::stage::Stage;
use crate::demo::story::{Story, Word};
use crate::error::CommandError;
use crate::output::{Format, write_result, write_text};
use crate::run::{Signals, runtime};
use crate::table::Table;
use crate::up::raise_open_files;

/// Threads for clients and watchers; the cluster needs the machine, too.
const WORKERS: usize = 2;

/// Plays a demo, or lists them.
pub(crate) fn demo(args: &DemoArgs) -> Result<(), CommandError> {
    let Some(name) = args.name else { return write_text(&list()) };
    if !is_offered(name) {
        return Err(CommandError::NotOffered(format!("demo {}", name.word())));
    }
    raise_open_files(); // a connection for each client
    let format = Format::of(args.json);
    let mut story = Story::new(name.word(), args.seconds.get(), format);
    runtime(WORKERS)?.block_on(play(name, args, &mut story))?;
    let holds = story.conclude();
    if let Some(file) = &args.report {
        fs::write(file, page::page(&story))
            .map_err(|source| CommandError::System { what: "write the report", source })?;
    }
    write_result(&story, format, verdicts)?;
    if holds { Ok(()) } else { Err(CommandError::Failed("not every claim holds".to_owned())) }
}

async fn play(name: DemoName, args: &DemoArgs, story: &mut Story) -> Result<(), CommandError> {
    let mut signals = Signals::new()?;
    let running = args.dir.as_deref().map(Stage::running).transpose()?;
    let outcome = tokio::select! { // dropping the play ends its clients and its own cluster
        outcome = act(name, running.as_ref(), story) => outcome,
        signal = signals.next() => Err(CommandError::Failed(format!("{signal}: ended early"))),
    };
    let left = match &running {
        Some(stage) => stage.leave().await,
        None => Ok(()),
    };
    outcome.and(left)
}

async fn act(
    name: DemoName,
    running: Option<&Stage>,
    story: &mut Story,
) -> Result<(), CommandError> {
    match name {
        DemoName::Outage => outage::play(running, story).await,
        DemoName::SlowOrigin => slow_origin::play(running, story).await,
        DemoName::Flapping => flapping::play(running, story).await,
        DemoName::RetryStorm => retry_storm::play(running, story).await,
        DemoName::Herd => herd::play(running, story).await,
        DemoName::LostReply => lost_reply::play(running, story).await,
        DemoName::StalePurge
        | DemoName::PartitionCp
        | DemoName::PartitionAp
        | DemoName::Release
        | DemoName::ColdRegion => Err(CommandError::NotOffered(format!("demo {}", name.word()))),
    }
}

fn is_offered(name: DemoName) -> bool {
    match name {
        DemoName::Outage
        | DemoName::SlowOrigin
        | DemoName::Flapping
        | DemoName::RetryStorm
        | DemoName::Herd
        | DemoName::LostReply => true,
        DemoName::StalePurge
        | DemoName::PartitionCp
        | DemoName::PartitionAp
        | DemoName::Release
        | DemoName::ColdRegion => false,
    }
}

/// Every demo with a line about it.
fn list() -> String {
    let mut table = Table::default().words("demo").words("what happens");
    for name in DemoName::value_variants() {
        let value = name.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help());
        table.row([name.word().to_owned(), help.map(ToString::to_string).unwrap_or_default()]);
    }
    format!("{table}\nPlay one with `meridian demo NAME`.\n")
}

/// The verdicts, for a person.
fn verdicts(story: &Story) -> String {
    let mut table =
        Table::default().words("verdict").words("claim").numbers("measured").words("limit");
    for verdict in &story.verdicts {
        table.row([
            verdict.verdict.text().to_owned(),
            verdict.claim.clone(),
            verdict.measured.clone(),
            verdict.limit.clone(),
        ]);
    }
    let failed = story.verdicts.iter().filter(|verdict| verdict.verdict == Word::Failed).count();
    let end = match (story.ok, failed) {
        (true, _) => "All claims hold.".to_owned(),
        (false, 0) => "Nothing was judged.".to_owned(),
        (false, failed) => format!("{failed} of {} claims do not hold.", story.verdicts.len()),
    };
    format!("\n{table}\n{end}\n")
}
