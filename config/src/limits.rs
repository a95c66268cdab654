//! Rules that several tables share: ranges, listeners, names and tokens.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;

use serde::Serialize;

use crate::shared::{Peers, Token};
use crate::units::{HumanDuration, NodeName};
use crate::violation::{Place, Violation};

/// `value` lies between `least` and `most`, both included.
pub(crate) fn within<T: PartialOrd + Display + Serialize>(
    at: &Place<'_>,
    value: T,
    least: T,
    most: T,
    found: &mut Vec<Violation>,
) {
    if value < least {
        found.push(at.breaks(&value, format!("must be at least {least}")));
    } else if value > most {
        found.push(at.breaks(&value, format!("must be at most {most}")));
    }
}

/// The shortest time limit: below it, a busy machine's own scheduling would break it.
pub(crate) const SHORTEST_LIMIT: HumanDuration = HumanDuration::millis(10);

/// `value` lies between [`SHORTEST_LIMIT`] and `most`.
pub(crate) fn time_limit(
    at: &Place<'_>,
    value: HumanDuration,
    most: HumanDuration,
    found: &mut Vec<Violation>,
) {
    within(at, value, SHORTEST_LIMIT, most, found);
}

/// The two listeners of a node do not want the same port.
pub(crate) fn listeners_differ(
    at: &Place<'_>,
    listen: SocketAddr,
    admin: SocketAddr,
    found: &mut Vec<Violation>,
) {
    let same_ip =
        listen.ip() == admin.ip() || listen.ip().is_unspecified() || admin.ip().is_unspecified();
    let any_port = listen.port() == 0;
    if same_ip && listen.port() == admin.port() && !any_port {
        let rule = format!("must not be the port of listen = \"{listen}\"");
        found.push(at.key("admin").breaks(&admin, rule).with(&at.key("listen")));
    }
}

/// A listener that can change something stays on loopback unless there are tokens.
pub(crate) fn guarded(
    at: &Place<'_>,
    listener: &str,
    address: SocketAddr,
    tokens: &[Token],
    found: &mut Vec<Violation>,
) {
    if !address.ip().to_canonical().is_loopback() && tokens.is_empty() {
        let rule = "must be a loopback address as long as there is no [[token]]";
        found.push(at.key(listener).breaks(&address, rule).with(&at.key("token")));
    }
}

/// No two `names` of the array at `at` are equal; `key` is where a name stands in an element.
pub(crate) fn unique<'n>(
    at: &Place<'_>,
    key: Option<&str>,
    names: impl IntoIterator<Item = &'n str>,
    found: &mut Vec<Violation>,
) {
    let place = |index: usize| match key {
        Some(key) => at.index(index).key(key),
        None => at.index(index),
    };
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, name) in names.into_iter().enumerate() {
        if let Some(earlier) = first.get(name) {
            let rule = format!("is there already, at index {earlier}");
            found.push(place(index).breaks(&name, rule).with(&place(*earlier)));
        } else {
            first.insert(name, index);
        }
    }
}

/// `name`, at `at`, has an address in `[peers]`.
pub(crate) fn reachable(
    root: &Place<'_>,
    at: &Place<'_>,
    name: &NodeName,
    peers: &Peers,
    found: &mut Vec<Violation>,
) {
    if !peers.contains_key(name) {
        let rule = format!("has no address in [peers]: add {name} = \"host:port\" there");
        found.push(at.breaks(name, rule).with(&root.key("peers")));
    }
}

/// The replicas that somebody follows: at least one, each once, each with an address.
pub(crate) fn replicas(
    root: &Place<'_>,
    at: &Place<'_>,
    replicas: &[NodeName],
    peers: &Peers,
    found: &mut Vec<Violation>,
) {
    if replicas.is_empty() {
        found.push(at.breaks(&replicas, "must name at least one control replica"));
    }
    unique(at, None, replicas.iter().map(NodeName::as_str), found);
    for (index, name) in replicas.iter().enumerate() {
        reachable(root, &at.index(index), name, peers, found);
    }
}

/// `[[token]]`: names that a log line can carry, each once, with something to do.
pub(crate) fn tokens(root: &Place<'_>, tokens: &[Token], found: &mut Vec<Violation>) {
    let at = root.key("token");
    unique(&at, Some("name"), tokens.iter().map(|token| token.name.as_str()), found);
    for (index, token) in tokens.iter().enumerate() {
        let at = at.index(index);
        let visible = token.name.bytes().all(|byte| byte.is_ascii_graphic());
        if !visible || !(1..=63).contains(&token.name.len()) {
            let rule = "must be 1-63 visible ASCII characters, without spaces";
            found.push(at.key("name").breaks(&token.name, rule));
        }
        if token.scopes.is_empty() {
            found.push(at.key("scopes").breaks(&token.scopes, "must have at least one scope"));
        }
        path(&at.key("file"), &token.file, found);
    }
}

/// A path is there and has no NUL, which no file system takes.
pub(crate) fn path(at: &Place<'_>, path: &std::path::Path, found: &mut Vec<Violation>) {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() || bytes.contains(&0) {
        found.push(at.breaks(&path, "must be a path, without NUL"));
    }
}
