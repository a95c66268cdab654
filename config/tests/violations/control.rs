//! The rules of a control replica, and of the tokens that every role has.

use meridian_config::control::Control;

use crate::rows::{check, violations};

pub(crate) const CONTROL: &str = r#"
name = "control-1"
region = "iad"
listen = "127.0.0.1:8090"
data = "state"
"#;

#[test]
fn replicas_know_themselves_and_reach_each_other() {
    check::<Control>(
        CONTROL,
        &[
            ("", ""),
            ("replicas = ['control-1']", ""),
            (
                "replicas = ['control-2'] & peers.control-2 = 'a:1'",
                "must name this replica too, control-1",
            ),
            ("replicas = ['control-1', 'control-2'] & peers.control-2 = 'a:1'", ""),
            (
                "replicas = ['control-1', 'control-2']",
                "replicas[1] = 'control-2': has no address in [peers]: \
                 add control-2 = 'host:port' there",
            ),
            (
                "listen = '[::]:1' & token = [{ name = 'a', scopes = ['edge'], file = 'f' }] & \
                 replicas = ['control-1', 'control-2'] & peers.control-2 = 'a:1'",
                "must be a loopback address as long as several replicas have no raft.secret",
            ),
            (
                "listen = '[::]:1' & token = [{ name = 'a', scopes = ['edge'], file = 'f' }] & \
                 replicas = ['control-1', 'control-2'] & peers.control-2 = 'a:1' & \
                 raft.secret = 's'",
                "",
            ),
            ("data = ''", "must be a path, without NUL"),
            ("listen = '[::]:1'", "must be a loopback address as long as there is no [[token]]"),
            ("consistency.purges = 'ap'", ""),
            ("consistency.purges = 'ca'", "must be one of 'cp', 'ap'"),
        ],
    );
}

/// What the keys of one cluster of replicas may begin with.
const PREFIX: &str = "must begin with a slash, not end with one, and have at most 200 of the \
                      characters a-z, A-Z, 0-9, /, -, _ and .";

#[test]
fn etcd_is_named_and_has_bounds() {
    check::<Control>(
        CONTROL,
        &[
            ("cp.engine = 'etcd' & etcd.endpoints = ['127.0.0.1:2379']", ""),
            ("cp.engine = 'zab'", "must be one of 'raft', 'etcd'"),
            (
                "cp.engine = 'etcd'",
                "etcd.endpoints = [] (default): must name a member of etcd where \
                 cp.engine = 'etcd'",
            ),
            (
                "etcd.endpoints = ['a']",
                "etcd.endpoints[0] = 'a': must be host:port, such as 127.0.0.1:8080 or origin:80",
            ),
            ("etcd.prefix = 'a'", PREFIX),
            ("etcd.prefix = '/'", PREFIX),
            (
                "etcd.user = 'a' & cp.engine = 'etcd' & etcd.endpoints = ['a:1']",
                "must have an etcd.password",
            ),
            (
                "etcd.password = 'f' & cp.engine = 'etcd' & etcd.endpoints = ['a:1']",
                "must have an etcd.user",
            ),
            ("etcd.user = 'a' & etcd.password = 'f'", ""),
            (
                "etcd.quorum_timeout = '2s'",
                "etcd.quorum_timeout = '2s': must be below limits.call_timeout = '2s'",
            ),
            ("etcd.lease = '999ms'", "must be at least 1s"),
            ("etcd.request_size = '63KiB'", "must be at least 64KiB"),
            ("etcd.snapshot_every = 1000001", "must be at most 1000000"),
            ("etcd.keep_entries = 1000001", "must be at most 1000000"),
            ("etcd.log_size = '1023KiB'", "must be at least 1MiB"),
            (
                "listen = '[::]:1' & token = [{ name = 'a', scopes = ['edge'], file = 'f' }] & \
                 replicas = ['control-1', 'control-2'] & peers.control-2 = 'a:1' & \
                 cp.engine = 'etcd' & etcd.endpoints = ['a:1']",
                "",
            ),
        ],
    );
}

#[test]
fn agreement_has_bounds() {
    check::<Control>(
        CONTROL,
        &[
            ("raft.heartbeat = '449ms'", ""),
            ("raft.heartbeat = '9ms'", "must be at least 10ms"),
            (
                "raft.heartbeat = '450ms'",
                "raft.election_min = '450ms' (default): must be above raft.heartbeat = '450ms'",
            ),
            (
                "raft.election_min = '150ms'",
                "raft.election_min = '150ms': must be above raft.heartbeat = '150ms'",
            ),
            (
                "raft.election_max = '450ms'",
                "raft.election_max = '450ms': must be above raft.election_min = '450ms'",
            ),
            ("raft.election_max = '61s'", "must be at most 1m"),
            ("raft.quorum_timeout = '1999ms'", ""),
            (
                "raft.quorum_timeout = '2s'",
                "raft.quorum_timeout = '2s': must be below limits.call_timeout = '2s'",
            ),
            ("raft.rpc_timeout = '61s'", "must be at most 1m"),
            ("raft.snapshot_timeout = '3601s'", "must be at most 1h"),
            ("raft.message_size = '63KiB'", "must be at least 64KiB"),
            ("raft.message_size = '65MiB'", "must be at most 64MiB"),
            ("raft.batch_size = '3KiB'", "must be at least 4KiB"),
            ("raft.snapshot_every = 10000001", "must be at most 10000000"),
            ("raft.keep_entries = 10000001", "must be at most 10000000"),
            ("raft.secret = ''", "must be a path, without NUL"),
            (
                "raft.heartbeet = '1s'",
                "raft.heartbeet = '1s': is not a key here; did you mean `heartbeat`?",
            ),
        ],
    );
}

#[test]
fn health_and_limits_have_bounds() {
    check::<Control>(
        CONTROL,
        &[
            ("health.edge_lapse = '10ms'", ""),
            ("health.edge_lapse = '9ms'", "must be at least 10ms"),
            ("health.edge_lapse = '3601s'", "must be at most 1h"),
            ("health.edge_recovery = '0s'", ""),
            ("health.edge_recovery = '1h'", ""),
            ("health.edge_recovery = '3601s'", "must be at most 1h"),
            ("health.edge_expiry = '1001ms'", ""),
            (
                "health.edge_expiry = '1s'",
                "health.edge_expiry = '1s': must be above health.edge_lapse = '1s'",
            ),
            ("health.edge_expiry = '365d'", ""),
            ("health.edge_expiry = '366d'", "must be at most 365d"),
            ("limits.max_connections = 1000001", "must be at most 1000000"),
            ("limits.head_size = '1025KiB'", "must be at most 1MiB"),
            ("limits.head_timeout = '301s'", "must be at most 5m"),
            ("limits.body_size = '4KiB'", ""),
            ("limits.body_size = '4095B'", "must be at least 4KiB"),
            ("limits.body_size = '64MiB'", ""),
            ("limits.body_size = '65MiB'", "must be at most 64MiB"),
            ("limits.max_edges = 100000", ""),
            ("limits.max_edges = 100001", "must be at most 100000"),
            ("limits.call_timeout = '5m'", ""),
            ("limits.call_timeout = '301s'", "must be at most 5m"),
            ("limits.drain_timeout = '3601s'", "must be at most 1h"),
        ],
    );
}

#[test]
fn the_journal_and_the_streams_have_bounds() {
    check::<Control>(
        CONTROL,
        &[
            ("journal.keep = 10000000", ""),
            ("journal.keep = 10000001", "must be at most 10000000"),
            ("journal.max_folded = 1000001", "must be at most 1000000"),
            ("journal.key_expiry = '365d'", ""),
            ("journal.key_expiry = '366d'", "must be at most 365d"),
            ("journal.max_keys = 100000001", "must be at most 100000000"),
            ("journal.max_registers = 100001", "must be at most 100000"),
            ("journal.register_size = '1MiB'", ""),
            ("journal.register_size = '1025KiB'", "must be at most 1MiB"),
            ("journal.register_size = '1023B'", "must be at least 1KiB"),
            ("journal.max_queue = 65537", "must be at most 65536"),
            ("stream.heartbeat = '10ms'", ""),
            ("stream.heartbeat = '9ms'", "must be at least 10ms"),
            ("stream.gather = '0s'", ""),
            ("stream.gather = '1001ms'", "must be at most 1s"),
            ("stream.queue = 1025", "must be at most 1024"),
            ("stream.patience = '61s'", "must be at most 1m"),
            ("stream.max_wait = '3601s'", "must be at most 1h"),
            ("stream.tracked = 1000001", "must be at most 1000000"),
        ],
    );
}

#[test]
fn tokens_have_a_name_scopes_and_a_file() {
    let token = |settings: &str| {
        let whole = "token = [{ name = 'a', scopes = ['edge'], file = 'f' }]";
        format!("{whole} & {settings}")
    };
    let name = |length: usize| token(&format!("token[0].name = '{}'", "n".repeat(length)));
    let visible = "must be 1-63 visible ASCII characters, without spaces";
    let long = format!("token[0].name = '{}…: {visible}", "n".repeat(59));
    let spaced = format!("token[0].name = 'a b': {visible}");
    check::<Control>(
        CONTROL,
        &[
            (&name(1), ""),
            (&name(63), ""),
            (&name(64), &long),
            (&token("token[0].name = 'a b'"), &spaced),
            (&token("token[0].scopes = []"), "token[0].scopes = []: must have at least one scope"),
            (&token("token[0].file = ''"), "token[0].file = '': must be a path, without NUL"),
            (
                &token("token[1] = { name = 'a', scopes = ['edge'], file = 'f' }"),
                "token[1].name = 'a': is there already, at index 0",
            ),
            (
                &token("token[0].scopes = ['edges']"),
                "token[0].scopes[0] = 'edges': must be one of 'purge', 'publish', 'config', \
                 'operate', 'edge'; did you mean 'edge'?",
            ),
        ],
    );
}

#[test]
fn broken_tokens_are_told_one_by_one() {
    let tokens = "token = [{ name = 'a', scopes = ['x', 'edge', 1], file = 'f' }, 7, {}]";
    let found = violations::<Control>(CONTROL, tokens);
    let keys: Vec<&str> = found.iter().map(|told| told.split([' ', ':']).nth(2).unwrap()).collect();
    let want = [
        "token[0].scopes[0]",
        "token[0].scopes[2]",
        "token[1]",
        "token[2].file",
        "token[2].name",
        "token[2].scopes",
    ];
    assert_eq!(keys, want, "{found:?}");
}
