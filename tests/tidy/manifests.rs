//! Manifests: names after paths, versions in one place, and what a package may not know.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::breach::Breach;
use crate::source::Package;

/// What a package may not reach, however far down, its tests included, and why.
pub(crate) type Restraint = (&'static str, &'static [&'static str], &'static str);

/// The restraints that the packages exist for.
pub(crate) const RESTRAINTS: [Restraint; 8] = [
    (
        "meridian-edge-rules",
        &["tokio", "hyper", "meridian-config"],
        "the rules cannot await, and take their policy as a value",
    ),
    ("meridian-config", &["tokio", "hyper"], "configuration is text and values"),
    (
        "meridian-control-wire",
        &["tokio", "hyper", "redb"],
        "what crosses the network knows neither servers nor storage",
    ),
    (
        "meridian-edge",
        &["meridian-control", "meridian-origin"],
        "an edge does not know how control replicas agree, nor what is behind an upstream",
    ),
    (
        "meridian-control",
        &["meridian-edge", "meridian-edge-rules", "meridian-origin"],
        "the control plane does not know HTTP caching",
    ),
    (
        "meridian-origin",
        &["meridian-edge", "meridian-control"],
        "an origin does not know edges; what HTTP demands of both is in the rules",
    ),
    (
        "meridian-tests-chaos",
        &["meridian-edge", "meridian-control", "meridian-control-wire", "meridian-origin"],
        "a link carries bytes and does not know what they say",
    ),
    (
        "meridian-tests",
        &["meridian-edge", "meridian-control", "meridian-origin"],
        "tests know what a person outside may rely on, not the nodes' insides",
    ),
];

/// One package's manifest: its name, and that everything shared is inherited.
pub(crate) fn package(package: &Package) -> Vec<Breach> {
    let path = format!("{}/Cargo.toml", package.folder);
    let mut found = Vec::new();
    let mut breach = |what: String, law| found.push(Breach::new(&path, 0, what, law));
    let about = package.manifest.get("package").and_then(Value::as_table);
    let name = about.and_then(|about| about.get("name")).and_then(Value::as_str);
    let want = match package.folder.as_str() {
        "deploy" => "meridian".to_owned(), // the only binary
        folder => format!("meridian-{}", folder.replace('/', "-")),
    };
    if name != Some(&want) {
        let law = "a package is named after its path";
        breach(format!("is named {}, not {want}", name.unwrap_or("nothing")), law);
    }
    let inherits = |value: Option<&Value>| {
        value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true)
    };
    for key in ["version", "edition", "rust-version", "publish"] {
        if !inherits(about.and_then(|about| about.get(key))) {
            breach(format!("has a {key} of its own"), "what packages share stands in the root");
        }
    }
    if !inherits(package.manifest.get("lints")) {
        breach("has lints of its own".to_owned(), "lints stand in the root");
    }
    for (name, dependency) in dependencies(&package.manifest) {
        if !inherits(Some(dependency)) {
            breach(format!("{name} has a version of its own"), "versions stand in the root");
        }
    }
    found
}

/// What the root offers and no package takes.
pub(crate) fn unused(root: &Table, packages: &[Package]) -> Vec<Breach> {
    let used: BTreeSet<&str> = packages
        .iter()
        .flat_map(|package| dependencies(&package.manifest))
        .map(|(name, _)| name)
        .collect();
    let offered = root.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let offered = offered.and_then(Value::as_table).into_iter().flatten();
    let left = offered.filter(|(name, _)| !used.contains(name.as_str()));
    let law = "the root names what some package uses";
    left.map(|(name, _)| Breach::new("Cargo.toml", 0, format!("nobody uses {name}"), law)).collect()
}

/// The dependencies of a manifest, of all kinds and platforms.
fn dependencies(manifest: &Table) -> Vec<(&str, &Value)> {
    let platforms = manifest.get("target").and_then(Value::as_table).into_iter().flatten();
    let tables = platforms.filter_map(|(_, table)| table.as_table()).chain([manifest]);
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let lists = tables.flat_map(|table| kinds.map(|kind| table.get(kind)));
    let entries = lists.flatten().filter_map(Value::as_table).flatten();
    entries.map(|(name, value)| (name.as_str(), value)).collect()
}

/// Packages of the lock file that reach what they may not.
pub(crate) fn knowledge(restraints: &[Restraint], lock: &Table) -> Vec<Breach> {
    let packages = lock.get("package").and_then(Value::as_array).into_iter().flatten();
    let mut needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        let Some(name) = package.get("name").and_then(Value::as_str) else { continue };
        let list = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
        let list = list.filter_map(Value::as_str).filter_map(|need| need.split(' ').next());
        needs.entry(name).or_default().extend(list); // all versions of a package in one
    }
    let mut found = Vec::new();
    for (package, forbidden, law) in restraints {
        if !needs.contains_key(package) {
            found.push(Breach::new("Cargo.lock", 0, format!("{package} is not there"), law));
        }
        for target in *forbidden {
            if let Some(way) = way(package, target, &needs) {
                found.push(Breach::new("Cargo.lock", 0, way.join(" -> "), law));
            }
        }
    }
    found
}

/// The shortest way from a package to another.
fn way<'n>(
    from: &'n str,
    to: &str,
    needs: &BTreeMap<&'n str, BTreeSet<&'n str>>,
) -> Option<Vec<&'n str>> {
    let mut seen = BTreeSet::from([from]);
    let mut ways = vec![vec![from]];
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let here = way.last().copied()?;
            if here == to {
                return Some(way);
            }
            for next in needs.get(here).into_iter().flatten().filter(|next| seen.insert(next)) {
                longer.push([way.as_slice(), &[*next]].concat());
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{knowledge, package, unused};
    use crate::source::Package;

    const GOOD: &str = "
        [package]
        name = 'meridian-a-b'
        version.workspace = true
        edition.workspace = true
        rust-version.workspace = true
        publish.workspace = true
        [lints]
        workspace = true
        [dependencies]
        bytes = { workspace = true }
        [dev-dependencies]
        tokio = { workspace = true, features = ['rt'] }
    ";

    fn found(text: &str) -> Vec<String> {
        let package_of = Package { folder: "a/b".to_owned(), manifest: text.parse().unwrap() };
        package(&package_of).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_manifest_that_goes_its_own_way_is_refused() {
        assert_eq!(found(GOOD), [""; 0]);
        let rows = [
            ("meridian-a-b", "meridian-b", "is named meridian-b, not meridian-a-b"),
            ("version.workspace = true", "version = '1.0.0'", "has a version of its own"),
            ("edition.workspace = true", "", "has a edition of its own"),
            ("[lints]", "[lint]", "has lints of its own"),
            ("bytes = { workspace = true }", "bytes = '1'", "bytes has a version of its own"),
            ("tokio = { workspace = true,", "tokio = { version = '1',", "tokio has a version"),
        ];
        for (good, bad, want) in rows {
            let found = found(&GOOD.replacen(good, bad, 1));
            assert!(found.iter().any(|told| told.contains(want)), "{bad}: {found:?}");
        }
        let platform = format!("{GOOD}\n[target.'cfg(unix)'.dependencies]\nrustix = '1'");
        assert_eq!(found(&platform).len(), 1);
    }

    #[test]
    fn a_dependency_that_nobody_uses_is_refused() {
        let root = "workspace.dependencies = { bytes = '1', tokio = '1', moka = '1' }";
        let packages = [Package { folder: "a/b".to_owned(), manifest: GOOD.parse().unwrap() }];
        let found = unused(&root.parse().unwrap(), &packages);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].what, "nobody uses moka");
    }

    #[test]
    fn a_package_that_knows_too_much_is_refused() {
        let lock = "
            [[package]]
            name = 'rules'
            dependencies = ['http', 'proptest 1.0.0']
            [[package]]
            name = 'proptest'
            dependencies = ['tokio']
            [[package]]
            name = 'http'
        ";
        let lock = lock.parse().unwrap();
        assert_eq!(knowledge(&[("rules", &["hyper"], "law")], &lock), []);
        let found = knowledge(&[("rules", &["hyper", "tokio"], "law")], &lock);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].to_string(), "Cargo.lock: rules -> proptest -> tokio: law");
        assert_eq!(knowledge(&[("gone", &["hyper"], "law")], &lock).len(), 1);
    }
}
