//! Tables and laws of steering.

use std::collections::BTreeMap;
use std::time::Duration;

use meridian_config::shared::Location;
use meridian_control_wire::EdgeState::{Healthy, Unhealthy};
use meridian_control_wire::Intent::{Active, Drained};
use meridian_control_wire::{EdgeState, EdgeView, Intent};
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, proptest};
use proptest::sample::select;

use super::{Loads, Map, preference};
use crate::asker::Asker;
use crate::world;

fn edge(name: &str, region: &str, at: (f64, f64), state: EdgeState, intent: Intent) -> EdgeView {
    let url = format!("http://{name}.example");
    EdgeView {
        id: name.parse().unwrap(),
        name: name.parse().unwrap(),
        region: region.parse().unwrap(),
        city: String::new(),
        location: Location(at.0, at.1),
        url: url.parse().unwrap(),
        admin: url.parse().unwrap(),
        state,
        heard_ms_ago: Some(1),
        intent,
        active_requests: 0,
        requests_total: 0,
        store_bytes: 0,
        store_entries: 0,
    }
}

fn at(label: &str) -> Asker {
    let place = meridian_config::places::place(label).unwrap();
    Asker { label: Some(label.parse().unwrap()), location: place.location }
}

fn nowhere(lat: f64, lon: f64) -> Asker {
    Asker { label: None, location: Location(lat, lon) }
}

fn chosen(map: &Map, asker: &Asker, key: &str) -> Option<String> {
    let mut loads = Loads::new(world::now());
    map.choose(asker, key, &mut loads).map(|(_, edge)| edge.name.to_string())
}

fn three_regions(states: [EdgeState; 3], intents: [Intent; 3]) -> Map {
    Map::of(&[
        edge("iad-1", "iad", (38.9, -77.5), states[0], intents[0]),
        edge("fra-1", "fra", (50.0, 8.5), states[1], intents[1]),
        edge("nrt-1", "nrt", (35.8, 140.4), states[2], intents[2]),
    ])
}

#[test]
fn a_client_goes_to_the_nearest_usable_region() {
    let (all, up) = ([Healthy; 3], [Active; 3]);
    let no_tokyo = [Healthy, Healthy, Unhealthy];
    let drained = [Active, Drained, Active];
    let rows = [
        // states, intents, from, edge
        (all, up, at("nrt"), Some("nrt-1")),
        (all, up, at("lhr"), Some("fra-1")),
        (all, up, at("gru"), Some("iad-1")),
        (all, up, nowhere(-33.9, 151.2), Some("nrt-1")), // Sydney, by the great circle
        (no_tokyo, up, at("nrt"), Some("iad-1")),        // 152 ms to iad, 244 to fra, measured
        (all, drained, at("fra"), Some("iad-1")),
        ([Unhealthy; 3], up, at("fra"), None),
        (all, [Drained; 3], at("fra"), None),
        ([Unhealthy, Healthy, Unhealthy], drained, at("fra"), None),
    ];
    for (states, intents, from, want) in rows {
        let map = three_regions(states, intents);
        assert_eq!(chosen(&map, &from, "/").as_deref(), want, "{states:?} {intents:?} {from:?}");
        assert_eq!(map.is_usable(), want.is_some());
    }
}

#[test]
fn the_table_counts_where_it_has_both_ends_and_the_great_circle_elsewhere() {
    // From Cape Town, Frankfurt is nearer than London, but the cable lands in London.
    let map = Map::of(&[
        edge("fra-1", "fra", (50.0, 8.5), Healthy, Active),
        edge("lhr-1", "lhr", (51.5, -0.5), Healthy, Active),
    ]);
    assert_eq!(chosen(&map, &at("cpt"), "/").as_deref(), Some("lhr-1"));
    let json = serde_json::to_value(map.ranking(&at("cpt"), "/")).unwrap();
    for (n, name, ms) in [(0, "lhr-1", 143.0), (1, "fra-1", 199.0)] {
        let line = &json[n];
        assert_eq!((&line["edge"], &line["rtt_ms"]), (&name.into(), &ms.into()));
        assert_eq!(line["basis"], "round-trip table");
    }
    let unnamed = nowhere(-33.96, 18.6);
    assert_eq!(chosen(&map, &unnamed, "/").as_deref(), Some("fra-1"));
    let json = serde_json::to_value(map.ranking(&unnamed, "/")).unwrap();
    assert_eq!(json[0]["basis"], "great circle");
    let (km, ms) = (json[0]["distance_km"].as_f64().unwrap(), json[0]["rtt_ms"].as_f64().unwrap());
    assert!((9_300.0..9_450.0).contains(&km) && (100.0..200.0).contains(&ms), "{km} km, {ms} ms");
}

#[test]
fn a_region_that_is_no_place_is_where_its_first_edge_says() {
    let map = Map::of(&[
        edge("lab-1", "lab", (51.5, 0.0), Healthy, Active),
        edge("fra-1", "fra", (0.0, 0.0), Healthy, Active), // the table knows better
    ]);
    assert_eq!(chosen(&map, &at("lhr"), "/").as_deref(), Some("lab-1"));
    assert_eq!(map.locate(&"lab".parse().unwrap()), Some(Location(51.5, 0.0)));
    assert_eq!(map.locate(&"fra".parse().unwrap()), Some(Location(50.03, 8.57)));
    assert_eq!(map.first().unwrap().label.unwrap().as_str(), "fra");
    let lab = Asker { label: Some("lab".parse().unwrap()), location: Location(51.5, 0.0) };
    assert_eq!(chosen(&map, &lab, "/").as_deref(), Some("lab-1"));
}

#[test]
fn a_ranking_tells_why() {
    let map = Map::of(&[
        edge("fra-1", "fra", (50.0, 8.5), Healthy, Active),
        edge("fra-2", "fra", (50.0, 8.5), Unhealthy, Active),
        edge("fra-3", "fra", (50.0, 8.5), Healthy, Active),
        edge("iad-1", "iad", (38.9, -77.5), Healthy, Active),
        edge("nrt-1", "nrt", (35.8, 140.4), Healthy, Drained),
    ]);
    let ranking = map.ranking(&at("fra"), "/a");
    let reasons: BTreeMap<String, (bool, &str)> = ranking
        .iter()
        .map(|ranked| (ranked.edge.to_string(), (ranked.usable, ranked.reason)))
        .collect();
    let first = ranking.iter().find(|ranked| ranked.usable).unwrap();
    assert_eq!(chosen(&map, &at("fra"), "/a"), Some(first.edge.to_string()));
    assert_eq!(first.reason, "chosen: nearest, and first for this URL");
    let other = if first.edge.as_str() == "fra-1" { "fra-3" } else { "fra-1" };
    let want = "another edge of the region comes first for this URL";
    assert_eq!(reasons[other], (true, want));
    assert_eq!(reasons["fra-2"], (false, "unhealthy"));
    assert_eq!(reasons["iad-1"], (true, "farther"));
    assert_eq!(reasons["nrt-1"], (false, "its region is drained"));
    assert_eq!(reasons.values().filter(|(_, why)| why.starts_with("chosen")).count(), 1);
}

#[test]
fn preferences_are_fixed_for_ever() {
    // computed by another program
    assert_eq!(preference("", ""), 0x25fc_6dd3_6ce0_4b20);
    assert_eq!(preference("fra-1", "/a?b=c"), 0x30ff_d2e8_9620_673f);
    assert_ne!(preference("a", "b/c"), preference("a/b", "c"));
}

#[test]
fn loads_are_forgotten_by_half_each_second() {
    let start = world::now();
    let map = Map::of(&[edge("a", "fra", (50.0, 8.5), Healthy, Active)]);
    let mut loads = Loads::new(start);
    for _ in 0..100 {
        map.choose(&at("fra"), "/", &mut loads).unwrap();
    }
    let edge = &map.regions[0].edges[0];
    let rows = [(999, 100), (1_000, 50), (1_999, 50), (4_000, 6), (3_600_000, 0)];
    for (ms, want) in rows {
        loads.age(start + Duration::from_millis(ms));
        assert_eq!(loads.of(edge), want, "after {ms} ms");
    }
    loads.age(start); // time that runs backwards stands still
    assert_eq!(loads.of(edge), 0);
}

#[test]
fn one_url_goes_to_one_edge_until_it_is_crowded_and_then_spreads_in_its_order() {
    let names = ["a", "b", "c", "d"];
    let views: Vec<_> =
        names.iter().map(|name| edge(name, "fra", (50.0, 8.5), Healthy, Active)).collect();
    let map = Map::of(&views);
    let mut loads = Loads::new(world::now());
    let mut order = names.to_vec();
    order.sort_by_key(|name| std::cmp::Reverse(preference(name, "/hot")));
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for _ in 0..Loads::FLOOR {
        let (_, edge) = map.choose(&at("fra"), "/hot", &mut loads).unwrap();
        *counts.entry(edge.name.as_str()).or_default() += 1;
    }
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(order[0], Loads::FLOOR)]);
    let (_, edge) = map.choose(&at("fra"), "/hot", &mut loads).unwrap();
    assert_eq!(edge.name.as_str(), order[1]);
}

fn any_edges() -> impl Strategy<Value = Vec<EdgeView>> {
    let regions = select(vec![("fra", 50.0, 8.5), ("iad", 38.9, -77.5), ("lab", 1.0, 2.0)]);
    let one = (regions, any::<bool>(), any::<bool>());
    proptest::collection::vec(one, 0..12).prop_map(|edges| {
        let mut views = Vec::new();
        for (n, ((region, lat, lon), healthy, active)) in edges.into_iter().enumerate() {
            let state = if healthy { Healthy } else { Unhealthy };
            let intent = if active { Active } else { Drained };
            views.push(edge(&format!("e-{n}"), region, (lat, lon), state, intent));
        }
        views
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_unhealthy_or_drained_edge_is_never_chosen(
        views in any_edges(),
        lat in -90.0..90.0_f64,
        lon in -180.0..180.0_f64,
        key in "/[a-z]{0,8}",
    ) {
        let map = Map::of(&views);
        let usable = |name: &str| views.iter().any(|v| v.name.as_str() == name && v.is_usable());
        let got = chosen(&map, &nowhere(lat, lon), &key);
        prop_assert_eq!(got.is_some(), views.iter().any(EdgeView::is_usable));
        if let Some(name) = &got {
            prop_assert!(usable(name), "{} of {:?}", name, views);
        }
        let ranking = map.ranking(&nowhere(lat, lon), &key);
        prop_assert_eq!(ranking.len(), views.len());
        let first = ranking.iter().find(|ranked| ranked.usable).map(|r| r.edge.to_string());
        prop_assert_eq!(first, got); // the explanation and the deed agree
        prop_assert!(ranking.iter().all(|ranked| ranked.usable == usable(ranked.edge.as_str())));
    }

    /// Any two edges: what one order of preference says of them does not depend on the others.
    #[test]
    fn an_edge_that_comes_takes_its_share_and_moves_nothing_else(edges in 2_usize..8, seed: u32) {
        let map = |n: usize| {
            let views: Vec<_> = (0..n)
                .map(|n| edge(&format!("e-{n}"), "fra", (50.0, 8.5), Healthy, Active))
                .collect();
            Map::of(&views)
        };
        let (before, after) = (map(edges), map(edges + 1));
        let newcomer = format!("e-{edges}");
        let keys = 2_000;
        let mut moved = 0_usize;
        for n in 0..keys {
            let key = format!("/{seed}/{n}.js?v={n}");
            let (old, new) = (chosen(&before, &at("fra"), &key), chosen(&after, &at("fra"), &key));
            if old != new {
                prop_assert_eq!(new.as_deref(), Some(newcomer.as_str()));
                moved += 1;
            }
        }
        let fair = keys / (edges + 1);
        prop_assert!((fair * 2 / 3..=fair * 4 / 3).contains(&moved), "{moved} moved, fair {fair}");
    }

    #[test]
    fn no_edge_ever_exceeds_its_cap(
        edges in 1_usize..6,
        keys in proptest::collection::vec(0_u8..4, 1..4_000),
    ) {
        let views: Vec<_> = (0..edges)
            .map(|n| edge(&format!("e-{n}"), "fra", (50.0, 8.5), Healthy, Active))
            .collect();
        let map = Map::of(&views);
        let mut loads = Loads::new(world::now());
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (assigned, key) in keys.iter().enumerate() {
            let got = map.choose(&at("fra"), &format!("/{key}"), &mut loads);
            let (_, edge) = got.expect("some edge is always below the cap");
            let count = counts.entry(edge.name.to_string()).or_default();
            *count += 1;
            let average = (assigned + 1) as f64 / edges as f64;
            let cap = (1.25 * average).ceil().max(Loads::FLOOR as f64);
            prop_assert!(*count as f64 <= cap, "{count} at {} of {assigned}", edge.name);
        }
    }
}
