//! What jemalloc reports about a process, by size class. The process prints it every few bytes of allocation.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Deserializer, Value};

/// The variable with jemalloc's options, and the value with which a process reports on standard error after each 8 MiB of allocation.
pub const ENVIRONMENT: (&str, &str) = ("_RJEM_MALLOC_CONF", "stats_interval:8388608,stats_interval_opts:Jdaxeh");
/// The beginning of a report.
const BEGIN: &str = "{\"jemalloc\":";

/// Live allocations.
#[derive(Clone, Default)]
pub struct AllocatorStats {
    /// Allocations by size class in bytes.
    pub classes: BTreeMap<u64, f64>,
    /// Bytes in pages that have allocations.
    pub active: f64,
    /// Bytes of the allocator's own data.
    pub metadata: f64,
}

/// The number of reports in a log.
pub fn count(log: &Path) -> usize {
    std::fs::read(log).map_or(0, |bytes| String::from_utf8_lossy(&bytes).matches(BEGIN).count())
}

/// The last complete report in a log.
pub fn last(log: &Path) -> Option<AllocatorStats> {
    let bytes = std::fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let reports: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    reports.iter().rev().find_map(|at| parse(&text[*at..]))
}

fn parse(text: &str) -> Option<AllocatorStats> {
    let report: Value = Deserializer::from_str(text).into_iter().next()?.ok()?;
    let all = &report["jemalloc"];
    let merged = &all["stats.arenas"]["merged"];
    let mut classes = BTreeMap::new();
    for (sizes, counts, count) in [("bin", "bins", "curregs"), ("lextent", "lextents", "curlextents")] {
        let sizes = all["arenas"][sizes].as_array()?;
        for (size, counts) in sizes.iter().zip(merged[counts].as_array()?) {
            if let (Some(size), Some(count)) = (size["size"].as_u64(), counts[count].as_f64()) {
                classes.insert(size, count);
            }
        }
    }
    let total = |name: &str| all["stats"][name].as_f64();
    Some(AllocatorStats { classes, active: total("active")?, metadata: total("metadata")? })
}

impl AllocatorStats {
    /// Bytes of all allocations.
    #[expect(clippy::cast_precision_loss, reason = "less than 2^52 bytes")]
    pub fn allocated(&self) -> f64 {
        self.classes.iter().map(|(size, count)| *size as f64 * count).sum()
    }
}
