//! Validates the options of rollout, shadow policy, decision log and fleet.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::artifact::signature::key::TrustedKeys;
use crate::audit;
use crate::audit::mask::MaskedField;
use crate::audit::{LogTarget, recording};
use crate::config::raw;
use crate::config::raw::Source;
use crate::config::{ConfigError, size, wrong};
use crate::store::fleet_keys::FleetName;

/// Where the policy comes from, and what it must pass.
#[derive(Clone, Debug)]
pub struct RolloutConfig {
    /// A file or the store.
    pub source: Source,
    /// Test cases to pass before activation; `None` for the file next to the component.
    pub cases: Option<PathBuf>,
    /// Trusted public keys; if there is one, policies must be signed.
    pub trust: Arc<TrustedKeys>,
}

/// A shadow policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShadowConfig {
    /// Its component, if the configuration names one.
    pub file: Option<PathBuf>,
    /// Share of clients for which it is evaluated, from 0 to 1.
    pub share: f64,
}

/// Writes to standard output instead of a file.
pub const STDOUT: &str = "stdout";

/// Fields of the decision log that can be masked.
const MASKABLE: [(&str, MaskedField); 3] =
    [("subject", MaskedField::Subject), ("channels", MaskedField::Channels), ("reason", MaskedField::Reason)];

/// Validates where the policy comes from.
pub fn rollout(raw: &raw::Policy) -> Result<RolloutConfig, ConfigError> {
    Ok(RolloutConfig {
        source: raw.source,
        cases: raw.cases.clone(),
        trust: Arc::new(TrustedKeys::load(&raw.trusted_keys).map_err(|error| wrong("policy.trusted-keys", error))?),
    })
}

/// Validates the duration of a shutdown or rotation step.
pub fn up_to_a_day(key: &str, time: Duration) -> Result<Duration, ConfigError> {
    if time <= Duration::from_secs(86_400) {
        return Ok(time);
    }
    Err(wrong(key, format!("{}: must be at most a day", humantime::format_duration(time))))
}

/// Validates `[policy.shadow]`.
pub fn shadow(raw: &raw::Shadow) -> Result<ShadowConfig, ConfigError> {
    Ok(ShadowConfig { file: raw.file.clone(), share: share("policy.shadow.share", raw.share)? })
}

/// Validates `[decisions]`.
pub fn decisions(raw: &raw::Decisions) -> Result<audit::AuditConfig, ConfigError> {
    let field = |name: &String| {
        let known = MASKABLE.iter().find(|(known, _)| known == name).map(|(_, field)| *field);
        let names = MASKABLE.map(|(known, _)| known).join(", ");
        known.ok_or_else(|| wrong("decisions.masked-fields", format!("{name:?}: must be one of {names}")))
    };
    let mask = raw.masked_fields.iter().map(field).collect::<Result<_, _>>()?;
    let log = raw.log.as_ref().map(|target| match &**target {
        STDOUT => LogTarget::Stdout,
        path => LogTarget::File(path.into()),
    });
    let (share, limit) = (
        share("decisions.recording.share", raw.recording.share)?,
        size("decisions.recording.max-size", raw.recording.max_size, 1 << 10, 1 << 40)? as u64,
    );
    if let (Some(LogTarget::File(log)), Some(record)) = (&log, &raw.recording.file)
        && log == record
    {
        return Err(wrong(
            "decisions.recording.file",
            "must not be the file of decisions.log: the recording contains credentials",
        ));
    }
    let record = raw.recording.file.clone().map(|file| recording::RecordingConfig { file, share, limit });
    Ok(audit::AuditConfig { log, masked_fields: mask, recording: record })
}

/// The default name of a node: the host name and an address.
pub fn default_node(listen: SocketAddr) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let host: String =
        host.unwrap_or_else(|| "node".into()).trim().chars().filter(|c| is_of_names(*c)).take(40).collect();
    format!("{host}:{listen}").chars().filter(|c| is_of_names(*c)).collect()
}

fn is_of_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._:[]".contains(c)
}

/// Checks the name of a fleet, which is part of its keys in the store.
pub fn fleet_name(name: &str) -> Result<FleetName, ConfigError> {
    name.parse().map_err(|error| wrong("fleet.name", error))
}

/// Validates a node's name, which is part of file names.
pub fn node_name(name: String) -> Result<String, ConfigError> {
    if (1..=64).contains(&name.len()) && name.chars().all(is_of_names) {
        return Ok(name);
    }
    Err(wrong("fleet.node-name", format!("{name:?}: must have 1 to 64 letters, digits and -._:[]")))
}

fn share(key: &str, share: f64) -> Result<f64, ConfigError> {
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(wrong(key, format!("{share}: must be from 0 to 1"))) }
}
