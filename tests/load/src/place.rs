//! Which region a request comes from, and which edge of the region it goes to.

use std::hash::{DefaultHasher, Hash, Hasher};

use meridian_config::units::Region;

use crate::error::LoadError;
use crate::options::RegionTarget;
use crate::spread::Shares;

/// The regions and edges of a run as places in a list, and how to choose among them.
#[derive(Debug)]
pub(crate) struct Spread {
    regions: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    name: Region,
    /// The upper end of this region's part of `0..1`.
    until: f64,
    edges: Vec<String>,
}

impl Spread {
    pub(crate) fn new(regions: &[RegionTarget], shares: &Shares) -> Result<Self, LoadError> {
        let known = |name: &Region| regions.iter().any(|region| region.name == *name);
        if let Some((stranger, _)) = shares.iter().find(|(name, _)| !known(name)) {
            return Err(LoadError::options(format!(
                "a share is given for region {stranger}, which is none of {}",
                names(regions.iter().map(|region| &region.name))
            )));
        }
        let share_of = |name: &Region| match shares.iter().find(|(known, _)| *known == name) {
            Some((_, share)) => share,
            None if shares.is_empty() => 1.0,
            None => 0.0,
        };
        let sum: f64 = regions.iter().map(|region| share_of(&region.name)).sum();
        let mut until = 0.0;
        let places = regions.iter().map(|region| {
            until += share_of(&region.name) / sum;
            let edges = region.edges.iter().map(|edge| edge.name.to_string()).collect();
            Place { name: region.name.clone(), until, edges }
        });
        Ok(Self { regions: places.collect() })
    }

    pub(crate) fn regions(&self) -> usize {
        self.regions.len()
    }

    /// The region whose part of `0..1` holds `point`.
    pub(crate) fn at(&self, point: f64) -> usize {
        let found = self.regions.iter().position(|place| point < place.until);
        // The parts end at 1 but for rounding; what falls beyond is the last one that has a part.
        found.unwrap_or_else(|| {
            let mut last = 0;
            let mut end = 0.0;
            for (at, place) in self.regions.iter().enumerate() {
                if place.until > end {
                    (last, end) = (at, place.until);
                }
            }
            last
        })
    }

    /// The region of a client: always the same one.
    pub(crate) fn of_client(&self, client: &str) -> usize {
        self.at(hash(client) as f64 / u64::MAX as f64)
    }

    /// The region of that name, or the names there are.
    pub(crate) fn named(&self, name: &str) -> Result<usize, String> {
        self.regions.iter().position(|place| place.name.as_str() == name).ok_or_else(|| {
            let known = names(self.regions.iter().map(|place| &place.name));
            format!("region {name:?} is none of {known}")
        })
    }

    /// The edge of a region for a path, by the highest hash: the same path always goes to the
    /// same edge, and paths are spread evenly.
    pub(crate) fn edge(&self, region: usize, path: u64) -> usize {
        let edges = self.regions.get(region).map(|place| place.edges.as_slice());
        match edges.unwrap_or_default() {
            [] | [_] => 0,
            several => {
                let ranked = several.iter().enumerate();
                ranked.max_by_key(|(_, name)| hash(&(name, path))).map_or(0, |(at, _)| at)
            }
        }
    }
}

/// A number for a value: equal in every run of one build of this program.
pub(crate) fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn names<'a>(names: impl Iterator<Item = &'a Region>) -> String {
    names.map(Region::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::Spread;
    use crate::options::{EdgeTarget, RegionTarget};
    use crate::spread::Shares;

    fn region(name: &str, edges: usize) -> RegionTarget {
        let edge = |at: usize| EdgeTarget {
            name: format!("{name}-{at}").parse().unwrap(),
            url: "http://127.0.0.1:1".parse().unwrap(),
            admin: None,
        };
        RegionTarget { name: name.parse().unwrap(), edges: (1..=edges).map(edge).collect() }
    }

    fn three() -> Vec<RegionTarget> {
        vec![region("fra", 1), region("iad", 3), region("nrt", 1)]
    }

    #[test]
    fn regions_get_their_shares() {
        let rows = [
            ("", [3334, 3333, 3333]),
            ("fra=2,iad=1,nrt=1", [5000, 2500, 2500]),
            ("nrt=7", [0, 0, 10_000]),
            ("fra=0.1,nrt=0.3", [2500, 0, 7500]),
        ];
        for (text, want) in rows {
            let shares = if text.is_empty() { Shares::default() } else { text.parse().unwrap() };
            let spread = Spread::new(&three(), &shares).unwrap();
            let mut found = [0_i32; 3];
            for step in 0..10_000 {
                found[spread.at(f64::from(step) / 10_000.0)] += 1;
            }
            let near = found.iter().zip(want).all(|(found, want)| (found - want).abs() <= 1);
            assert!(near, "{text}: {found:?}, not {want:?}");
        }
    }

    #[test]
    fn the_end_of_the_range_belongs_to_a_region_with_a_share() {
        let spread = Spread::new(&three(), &"fra=1,iad=1".parse().unwrap()).unwrap();
        assert_eq!(spread.at(1.0), 1);
    }

    #[test]
    fn a_share_must_name_a_region_of_the_run() {
        let error = Spread::new(&three(), &"sfo=1".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a share is given for region sfo, which is none of fra, iad, nrt"
        );
    }

    #[test]
    fn a_path_sticks_to_one_edge_and_paths_are_spread_evenly() {
        let spread = Spread::new(&three(), &Shares::default()).unwrap();
        let mut found = [0_u32; 3];
        for path in 0..3_000 {
            let edge = spread.edge(1, path);
            assert_eq!(edge, spread.edge(1, path));
            found[edge] += 1;
        }
        assert!(found.iter().all(|count| (900..=1100).contains(count)), "{found:?}");
        assert_eq!(spread.edge(0, 17), 0);
    }

    #[test]
    fn a_client_sticks_to_one_region_and_clients_are_spread_by_share() {
        let spread = Spread::new(&three(), &"fra=3,nrt=1".parse().unwrap()).unwrap();
        let mut found = [0_u32; 3];
        for client in 0..4_000 {
            let client = client.to_string();
            let at = spread.of_client(&client);
            assert_eq!(at, spread.of_client(&client));
            found[at] += 1;
        }
        assert!((2850..=3150).contains(&found[0]) && found[1] == 0, "{found:?}");
    }
}
