//! The rules of a control replica and of the front door that their types cannot say.

use std::num::NonZeroU32;
use std::path::Path;

use crate::control::etcd::CpEngine;
use crate::control::{Control, Front, Health, Journal, Limits, Prefix, Stream};
use crate::limits::{
    guarded, listeners_differ, path, reachable, replicas, time_limit, tokens, unique, within,
};
use crate::role::{Role, resolve};
use crate::units::{ByteSize, HumanDuration, NodeName};
use crate::violation::{Place, Violation};

/// Each of them adds its own delay to every change; more make nothing safer.
const MOST_REPLICAS: usize = 9;

impl Role for Control {
    const NAME: &'static str = "control";

    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        guarded(at, "listen", self.listen, &self.token, found);
        tokens(at, &self.token, found);
        path(&at.key("data"), &self.data, found);
        self.check_replicas(at, found);
        prefixes(at, &self.prefix, found);
        self.raft.check(&at.key("raft"), found);
        self.etcd.check(self.cp.engine, &at.key("etcd"), found);
        self.check_together(at, found);
        self.health.check(&at.key("health"), found);
        self.journal.check(&at.key("journal"), found);
        self.stream.check(&at.key("stream"), found);
        self.limits.check(&at.key("limits"), found);
    }

    fn resolve(&mut self, folder: &Path) {
        for token in &mut self.token {
            resolve(&mut token.file, folder);
        }
        resolve(&mut self.data, folder);
        if let Some(secret) = &mut self.raft.secret {
            resolve(secret, folder);
        }
        if let Some(password) = &mut self.etcd.password {
            resolve(password, folder);
        }
    }
}

impl Control {
    /// What `[raft]` and other tables say together.
    fn check_together(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let raft = at.key("raft");
        let call = self.limits.call_timeout;
        if self.raft.quorum_timeout >= call {
            let rule = format!("must be below limits.call_timeout = \"{call}\"");
            let violation = raft.key("quorum_timeout").breaks(&self.raft.quorum_timeout, rule);
            found.push(violation.with(&at.key("limits").key("call_timeout")));
        }
        if self.etcd.quorum_timeout >= call {
            let rule = format!("must be below limits.call_timeout = \"{call}\"");
            let etcd = at.key("etcd").key("quorum_timeout");
            let violation = etcd.breaks(&self.etcd.quorum_timeout, rule);
            found.push(violation.with(&at.key("limits").key("call_timeout")));
        }
        let beyond = !self.listen.ip().to_canonical().is_loopback();
        let agree = self.cp.engine == CpEngine::Raft && self.replicas.len() > 1;
        if beyond && agree && self.raft.secret.is_none() {
            let rule = "must be a loopback address as long as several replicas have no raft.secret";
            let violation = at.key("listen").breaks(&self.listen, rule);
            found.push(violation.with(&raft.key("secret")));
        }
    }

    fn check_replicas(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let here = at.key("replicas");
        unique(&here, None, self.replicas.iter().map(NodeName::as_str), found);
        if !self.replicas.is_empty() && !self.replicas.contains(&self.name) {
            let rule = format!("must name this replica too, {}", self.name);
            found.push(here.breaks(&self.replicas, rule).with(&at.key("name")));
        }
        if self.replicas.len() > MOST_REPLICAS {
            let rule = format!("must name at most {MOST_REPLICAS} replicas");
            found.push(here.breaks(&self.replicas, rule));
        }
        for (index, name) in
            self.replicas.iter().enumerate().filter(|(_, name)| **name != self.name)
        {
            reachable(at, &here.index(index), name, &self.peers, found);
        }
    }
}

impl Health {
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let hour = HumanDuration::secs(3_600); // steering that late is no steering
        time_limit(&at.key("edge_lapse"), self.edge_lapse, hour, found);
        within(&at.key("lease"), self.lease, HumanDuration::millis(100), hour, found);
        within(&at.key("edge_recovery"), self.edge_recovery, HumanDuration::millis(0), hour, found);
        let most = HumanDuration::secs(365 * 86_400); // the register would only grow
        time_limit(&at.key("edge_expiry"), self.edge_expiry, most, found);
        if self.edge_expiry <= self.edge_lapse {
            let rule = format!("must be above health.edge_lapse = \"{}\"", self.edge_lapse);
            let violation = at.key("edge_expiry").breaks(&self.edge_expiry, rule);
            found.push(violation.with(&at.key("edge_lapse")));
        }
    }
}

impl Journal {
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let count = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let key = |name: &str| at.key(name);
        let one = NonZeroU32::MIN;
        within(&key("keep"), self.keep, one, count(10_000_000), found); // gigabytes of disk
        within(&key("max_folded"), self.max_folded, one, count(1_000_000), found); // in memory
        let most = HumanDuration::secs(365 * 86_400);
        time_limit(&key("key_expiry"), self.key_expiry, most, found);
        within(&key("max_keys"), self.max_keys, one, count(100_000_000), found);
        within(&key("max_registers"), self.max_registers, one, count(100_000), found);
        // A value has to fit into a frame of the stream, with room for its key.
        let (least, most) = (ByteSize::kib(1), ByteSize::mib(1));
        within(&key("register_size"), self.register_size, least, most, found);
        within(&key("max_queue"), self.max_queue, one, count(65_536), found);
    }
}

impl Stream {
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        let count = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let key = |name: &str| at.key(name);
        let minute = HumanDuration::secs(60);
        time_limit(&key("heartbeat"), self.heartbeat, minute, found);
        within(&key("gather"), self.gather, HumanDuration::secs(0), HumanDuration::secs(1), found);
        within(&key("queue"), self.queue, NonZeroU32::MIN, count(1_024), found);
        time_limit(&key("patience"), self.patience, minute, found);
        time_limit(&key("max_wait"), self.max_wait, HumanDuration::secs(3_600), found);
        within(&key("tracked"), self.tracked, NonZeroU32::MIN, count(1_000_000), found);
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
        // A registration has to fit; what is larger than this is content, and goes to an origin.
        let (least, most) = (ByteSize::kib(4), ByteSize::mib(64));
        within(&key("body_size"), self.body_size, least, most, found);
        within(&key("max_edges"), self.max_edges, one, count(100_000), found);
        time_limit(&key("call_timeout"), self.call_timeout, HumanDuration::secs(300), found);
        let most = HumanDuration::secs(3_600);
        within(&key("drain_timeout"), self.drain_timeout, HumanDuration::millis(0), most, found);
    }
}

impl Role for Front {
    const NAME: &'static str = "front";

    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        listeners_differ(at, self.listen, self.admin, found);
        guarded(at, "admin", self.admin, &self.token, found);
        tokens(at, &self.token, found);
        replicas(at, &at.key("replicas"), &self.replicas, &self.peers, found);
        prefixes(at, &self.prefix, found);
        time_limit(&at.key("poll"), self.poll, HumanDuration::secs(60), found);
        self.limits.check(&at.key("limits"), found);
    }

    fn resolve(&mut self, folder: &Path) {
        for token in &mut self.token {
            resolve(&mut token.file, folder);
        }
    }
}

/// `[[prefix]]`: each network once, each somewhere.
fn prefixes(root: &Place<'_>, prefixes: &[Prefix], found: &mut Vec<Violation>) {
    let at = root.key("prefix");
    unique(&at, Some("net"), prefixes.iter().map(|prefix| prefix.net.as_str()), found);
    for (index, prefix) in prefixes.iter().enumerate() {
        prefix.check(&at.index(index), found);
    }
}

impl Prefix {
    fn check(&self, at: &Place<'_>, found: &mut Vec<Violation>) {
        if let Err(rule) = self.network() {
            found.push(at.key("net").breaks(&self.net, rule));
        }
        if self.location().is_none() {
            let rule = "must be a code of the table of places, such as \"fra\", or \"lat,lon\"";
            found.push(at.key("from").breaks(&self.from, rule));
        }
    }
}
