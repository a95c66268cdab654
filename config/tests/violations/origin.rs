//! The rules of an origin.

use meridian_config::origin::Origin;

use crate::rows::check;

pub(crate) const ORIGIN: &str = r#"
name = "origin-1"
region = "iad"
listen = "127.0.0.1:8070"
admin = "127.0.0.1:9070"
[content]
sample = true
"#;

#[test]
fn an_origin_serves_one_thing() {
    let not_sample = |settings: &str| format!("{settings} & content.sample = false");
    check::<Origin>(
        ORIGIN,
        &[
            ("", ""),
            (&not_sample("content.folder = 'site'"), ""),
            (&not_sample("content.trace = 't.csv'"), ""),
            (&not_sample("content.default_size = '1GiB' & content.trace = 't.csv'"), ""),
            (
                &not_sample("content.default_size = '1025MiB' & content.trace = 't.csv'"),
                "must be at most 1GiB",
            ),
            (
                "content.sample = false",
                "content: must have exactly one of folder, trace and sample, not none",
            ),
            (
                "content.folder = 'site' & content.trace = 't.csv'",
                "content: must have exactly one of folder, trace and sample, not folder and trace \
                 and sample",
            ),
            ("content.default_size = '1KiB'", "is for objects of a trace, and there is none"),
            (&not_sample("content.folder = ''"), "must be a path, without NUL"),
            (&not_sample("content.trace = \"a\\u0000\""), "must be a path, without NUL"),
            ("content-", "content: is required"),
        ],
    );
}

#[test]
fn listeners_are_kept_apart_and_guarded() {
    check::<Origin>(
        ORIGIN,
        &[
            ("admin = '0.0.0.0:1'", "must be a loopback address as long as there is no [[token]]"),
            (
                "admin = '127.0.0.1:8070'",
                "admin = '127.0.0.1:8070': must not be the port of listen = '127.0.0.1:8070'",
            ),
        ],
    );
}

#[test]
fn rules_set_fields_that_may_be_sent() {
    let field = "must be visible ASCII characters, with spaces only between them";
    check::<Origin>(
        ORIGIN,
        &[
            ("rule[0] = { path = '*.css', cache_control = 'max-age=60, public' }", ""),
            ("rule[0] = { path = '/a', surrogate_key = 'a b' }", ""),
            (
                "rule[0] = { path = '/a' }",
                "rule[0]: sets nothing: give it cache_control, surrogate_key or both",
            ),
            ("rule[0].cache_control = \"a\\tb\" & rule[0].path = '/a'", field),
            ("rule[0].cache_control = 'é' & rule[0].path = '/a'", field),
            ("rule[0].surrogate_key = ' a' & rule[0].path = '/a'", field),
            ("rule[0].surrogate_key = '' & rule[0].path = '/a'", field),
            (
                "rule[0].path = 'a' & rule[0].cache_control = 'no-store'",
                "must start with '/' or '*', such as '/img/*' or '*.css'",
            ),
        ],
    );
}

#[test]
fn limits_have_bounds() {
    check::<Origin>(
        ORIGIN,
        &[
            ("limits.max_connections = 1000000", ""),
            ("limits.max_connections = 1000001", "must be at most 1000000"),
            ("limits.head_size = '8KiB'", ""),
            ("limits.head_size = '8191B'", "must be at least 8KiB"),
            ("limits.head_timeout = '9ms'", "must be at least 10ms"),
            ("limits.max_ranges = 1000", ""),
            ("limits.max_ranges = 1001", "must be at most 1000"),
            ("limits.max_counted_paths = 10000000", ""),
            ("limits.max_counted_paths = 10000001", "must be at most 10000000"),
            ("limits.drain_timeout = '1h'", ""),
            ("limits.drain_timeout = '3601s'", "must be at most 1h"),
        ],
    );
}
