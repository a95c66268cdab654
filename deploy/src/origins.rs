//! What the edges say of their origins: breakers and attempts, read from their metrics.

use std::collections::BTreeMap;

use serde::Serialize;

/// An origin as one edge sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct OriginView {
    pub(crate) origin: String,
    /// `closed`, `ramping-up`, `open` or `half-open`.
    pub(crate) breaker: String,
    /// Whether it looks alive.
    pub(crate) up: bool,
    pub(crate) in_flight: u64,
    /// What it was asked for, each counted once.
    pub(crate) asked: u64,
    /// Asked once more, or over another connection.
    pub(crate) repeated: u64,
    /// Kept from it by its breaker.
    pub(crate) refused: u64,
    /// Attempts per request that it was asked for.
    pub(crate) amplification: Option<f64>,
}

/// Reads the metrics of an edge (OpenMetrics text).
pub(crate) fn origins(text: &str) -> Vec<OriginView> {
    let mut origins: BTreeMap<&str, OriginView> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (Some(origin), Ok(value)) = (label(series, "upstream"), value.parse::<u64>()) else {
            continue;
        };
        let view = origins.entry(origin).or_default();
        match series.split('{').next().unwrap_or(series) {
            "edge_breaker_state" if value == 1 => {
                view.breaker = label(series, "state").unwrap_or_default().to_owned();
            }
            "edge_breaker_refusals_total" => view.refused = value,
            "edge_upstream_up" => view.up = value == 1,
            "edge_upstream_in_flight" => view.in_flight = value,
            "edge_upstream_asked_total" => view.asked = value,
            "edge_upstream_retries_total" | "edge_upstream_replays_total" => view.repeated += value,
            _ => {}
        }
    }
    let named = origins.into_iter().map(|(origin, view)| OriginView {
        origin: origin.to_owned(),
        amplification: (view.asked > 0)
            .then(|| (view.asked + view.repeated) as f64 / view.asked as f64),
        ..view
    });
    named.collect()
}

/// The value of a label of `series`.
fn label<'a>(series: &'a str, name: &str) -> Option<&'a str> {
    let labels = series.split_once('{')?.1.strip_suffix('}')?;
    labels.split(',').find_map(|label| {
        let (found, value) = label.split_once('=')?;
        (found == name).then(|| value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_from_the_metrics_of_an_edge() {
        let text = "# TYPE edge_breaker_state gauge\n\
            edge_breaker_state{upstream=\"a\",state=\"closed\"} 0\n\
            edge_breaker_state{upstream=\"a\",state=\"open\"} 1\n\
            edge_upstream_asked_total{upstream=\"a\"} 100\n\
            edge_upstream_retries_total{upstream=\"a\"} 15\n\
            edge_upstream_replays_total{upstream=\"a\"} 5\n\
            edge_breaker_refusals_total{upstream=\"a\"} 7\n\
            edge_upstream_up{upstream=\"a\"} 0\n\
            edge_upstream_up{upstream=\"b\"} 1\n\
            edge_requests_total{site=\"a\",cache=\"hit\"} 5\n";
        let got = origins(text);
        let want = OriginView {
            origin: "a".to_owned(),
            breaker: "open".to_owned(),
            up: false,
            in_flight: 0,
            asked: 100,
            repeated: 20,
            refused: 7,
            amplification: Some(1.2),
        };
        assert_eq!(got[0], want);
        assert_eq!((got[1].origin.as_str(), got[1].up), ("b", true));
        assert_eq!(got[1].amplification, None, "nothing asked is no amplification of 0");
        assert_eq!(got.len(), 2);
    }
}
