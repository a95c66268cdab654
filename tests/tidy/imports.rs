//! What imports what: three blocks, the defining module, no cycles.
//!
//! A module depends on another if a path of it leads there, in a `use` or in an expression. Tests
//! inside a module may look anywhere, and are not followed.

use std::collections::{BTreeMap, BTreeSet};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Item, ItemMod, ItemUse, UseTree, VisRestricted};

use crate::breach::Breach;
use crate::modules::{Crate, Module, ModulePath, is_for_tests};
use crate::source::Source;

/// Imports stand in three blocks: the standard library, crates, ours.
pub(crate) fn blocks(source: &Source) -> Vec<Breach> {
    let mut found = Vec::new();
    blocks_of(&source.path, &source.syntax.items, &mut found);
    found
}

/// One import: its block, if it is clear, and its first and last line.
type Import = (Option<u8>, usize, usize);

fn blocks_of(path: &str, items: &[Item], found: &mut Vec<Breach>) {
    let modules: BTreeSet<String> = items
        .iter()
        .filter_map(|item| match item {
            Item::Mod(module) => Some(module.ident.to_string()),
            _ => None,
        })
        .collect();
    let mut run: Vec<Import> = Vec::new();
    for item in items {
        match item {
            // What is passed on (`pub use`) is part of the map, not an import.
            Item::Use(import) if matches!(import.vis, syn::Visibility::Inherited) => {
                let span = import.span();
                let lines = (span.start().line, span.end().line);
                run.push((block(import, &modules), lines.0, lines.1));
                continue;
            }
            Item::Mod(ItemMod { content: Some((_, items)), .. }) => blocks_of(path, items, found),
            _ => {}
        }
        check_run(path, &std::mem::take(&mut run), found);
    }
    check_run(path, &run, found);
}

/// 0 for the standard library, 1 for crates, 2 for ours. Where packages of this workspace belong is
/// left to the file, as long as it is one place.
fn block(import: &ItemUse, modules: &BTreeSet<String>) -> Option<u8> {
    let first = match &import.tree {
        UseTree::Path(path) => path.ident.to_string(),
        UseTree::Name(name) => name.ident.to_string(),
        UseTree::Rename(rename) => rename.ident.to_string(),
        _ => return Some(1),
    };
    match first.as_str() {
        "std" | "core" | "alloc" => Some(0),
        "crate" | "self" | "super" => Some(2),
        name if name.starts_with("meridian_") => None,
        name if modules.contains(name) => Some(2),
        _ => Some(1),
    }
}

fn check_run(path: &str, run: &[Import], found: &mut Vec<Breach>) {
    let law = "imports stand in three blocks, std, crates, ours, with an empty line between them";
    let wrong = |unclear: u8| {
        run.windows(2).find_map(|pair| {
            let [(before, _, end), (after, start, _)] = pair else { return None };
            let (before, after) = (before.unwrap_or(unclear), after.unwrap_or(unclear));
            let apart = start - end > 1;
            match (before.cmp(&after), apart) {
                (std::cmp::Ordering::Equal, false) | (std::cmp::Ordering::Less, true) => None,
                (std::cmp::Ordering::Equal, true) => Some((*start, "an empty line within a block")),
                (std::cmp::Ordering::Less, false) => Some((*start, "no empty line before a block")),
                (std::cmp::Ordering::Greater, _) => Some((*start, "an import out of its block")),
            }
        })
    };
    if let (Some(_), Some((line, what))) = (wrong(1), wrong(2)) {
        found.push(Breach::new(path, line, what, law));
    }
}

/// Imports through the crate's root, and cycles between modules.
pub(crate) fn graph(of: &Crate<'_>) -> Vec<Breach> {
    let mut found = Vec::new();
    let mut edges = Edges::new();
    for (module, Module { source, .. }) in of.modules.iter().filter(|(_, one)| !one.for_tests) {
        let mut paths = Paths { found: Vec::new() };
        paths.visit_file(&source.syntax);
        for (path, line) in paths.found {
            let Some(full) = resolve(module, &path, of) else { continue };
            let target =
                (0..=full.len()).rev().find_map(|n| of.modules.get_key_value(full.get(..n)?));
            let Some((target, _)) = target.filter(|(target, _)| *target != module) else {
                continue;
            };
            if target.is_empty() && !full.is_empty() {
                let law =
                    "a thing is imported from the module that defines it, not through the root";
                found.push(Breach::new(&source.path, line, path.join("::"), law));
            } else if !target.is_empty() {
                edges.entry(module).or_default().entry(target).or_insert(line);
            }
        }
    }
    let mut walk =
        Walk { edges: &edges, way: Vec::new(), done: BTreeSet::new(), closings: Vec::new() };
    for start in of.modules.keys() {
        walk.from(start);
    }
    for (module, line, circle) in walk.closings {
        let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
        let Some(Module { source, .. }) = of.modules.get(module) else { continue };
        let law = "imports form a graph without cycles";
        found.push(Breach::new(&source.path, line, names.join(" -> "), law));
    }
    found
}

/// The path from the root of the crate, or `None` if it leads to another crate, or nowhere else.
fn resolve(module: &ModulePath, path: &[String], of: &Crate<'_>) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([module, rest].concat()),
        "super" => {
            let (_, parent) = module.split_last()?;
            let parent = parent.to_vec();
            match rest.first().map(String::as_str) {
                Some("super") => resolve(&parent, rest, of),
                _ => Some([&parent, rest].concat()),
            }
        }
        name => {
            let child = [module.as_slice(), &[name.to_owned()]].concat();
            (path.len() > 1 && of.modules.contains_key(&child)).then(|| [module, path].concat())
        }
    }
}

/// From each module to those that it depends on, with a line that says so.
type Edges<'m> = BTreeMap<&'m ModulePath, BTreeMap<&'m ModulePath, usize>>;

/// Follows imports in depth, and notes each that leads back to the way that led there.
struct Walk<'e, 'm> {
    edges: &'e Edges<'m>,
    way: Vec<&'m ModulePath>,
    done: BTreeSet<&'m ModulePath>,
    /// The module with the import that closes a circle, its line, and the circle.
    closings: Vec<(&'m ModulePath, usize, Vec<&'m ModulePath>)>,
}

impl<'m> Walk<'_, 'm> {
    fn from(&mut self, module: &'m ModulePath) {
        if self.done.contains(module) {
            return;
        }
        self.way.push(module);
        for (target, line) in self.edges.get(module).into_iter().flatten() {
            if let Some(position) = self.way.iter().position(|on_way| on_way == target) {
                let circle = self.way.iter().skip(position).copied().chain([*target]).collect();
                self.closings.push((module, *line, circle));
            } else {
                self.from(target);
            }
        }
        self.way.pop();
        self.done.insert(module);
    }
}

/// Every path of a source, tests aside, with its line.
struct Paths {
    found: Vec<(Vec<String>, usize)>,
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_for_tests(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, import: &'ast ItemUse) {
        if !is_for_tests(&import.attrs) {
            flatten(&import.tree, &mut Vec::new(), &mut self.found);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.found.push((names, path.span().start().line));
        visit::visit_path(self, path);
    }

    /// `pub(in crate::a)` names a place, it takes nothing from there.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}
}

fn flatten(tree: &UseTree, prefix: &mut Vec<String>, found: &mut Vec<(Vec<String>, usize)>) {
    let mut leaf = |name: String| {
        let path = prefix.iter().cloned().chain([name]).collect();
        found.push((path, tree.span().start().line));
    };
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, found);
            prefix.pop();
        }
        UseTree::Name(name) => leaf(name.ident.to_string()),
        UseTree::Rename(rename) => leaf(rename.ident.to_string()),
        UseTree::Glob(_) => leaf("*".to_owned()),
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, prefix, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{blocks, graph};
    use crate::modules::Crate;
    use crate::source::Source;

    fn breaches(sources: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> =
            sources.iter().map(|(path, text)| Source::new(path, text)).collect();
        let found = graph(&Crate::from_root("a/src/lib.rs", &sources));
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_import_through_the_root_is_refused() {
        let root = ("a/src/lib.rs", "mod b; mod c; pub use c::Thing; use b::run;");
        let c = ("a/src/c.rs", "pub struct Thing;");
        let rows = [
            ("use crate::c::Thing;", None),
            ("use crate::c;", None),
            ("pub(crate) fn f() {}", None),
            ("#[cfg(test)] mod tests { use crate::Thing; }", None),
            ("\nuse crate::Thing;", Some("a/src/b.rs:2: crate::Thing: ")),
            ("\nuse crate::{c, Thing as T};", Some("a/src/b.rs:2: crate::Thing: ")),
            ("\nuse super::Thing;", Some("a/src/b.rs:2: super::Thing: ")),
            ("\nuse crate::*;", Some("a/src/b.rs:2: crate::*: ")),
            ("\nfn f() -> crate::Thing { crate::c::Thing }", Some("a/src/b.rs:2: crate::Thing: ")),
        ];
        for (text, want) in rows {
            let found = breaches(&[root, ("a/src/b.rs", text), c]);
            assert_eq!(found.len(), usize::from(want.is_some()), "{text}: {found:?}");
            assert!(want.is_none_or(|want| found[0].starts_with(want)), "{text}: {found:?}");
        }
    }

    #[test]
    fn a_cycle_of_imports_is_refused() {
        let root = ("a/src/lib.rs", "mod b; mod c; mod d;");
        let chain = [root, ("a/src/b.rs", "use crate::c::C;"), ("a/src/c.rs", "use crate::d::D;")];
        let fine = [&chain[..], &[("a/src/d.rs", "use std::fmt;")]].concat();
        assert_eq!(breaches(&fine), Vec::<String>::new());
        let law = "b -> c -> d -> b: imports form a graph without cycles";
        for closing in ["use crate::b::B;", "fn f() -> crate::b::B { B }", "use super::b::{B, X};"]
        {
            let circle = [&chain[..], &[("a/src/d.rs", closing)]].concat();
            assert_eq!(breaches(&circle), [format!("a/src/d.rs:1: {law}")]);
        }
        let two =
            [root, ("a/src/b.rs", "use crate::c::C;"), ("a/src/c.rs", "use crate::{b::B, d::D};")];
        let two = [&two[..], &[("a/src/d.rs", "use crate::c::C;")]].concat();
        assert_eq!(breaches(&two).len(), 2);
        let tested = [("a/src/d.rs", "#[cfg(test)] mod tests { use crate::b::B; }")];
        assert_eq!(breaches(&[&chain[..], &tested].concat()), Vec::<String>::new());
    }

    #[test]
    fn a_parent_and_its_child_do_not_import_each_other() {
        let root = ("a/src/lib.rs", "mod b;");
        let child = ("a/src/b/c.rs", "use super::B;");
        assert_eq!(breaches(&[root, ("a/src/b.rs", "mod c; struct B;"), child]), [""; 0]);
        for parent in ["mod c; use c::C;", "mod c; use self::c::C;", "mod c; fn f() { c::run(); }"]
        {
            let found = breaches(&[root, ("a/src/b.rs", parent), child]);
            assert_eq!(
                found,
                ["a/src/b/c.rs:1: b -> b::c -> b: imports form a graph without cycles"]
            );
        }
    }

    #[test]
    fn imports_out_of_their_blocks_are_refused() {
        let rows = [
            (
                "use std::fmt;\nuse std::io;\n\nuse bytes::Bytes;\n\nuse crate::a;\nuse super::b;\n",
                0,
            ),
            ("use std::fmt;\n\nuse meridian_a::b;\nuse bytes::Bytes;\n\nuse crate::a;\n", 0),
            ("use bytes::Bytes;\n\nuse meridian_a::b;\nuse crate::a;\n", 0),
            ("use std::fmt;\n\nmod c;\n\nuse c::C;\n", 0),
            ("pub use self::a::A;\npub use bytes::Bytes;\n", 0),
            ("use std::fmt;\nuse bytes::Bytes;\n", 2),
            ("use std::fmt;\n\nuse std::io;\n", 3),
            ("use bytes::Bytes;\n\nuse std::fmt;\n", 3),
            ("use crate::a;\n\nuse bytes::Bytes;\n", 3),
            ("use crate::a;\nuse c::C;\n\nmod c {}\n", 0),
            ("mod t {\n    use crate::a;\n    use std::fmt;\n}\n", 3),
        ];
        for (text, line) in rows {
            let found = blocks(&Source::new("a.rs", text));
            assert_eq!(found.len(), usize::from(line > 0), "{text}: {found:?}");
            assert!(found.iter().all(|breach| breach.line == line), "{text}: {found:?}");
        }
    }
}
