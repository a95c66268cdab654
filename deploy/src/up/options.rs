//! What `up` was asked for, checked before anything is touched.
//!
//! # Invariants
//! - An [`Options`] makes sense as a whole: every region is a place, the site is there.
//! - [`Remembered`] is what a folder may not be started with differently: what decides the names
//!   of the nodes and what they hold. Ports, links, memory, settings of the origin and log levels
//!   may change from run to run.

use std::fs;
use std::path::{Path, PathBuf};

use meridian_config::edge::{Edge, Profile};
use meridian_config::load::parse;
use meridian_config::places::{Place, place, places};
use meridian_config::shared::Level;
use meridian_config::units::{Address, ByteSize};
use meridian_config::violation::{Violation, Violations};
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::cli::{ConsistencyArg, ProfileArg, RttArg, UpArgs};
use crate::client::Base;
use crate::error::CommandError;
use crate::output::Format;
use crate::up::error::UpError;

/// Edges of one local CDN; each is a process, and a laptop is a laptop.
const MOST_EDGES: usize = 100;

/// What `up` was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The places where the edges stand; the first is also the origin's and the control plane's.
    /// Never empty.
    pub(crate) regions: Vec<&'static Place>,
    /// Edges in each.
    pub(crate) edges_per_region: u16,
    /// What the CDN stands in front of.
    pub(crate) site: Site,
    /// The defaults of the site.
    pub(crate) profile: Profile,
    /// The front door's port; 0 is any.
    pub(crate) port: u16,
    /// The folder of the cluster, as given.
    pub(crate) dir: PathBuf,
    /// What to do with what an earlier run left there.
    pub(crate) start: Start,
    /// Memory of each edge for stored responses, if not the default.
    pub(crate) capacity: Option<ByteSize>,
    /// What every edge is told of its origin beside its name and address.
    pub(crate) origin_settings: Table,
    /// How nodes reach each other.
    pub(crate) links: Links,
    /// What the nodes log.
    pub(crate) level: Level,
    /// The region whose edges the others ask instead of the origin.
    pub(crate) shield: Option<&'static Place>,
    /// How the addresses are told.
    pub(crate) format: Format,
}

/// How nodes reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Each dials the other itself.
    Direct,
    /// Through proxies that can cut and delay, and do neither at first.
    Near,
    /// Through proxies that delay as the distance between the regions does.
    Real,
}

/// What to do with what an earlier run left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Go on with it.
    Continue,
    /// Remove it.
    Fresh,
}

/// What the CDN stands in front of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Site {
    /// The built-in sample.
    Sample,
    /// A folder of files, by its absolute path.
    Folder(PathBuf),
    /// The synthetic objects of a trace, by its absolute path.
    Trace(PathBuf),
    /// Somebody's web server.
    Server(Address),
}

impl Options {
    /// Checks `args`.
    pub(crate) fn of(args: &UpArgs) -> Result<Self, CommandError> {
        refuse_later(args)?;
        let regions = regions(&args.regions)?;
        let all = regions.len() * usize::from(args.edges.get());
        if all > MOST_EDGES {
            let text = format!("{all} edges are too many: {MOST_EDGES} at most on one machine");
            return Err(UpError::Option(text).into());
        }
        let site = match (&args.trace, &args.site) {
            (Some(file), _) => Site::Trace(trace(file)?),
            (None, Some(site)) => self::site(site)?,
            (None, None) => Site::Sample,
        };
        refuse_inside(&args.dir, &site)?;
        let shield = args.shield.as_deref().map(|code| shield(code, &regions)).transpose()?;
        Ok(Self {
            regions,
            shield,
            edges_per_region: args.edges.get(),
            site,
            profile: match args.profile {
                ProfileArg::Cdn => Profile::Cdn,
                ProfileArg::Rfc => Profile::Rfc,
            },
            port: args.port,
            dir: args.dir.clone(),
            start: if args.fresh { Start::Fresh } else { Start::Continue },
            capacity: args.capacity,
            origin_settings: args.origin_settings.as_deref().map_or(Ok(Table::new()), settings)?,
            links: links(args)?,
            level: args.log.level(),
            format: Format::of(args.json),
        })
    }

    /// What the folder is held to.
    pub(crate) fn remembered(&self) -> Remembered {
        Remembered {
            version: Remembered::VERSION,
            regions: self.regions.iter().map(|place| place.code.to_owned()).collect(),
            edges: self.edges_per_region,
            replicas: 1,
            consistency: "cp".to_owned(),
            profile: match self.profile {
                Profile::Cdn => "cdn".to_owned(),
                Profile::Rfc => "rfc".to_owned(),
            },
            site: match &self.site {
                Site::Sample => "the built-in sample".to_owned(),
                Site::Folder(path) => format!("folder {}", path.display()),
                Site::Trace(path) => format!("trace {}", path.display()),
                Site::Server(address) => format!("http://{address}"),
            },
        }
    }
}

/// Refuses what the contract has and this version does not.
fn refuse_later(args: &UpArgs) -> Result<(), CommandError> {
    let later = [
        (args.replicas.get() > 1).then(|| format!("--replicas {}", args.replicas)),
        (args.consistency == ConsistencyArg::Ap).then(|| "--consistency ap".to_owned()),
    ];
    later.into_iter().flatten().next().map_or(Ok(()), |what| Err(CommandError::NotOffered(what)))
}

/// What `file` says of an origin, checked in place of that of an edge. Its name and its address are
/// the cluster's own.
fn settings(file: &Path) -> Result<Table, CommandError> {
    let wrong = |rule: String| UpError::Option(format!("{}: {rule}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let mut table: Table = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if let Some(key) = ["name", "authority"].iter().find(|key| table.contains_key(**key)) {
        return Err(wrong(format!("{key} cannot be set here")).into());
    }
    table.insert("name".to_owned(), "origin-1".into());
    let mut edge: Table = toml::from_str(ANY_EDGE).map_err(|error| wrong(error.to_string()))?;
    edge.insert("origin".to_owned(), vec![table.clone()].into());
    let Err(found) = parse::<Edge>(&edge.to_string(), file) else { return Ok(table) };
    let without_line = |mut violation: Violation| {
        violation.line = None; // it is one of the edge's, not of the file
        violation
    };
    Violations::none_of(found.into_iter().map(without_line).collect())?;
    Ok(table)
}

/// An edge that lacks nothing but its origin's table.
const ANY_EDGE: &str = r#"
name = "any-1"
region = "any"
listen = "127.0.0.1:1"
admin = "127.0.0.1:2"
peers = { origin-1 = "127.0.0.1:3" }
site = [{ name = "default", default = true, origins = ["origin-1"] }]
"#;

fn links(args: &UpArgs) -> Result<Links, UpError> {
    match (args.direct, args.rtt) {
        (true, RttArg::None) => Ok(Links::Direct),
        (false, RttArg::None) => Ok(Links::Near),
        (false, RttArg::Real) => Ok(Links::Real),
        (true, RttArg::Real) => {
            let text = "--rtt real delays the links and --direct leaves none to delay: take one";
            Err(UpError::Option(text.to_owned()))
        }
    }
}

/// Refuses a folder of the cluster that the site would serve: a token is in it. The default name
/// is safe, since origins serve nothing under it.
fn refuse_inside(dir: &Path, site: &Site) -> Result<(), UpError> {
    let Site::Folder(root) = site else { return Ok(()) };
    // The folder may not be there yet: the nearest one above it that is tells where it will be.
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let real = dir
        .ancestors()
        .find_map(|above| Some(above.canonicalize().ok()?.join(dir.strip_prefix(above).ok()?)));
    let real = real.unwrap_or(dir);
    let Ok(inside) = real.strip_prefix(root.canonicalize().as_ref().unwrap_or(root)) else {
        return Ok(());
    };
    if inside.iter().any(|name| name.as_encoded_bytes().starts_with(b".meridian")) {
        return Ok(());
    }
    Err(UpError::Option(format!(
        "--dir {} lies inside the site {}, which would publish its token: take another folder",
        real.display(),
        root.display()
    )))
}

fn regions(codes: &[String]) -> Result<Vec<&'static Place>, UpError> {
    let mut found: Vec<&'static Place> = Vec::new();
    for code in codes {
        let code = code.trim();
        let Some(place) = place(code) else {
            let text = format!("--regions: {code:?} is no place; near it: {}", nearest(code));
            return Err(UpError::Option(text));
        };
        if found.contains(&place) {
            return Err(UpError::Option(format!("--regions: {code} is named twice")));
        }
        found.push(place);
    }
    Ok(found)
}

/// The region that is to be the shield: one of those with edges, and not the only one.
fn shield(code: &str, regions: &[&'static Place]) -> Result<&'static Place, UpError> {
    let found = regions.iter().find(|place| place.code == code.trim());
    let named = || regions.iter().map(|place| place.code).collect::<Vec<_>>().join(", ");
    match (found, regions.len()) {
        (Some(_), 1) => {
            let text = format!("--shield {code}: there is no other region that could ask it");
            Err(UpError::Option(text))
        }
        (Some(place), _) => Ok(place),
        (None, _) => {
            let text = format!("--shield {code:?} is none of the regions with edges: {}", named());
            Err(UpError::Option(text))
        }
    }
}

/// The places whose code or city is written most like `text`.
fn nearest(text: &str) -> String {
    let text = text.to_lowercase();
    let likeness = |place: &Place| {
        let city = strsim::jaro_winkler(&text, &place.city.to_lowercase());
        // One letter changed in a code of three is a slip; in a city's name, too.
        strsim::jaro_winkler(&text, place.code).max(city)
    };
    let mut all: Vec<&Place> = places().iter().collect();
    all.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    let told = all.iter().take(3).map(|place| format!("{} ({})", place.code, place.city));
    told.collect::<Vec<_>>().join(", ")
}

/// A folder, or the URL of a web server.
fn site(text: &str) -> Result<Site, CommandError> {
    if text.contains("://") {
        return server(text);
    }
    let refused = |rule: String| UpError::Site { site: text.to_owned(), rule };
    let path = fs::canonicalize(text).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => refused(format!("there is no such folder{}", hint(text))),
        _ => refused(format!("cannot be opened: {error}")),
    })?;
    if !path.is_dir() {
        return Err(refused("is not a folder; name the folder that it is in".to_owned()).into());
    }
    fs::read_dir(&path).map_err(|error| refused(format!("cannot be listed: {error}")))?;
    Ok(Site::Folder(path))
}

/// Who writes `localhost:8000` means a server.
fn hint(text: &str) -> String {
    let port = text.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next());
    if port.is_some_and(|port| port.parse::<u16>().is_ok()) {
        format!("; if it is a web server, write http://{text}")
    } else {
        String::new()
    }
}

fn server(url: &str) -> Result<Site, CommandError> {
    if url.starts_with("https://") {
        return Err(CommandError::NotOffered(format!("{url}: an https origin")));
    }
    let refused = |rule: String| UpError::Site { site: url.to_owned(), rule };
    let address = Base::parse(url).map_err(|rule| refused(format!("the URL of a site {rule}")))?;
    let address = address.address().parse().map_err(refused)?;
    Ok(Site::Server(address))
}

fn trace(file: &Path) -> Result<PathBuf, UpError> {
    let refused =
        |rule: String| UpError::Site { site: format!("--trace {}", file.display()), rule };
    let path =
        fs::canonicalize(file).map_err(|error| refused(format!("cannot be read: {error}")))?;
    if !path.is_file() {
        return Err(refused("is not a file".to_owned()));
    }
    Ok(path)
}

/// The options that a folder is held to, as they stand in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// Of this form.
    pub(crate) version: u32,
    regions: Vec<String>,
    edges: u16,
    replicas: u16,
    consistency: String,
    profile: String,
    site: String,
}

impl Remembered {
    /// The form that this version writes.
    pub(crate) const VERSION: u32 = 1;

    /// How a folder made with these options differs from what is `asked` now; empty if it does
    /// not.
    pub(crate) fn differences(&self, asked: &Self) -> String {
        let rows = [
            ("regions", self.regions.join(","), asked.regions.join(",")),
            ("edges", self.edges.to_string(), asked.edges.to_string()),
            ("replicas", self.replicas.to_string(), asked.replicas.to_string()),
            ("consistency", self.consistency.clone(), asked.consistency.clone()),
            ("profile", self.profile.clone(), asked.profile.clone()),
            ("site", self.site.clone(), asked.site.clone()),
        ];
        let told = rows.into_iter().filter(|(_, before, now)| before != now);
        let told = told.map(|(name, before, now)| format!("{name} was {before}, now {now}"));
        told.collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Links, Options, Site};
    use crate::cli::{Cli, Command};
    use crate::error::CommandError;

    fn options(words: &[&str]) -> Result<Options, CommandError> {
        let words = ["meridian", "up"].iter().chain(words);
        let Command::Up(args) = Cli::try_parse_from(words).unwrap().command else { panic!() };
        Options::of(&args)
    }

    fn refusal(words: &[&str]) -> (String, std::process::ExitCode) {
        let error = options(words).unwrap_err();
        (error.to_string(), error.exit_code())
    }

    #[test]
    fn a_folder_that_the_site_would_serve_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let site = Site::Folder(home.path().canonicalize().unwrap());
        let rows = [(".meridian", true), ("a/.meridian-2/x", true), ("state", false), (".", false)];
        for (dir, fits) in rows {
            assert_eq!(super::refuse_inside(&home.path().join(dir), &site).is_ok(), fits, "{dir}");
        }
        let beside = tempfile::tempdir().unwrap();
        assert!(super::refuse_inside(beside.path(), &site).is_ok());
    }

    #[test]
    fn the_defaults_are_three_regions_and_the_sample() {
        let options = options(&[]).unwrap();
        let codes: Vec<_> = options.regions.iter().map(|place| place.code).collect();
        assert_eq!(codes, ["iad", "fra", "nrt"]);
        assert_eq!((options.edges_per_region, options.port), (1, 8080));
        assert_eq!(options.site, Site::Sample);
    }

    #[test]
    fn settings_of_the_origin_are_read_and_what_is_no_setting_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("origin.toml");
        let words = ["--origin-settings", file.to_str().unwrap()];
        let written = |text: &str| std::fs::write(&file, text).unwrap();
        written("total_timeout = \"40s\"\n[breaker]\nprobes = 2\n");
        let settings = options(&words).unwrap().origin_settings;
        assert_eq!(settings.get("total_timeout").and_then(|value| value.as_str()), Some("40s"));
        let rows = [
            ("name = \"mine\"", "name cannot be set here", 2),
            ("authority = \"a:1\"", "authority cannot be set here", 2),
            ("[", "origin.toml", 2),
            ("total_timeot = \"4s\"", "total_timeot", 78),
            ("total_timeout = 4", "total_timeout", 78),
            ("[breaker]\nfailure_share = 0.0", "must be above 0", 78),
        ];
        for (text, want, exit) in rows {
            written(text);
            let (told, code) = refusal(&words);
            assert!(told.contains(want) && told.contains("origin.toml"), "{text}: {told}");
            assert_eq!(code, exit.into(), "{text}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(refusal(&words).0.contains("origin.toml"));
    }

    #[test]
    fn what_is_not_built_yet_says_so_and_counts_as_wrong_usage() {
        let rows: [&[&str]; 3] =
            [&["--replicas", "3"], &["--consistency", "ap"], &["https://example.com"]];
        for words in rows {
            let (text, code) = refusal(words);
            assert!(text.ends_with("not offered yet"), "{words:?}: {text}");
            assert_eq!(code, 2.into(), "{words:?}");
        }
        assert!(options(&["--direct", "--rtt", "none", "--replicas", "1"]).is_ok());
    }

    #[test]
    fn links_are_proxied_unless_they_are_direct_and_only_those_can_be_delayed() {
        let links = |words: &[&str]| options(words).unwrap().links;
        assert_eq!(links(&[]), Links::Near);
        assert_eq!(links(&["--rtt", "real"]), Links::Real);
        assert_eq!(links(&["--direct"]), Links::Direct);
        let (told, code) = refusal(&["--direct", "--rtt", "real"]);
        assert!(told.contains("take one"), "{told}");
        assert_eq!(code, 2.into());
    }

    #[test]
    fn an_unknown_region_is_answered_with_those_it_may_have_meant() {
        assert!(refusal(&["--regions", "frb"]).0.contains("fra (Frankfurt)"));
        assert!(refusal(&["--regions", "Tokio"]).0.contains("(Tokyo)"));
        assert!(refusal(&["--regions", "fra,iad,fra"]).0.contains("fra is named twice"));
    }

    #[test]
    fn a_shield_is_one_of_several_regions() {
        let shield = |words: &[&str]| options(words).unwrap().shield.map(|place| place.code);
        assert_eq!(shield(&[]), None);
        assert_eq!(shield(&["--shield", "fra"]), Some("fra"));
        let rows: [(&[&str], _); 3] = [
            (&["--shield", "sin"], "\"sin\" is none of the regions with edges: iad, fra, nrt"),
            (&["--shield", "nowhere"], "\"nowhere\" is none of the regions"),
            (&["--shield", "fra", "--regions", "fra"], "there is no other region"),
        ];
        for (words, want) in rows {
            let (told, code) = refusal(words);
            assert!(told.contains(want), "{told}");
            assert_eq!(code, 2.into());
        }
    }

    #[test]
    fn a_site_is_a_folder_or_a_cleartext_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let file = path.join("index.html");
        std::fs::write(&file, "hello").unwrap();
        let site = |text: &str| options(&[text]).map(|options| options.site);

        assert_eq!(site(path.to_str().unwrap()).unwrap(), Site::Folder(path.clone()));
        assert_eq!(site("http://a:81/").unwrap(), Site::Server("a:81".parse().unwrap()));
        assert_eq!(site("http://a").unwrap(), Site::Server("a:80".parse().unwrap()));
        let rows = [
            (file.to_str().unwrap(), "is not a folder"),
            ("./no/such/folder", "there is no such folder"),
            ("localhost:8000", "write http://localhost:8000"),
            ("http://a/path", "without a path"),
            ("ftp://a", "must be http://"),
        ];
        for (text, want) in rows {
            let (told, code) = refusal(&[text]);
            assert!(told.contains(text) && told.contains(want), "{text}: {told}");
            assert_eq!(code, 2.into(), "{text}");
        }
    }

    #[test]
    fn the_number_of_processes_is_bounded() {
        assert!(options(&["--regions", "fra,iad", "--edges", "50"]).is_ok());
        assert!(refusal(&["--regions", "fra,iad", "--edges", "51"]).0.contains("100 at most"));
    }

    #[test]
    fn a_folder_is_held_to_what_decides_its_nodes_and_not_to_ports() {
        let first = options(&["--port", "0"]).unwrap().remembered();
        let same = ["--port", "9000", "--capacity", "1GiB", "--rtt", "real"];
        let same = options(&same).unwrap().remembered();
        let other = options(&["--edges", "2", "--profile", "rfc"]).unwrap().remembered();
        assert_eq!(first.differences(&same), "");
        assert_eq!(first.differences(&other), "edges was 1, now 2; profile was cdn, now rfc");
    }
}
