//! Names, lengths and headers of files.

use std::collections::BTreeSet;

use crate::breach::Breach;
use crate::modules::Crate;
use crate::source::Source;

/// What may stand at the top, dot files and licences aside.
const TOP: [&str; 9] = [
    "Cargo.toml",
    "Cargo.lock",
    "edge",
    "origin",
    "control",
    "config",
    "deploy",
    "tests",
    "README.md",
];

const LONGEST_FILE: usize = 600;

/// The top level holds what the guide names, and what cargo makes.
pub(crate) fn top_level(names: &[String]) -> Vec<Breach> {
    let law = "the top level is Cargo.toml, Cargo.lock, edge, origin, control, config, deploy, \
               tests and README.md";
    let known = |name: &&String| {
        TOP.contains(&name.as_str())
            || name.starts_with('.')
            || name.starts_with("LICENSE")
            || *name == "target"
    };
    let strangers = names.iter().filter(|name| !known(name));
    strangers.map(|name| Breach::new(name, 0, "stands at the top", law)).collect()
}

/// What a source is called, how long it is, how it begins.
pub(crate) fn source(source: &Source) -> Vec<Breach> {
    let mut found = Vec::new();
    let mut breach = |line, what: String, law| {
        found.push(Breach::new(&source.path, line, what, law));
    };
    let mut steps = source.path.trim_end_matches(".rs").rsplit('/');
    if source.path.ends_with("/mod.rs") {
        breach(0, "is a mod.rs".to_owned(), "foo.rs stands beside foo/, without mod.rs");
    }
    if let Some(name) = steps.find(|step| ["util", "utils", "common"].contains(step)) {
        breach(0, format!("is called {name}"), "a module is named after what it knows");
    }
    let lines = source.text.lines().count();
    if lines > LONGEST_FILE {
        breach(
            LONGEST_FILE,
            format!("has {lines} lines"),
            "a file has at most 600: find the second topic",
        );
    }
    if !source.text.starts_with("//! ") {
        let law = "a file opens with //! and what it answers";
        breach(1, "has no header".to_owned(), law);
    }
    found
}

/// Sources that no crate reaches.
pub(crate) fn orphans(sources: &[Source], crates: &[Crate<'_>]) -> Vec<Breach> {
    let reached: BTreeSet<&str> = crates
        .iter()
        .flat_map(|one| one.modules.values().map(|module| module.source.path.as_str()))
        .collect();
    let orphans = sources.iter().filter(|source| !reached.contains(source.path.as_str()));
    let law = "each source is a module of some crate: what nothing compiles is dead";
    orphans.map(|source| Breach::new(&source.path, 0, "no mod leads here", law)).collect()
}

#[cfg(test)]
mod tests {
    use super::{orphans, source, top_level};
    use crate::modules::Crate;
    use crate::source::Source;

    #[test]
    fn a_stranger_at_the_top_is_refused() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(top_level(&names(&["edge", ".ci", "LICENSE-MIT", "target"])), []);
        let found = top_level(&names(&["edge", "scripts"]));
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().starts_with("scripts: stands at the top: "), "{}", found[0]);
    }

    #[test]
    fn bad_names_lengths_and_headers_are_refused() {
        let lines = |count: usize| format!("//! Long.\n{}", "\n".repeat(count - 1));
        let rows = [
            ("a/src/b.rs", "//! Fine.\n".to_owned(), None),
            ("a/src/b/mod.rs", "//! Fine.\n".to_owned(), Some("a/src/b/mod.rs: is a mod.rs")),
            ("a/src/util.rs", "//! Fine.\n".to_owned(), Some("a/src/util.rs: is called util")),
            (
                "a/src/common/b.rs",
                "//! F.\n".to_owned(),
                Some("a/src/common/b.rs: is called common"),
            ),
            ("a/src/b.rs", lines(600), None),
            ("a/src/b.rs", lines(601), Some("a/src/b.rs:600: has 601 lines")),
            ("a/src/b.rs", "use a::b;\n".to_owned(), Some("a/src/b.rs:1: has no header")),
            ("a/src/b.rs", "//!\n".to_owned(), Some("a/src/b.rs:1: has no header")),
        ];
        for (path, text, want) in rows {
            let found: Vec<String> =
                source(&Source::new(path, &text)).iter().map(ToString::to_string).collect();
            match want {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(want) => {
                    assert_eq!(found.len(), 1, "{found:?}");
                    assert!(found[0].starts_with(want), "{}\nnot {want}", found[0]);
                }
            }
        }
    }

    #[test]
    fn an_orphan_is_refused() {
        let sources = [("a/src/lib.rs", "mod b;"), ("a/src/b.rs", ""), ("a/src/c.rs", "")];
        let sources = sources.map(|(path, text)| Source::new(path, text));
        let found = orphans(&sources, &[Crate::from_root("a/src/lib.rs", &sources)]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "a/src/c.rs");
    }
}
