//! Every metric of an edge, by name, with what a rise means and what to do.
//!
//! Counted is in [`crate::counters`]; this reads and names it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use meridian_edge_rules::coding::Coding;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::connection::Overdue;
use crate::core::Edge;
use crate::error::FetchError;
use crate::outcome::Outcome;
use crate::shield_metrics;
use crate::upstream::Upstream;
use crate::upstream::breaker::{Phase, Reason};
use crate::upstream::guard::Guard;
use crate::usage;

mod control_plane;

/// A registry that reads `edge` whenever it is encoded.
pub(crate) fn registry(edge: Arc<Edge>) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(usage::Reader(Arc::clone(&edge.runtimes))));
    registry.register_collector(Box::new(Reader(edge)));
    registry
}

struct Reader(Arc<Edge>);

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

impl Collector for Reader {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.requests(&mut encoder)?;
        self.connections(&mut encoder)?;
        self.store(&mut encoder)?;
        self.compression(&mut encoder)?;
        self.upstreams(&mut encoder)?;
        self.guards(&mut encoder)?;
        self.breakers(&mut encoder)?;
        self.purges(&mut encoder)?;
        if let Some(nodes) = &self.0.nodes {
            shield_metrics::encode(&nodes.counters, &mut encoder)?;
        }
        self.control(&mut encoder)
    }
}

fn total(values: impl Iterator<Item = u64>) -> ConstCounter<u64> {
    ConstCounter::new(values.sum())
}

fn load(value: &AtomicU64) -> u64 {
    value.load(Ordering::Relaxed)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    ConstCounter::new(value).encode(metric)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: u64,
) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

impl Reader {
    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let sites = self.0.sites.load();
        let mut metric = encoder.encode_descriptor(
            "edge_requests",
            "Answered requests by site and by how the cache took part. A rise of uri-miss or stale \
             beside an even hit means that the store is too small or lifetimes too short",
            None,
            MetricType::Counter,
        )?;
        for site in sites.all() {
            for outcome in Outcome::ALL {
                let value = site.counters.iter().map(|core| core.outcome(outcome));
                let labels = [("site", site.name.as_str()), ("cache", outcome.token())];
                total(value).encode(metric.encode_family(&labels)?)?;
            }
        }
        let mut metric = encoder.encode_descriptor(
            "edge_server_errors",
            "Answers with a status of 500 or more, the origin's and the edge's own. Look at \
             edge_fetch_errors_total for the reason",
            None,
            MetricType::Counter,
        )?;
        for site in sites.all() {
            let value = site.counters.iter().map(|core| load(&core.server_errors));
            let labels = [("site", site.name.as_str())];
            total(value).encode(metric.encode_family(&labels)?)?;
        }
        counter(
            encoder,
            "edge_misdirected_requests",
            "Requests for a host that no site claims. A rise means a name points here that no \
             configuration knows",
            load(&self.0.counters.misdirected),
        )
    }

    fn connections(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &self.0.counters;
        let open = u64::try_from(metrics.connections.load(Ordering::Relaxed)).unwrap_or(0);
        gauge(
            encoder,
            "edge_connections",
            "Open client connections. Near accept.max_connections new clients wait",
            None,
            open,
        )?;
        gauge(
            encoder,
            "edge_requests_in_flight",
            "Requests whose answer is not sent to its end. A rise: slow clients or a slow origin",
            None,
            self.0.loads.iter().map(|load| load.requests()).sum(),
        )?;
        counter(
            encoder,
            "edge_connections_accepted",
            "Client connections since the start. Near the count of requests: no keep-alive",
            load(&metrics.accepted),
        )?;
        gauge(
            encoder,
            "edge_tunnels",
            "Connections that have become tunnels. Near accept.max_tunnels new ones are refused",
            None,
            self.0.tunnels.taken(),
        )?;
        let mut metric = encoder.encode_descriptor(
            "edge_tunnel",
            "Bytes through tunnels, from clients and to them",
            Some(&Unit::Bytes),
            MetricType::Counter,
        )?;
        for (direction, count) in ["from_client", "to_client"].iter().zip(&self.0.tunnels.bytes) {
            let labels = [("direction", *direction)];
            ConstCounter::new(load(count)).encode(metric.encode_family(&labels)?)?;
        }
        let mut metric = encoder.encode_descriptor(
            "edge_connections_overdue",
            "Connections cut because they exceeded a limit of [accept]. A rise of head_timeout \
             means slow or hostile clients",
            None,
            MetricType::Counter,
        )?;
        for (limit, count) in Overdue::ALL.iter().zip(&metrics.overdue) {
            let labels = [("limit", limit.token())];
            ConstCounter::new(load(count)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn store(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.0.store.counts();
        let bytes = Some(&Unit::Bytes);
        gauge(
            encoder,
            "edge_store",
            "Memory of stored responses, heads and bodies. At edge_store_capacity_bytes the store \
             evicts",
            bytes,
            counts.bytes,
        )?;
        gauge(
            encoder,
            "edge_store_capacity",
            "The configured cache.capacity",
            bytes,
            self.0.cache.capacity.get(),
        )?;
        gauge(encoder, "edge_store_urls", "Stored URLs, variants together", None, counts.urls)?;
        counter(
            encoder,
            "edge_store_evictions",
            "URLs that left the store, or were not admitted, for want of room. A steady rise: \
             more cache.capacity would raise the hit ratio",
            counts.evicted,
        )?;
        gauge(
            encoder,
            "edge_in_flight",
            "Memory of bodies that are still arriving or being sent. At cache.in_flight new ones \
             pass through unstored",
            bytes,
            self.0.in_flight.used(),
        )?;
        gauge(
            encoder,
            "edge_request_bodies",
            "Memory for request bodies that are held until they are whole. At accept.body_memory \
             new ones go on as they come",
            bytes,
            self.0.body_memory.used(),
        )?;
        gauge(
            encoder,
            "edge_fetches",
            "Collapsed fetches under way. A rise: the origin is slow",
            None,
            self.0.collapse.flights(),
        )
    }

    fn compression(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (compressor, counts) = (&self.0.compressor, &self.0.compressor.counters);
        let mut metric = encoder.encode_descriptor(
            "edge_compressions",
            "Coded bodies made, by coding. Each is made once while its response is stored: a rise \
             beside an even number of requests means that responses do not stay",
            None,
            MetricType::Counter,
        )?;
        for coding in Coding::ALL {
            let made = counts.made.get(coding.index()).map_or(0, load);
            let labels = [("coding", coding.token())];
            ConstCounter::new(made).encode(metric.encode_family(&labels)?)?;
        }
        let counters = [
            (
                "edge_compression_input_bytes",
                "Bytes of which coded bodies were made",
                &counts.bytes_in,
            ),
            ("edge_compression_output_bytes", "Bytes of the coded bodies made", &counts.bytes_out),
            (
                "edge_compression_useless",
                "Bodies that a coding did not make smaller. A rise: a media type in \
                 compression.types is compressed already",
                &counts.useless,
            ),
            (
                "edge_compression_shed",
                "Answers as they came, as compression.queue was full. A steady rise: more \
                 compression.workers, or lower levels",
                &counts.shed,
            ),
            (
                "edge_compression_failures",
                "Bodies on which an encoder failed; the log has the reason",
                &counts.failed,
            ),
        ];
        for (name, help, value) in counters {
            counter(encoder, name, help, load(value))?;
        }
        gauge(
            encoder,
            "edge_compression_queue",
            "Bodies that wait to be coded. At compression.queue further ones stay as they are",
            None,
            compressor.length(),
        )
    }

    fn upstreams(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Read = fn(&Upstream) -> u64;
        let counters: [(&str, &str, Read); 3] = [
            (
                "edge_upstream_requests",
                "Attempts at an origin, those to connect, retries and replays included",
                |upstream| load(&upstream.counters.requests),
            ),
            ("edge_upstream_body_bytes", "Body bytes received from an origin", |upstream| {
                load(&upstream.counters.body_bytes)
            }),
            (
                "edge_upstream_connections_opened",
                "Connections opened to an origin. Near the count of requests: it does not keep them",
                |upstream| load(&upstream.counters.connections),
            ),
        ];
        for (name, help, read) in counters {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            self.each_upstream(metric, |upstream| ConstCounter::new(read(upstream)))?;
        }
        let gauges: [(&str, &str, Read); 3] = [
            (
                "edge_upstream_in_flight",
                "Requests in flight to an origin. At its max_requests further ones wait",
                |upstream| u64::from(upstream.bulkhead.in_flight()),
            ),
            (
                "edge_upstream_queue",
                "Requests that wait for a place. At its max_queue further ones are shed with 503",
                |upstream| u64::from(upstream.bulkhead.waiting()),
            ),
            (
                "edge_upstream_idle_connections",
                "Connections kept open without a request",
                |upstream| upstream.pools.idle() as u64,
            ),
        ];
        for (name, help, read) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            self.each_upstream(metric, |upstream| ConstGauge::new(read(upstream)))?;
        }
        let mut metric = encoder.encode_descriptor(
            "edge_fetch_errors",
            "Requests without a usable answer by origin and reason (RFC 9209 §2.3). Look at the \
             origin, then at the network between",
            None,
            MetricType::Counter,
        )?;
        for upstream in &self.0.upstreams {
            for (token, count) in FetchError::TOKENS.iter().zip(&upstream.counters.errors) {
                let labels = [("upstream", upstream.name.as_str()), ("error", *token)];
                ConstCounter::new(load(count)).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    /// What keeps the failures of an origin cheap.
    fn guards(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Read = fn(&Guard) -> u64;
        let counters: [(&str, &str, Read); 6] = [
            (
                "edge_upstream_asked",
                "Requests of clients and refreshes that an origin was asked for. With the retries \
                 and replays the attempts: their ratio is the amplification",
                |guard| load(&guard.counters.asked),
            ),
            (
                "edge_upstream_retries",
                "Requests that went out once more. A rise: the origin fails now and then",
                |guard| load(&guard.counters.retried),
            ),
            (
                "edge_upstream_retries_denied",
                "Retries that the budget did not grant. A rise: the origin fails all the time",
                |guard| load(&guard.counters.unbudgeted),
            ),
            (
                "edge_upstream_replays",
                "Requests sent again as their kept connection had ended. A rise: the origin keeps \
                 connections for less than idle_timeout and does not say so",
                |guard| load(&guard.counters.replayed),
            ),
            (
                "edge_breaker_refusals",
                "Requests that an open breaker kept from an origin. Clients got something stale or \
                 503. Look at the origin",
                |guard| load(&guard.counters.refused),
            ),
            (
                "edge_upstream_failed_checks",
                "Active checks that failed. Look at the origin and at health.path",
                |guard| load(&guard.counters.checks_failed),
            ),
        ];
        for (name, help, read) in counters {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            self.each_upstream(metric, |upstream| ConstCounter::new(read(&upstream.guard)))?;
        }
        let now = self.0.clock.now().mono;
        let metric = encoder.encode_descriptor(
            "edge_upstream_up",
            "1 while an origin looks alive, else 0: it is asked last",
            None,
            MetricType::Gauge,
        )?;
        self.each_upstream(metric, |upstream| {
            ConstGauge::new(u64::from(upstream.guard.is_up(now)))
        })?;
        let metric = encoder.encode_descriptor(
            "edge_upstream_first_byte_timeout",
            "How long an answer may take to begin. Where it adapts: a rise means a slower origin",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        self.each_upstream(metric, |upstream| {
            ConstGauge::new(upstream.guard.first_byte(now).as_secs_f64())
        })
    }

    fn breakers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(
            "edge_breaker_state",
            "1 for the state that an origin's breaker is in, 0 for the others. Open: the origin is \
             not asked",
            None,
            MetricType::Gauge,
        )?;
        for upstream in &self.0.upstreams {
            let (phase, _forced, _probes) = upstream.guard.phase();
            for state in Phase::ALL {
                let labels = [("upstream", upstream.name.as_str()), ("state", state.token())];
                let is = ConstGauge::new(u64::from(state == phase));
                is.encode(metric.encode_family(&labels)?)?;
            }
        }
        let mut metric = encoder.encode_descriptor(
            "edge_breaker_changes",
            "Transitions of an origin's breaker by reason. A steady rise: the origin comes and goes",
            None,
            MetricType::Counter,
        )?;
        for upstream in &self.0.upstreams {
            for (reason, count) in Reason::ALL.iter().zip(&upstream.guard.counters.changes) {
                let labels = [("upstream", upstream.name.as_str()), ("reason", reason.token())];
                ConstCounter::new(load(count)).encode(metric.encode_family(&labels)?)?;
            }
        }
        let metric = encoder.encode_descriptor(
            "edge_breaker_probes",
            "Requests let through a half-open breaker to see whether the origin is back",
            None,
            MetricType::Counter,
        )?;
        self.each_upstream(metric, |upstream| ConstCounter::new(upstream.guard.phase().2))
    }

    fn each_upstream<M: EncodeMetric>(
        &self,
        mut metric: MetricEncoder<'_>,
        read: impl Fn(&Upstream) -> M,
    ) -> fmt::Result {
        for upstream in &self.0.upstreams {
            let labels = [("upstream", upstream.name.as_str())];
            read(upstream).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn purges(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (epochs, counts) = (&self.0.epochs, &self.0.purges.counters);
        let counters = [
            (
                "edge_purge_operations",
                "Purges applied, each once. What they cost is fetches of what they matched",
                load(&counts.applied),
            ),
            (
                "edge_purge_repeated",
                "Purges that came again and changed nothing. A rise: streams break often",
                load(&counts.repeated),
            ),
            (
                "edge_purge_unreadable_selectors",
                "Selectors that no request can match. Look at who purges what",
                load(&counts.unreadable),
            ),
            (
                "edge_purge_drops",
                "Times that everything was dropped as purges may have been missed. A rise: the \
                 control plane lost its log, or was out of reach when this edge began",
                load(&counts.dropped_all),
            ),
            (
                "edge_purge_snapshots",
                "Snapshots taken in place of single purges. A rise: this edge is cut off too long",
                load(&counts.snapshots),
            ),
            (
                "edge_purge_folded_selectors",
                "Selectors folded into their site, or into everything, for want of room: more is \
                 fetched anew than was purged. More purge.max_selectors would help",
                epochs.folded(),
            ),
            (
                "edge_purge_swept",
                "Stored responses that were dropped as they had been purged",
                load(&counts.swept),
            ),
            (
                "edge_purge_acknowledgements",
                "Acknowledgements that arrived at the control plane",
                load(&self.0.counters.acks),
            ),
        ];
        for (name, help, value) in counters {
            counter(encoder, name, help, value)?;
        }
        let gauges = [
            ("edge_purge_epoch", "The number of the newest purge", epochs.current()),
            (
                "edge_purge_selectors",
                "Selectors that are remembered. At purge.max_selectors the oldest are folded",
                epochs.selectors(),
            ),
            (
                "edge_purge_stream_open",
                "1 while the stream of purges is open, else 0: purges do not arrive",
                load(&self.0.counters.stream_open),
            ),
        ];
        for (name, help, value) in gauges {
            gauge(encoder, name, help, None, value)?;
        }
        self.stream(encoder)
    }

    /// What comes from the control plane beside the purges themselves.
    fn stream(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counters = [
            (
                "edge_purge_streams",
                "Streams of purges opened. A rise: they break, look at the network and the replica",
                load(&self.0.counters.streams),
            ),
            (
                "edge_site_changes",
                "Changes of sites obeyed at run time",
                load(&self.0.counters.site_changes),
            ),
            (
                "edge_site_refusals",
                "Changes of sites refused, as they do not fit this edge's configuration. The log \
                 has the violations; the last good version stays",
                load(&self.0.counters.site_refusals),
            ),
        ];
        for (name, help, value) in counters {
            counter(encoder, name, help, value)?;
        }
        Ok(())
    }
}
