//! Selectors in words.

use meridian_control_wire::selector::Selector;

/// Of a long list, so many are written out.
const SHOWN: usize = 4;

/// `tag:news, url:/a`; a long list is cut short.
pub(crate) fn listed(selectors: &[Selector]) -> String {
    let mut words: Vec<String> = selectors.iter().take(SHOWN).map(word).collect();
    let more = selectors.len().saturating_sub(SHOWN);
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.join(", ")
}

fn word(selector: &Selector) -> String {
    match selector {
        Selector::All => "all".to_owned(),
        Selector::Host(text) => format!("host:{text}"),
        Selector::Url(text) => format!("url:{text}"),
        Selector::Tag(text) => format!("tag:{text}"),
        Selector::Prefix { host, path } => {
            format!("prefix:{}{path}", host.as_deref().unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use meridian_control_wire::selector::Selector;

    use super::listed;

    #[test]
    fn selectors_are_named_by_kind_and_long_lists_are_cut() {
        let tag = |at: usize| Selector::Tag(at.to_string());
        let prefix = Selector::Prefix { host: Some("a.example".into()), path: "/img/".into() };
        assert_eq!(listed(&[Selector::All, prefix]), "all, prefix:a.example/img/");
        let four: Vec<_> = (0..4).map(tag).collect();
        assert_eq!(listed(&four), "tag:0, tag:1, tag:2, tag:3");
        let six: Vec<_> = (0..6).map(tag).collect();
        assert_eq!(listed(&six), "tag:0, tag:1, tag:2, tag:3, and 2 more");
    }
}
