//! What the benches of streams share: the machine, the servers, their clients and their emitters.

pub mod baseline;
pub mod clients;
pub mod emit;
pub mod machine;
pub mod servers;

/// The median; the upper one of an even number of values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
