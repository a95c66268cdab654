//! Purges as the control plane tells them: put into this edge's own terms, applied once each.
//!
//! A selector names hosts and URLs as people write them. Only here is it known which site answers
//! to a host, and how that site writes its keys, so the very code that makes keys reads selectors.
//! What cannot be told exactly purges more, never less.
//!
//! # Invariants
//! - An operation is applied once, however often it comes, as long as its id is remembered
//!   (`purge.max_operations`); after that it is applied once more, which costs fetches only.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, Uri};
use meridian_control_wire::operation::Operation;
use meridian_control_wire::selector::Selector as Told;
use tracing::warn;

use crate::epochs::Epochs;
use crate::key;
use crate::route::{self, Sites};
use crate::scope::{Selector, Strength};
use crate::settle;

/// What this edge has been told to purge.
pub(crate) struct Purges {
    epochs: Arc<Epochs>,
    known: Mutex<Known>,
    max_operations: usize,
    pub(crate) counters: Counters,
}

/// What is counted of purges.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) applied: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) dropped_all: AtomicU64,
    pub(crate) snapshots: AtomicU64,
    pub(crate) swept: AtomicU64,
}

/// The operations that were applied last, the oldest first.
#[derive(Debug, Default)]
struct Known {
    ids: HashSet<Arc<str>>,
    order: VecDeque<(u64, Arc<str>)>,
}

/// A selector in this edge's terms.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    All,
    Site(String),
    /// By its key.
    Url(String),
    Prefix(Option<String>, String),
    Tag(String),
}

impl Named {
    fn selector(&self) -> Selector<'_> {
        match self {
            Self::All => Selector::All,
            Self::Site(site) => Selector::Site(site),
            Self::Url(key) => Selector::Url(key::place(key)),
            Self::Prefix(site, path) => Selector::Prefix { site: site.as_deref(), path },
            Self::Tag(tag) => Selector::Tag(tag),
        }
    }
}

impl Purges {
    pub(crate) fn new(epochs: Arc<Epochs>, max_operations: usize) -> Self {
        let (known, counters) = (Mutex::default(), Counters::default());
        Self { epochs, known, max_operations, counters }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies `operation`, unless it was applied before.
    pub(crate) fn apply(&self, sites: &Sites, operation: &Operation) {
        let mut known = self.known();
        if known.ids.contains(operation.id.as_str()) {
            self.counters.repeated.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let epoch = self.purge(sites, &operation.selectors, operation.soft);
        self.counters.applied.fetch_add(1, Ordering::Relaxed);
        let id: Arc<str> = operation.id.as_str().into();
        known.ids.insert(Arc::clone(&id));
        known.order.push_back((epoch, id));
        if known.order.len() > self.max_operations
            && let Some((_, oldest)) = known.order.pop_front()
        {
            known.ids.remove(&oldest);
        }
    }

    /// Applies what stands in a snapshot, and returns its number.
    pub(crate) fn purge(&self, sites: &Sites, told: &[Told], soft: bool) -> u64 {
        let named: Vec<Named> = told.iter().filter_map(|told| self.read(sites, told)).collect();
        let strength = if soft { Strength::Soft } else { Strength::Hard };
        self.epochs.apply(named.iter().map(Named::selector), strength)
    }

    /// Nothing that is stored can be trusted.
    pub(crate) fn purge_all(&self) {
        self.counters.dropped_all.fetch_add(1, Ordering::Relaxed);
        self.epochs.apply([Selector::All], Strength::Hard);
    }

    /// Nothing that is stored for the site can be found under its keys any more.
    pub(crate) fn purge_site(&self, site: &str) {
        self.epochs.apply([Selector::Site(site)], Strength::Hard);
    }

    /// Operations applied since the start.
    pub(crate) fn applied(&self) -> u64 {
        self.counters.applied.load(Ordering::Relaxed)
    }

    /// The operation that got the number `epoch`, as long as it is remembered.
    pub(crate) fn operation(&self, epoch: u64) -> Option<String> {
        let known = self.known();
        let at = known.order.binary_search_by_key(&epoch, |(epoch, _)| *epoch).ok()?;
        known.order.get(at).map(|(_, id)| id.to_string())
    }

    fn read(&self, sites: &Sites, told: &Told) -> Option<Named> {
        match named(sites, told) {
            Ok(named) => named,
            Err(why) => {
                self.counters.unreadable.fetch_add(1, Ordering::Relaxed);
                warn!(kind = told.kind(), %why, "a selector that no request can match");
                None
            }
        }
    }
}

/// What `told` means here; `None`: nothing, as no site answers to its host.
fn named(sites: &Sites, told: &Told) -> Result<Option<Named>, http::uri::InvalidUri> {
    let at = |host: Option<&str>| sites.route(host.and_then(route::without_port));
    Ok(match told {
        Told::All => Some(Named::All),
        Told::Host(host) => at(Some(host)).map(|site| Named::Site(site.name.clone())),
        Told::Tag(tag) => Some(Named::Tag(tag.clone())),
        Told::Prefix { host: None, path } => Some(Named::Prefix(None, key::prefix(path))),
        Told::Prefix { host: Some(host), path } => {
            at(Some(host)).map(|site| Named::Prefix(Some(site.name.clone()), key::prefix(path)))
        }
        Told::Url(url) => {
            let is_whole = url.starts_with('/') || url.contains("://");
            let uri: Uri = if is_whole { url.parse()? } else { format!("http://{url}").parse()? };
            let authority = uri.authority().map(http::uri::Authority::as_str);
            at(authority).map(|site| {
                if site.preserve_host && authority.is_none() {
                    // Its hosts are part of its keys, and none was named.
                    return Named::Prefix(Some(site.name.clone()), key::prefix(uri.path()));
                }
                let (mut key, fields) = (String::new(), HeaderMap::new());
                let matched = settle::matched_by_url(site, &uri);
                settle::write_key_at(&mut key, site, ("http", authority), &uri, &fields, matched);
                Named::Url(key)
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use meridian_config::edge::Site as SiteConfig;
    use meridian_config::query::Query;

    use super::*;
    use crate::epochs::{Limits, Newest};
    use crate::key::{Parts, write_key};
    use crate::languages::SiteLanguages;
    use crate::resilience::Resilience;
    use crate::route::{RangeRules, Site, policy};
    use crate::scope::Place;
    use crate::site_rules::SiteRules;

    fn sites() -> Sites {
        let site = |text: &str| {
            let config: SiteConfig = toml::from_str(text).unwrap();
            let site = Site {
                name: config.name.to_string(),
                policy: policy(&config),
                preserve_host: config.preserve_host,
                hosts: config.hosts.iter().map(ToString::to_string).collect(),
                upgrade: Vec::new(),
                interim: false,
                expose_surrogate_fields: false,
                query: config.query.clone(),
                languages: SiteLanguages::default(),
                ranges: RangeRules::of(&config, u64::MAX),
                compression: None,
                rules: SiteRules::new(&config.rule, &config.origins, str::to_owned),
                control: None,
                shows_cache_status: true,
                shows_key: false,
                shielded: false,
                origins: Vec::new(),
                resilience: Resilience::of(&config),
                counters: Arc::default(),
            };
            (config, Arc::new(site))
        };
        Sites::new(vec![
            site("name = \"default\"\ndefault = true\norigins = []"),
            site(
                "name = \"shop\"\nhosts = [\"shop.example\"]\norigins = []\n\
                 query = { drop = [\"utm_*\"], sort = true }",
            ),
            site("name = \"many\"\nhosts = [\"many.example\"]\npreserve_host = true\norigins = []"),
        ])
    }

    fn purges(max_operations: usize) -> Purges {
        Purges::new(Epochs::new(Limits { selectors: 1_000, shards: 4 }, 1), max_operations)
    }

    fn operation(id: &str, selector: &str) -> Operation {
        let text = format!(r#"{{"id":"{id}","selectors":[{selector}],"soft":false,"at_ms":0}}"#);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn selectors_are_read_as_the_keys_of_requests_are_written() {
        let site = |name: &str| Some(Named::Site(name.to_owned()));
        let url = |key: &str| Some(Named::Url(key.to_owned()));
        let prefix = |site: Option<&str>, path: &str| {
            Some(Named::Prefix(site.map(str::to_owned), path.to_owned()))
        };
        let rows = [
            (r#"{"all":true}"#, Some(Named::All)),
            (r#"{"tag":"a"}"#, Some(Named::Tag("a".to_owned()))),
            (r#"{"host":"shop.example"}"#, site("shop")),
            (r#"{"host":"SHOP.example.:8080"}"#, site("shop")),
            (r#"{"host":"127.0.0.1:8080"}"#, site("default")),
            (r#"{"host":"[::1]:8080"}"#, site("default")),
            (r#"{"url":"/a?b=1"}"#, url("default http  /a?b=1")),
            (r#"{"url":"http://127.0.0.1:8080/a"}"#, url("default http  /a")),
            (
                r#"{"url":"https://shop.example/%61?utm_x=1&b=2&a=1#top"}"#,
                url("shop http  /a?a=1&b=2"),
            ),
            (r#"{"url":"shop.example/a"}"#, url("shop http  /a")),
            (r#"{"url":"http://shop.example"}"#, url("shop http  /")),
            (r#"{"url":"http://Many.example:81/a"}"#, url("many http many.example:81 /a")),
            (r#"{"prefix":"/im"}"#, prefix(None, "/im")),
            (r#"{"prefix":"shop.example/%69m"}"#, prefix(Some("shop"), "/im")),
            (r#"{"prefix":"http://many.example/"}"#, prefix(Some("many"), "/")),
        ];
        let sites = sites();
        for (told, want) in rows {
            let told: Told = serde_json::from_str(told).unwrap();
            assert_eq!(named(&sites, &told).unwrap(), want, "{told:?}");
        }
    }

    #[test]
    fn without_a_site_for_its_host_a_selector_means_nothing() {
        let sites = Sites::new(Vec::new());
        for told in [r#"{"host":"a"}"#, r#"{"url":"/a"}"#, r#"{"prefix":"a/b"}"#] {
            let told: Told = serde_json::from_str(told).unwrap();
            assert_eq!(named(&sites, &told).unwrap(), None, "{told:?}");
        }
    }

    #[test]
    fn an_operation_that_comes_again_changes_nothing_while_it_is_remembered() {
        let (purges, sites) = (purges(2), sites());
        let first = operation("first", r#"{"tag":"a"}"#);
        purges.apply(&sites, &first);
        purges.apply(&sites, &first);
        assert_eq!(purges.epochs.of(Selector::Tag("a")), Newest { hard: 1, soft: 0 });
        assert_eq!((purges.applied(), purges.epochs.current()), (1, 1));
        purges.apply(&sites, &operation("second", r#"{"url":"/b"}"#));
        assert_eq!(purges.operation(1).as_deref(), Some("first"));
        purges.apply(&sites, &operation("third", r#"{"tag":"c"}"#));
        assert_eq!(purges.operation(1), None);
        assert_eq!(purges.operation(3).as_deref(), Some("third"));
        purges.apply(&sites, &first); // forgotten by now: the safe side
        assert_eq!(purges.epochs.of(Selector::Tag("a")), Newest { hard: 4, soft: 0 });
    }

    #[test]
    fn what_is_stored_under_a_key_is_what_its_url_purges() {
        let (purges, sites) = (purges(10), sites());
        purges.apply(&sites, &operation("x", r#"{"url":"http://shop.example/a?b=2&a=1"}"#));
        let shop = sites.route(Some("shop.example")).unwrap();
        let newest = |query: &str| {
            let mut key = String::new();
            let query = Some(query);
            let parts = Parts { site: &shop.name, scheme: "https", host: None, path: "/a", query };
            write_key(&mut key, &parts, &shop.query);
            purges.epochs.newest(&key::place(&key), &crate::epochs::Tags::default()).hard
        };
        assert_eq!(newest("a=1&utm_id=7&b=2"), 1);
        assert_eq!(newest("a=1"), 0);
        let other = Place { site: "default", host: "", target: "/a?a=1&b=2" };
        assert_eq!(purges.epochs.newest(&other, &crate::epochs::Tags::default()).hard, 0);
        assert!(!shop.preserve_host && shop.query != Query::default());
    }
}
