//! The process itself.

use std::fmt::Error;
use std::fs;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use rustix::time::{ClockId, clock_gettime};

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (name, help, line) in [
            ("process_resident_memory_bytes", "Resident memory", "VmRSS:"),
            ("process_resident_anonymous_memory_bytes", "Resident memory that is not backed by files", "RssAnon:"),
        ] {
            if let Some(bytes) = bytes_of(&status, line) {
                encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&bytes)?;
            }
        }
        let no_exemplar: Option<&Exemplar<NoLabelSet, f64>> = None;
        encoder
            .encode_descriptor("process_cpu_seconds", "CPU time of all threads", None, MetricType::Counter)?
            .encode_counter(&cpu_time().as_secs_f64(), no_exemplar)?;
        encoder
            .encode_descriptor("wasm_operator_build", "The running build", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION")), ("target", std::env::consts::ARCH)])
    }
}

/// A line such as `VmRSS:     1234 kB`.
fn bytes_of(status: &str, line: &str) -> Option<u64> {
    let value = status.lines().find_map(|text| text.strip_prefix(line))?;
    value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_words() {
        assert_eq!(bytes_of("Name:\tx\nVmRSS:\t    1234 kB\n", "VmRSS:"), Some(1234 * 1024));
        assert_eq!(bytes_of("VmRSS:\t    1234 MB\n", "VmRSS:"), None);
        assert_eq!(bytes_of("", "VmRSS:"), None);
    }
}
