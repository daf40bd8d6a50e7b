//! What the benches of streams share: options, the report, the machine, the servers, their clients and their emitters.

pub mod allocator_stats;
pub mod baseline;
pub mod clients;
pub mod emit;
pub mod http2;
pub mod machine;
pub mod options;
pub mod peers;
pub mod recording;
pub mod report;
pub mod servers;

/// The median; the upper one of an even number of values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// CPU time per operation in µs.
#[expect(clippy::cast_precision_loss, reason = "less than 2^52 operations")]
pub fn micros(used: std::time::Duration, operations: usize) -> f64 {
    used.as_secs_f64() * 1e6 / operations as f64
}
