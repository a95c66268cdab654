//! Points of presence: where in the world a region may be, and how far apart two of them are.
//!
//! A place is named by the IATA code of its airport, in lower case, as CDNs do. Distances are
//! round trips: measured ones where two places stand in the table, else an estimate from the
//! great circle. A region need not be a place; then it has no distance here.

use std::time::Duration;

use crate::shared::Location;

/// A city where a point of presence may stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// The IATA code in lower case: `fra`.
    pub code: &'static str,
    /// The city, as people there who speak English call it.
    pub city: &'static str,
    /// The country by ISO 3166-1: `DE`.
    pub country: &'static str,
    /// The airport's latitude and longitude.
    pub location: Location,
}

/// The place with the IATA code `code`, in lower case.
pub fn place(code: &str) -> Option<&'static Place> {
    PLACES.iter().find(|place| place.code == code)
}

/// All places, from west to east by continent.
pub fn places() -> &'static [Place] {
    PLACES
}

/// The round trip between two places: measured where it was, else estimated; `None` for a code
/// that is no place's.
pub fn round_trip(a: &str, b: &str) -> Option<Duration> {
    let (from, to) = (place(a)?, place(b)?);
    if a == b {
        return Some(IN_REGION);
    }
    measured(a, b).or_else(|| Some(estimate(great_circle_km(from.location, to.location))))
}

/// The round trip between two different places, if it was measured.
pub fn measured(a: &str, b: &str) -> Option<Duration> {
    let row = |code| ROUND_TRIPS.iter().position(|(of, _)| *of == code);
    let (a, b) = (row(a)?, row(b)?);
    let (_, millis) = ROUND_TRIPS.get(a.max(b))?;
    let millis = millis.get(a.min(b)).copied().filter(|millis| *millis > 0)?;
    Some(Duration::from_millis(u64::from(millis)))
}

/// The round trip that is expected over `km` of great circle.
pub fn estimate(km: f64) -> Duration {
    IN_REGION.max(in_fibre(km).mul_f64(DETOUR))
}

/// The round trip of light in a fibre along the great circle, which nothing can be faster than:
/// glass slows light to two thirds, 200 km in a millisecond.
pub fn in_fibre(km: f64) -> Duration {
    Duration::from_secs_f64((2.0 * km / 200_000.0).max(0.0))
}

/// The length of the great circle between two locations, on a sphere.
pub fn great_circle_km(a: Location, b: Location) -> f64 {
    const EARTH_RADIUS_KM: f64 = 6_371.0;
    let (lat_a, lat_b) = (a.0.to_radians(), b.0.to_radians());
    let (lat, lon) = (lat_b - lat_a, (b.1 - a.1).to_radians());
    // The haversine form, which stays exact where the two are close.
    let half = (lat / 2.0).sin().powi(2) + lat_a.cos() * lat_b.cos() * (lon / 2.0).sin().powi(2);
    2.0 * EARTH_RADIUS_KM * half.clamp(0.0, 1.0).sqrt().asin()
}

/// The round trip between two machines in one region. Measured between data centres of one: 0.1
/// to 0.3 ms; clients in the same city are a little further off.
const IN_REGION: Duration = Duration::from_millis(1);

/// How much longer real round trips are than light in a fibre along the great circle, because
/// cables go round mountains and along coasts: the median over the table below.
const DETOUR: f64 = 1.7;

const fn at(
    code: &'static str,
    city: &'static str,
    country: &'static str,
    latitude: f64,
    longitude: f64,
) -> Place {
    Place { code, city, country, location: Location(latitude, longitude) }
}

static PLACES: &[Place] = &[
    // North America
    at("iad", "Washington", "US", 38.94, -77.46),
    at("ewr", "New York", "US", 40.69, -74.17),
    at("ord", "Chicago", "US", 41.98, -87.9),
    at("atl", "Atlanta", "US", 33.64, -84.43),
    at("mia", "Miami", "US", 25.79, -80.29),
    at("dfw", "Dallas", "US", 32.9, -97.04),
    at("den", "Denver", "US", 39.86, -104.67),
    at("phx", "Phoenix", "US", 33.43, -112.01),
    at("lax", "Los Angeles", "US", 33.94, -118.41),
    at("sfo", "San Francisco", "US", 37.62, -122.38),
    at("sea", "Seattle", "US", 47.45, -122.31),
    at("pdx", "Portland", "US", 45.59, -122.6),
    at("cmh", "Columbus", "US", 40.0, -82.89),
    at("hnl", "Honolulu", "US", 21.32, -157.92),
    at("yyz", "Toronto", "CA", 43.68, -79.63),
    at("yul", "Montreal", "CA", 45.47, -73.74),
    at("yvr", "Vancouver", "CA", 49.19, -123.18),
    at("mex", "Mexico City", "MX", 19.44, -99.07),
    at("pty", "Panama City", "PA", 9.07, -79.38),
    // South America
    at("gru", "São Paulo", "BR", -23.44, -46.47),
    at("gig", "Rio de Janeiro", "BR", -22.81, -43.25),
    at("eze", "Buenos Aires", "AR", -34.82, -58.54),
    at("scl", "Santiago", "CL", -33.39, -70.79),
    at("lim", "Lima", "PE", -12.02, -77.11),
    at("bog", "Bogotá", "CO", 4.7, -74.15),
    at("uio", "Quito", "EC", -0.13, -78.36),
    // Europe
    at("lhr", "London", "GB", 51.47, -0.46),
    at("man", "Manchester", "GB", 53.35, -2.27),
    at("dub", "Dublin", "IE", 53.42, -6.27),
    at("ams", "Amsterdam", "NL", 52.31, 4.76),
    at("bru", "Brussels", "BE", 50.9, 4.48),
    at("cdg", "Paris", "FR", 49.01, 2.55),
    at("fra", "Frankfurt", "DE", 50.03, 8.57),
    at("muc", "Munich", "DE", 48.35, 11.79),
    at("zrh", "Zurich", "CH", 47.46, 8.55),
    at("mxp", "Milan", "IT", 45.63, 8.73),
    at("fco", "Rome", "IT", 41.8, 12.25),
    at("mad", "Madrid", "ES", 40.49, -3.57),
    at("lis", "Lisbon", "PT", 38.78, -9.14),
    at("cph", "Copenhagen", "DK", 55.62, 12.66),
    at("arn", "Stockholm", "SE", 59.65, 17.92),
    at("osl", "Oslo", "NO", 60.19, 11.1),
    at("hel", "Helsinki", "FI", 60.32, 24.96),
    at("waw", "Warsaw", "PL", 52.17, 20.97),
    at("prg", "Prague", "CZ", 50.1, 14.26),
    at("vie", "Vienna", "AT", 48.11, 16.57),
    at("bud", "Budapest", "HU", 47.44, 19.26),
    at("otp", "Bucharest", "RO", 44.57, 26.1),
    at("ath", "Athens", "GR", 37.94, 23.94),
    // Middle East and Africa
    at("ist", "Istanbul", "TR", 41.26, 28.73),
    at("tlv", "Tel Aviv", "IL", 32.01, 34.89),
    at("dxb", "Dubai", "AE", 25.25, 55.36),
    at("doh", "Doha", "QA", 25.26, 51.61),
    at("bah", "Manama", "BH", 26.27, 50.63),
    at("ruh", "Riyadh", "SA", 24.96, 46.7),
    at("cai", "Cairo", "EG", 30.12, 31.41),
    at("los", "Lagos", "NG", 6.58, 3.32),
    at("nbo", "Nairobi", "KE", -1.32, 36.93),
    at("jnb", "Johannesburg", "ZA", -26.13, 28.25),
    at("cpt", "Cape Town", "ZA", -33.96, 18.6),
    // Asia
    at("del", "Delhi", "IN", 28.57, 77.1),
    at("bom", "Mumbai", "IN", 19.09, 72.87),
    at("maa", "Chennai", "IN", 12.99, 80.17),
    at("bkk", "Bangkok", "TH", 13.68, 100.75),
    at("kul", "Kuala Lumpur", "MY", 2.75, 101.71),
    at("sin", "Singapore", "SG", 1.35, 103.99),
    at("cgk", "Jakarta", "ID", -6.13, 106.66),
    at("mnl", "Manila", "PH", 14.51, 121.02),
    at("han", "Hanoi", "VN", 21.22, 105.81),
    at("hkg", "Hong Kong", "HK", 22.31, 113.92),
    at("tpe", "Taipei", "TW", 25.08, 121.23),
    at("icn", "Seoul", "KR", 37.47, 126.45),
    at("kix", "Osaka", "JP", 34.43, 135.24),
    at("nrt", "Tokyo", "JP", 35.76, 140.39),
    // Oceania
    at("per", "Perth", "AU", -31.94, 115.97),
    at("mel", "Melbourne", "AU", -37.67, 144.84),
    at("syd", "Sydney", "AU", -33.95, 151.18),
    at("akl", "Auckland", "NZ", -37.01, 174.79),
];

/// Round trips in milliseconds between places, each row to the places of the rows before it; 0
/// where nobody measured. They are averages of pings between cloud regions in or near these
/// cities: up to `syd` of June 2020, the last three rows of February 2024.
#[rustfmt::skip] // a triangle reads better than one number per line
static ROUND_TRIPS: &[(&str, &[u16])] = &[
    ("iad", &[]),
    ("cmh", &[11]),
    ("yul", &[15, 24]),
    ("sfo", &[60, 51, 78]),
    ("pdx", &[73, 49, 66, 21]),
    ("gru", &[113, 125, 124, 190, 180]),
    ("dub", &[71, 85, 72, 141, 127, 184]),
    ("lhr", &[76, 86, 89, 137, 145, 194, 10]),
    ("cdg", &[78, 88, 92, 138, 150, 196, 17, 8]),
    ("fra", &[86, 96, 100, 146, 158, 203, 24, 15, 9]),
    ("mxp", &[94, 104, 108, 153, 171, 212, 32, 24, 17, 10]),
    ("arn", &[105, 113, 114, 163, 157, 217, 36, 27, 28, 20, 30]),
    ("bah", &[193, 203, 207, 253, 260, 311, 132, 123, 117, 122, 129, 143]),
    ("cpt", &[216, 226, 224, 276, 272, 329, 151, 143, 147, 199, 190, 166, 279]),
    ("bom", &[182, 189, 197, 231, 223, 299, 118, 113, 107, 112, 102, 131, 35, 292]),
    ("sin", &[236, 220, 221, 181, 163, 338, 187, 170, 171, 178, 159, 196, 91, 357, 63]),
    ("hkg", &[213, 204, 202, 155, 145, 315, 220, 211, 200, 203, 193, 231, 127, 383, 98, 35]),
    ("nrt", &[152, 155, 155, 112, 101, 268, 204, 209, 244, 244, 233, 265, 171, 383, 137, 77, 51]),
    ("syd", &[198, 188, 196, 137, 139, 309, 254, 274, 273, 282, 288, 295, 177, 413, 143, 90, 128, 104]),
    ("dfw", &[32, 0, 0, 0, 0, 144, 0, 113, 0, 123, 0, 0, 0, 0, 0, 0, 0, 142, 185]),
    ("yyz", &[19, 0, 0, 0, 0, 129, 0, 82, 0, 92, 0, 0, 0, 0, 0, 0, 0, 163, 215, 34]),
    ("mad", &[87, 0, 0, 0, 0, 206, 0, 26, 0, 29, 0, 0, 0, 0, 0, 0, 0, 260, 283, 118, 107]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::{DETOUR, IN_REGION, ROUND_TRIPS, estimate, great_circle_km, in_fibre, measured};
    use super::{place, places, round_trip};
    use crate::shared::Location;

    #[test]
    fn there_are_enough_places_all_over_the_world() {
        assert!(places().len() >= 40, "{}", places().len());
        let codes: BTreeSet<&str> = places().iter().map(|place| place.code).collect();
        assert_eq!(codes.len(), places().len(), "a code stands twice");
        for place in places() {
            let letters = |text: &str, count| text.len() == count && text.is_ascii();
            assert!(letters(place.code, 3) && place.code.chars().all(|c| c.is_ascii_lowercase()));
            assert!(letters(place.country, 2), "{place:?}");
            assert!(place.country.chars().all(|c| c.is_ascii_uppercase()), "{place:?}");
            assert!(place.location.is_on_earth() && !place.city.is_empty(), "{place:?}");
        }
        let (north, east) =
            (|p: &&super::Place| p.location.0 > 0.0, |p: &&super::Place| p.location.1 > 0.0);
        let quarter =
            |n: bool, e: bool| places().iter().filter(|p| north(p) == n && east(p) == e).count();
        for (n, e) in [(true, true), (true, false), (false, true), (false, false)] {
            assert!(quarter(n, e) >= 5, "hardly any place in a quarter of the world");
        }
    }

    #[test]
    fn the_round_trip_table_has_places_and_a_row_to_all_before() {
        assert!(ROUND_TRIPS.len() >= 12);
        for (index, (code, row)) in ROUND_TRIPS.iter().enumerate() {
            assert!(place(code).is_some(), "{code} is no place");
            assert_eq!(row.len(), index, "{code}");
        }
    }

    #[test]
    fn a_round_trip_is_the_same_both_ways_and_never_faster_than_light() {
        for a in places() {
            for b in places() {
                let trip = round_trip(a.code, b.code).unwrap();
                assert_eq!(round_trip(b.code, a.code), Some(trip), "{} {}", a.code, b.code);
                let floor = in_fibre(great_circle_km(a.location, b.location));
                assert!(trip >= floor, "{} {}: {trip:?} below {floor:?}", a.code, b.code);
                assert!(trip < Duration::from_millis(450), "{} {}: {trip:?}", a.code, b.code);
                assert_eq!(a == b, trip == IN_REGION, "{} {}", a.code, b.code);
            }
        }
    }

    #[test]
    fn the_detour_is_the_median_over_what_was_measured() {
        let mut ratios = Vec::new();
        for a in places() {
            for b in places().iter().filter(|b| b.code < a.code) {
                if let Some(trip) = measured(a.code, b.code) {
                    let floor = in_fibre(great_circle_km(a.location, b.location));
                    ratios.push(trip.as_secs_f64() / floor.as_secs_f64());
                }
            }
        }
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        assert!((median - DETOUR).abs() < 0.05, "{median} of {}", ratios.len());
    }

    #[test]
    fn distances_agree_with_the_map() {
        let rows = [("fra", "lhr", 654.0), ("syd", "scl", 11_340.0), ("akl", "hnl", 7_065.0)];
        for (a, b, km) in rows {
            let (a, b) = (place(a).unwrap(), place(b).unwrap());
            let found = great_circle_km(a.location, b.location);
            assert!((found - km).abs() < km * 0.01, "{} {}: {found} km", a.code, b.code);
        }
        let pole = great_circle_km(Location(90.0, 0.0), Location(-90.0, 77.0));
        assert!((pole - 20_015.0).abs() < 1.0, "{pole}");
        assert_eq!(great_circle_km(Location(1.0, 2.0), Location(1.0, 2.0)), 0.0);
    }

    #[test]
    fn what_is_no_place_has_no_distance() {
        assert_eq!(place("xxx"), None);
        assert_eq!(place("FRA"), None);
        assert_eq!(round_trip("fra", "xxx"), None);
        assert_eq!(round_trip("xxx", "xxx"), None);
        assert_eq!(measured("fra", "waw"), None); // a place, but nobody measured
        assert!(round_trip("fra", "waw").is_some());
        assert_eq!(estimate(0.0), IN_REGION);
    }
}
