//! Helpers that know nothing of the gateway.

pub(crate) mod allocation;
pub mod backoff;
pub mod client_key;
pub mod client_shares;
pub mod clock;
pub mod descriptors;
pub(crate) mod duration;
pub mod fair_queue;
pub(crate) mod files;
pub(crate) mod fingerprint;
pub(crate) mod hex;
pub(crate) mod hidden;
pub mod id;
pub(crate) mod named;
pub(crate) mod printable;
pub(crate) mod private_dir;
pub(crate) mod rare_log;
pub(crate) mod ratio;
pub(crate) mod scheduling;
pub mod shares;
pub mod stringify;

#[cfg(test)]
pub(crate) mod golden;
