//! Helpers that know nothing of the gateway.

pub mod backoff;
pub mod clock;
pub(crate) mod duration;
pub(crate) mod files;
pub(crate) mod fingerprint;
pub mod id;
pub(crate) mod ratio;

#[cfg(test)]
pub(crate) mod golden;
