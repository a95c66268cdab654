//! The rules of `[shield]` that its types cannot say.

use std::num::NonZeroU32;

use crate::edge::Edge;
use crate::edge::shield::Shield;
use crate::limits::{path, unique, within};
use crate::units::{HumanDuration, NodeName};
use crate::violation::{Place, Violation};

/// Each costs a look at its name for every fetch.
const MOST_NODES: usize = 64;

impl Shield {
    pub(super) fn check(&self, edge: &Edge, at: &Place<'_>, found: &mut Vec<Violation>) {
        let here = at.key("shield");
        path(&here.key("secret_file"), &self.secret_file, found);
        let most = HumanDuration::secs(10); // whoever waits longer had rather asked the origin
        within(&here.key("catch_up"), self.catch_up, HumanDuration::millis(0), most, found);
        let count = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        within(&here.key("max_cursors"), self.max_cursors, count(16), count(10_000_000), found);
        let nodes = here.key("nodes");
        unique(&nodes, None, self.nodes.iter().map(NodeName::as_str), found);
        if self.nodes.len() > MOST_NODES {
            let rule = format!("must name at most {MOST_NODES} edges");
            found.push(nodes.breaks(&self.nodes, rule));
        }
        for (index, name) in self.nodes.iter().enumerate() {
            let place = nodes.index(index);
            if *name == edge.name {
                let rule = "is this edge itself: it cannot be its own shield";
                found.push(place.breaks(name, rule).with(&at.key("name")));
            }
            if !edge.origin.iter().any(|origin| origin.name == *name) {
                let rule = format!("names no [[origin]]: add one with name = \"{name}\"");
                found.push(place.breaks(name, rule).with(&at.key("origin")));
            }
            self.check_apart(edge, name, &place, at, found);
        }
    }

    /// A shield is asked otherwise than an origin: no edge is both.
    fn check_apart(
        &self,
        edge: &Edge,
        name: &NodeName,
        place: &Place<'_>,
        at: &Place<'_>,
        found: &mut Vec<Violation>,
    ) {
        for (index, site) in edge.site.iter().enumerate() {
            if site.origins.contains(name) || site.backup_origins.contains(name) {
                let rule = format!("is an origin of site {}: take it out there", site.name);
                found.push(place.breaks(name, rule).with(&at.key("site").index(index)));
            }
        }
    }
}
