//! The rules of an edge.

use meridian_config::edge::Edge;

use crate::rows::{check, violations};

pub(crate) const EDGE: &str = r#"
name = "fra-1"
region = "fra"
listen = "127.0.0.1:8081"
admin = "127.0.0.1:9081"
[peers]
control-1 = "127.0.0.1:8090"
origin-1 = "127.0.0.1:8070"
[[origin]]
name = "origin-1"
[[site]]
name = "shop"
hosts = ["shop.example"]
origins = ["origin-1"]
"#;

const FOLLOWS: &str = "control = { replicas = ['control-1'], token_file = 't' }";

#[test]
fn listeners_are_kept_apart_and_guarded() {
    let token = "token = [{ name = 't', scopes = ['operate'], file = 't' }]";
    let guarded = format!("admin = '0.0.0.0:9081' & {token}");
    let alone = "must be a loopback address as long as there is no [[token]]";
    check::<Edge>(
        EDGE,
        &[
            ("", ""),
            ("listen = '0.0.0.0:80'", ""), // clients come from anywhere
            ("admin = '127.0.0.2:8081'", ""),
            ("admin = '[::1]:8081'", ""),
            ("admin = '127.0.0.1:0' & listen = '127.0.0.1:0'", ""), // two free ones
            (
                "admin = '127.0.0.1:8081'",
                "admin = '127.0.0.1:8081': must not be the port of listen = '127.0.0.1:8081'",
            ),
            (
                "admin = '[::1]:8081' & listen = '[::]:8081'",
                "admin = '[::1]:8081': must not be the port of listen = '[::]:8081'",
            ),
            ("admin = '127.255.0.1:9081'", ""),
            ("admin = '[::ffff:127.0.0.1]:9081'", ""),
            ("admin = '0.0.0.0:9081'", alone),
            ("admin = '[::]:9081'", alone),
            (&guarded, ""),
        ],
    );
}

#[test]
fn a_followed_edge_can_be_placed() {
    let row = |settings: &str| format!("{settings} & {FOLLOWS}");
    let range = "must be a latitude from -90 to 90 and a longitude from -180 to 180";
    check::<Edge>(
        EDGE,
        &[
            (FOLLOWS, ""),
            ("region = 'atlantis'", ""), // nobody asks where it is
            (
                &row("region = 'atlantis'"),
                "region = 'atlantis': is not in the table of places: clients can be steered here \
                 only if location = [latitude, longitude] is given too",
            ),
            (&row("region = 'atlantis' & location = [35, -25]"), ""),
            ("location = [90, 180]", ""),
            ("location = [-90.0, -180.0]", ""),
            ("location = [90.1, 0.0]", range),
            ("location = [0, -181]", range),
            ("location = [nan, 0]", range),
            ("location = [1]", "must be an array of latitude and longitude, not 1 elements"),
            ("location = [1, 2, 3]", "must have 2 elements at most"),
            ("city = ''", "must be 1-100 bytes of text without control characters"),
        ],
    );
}

#[test]
fn urls_and_cores_have_bounds() {
    let base = "must be http:// or https:// and a host, such as 'http://fra-1:80'";
    let told = |setting: &str| format!("{setting}: {base}");
    check::<Edge>(
        EDGE,
        &[
            ("cores = 1024", ""),
            ("cores = 1025", "must be at most 1024"),
            ("cores = 0", "must be a whole number from 1 to 65535"),
            ("public_url = 'https://cdn.example'", ""),
            ("public_url = 'http://[::1]:80/'", ""),
            ("admin_url = 'http://10.0.0.1:9081'", ""),
            ("public_url = 'cdn.example'", &told("public_url = 'cdn.example'")),
            ("public_url = 'http://'", &told("public_url = 'http://'")),
            ("public_url = 'http://a:x'", &told("public_url = 'http://a:x'")),
            ("admin_url = 'http://a/b'", &told("admin_url = 'http://a/b'")),
            ("admin_url = 'http://u@a'", &told("admin_url = 'http://u@a'")),
        ],
    );
}

#[test]
fn replicas_that_are_followed_can_be_reached() {
    let row = |settings: &str| format!("{settings} & control.token_file = 't'");
    let beat = |value: &str| format!("{FOLLOWS} & control.beat = '{value}'");
    let pause = |value: &str| format!("{FOLLOWS} & control.ack_pause = '{value}'");
    check::<Edge>(
        EDGE,
        &[
            (&beat("10ms"), ""),
            (&beat("9ms"), "control.beat = '9ms': must be at least 10ms"),
            (&beat("60s"), ""),
            (&beat("61s"), "control.beat = '61s': must be at most 1m"),
            (&pause("1s"), ""),
            (&pause("1001ms"), "control.ack_pause = '1001ms': must be at most 1s"),
            (&row("control.replicas = []"), "must name at least one control replica"),
            (
                &row("control.replicas = ['control-1', 'control-1']"),
                "control.replicas[1] = 'control-1': is there already, at index 0",
            ),
            (
                &row("control.replicas = ['control-2']"),
                "control.replicas[0] = 'control-2': has no address in [peers]: \
                 add control-2 = 'host:port' there",
            ),
            (
                "control.token_file = '' & control.replicas = ['control-1']",
                "must be a path, without NUL",
            ),
        ],
    );
}

#[test]
fn an_edge_accepts_within_limits() {
    check::<Edge>(
        EDGE,
        &[
            ("accept.max_connections = 1", ""),
            ("accept.max_connections = 1000000", ""),
            ("accept.max_connections = 1000001", "must be at most 1000000"),
            ("accept.max_requests = 0", "must be a whole number from 1 to 4294967295"),
            ("accept.max_streams = 65536", ""),
            ("accept.max_streams = 65537", "must be at most 65536"),
            ("accept.head_size = '8KiB'", ""),
            ("accept.head_size = '8191B'", "must be at least 8KiB"),
            ("accept.head_size = '1MiB'", ""),
            ("accept.head_size = '1025KiB'", "must be at most 1MiB"),
            ("accept.max_tunnels = 1000001", "must be at most 1000000"),
            ("accept.tunnel_idle_timeout = '1d'", ""),
            ("accept.tunnel_idle_timeout = '86401s'", "must be at most 1d"),
            ("accept.target_size = '1KiB'", ""),
            ("accept.target_size = '1023B'", "must be at least 1KiB"),
            ("accept.target_size = '63KiB'", ""),
            ("accept.target_size = '64KiB'", "must be at most 63KiB"),
            ("accept.trusted_proxies = ['10.0.0.0/8', '::1']", ""),
            ("accept.head_fields = 4096", ""),
            ("accept.head_fields = 4097", "must be at most 4096"),
            ("accept.head_timeout = '10ms'", ""),
            ("accept.head_timeout = '9ms'", "must be at least 10ms"),
            ("accept.head_timeout = '5m'", ""),
            ("accept.head_timeout = '301s'", "must be at most 5m"),
            ("accept.idle_timeout = '1h'", ""),
            ("accept.idle_timeout = '3601s'", "must be at most 1h"),
            ("accept.send_timeout = '1h'", ""),
            ("accept.send_timeout = '3601s'", "must be at most 1h"),
            ("accept.least_rate = '0B'", ""), // no limit
            ("accept.least_rate = '1MiB'", ""),
            ("accept.least_rate = '1025KiB'", "must be at most 1MiB"),
            ("accept.rate_grace = '10ms'", ""),
            ("accept.rate_grace = '9ms'", "must be at least 10ms"),
            ("accept.rate_grace = '1h'", ""),
            ("accept.rate_grace = '3601s'", "must be at most 1h"),
            ("accept.body_size = '0B'", ""), // an edge that takes no bodies
            ("accept.drain_timeout = '0s'", ""), // an edge that does not wait
            ("accept.drain_timeout = '3601s'", "must be at most 1h"),
        ],
    );
}

#[test]
fn a_store_has_room_for_what_it_may_hold() {
    check::<Edge>(
        EDGE,
        &[
            ("cache.capacity = '1MiB' & cache.max_body = '1MiB'", ""),
            ("cache.capacity = '1023KiB' & cache.max_body = '1KiB'", "must be at least 1MiB"),
            ("cache.capacity = '1TiB'", ""),
            ("cache.capacity = '1025GiB'", "must be at most 1024GiB"),
            (
                "cache.capacity = '1MiB'",
                "cache.max_body = '64MiB' (default): must be at most cache.capacity = '1MiB'",
            ),
            ("cache.max_body = '256MiB'", ""),
            (
                "cache.max_body = '257MiB'",
                "cache.max_body = '257MiB': must be at most cache.capacity = '256MiB'",
            ),
            ("cache.in_flight = '64KiB'", ""),
            ("cache.in_flight = '63KiB'", "must be at least 64KiB"),
            ("cache.in_flight = '2TiB'", "must be at most 1024GiB"),
            ("cache.max_variants = 1024", ""),
            ("cache.max_variants = 1025", "must be at most 1024"),
            ("cache.max_parts = 1024", ""),
            ("cache.max_parts = 1025", "must be at most 1024"),
            ("cache.max_background = 65536", ""),
            ("cache.max_background = 65537", "must be at most 65536"),
        ],
    );
}

#[test]
fn deadlines_of_an_origin_fit_into_each_other() {
    check::<Edge>(
        EDGE,
        &[
            ("origin[0].total_timeout = '15s'", ""),
            (
                "origin[0].total_timeout = '14s'",
                "origin[0].total_timeout = '14s': must be at least first_byte_timeout = '15s'",
            ),
            ("origin[0].total_timeout = '2s' & origin[0].first_byte_timeout = '1s'", ""),
            (
                "origin[0].total_timeout = '1s' & origin[0].first_byte_timeout = '1s'",
                "origin[0].total_timeout = '1s': must be at least connect_timeout = '2s'",
            ),
            ("origin[0].connect_timeout = '60s' & origin[0].total_timeout = '60s'", ""),
            (
                "origin[0].connect_timeout = '61s' & origin[0].total_timeout = '61s'",
                "must be at most 1m",
            ),
            ("origin[0].connect_timeout = '9ms'", "must be at least 10ms"),
            ("origin[0].first_byte_timeout = '9ms'", "must be at least 10ms"),
            ("origin[0].between_bytes_timeout = '9ms'", "must be at least 10ms"),
            ("origin[0].total_timeout = '3601s'", "must be at most 1h"),
            ("origin[0].least_rate = '0B'", ""),
            ("origin[0].least_rate = '1MiB'", ""),
            ("origin[0].least_rate = '1048577B'", "must be at most 1MiB"),
            ("origin[0].rate_grace = '9ms'", "must be at least 10ms"),
            ("origin[0].rate_grace = '3601s'", "must be at most 1h"),
            ("origin[0].idle_timeout = '3601s'", "must be at most 1h"),
            ("origin[0].max_requests = 65536", ""),
            ("origin[0].max_requests = 65537", "must be at most 65536"),
            ("origin[0].max_idle = 65536", ""),
            ("origin[0].max_idle = 65537", "must be at most 65536"),
            ("origin[0].max_queue = 1000000", ""),
            ("origin[0].max_queue = 1000001", "must be at most 1000000"),
        ],
    );
}

#[test]
fn origins_are_named_once_and_reachable() {
    let address = "must be host:port, such as 127.0.0.1:8080 or origin:80";
    check::<Edge>(
        EDGE,
        &[
            ("origin[1].name = 'origin-1'", "is there already, at index 0"),
            (
                "peers.origin-1-",
                "origin[0].name = 'origin-1': has no address in [peers]: \
                 add origin-1 = 'host:port' there",
            ),
            ("peers.origin-1 = 'origin'", address),
            ("peers.origin-1 = 'a:0'", address),
            ("peers.origin-1 = 'a:65536'", address),
            ("peers.origin-1 = '::1:80'", address),
            ("peers.origin-1 = '[::1]:80'", ""),
            ("origin[0].authority = 'u@a:1'", address),
            ("peers.Origin = 'a:1'", "must be 1-63 of a-z, 0-9 and '-', with no '-' at an end"),
        ],
    );
}

#[test]
fn sites_share_out_the_hosts() {
    let second = |settings: &str| {
        format!("{settings} & site[1].name = 'b' & site[1].origins = ['origin-1']")
    };
    check::<Edge>(
        EDGE,
        &[
            (&second("site[1].hosts = ['b.example']"), ""),
            (
                "site[1].name = 'shop' & site[1].origins = ['origin-1'] & site[1].default = true",
                "is there already, at index 0",
            ),
            (
                &second("site[1].hosts = ['b.example', 'SHOP.example.']"),
                "site[1].hosts[1] = 'SHOP.example.': is claimed by site shop already",
            ),
            (
                &second("site[1].hosts = []"),
                "site[1].hosts = []: must name a host, or the site must be the default one \
                 (default = true)",
            ),
            (&second("site[1].default = true"), ""),
            (
                &second("site[1].default = true & site[0].default = true"),
                "must be true for one site only, and site shop is it already",
            ),
            (
                "site[0].hosts = ['a/b']",
                "site[0].hosts[0] = 'a/b': must be a host name without scheme, port and path",
            ),
            ("site[0].origins = []", "must name at least one origin"),
            (
                "site[0].origins = ['origin-2']",
                "site[0].origins[0] = 'origin-2': names no [[origin]]: add one with \
                 name = 'origin-2'",
            ),
            (
                "site[0].origins = ['origin-1', 'origin-1']",
                "site[0].origins[1] = 'origin-1': is there already, at index 0",
            ),
        ],
    );
}

#[test]
fn a_sites_policy_has_bounds() {
    let name = "must be a parameter's name, with a '*' at its end at most";
    let told = |key: &str| format!("{key}: {name}");
    check::<Edge>(
        EDGE,
        &[
            ("site[0].default_lifetime = '365d'", ""),
            ("site[0].default_lifetime = '366d'", "must be at most 365d"),
            ("site[0].heuristic_max = '365d'", ""),
            ("site[0].heuristic_max = '366d'", "must be at most 365d"),
            ("site[0].stale_max = '365d'", ""),
            ("site[0].stale_max = '366d'", "must be at most 365d"),
            ("site[0].stale_if_error = '0s'", ""),
            ("site[0].stale_if_error = '366d'", "must be at most 365d"),
            ("site[0].stale_if_disconnected = '366d'", "must be at most 365d"),
            ("site[0].heuristic_fraction = 0.0", ""),
            ("site[0].heuristic_fraction = 1.0", ""),
            ("site[0].heuristic_fraction = 1.1", "1.1 is not a ratio between 0 and 1"),
            ("site[0].heuristic_fraction = nan", "NaN is not a ratio between 0 and 1"),
            ("site[0].negative = { 404 = '0s', 5xx = '365d' }", ""),
            (
                "site[0].negative = { 404 = '366d' }",
                "site[0].negative.404 = '366d': must be at most 365d",
            ),
            (
                "site[0].negative = { 1xx = '1s' }",
                "site[0].negative.1xx = '1s': must be a final status such as 404, or a class such \
                 as 5xx",
            ),
            ("site[0].languages = ['en', 'de-CH', 'zh-Hant']", ""),
            (
                "site[0].languages = ['e_n']",
                "site[0].languages[0] = 'e_n': must be a language tag such as en or de-CH",
            ),
            (
                "site[0].languages = ['en', 'en']",
                "site[0].languages[1] = 'en': is there already, at index 0",
            ),
            ("site[0].slice_size = '64KiB'", ""),
            ("site[0].slice_size = '65535B'", "must be at least 64KiB"),
            ("site[0].slice_size = '64MiB'", ""),
            ("site[0].slice_size = '65MiB'", "must be at most 64MiB"),
            ("site[0].query.keep = ['id', 'utm_*', '*']", ""),
            ("site[0].query.drop = ['a*b']", &told("site[0].query.drop[0] = 'a*b'")),
            ("site[0].query.drop = ['a b']", &told("site[0].query.drop[0] = 'a b'")),
            ("site[0].query.keep = ['']", &told("site[0].query.keep[0] = ''")),
            (
                "site[0].query.keep = ['a', 'a']",
                "site[0].query.keep[1] = 'a': is there already, at index 0",
            ),
        ],
    );
}

#[test]
fn what_rests_on_something_broken_is_not_judged() {
    // The site names an origin whose own name is wrong: only that is said.
    let found = violations::<Edge>(EDGE, "origin[0].name = 'Origin'");
    let label = "must be 1-63 of a-z, 0-9 and '-', with no '-' at an end";
    assert_eq!(found, [format!("f: origin[0].name = 'Origin': {label}")]);
    // The limit of bodies would be compared with a capacity that nobody could read.
    let found = violations::<Edge>(EDGE, "cache.capacity = 'big' & cache.max_body = '1GiB'");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("f: cache.capacity = 'big': is not a size"), "{found:?}");
    // Elements after a broken one keep their indexes.
    let found = violations::<Edge>(EDGE, "site[0].origins = ['Bad', 'origin-1', 'origin-9']");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].starts_with("f: site[0].origins[2] = 'origin-9': names no"), "{found:?}");
}

#[test]
fn compression_has_bounds() {
    check::<Edge>(
        EDGE,
        &[
            ("compression.workers = 256", ""),
            ("compression.workers = 257", "must be at most 256"),
            ("compression.queue = 1000001", "must be at most 1000000"),
            ("site[0].compression.codings = []", ""),
            ("site[0].compression.codings = ['zstd', 'gzip']", ""),
            (
                "site[0].compression.codings = ['br', 'br']",
                "site[0].compression.codings[1] = 'br': is there already, at index 0",
            ),
            (
                "site[0].compression.types = ['text/html; charset=utf-8']",
                "site[0].compression.types[0] = 'text/html; charset=utf-8': must be a media type \
                 without parameters, such as 'text/*'",
            ),
            ("site[0].compression.min_size = '10MiB'", ""),
            (
                "site[0].compression.min_size = '11MiB'",
                "site[0].compression.min_size = '11MiB': must be at most max_size = '10MiB'",
            ),
            ("site[0].compression.max_size = '257MiB'", "must be at most 256MiB"),
            ("site[0].compression.gzip_level = 0", "must be at least 1"),
            ("site[0].compression.gzip_level = 10", "must be at most 9"),
            ("site[0].compression.br_level = 0", ""),
            ("site[0].compression.br_level = 10", "must be at most 9"),
            ("site[0].compression.zstd_level = 19", ""),
            ("site[0].compression.zstd_level = 20", "must be at most 19"),
        ],
    );
}
