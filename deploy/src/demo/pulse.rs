//! What the edges say of themselves at one moment, added up: what their metrics say.
//!
//! # Invariants
//! - An edge that does not answer counts as nothing, and the moment says how many did.

use std::ops::AddAssign;

/// The sum over the edges that answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// Edges that answered.
    pub(crate) edges: u64,
    /// Attempts at the origin, attempts to connect included.
    pub(crate) attempts: u64,
    /// Requests that the origin was asked for, each counted once.
    pub(crate) asked: u64,
    /// Those that went out once more.
    pub(crate) retries: u64,
    /// Retries that the budget did not grant.
    pub(crate) denied: u64,
    /// Requests let through half-open breakers.
    pub(crate) probes: u64,
    /// Transitions of breakers.
    pub(crate) changes: u64,
    /// Those that were no probe's doing: from letting requests through to open.
    pub(crate) trips: u64,
    /// Requests that open breakers kept from the origin.
    pub(crate) refused: u64,
    pub(crate) in_flight: u64,
    pub(crate) queue: u64,
    pub(crate) connections: u64,
    /// Requests of clients whose answer is not sent to its end.
    pub(crate) clients: u64,
    pub(crate) tasks: u64,
    /// Open files of their processes.
    pub(crate) files: u64,
    /// Edges whose breaker is closed, ramping up, half-open, open.
    pub(crate) breakers: [u64; 4],
    /// Resident memory of their processes.
    pub(crate) memory_mib: Option<u64>,
}

/// The states of a breaker, the best first.
const STATES: [&str; 4] = ["closed", "ramping-up", "half-open", "open"];

/// Why a breaker opens that let requests through.
const TRIPS: [&str; 3] = ["consecutive-failures", "failure-share", "slow-share"];

impl Pulse {
    /// Reads the metrics of one edge (OpenMetrics text).
    pub(crate) fn read(text: &str) -> Self {
        let mut pulse = Self { edges: 1, ..Self::default() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<u64>() else { continue };
            match series.split('{').next().unwrap_or(series) {
                "edge_upstream_requests_total" => pulse.attempts += value,
                "edge_upstream_asked_total" => pulse.asked += value,
                "edge_upstream_retries_total" => pulse.retries += value,
                "edge_upstream_retries_denied_total" => pulse.denied += value,
                "edge_breaker_probes_total" => pulse.probes += value,
                "edge_breaker_changes_total" => {
                    let is = |reason: &&str| series.contains(&format!("reason=\"{reason}\""));
                    pulse.changes += value;
                    pulse.trips += if TRIPS.iter().any(is) { value } else { 0 };
                }
                "edge_breaker_refusals_total" => pulse.refused += value,
                "edge_upstream_in_flight" => pulse.in_flight += value,
                "edge_upstream_queue" => pulse.queue += value,
                "edge_connections" => pulse.connections += value,
                "edge_requests_in_flight" => pulse.clients += value,
                "edge_tasks" => pulse.tasks += value,
                "process_open_fds" => pulse.files += value,
                "process_resident_memory_bytes" => {
                    *pulse.memory_mib.get_or_insert_default() += value >> 20;
                }
                "edge_breaker_state" => {
                    let is = |state: &str| series.contains(&format!("state=\"{state}\""));
                    let counts = STATES.iter().zip(&mut pulse.breakers);
                    for (_, count) in counts.filter(|(state, _)| is(state)) {
                        *count += value;
                    }
                }
                _ => {}
            }
        }
        pulse
    }

    /// The worst state that any breaker is in.
    pub(crate) fn breaker(&self) -> &'static str {
        let states = STATES.iter().zip(self.breakers);
        states.rev().find(|(_, count)| *count > 0).map_or("none", |(state, _)| state)
    }

    /// Whether every breaker keeps requests from the origin.
    pub(crate) fn all_broken(&self) -> bool {
        let [closed, ramping_up, half_open, open] = self.breakers;
        closed + ramping_up == 0 && half_open + open > 0
    }

    /// Whether every breaker lets everything through.
    pub(crate) fn all_closed(&self) -> bool {
        let [closed, rest @ ..] = self.breakers;
        closed > 0 && rest.iter().all(|count| *count == 0)
    }
}

impl AddAssign for Pulse {
    fn add_assign(&mut self, other: Self) {
        self.edges += other.edges;
        self.attempts += other.attempts;
        self.asked += other.asked;
        self.retries += other.retries;
        self.denied += other.denied;
        self.probes += other.probes;
        self.refused += other.refused;
        self.changes += other.changes;
        self.trips += other.trips;
        self.in_flight += other.in_flight;
        self.queue += other.queue;
        self.connections += other.connections;
        self.clients += other.clients;
        self.tasks += other.tasks;
        self.files += other.files;
        for (mine, others) in self.breakers.iter_mut().zip(other.breakers) {
            *mine += others;
        }
        self.memory_mib = match (self.memory_mib, other.memory_mib) {
            (Some(mine), Some(others)) => Some(mine + others),
            (one, another) => one.or(another),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::Pulse;

    #[test]
    fn metrics_add_up_and_the_worst_breaker_is_told() {
        let state = |open: u8, closed: u8| {
            format!(
                "# TYPE edge_connections gauge\nedge_connections 3\n\
                 edge_upstream_requests_total{{upstream=\"o\"}} 7\n\
                 edge_tasks 4\nprocess_resident_memory_bytes 2097152\n\
                 edge_upstream_asked_total{{upstream=\"o\"}} 5\n\
                 edge_breaker_changes_total{{upstream=\"o\",reason=\"slow-share\"}} 1\n\
                 edge_breaker_changes_total{{upstream=\"o\",reason=\"cooled-down\"}} 2\n\
                 edge_breaker_state{{upstream=\"o\",state=\"open\"}} {open}\n\
                 edge_breaker_state{{upstream=\"o\",state=\"half-open\"}} 0\n\
                 edge_breaker_state{{upstream=\"o\",state=\"closed\"}} {closed}\nnonsense\n"
            )
        };
        let mut both = Pulse::read(&state(1, 0));
        assert!(both.all_broken() && !both.all_closed());
        assert_eq!(both.breaker(), "open");
        both += Pulse::read(&state(0, 1));
        assert!(!both.all_broken() && !both.all_closed(), "one of each: {both:?}");
        assert_eq!((both.edges, both.attempts, both.asked, both.connections), (2, 14, 10, 6));
        assert_eq!((both.changes, both.trips), (6, 2));
        assert_eq!((both.tasks, both.memory_mib), (8, Some(4)));
        assert!(Pulse::read(&state(0, 1)).all_closed());
        assert_eq!(Pulse::read("").breaker(), "none", "an edge without an origin");
    }
}
