//! Validates `[fleet]`, and names a node that has no configured name.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::{ConfigError, invalid};
use crate::store::fleet_keys::FleetName;
use crate::util::files;

/// Maximum size of a host name; the kernel accepts 64 bytes.
const MAX_HOST_NAME_BYTES: u64 = 256;

/// Checks the name of a fleet, which is part of its keys in the store.
pub fn parse_fleet_name(name: &str) -> Result<FleetName, ConfigError> {
    name.parse().map_err(|error| invalid("fleet.name", error))
}

/// Validates a node's name, which is part of file names.
pub fn check_node_name(name: String) -> Result<String, ConfigError> {
    if (1..=64).contains(&name.len()) && name.chars().all(is_of_names) {
        return Ok(name);
    }
    Err(invalid("fleet.node-name", format!("{name:?}: must have 1 to 64 letters, digits and -._:[]")))
}

/// The default name of a node: the host name and an address.
pub fn build_node_name(listen: SocketAddr) -> String {
    let host = files::read(Path::new("/proc/sys/kernel/hostname"), MAX_HOST_NAME_BYTES);
    let host = host.ok().and_then(|host| String::from_utf8(host).ok()).or_else(|| std::env::var("HOSTNAME").ok());
    let host: String =
        host.unwrap_or_else(|| "node".into()).trim().chars().filter(|c| is_of_names(*c)).take(40).collect();
    format!("{host}:{listen}").chars().filter(|c| is_of_names(*c)).collect()
}

fn is_of_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._:[]".contains(c)
}
