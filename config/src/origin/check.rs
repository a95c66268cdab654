//! The rules of an origin that its types cannot say.

use std::num::NonZeroU32;
use std::path::Path;

use crate::limits::{guarded, listeners_differ, path, time_limit, tokens, within};
use crate::origin::{Content, Limits, Orders, Origin, Rule};
use crate::role::{Role, resolve};
use crate::units::{ByteSize, HumanDuration};
use crate::violation::{Place, Violation};

/// A year: who repeats later than that does not mean the same order.
const LONGEST_EXPIRY: HumanDuration = HumanDuration::secs(365 * 86_400);

impl Role for Origin {
    const NAME: &'static str = "origin";

    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        listeners_differ(at, self.listen, self.admin, found);
        guarded(at, "admin", self.admin, &self.token, found);
        tokens(at, &self.token, found);
        self.content.check(&at.key("content"), found);
        for (index, rule) in self.rule.iter().enumerate() {
            rule.check(&at.key("rule").index(index), found);
        }
        self.orders.check(&at.key("orders"), found);
        self.limits.check(&at.key("limits"), found);
    }

    fn resolve(&mut self, folder: &Path) {
        for token in &mut self.token {
            resolve(&mut token.file, folder);
        }
        let paths = [&mut self.content.folder, &mut self.content.trace, &mut self.orders.file];
        for path in paths.into_iter().flatten() {
            resolve(path, folder);
        }
    }
}

impl Content {
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let sources = [
            ("folder", self.folder.is_some()),
            ("trace", self.trace.is_some()),
            ("sample", self.sample),
        ];
        let named: Vec<&str> =
            sources.iter().filter(|(_, set)| *set).map(|(key, _)| *key).collect();
        if named.len() != 1 {
            let told = if named.is_empty() { "none".to_owned() } else { named.join(" and ") };
            let rule = format!("must have exactly one of folder, trace and sample, not {told}");
            found.push(at.lacks(rule));
        }
        for (key, named) in [("folder", &self.folder), ("trace", &self.trace)] {
            if let Some(named) = named {
                path(&at.key(key), named, found);
            }
        }
        if let Some(size) = self.default_size {
            if self.trace.is_none() {
                let rule = "is for objects of a trace, and there is none";
                found.push(at.key("default_size").breaks(&size, rule).with(&at.key("trace")));
            }
            let most = ByteSize::gib(1); // made up on request: larger ones belong in the trace
            within(&at.key("default_size"), size, ByteSize::bytes(0), most, found);
        }
    }
}

impl Rule {
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        if self.cache_control.is_none() && self.surrogate_key.is_none() {
            let rule = "sets nothing: give it cache_control, surrogate_key or both";
            let violation = at.lacks(rule).with(&at.key("cache_control"));
            found.push(violation.with(&at.key("surrogate_key")));
        }
        let fields =
            [("cache_control", &self.cache_control), ("surrogate_key", &self.surrogate_key)];
        for (key, value) in fields {
            let Some(value) = value else { continue };
            // RFC 9110 §5.5: no control characters, nothing at the ends that would be stripped.
            let visible = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
            if value.is_empty() || !visible || value.trim() != value {
                let rule = "must be visible ASCII characters, with spaces only between them";
                found.push(at.key(key).breaks(value, rule));
            }
        }
    }
}

impl Orders {
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let count = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let (none, one) = (HumanDuration::secs(0), NonZeroU32::MIN);
        if let Some(file) = &self.file {
            path(&at.key("file"), file, found);
        }
        time_limit(&at.key("max_wait"), self.max_wait, HumanDuration::secs(3_600), found);
        time_limit(&at.key("key_expiry"), self.key_expiry, LONGEST_EXPIRY, found);
        within(&at.key("max_keys"), self.max_keys, one, count(100_000_000), found);
        within(&at.key("max_orders"), self.max_orders, one, count(100_000_000), found);
        within(&at.key("work"), self.work, none, HumanDuration::secs(3_600), found);
    }
}

impl Limits {
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let count = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let one = NonZeroU32::MIN;
        let key = |name: &str| at.key(name);
        within(&key("max_connections"), self.max_connections, one, count(1_000_000), found);
        let (least, most) = (ByteSize::kib(8), ByteSize::mib(1)); // as at an edge
        within(&key("head_size"), self.head_size, least, most, found);
        time_limit(&key("head_timeout"), self.head_timeout, HumanDuration::secs(300), found);
        time_limit(&key("idle_timeout"), self.idle_timeout, HumanDuration::secs(3_600), found);
        time_limit(&key("send_timeout"), self.send_timeout, HumanDuration::secs(3_600), found);
        within(&key("max_streams"), self.max_streams, one, count(10_000), found);
        let (least, most) = (ByteSize::kib(1), ByteSize::mib(1));
        within(&key("body_size"), self.body_size, least, most, found);
        // RFC 9110 §17.15: many small ranges cost more than the whole.
        within(&key("max_ranges"), self.max_ranges, one, count(1_000), found);
        let most = count(10_000_000); // at some 100 bytes each, a gigabyte
        within(&key("max_counted_paths"), self.max_counted_paths, one, most, found);
        within(&key("max_counted_edges"), self.max_counted_edges, one, count(10_000), found);
        within(&key("max_hashed_files"), self.max_hashed_files, one, most, found);
        // Each request is held against each of them.
        within(&key("max_faults"), self.max_faults, one, count(1_000), found);
        within(&key("max_held"), self.max_held, one, count(1_000_000), found);
        let most = HumanDuration::secs(3_600);
        within(&key("drain_timeout"), self.drain_timeout, HumanDuration::millis(0), most, found);
    }
}
