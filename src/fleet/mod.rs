//! What the nodes on one store tell each other. They share nothing else.

pub mod commands;
pub mod revocation;

use crate::config::Config;

/// The name under which this node speaks to the others: the one that it was given, or its machine's and its port.
#[must_use]
pub fn node_name(config: &Config) -> String {
    let machine = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let machine = || machine().filter(|name| !name.is_empty()).unwrap_or_else(|| "node".into());
    config.node.clone().unwrap_or_else(|| format!("{}:{}", machine(), config.listen.port()))
}
