//! Where a response is stored, and what a purge names.
//!
//! Both in this edge's own terms: sites by name, paths and queries as keys have them. Who brings
//! them here from the wire is [`crate::purge`]; what they are compared in is [`crate::epochs`].

/// What a purge names, within this edge's sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Selector<'a> {
    /// Everything.
    All,
    /// One site.
    Site(&'a str),
    /// One URL of a site, all variants: where a response is stored.
    Url(Place<'a>),
    /// Every path that begins so, at one site or at all.
    Prefix {
        /// The site; `None`: all.
        site: Option<&'a str>,
        /// Normalised as paths in keys are.
        path: &'a str,
    },
    /// Every response that bears the tag.
    Tag(&'a str),
    /// Every response of a group, which is one of its origin alone (RFC 9875 §2.1).
    Group(Group<'a>),
}

/// A group of responses of one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group<'a> {
    /// The name of the site.
    pub site: &'a str,
    /// The host, where that is part of the key.
    pub host: &'a str,
    /// What the origin calls it.
    pub name: &'a str,
}

/// Where a response is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place<'a> {
    /// The name of its site.
    pub site: &'a str,
    /// Its host, where that is part of the key.
    pub host: &'a str,
    /// Normalised path and query.
    pub target: &'a str,
}

impl<'a> Place<'a> {
    /// The path alone.
    pub fn path(&self) -> &'a str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What becomes of what a purge matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strength {
    /// It is never used again.
    Hard,
    /// It is stale from now on.
    Soft,
}
