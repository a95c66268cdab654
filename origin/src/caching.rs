//! The header fields by which caches and purges know a response: `Cache-Control`, `Surrogate-Key`.
//!
//! Says what is sent with a path, not what is found there: a path that leads nowhere gets
//! [`MISSING`], so that a rule for long-lived files does not make their absence long-lived.
//!
//! # Invariants
//! - Rules see the decoded path: no spelling of it evades a tag, and with it a purge.

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use meridian_config::origin::Rule;
use meridian_config::pattern::PathPattern;

use crate::error::RunError;

/// `Surrogate-Key`: the tags of a response, separated by spaces.
pub(crate) const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// What is sent where no rule says otherwise.
pub(crate) const UNLESS_TOLD: HeaderValue = HeaderValue::from_static("max-age=60");

/// What is sent with a 404: long enough to absorb a flood, short enough to appear soon.
pub(crate) const MISSING: HeaderValue = HeaderValue::from_static("max-age=5");

/// The rules of an origin, in order.
#[derive(Debug)]
pub(crate) struct Caching {
    rules: Vec<Fields>,
    unless_told: HeaderValue,
}

#[derive(Debug)]
struct Fields {
    path: PathPattern,
    cache_control: Option<HeaderValue>,
    surrogate_key: Option<HeaderValue>,
}

impl Caching {
    /// `unless_told` is the `Cache-Control` where no rule sets one.
    pub(crate) fn new(rules: &[Rule], unless_told: HeaderValue) -> Result<Self, RunError> {
        let each = |(index, rule): (usize, &Rule)| {
            let field = |key: &'static str, text: &Option<String>| {
                let value = text.as_deref().map(HeaderValue::from_str).transpose();
                value.map_err(|source| RunError::Rule { index, key, source })
            };
            Ok(Fields {
                path: rule.path.clone(),
                cache_control: field("cache_control", &rule.cache_control)?,
                surrogate_key: field("surrogate_key", &rule.surrogate_key)?,
            })
        };
        let rules = rules.iter().enumerate().map(each).collect::<Result<_, RunError>>()?;
        Ok(Self { rules, unless_told })
    }

    /// Adds the fields for the decoded `path`.
    pub(crate) fn apply(&self, path: &str, headers: &mut HeaderMap) {
        let matching = || self.rules.iter().filter(|rule| rule.path.matches(path));
        let cache_control = matching().find_map(|rule| rule.cache_control.as_ref());
        headers.insert(CACHE_CONTROL, cache_control.unwrap_or(&self.unless_told).clone());
        self.tag(path, headers);
    }

    /// Adds the tags only: an absence can be purged by them too.
    pub(crate) fn tag(&self, path: &str, headers: &mut HeaderMap) {
        let matching = self.rules.iter().filter(|rule| rule.path.matches(path));
        if let Some(tags) = { matching }.find_map(|rule| rule.surrogate_key.as_ref()) {
            headers.insert(SURROGATE_KEY, tags.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{CACHE_CONTROL, HeaderValue};
    use meridian_config::origin::Rule;

    use super::{Caching, SURROGATE_KEY};
    use crate::error::RunError;

    fn rule(path: &str, cache_control: Option<&str>, surrogate_key: Option<&str>) -> Rule {
        Rule {
            path: path.parse().unwrap(),
            cache_control: cache_control.map(str::to_owned),
            surrogate_key: surrogate_key.map(str::to_owned),
        }
    }

    #[test]
    fn the_first_rule_that_matches_wins_field_by_field() {
        let rules = [
            rule("/img/*", None, Some("images")),
            rule("*.png", Some("max-age=5"), Some("png")),
            rule("/img/*", Some("max-age=7"), None),
        ];
        let caching = Caching::new(&rules, HeaderValue::from_static("max-age=60")).unwrap();
        let rows = [
            ("/img/a.png", "max-age=5", Some("images")),
            ("/img/a.gif", "max-age=7", Some("images")),
            ("/a.png", "max-age=5", Some("png")),
            ("/", "max-age=60", None),
        ];
        for (path, cache_control, surrogate_key) in rows {
            let mut headers = HeaderMap::new();
            caching.apply(path, &mut headers);
            assert_eq!(headers.get(CACHE_CONTROL).unwrap(), cache_control, "{path}");
            let tags = headers.get(SURROGATE_KEY).map(|value| value.to_str().unwrap());
            assert_eq!(tags, surrogate_key, "{path}");
        }
    }

    #[test]
    fn a_rule_that_cannot_be_sent_is_named() {
        let rules = [rule("/a", Some("ok"), None), rule("/b", None, Some("a\nb"))];
        let refused = Caching::new(&rules, HeaderValue::from_static("no-store")).unwrap_err();
        assert!(matches!(refused, RunError::Rule { index: 1, key: "surrogate_key", .. }));
    }
}
