//! What may not be written.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit::{self, Visit};
use syn::{Attribute, ItemFn, ItemMod};

use crate::breach::Breach;
use crate::modules::is_for_tests;
use crate::source::{Source, Text};

/// Words that may not stand in any text, source or not.
pub(crate) fn in_text(text: &Text) -> Vec<Breach> {
    const UNFINISHED: &str = concat!("FIX", "ME"); // in two parts, so that this line may stand
    let lines = text.text.lines().enumerate();
    let found = lines.filter(|(_, line)| line.contains(UNFINISHED));
    let law = "what is unfinished is an issue, not a comment";
    found.map(|(line, _)| Breach::new(&text.path, line + 1, UNFINISHED, law)).collect()
}

/// Words that may not stand in code; comments and strings may have them.
pub(crate) fn in_code(source: &Source) -> Vec<Breach> {
    let mut found = Vec::new();
    scan(&source.path, source.syntax.to_token_stream(), &mut found);
    let mut sleeps = Sleeps { path: &source.path, in_test: is_test_file(&source.path), found };
    sleeps.visit_file(&source.syntax);
    sleeps.found.sort_by_key(|breach| breach.line);
    sleeps.found
}

/// Whether a source is test code as a whole.
fn is_test_file(path: &str) -> bool {
    // The load generator and the link proxies are part of the product.
    let product = ["tests/load/src/", "tests/chaos/src/"].iter().any(|at| path.starts_with(at));
    let apart = path.starts_with("tests/") || path.contains("/tests/");
    path.ends_with("/tests.rs") || apart && !product
}

/// Looks at each token with the one that follows it.
fn scan(path: &str, tokens: TokenStream, found: &mut Vec<Breach>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (index, token) in tokens.iter().enumerate() {
        let mut breach = |what: &str, law| {
            found.push(Breach::new(path, token.span().start().line, what, law));
        };
        match (token, tokens.get(index + 1)) {
            (TokenTree::Punct(mark), Some(TokenTree::Group(group)))
                if mark.as_char() == '#' && first_word(group).as_deref() == Some("ignore") =>
            {
                breach("#[ignore]", "a test runs, or is not written");
            }
            (TokenTree::Ident(word), _) if word == "should_panic" => {
                breach("should_panic", "a test asserts what is there, not that something fails");
            }
            (TokenTree::Ident(word), Some(TokenTree::Punct(mark)))
                if mark.as_char() == '!' && (word == "todo" || word == "unimplemented") =>
            {
                breach(&format!("{word}!"), "what stands here is finished");
            }
            (TokenTree::Ident(word), Some(TokenTree::Group(group)))
                if (word == "allow" || word == "expect") && has_word(group, "dead_code") =>
            {
                breach(&format!("{word}(dead_code)"), "what nobody calls is deleted");
            }
            _ => {}
        }
        if let TokenTree::Group(group) = token {
            scan(path, group.stream(), found);
        }
    }
}

fn first_word(group: &Group) -> Option<String> {
    group.stream().into_iter().next().map(|token| token.to_string())
}

fn has_word(group: &Group, name: &str) -> bool {
    group.stream().into_iter().any(|token| matches!(token, TokenTree::Ident(word) if word == name))
}

/// Calls of `sleep` in test code. With a paused clock it takes no time, and may stand.
struct Sleeps<'s> {
    path: &'s str,
    in_test: bool,
    found: Vec<Breach>,
}

impl Sleeps<'_> {
    fn look(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (index, token) in tokens.iter().enumerate() {
            match (token, tokens.get(index + 1)) {
                (TokenTree::Ident(word), Some(TokenTree::Group(group)))
                    if word == "sleep" && group.delimiter() == Delimiter::Parenthesis =>
                {
                    let law = "a test waits for a condition with a deadline, not for a time";
                    let line = word.span().start().line;
                    self.found.push(Breach::new(self.path, line, "sleep", law));
                }
                (TokenTree::Group(group), _) => self.look(group.stream()),
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Sleeps<'_> {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let outer = self.in_test;
        self.in_test |= is_for_tests(&module.attrs);
        visit::visit_item_mod(self, module);
        self.in_test = outer;
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        if self.in_test && !is_paused(&function.attrs) {
            self.look(function.block.to_token_stream());
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if self.in_test {
            self.look(function.block.to_token_stream());
        }
    }
}

fn is_paused(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| attr.to_token_stream().to_string().contains("start_paused = true"))
}

#[cfg(test)]
mod tests {
    use super::{in_code, in_text};
    use crate::source::{Source, Text};

    fn found(path: &str, text: &str) -> Vec<String> {
        in_code(&Source::new(path, text)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn forbidden_words_in_code_are_refused() {
        let rows = [
            ("#[test]\n#[ignore]\nfn a() {}", "#[ignore]"),
            ("#[test]\n#[ignore = \"slow\"]\nfn a() {}", "#[ignore]"),
            ("#[test]\n#[should_panic(expected = \"x\")]\nfn a() {}", "should_panic"),
            ("fn a() {\n    todo!()\n}", "todo!"),
            ("fn a() { let b = ||\n    unimplemented!(\"b\"); }", "unimplemented!"),
            ("\n#[allow(dead_code)]\nfn a() {}", "allow(dead_code)"),
            ("\n#[expect(unused, dead_code, reason = \"x\")]\nfn a() {}", "expect(dead_code)"),
        ];
        for (text, word) in rows {
            let found = found("a/src/b.rs", text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with(&format!("a/src/b.rs:2: {word}: ")), "{}", found[0]);
        }
        let fine = "// todo!()\nfn ignore() { let todo = \"should_panic\"; expect(todo); }";
        assert_eq!(found("a/src/b.rs", fine), Vec::<String>::new());
    }

    #[test]
    fn a_test_that_sleeps_is_refused() {
        let sleeps = "fn a() {\n    tokio::time::sleep(SECOND).await;\n}";
        let method = "impl A {\n    fn a() { sleep(SECOND); }\n}";
        let within = format!("#[cfg(test)] mod tests {{ {sleeps} }}");
        let paused = format!("#[tokio::test(start_paused = true)] async {sleeps}");
        let rows = [
            ("edge/src/a.rs", sleeps, 0),
            ("edge/src/a.rs", &within, 1),
            ("edge/tests/a.rs", sleeps, 1),
            ("edge/tests/a.rs", method, 1),
            ("edge/src/a/tests.rs", sleeps, 1),
            ("edge/tests/a.rs", &paused, 0),
            ("tests/scenarios/a.rs", sleeps, 1),
            ("tests/load/src/a.rs", sleeps, 0),
            ("tests/load/tests/a.rs", sleeps, 1),
            ("tests/chaos/src/a.rs", sleeps, 0),
            ("tests/chaos/tests/a.rs", sleeps, 1),
        ];
        for (path, text, want) in rows {
            let found = found(path, text);
            assert_eq!(found.len(), want, "{path}: {text}: {found:?}");
            assert!(found.iter().all(|told| told.contains(":2: sleep: a test waits")), "{found:?}");
        }
    }

    #[test]
    fn an_unfinished_note_is_refused() {
        let text = |text: &str| Text { path: "a.sh".to_owned(), text: text.to_owned() };
        assert_eq!(in_text(&text("# all done\n")), []);
        let found = in_text(&text(concat!("#\n# FIX", "ME: later\n")));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
    }
}
