//! The metrics of an edge among the edges of its CDN.

use std::fmt;
use std::sync::atomic::Ordering;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use crate::nodes::Counters;

/// Tells them.
pub(crate) fn encode(counters: &Counters, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let needs = [
        ("met", &counters.met),
        ("caught_up", &counters.caught_up),
        ("bypassed", &counters.bypassed),
    ];
    let mut metric = encoder.encode_descriptor(
        "edge_shield_needs",
        "Requests of other edges by whether this one had heard of the purges that they need: at \
         once, after a wait, or not: then they went past the store. A rise of bypassed: this edge \
         hears of purges late",
        None,
        MetricType::Counter,
    )?;
    for (result, count) in needs {
        let value = ConstCounter::new(count.load(Ordering::Relaxed));
        value.encode(metric.encode_family(&[("result", result)])?)?;
    }
    let fills = [
        ("current", &counters.filled),
        ("older", &counters.older),
        ("unknown", &counters.unknown),
        ("refused", &counters.refused),
    ];
    let mut metric = encoder.encode_descriptor(
        "edge_shield_fetches",
        "Answers of shields by which purges they take into account: all that are needed, fewer, \
         unknown (not stored), or none as the shield does not know this edge (refused: compare the \
         secrets and the names of the sites)",
        None,
        MetricType::Counter,
    )?;
    for (fill, count) in fills {
        let value = ConstCounter::new(count.load(Ordering::Relaxed));
        value.encode(metric.encode_family(&[("fill", fill)])?)?;
    }
    Ok(())
}
