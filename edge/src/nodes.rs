//! Other edges of this CDN: who is one, what they ask of this one, and what this one tells them.
//!
//! A child is an edge that asks this one, its shield, instead of the origin. Both show that they
//! are what they say by one secret; without it the fields of this module mean nothing, and are
//! dropped. The request says which site it is for, by name, and how far the child has heard of
//! purges (`Meridian-Need-Cursor`). The answer says who gives it, how far that one was when it
//! fetched it (`Meridian-Fill-Cursor`), and how long it is fresh there (`Meridian-Lifetime`), so that a
//! second tier makes no second lifetime of it.
//!
//! # Invariants
//! - The secret is compared by its digest, in constant time, and reaches no log, origin or client.
//! - Of what a child asks only origins are asked: there is no third tier, and so no loop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use meridian_config::edge::shield::Shield;
use meridian_control_wire::cursor::Cursor;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::RunError;
use crate::tokens::secret_in;

/// The secret, in requests.
const SECRET: HeaderName = HeaderName::from_static("meridian-secret");
/// Who speaks, in both directions.
const NODE: HeaderName = HeaderName::from_static("meridian-node");
/// The site that a request is for.
const SITE: HeaderName = HeaderName::from_static("meridian-site");
/// How far the child has heard of purges.
const NEED: HeaderName = HeaderName::from_static("meridian-need-cursor");
/// How far the shield had when it fetched what it answers with.
pub(crate) const FILL: HeaderName = HeaderName::from_static("meridian-fill-cursor");
/// How long the answer is fresh at the shield, in seconds, counted as `Age` is.
pub(crate) const LIFETIME: HeaderName = HeaderName::from_static("meridian-lifetime");

/// What all fields of this CDN's own begin with.
const INTERNAL: &str = "meridian-";

/// Whether a field is one that only nodes of this CDN may say.
pub(crate) fn is_internal(name: &HeaderName) -> bool {
    name.as_str().starts_with(INTERNAL)
}

/// Takes out whatever only nodes of this CDN may say.
pub(crate) fn remove_internal(fields: &mut HeaderMap) {
    let internal: Vec<HeaderName> =
        fields.keys().filter(|name| is_internal(name)).cloned().collect();
    for name in internal {
        fields.remove(name);
    }
}

/// What is counted of both sides.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Requests of children that came where this edge had heard of enough.
    pub(crate) met: AtomicU64,
    /// Those that waited for that.
    pub(crate) caught_up: AtomicU64,
    /// Those that went past the store, as it had not.
    pub(crate) bypassed: AtomicU64,
    /// Answers of shields that were made since what was needed.
    pub(crate) filled: AtomicU64,
    /// Those that are older, and bear an older stamp.
    pub(crate) older: AtomicU64,
    /// Those that were not stored, as it was not known how old.
    pub(crate) unknown: AtomicU64,
    /// Those of who does not take this edge for one of its CDN: not used.
    pub(crate) refused: AtomicU64,
}

/// This edge among the edges of its CDN.
pub(crate) struct Nodes {
    name: HeaderValue,
    secret: HeaderValue,
    digest: [u8; 32],
    /// How long a child waits for this edge to hear of a purge.
    pub(crate) catch_up: Duration,
    pub(crate) counters: Counters,
}

/// Another edge that asks.
#[derive(Debug)]
pub(crate) struct Child {
    /// The name of the site that the request is for.
    pub(crate) site: String,
    /// What it needs this edge to have heard of.
    pub(crate) need: Option<Cursor>,
    /// This edge has not, and what it has is not for the child.
    pub(crate) passes: bool,
    /// What it showed of the need, to be told back.
    need_field: Option<HeaderValue>,
    /// The name of this edge.
    shield: HeaderValue,
}

impl Nodes {
    /// # Errors
    /// When the secret cannot be read.
    pub(crate) fn new(name: &str, config: &Shield) -> Result<Self, RunError> {
        let path: &Path = &config.secret_file;
        let wrong = |reason| RunError::Token { path: path.to_owned(), reason };
        let secret = secret_in(path).map_err(wrong)?;
        let digest = Sha256::digest(secret.as_bytes()).into();
        let field = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_invalid| wrong("must fit into a field".to_owned()))
        };
        let mut shown = field(&secret)?;
        shown.set_sensitive(true);
        let catch_up = config.catch_up.get();
        let counters = Counters::default();
        Ok(Self { name: field(name)?, secret: shown, digest, catch_up, counters })
    }

    /// The edge that a request with these fields comes from, if it shows the secret.
    pub(crate) fn child(&self, fields: &HeaderMap) -> Option<Child> {
        let shown: [u8; 32] = Sha256::digest(fields.get(SECRET)?.as_bytes()).into();
        if !bool::from(self.digest.ct_eq(&shown)) {
            return None;
        }
        let text = |name| fields.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let need_field = fields.get(NEED).cloned();
        let need = text(NEED).and_then(|text| text.parse().ok());
        Some(Child {
            site: text(SITE)?.to_owned(),
            // What cannot be read cannot be known: the safe side is the origin's.
            passes: need_field.is_some() && need.is_none(),
            need,
            need_field,
            shield: self.name.clone(),
        })
    }

    /// Makes a request one to a shield of this CDN.
    pub(crate) fn introduce(&self, fields: &mut HeaderMap, site: &str, need: Option<&Cursor>) {
        fields.insert(SECRET, self.secret.clone());
        fields.insert(NODE, self.name.clone());
        if let Ok(site) = HeaderValue::from_str(site) {
            fields.insert(SITE, site);
        }
        if let Some(Ok(need)) = need.map(|need| HeaderValue::from_str(need.as_str())) {
            fields.insert(NEED, need);
        }
    }
}

impl Child {
    /// The same, past the store.
    pub(crate) fn passing(self) -> Self {
        Self { passes: true, ..self }
    }

    /// Marks an answer as one to another edge.
    pub(crate) fn sign(&self, answer: &mut HeaderMap) {
        answer.insert(NODE, self.shield.clone());
    }

    /// Tells that an answer takes into account everything that the child needs.
    pub(crate) fn tell_enough(&self, answer: &mut HeaderMap) {
        if let Some(need) = &self.need_field {
            answer.insert(FILL, need.clone());
        }
    }
}

/// Whether an answer comes from an edge that takes this one for what it is.
pub(crate) fn is_signed(answer: &HeaderMap) -> bool {
    answer.contains_key(NODE)
}

/// The other edge that a request comes from, if it comes from one.
pub(crate) type Asker = Option<Arc<Child>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(secret: &str) -> Nodes {
        let dir = tempfile::tempdir().unwrap();
        let secret_file = dir.path().join("secret");
        std::fs::write(&secret_file, secret).unwrap();
        let config = toml::from_str::<Shield>("secret_file = ''").unwrap();
        Nodes::new("iad-1", &Shield { secret_file, ..config }).unwrap()
    }

    #[test]
    fn only_who_shows_the_secret_is_another_edge() {
        let (ours, theirs) = (nodes("0123456789abcdef\n"), nodes("0123456789abcdeF"));
        let need: Cursor = "c7".parse().unwrap();
        let shown = |nodes: &Nodes| {
            let mut fields = HeaderMap::new();
            nodes.introduce(&mut fields, "shop", Some(&need));
            fields
        };
        let child = ours.child(&shown(&ours)).unwrap();
        assert_eq!(
            (child.site.as_str(), child.need, child.passes),
            ("shop", Some(need.clone()), false)
        );
        assert!(ours.child(&shown(&theirs)).is_none());
        let mut without = shown(&ours);
        without.remove(SECRET);
        assert!(ours.child(&without).is_none());
        remove_internal(&mut without);
        assert!(without.is_empty(), "{without:?}");
    }

    #[test]
    fn a_need_that_cannot_be_read_is_one_that_is_not_met() {
        let nodes = nodes("0123456789abcdef");
        let mut fields = HeaderMap::new();
        nodes.introduce(&mut fields, "shop", None);
        let child = nodes.child(&fields).unwrap();
        assert!(child.need.is_none() && !child.passes);
        fields.insert(NEED, HeaderValue::from_static("no cursor!"));
        let child = nodes.child(&fields).unwrap();
        assert!(child.need.is_none() && child.passes);
    }
}
