//! Rules that span the files of several nodes.
//!
//! A node sees only its own file, so these are not asked when it starts: `meridian check` asks
//! them of the files that it is given together.

use std::collections::BTreeMap;

use crate::edge::Edge;
use crate::load::AnyRole;
use crate::units::NodeName;
use crate::violation::{Place, Violation, Violations};

/// Checks `files`, each with its name, against each other. What is not among them is not judged.
pub fn check_together(files: &[(String, AnyRole)]) -> Result<(), Violations> {
    let mut found = Vec::new();
    let mut first: BTreeMap<&NodeName, &str> = BTreeMap::new();
    for (file, role) in files {
        let name = node_name(role);
        if let Some(earlier) = first.get(name) {
            let rule = format!("is the name of the node in {earlier} already");
            found.push(Place::root(file).key("name").breaks(name, rule));
        } else {
            first.insert(name, file);
        }
        if let AnyRole::Edge(edge) = role {
            check_beat(file, edge, files, &mut found);
            check_tiers(file, edge, files, &mut found);
        }
    }
    Violations::none_of(found)
}

/// An edge reports more often than the replicas that it names let it lapse.
fn check_beat(file: &str, edge: &Edge, files: &[(String, AnyRole)], found: &mut Vec<Violation>) {
    let Some(follow) = &edge.control else { return };
    for (other, role) in files {
        let AnyRole::Control(control) = role else { continue };
        let lapse = control.health.edge_lapse;
        if follow.replicas.contains(&control.name) && follow.beat >= lapse {
            let rule = format!("must be below health.edge_lapse = \"{lapse}\" of {other}");
            let place = Place::root(file).key("control").key("beat");
            found.push(place.breaks(&follow.beat, rule));
        }
    }
}

/// A shield has no shields of its own: there are two tiers.
fn check_tiers(file: &str, edge: &Edge, files: &[(String, AnyRole)], found: &mut Vec<Violation>) {
    let nodes = edge.shield.iter().flat_map(|shield| shield.nodes.iter().enumerate());
    for (index, name) in nodes {
        for (other, role) in files {
            let AnyRole::Edge(shield) = role else { continue };
            let has_some = shield.shield.as_ref().is_some_and(|table| !table.nodes.is_empty());
            if shield.name == *name && has_some {
                let rule = format!("has shields of its own in {other}, and so is none itself");
                let place = Place::root(file).key("shield").key("nodes").index(index);
                found.push(place.breaks(name, rule));
            }
        }
    }
}

fn node_name(role: &AnyRole) -> &NodeName {
    match role {
        AnyRole::Edge(edge) => &edge.name,
        AnyRole::Origin(origin) => &origin.name,
        AnyRole::Control(control) => &control.name,
        AnyRole::Front(front) => &front.name,
    }
}
