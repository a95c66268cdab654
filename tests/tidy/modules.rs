//! Which source is which module of which crate.
//!
//! Follows `mod` items from the root of each crate, as the compiler does. What a build script or a
//! macro would generate is not seen; there is none.

use std::collections::BTreeMap;

use syn::{Attribute, Expr, Item, Lit, Meta};
use toml::Value;

use crate::source::{Package, Source};

/// The path of a module in its crate; the root's is empty.
pub(crate) type ModulePath = Vec<String>;

/// A crate: its modules.
pub(crate) struct Crate<'s> {
    pub(crate) modules: BTreeMap<ModulePath, Module<'s>>,
}

/// A module that is a file.
pub(crate) struct Module<'s> {
    pub(crate) source: &'s Source,
    /// It exists only in tests of a crate that is not for tests as a whole.
    pub(crate) for_tests: bool,
}

impl<'s> Crate<'s> {
    /// The crate whose root is the source at the path `root`.
    pub(crate) fn from_root(root: &str, sources: &'s [Source]) -> Self {
        let mut modules = BTreeMap::new();
        let folder = root.rsplit_once('/').map_or("", |(folder, _)| folder);
        follow(Vec::new(), root, folder, false, sources, &mut modules);
        Self { modules }
    }
}

/// Adds the source at `path` as the module `at`, and those that it declares, which lie in `folder`.
fn follow<'s>(
    at: ModulePath,
    path: &str,
    folder: &str,
    for_tests: bool,
    sources: &'s [Source],
    modules: &mut BTreeMap<ModulePath, Module<'s>>,
) {
    let Some(source) = sources.iter().find(|source| source.path == path) else { return };
    for item in &source.syntax.items {
        let Item::Mod(module) = item else { continue };
        if module.content.is_some() {
            continue; // it stands in this very source
        }
        let name = module.ident.to_string();
        let child = [at.clone(), vec![name.clone()]].concat();
        let file = format!("{folder}/{name}.rs");
        let (file, below) = match path_attribute(&module.attrs) {
            Some(named) => {
                let here = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                (format!("{here}/{named}"), here.to_owned())
            }
            None => (file, format!("{folder}/{name}")),
        };
        let for_tests = for_tests || is_for_tests(&module.attrs);
        follow(child, &file, &below, for_tests, sources, modules);
    }
    modules.insert(at, Module { source, for_tests });
}

/// The value of `#[path = "..."]`.
fn path_attribute(attrs: &[Attribute]) -> Option<String> {
    attrs.iter().find_map(|attr| match &attr.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    })
}

/// The root sources of a package: where cargo looks for them, and what the manifest names.
pub(crate) fn roots(package: &Package, sources: &[Source]) -> Vec<String> {
    let folder = &package.folder;
    let mut roots = Vec::new();
    for source in sources {
        let Some(path) = source.path.strip_prefix(&format!("{folder}/")) else { continue };
        let steps: Vec<&str> = path.split('/').collect();
        let found = matches!(
            steps.as_slice(),
            ["src", "lib.rs" | "main.rs"]
                | ["build.rs"]
                | ["src", "bin", _]
                | ["src", "bin", _, "main.rs"]
                | ["tests" | "examples" | "benches", _]
                | ["tests" | "examples" | "benches", _, "main.rs"]
        );
        if found {
            roots.push(source.path.clone());
        }
    }
    let named = package
        .manifest
        .iter()
        .filter(|(key, _)| ["lib", "bin", "test", "example", "bench"].contains(&key.as_str()));
    let targets = named.flat_map(|(_, value)| match value {
        Value::Array(targets) => targets.iter().collect(),
        target => vec![target],
    });
    let paths = targets.filter_map(|target| target.get("path")?.as_str());
    roots.extend(paths.map(|path| format!("{folder}/{path}")));
    roots.sort();
    roots.dedup();
    roots
}

/// Whether an item exists only in tests: `#[cfg(test)]`.
pub(crate) fn is_for_tests(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| match &attr.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let words = list.tokens.to_string();
            words == "test" || words.starts_with("all (test") || words.starts_with("all(test")
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::{Crate, roots};
    use crate::source::{Package, Source};

    fn sources() -> Vec<Source> {
        [
            (
                "a/src/lib.rs",
                "mod b; #[cfg(test)] mod t; mod d { fn f() {} } #[path = \"odd/e.rs\"] mod e;",
            ),
            ("a/src/t.rs", ""),
            ("a/src/b.rs", "mod c;"),
            ("a/src/b/c.rs", ""),
            ("a/src/odd/e.rs", ""),
            ("a/tests/t.rs", "mod u;"),
            ("a/tests/u.rs", ""),
            ("a/far/x.rs", ""),
        ]
        .map(|(path, text)| Source::new(path, text))
        .into()
    }

    #[test]
    fn modules_are_found_where_the_compiler_finds_them() {
        let sources = sources();
        let found = Crate::from_root("a/src/lib.rs", &sources);
        let tests: Vec<bool> = found.modules.values().map(|module| module.for_tests).collect();
        assert_eq!(tests, [false, false, false, false, true]);
        let found: Vec<(String, &str)> = found
            .modules
            .iter()
            .map(|(path, module)| (path.join("::"), module.source.path.as_str()))
            .collect();
        let want = [
            ("", "a/src/lib.rs"),
            ("b", "a/src/b.rs"),
            ("b::c", "a/src/b/c.rs"),
            ("e", "a/src/odd/e.rs"),
            ("t", "a/src/t.rs"),
        ];
        assert_eq!(found, want.map(|(module, path)| (module.to_owned(), path)));
    }

    #[test]
    fn roots_are_those_of_cargo_and_of_the_manifest() {
        let manifest = "[[test]]\nname = 'x'\npath = 'far/x.rs'".parse().unwrap();
        let package = Package { folder: "a".to_owned(), manifest };
        let found = roots(&package, &sources());
        assert_eq!(found, ["a/far/x.rs", "a/src/lib.rs", "a/tests/t.rs", "a/tests/u.rs"]);
    }
}
