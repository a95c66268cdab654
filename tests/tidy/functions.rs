//! How long a function may be.
//!
//! Counted from its signature to its closing brace. In a test, lines of array literals do not
//! count: they are its table, and a table is read by the row.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, ExprArray, ImplItemFn, ItemFn, Macro, Signature, TraitItemFn};

use crate::breach::Breach;
use crate::source::Source;

const LONGEST_FUNCTION: usize = 70;

/// The functions that are too long.
pub(crate) fn lengths(source: &Source) -> Vec<Breach> {
    let mut functions = Functions { path: &source.path, found: Vec::new() };
    functions.visit_file(&source.syntax);
    functions.found
}

struct Functions<'s> {
    path: &'s str,
    found: Vec<Breach>,
}

impl Functions<'_> {
    fn measure(&mut self, attrs: &[Attribute], signature: &Signature, block: &Block) {
        let first = signature.span().start().line;
        let last = block.brace_token.span.close().end().line;
        let mut lines = last + 1 - first;
        if attrs.iter().any(|attr| attr.path().segments.last().is_some_and(|s| s.ident == "test")) {
            let mut tables = Tables { lines: 0 };
            tables.visit_block(block);
            lines -= tables.lines;
        }
        if lines > LONGEST_FUNCTION {
            let what = format!("{} has {lines} lines", signature.ident);
            self.found.push(Breach::new(self.path, first, what, "a function has at most 70"));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.measure(&function.attrs, &function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.measure(&function.attrs, &function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(block) = &function.default {
            self.measure(&function.attrs, &function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

/// Lines within array literals, the one with the opening bracket aside.
struct Tables {
    lines: usize,
}

impl<'ast> Visit<'ast> for Tables {
    fn visit_expr_array(&mut self, array: &'ast ExprArray) {
        let span = array.bracket_token.span;
        self.lines += span.close().end().line - span.open().start().line;
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        if call.path.is_ident("vec") {
            let span = call.delimiter.span();
            self.lines += span.close().end().line - span.open().start().line;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::lengths;
    use crate::source::Source;

    /// A function of `lines` lines, its braces on lines of their own.
    fn function(before: &str, lines: usize) -> String {
        format!("{before} fn long() {{\n{}}}\n", "    a();\n".repeat(lines - 2))
    }

    fn found(text: &str) -> Vec<String> {
        lengths(&Source::new("a.rs", text)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_function_past_its_length_is_refused() {
        assert!(found(&function("", 70)).is_empty());
        assert_eq!(
            found(&function("", 71)),
            ["a.rs:1: long has 71 lines: a function has at most 70"]
        );
        assert!(found(&function("/// Doc.\n#[inline]\npub(crate)", 70)).is_empty());
        let method = format!("impl A {{\n{}}}\n", function("", 71));
        assert!(found(&method)[0].starts_with("a.rs:2: long has 71 lines"));
        let provided = format!("trait A {{\n{}}}\n", function("", 71));
        assert!(found(&provided)[0].starts_with("a.rs:2: long has 71 lines"));
    }

    #[test]
    fn the_table_of_a_test_does_not_count() {
        let rows = "        1,\n".repeat(80);
        let table = format!("fn rows() {{\n    let rows = [\n{rows}    ];\n}}\n");
        assert_eq!(found(&table).len(), 1);
        assert!(found(&format!("#[test]\n{table}")).is_empty());
        let table = format!("fn rows() {{\n    let rows = vec![\n{rows}    ];\n}}\n");
        assert!(found(&format!("#[tokio::test]\n{table}")).is_empty());
        let beside = function("#[test]\n", 71);
        assert_eq!(found(&beside).len(), 1);
    }
}
