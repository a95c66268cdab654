//! The rules of an edge that its types cannot say.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;

use crate::control_loss::{LEAST_LAG, MOST_LAG};
use crate::edge::resilience::FirstByte;
use crate::edge::{Accept, Cache, Edge, Follow, Purge, Site, Upstream};
use crate::limits::{
    guarded, listeners_differ, path, reachable, replicas, time_limit, tokens, unique, within,
};
use crate::places::place;
use crate::role::{Role, resolve};
use crate::site_rule::check::check_rules;
use crate::units::{ByteSize, HumanDuration, Language, NodeName, Protocol, SiteName};
use crate::violation::{Place, Violation};

/// What any lifetime or staleness may be at most: a year, which HTTP has long named as the longest
/// that a server should send (RFC 2616 §14.21), and which stands for "for ever".
const LONGEST_LIFETIME: HumanDuration = HumanDuration::secs(365 * 86_400);

/// Each is compared with what a client sends.
const MOST_LANGUAGES: usize = 64;

impl Role for Edge {
    const NAME: &'static str = "edge";

    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        listeners_differ(at, self.listen, self.admin, found);
        guarded(at, "admin", self.admin, &self.token, found);
        tokens(at, &self.token, found);
        self.check_place(at, found);
        if let Some(cores) = self.cores {
            let most = NonZeroU16::new(1_024).unwrap_or(NonZeroU16::MAX);
            within(&at.key("cores"), cores, NonZeroU16::MIN, most, found);
        }
        for (key, url) in [("public_url", &self.public_url), ("admin_url", &self.admin_url)] {
            if let Some(url) = url.as_ref().filter(|url| !is_base_url(url)) {
                let rule = "must be http:// or https:// and a host, such as \"http://fra-1:80\"";
                found.push(at.key(key).breaks(url, rule));
            }
        }
        self.accept.check(&at.key("accept"), found);
        self.cache.check(&at.key("cache"), found);
        self.compression.check(&at.key("compression"), found);
        self.purge.check(&at.key("purge"), found);
        if let Some(follow) = &self.control {
            self.check_follow(follow, at, found);
        }
        self.check_origins(at, found);
        if let Some(shield) = &self.shield {
            shield.check(self, at, found);
        }
        self.check_sites(at, found);
    }

    fn resolve(&mut self, folder: &Path) {
        for token in &mut self.token {
            resolve(&mut token.file, folder);
        }
        if let Some(follow) = &mut self.control {
            resolve(&mut follow.token_file, folder);
            if let Some(state) = &mut follow.state {
                resolve(state, folder);
            }
        }
        if let Some(shield) = &mut self.shield {
            resolve(&mut shield.secret_file, folder);
        }
    }
}

impl Edge {
    fn check_place(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        if let Some(location) = self.location {
            if !location.is_on_earth() {
                let rule = "must be a latitude from -90 to 90 and a longitude from -180 to 180";
                found.push(at.key("location").breaks(&location, rule));
            }
        } else if self.control.is_some() && place(self.region.as_str()).is_none() {
            let rule = "is not in the table of places: clients can be steered here only if \
                        location = [latitude, longitude] is given too";
            let region = at.key("region").breaks(&self.region, rule);
            found.push(region.with(&at.key("location")));
        }
        if let Some(city) = &self.city
            && (city.is_empty() || city.len() > 100 || city.chars().any(char::is_control))
        {
            let rule = "must be 1-100 bytes of text without control characters";
            found.push(at.key("city").breaks(city, rule));
        }
    }

    fn check_follow(&self, follow: &Follow, at: &Place<'_>, found: &mut Vec<Violation>) {
        let here = at.key("control");
        replicas(at, &here.key("replicas"), &follow.replicas, &self.peers, found);
        path(&here.key("token_file"), &follow.token_file, found);
        if let Some(state) = &follow.state {
            path(&here.key("state"), state, found);
        }
        time_limit(&here.key("beat"), follow.beat, HumanDuration::secs(60), found);
        let (least, most) = (HumanDuration::secs(0), HumanDuration::secs(1));
        within(&here.key("ack_pause"), follow.ack_pause, least, most, found);
        let (least, most) = (HumanDuration::millis(100), HumanDuration::secs(60));
        within(&here.key("patience"), follow.patience, least, most, found);
    }

    fn check_origins(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let here = at.key("origin");
        unique(&here, Some("name"), self.origin.iter().map(|origin| origin.name.as_str()), found);
        for (index, origin) in self.origin.iter().enumerate() {
            let here = here.index(index);
            reachable(at, &here.key("name"), &origin.name, &self.peers, found);
            origin.check(&here, found);
        }
    }

    fn check_sites(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let here = at.key("site");
        unique(&here, Some("name"), self.site.iter().map(|site| site.name.as_str()), found);
        let mut default: Option<(usize, &SiteName)> = None;
        let mut claimed = BTreeMap::new();
        for (index, site) in self.site.iter().enumerate() {
            let place = here.index(index);
            if let Some((first, name)) = default.filter(|_| site.default) {
                let rule = format!("must be true for one site only, and site {name} is it already");
                let violation = place.key("default").breaks(&true, rule);
                found.push(violation.with(&here.index(first).key("default")));
            } else if site.default {
                default = Some((index, &site.name));
            }
            for (position, host) in site.hosts.iter().enumerate() {
                let place = place.key("hosts").index(position);
                if let Some((owner, first)) = claimed.get(host) {
                    let rule = format!("is claimed by site {owner} already");
                    found.push(place.breaks(host, rule).with(first));
                } else {
                    claimed.insert(host, (&site.name, place));
                }
            }
            site.check(&self.origin, at, &place, found);
        }
    }
}

/// Whether `url` is a scheme and an authority, with nothing behind but a slash.
fn is_base_url(url: &str) -> bool {
    let authority = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(authority) = authority.map(|rest| rest.strip_suffix('/').unwrap_or(rest)) else {
        return false;
    };
    let named = authority.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()),
        _ => (authority, Some(0)),
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    named && !host.is_empty() && port.is_some() && (bracketed || !host.contains([':', '[', ']']))
}

impl Accept {
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let count = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let key = |name: &str| at.key(name);
        let one = NonZeroU32::MIN;
        // Beyond a million, ports and kernel tables end before memory does.
        within(&key("max_connections"), self.max_connections, one, count(1_000_000), found);
        // The signed 31 bits of RFC 9113 §5.1.1 leave less than this anyway.
        within(&key("max_streams"), self.max_streams, one, count(65_536), found);
        // Common servers take 8KiB at least; a megabyte of head is an attack.
        let (least, most) = (ByteSize::kib(8), ByteSize::mib(1));
        within(&key("head_size"), self.head_size, least, most, found);
        // hyper takes no target of 64KiB or more, whatever stands here.
        within(&key("target_size"), self.target_size, ByteSize::kib(1), ByteSize::kib(63), found);
        let most = NonZeroU16::new(4_096).unwrap_or(NonZeroU16::MAX);
        within(&key("head_fields"), self.head_fields, NonZeroU16::MIN, most, found);
        time_limit(&key("head_timeout"), self.head_timeout, HumanDuration::secs(300), found);
        time_limit(&key("idle_timeout"), self.idle_timeout, HumanDuration::secs(3_600), found);
        time_limit(&key("send_timeout"), self.send_timeout, HumanDuration::secs(3_600), found);
        // Faster than that is no sign of good will any more, but of a good line.
        let (least, most) = (ByteSize::bytes(0), ByteSize::mib(1));
        within(&key("least_rate"), self.least_rate, least, most, found);
        time_limit(&key("rate_grace"), self.rate_grace, HumanDuration::secs(3_600), found);
        let most = ByteSize::gib(1_024);
        within(&key("body_memory"), self.body_memory, ByteSize::bytes(0), most, found);
        within(&key("max_tunnels"), self.max_tunnels, one, count(1_000_000), found);
        let day = HumanDuration::secs(86_400);
        time_limit(&key("tunnel_idle_timeout"), self.tunnel_idle_timeout, day, found);
        let most = HumanDuration::secs(3_600); // an upgrade that waits longer is stuck
        within(&key("drain_timeout"), self.drain_timeout, HumanDuration::millis(0), most, found);
    }
}

impl Cache {
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let most = ByteSize::tib(1); // more than any machine's memory
        within(&at.key("capacity"), self.capacity, ByteSize::mib(1), most, found);
        if self.max_body > self.capacity {
            let rule = format!("must be at most cache.capacity = \"{}\"", self.capacity);
            found.push(at.key("max_body").breaks(&self.max_body, rule).with(&at.key("capacity")));
        }
        // One part of a body must fit, whatever its size on the wire.
        within(&at.key("in_flight"), self.in_flight, ByteSize::kib(64), most, found);
        let most = NonZeroU16::new(1_024).unwrap_or(NonZeroU16::MAX); // each lookup compares them
        within(&at.key("max_variants"), self.max_variants, NonZeroU16::MIN, most, found);
        within(&at.key("max_parts"), self.max_parts, NonZeroU16::MIN, most, found);
        let most = NonZeroU32::new(65_536).unwrap_or(NonZeroU32::MAX); // places at one origin
        within(&at.key("max_background"), self.max_background, NonZeroU32::MIN, most, found);
    }
}

impl Purge {
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let count = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        // Fewer than a batch holds would fold each batch at once.
        let (least, most) = (count(1_000), count(100_000_000));
        within(&at.key("max_selectors"), self.max_selectors, least, most, found);
        let most = count(10_000_000);
        within(&at.key("max_operations"), self.max_operations, NonZeroU32::MIN, most, found);
        time_limit(&at.key("sweep_pause"), self.sweep_pause, HumanDuration::secs(86_400), found);
    }
}

impl Upstream {
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let (minute, hour) = (HumanDuration::secs(60), HumanDuration::secs(3_600));
        time_limit(&at.key("connect_timeout"), self.connect_timeout, minute, found);
        let first_byte = match self.first_byte_timeout {
            FirstByte::Fixed(time) => {
                time_limit(&at.key("first_byte_timeout"), time, hour, found);
                ("first_byte_timeout", time)
            }
            FirstByte::Adaptive => ("adaptive.ceiling", self.adaptive.ceiling),
        };
        time_limit(&at.key("between_bytes_timeout"), self.between_bytes_timeout, hour, found);
        time_limit(&at.key("total_timeout"), self.total_timeout, hour, found);
        // Faster than that is no sign of life any more, but of a good line.
        let (least, most) = (ByteSize::bytes(0), ByteSize::mib(1));
        within(&at.key("least_rate"), self.least_rate, least, most, found);
        time_limit(&at.key("rate_grace"), self.rate_grace, hour, found);
        time_limit(&at.key("idle_timeout"), self.idle_timeout, hour, found);
        let most = ByteSize::mib(16); // held once for every request in flight
        within(&at.key("retry_buffer"), self.retry_buffer, ByteSize::bytes(0), most, found);
        self.adaptive.check(&at.key("adaptive"), found);
        self.retry.check(&at.key("retry"), found);
        self.breaker.check(&at.key("breaker"), found);
        self.health.check(&at.key("health"), found);
        time_limit(&at.key("queue_timeout"), self.queue_timeout, hour, found);
        if let Some(name) = &self.deadline_field
            && (name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
        {
            let rule = "must be the name of a header field: letters, digits and '-'";
            found.push(at.key("deadline_field").breaks(name, rule));
        }
        for (part, limit) in [("connect_timeout", self.connect_timeout), first_byte] {
            if self.total_timeout < limit {
                let rule = format!("must be at least {part} = \"{limit}\"");
                let violation = at.key("total_timeout").breaks(&self.total_timeout, rule);
                found.push(violation.with(&at.key(part)));
            }
        }
        let most = NonZeroU32::new(65_536).unwrap_or(NonZeroU32::MAX); // ports to one address
        within(&at.key("max_requests"), self.max_requests, NonZeroU32::MIN, most, found);
        within(&at.key("max_idle"), self.max_idle, NonZeroU32::MIN, most, found);
        let most = NonZeroU32::new(1_000_000).unwrap_or(NonZeroU32::MAX); // as many as connections
        within(&at.key("max_queue"), self.max_queue, NonZeroU32::MIN, most, found);
    }
}

impl Site {
    fn check(
        &self,
        origins: &[Upstream],
        root: &Place<'_>,
        at: &Place<'_>,
        found: &mut Vec<Violation>,
    ) {
        self.check_alone(at, found);
        for (key, names) in [("origins", &self.origins), ("backup_origins", &self.backup_origins)] {
            for (index, name) in names.iter().enumerate() {
                if !origins.iter().any(|origin| origin.name == *name) {
                    let rule = format!("names no [[origin]]: add one with name = \"{name}\"");
                    let violation = at.key(key).index(index).breaks(name, rule);
                    found.push(violation.with(&root.key("origin")));
                }
            }
        }
    }

    /// What can be said of a site without knowing the edge that it is for.
    pub(super) fn check_alone(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        if self.hosts.is_empty() && !self.default {
            let rule = "must name a host, or the site must be the default one (default = true)";
            found.push(at.key("hosts").breaks(&self.hosts, rule).with(&at.key("default")));
        }
        let here = at.key("origins");
        if self.origins.is_empty() {
            found.push(here.breaks(&self.origins, "must name at least one origin"));
        }
        unique(&here, None, self.origins.iter().map(NodeName::as_str), found);
        let here = at.key("backup_origins");
        unique(&here, None, self.backup_origins.iter().map(NodeName::as_str), found);
        for (index, name) in self.backup_origins.iter().enumerate() {
            if self.origins.contains(name) {
                let rule = "is one of origins already";
                found.push(here.index(index).breaks(name, rule).with(&at.key("origins")));
            }
        }
        let times =
            [("stale_patience", self.stale_patience), ("failure_lifetime", self.failure_lifetime)];
        for (key, time) in times {
            if let Some(time) = time {
                let (none, most) = (HumanDuration::millis(0), HumanDuration::secs(3_600));
                within(&at.key(key), time, none, most, found);
            }
        }
        let lifetimes = [
            ("default_lifetime", self.default_lifetime),
            ("heuristic_max", self.heuristic_max),
            ("stale_if_error", self.stale_if_error),
            ("stale_if_disconnected", self.stale_if_disconnected),
            ("stale_max", self.stale_max),
        ];
        for (key, lifetime) in lifetimes {
            if let Some(lifetime) = lifetime {
                let none = HumanDuration::millis(0);
                within(&at.key(key), lifetime, none, LONGEST_LIFETIME, found);
            }
        }
        within(&at.key("max_control_lag"), self.max_control_lag, LEAST_LAG, MOST_LAG, found);
        for (statuses, lifetime) in self.negative.iter().flatten() {
            let here = at.key("negative").key(&statuses.to_string());
            within(&here, *lifetime, HumanDuration::millis(0), LONGEST_LIFETIME, found);
        }
        let here = at.key("languages");
        unique(&here, None, self.languages.iter().map(Language::as_str), found);
        if self.languages.len() > MOST_LANGUAGES {
            let rule = format!("must name at most {MOST_LANGUAGES} languages");
            found.push(here.breaks(&self.languages, rule));
        }
        unique(&at.key("upgrade"), None, self.upgrade.iter().map(Protocol::as_str), found);
        let (least, most) = (ByteSize::kib(64), ByteSize::mib(64)); // 10,000 reads; a core's patience
        within(&at.key("slice_size"), self.slice_size, least, most, found);
        self.query.check(&at.key("query"), found);
        self.compression.check(&at.key("compression"), found);
        check_rules(&self.rule, &self.origins, &at.key("rule"), LONGEST_LIFETIME, found);
    }
}
