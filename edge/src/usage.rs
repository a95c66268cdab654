//! What this process takes of its machine: tasks, memory, files. Bounded by what bounds clients and
//! requests, and shown so that everybody can see that it is.
//!
//! Not here: the memory of stored responses and of bodies on their way, which are counted exactly.
//!
//! # Invariants
//! - What the system does not tell as Linux does is left out, and never 0.

use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use tokio::runtime::Handle;

/// The runtimes of the cores.
#[derive(Debug, Default)]
pub(crate) struct Runtimes(Mutex<Vec<Handle>>);

impl Runtimes {
    /// A core has begun to run.
    pub(crate) fn add(&self, runtime: &Handle) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(runtime.clone());
    }

    /// Tasks that are neither done nor given up.
    fn tasks(&self) -> usize {
        let runtimes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runtimes.iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum()
    }
}

/// Reads all of it whenever metrics are.
#[derive(Debug)]
pub(crate) struct Reader(pub(crate) Arc<Runtimes>);

impl Collector for Reader {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let tasks = (
            "edge_tasks",
            "Tasks of the cores: connections of clients and to origins, requests, fetches. A rise \
             that does not end with the requests in flight is a leak",
            None,
            u64::try_from(self.0.tasks()).ok(),
        );
        let memory = (
            "process_resident_memory",
            "Resident memory of the process. Far above edge_store_bytes: many connections or \
             large bodies on their way",
            Some(&Unit::Bytes),
            resident(),
        );
        let files = (
            "process_open_fds",
            "Open files of the process, nearly all of them connections",
            None,
            open_files(),
        );
        for (name, help, unit, value) in [tasks, memory, files] {
            let Some(value) = value else { continue };
            let metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

fn resident() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

fn open_files() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(open).ok()?.checked_sub(1) // the folder itself
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn tasks_are_those_of_all_runtimes_that_have_not_ended() {
        let runtimes = Runtimes::default();
        let all = [(); 2].map(|()| {
            tokio::runtime::Builder::new_current_thread().build().expect("a runtime needs nothing")
        });
        for runtime in &all {
            runtimes.add(runtime.handle());
        }
        assert_eq!(runtimes.tasks(), 0);
        let waiting = all[0].spawn(std::future::pending::<()>());
        let done = all[1].spawn(std::future::ready(()));
        assert_eq!(runtimes.tasks(), 2);
        waiting.abort();
        assert!(all[0].block_on(waiting).is_err());
        assert!(all[1].block_on(done).is_ok());
        assert_eq!(runtimes.tasks(), 0);
    }

    #[test]
    fn a_file_and_a_page_more_show() {
        let (Some(bytes), Some(files)) = (resident(), open_files()) else { return };
        let held: Vec<File> = (0..50).map(|_| File::open("/proc/self/statm").unwrap()).collect();
        let more: Vec<u8> = (0..64 << 20).map(|at: u32| at.to_le_bytes()[0]).collect();
        assert!(open_files().unwrap() >= files + 40, "{files} before");
        assert!(resident().unwrap() >= bytes + (32 << 20), "{bytes} before");
        assert_eq!((held.len(), more.len()), (50, 64 << 20));
    }
}
