//! What `up` tells a person: a table of addresses, what to do next, and one line per event.

use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use crate::output::tell;
use crate::table::Table;
use crate::up::child::Death;
use crate::up::plan::{Kind, Node};

/// The addresses of all nodes, and what to do next.
pub(crate) fn addresses(
    nodes: &[(&Node, Option<u32>)],
    front: &str,
    origin: Option<&str>,
    (dir, has_links): (&Path, bool),
    took: Duration,
) -> String {
    let mut table = Table::default()
        .words("node")
        .words("role")
        .words("region")
        .words("city")
        .words("url")
        .words("admin")
        .numbers("pid");
    for (node, pid) in nodes {
        table.row([
            node.name.to_string(),
            node.kind.word().to_owned(),
            node.place.map_or("-", |place| place.code).to_owned(),
            node.place.map_or("-", |place| place.city).to_owned(),
            node.url(),
            node.admin().unwrap_or_else(|| "-".to_owned()),
            pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        ]);
    }
    let edges = nodes.iter().filter(|(node, _)| node.kind == Kind::Edge).count();
    let behind = origin.map(|url| format!(", in front of {url}")).unwrap_or_default();
    format!(
        "{table}\n\
         Ready after {:.1} s: {edges} edge{}{behind}.\n  \
         open     {front}/\n  \
         look     meridian status{flag}\n{links}  \
         explain  meridian explain /{flag}\n  \
         files    {}\n  \
         Ctrl-C   drains all and ends\n",
        took.as_secs_f64(),
        if edges == 1 { "" } else { "s" },
        dir.display(),
        flag = dir_flag(dir),
        links = if has_links {
            format!("  links    meridian net show{}\n", dir_flag(dir))
        } else {
            String::new()
        },
    )
}

/// How to name the folder to another command, if it is not the one it would take anyway.
fn dir_flag(dir: &Path) -> String {
    let default = std::env::current_dir().map(|here| here.join(".meridian"));
    if default.is_ok_and(|default| default == dir) {
        String::new()
    } else {
        format!(" --dir {}", dir.display())
    }
}

/// Tells what happened to `who`, with the time of day.
pub(crate) fn event(who: &str, what: &str) {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let time = now.get(11..19).unwrap_or(&now);
    tell(&format!("{time}  {who:<10}  {what}"));
}

/// How a node ended, in words.
pub(crate) fn death(death: &Death) -> String {
    match death {
        Death::Exit(status) => format!("died ({})", exit(*status)),
        Death::Unstarted(error) => format!("could not be started: {error}"),
    }
}

/// An exit status in words.
fn exit(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "killed by signal 9".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "for no known reason".to_owned(),
    }
}
