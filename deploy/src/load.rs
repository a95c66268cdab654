//! `meridian load`: from the command line and the cluster to a run of the load generator.

use std::num::NonZeroUsize;
use std::process;
use std::thread;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use meridian_tests_load::catalogue::{list_origin, read_paths, write_trace};
use meridian_tests_load::endpoint::Endpoint;
use meridian_tests_load::error::LoadError;
use meridian_tests_load::options::{EdgeTarget, Objects, Options, RegionTarget, Workload};
use meridian_tests_load::report::Report;
use meridian_tests_load::run::{Progress, run};
use meridian_tests_load::spread::Shares;
use meridian_tests_load::table::render;
use tokio_util::sync::CancellationToken;

use crate::cli::{LoadArgs, LoadCommand, LoadObjectsArgs, LoadRunArgs, region_shares};
use crate::error::CommandError;
use crate::output::{Format, tell, write_result, write_text};
use crate::run::{Signals, runtime};
use crate::target::{EdgeAddress, Target};

/// Does what `args` ask for.
pub(crate) fn load(args: LoadArgs) -> Result<(), CommandError> {
    match args.command {
        None => ask(&args.run),
        Some(LoadCommand::Run(run)) => ask(&run),
        Some(LoadCommand::Objects(objects)) => write_objects(&objects),
        Some(LoadCommand::Plan(_)) => Err(CommandError::NotOffered("load plan".to_owned())),
        Some(LoadCommand::Compare(_)) => Err(CommandError::NotOffered("load compare".to_owned())),
    }
}

fn write_objects(args: &LoadObjectsArgs) -> Result<(), CommandError> {
    write_trace(&args.file, args.objects, &args.sizes)?;
    write_text(&format!(
        "{} objects in {file}; serve them with `meridian up --trace {file}`",
        args.objects,
        file = args.file.display()
    ))
}

/// Runs the load and reports.
fn ask(args: &LoadRunArgs) -> Result<(), CommandError> {
    let target = Target::find(&args.target)?;
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let report = runtime(workers)?.block_on(async {
        let options = options(args, &target).await?;
        let mut signals = Signals::new()?;
        let stop = CancellationToken::new();
        let bar = Bar::new();
        let running = run(options, &bar, stop.clone());
        tokio::pin!(running);
        let report = tokio::select! { // dropping the wait for a signal loses nothing
            report = &mut running => report,
            _ = signals.next() => {
                stop.cancel(); // what was done is reported
                tokio::select! {
                    report = running => report,
                    _ = signals.next() => process::exit(1),
                }
            }
        };
        bar.0.finish_and_clear();
        Ok::<_, CommandError>(report?)
    })?;
    write_result(&report, Format::of(args.target.json), render)?;
    judge(&report)
}

/// A run in which nothing was served is a failure, whatever the figures.
fn judge(report: &Report) -> Result<(), CommandError> {
    if report.total.requests > 0 && report.total.served == 0 {
        let text = format!("none of {} requests was served", report.total.requests);
        return Err(CommandError::Failed(text));
    }
    Ok(())
}

async fn options(args: &LoadRunArgs, target: &Target) -> Result<Options, CommandError> {
    let shares = match &args.regions {
        None => Shares::default(),
        Some(text) => {
            region_shares(text).map_err(|rule| CommandError::Usage(format!("--regions: {rule}")))?
        }
    };
    let origins = target.cluster.iter().flat_map(|cluster| &cluster.origins);
    let origins: Vec<Endpoint> = origins
        .filter_map(|origin| origin.admin.as_deref())
        .map(endpoint)
        .collect::<Result<_, _>>()?;
    Ok(Options {
        regions: regions(target.edges_in(None).await?, args.regions.as_deref())?,
        workload: workload(args, &origins).await?,
        origins,
        host: None,
        requests: args.requests,
        connections: args.connections,
        shares,
        seed: args.seed,
        timeout: args.timeout.get(),
    })
}

/// The regions that are asked, with their edges.
fn regions(
    edges: Vec<EdgeAddress>,
    named: Option<&str>,
) -> Result<Vec<RegionTarget>, CommandError> {
    let named: Option<Vec<&str>> = named
        .map(|text| text.split(',').map(|part| part.split('=').next().unwrap_or(part)).collect());
    let mut regions: Vec<RegionTarget> = Vec::new();
    for edge in edges {
        if named.as_ref().is_some_and(|named| !named.contains(&edge.region.as_str())) {
            continue;
        }
        let bad = |rule: String| CommandError::Failed(format!("edge {}: {rule}", edge.name));
        let target = EdgeTarget {
            name: edge.name.parse().map_err(bad)?,
            url: endpoint(&edge.url)?,
            admin: Some(endpoint(&edge.admin)?),
        };
        match regions.iter_mut().find(|region| region.name.as_str() == edge.region) {
            Some(region) => region.edges.push(target),
            None => regions.push(RegionTarget {
                name: edge.region.parse().map_err(bad)?,
                edges: vec![target],
            }),
        }
    }
    let is_known = |name: &&str| regions.iter().any(|region| region.name.as_str() == *name);
    let unknown = named.iter().flatten().find(|name| !is_known(name));
    match unknown {
        Some(name) => Err(CommandError::Usage(format!("--regions: no edge stands in {name:?}"))),
        None => Ok(regions),
    }
}

async fn workload(args: &LoadRunArgs, origins: &[Endpoint]) -> Result<Workload, CommandError> {
    if let Some(file) = &args.trace {
        return Ok(Workload::Trace { file: file.clone() });
    }
    let objects = match (args.objects, &args.paths) {
        (Some(count), _) => Objects::Numbered { count, sizes: args.sizes.clone() },
        (None, Some(file)) => Objects::Listed(read_paths(file)?),
        (None, None) => Objects::Listed(listed(origins).await?),
    };
    Ok(Workload::Zipf { objects, alpha: args.alpha.unwrap_or_default() })
}

/// What the origin says it serves.
async fn listed(
    origins: &[Endpoint],
) -> Result<Vec<meridian_tests_load::options::Listed>, CommandError> {
    let Some(origin) = origins.first() else {
        let text = "the origin is not ours and cannot be asked what it serves: \
                    say what to ask for with --paths, --objects or --trace";
        return Err(CommandError::Usage(text.to_owned()));
    };
    let list = list_origin(origin).await.inspect_err(|_error| {
        tell("say what to ask for with --paths, --objects or --trace instead");
    })?;
    tell(&format!("asking for the {} objects that the origin lists", list.len()));
    Ok(list)
}

fn endpoint(url: &str) -> Result<Endpoint, CommandError> {
    url.parse().map_err(|rule| CommandError::Load(LoadError::Options { rule }))
}

/// A bar on standard error; nothing if that is no terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = "{bar:40} {percent:>3} %  {human_pos} of {human_len}  {per_sec}  {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Progress for Bar {
    fn advance(&self, done: u64, failed: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
        if failed > 0 {
            self.0.set_message(format!("{failed} errors"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::regions;
    use crate::target::EdgeAddress;

    fn edge(name: &str, region: &str) -> EdgeAddress {
        EdgeAddress {
            name: name.to_owned(),
            region: region.to_owned(),
            url: "http://127.0.0.1:1".to_owned(),
            admin: "http://127.0.0.1:2".to_owned(),
        }
    }

    #[test]
    fn edges_are_asked_by_region_and_only_where_named() {
        let edges = || vec![edge("fra-1", "fra"), edge("iad-1", "iad"), edge("fra-2", "fra")];
        let told = |named| {
            let regions = regions(edges(), named).unwrap();
            let told = regions.iter().map(|r| format!("{}:{}", r.name, r.edges.len()));
            told.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(None), "fra:2 iad:1");
        assert_eq!(told(Some("fra=2")), "fra:2");
        let error = regions(edges(), Some("fra,nrt")).unwrap_err();
        assert!(error.to_string().contains("\"nrt\""), "{error}");
        assert_eq!(error.exit_code(), 2.into());
    }
}
