//! The example files are complete, right, and say what the defaults are.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is a test's verdict"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use meridian_config::control::etcd::{Cp, Etcd};
use meridian_config::control::raft::Raft;
use meridian_config::control::{Consistency, Control, Front, Health, Journal, Prefix, Stream};
use meridian_config::control_loss::ControlLoss;
use meridian_config::edge::compression::{Coding, Compression, Compressor};
use meridian_config::edge::resilience::{self, Adaptive, Breaker, FirstByte, Retry};
use meridian_config::edge::shield::Shield;
use meridian_config::edge::{
    Accept, Cache, Edge, Follow, Profile, Purge, RangeFill, Site, Upstream,
};
use meridian_config::load::{load, load_any, parse};
use meridian_config::origin::{Content, Origin, Rule};
use meridian_config::query::Query;
use meridian_config::role::Role;
use meridian_config::shared::{Location, Log, Scope, Token};
use meridian_config::site_rule::{FieldTest, SetCookie, SiteRule, When};
use meridian_config::units::{ByteSize, HumanDuration, Ratio};
use meridian_config::{control, origin};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

#[test]
fn every_example_is_accepted_as_the_role_that_it_shows() {
    let rows = [
        ("edge.toml", "edge"),
        ("shield.toml", "edge"),
        ("origin.toml", "origin"),
        ("control.toml", "control"),
        ("front.toml", "front"),
    ];
    for (name, role) in rows {
        let loaded = load_any(&path(name)).unwrap_or_else(|found| panic!("{found}"));
        assert_eq!(loaded.role(), role, "{name}");
    }
    let files = fs::read_dir(path("")).unwrap().count();
    assert_eq!(files, rows.len(), "an example is not tested");
}

#[test]
fn every_key_of_the_types_stands_in_its_example() {
    assert_eq!(keys_of("edge.toml"), keys_in(&full_edge()));
    assert_eq!(keys_of("origin.toml"), keys_in(&full_origin()));
    assert_eq!(keys_of("control.toml"), keys_in(&full_control()));
    assert_eq!(keys_of("front.toml"), keys_in(&full_front()));
}

#[test]
fn what_an_example_writes_is_the_default_unless_it_says_otherwise() {
    writes_defaults::<Edge>("edge.toml");
    writes_defaults::<Origin>("origin.toml");
    writes_defaults::<Control>("control.toml");
    writes_defaults::<Front>("front.toml");
}

#[test]
fn every_role_survives_being_written_as_toml() {
    round_trips(&full_edge());
    round_trips(&full_origin());
    round_trips(&full_control());
    round_trips(&full_front());
    round_trips(&load::<Edge>(&path("edge.toml")).unwrap());
    round_trips(&load::<Edge>(&path("shield.toml")).unwrap());
    round_trips(&load::<Origin>(&path("origin.toml")).unwrap());
    round_trips(&load::<Control>(&path("control.toml")).unwrap());
    round_trips(&load::<Front>(&path("front.toml")).unwrap());
}

fn round_trips<T: Role + PartialEq + Debug>(role: &T) {
    let text = toml::to_string(role).unwrap();
    assert_eq!(&toml::from_str::<T>(&text).unwrap(), role, "{text}");
}

/// Takes each key out in turn: what is left means the same (it was the default), or something else
/// (its comment says that it is an example), or nothing (it is required).
fn writes_defaults<T: Role + PartialEq + Debug>(name: &str) {
    let text = fs::read_to_string(path(name)).unwrap();
    let comments = comments(&text);
    let whole: T = parse(&text, &path(name)).unwrap();
    let table: Table = text.parse().unwrap();
    for steps in all_steps(&Value::Table(table.clone())) {
        let mut without = Value::Table(table.clone());
        remove(&mut without, &steps);
        let dotted = steps.iter().filter(|step| step.parse::<usize>().is_err());
        let dotted = dotted.map(String::as_str).collect::<Vec<_>>();
        let comment = |length: usize| comments.get(&dotted[..length].join("."));
        // The names in [peers] are the user's: the comment of the table speaks for them.
        let own = if dotted[0] == "peers" { 1 } else { dotted.len() };
        let own = comment(own).map(String::as_str).unwrap_or_default();
        let example = (1..=dotted.len()).filter_map(comment).any(|told| told.contains("Example."));
        match parse::<T>(&toml::to_string(&without).unwrap(), &path(name)) {
            Ok(role) if role == whole => {}
            Ok(_) => assert!(own.contains("Example."), "{name}: {steps:?} is not the default"),
            Err(found) => {
                let says_so = own.contains("Required.") || example;
                assert!(says_so, "{name}: {steps:?} is required: {found}");
            }
        }
    }
}

#[test]
fn every_key_in_an_example_has_a_comment_and_a_valid_value() {
    for name in ["edge.toml", "origin.toml", "control.toml", "front.toml"] {
        let text = fs::read_to_string(path(name)).unwrap();
        for (key, comment) in comments(&text) {
            let named = key.starts_with("peers."); // the table's comment speaks for its entries
            assert!(named || !comment.is_empty(), "{name}: {key} has no comment");
        }
        for (number, line) in text.lines().enumerate().filter(|(_, line)| is_absent_key(line)) {
            let lines = text.lines().enumerate();
            let one =
                lines.map(|(n, l)| if n == number { l.strip_prefix('#').unwrap() } else { l });
            let one = one.collect::<Vec<_>>().join("\n");
            let Err(found) = meridian_config::load::parse_any(&one, &path(name)) else { continue };
            // Two sources of content, or a size without the trace, are what these two keys cannot
            // help here.
            let alone =
                |rule: &str| rule.contains("exactly one of") || rule.contains("is for objects");
            assert!(found.iter().all(|violation| alone(&violation.rule)), "{line}: {found}");
        }
    }
}

/// Whether a line is a key that is absent by default: `#key = value`.
fn is_absent_key(line: &str) -> bool {
    line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// The keys of an example, dotted, with those that are absent by default.
fn keys_of(name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(path(name)).unwrap();
    let lines = text.lines();
    let all = lines.map(|l| if is_absent_key(l) { l.strip_prefix('#').unwrap() } else { l });
    keys(&Value::Table(all.collect::<Vec<_>>().join("\n").parse().unwrap()))
}

fn keys_in(role: &impl Role) -> BTreeSet<String> {
    keys(&Value::try_from(role).unwrap())
}

/// The keys of all tables, dotted, without indexes and without what users name themselves.
fn keys(value: &Value) -> BTreeSet<String> {
    let no_index = |steps: Vec<String>| {
        let names = steps.into_iter().filter(|step| step.parse::<usize>().is_err());
        names.collect::<Vec<_>>().join(".")
    };
    let own = |key: &String| !key.starts_with("peers.");
    all_steps(value).into_iter().map(no_index).filter(own).collect()
}

/// The paths to everything in `value` that has a key.
fn all_steps(value: &Value) -> Vec<Vec<String>> {
    let children: Vec<(String, &Value)> = match value {
        Value::Table(table) => table.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Value::Array(array) => {
            array.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
        }
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    for (step, child) in children {
        if matches!(value, Value::Table(_)) {
            found.push(vec![step.clone()]);
        }
        let below = all_steps(child).into_iter();
        found.extend(below.map(|rest| [step.clone()].into_iter().chain(rest).collect()));
    }
    found
}

fn remove(value: &mut Value, steps: &[String]) {
    let (first, rest) = steps.split_first().unwrap();
    match value {
        Value::Table(table) if rest.is_empty() => {
            table.remove(first).unwrap();
        }
        Value::Table(table) => remove(&mut table[first], rest),
        Value::Array(array) => remove(&mut array[first.parse::<usize>().unwrap()], rest),
        _ => panic!("{steps:?} leads nowhere"),
    }
}

/// The comment above each key and table of an example, by dotted key.
fn comments(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut comment = String::new();
    let mut prefix = String::new();
    for line in text.lines() {
        if line.starts_with('[') {
            let name = line.trim_matches(['[', ']']);
            prefix = format!("{name}.");
            found.insert(name.to_owned(), std::mem::take(&mut comment));
        } else if is_absent_key(line) || !line.starts_with('#') && line.contains('=') {
            let key = line.trim_start_matches('#').split(' ').next().unwrap();
            found.insert(format!("{prefix}{key}"), std::mem::take(&mut comment));
        } else {
            comment = if line.is_empty() { String::new() } else { comment + line };
        }
    }
    found
}

fn some(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn tokens() -> Vec<Token> {
    vec![Token { name: "t".to_owned(), scopes: vec![Scope::Purge], file: "t".into() }]
}

/// An edge with every key. No `..` here or below: a new field has to be written in.
fn full_edge() -> Edge {
    Edge {
        name: "e".parse().unwrap(),
        region: "fra".parse().unwrap(),
        city: Some("F".to_owned()),
        location: Some(Location(1.5, 2.0)),
        listen: "127.0.0.1:1".parse().unwrap(),
        admin: "[::1]:2".parse().unwrap(),
        public_url: Some("http://a".to_owned()),
        admin_url: Some("http://b".to_owned()),
        cores: NonZeroU16::new(2),
        accept: Accept::default(),
        cache: Cache::default(),
        compression: Compressor::default(),
        purge: Purge::default(),
        control: Some(Follow {
            replicas: vec!["c".parse().unwrap()],
            token_file: "t".into(),
            beat: HumanDuration::millis(1),
            ack_pause: HumanDuration::millis(2),
            patience: HumanDuration::millis(150),
            state: Some("s".into()),
        }),
        peers: [("c".parse().unwrap(), "c:1".parse().unwrap())].into(),
        origin: vec![Upstream {
            name: "o".parse().unwrap(),
            authority: Some("o:1".parse().unwrap()),
            connect_timeout: HumanDuration::secs(1),
            first_byte_timeout: FirstByte::Fixed(HumanDuration::secs(2)),
            between_bytes_timeout: HumanDuration::secs(3),
            total_timeout: HumanDuration::secs(4),
            least_rate: ByteSize::bytes(4),
            rate_grace: HumanDuration::secs(5),
            max_requests: some(5),
            max_queue: some(6),
            max_idle: some(7),
            idle_timeout: HumanDuration::secs(8),
            retry_buffer: ByteSize::kib(9),
            queue_timeout: HumanDuration::secs(9),
            client_reserve: Ratio::new(0.5),
            upload_share: Ratio::new(0.75),
            adaptive_limit: true,
            deadline_field: Some("f".to_owned()),
            adaptive: Adaptive::default(),
            retry: Retry { enabled: Some(true), ..Retry::default() },
            breaker: Breaker { enabled: Some(true), ..Breaker::default() },
            health: resilience::Health {
                path: Some("/".to_owned()),
                ..resilience::Health::default()
            },
        }],
        shield: Some(Shield {
            nodes: vec!["i".parse().unwrap()],
            secret_file: "n".into(),
            catch_up: HumanDuration::millis(3),
            max_cursors: some(17),
        }),
        site: vec![full_site()],
        token: tokens(),
        log: Log::default(),
    }
}

fn full_site() -> Site {
    Site {
        name: "s".parse().unwrap(),
        hosts: vec!["h".parse().unwrap()],
        default: true,
        profile: Profile::Rfc,
        origins: vec!["o".parse().unwrap()],
        backup_origins: vec![],
        shielded: false,
        spread: true,
        panic_threshold: Ratio::new(0.1),
        resilience: Some(true),
        failure_lifetime: Some(HumanDuration::secs(1)),
        stale_patience: Some(HumanDuration::secs(1)),
        preserve_host: true,
        default_lifetime: Some(HumanDuration::secs(1)),
        heuristic_max: Some(HumanDuration::secs(1)),
        store_set_cookie: Some(true),
        store_provoked_errors: Some(true),
        honour_client_directives: Some(true),
        stale_if_error: Some(HumanDuration::secs(1)),
        stale_max: Some(HumanDuration::secs(1)),
        heuristic_fraction: Some(Ratio::new(0.5)),
        stale_if_disconnected: Some(HumanDuration::secs(1)),
        stale_beside_s_maxage: Some(true),
        obey_cdn_cache_control: Some(true),
        obey_surrogate_control: Some(true),
        store_post: Some(true),
        language_order: Some(true),
        match_content_language: Some(true),
        languages: vec!["de-CH".parse().unwrap()],
        negative: Some([("5xx".parse().unwrap(), HumanDuration::secs(1))].into()),
        upgrade: vec!["websocket".parse().unwrap()],
        interim_responses: Some(true),
        range_fill: Some(RangeFill::Slices),
        slice_size: ByteSize::mib(2),
        range_skip: ByteSize::mib(2),
        store_short_parts: Some(true),
        control_loss: ControlLoss::Revalidate,
        max_control_lag: HumanDuration::millis(260),
        expose_surrogate_fields: true,
        compression: Compression { codings: Some(vec![Coding::Zstd]), ..Compression::default() },
        query: full_query(),
        cache_status: false,
        cache_status_key: true,
        rule: vec![full_rule()],
    }
}

fn full_query() -> Query {
    Query { keep: Some(vec!["k".to_owned()]), drop: vec!["d".to_owned()], sort: true }
}

fn full_rule() -> SiteRule {
    let test = || {
        let some = Some("v".to_owned());
        let (equals, matches) = (some.clone(), some);
        vec![FieldTest { name: "n".to_owned(), present: Some(true), equals, matches }]
    };
    let one = |text: &str| vec![text.to_owned()];
    SiteRule {
        name: "r".parse().unwrap(),
        when: When {
            path: vec!["/a*".parse().unwrap()],
            host: vec!["h".parse().unwrap()],
            method: one("GET"),
            header: test(),
            query: test(),
            status: one("404"),
            response_header: test(),
        },
        bypass: Some(true),
        origin: Some("o".parse().unwrap()),
        query: Some(full_query()),
        key_headers: one("h"),
        key_cookies: one("c"),
        edge_lifetime: Some(HumanDuration::secs(1)),
        override_no_store: true,
        browser_lifetime: Some(HumanDuration::secs(1)),
        stale_while_revalidate: Some(HumanDuration::secs(1)),
        stale_if_error: Some(HumanDuration::secs(1)),
        control_loss: Some(ControlLoss::FailClosed),
        max_control_lag: Some(HumanDuration::millis(270)),
        set_cookie: Some(SetCookie::Strip),
        request_set: one("a: b"),
        request_remove: one("a"),
        response_set: one("a: b"),
        response_remove: one("a"),
    }
}

fn full_origin() -> Origin {
    Origin {
        name: "o".parse().unwrap(),
        region: "iad".parse().unwrap(),
        listen: "127.0.0.1:1".parse().unwrap(),
        admin: "127.0.0.1:2".parse().unwrap(),
        content: Content {
            folder: Some("f".into()),
            trace: Some("t".into()),
            sample: true,
            default_size: Some(ByteSize::kib(1)),
        },
        rule: vec![Rule {
            path: "/*".parse().unwrap(),
            cache_control: Some("no-store".to_owned()),
            surrogate_key: Some("a b".to_owned()),
        }],
        orders: origin::Orders { file: Some("o".into()), ..origin::Orders::default() },
        limits: origin::Limits::default(),
        token: tokens(),
        log: Log::default(),
    }
}

fn full_control() -> Control {
    Control {
        name: "c".parse().unwrap(),
        region: "iad".parse().unwrap(),
        listen: "127.0.0.1:1".parse().unwrap(),
        data: "d".into(),
        replicas: vec!["c".parse().unwrap()],
        peers: [("c".parse().unwrap(), "c:1".parse().unwrap())].into(),
        prefix: vec![Prefix { net: "::/0".to_owned(), from: "1,2".to_owned() }],
        consistency: Consistency::default(),
        cp: Cp::default(),
        raft: Raft { secret: Some("s".into()), ..Raft::default() },
        etcd: Etcd { user: Some("meridian".into()), password: Some("s".into()), ..Etcd::default() },
        health: Health::default(),
        journal: Journal::default(),
        stream: Stream::default(),
        limits: control::Limits::default(),
        token: tokens(),
        log: Log::default(),
    }
}

fn full_front() -> Front {
    Front {
        name: "f".parse().unwrap(),
        listen: "127.0.0.1:1".parse().unwrap(),
        admin: "127.0.0.1:2".parse().unwrap(),
        replicas: vec!["c".parse().unwrap()],
        peers: [("c".parse().unwrap(), "c:1".parse().unwrap())].into(),
        trust_from: true,
        prefix: vec![Prefix { net: "10.0.0.0/8".to_owned(), from: "fra".to_owned() }],
        default_from: Some("iad".parse().unwrap()),
        poll: HumanDuration::millis(1),
        limits: control::Limits::default(),
        token: tokens(),
        log: Log::default(),
    }
}
