//! Which nodes a word means: a node by its name, all nodes of a region, all of a role.
//!
//! # Invariants
//! - A word that means nothing is an error that says which words mean something.

use std::collections::BTreeSet;

use meridian_config::units::{NodeName, Region};

/// The word for every node.
pub const ALL: &str = "all";

/// The word for every node that the other word does not mean.
pub const REST: &str = "rest";

/// Names that an error lists at most.
const MOST_LISTED: usize = 24;

/// A node that links lead to or from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its role, as the command line calls it.
    pub role: &'static str,
    /// The region it stands in; a front door stands in none.
    pub region: Option<Region>,
}

/// A word that means no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is no node, region or role.
    #[error("there is no node, region or role {word:?}; {known}")]
    Unknown {
        /// The word.
        word: String,
        /// What there is.
        known: String,
    },
    /// Two words that only make sense beside another one.
    #[error("{REST} means whatever the other name does not: it cannot stand twice")]
    TwiceRest,
}

/// The nodes that two words mean.
pub(crate) type Sides = (BTreeSet<NodeName>, BTreeSet<NodeName>);

/// What the words `a` and `b` mean together.
pub(crate) fn sides(nodes: &[Node], a: &str, b: &str) -> Result<Sides, NameError> {
    match (a == REST, b == REST) {
        (true, true) => Err(NameError::TwiceRest),
        (true, false) => {
            let b = meant(nodes, b)?;
            Ok((rest(nodes, &b), b))
        }
        (false, true) => {
            let a = meant(nodes, a)?;
            let rest = rest(nodes, &a);
            Ok((a, rest))
        }
        (false, false) => Ok((meant(nodes, a)?, meant(nodes, b)?)),
    }
}

fn rest(nodes: &[Node], other: &BTreeSet<NodeName>) -> BTreeSet<NodeName> {
    nodes.iter().map(|node| node.name.clone()).filter(|name| !other.contains(name)).collect()
}

fn meant(nodes: &[Node], word: &str) -> Result<BTreeSet<NodeName>, NameError> {
    let is_meant = |node: &&Node| {
        word == ALL
            || node.name.as_str() == word
            || node.role == word
            || node.region.as_ref().is_some_and(|region| region.as_str() == word)
    };
    let found: BTreeSet<NodeName> =
        nodes.iter().filter(is_meant).map(|node| node.name.clone()).collect();
    if found.is_empty() {
        return Err(NameError::Unknown { word: word.to_owned(), known: known(nodes) });
    }
    Ok(found)
}

fn known(nodes: &[Node]) -> String {
    let list = |what: &str, words: BTreeSet<&str>| {
        let mut told = words.iter().take(MOST_LISTED).copied().collect::<Vec<_>>().join(", ");
        if let Some(more @ 1..) = words.len().checked_sub(MOST_LISTED) {
            told.push_str(&format!(" and {more} more"));
        }
        format!("{what}: {told}")
    };
    let regions = nodes.iter().filter_map(|node| node.region.as_ref()).map(Region::as_str);
    [
        list("nodes", nodes.iter().map(|node| node.name.as_str()).collect()),
        list("regions", regions.collect()),
        list("roles", nodes.iter().map(|node| node.role).collect()),
        format!("or {ALL}, {REST}"),
    ]
    .join("; ")
}

#[cfg(test)]
mod tests {
    use super::{NameError, Node, sides};

    fn nodes() -> Vec<Node> {
        let rows = [
            ("front", "front", None),
            ("control-1", "control", Some("iad")),
            ("fra-1", "edge", Some("fra")),
            ("iad-1", "edge", Some("iad")),
        ];
        let node = |(name, role, region): (&str, _, Option<&str>)| Node {
            name: name.parse().unwrap(),
            role,
            region: region.map(|region| region.parse().unwrap()),
        };
        rows.into_iter().map(node).collect()
    }

    #[test]
    fn a_word_means_a_node_a_region_or_a_role() {
        let rows: [(&str, &str, &[&str], &[&str]); 5] = [
            ("fra-1", "control-1", &["fra-1"], &["control-1"]),
            ("edge", "iad", &["fra-1", "iad-1"], &["control-1", "iad-1"]),
            ("iad", "rest", &["control-1", "iad-1"], &["fra-1", "front"]),
            ("rest", "edge", &["control-1", "front"], &["fra-1", "iad-1"]),
            ("all", "front", &["control-1", "fra-1", "front", "iad-1"], &["front"]),
        ];
        for (a, b, want_a, want_b) in rows {
            let (got_a, got_b) = sides(&nodes(), a, b).unwrap();
            let names = |set: &std::collections::BTreeSet<meridian_config::units::NodeName>| {
                set.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            assert_eq!(
                (names(&got_a), names(&got_b)),
                (
                    want_a.iter().map(ToString::to_string).collect(),
                    want_b.iter().map(ToString::to_string).collect(),
                ),
                "{a} {b}"
            );
        }
    }

    #[test]
    fn an_unknown_word_is_answered_with_what_there_is() {
        let told = sides(&nodes(), "fre", "iad").unwrap_err().to_string();
        assert_eq!(
            told,
            "there is no node, region or role \"fre\"; nodes: control-1, fra-1, front, iad-1; \
             regions: fra, iad; roles: control, edge, front; or all, rest"
        );
        assert_eq!(sides(&nodes(), "rest", "rest"), Err(NameError::TwiceRest));
        assert!(sides(&nodes(), "", "iad").is_err());
    }
}
