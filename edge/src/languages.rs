//! The languages of a site: what a client wants is mapped to the best of them.

use http::header::{ACCEPT_LANGUAGE, HeaderMap, HeaderValue};
use meridian_config::units::Language;
use meridian_edge_rules::language::lookup;

/// Prepared once; empty where the site does not say.
#[derive(Debug, Default)]
pub(crate) struct SiteLanguages(Vec<HeaderValue>);

impl SiteLanguages {
    pub(crate) fn new(languages: &[Language]) -> Self {
        let fields = languages.iter().map(|one| HeaderValue::from_str(one.as_str()));
        Self(fields.filter_map(Result::ok).collect()) // a tag is letters, digits and dashes
    }

    /// Replaces `Accept-Language` by the one language that serves the client best: the variants are
    /// then as few as the languages, and the origin sees what selects them.
    pub(crate) fn settle(&self, request: &mut HeaderMap) {
        let Some(default) = self.0.first() else { return };
        let tags = self.0.iter().filter_map(|tag| tag.to_str().ok());
        let best = lookup(request, tags).and_then(|best| self.0.get(best)).unwrap_or(default);
        request.insert(ACCEPT_LANGUAGE, best.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_best_language_of_the_site_or_its_default() {
        let site = SiteLanguages::new(&["en", "de"].map(|tag| tag.parse().unwrap()));
        let rows = [
            (Some("de-CH, fr;q=0.9"), "de"),
            (Some("fr, de;q=0.1"), "de"),
            (Some("fr"), "en"),
            (Some("*"), "en"),
            (Some("\u{1}"), "en"),
            (None, "en"),
        ];
        for (field, want) in rows {
            let mut request = HeaderMap::new();
            if let Some(Ok(value)) = field.map(HeaderValue::from_str) {
                request.append(ACCEPT_LANGUAGE, value.clone());
                request.append(ACCEPT_LANGUAGE, value);
            }
            site.settle(&mut request);
            let lines: Vec<_> = request.get_all(ACCEPT_LANGUAGE).iter().collect();
            assert_eq!(lines, [want], "{field:?}");
        }
        let mut untouched = HeaderMap::new();
        SiteLanguages::default().settle(&mut untouched);
        assert!(untouched.is_empty());
    }
}
