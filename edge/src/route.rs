//! From the host of a request to its site, with everything that is settled once per site.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use meridian_config::control_loss::ControlLoss;
use meridian_config::edge::{Profile, RangeFill, Site as SiteConfig};
use meridian_config::query::Query;
use meridian_edge_rules::authority::is_authority;
use meridian_edge_rules::cache_status::CacheStatus;
use meridian_edge_rules::policy::{Negative, Policy};

use crate::coder::Plan as Coding;
use crate::control_lag::{ControlLag, Limit, Plan};
use crate::counters::SiteCounters;
use crate::languages::SiteLanguages;
use crate::resilience::Resilience;
use crate::site_rules::{Matched, SiteRules};
use crate::upstream::Upstream;

/// A site, ready to be served.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) policy: Policy,
    pub(crate) preserve_host: bool,
    /// The hosts that it answers to by name.
    pub(crate) hosts: Vec<String>,
    pub(crate) expose_surrogate_fields: bool,
    pub(crate) query: Query,
    pub(crate) languages: SiteLanguages,
    /// Protocols that clients may change to.
    pub(crate) upgrade: Vec<String>,
    /// Whether interim responses go on to clients.
    pub(crate) interim: bool,
    pub(crate) ranges: RangeRules,
    /// What is coded of its stored responses.
    pub(crate) compression: Option<Coding>,
    /// What it does otherwise for some requests.
    pub(crate) rules: SiteRules,
    /// What it does while purges may have been missed; `None`: there is nobody to tell any.
    pub(crate) control: Option<SiteControl>,
    /// Whether clients are told by `Cache-Status`, and the key, too.
    pub(crate) shows_cache_status: bool,
    pub(crate) shows_key: bool,
    /// Whether shields are asked before them.
    pub(crate) shielded: bool,
    /// In order of preference, its backups last.
    pub(crate) origins: Vec<Arc<Upstream>>,
    pub(crate) resilience: Resilience,
    /// One per core.
    pub(crate) counters: Arc<[SiteCounters]>,
}

/// What a site does while purges may have been missed.
pub(crate) struct SiteControl {
    pub(crate) lag: Arc<ControlLag>,
    pub(crate) plan: Plan,
    /// Its routes are all `fail_closed`, whatever they say: the control plane counts on it still.
    pub(crate) held: bool,
}

impl SiteControl {
    /// What a site's configuration asks for.
    pub(crate) fn of(site: &SiteConfig, lag: &Arc<ControlLag>, held: bool) -> Self {
        let limit = Limit::of(site.max_control_lag.get());
        Self { lag: Arc::clone(lag), plan: Plan { loss: site.control_loss, limit }, held }
    }

    /// What is done for requests that these rules match, and when.
    pub(crate) fn plan(&self, rules: &SiteRules, matched: Matched) -> Plan {
        let plan = rules.control(matched, self.plan);
        if self.held { Plan { loss: ControlLoss::FailClosed, ..plan } } else { plan }
    }
}

/// What a client's `Range` makes the edge do where that is not stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RangeRules {
    pub(crate) fill: RangeFill,
    /// Of a slice.
    pub(crate) slice_size: u64,
    /// Further than this beyond what has arrived a range is fetched by itself.
    pub(crate) skip: u64,
    /// Stores what came of a 206 that is shorter than it says.
    pub(crate) store_short: bool,
}

impl RangeRules {
    /// What a site's configuration asks for, where no body larger than `max_body` is stored.
    pub(crate) fn of(site: &SiteConfig, max_body: u64) -> Self {
        let is_rfc = site.profile == Profile::Rfc;
        Self {
            fill: site.range_fill.unwrap_or(if is_rfc {
                RangeFill::Pass
            } else {
                RangeFill::Whole
            }),
            slice_size: site.slice_size.get().min(max_body).max(1),
            skip: site.range_skip.get(),
            store_short: site.store_short_parts.unwrap_or(is_rfc),
        }
    }
}

impl Site {
    /// The origins that are asked for requests that these rules match, in order of preference.
    pub(crate) fn origins_for(&self, matched: Matched) -> &[Arc<Upstream>] {
        let only = self.rules.origin(matched).and_then(|at| self.origins.get(at..=at));
        only.unwrap_or(&self.origins)
    }

    /// What it does with stored responses for requests that these rules match, if it knows too
    /// little of purges now.
    pub(crate) fn lost(&self, matched: Matched, now: Instant) -> Option<ControlLoss> {
        let control = self.control.as_ref()?;
        let plan = control.plan(&self.rules, matched);
        (!control.lag.is_within(plan, now)).then_some(plan.loss)
    }

    /// For how long that may have been unknown.
    pub(crate) fn max_control_lag(&self, matched: Matched) -> Duration {
        let control = self.control.as_ref();
        control.map_or(Duration::MAX, |control| control.plan(&self.rules, matched).limit.shown())
    }

    /// How little that is, in the words of `Cache-Status`.
    pub(crate) fn lag_in_words(&self, now: Instant) -> Option<String> {
        self.control.as_ref().map(|control| control.lag.words(now))
    }

    /// What `Cache-Status` begins with, at the edge of this name, for what has this key.
    pub(crate) fn cache_status<'a>(&self, edge: &'a str, key: Option<&'a str>) -> CacheStatus<'a> {
        CacheStatus {
            hidden: !self.shows_cache_status,
            cache: edge,
            key: key.filter(|_| self.shows_key),
            ..CacheStatus::default()
        }
    }
}

/// The policy that a site's configuration asks for.
pub(crate) fn policy(site: &SiteConfig) -> Policy {
    let mut policy = match site.profile {
        Profile::Cdn => Policy::cdn(),
        Profile::Rfc => Policy::rfc(),
    };
    policy.default_lifetime = site.default_lifetime.map(|lifetime| lifetime.get());
    if let Some(max) = site.heuristic_max {
        policy.heuristic_max = max.get();
    }
    if let Some(stores) = site.store_set_cookie {
        policy.store_set_cookie = stores;
    }
    if let Some(stores) = site.store_provoked_errors {
        policy.store_provoked_errors = stores;
    }
    if let Some(honours) = site.honour_client_directives {
        policy.honour_client_directives = honours;
    }
    if let Some(stale) = site.stale_if_error {
        policy.stale_if_error = stale.get();
    }
    if let Some(max) = site.stale_max {
        policy.stale_max = max.get();
    }
    if let Some(stale) = site.stale_if_disconnected {
        policy.stale_if_disconnected = stale.get();
    }
    if let Some(negative) = &site.negative {
        let ranges = negative.iter().map(|(of, lifetime)| (of.first(), of.last(), lifetime.get()));
        policy.negative = Negative::new(ranges);
    }
    let set = |switch: &mut bool, said: Option<bool>| *switch = said.unwrap_or(*switch);
    set(&mut policy.stale_beside_s_maxage, site.stale_beside_s_maxage);
    set(&mut policy.targeted, site.obey_cdn_cache_control);
    set(&mut policy.surrogate_control, site.obey_surrogate_control);
    set(&mut policy.store_post, site.store_post);
    set(&mut policy.language.order, site.language_order);
    set(&mut policy.language.content, site.match_content_language);
    if let Some(fraction) = site.heuristic_fraction {
        policy.heuristic_fraction = fraction.get();
    }
    policy
}

/// All sites of an edge.
pub(crate) struct Sites {
    by_host: HashMap<String, Arc<Site>, FixedState>,
    default: Option<Arc<Site>>,
    all: Vec<Arc<Site>>,
}

impl Sites {
    pub(crate) fn new(configured: Vec<(SiteConfig, Arc<Site>)>) -> Self {
        let mut sites = Self { by_host: HashMap::default(), default: None, all: Vec::default() };
        for (config, site) in configured {
            for host in &config.hosts {
                sites.by_host.insert(host.as_str().to_owned(), Arc::clone(&site));
            }
            if config.default {
                sites.default = Some(Arc::clone(&site));
            }
            sites.all.push(site);
        }
        sites
    }

    /// The site that answers to `host` (without port), else the default site.
    pub(crate) fn route(&self, host: Option<&str>) -> Option<&Arc<Site>> {
        if self.by_host.is_empty() {
            return self.default.as_ref();
        }
        let claimed = host.and_then(|host| {
            let host = host.trim_end_matches('.');
            self.by_host.get(host).or_else(|| {
                let lower = host.to_ascii_lowercase();
                self.by_host.get(&lower)
            })
        });
        claimed.or(self.default.as_ref())
    }

    /// The site of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Site>> {
        self.all.iter().find(|site| site.name == name)
    }

    pub(crate) fn all(&self) -> &[Arc<Site>] {
        &self.all
    }
}

/// The host that a request is for, without its port: the target's authority where it has one,
/// else the `Host` field (RFC 9110 §7.2, RFC 9112 §3.2.2).
pub(crate) fn host<'a>(target: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match target.authority() {
        Some(authority) => Some(authority.host()),
        None => without_port(headers.get(header::HOST)?.to_str().ok()?),
    }
}

/// The host with its port, as the client wrote it.
pub(crate) fn authority<'a>(target: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match target.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(header::HOST)?.to_str().ok(),
    }
}

/// Which rule the target of a request breaks, if any: all but `OPTIONS *` is about a path
/// (RFC 9112 §3.2). `CONNECT` is none of this.
pub(crate) fn broken_target<B>(request: &Request<B>) -> Option<&'static str> {
    let path = request.uri().path();
    if request.uri().scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Some("the target's scheme must be http or https");
    }
    let of_server = path == "*" && *request.method() == Method::OPTIONS;
    let is_sound = path.starts_with('/') || of_server;
    (!is_sound).then_some("the target must be a path or a URL with one")
}

/// A host with its port in the one spelling that stands for all: lower case, no dot at the end, and
/// no port where it is the default one (RFC 9110 §4.2.3).
pub(crate) fn folded(authority: &str) -> String {
    let host = without_port(authority).unwrap_or_default();
    let port = authority.get(host.len()..).unwrap_or_default();
    let port = if matches!(port, ":" | ":80") { "" } else { port };
    format!("{}{port}", host.trim_end_matches('.')).to_ascii_lowercase()
}

/// Which rule the host of a request breaks, if any: HTTP/1.1 demands exactly one `Host` field
/// (RFC 9112 §3.2), whatever says the host must be readable as one, and in HTTP/2 two that do must
/// say the same (RFC 9113 §8.3.1).
pub(crate) fn broken_host<B>(request: &Request<B>) -> Option<&'static str> {
    let mut fields = request.headers().get_all(header::HOST).iter();
    let (field, authority) = (fields.next(), request.uri().authority());
    if fields.next().is_some() {
        return Some("a request has one Host field, not several");
    }
    if field.is_none() && request.version() == Version::HTTP_11 {
        return Some("a request of HTTP/1.1 has a Host field");
    }
    if authority.is_some_and(|authority| !is_authority(authority.as_str().as_bytes())) {
        return Some("the authority must be a host and perhaps a port");
    }
    // Empty is allowed: it is what a target without an authority has.
    if field.is_some_and(|field| !field.is_empty() && !is_authority(field.as_bytes())) {
        return Some("the Host field must be a host and perhaps a port");
    }
    if request.version() != Version::HTTP_2 {
        return None; // in HTTP/1 the target's own authority wins (RFC 9112 §3.2.2)
    }
    match (field.map(HeaderValue::to_str), authority) {
        (None, None) => Some("a request of HTTP/2 names its host"),
        (Some(Ok(field)), Some(authority)) if folded(field) != folded(authority.as_str()) => {
            Some("the Host field and :authority must name the same host")
        }
        (None | Some(_), None | Some(_)) => None,
    }
}

pub(crate) fn without_port(host: &str) -> Option<&str> {
    let end = match host.strip_prefix('[') {
        Some(inner) => inner.find(']')? + 2,
        None => host.find(':').unwrap_or(host.len()),
    };
    host.get(..end).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use meridian_config::units::{HumanDuration, Ratio};
    use meridian_edge_rules::language::Reading;

    #[test]
    fn spellings_of_one_host_fold_together() {
        let rows = [
            ("Shop.Example", "shop.example"),
            ("shop.example.", "shop.example"),
            ("SHOP.example.:8080", "shop.example:8080"),
            ("shop.example:80", "shop.example"),
            ("shop.example.:", "shop.example"),
            ("shop.example:800", "shop.example:800"),
            ("[::1]:80", "[::1]"),
            ("[2001:DB8::1]:8080", "[2001:db8::1]:8080"),
            ("", ""),
        ];
        for (authority, want) in rows {
            assert_eq!(folded(authority), want, "{authority}");
        }
    }

    #[test]
    fn the_host_is_taken_from_the_target_before_the_field() {
        let rows = [
            ("/a", Some("shop.example"), Some("shop.example")),
            ("/a", Some("shop.example:8080"), Some("shop.example")),
            ("/a", Some("[::1]:8080"), Some("[::1]")),
            ("/a", Some(""), None),
            ("/a", None, None),
            ("http://abs.example:81/a", Some("field.example"), Some("abs.example")),
        ];
        for (target, field, want) in rows {
            let mut headers = HeaderMap::new();
            if let Some(field) = field {
                headers.insert(header::HOST, field.parse().unwrap());
            }
            let target: Uri = target.parse().unwrap();
            assert_eq!(host(&target, &headers), want, "{target} {field:?}");
        }
    }

    /// A site of `profile` that says every key as `policy` has it.
    fn spelled_out(profile: Profile, policy: &Policy) -> SiteConfig {
        // A switch that is added breaks this until it has a key.
        let Policy {
            heuristic_fraction,
            heuristic_max,
            default_lifetime,
            store_set_cookie,
            store_provoked_errors,
            honour_client_directives,
            stale_if_error,
            stale_if_disconnected,
            stale_max,
            stale_beside_s_maxage,
            surrogate_control,
            targeted,
            store_post,
            language: Reading { order, content },
            negative,
            ruled: _, // by its rules, response by response
        } = policy.clone();
        let time = |time: Duration| Some(HumanDuration::from(time));
        let codes = (200..600_u16).map(|code| http::StatusCode::from_u16(code).unwrap());
        let negative = codes.filter_map(|code| {
            let lifetime = negative.lifetime(code)?;
            Some((code.as_str().parse().unwrap(), lifetime.into()))
        });
        SiteConfig {
            profile,
            heuristic_fraction: Some(Ratio::new(heuristic_fraction)),
            heuristic_max: time(heuristic_max),
            default_lifetime: default_lifetime.map(HumanDuration::from),
            store_set_cookie: Some(store_set_cookie),
            store_provoked_errors: Some(store_provoked_errors),
            honour_client_directives: Some(honour_client_directives),
            stale_if_error: time(stale_if_error),
            stale_if_disconnected: time(stale_if_disconnected),
            stale_max: time(stale_max),
            stale_beside_s_maxage: Some(stale_beside_s_maxage),
            obey_surrogate_control: Some(surrogate_control),
            obey_cdn_cache_control: Some(targeted),
            store_post: Some(store_post),
            language_order: Some(order),
            match_content_language: Some(content),
            negative: Some(negative.collect()),
            ..toml::from_str("name = \"s\"\norigins = []").unwrap()
        }
    }

    /// With the lifetimes by status written out one by one.
    fn comparable(mut policy: Policy) -> (Policy, Vec<Option<Duration>>) {
        let negative = std::mem::take(&mut policy.negative);
        let codes = (200..600_u16).map(|code| http::StatusCode::from_u16(code).unwrap());
        (policy, codes.map(|code| negative.lifetime(code)).collect())
    }

    #[test]
    fn a_profile_is_nothing_but_a_set_of_defaults() {
        assert_ne!(comparable(Policy::cdn()), comparable(Policy::rfc()));
        for profile in [Profile::Cdn, Profile::Rfc] {
            for wanted in [Policy::cdn(), Policy::rfc()] {
                let got = policy(&spelled_out(profile, &wanted));
                assert_eq!(comparable(got), comparable(wanted), "{profile:?}");
            }
        }
    }
}
