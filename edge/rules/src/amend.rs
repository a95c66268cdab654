//! What rules of a site change about the fields that clients get, and how that is undone before a
//! 304 freshens what is stored.
//!
//! Does not say which rules match: that is the caller's.
//!
//! # Invariants
//! - What was changed can be taken back: what governs reuse is always read from the origin's own
//!   fields.
//! - A lifetime for clients counts from when they get the response: it grows with `Age`, and
//!   `Expires`, which it would contradict, is gone.
//! - `no-store`, `no-cache` and `private` stay for clients too, unless a rule lifts them.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, EXPIRES, HeaderMap, HeaderName, HeaderValue};

use crate::list;

/// What a header field costs beside its bytes.
const FIELD_OVERHEAD: usize = 72;

/// What rules want changed about one response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amendment {
    /// The names of the rules that took part, in their order.
    pub rules: Vec<Arc<str>>,
    /// Which set of rules they are of: a number that changes with any of them.
    pub set: u64,
    /// In their order, fields that take the place of those of their name; without a value: nothing
    /// does.
    pub changes: Vec<(HeaderName, Option<HeaderValue>)>,
    /// How long clients reuse it.
    pub browser_lifetime: Option<Duration>,
    /// `no-store`, `no-cache` and `private` are lifted for clients, too.
    pub unheard: bool,
}

/// What rules have changed about a stored response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amended {
    /// The names of the rules, in their order.
    pub rules: Vec<Arc<str>>,
    /// Which set of rules they are of.
    pub set: u64,
    /// The fields of each name that was changed, as they were.
    original: Vec<(HeaderName, Vec<HeaderValue>)>,
    browser: Option<BrowserLifetime>,
}

/// A lifetime for clients, with the directives that stand beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BrowserLifetime {
    seconds: u64,
    /// Begins with a comma, if it is not empty.
    others: String,
}

impl BrowserLifetime {
    /// `Cache-Control` for a response of this age. What may not be reused at all says so as it is.
    fn field(&self, age: Duration) -> Option<HeaderValue> {
        let seconds = match self.seconds {
            0 => 0,
            lifetime => lifetime.saturating_add(age.as_secs()),
        };
        HeaderValue::from_str(&format!("max-age={seconds}{}", self.others)).ok()
    }
}

impl Amendment {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.browser_lifetime.is_none()
    }

    /// Changes `fields` of a response of this age, and remembers what they were.
    pub fn apply(&self, fields: &mut HeaderMap, age: Duration) -> Amended {
        let mut original: Vec<(HeaderName, Vec<HeaderValue>)> = Vec::new();
        let mut remember = |fields: &HeaderMap, name: &HeaderName| {
            if !original.iter().any(|(known, _)| known == name) {
                let values = fields.get_all(name).iter().cloned().collect();
                original.push((name.clone(), values));
            }
        };
        for (name, value) in &self.changes {
            remember(fields, name);
            match value {
                Some(value) => drop(fields.insert(name.clone(), value.clone())),
                None => drop(fields.remove(name)),
            }
        }
        let browser = self.browser_lifetime.map(|lifetime| BrowserLifetime {
            seconds: lifetime.as_secs(),
            others: beside_max_age(fields, self.unheard),
        });
        if let Some(browser) = &browser {
            remember(fields, &CACHE_CONTROL);
            remember(fields, &EXPIRES);
            fields.remove(EXPIRES);
            if let Some(value) = browser.field(age) {
                fields.insert(CACHE_CONTROL, value);
            }
        }
        Amended { rules: self.rules.clone(), set: self.set, original, browser }
    }
}

impl Amended {
    /// The bytes that are held for it.
    pub fn weight(&self) -> usize {
        let values = |values: &[HeaderValue]| -> usize {
            values.iter().map(|value| value.len() + FIELD_OVERHEAD).sum()
        };
        let fields = self.original.iter();
        let fields: usize = fields.map(|(name, all)| name.as_str().len() + values(all)).sum();
        let browser = self.browser.as_ref().map_or(0, |browser| browser.others.len());
        size_of::<Self>() + fields + browser + self.rules.len() * size_of::<Arc<str>>()
    }

    /// Takes back from `fields` what was changed.
    pub fn undo(&self, fields: &mut HeaderMap) {
        for (name, values) in &self.original {
            fields.remove(name);
            for value in values {
                fields.append(name.clone(), value.clone());
            }
        }
    }

    /// `Cache-Control` for clients, where a rule gives them a lifetime of their own.
    pub fn cache_control(&self, age: Duration) -> Option<HeaderValue> {
        self.browser.as_ref()?.field(age)
    }
}

/// The directives of `Cache-Control` beside `max-age`, each behind a comma.
fn beside_max_age(fields: &HeaderMap, unheard: bool) -> String {
    let mut others = String::new();
    let lines = fields.get_all(CACHE_CONTROL).iter();
    for member in lines.flat_map(|line| list::members(line.as_bytes())) {
        let Ok(text) = std::str::from_utf8(member.text) else { continue };
        let name = text.split('=').next().unwrap_or_default().trim();
        let is = |directive: &str| name.eq_ignore_ascii_case(directive);
        let lifted = unheard && (is("no-store") || is("no-cache") || is("private"));
        if !text.is_empty() && !is("max-age") && !lifted {
            // Writing to a String cannot fail.
            let _written = write!(others, ", {text}");
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, exchange_at, headers, secs, store};
    use crate::policy::Policy;

    fn amendment(remove: &[&str], set: &str, browser: Option<u64>) -> Amendment {
        let remove = remove.iter().map(|name| (name.parse().unwrap(), None));
        let set = headers(set).into_iter().map(|(name, value)| (name.unwrap(), Some(value)));
        Amendment {
            rules: vec!["r".into()],
            set: 1,
            changes: remove.chain(set).collect(),
            browser_lifetime: browser.map(secs),
            unheard: false,
        }
    }

    #[test]
    fn fields_are_removed_and_set_in_order() {
        let rows = [
            ("Server: x\nX-A: 1", amendment(&["server"], "", None), "X-A: 1"),
            ("X-A: 1\nX-A: 2", amendment(&[], "X-A: 3", None), "X-A: 3"),
            ("X-B: 1", amendment(&["x-a"], "X-C: 2", None), "X-B: 1\nX-C: 2"),
            ("X-A: 1", amendment(&["x-a"], "X-A: 2", None), "X-A: 2"), // of two rules
        ];
        for (before, amendment, after) in rows {
            let mut fields = headers(before);
            amendment.apply(&mut fields, secs(0));
            assert_eq!(fields, headers(after), "{before}");
        }
    }

    #[test]
    fn a_lifetime_for_clients_counts_from_when_they_get_it() {
        let rows = [
            // fields, lifetime, age, Cache-Control
            ("", 300, 0, "max-age=300"),
            ("", 300, 40, "max-age=340"),
            ("", 0, 40, "max-age=0"),
            ("Cache-Control: public, max-age=9\nExpires: @5", 300, 1, "max-age=301, public"),
            ("Cache-Control: MAX-AGE=9, s-maxage=60", 5, 0, "max-age=5, s-maxage=60"),
            ("Cache-Control: no-store", 300, 0, "max-age=300, no-store"),
            ("Cache-Control: private=\"a, b\"", 300, 0, "max-age=300, private=\"a, b\""),
        ];
        for (before, lifetime, age, want) in rows {
            let mut fields = headers(before);
            let amended = amendment(&[], "", Some(lifetime)).apply(&mut fields, secs(age));
            assert_eq!(fields.get(CACHE_CONTROL).unwrap(), want, "{before}");
            assert_eq!(amended.cache_control(secs(age)).unwrap(), want, "{before}");
            assert!(!fields.contains_key(EXPIRES), "{before}");
        }
        let unheard = Amendment { unheard: true, ..amendment(&[], "", Some(300)) };
        let mut fields = headers("Cache-Control: no-store, private, no-cache, no-transform");
        unheard.apply(&mut fields, secs(0));
        assert_eq!(fields, headers("Cache-Control: max-age=300, no-transform"));
    }

    #[test]
    fn what_was_changed_is_taken_back_before_a_304_freshens_it() {
        let response = "Cache-Control: max-age=60\nExpires: @5\nETag: \"a\"\nServer: x\nDate: @0";
        let policy = Policy::cdn();
        let mut head = store(response, &policy).unwrap();
        let before = head.headers.clone();
        let amendment = amendment(&["server"], "Cache-Control: no-store\nX-A: 1", Some(5));
        head.amend(&amendment);
        assert_eq!(head.headers.get(CACHE_CONTROL).unwrap(), "max-age=5, no-store");
        assert_eq!(head.original_headers(), before);
        head.amend(&amendment); // again, as a newer set of rules would
        assert_eq!(head.original_headers(), before);

        let fresh = head.freshened(&headers("X-B: 2\nDate: @70"), &policy, &exchange_at(70));
        assert_eq!(fresh.lifetime, secs(60), "the origin's own field governs");
        assert!(fresh.headers.contains_key("server") && !fresh.headers.contains_key("x-a"));
        assert_eq!(fresh.ttl(at(70)), 60);
    }
}
