//! What is told of the control plane: whether it answers, how old the knowledge of purges is, and
//! what was done about that.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::counters::Lagging;
use crate::metrics::{Reader, counter, gauge, load, total};

impl Reader {
    /// How old the knowledge of purges is; infinitely, while nothing is known. An edge that stands
    /// alone has nobody to know anything from.
    fn staleness(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if !self.0.follows {
            return Ok(());
        }
        let metric = encoder.encode_descriptor(
            "edge_control_staleness",
            "Every purge that was acknowledged longer ago than this is applied here. A rise: the \
             control plane is out of reach, and purges do not arrive",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        let known = self.0.control_staleness();
        ConstGauge::new(known.map_or(f64::INFINITY, |known| known.as_secs_f64())).encode(metric)?;
        if let Some(left) = self.0.lag.lease_left(self.0.clock.now().mono) {
            let metric = encoder.encode_descriptor(
                "edge_control_lease",
                "What is left of the lease. At 0 routes that are fail_closed use nothing stored",
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?;
            ConstGauge::new(left.as_secs_f64()).encode(metric)?;
        }
        let mut metric = encoder.encode_descriptor(
            "edge_control_lag_requests",
            "Requests of routes whose max_control_lag was exceeded, by what was done as their \
             control_loss says. A rise: the control plane is out of reach",
            None,
            MetricType::Counter,
        )?;
        for site in self.0.sites.load().all() {
            for done in Lagging::ALL {
                let value = site.counters.iter().map(|core| core.lagging(done).map_or(0, load));
                let labels = [("site", site.name.as_str()), ("done", done.token())];
                total(value).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    pub(super) fn control(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.staleness(encoder)?;
        gauge(
            encoder,
            "edge_control_reachable",
            "1 while a control replica answers this edge, else 0: it then serves with what it knows",
            None,
            load(&self.0.counters.control_reachable),
        )?;
        counter(
            encoder,
            "edge_registrations",
            "Registrations with the control plane. More than one: it forgot this edge, or another \
             one has its name",
            load(&self.0.counters.registrations),
        )?;
        counter(
            encoder,
            "edge_control_rotations",
            "Times that a control replica was left for another one: it failed, was silent, behind, \
             or asked for it. A rise: look at the replicas and the network between",
            load(&self.0.counters.rotations),
        )
    }
}
