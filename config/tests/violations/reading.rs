//! How files are read: types, syntax, unknown keys, everything at once, and which role it is.

use std::fs;
use std::path::Path;

use meridian_config::control::Control;
use meridian_config::edge::Edge;
use meridian_config::load::{AnyRole, check, load, parse, parse_any};
use meridian_config::origin::Origin;
use meridian_config::together::check_together;
use meridian_config::units::ByteSize;

use crate::control::CONTROL;
use crate::edge::EDGE;
use crate::front::FRONT;
use crate::origin::ORIGIN;
use crate::rows;

#[test]
fn a_value_of_another_type_is_told_what_belongs_there() {
    let listen =
        "must be an address and a port to listen on, such as '127.0.0.1:8080' or '[::1]:0'";
    rows::check::<Edge>(
        EDGE,
        &[
            ("name = 1", "must be a name such as 'fra-1', not a whole number"),
            ("region = true", "must be a region's label such as 'fra', not a boolean"),
            ("listen = 80", &format!("listen = 80: {listen}, not a whole number")),
            (
                "listen = 'a:80'",
                &format!("listen = 'a:80': {listen}: invalid socket address syntax"),
            ),
            ("cores = '1'", "must be a whole number from 1 to 65535, not a string"),
            ("cores = 1.5", "must be a whole number from 1 to 65535, not a number with a fraction"),
            ("cores = -1", "must be a whole number from 1 to 65535"),
            ("accept = 1", "must be a table, not a whole number"),
            ("accept = []", "must be a table, not an array"),
            ("token = 1979-05-27", "must be an array, not a date or time"),
            (
                "cache.capacity = 1024",
                "must be a size such as '64MiB' or '1KiB', not a whole number",
            ),
            ("log.level = 1", "must be a string, not a whole number"),
            ("log.access = 'no'", "must be true or false, not a string"),
            (
                "log.level = 'inof'",
                "must be one of 'error', 'warn', 'info', 'debug'; did you mean 'info'?",
            ),
        ],
    );
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_or_with_all() {
    rows::check::<Control>(
        CONTROL,
        &[
            ("prefixes = []", "is not a key here; did you mean `prefix`?"),
            ("log.xyz = 1", "is not a key here; known are level, access"),
        ],
    );
}

#[test]
fn everything_that_is_wrong_with_a_file_is_told_at_once_with_its_line() {
    let text = r#"name = "Fra_1"
region = "fra"
admin = "0.0.0.0:8081"
lisen = 5

[cache]
capacity = "64KiB"
max_body = 5
maxbody = "1MiB"

[control]
replicas = ["control-1", 7]

[[origin]]
connect_timeout = "1 parsec"
idle_timeout = "2h"

[[site]]
name = "shop"
origins = ["origin-2"]
profile = "cnd"
"#;
    let want = [
        "listen: is required",
        "name = \"Fra_1\": must be 1-63 of a-z, 0-9 and '-', with no '-' at an end (line 1)",
        "admin = \"0.0.0.0:8081\": must be a loopback address as long as there is no [[token]] (line 3)",
        "lisen = 5: is not a key here; did you mean `listen`? (line 4)",
        "cache.capacity = \"64KiB\": must be at least 1MiB (line 7)",
        "cache.max_body = 5: must be a size such as \"64MiB\" or \"1KiB\", not a whole number (line 8)",
        "cache.maxbody = \"1MiB\": is not a key here; did you mean `max_body`? (line 9)",
        "control.token_file: is required (line 11)",
        "control.replicas[0] = \"control-1\": has no address in [peers]: add control-1 = \"host:port\" there (line 12)",
        "control.replicas[1] = 7: must be a name such as \"fra-1\", not a whole number (line 12)",
        "origin[0].name: is required (line 14)",
        "origin[0].connect_timeout = \"1 parsec\": is not a duration such as \"250ms\" or \"30s\": unknown time unit \"parsec\"",
        "origin[0].idle_timeout = \"2h\": must be at most 1h (line 16)",
        "site[0].hosts = [] (default): must name a host, or the site must be the default one (default = true) (line 18)",
        "site[0].profile = \"cnd\": must be one of \"cdn\", \"rfc\"; did you mean \"cdn\"? (line 21)",
    ];
    let found = parse::<Edge>(text, Path::new("conf/edge.toml")).unwrap_err();
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    for (found, want) in found.iter().zip(want) {
        assert!(found.starts_with(&format!("conf/edge.toml: {want}")), "{found}\nnot {want}");
    }
    assert_eq!(found.len(), want.len(), "{}", found.join("\n"));
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    let told = || {
        let found = load::<Edge>(&file).unwrap_err().to_string();
        found.strip_prefix(&format!("{}: ", file.display())).unwrap().to_owned()
    };
    assert_eq!(told(), "cannot be read: No such file or directory (os error 2)");

    fs::write(&file, b"name = \"\xff\"").unwrap();
    assert!(told().starts_with("is not UTF-8: "), "{}", told());

    fs::write(&file, vec![b'#'; 1 << 20]).unwrap();
    assert!(told().starts_with("admin: is required"), "{}", told()); // at the limit: read
    fs::write(&file, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(told(), "must be at most 1MiB");

    fs::write(&file, "name = \"a\"\nname = \"b\"\n\nlisten = \n").unwrap();
    let lines: Vec<Option<usize>> =
        load::<Edge>(&file).unwrap_err().iter().map(|violation| violation.line).collect();
    assert!(lines.contains(&Some(2)) && lines.contains(&Some(4)), "{lines:?}: {}", told());
    assert!(told().starts_with("is not TOML: "), "{}", told());
}

#[test]
fn a_file_with_very_many_faults_is_judged_up_to_a_hundred() {
    let peers = |value: &str, count: usize| {
        let lines = (0..count).map(|n| format!("peers.n{n} = {value}\n"));
        format!("{CONTROL}{}", lines.collect::<String>())
    };
    let count = |text: &str| match parse_any(text, Path::new("f")) {
        Ok(_) => 0,
        Err(found) => found.iter().count(),
    };
    assert_eq!(count(&peers("'a:1'", 5_000)), 0);
    assert_eq!(count(&peers("'a'", 99)), 99);
    assert_eq!(count(&peers("'a'", 5_000)), 100);
    let strangers: String = (0..5_000).map(|n| format!("stranger{n} = 1\n")).collect();
    assert_eq!(count(&format!("{strangers}{CONTROL}")), 100);
}

#[test]
fn relative_paths_start_at_the_folder_of_the_file() {
    let token = "\ntoken = [{ name = 't', scopes = ['edge'], file = 'secret' }]";
    let path = Path::new("/etc/meridian/node.toml");
    let control: Control = parse(&format!("{CONTROL}{token}"), path).unwrap();
    assert_eq!(control.data, Path::new("/etc/meridian/state"));
    assert_eq!(control.token[0].file, Path::new("/etc/meridian/secret"));

    let absolute = CONTROL.replace("\"state\"", "\"/var/lib/meridian\"");
    assert_eq!(parse::<Control>(&absolute, path).unwrap().data, Path::new("/var/lib/meridian"));

    let folder = ORIGIN.replace("sample = true", "folder = \"site\"");
    let content = parse::<Origin>(&folder, path).unwrap().content;
    assert_eq!(content.folder.as_deref(), Some(Path::new("/etc/meridian/site")));
    let trace = ORIGIN.replace("sample = true", "trace = \"../t.csv\"");
    let content = parse::<Origin>(&trace, path).unwrap().content;
    assert_eq!(content.trace.as_deref(), Some(Path::new("/etc/meridian/../t.csv")));

    let follow = format!("{EDGE}[control]\nreplicas = ['control-1']\ntoken_file = 'secret'");
    let edge: Edge = parse(&follow, path).unwrap();
    assert_eq!(edge.control.unwrap().token_file, Path::new("/etc/meridian/secret"));
}

#[test]
fn a_file_is_taken_for_the_role_that_it_fits_best() {
    let path = Path::new("any.toml");
    let rows = [(EDGE, "edge"), (ORIGIN, "origin"), (CONTROL, "control"), (FRONT, "front")];
    for (text, role) in rows {
        assert_eq!(parse_any(text, path).unwrap().role(), role);
        // A slip does not make it another role.
        let found = parse_any(&format!("{text}\n[[tokne]]\n"), path).unwrap_err().to_string();
        assert!(found.contains("tokne"), "{found}");
        assert_eq!(found.lines().count(), 1, "{role}: {found}");
    }
    let origin = ORIGIN.replace("sample = true", "");
    let found = parse_any(&origin, path).unwrap_err().to_string();
    assert!(found.contains("exactly one of folder, trace and sample"), "{found}");
}

#[test]
fn a_role_made_in_code_is_checked_by_the_same_rules() {
    let mut edge: Edge = parse(EDGE, Path::new("f")).unwrap();
    assert_eq!(check(&edge, "made"), Ok(()));
    edge.cache.capacity = ByteSize::kib(64);
    edge.cache.max_body = edge.cache.capacity;
    let found = check(&edge, "made").unwrap_err().to_string();
    assert_eq!(found, "made: cache.capacity = \"64KiB\": must be at least 1MiB");
}

#[test]
fn files_are_checked_against_each_other() {
    let follow = |beat: &str| {
        let text =
            format!("{EDGE}[control]\nreplicas = ['control-1']\ntoken_file = 't'\nbeat = '{beat}'");
        ("edge".to_owned(), parse_any(&text, Path::new("edge")).unwrap())
    };
    let control = |name: &str| -> (String, AnyRole) {
        let text = CONTROL.replace("control-1", name);
        (name.to_owned(), parse_any(&text, Path::new(name)).unwrap())
    };
    assert_eq!(check_together(&[follow("999ms"), control("control-1")]), Ok(()));
    let found = check_together(&[follow("1s"), control("control-1")]).unwrap_err().to_string();
    assert_eq!(
        found,
        "edge: control.beat = \"1s\": must be below health.edge_lapse = \"1s\" of control-1"
    );
    // Another cluster's replica is none of its business.
    assert_eq!(check_together(&[follow("1s"), control("control-9")]), Ok(()));
    let found = check_together(&[control("control-1"), control("control-1")]).unwrap_err();
    let want = "control-1: name = \"control-1\": is the name of the node in control-1 already";
    assert_eq!(found.to_string(), want);
}
