//! Plans of whole clusters, read back as the nodes read them.

use std::time::Duration;

use clap::Parser;
use meridian_config::control::{Control, Front};
use meridian_config::edge::{Edge, Profile};
use meridian_config::load::load;
use meridian_config::origin::Origin;
use meridian_config::places::round_trip;
use meridian_config::role::Role;
use meridian_config::units::ByteSize;
use meridian_tests_chaos::net::LinkSpec;

use super::{Kind, Plan};
use crate::cli::{Cli, Command};
use crate::up::dir::ClusterDir;
use crate::up::error::UpError;
use crate::up::options::{Options, Start};
use crate::up::ports::Ports;

/// A plan and the folder it is for.
fn plan(words: &[&str]) -> Result<(Plan, ClusterDir, tempfile::TempDir), UpError> {
    let words = ["meridian", "up", "--port", "0"].iter().chain(words);
    let Command::Up(args) = Cli::try_parse_from(words).unwrap().command else { panic!() };
    let options = Options::of(&args).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let dir = ClusterDir::open(temp.path(), Start::Continue, &options.remembered())?;
    let (mut ports, front) = Ports::from(options.port)?;
    Ok((Plan::new(&options, &dir, &mut ports, front)?, dir, temp))
}

/// The configuration of a node, read back from a file as the node does.
fn read<R: Role>(plan: &Plan, dir: &ClusterDir, name: &str) -> R {
    let node = plan.nodes.iter().find(|node| node.name.as_str() == name).unwrap();
    let file = dir.node_file(&node.name);
    std::fs::write(&file, &node.config).unwrap();
    load(&file).unwrap_or_else(|violations| panic!("{violations}\n{}", node.config))
}

#[test]
fn every_node_has_a_name_a_role_and_a_configuration_that_its_role_takes() {
    let (plan, dir, _temp) = plan(&["--regions", "fra,sin", "--edges", "2"]).unwrap();
    let names: Vec<&str> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["front", "control-1", "origin-1", "fra-1", "fra-2", "sin-1", "sin-2"]);
    let front: Front = read(&plan, &dir, "front");
    let control: Control = read(&plan, &dir, "control-1");
    let origin: Origin = read(&plan, &dir, "origin-1");
    let edge: Edge = read(&plan, &dir, "sin-2");
    assert!(origin.content.sample && front.trust_from);
    assert_eq!(control.region.as_str(), "fra", "origin and control stand in the first region");
    assert_eq!(origin.region.as_str(), "fra");
    assert_eq!(edge.city.as_deref(), Some("Singapore"));
    assert!(edge.site[0].default && edge.site[0].profile == Profile::Cdn);
}

#[test]
fn a_node_is_told_the_address_of_a_link_or_if_links_are_direct_of_the_node() {
    for words in [&[][..], &["--direct"][..]] {
        let (plan, dir, _temp) = plan(words).unwrap();
        let front: Front = read(&plan, &dir, "front");
        let control: Control = read(&plan, &dir, "control-1");
        let origin: Origin = read(&plan, &dir, "origin-1");
        let edge: Edge = read(&plan, &dir, "fra-1");
        let authority = edge.origin[0].authority.as_ref().unwrap();
        assert_eq!(authority.as_str(), origin.listen.to_string(), "the origin's own");
        let rows = [
            ("front", &front.peers["control-1"], "control-1", control.listen),
            ("fra-1", &edge.peers["control-1"], "control-1", control.listen),
            ("fra-1", &edge.peers["origin-1"], "origin-1", origin.listen),
            ("control-1", &control.peers["fra-1"], "fra-1", edge.admin),
        ];
        for (from, told, to, listen) in rows {
            let Some(links) = &plan.links else {
                assert_eq!(told.to_string(), listen.to_string(), "{from} {to}");
                continue;
            };
            let is_it = |link: &&LinkSpec| link.from.as_str() == from && link.to.as_str() == to;
            let link = links.links.iter().find(is_it).unwrap();
            assert_eq!(told.to_string(), link.listener.local_addr().unwrap().to_string());
            assert_eq!(link.dial.to_string(), listen.to_string(), "{from} {to}");
        }
        assert_eq!(plan.links.is_none(), words == ["--direct"]);
        assert_eq!(plan.cluster.net.is_none(), words == ["--direct"]);
    }
}

#[test]
fn edges_outside_the_region_of_the_shield_ask_its_edges_over_links_of_their_own() {
    for words in [&[][..], &["--direct"][..]] {
        let more = ["--regions", "fra,iad", "--edges", "2", "--shield", "iad"];
        let (plan, dir, _temp) = plan(&[&more, words].concat()).unwrap();
        let child: Edge = read(&plan, &dir, "fra-2");
        let parent: Edge = read(&plan, &dir, "iad-1");
        let [asks, asked] = [&child, &parent].map(|edge| edge.shield.as_ref().unwrap());
        let names: Vec<_> = asks.nodes.iter().map(|name| name.as_str()).collect();
        assert_eq!((names, asked.nodes.len()), (vec!["iad-1", "iad-2"], 0));
        assert_eq!(asks.secret_file, asked.secret_file);
        assert_eq!(child.site[0].origins[0].as_str(), "origin-1");
        let told = child.peers["iad-1"].to_string();
        let Some(links) = &plan.links else {
            assert_eq!(told, parent.listen.to_string());
            continue;
        };
        let mut between = links.links.iter();
        let link =
            between.find(|link| link.to.as_str() == "iad-1" && link.from.as_str() == "fra-2");
        let link = link.unwrap();
        assert_eq!(told, link.listener.local_addr().unwrap().to_string());
        assert_eq!(link.dial.to_string(), parent.listen.to_string());
    }
    let (plan, dir, _temp) = plan(&[]).unwrap();
    assert!(read::<Edge>(&plan, &dir, "fra-1").shield.is_none());
}

#[test]
fn real_round_trips_delay_each_way_between_regions_by_half() {
    let (plan, _dir, _temp) = plan(&["--rtt", "real", "--regions", "iad,fra"]).unwrap();
    let delay = |from: &str, to: &str| {
        let mut links = plan.links.as_ref().unwrap().links.iter();
        let link = links.find(|link| link.from.as_str() == from && link.to.as_str() == to);
        let base = link.unwrap().base;
        assert_eq!(base.there, base.back);
        base.there.delay
    };
    let half = round_trip("iad", "fra").unwrap() / 2;
    assert!(half > Duration::from_millis(30), "{half:?}");
    assert_eq!((delay("fra-1", "origin-1"), delay("control-1", "fra-1")), (half, half));
    assert_eq!(delay("iad-1", "origin-1"), Duration::ZERO, "in one region");
    assert_eq!(delay("front", "control-1"), Duration::ZERO, "it stands nowhere");
}

#[test]
fn a_server_of_somebody_else_is_the_origin_and_no_node() {
    let (plan, dir, _temp) = plan(&["http://localhost:8000", "--profile", "rfc"]).unwrap();
    assert!(plan.nodes.iter().all(|node| node.kind != Kind::Origin));
    let edge: Edge = read(&plan, &dir, "iad-1");
    assert_eq!(edge.origin[0].authority.as_ref().unwrap().as_str(), "localhost:8000");
    let links = &plan.links.as_ref().unwrap().links;
    let link = links.iter().find(|link| link.to.as_str() == "origin-1").unwrap();
    assert_eq!(link.dial.as_str(), "localhost:8000", "its name is looked up at each dial");
    assert_eq!(edge.site[0].profile, Profile::Rfc);
    let origin = &plan.cluster.origins[0];
    assert_eq!(origin.url, "http://localhost:8000");
    assert_eq!((&origin.admin, origin.pid, origin.region.as_str()), (&None, None, "iad"));
}

#[test]
fn a_small_store_takes_no_body_larger_than_itself_and_an_absurd_one_is_refused() {
    let (small, dir, _temp) = plan(&["--capacity", "4MiB"]).unwrap();
    let edge: Edge = read(&small, &dir, "nrt-1");
    assert_eq!(edge.cache.capacity, ByteSize::mib(4));
    assert_eq!(edge.cache.max_body, ByteSize::mib(1));
    let (large, dir, _temp) = plan(&["--capacity", "2GiB"]).unwrap();
    let edge: Edge = read(&large, &dir, "nrt-1");
    assert_eq!(edge.cache.max_body, ByteSize::mib(64));
    let error = plan(&["--capacity", "1KiB"]).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("at least 1MiB"), "{error}");
}

#[test]
fn the_description_matches_the_nodes() {
    let (plan, dir, _temp) = plan(&[]).unwrap();
    let (cluster, node) = (&plan.cluster, |at: usize| &plan.nodes[at]);
    assert_eq!(cluster.front, node(0).url());
    assert_eq!(cluster.controls[0].url, node(1).url());
    assert_eq!(node(1).admin(), None, "a control replica has one listener");
    assert_eq!(cluster.origins[0].admin, node(2).admin());
    for (entry, node) in cluster.edges.iter().zip(plan.nodes.iter().skip(3)) {
        assert_eq!((&entry.name, &entry.url), (&node.name, &node.url()));
        assert_eq!(Some(&entry.admin), node.admin().as_ref());
    }
    assert!(cluster.token_file.is_absolute() && cluster.token_file == dir.token_file());
    let all: std::collections::BTreeSet<_> =
        plan.nodes.iter().flat_map(|node| [node.listen, node.health]).collect();
    assert_eq!(all.len(), 2 * plan.nodes.len() - 1, "every listener has a port of its own");
}
