//! Who asks from where: labels, coordinates and addresses become places.
//!
//! Answers where a client is, never where it should go.
//!
//! # Invariants
//! - Client input is only ever looked up, never resolved or dialled.
//! - The longest prefix that matches wins; IPv4 within IPv6 (RFC 4291 §2.5.5.2) counts as IPv4.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use meridian_config::control::Prefix;
use meridian_config::places::place;
use meridian_config::shared::Location;
use meridian_config::units::Region;

use crate::error::RunError;

/// Where a client is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asker {
    /// The place or region it named; measured round trips go by it.
    pub(crate) label: Option<Region>,
    /// Latitude and longitude.
    pub(crate) location: Location,
}

/// What a text says about where a client is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// It is there.
    Place(Asker),
    /// It is an address that no prefix covers.
    Uncharted(IpAddr),
    /// Nothing that can be understood.
    Nonsense,
}

/// What `text` says: a label, `lat,lon`, or an IP address. `region` knows the regions that are no
/// places of the table.
pub(crate) fn said(
    text: &str,
    prefixes: &Prefixes,
    region: impl Fn(&Region) -> Option<Location>,
) -> Said {
    if let Ok(location) = text.parse::<Location>() {
        return Said::Place(Asker { label: None, location });
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let found = prefixes.find(address);
        return found.map_or(Said::Uncharted(address), |asker| Said::Place(asker.clone()));
    }
    let Ok(label) = text.parse::<Region>() else { return Said::Nonsense };
    match located(&label, region) {
        Some(asker) => Said::Place(asker),
        None => Said::Nonsense,
    }
}

/// The place called `label`.
pub(crate) fn located(
    label: &Region,
    region: impl Fn(&Region) -> Option<Location>,
) -> Option<Asker> {
    let location = place(label.as_str()).map(|place| place.location).or_else(|| region(label))?;
    Some(Asker { label: Some(label.clone()), location })
}

/// The table of prefixes to places.
#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    /// By length in bits, then by the bits that count.
    v4: BTreeMap<u32, HashMap<u32, Asker>>,
    v6: BTreeMap<u32, HashMap<u128, Asker>>,
}

impl Prefixes {
    /// Takes `[[prefix]]` as configured.
    pub(crate) fn of(configured: &[Prefix]) -> Result<Self, RunError> {
        let mut table = Self::default();
        for prefix in configured {
            let broken = |why| RunError::Prefix { net: prefix.net.clone(), why };
            let (network, length) = prefix.network().map_err(broken)?;
            let location = prefix.location().ok_or_else(|| {
                broken(format!("from = {:?} is no place's code and no \"lat,lon\"", prefix.from))
            })?;
            let asker = Asker { label: prefix.from.parse().ok(), location };
            match network {
                IpAddr::V4(network) => {
                    let bits = leading_v4(network.to_bits(), length);
                    table.v4.entry(length).or_default().insert(bits, asker);
                }
                IpAddr::V6(network) => {
                    let bits = leading_v6(network.to_bits(), length);
                    table.v6.entry(length).or_default().insert(bits, asker);
                }
            }
        }
        Ok(table)
    }

    /// Where `address` is, by the longest prefix that covers it.
    pub(crate) fn find(&self, address: IpAddr) -> Option<&Asker> {
        match address.to_canonical() {
            IpAddr::V4(address) => self
                .v4
                .iter()
                .rev()
                .find_map(|(length, nets)| nets.get(&leading_v4(address.to_bits(), *length))),
            IpAddr::V6(address) => self
                .v6
                .iter()
                .rev()
                .find_map(|(length, nets)| nets.get(&leading_v6(address.to_bits(), *length))),
        }
    }
}

/// The first `length` bits of an address.
fn leading_v4(bits: u32, length: u32) -> u32 {
    bits & u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0)
}

fn leading_v6(bits: u128, length: u32) -> u128 {
    bits & u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use meridian_config::control::Prefix;
    use meridian_config::shared::Location;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Asker, Prefixes, Said, said};

    fn prefixes(rows: &[(&str, &str)]) -> Prefixes {
        let rows: Vec<Prefix> = rows
            .iter()
            .map(|(net, from)| Prefix { net: (*net).to_owned(), from: (*from).to_owned() })
            .collect();
        Prefixes::of(&rows).unwrap()
    }

    fn label(found: Option<&Asker>) -> Option<&str> {
        found.and_then(|asker| asker.label.as_ref()).map(|label| label.as_str())
    }

    #[test]
    fn the_longest_prefix_wins() {
        let table = prefixes(&[
            ("10.0.0.0/8", "fra"),
            ("10.1.0.0/16", "nrt"),
            ("10.1.2.3/32", "iad"),
            ("2001:db8::/32", "gru"),
            ("2001:db8:1::/48", "syd"),
        ]);
        let rows = [
            ("10.9.9.9", Some("fra")),
            ("10.1.9.9", Some("nrt")),
            ("10.1.2.3", Some("iad")),
            ("10.1.2.4", Some("nrt")),
            ("11.0.0.0", None),
            ("::ffff:10.9.9.9", Some("fra")),
            ("2001:db8::1", Some("gru")),
            ("2001:db8:1::1", Some("syd")),
            ("2001:db9::", None),
            ("::10.9.9.9", None),
        ];
        for (address, want) in rows {
            assert_eq!(label(table.find(address.parse().unwrap())), want, "{address}");
        }
    }

    #[test]
    fn a_prefix_of_length_zero_takes_the_rest_of_its_family() {
        let table = prefixes(&[("0.0.0.0/0", "fra"), ("::/0", "nrt")]);
        assert_eq!(label(table.find("255.255.255.255".parse().unwrap())), Some("fra"));
        assert_eq!(label(table.find("ffff::1".parse().unwrap())), Some("nrt"));
    }

    #[test]
    fn a_client_may_say_a_label_coordinates_or_an_address() {
        let table = prefixes(&[("10.0.0.0/8", "fra"), ("192.0.2.0/24", "1.5,-2")]);
        let known = |region: &meridian_config::units::Region| {
            (region.as_str() == "lab").then_some(Location(1.0, 2.0))
        };
        let rows = [
            ("nrt", Some((Some("nrt"), Location(35.76, 140.39)))),
            ("lab", Some((Some("lab"), Location(1.0, 2.0)))),
            ("50.03,8.57", Some((None, Location(50.03, 8.57)))),
            ("-90,180", Some((None, Location(-90.0, 180.0)))),
            ("10.1.1.1", Some((Some("fra"), Location(50.03, 8.57)))),
            ("192.0.2.1", Some((None, Location(1.5, -2.0)))),
            ("-90.1,0", None),
            ("NaN,0", None),
            ("inf,inf", None),
            ("1,2,3", None),
            ("zzz", None),
            ("NRT", None),
            ("", None),
            ("nrt\r\nx", None),
        ];
        for (text, want) in rows {
            let got = match said(text, &table, known) {
                Said::Place(asker) => Some((asker.label, asker.location)),
                Said::Uncharted(_) => panic!("{text}"),
                Said::Nonsense => None,
            };
            let want = want.map(|(label, at)| (label.map(|label| label.parse().unwrap()), at));
            assert_eq!(got, want, "{text}");
        }
        let uncharted = said("203.0.113.1", &table, known);
        assert_eq!(uncharted, Said::Uncharted("203.0.113.1".parse().unwrap()));
    }

    #[test]
    fn a_prefix_that_is_none_or_nowhere_is_refused() {
        for (net, from) in [("10.0.0.1/8", "fra"), ("10.0.0.0/33", "fra"), ("10.0.0.0/8", "zzz")] {
            let row = Prefix { net: net.to_owned(), from: from.to_owned() };
            let error = Prefixes::of(&[row]).unwrap_err().to_string();
            assert!(error.contains(net), "{error}");
        }
    }

    proptest! {
        /// Against the definition, one prefix after the other.
        #[test]
        fn the_table_finds_what_a_scan_finds(
            nets in proptest::collection::vec((any::<u32>(), 0_u32..=32), 0..20),
            address in any::<u32>(),
        ) {
            let masked = |bits: u32, length: u32| super::leading_v4(bits, length);
            let codes = ["fra", "nrt", "iad", "syd", "gru"];
            let rows: Vec<Prefix> = nets
                .iter()
                .enumerate()
                .map(|(n, (bits, length))| Prefix {
                    net: format!("{}/{length}", Ipv4Addr::from_bits(masked(*bits, *length))),
                    from: codes[n % codes.len()].to_owned(),
                })
                .collect();
            let table = Prefixes::of(&rows).unwrap();
            let scanned = nets
                .iter()
                .enumerate()
                .filter(|(_, (bits, length))| {
                    let distance = bits ^ address;
                    distance.leading_zeros() >= *length
                })
                .max_by_key(|(n, (_, length))| (*length, *n))
                .map(|(n, _)| codes[n % codes.len()]);
            let found = table.find(IpAddr::V4(Ipv4Addr::from_bits(address)));
            prop_assert_eq!(label(found), scanned);
        }
    }
}
