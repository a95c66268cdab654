//! The laws of the workspace, as tests: how it is laid out, what may import what, what may not stand
//! in it. A law that is broken is told with file, line, what stands there, and the law.
//!
//! - [`source`] one file or package; [`tree`] all of them
//! - [`modules`] which file is which module of which crate
//! - [`layout`] names, lengths, headers; [`functions`] how long one may be
//! - [`imports`] blocks, roots and cycles; [`words`] what may not be written
//! - [`manifests`] versions in one place, and what a package may not know
//!
//! What rustfmt and clippy see is theirs, and each role's own rules are tested beside it. Each law
//! has a negative control: a piece of text that breaks it, and must be refused.

#![expect(clippy::unwrap_used, reason = "a panic is a test's verdict")]

mod breach;

mod modules;
mod source;
mod tree;

mod functions;
mod imports;
mod layout;
mod manifests;
mod words;

#[cfg(test)]
mod workspace {
    use crate::breach::Breach;
    use crate::tree::Tree;
    use crate::{functions, imports, layout, manifests, words};

    /// Fails with all breaches, one per line.
    fn obeys(breaches: Vec<Breach>) {
        let told: Vec<String> = breaches.iter().map(ToString::to_string).collect();
        assert!(told.is_empty(), "{} breaches:\n{}", told.len(), told.join("\n"));
    }

    #[test]
    fn its_top_level_holds_what_the_guide_names() {
        obeys(layout::top_level(&Tree::of_workspace().top));
    }

    #[test]
    fn its_files_have_good_names_lengths_and_headers() {
        let tree = Tree::of_workspace();
        assert!(tree.sources.len() > 50, "{} sources: is this the workspace?", tree.sources.len());
        obeys(tree.sources.iter().flat_map(layout::source).collect());
    }

    #[test]
    fn its_functions_are_short() {
        obeys(Tree::of_workspace().sources.iter().flat_map(functions::lengths).collect());
    }

    #[test]
    fn its_imports_stand_in_three_blocks() {
        obeys(Tree::of_workspace().sources.iter().flat_map(imports::blocks).collect());
    }

    #[test]
    fn its_imports_form_a_graph_without_cycles_and_name_the_defining_module() {
        let tree = Tree::of_workspace();
        obeys(tree.crates().iter().flat_map(imports::graph).collect());
    }

    #[test]
    fn each_source_belongs_to_a_crate() {
        let tree = Tree::of_workspace();
        obeys(layout::orphans(&tree.sources, &tree.crates()));
    }

    #[test]
    fn no_forbidden_word_stands_in_it() {
        let tree = Tree::of_workspace();
        let in_code = tree.sources.iter().flat_map(words::in_code);
        obeys(in_code.chain(tree.texts.iter().flat_map(words::in_text)).collect());
    }

    #[test]
    fn its_packages_are_named_after_their_paths_and_inherit_versions() {
        let tree = Tree::of_workspace();
        assert!(tree.packages.len() >= 8, "{} packages", tree.packages.len());
        let found = tree.packages.iter().flat_map(manifests::package);
        obeys(found.chain(manifests::unused(&tree.manifest, &tree.packages)).collect());
    }

    #[test]
    fn its_packages_know_only_what_they_may() {
        let tree = Tree::of_workspace();
        obeys(manifests::knowledge(&manifests::RESTRAINTS, &tree.lock));
    }
}
