//! The names of a fleet's keys and pub/sub channels in Redis: `tidegate:{<fleet>}:…`.
//!
//! The fleet's name is the hash tag of every key. So all keys are in one slot of a Redis Cluster, and two fleets on one Redis share
//! none. No channel has such a name: `config::channels::ChannelRules` reserves all names that begin with `tidegate:`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::event::StreamId;

/// The prefix of all of Tidegate's own keys and pub/sub channels, in all fleets.
pub const RESERVED_PREFIX: &str = "tidegate:";

const MAX_NAME_BYTES: usize = 64;

/// The name of a fleet: 1 to 64 letters, digits, `-`, `_` and `.`. A brace would end the hash tag of its keys early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetName(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid fleet name: expected 1 to 64 letters, digits and -_.")]
pub struct InvalidFleetName;

impl FromStr for FleetName {
    type Err = InvalidFleetName;

    fn from_str(text: &str) -> Result<Self, InvalidFleetName> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_valid) {
            return Ok(Self(text.into()));
        }
        Err(InvalidFleetName)
    }
}

impl Default for FleetName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for FleetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Builds the names of one fleet's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetKeys {
    /// `tidegate:{<fleet>}:`
    prefix: Arc<str>,
}

impl Default for FleetKeys {
    fn default() -> Self {
        Self::new(&FleetName::default())
    }
}

impl FleetKeys {
    pub fn new(fleet: &FleetName) -> Self {
        Self { prefix: format!("{RESERVED_PREFIX}{{{fleet}}}:").into() }
    }

    fn key(&self, rest: impl fmt::Display) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// Stream of the commands to all nodes; its pub/sub channel has the same name.
    pub fn commands(&self) -> String {
        self.key("commands")
    }

    /// Pub/sub channel on which one process proves that it gets messages.
    pub fn canary(&self, process: &str) -> String {
        self.key(format_args!("canary:{process}"))
    }

    /// Stream of the nodes' replies to one command.
    pub fn command_replies(&self, command: StreamId) -> String {
        self.key(format_args!("commands:replies:{command}"))
    }

    /// Hash of the active revocations, by id.
    pub fn revocations(&self) -> String {
        self.key("revocations")
    }

    /// Sorted set of the nodes' names, by the time of their last heartbeat.
    pub fn nodes(&self) -> String {
        self.key("nodes")
    }

    /// String with one node's status, written by its heartbeat.
    pub fn node_status(&self, node: &str) -> String {
        self.key(format_args!("nodes:status:{node}"))
    }

    /// String with the record of the active policy.
    pub fn active_policy(&self) -> String {
        self.key("policy:active")
    }

    /// String with the record of the policy that nodes prepare during a push.
    pub fn pending_policy(&self) -> String {
        self.key("policy:pending")
    }

    /// String with the record of the shadow policy.
    pub fn shadow_policy(&self) -> String {
        self.key("policy:shadow")
    }

    /// List of the active records so far, latest first.
    pub fn policy_history(&self) -> String {
        self.key("policy:history")
    }

    /// String with a component or its test cases, by its SHA-256 in hexadecimal digits.
    pub fn policy_blob(&self, hex: &str) -> String {
        self.key(format_args!("policy:blobs:{hex}"))
    }

    /// Hash of the nodes' reports about one push, by node name.
    pub fn prepare_reports(&self, push: &str) -> String {
        self.key(format_args!("policy:prepared:{push}"))
    }

    /// Pub/sub channel for changes of the active, pending or shadow record. It is not a key.
    pub fn policy_changed(&self) -> String {
        self.key("policy:changed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::golden::golden;

    #[test]
    fn golden_keys() {
        let keys = FleetKeys::default();
        let names = [
            keys.commands(),
            keys.command_replies(StreamId::new(1_764_043_392_123, 0)),
            keys.revocations(),
            keys.nodes(),
            keys.node_status("gateway-1:8080"),
            keys.active_policy(),
            keys.pending_policy(),
            keys.shadow_policy(),
            keys.policy_history(),
            keys.policy_blob("9f2c…"),
            keys.prepare_reports("5f0c2a9e41b7d608"),
            keys.policy_changed(),
            keys.canary("0123456789abcdef"),
        ];
        for name in &names {
            assert!(name.starts_with("tidegate:{default}:"), "{name}");
        }
        golden("redis-keys.txt", &(names.join("\n") + "\n"));
    }

    #[test]
    fn fleet_names_have_no_braces_and_no_separators() {
        for name in ["default", "a", "eu-west_1.blue", &"x".repeat(64)] {
            assert_eq!(name.parse::<FleetName>().map(|parsed| parsed.to_string()), Ok(name.to_owned()));
        }
        for name in ["", "a}b", "{a}", "a:b", "a b", "ä", "a\n", &"x".repeat(65)] {
            assert_eq!(name.parse::<FleetName>(), Err(InvalidFleetName), "{name}");
        }
    }
}
