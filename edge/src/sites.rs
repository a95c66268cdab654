//! Which sites this edge answers for: those of its file, and before them those that the control
//! plane names.
//!
//! A site that the control plane names replaces the one of the same name in the file; when it names
//! it no more, that one is back. What does not fit the rest of the configuration is refused as a
//! whole, and what was good before stays, on disk too (`control.state`).
//!
//! # Invariants
//! - Sites are swapped whole; a request in flight keeps the one that it began with, and its
//!   counters go on under the same name.
//! - A site whose keys are written differently from now on is purged: a URL that was purged under
//!   one way of writing would come back with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meridian_config::control_loss::ControlLoss;
use meridian_config::edge::site_value::site_from_json;
use meridian_config::edge::{Edge as EdgeConfig, Profile, Site as SiteConfig};
use meridian_config::load;
use meridian_config::site_rule::SiteRule;
use meridian_config::violation::Violations;
use meridian_control_wire::FailClosed;
use serde_json::Value;
use tracing::{info, warn};

use crate::coder::Plan;
use crate::control_lag::ControlLag;
use crate::core::Edge;
use crate::counters::SiteCounters;
use crate::error::RunError;
use crate::key::spelled;
use crate::languages::SiteLanguages;
use crate::resilience::Resilience;
use crate::route::{self, RangeRules, Site, SiteControl, Sites};
use crate::site_rules::SiteRules;
use crate::upstream::Upstream;

/// The file in `control.state`.
const FILE: &str = "sites.json";
/// The configuration keys that hold sites begin so.
const KEY: &str = "site/";

/// The sites of the file, and those that the control plane names.
pub(crate) struct SiteBook {
    file: EdgeConfig,
    cores: usize,
    named: Mutex<BTreeMap<String, SiteConfig>>,
    /// Where they are kept.
    kept: Option<PathBuf>,
    /// How old the knowledge of purges is; `None`: there is nobody to know any from.
    lag: Option<Arc<ControlLag>>,
    /// What the control plane was told of the routes, and what it is to be told.
    declared: Mutex<Declared>,
}

/// What a ping says of the routes of this edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) fail_closed: FailClosed,
    /// Which version of the sites it is about.
    version: u64,
    /// The control plane was told that all routes are closed, and not yet that they are not.
    held: bool,
}

/// Why sites are as they were.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Violations(#[from] Violations),
    #[error(transparent)]
    Unready(#[from] RunError),
}

impl SiteBook {
    /// Opens the book where it was left; what cannot be used of it is left aside.
    pub(crate) fn open(file: &EdgeConfig, cores: usize, lag: &Arc<ControlLag>) -> Self {
        let kept = file.control.as_ref().and_then(|follow| follow.state.as_ref());
        let kept = kept.map(|folder| folder.join(FILE));
        let book = Self {
            file: file.clone(),
            cores,
            named: Mutex::default(),
            kept: kept.clone(),
            lag: file.control.as_ref().map(|_| Arc::clone(lag)),
            declared: Mutex::default(),
        };
        let Some(path) = kept else { return book };
        match read(&path).map(|named| (load::check(&book.with(&named), FILE), named)) {
            Ok((Ok(()), named)) => {
                *book.named.lock().unwrap_or_else(PoisonError::into_inner) = named;
            }
            Ok((Err(violations), _)) => {
                warn!(path = %path.display(), %violations, "the sites kept here do not fit");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                warn!(path = %path.display(), %error, "the sites kept here are unreadable")
            }
        }
        book
    }

    /// The sites as they are to begin with.
    ///
    /// # Errors
    /// When one names an origin that is not there.
    pub(crate) fn first(&self, upstreams: &[Arc<Upstream>]) -> Result<Sites, RunError> {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let config = self.with(&named);
        lock(&self.declared).fail_closed = fail_closed(&config.site);
        self.ready(&config, upstreams, None, false)
    }

    /// What the next ping is to say of the routes.
    pub(crate) fn to_declare(&self) -> Declared {
        *lock(&self.declared)
    }

    /// The control plane has heard of `told`: it counts on no more than that from now on.
    pub(crate) fn declared(&self, edge: &Edge, told: Declared) {
        if !self.to_declare().held {
            return;
        }
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let mut declared = lock(&self.declared);
        if declared.version != told.version {
            return;
        }
        let config = self.with(&named);
        match self.ready(&config, &edge.upstreams, Some(&edge.sites.load()), false) {
            Ok(sites) => {
                edge.sites.store(Arc::new(sites));
                declared.held = false;
            }
            Err(error) => warn!(%error, "the sites cannot be made anew"), // they could before
        }
    }

    fn ready(
        &self,
        config: &EdgeConfig,
        upstreams: &[Arc<Upstream>],
        before: Option<&Sites>,
        held: bool,
    ) -> Result<Sites, RunError> {
        let control = self.lag.as_ref().map(|lag| (lag, held));
        sites(config, upstreams, (self.cores, control), before)
    }

    /// Obeys a configuration key of the control plane; `None`: it is gone.
    pub(crate) fn obey(&self, edge: &Edge, key: &str, value: Option<&Value>) {
        let Some(name) = key.strip_prefix(KEY) else { return };
        let change = |named: &mut BTreeMap<String, SiteConfig>| {
            match value {
                Some(value) => named.insert(name.to_owned(), site_from_json(name, value)?),
                None => named.remove(name),
            };
            Ok(())
        };
        self.change(edge, key, change);
    }

    /// Forgets every site but those of the keys in `keys`: the control plane knows no others.
    pub(crate) fn keep_only(&self, edge: &Edge, keys: &BTreeSet<String>) {
        self.change(edge, "site/*", |named| {
            named.retain(|name, _| keys.contains(&format!("{KEY}{name}")));
            Ok(())
        });
    }

    fn change(
        &self,
        edge: &Edge,
        key: &str,
        change: impl FnOnce(&mut BTreeMap<String, SiteConfig>) -> Result<(), Refusal>,
    ) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = named.clone();
        let (before, changed) = (self.with(&named), change(&mut next));
        if changed.is_ok() && next == *named {
            return;
        }
        let after = self.with(&next);
        // Who counts on all routes to be closed has to be told first that they are not.
        let mut declared = lock(&self.declared);
        let (was, will) = (declared.fail_closed, fail_closed(&after.site));
        let held = will != FailClosed::All && (declared.held || was == FailClosed::All);
        let ready = changed.and_then(|()| {
            load::check(&after, key)?;
            Ok(self.ready(&after, &edge.upstreams, Some(&edge.sites.load()), held)?)
        });
        match ready {
            Ok(sites) => {
                edge.sites.store(Arc::new(sites));
                let version = declared.version.wrapping_add(1);
                *declared = Declared { fail_closed: will, version, held };
                for name in rewritten(&before.site, &after.site) {
                    edge.purges.purge_site(name);
                }
                *named = next;
                edge.counters.site_changes.fetch_add(1, Ordering::Relaxed);
                info!(target: "event", key, "sites changed");
                self.keep(&named);
            }
            Err(refusal) => {
                edge.counters.site_refusals.fetch_add(1, Ordering::Relaxed);
                warn!(target: "event", key, %refusal, "a site is refused, the last good one stays");
            }
        }
    }

    /// The configuration with `named` before the sites of the file.
    fn with(&self, named: &BTreeMap<String, SiteConfig>) -> EdgeConfig {
        let mut config = self.file.clone();
        config.site.retain(|site| !named.contains_key(site.name.as_str()));
        config.site.extend(named.values().cloned());
        config
    }

    fn keep(&self, named: &BTreeMap<String, SiteConfig>) {
        let Some(path) = &self.kept else { return };
        if let Err(error) = write(path, named) {
            warn!(path = %path.display(), %error, "the sites cannot be kept on disk");
        }
    }
}

/// The names of sites whose keys are written differently.
fn rewritten<'s>(before: &'s [SiteConfig], after: &'s [SiteConfig]) -> Vec<&'s str> {
    let differs = |old: &&SiteConfig| {
        let new = after.iter().find(|new| new.name == old.name);
        new.is_none_or(|new| {
            new.query != old.query
                || new.preserve_host != old.preserve_host
                || !in_keys(&new.rule).eq(in_keys(&old.rule))
        })
    };
    before.iter().filter(differs).map(|site| site.name.as_str()).collect()
}

/// The rules that decide what is under which key: what they write into it, and what origins are sent.
fn in_keys(rules: &[SiteRule]) -> impl Iterator<Item = &SiteRule> {
    rules.iter().filter(|rule| {
        let lists = [&rule.key_headers, &rule.key_cookies, &rule.request_set, &rule.request_remove];
        let beside_key = !rule.when.host.is_empty()
            || !rule.when.header.is_empty()
            || !rule.when.query.is_empty();
        beside_key
            || rule.query.is_some()
            || rule.origin.is_some()
            || lists.iter().any(|list| !list.is_empty())
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which of the routes are `fail_closed`.
fn fail_closed(sites: &[SiteConfig]) -> FailClosed {
    let closed = |loss: ControlLoss| loss == ControlLoss::FailClosed;
    let all = |site: &SiteConfig| {
        let of_rules = site.rule.iter().filter_map(|rule| rule.control_loss);
        closed(site.control_loss) && of_rules.into_iter().all(closed)
    };
    let some = |site: &SiteConfig| {
        closed(site.control_loss)
            || site.rule.iter().filter_map(|rule| rule.control_loss).any(closed)
    };
    if !sites.iter().any(some) {
        FailClosed::None
    } else if sites.iter().all(all) {
        FailClosed::All
    } else {
        FailClosed::Some
    }
}

/// Makes the sites of `config` ready; those of before keep their counters.
fn sites(
    config: &EdgeConfig,
    upstreams: &[Arc<Upstream>],
    (cores, control): (usize, Option<(&Arc<ControlLag>, bool)>),
    before: Option<&Sites>,
) -> Result<Sites, RunError> {
    let ready = config.site.iter().map(|site| {
        let origins = site.origins.iter().chain(&site.backup_origins).map(|name| {
            let found = upstreams.iter().find(|upstream| upstream.name == name.as_str());
            found.cloned().ok_or_else(|| RunError::Config {
                key: format!("site {}: origins", site.name),
                value: name.to_string(),
                rule: "must be the name of an [[origin]]",
            })
        });
        let same = before.iter().flat_map(|sites| sites.all());
        let same = same.into_iter().find(|known| known.name == site.name.as_str());
        let counters = same.map_or_else(
            || (0..cores).map(|_| SiteCounters::default()).collect(),
            |known| Arc::clone(&known.counters),
        );
        let ready = Site {
            name: site.name.to_string(),
            policy: route::policy(site),
            preserve_host: site.preserve_host,
            hosts: site.hosts.iter().map(ToString::to_string).collect(),
            interim: site.interim_responses.unwrap_or(site.profile == Profile::Rfc),
            upgrade: site.upgrade.iter().map(ToString::to_string).collect(),
            expose_surrogate_fields: site.expose_surrogate_fields,
            query: site.query.clone(),
            languages: SiteLanguages::new(&site.languages),
            ranges: RangeRules::of(site, config.cache.max_body.get()),
            compression: Plan::of(site),
            rules: SiteRules::new(&site.rule, &site.origins, |text| spelled(text).into_owned()),
            control: control.map(|(lag, held)| SiteControl::of(site, lag, held)),
            shows_cache_status: site.cache_status,
            shows_key: site.cache_status_key,
            shielded: site.shielded,
            origins: origins.collect::<Result<_, _>>()?,
            resilience: Resilience::of(site),
            counters,
        };
        Ok((site.clone(), Arc::new(ready)))
    });
    Ok(Sites::new(ready.collect::<Result<_, RunError>>()?))
}

fn read(path: &Path) -> io::Result<BTreeMap<String, SiteConfig>> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Writes beside it first: what stands there is whole, whenever the power goes.
fn write(path: &Path, named: &BTreeMap<String, SiteConfig>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(&serde_json::to_vec_pretty(named)?)?;
    file.sync_all()?;
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name = \"e\"\nregion = \"fra\"\nlisten = \"127.0.0.1:1\"\n\
                        admin = \"127.0.0.1:2\"\n[peers]\no = \"o:1\"\nc = \"c:1\"\n\
                        [[origin]]\nname = \"o\"\n";
    const FILED: &str = "[[site]]\nname = \"a\"\nhosts = [\"a.example\"]\norigins = [\"o\"]\n";

    fn config(state: &Path) -> EdgeConfig {
        let control =
            format!("[control]\nreplicas = [\"c\"]\ntoken_file = \"t\"\nstate = {state:?}\n");
        toml::from_str(&format!("{HEAD}{FILED}{control}")).unwrap()
    }

    fn site(text: &str) -> SiteConfig {
        toml::from_str(text).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "any point in time will do")]
    fn start() -> std::time::Instant {
        std::time::Instant::now()
    }

    #[test]
    fn an_edge_is_closed_altogether_only_if_every_route_is() {
        let one = |name: &str, loss: &str, rule: &str| {
            let rule = if rule.is_empty() {
                String::new()
            } else {
                format!("rule = [{{ name = \"r\", control_loss = \"{rule}\" }}]")
            };
            let text = "hosts = [\"h\"]\norigins = [\"o\"]\ncontrol_loss = ";
            site(&format!("name = \"{name}\"\n{text}\"{loss}\"\n{rule}"))
        };
        let (open, closed) = ("serve_stale", "fail_closed");
        let rows = [
            (vec![], FailClosed::None),
            (vec![one("a", open, "")], FailClosed::None),
            (vec![one("a", "revalidate", open)], FailClosed::None),
            (vec![one("a", open, closed)], FailClosed::Some),
            (vec![one("a", closed, open)], FailClosed::Some),
            (vec![one("a", closed, ""), one("b", open, "")], FailClosed::Some),
            (vec![one("a", closed, closed), one("b", closed, "")], FailClosed::All),
        ];
        for (sites, want) in rows {
            assert_eq!(fail_closed(&sites), want, "{sites:?}");
        }
    }

    /// The hosts that a book opened over `kept` answers for.
    fn hosts(kept: Option<&BTreeMap<String, SiteConfig>>) -> Vec<String> {
        let state = tempfile::tempdir().unwrap();
        if let Some(kept) = kept {
            write(&state.path().join(FILE), kept).unwrap();
        }
        let config = config(state.path());
        let lag = Arc::new(ControlLag::new(start()));
        let book = SiteBook::open(&config, 1, &lag);
        let named = book.named.lock().unwrap();
        let mut hosts: Vec<String> =
            book.with(&named).site.iter().flat_map(|s| &s.hosts).map(ToString::to_string).collect();
        hosts.sort();
        hosts
    }

    #[test]
    fn a_book_begins_where_it_was_left_or_with_the_sites_of_the_file() {
        let named = |name: &str, hosts: &str, origin: &str| {
            let text = format!("name = \"{name}\"\nhosts = [{hosts}]\norigins = [\"{origin}\"]");
            BTreeMap::from([(name.to_owned(), site(&text))])
        };
        assert_eq!(hosts(None), ["a.example"]);
        let rows: [(_, &[&str]); 4] = [
            (named("b", "\"b.example\"", "o"), &["a.example", "b.example"]),
            (named("a", "\"new.example\"", "o"), &["new.example"]),
            (named("b", "\"b.example\"", "gone"), &["a.example"]), // does not fit any more
            (named("b", "\"a.example\"", "o"), &["a.example"]), // nor does this: the host is taken
        ];
        for (kept, want) in rows {
            assert_eq!(hosts(Some(&kept)), want, "{kept:?}");
        }
    }

    #[test]
    fn sites_whose_keys_change_or_that_go_are_told() {
        let base = "hosts = [\"h\"]\norigins = [\"o\"]";
        let sites = |texts: &[String]| texts.iter().map(|text| site(text)).collect::<Vec<_>>();
        let one = |name: &str, more: &str| format!("name = \"{name}\"\n{base}\n{more}");
        let before = sites(&[one("a", ""), one("b", ""), one("c", ""), one("d", "")]);
        let after = sites(&[
            one("a", "query = { sort = true }"),
            one("b", "preserve_host = true"),
            one("c", "default_lifetime = \"1m\""),
        ]);
        assert_eq!(rewritten(&before, &after), ["a", "b", "d"]);
        let rule = |does: &str| format!("rule = [{{ name = \"r\", {does} }}]");
        let before = sites(&[one("a", ""), one("b", ""), one("c", "")]);
        let after = sites(&[
            one("a", &rule("key_cookies = [\"c\"]")),
            one("b", &rule("request_set = [\"a: b\"]")),
            one("c", &rule("edge_lifetime = \"1m\"")), // what is stored keeps its own
        ]);
        assert_eq!(rewritten(&before, &after), ["a", "b"]);
    }
}
