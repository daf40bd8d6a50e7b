//! Where the policy comes from, what is written down of its decisions, and what a node is in its fleet.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::artifact::signature::key::TrustedKeys;
use crate::audit;
use crate::audit::mask::MaskedField;
use crate::audit::{LogTarget, recording};
use crate::config::raw;
use crate::config::raw::Source;
use crate::config::{ConfigError, size, wrong};
use crate::util::files;

/// Where the policy comes from and what it has to show.
#[derive(Clone, Debug)]
pub struct RolloutConfig {
    /// A file, or the store.
    pub source: Source,
    /// What it has to decide before it takes force; none for the file beside the component.
    pub cases: Option<PathBuf>,
    /// Public keys; with one at least, a policy has to be signed.
    pub trust: Arc<TrustedKeys>,
}

/// A candidate that is asked beside the policy in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShadowConfig {
    /// Its component, if the configuration names one.
    pub file: Option<PathBuf>,
    /// The share of requests, from 0 to 1.
    pub share: f64,
}

/// What is no file, but this program's own output.
pub const STDOUT: &str = "stdout";

/// Fields of the decision log that can be masked.
const MASKABLE: [(&str, MaskedField); 3] =
    [("subject", MaskedField::Subject), ("channels", MaskedField::Channels), ("reason", MaskedField::Reason)];

/// Checks where the policy comes from.
pub fn rollout(raw: &raw::Policy) -> Result<RolloutConfig, ConfigError> {
    Ok(RolloutConfig {
        source: raw.source,
        cases: raw.cases.clone(),
        trust: Arc::new(TrustedKeys::load(&raw.trusted_keys).map_err(|error| wrong("policy.trusted-keys", error))?),
    })
}

/// Checks a time for which something goes on that has begun to end.
pub fn up_to_a_day(key: &str, time: Duration) -> Result<Duration, ConfigError> {
    if time <= Duration::from_secs(86_400) {
        return Ok(time);
    }
    Err(wrong(key, format!("{}: it is at most a day", humantime::format_duration(time))))
}

/// Checks `[policy.shadow]`.
pub fn shadow(raw: &raw::Shadow) -> Result<ShadowConfig, ConfigError> {
    Ok(ShadowConfig { file: raw.file.clone(), share: share("policy.shadow.share", raw.share)? })
}

/// Checks `[decisions]`.
pub fn decisions(raw: &raw::Decisions) -> Result<audit::AuditConfig, ConfigError> {
    let field = |name: &String| {
        let known = MASKABLE.iter().find(|(known, _)| known == name).map(|(_, field)| *field);
        let names = MASKABLE.map(|(known, _)| known).join(", ");
        known.ok_or_else(|| wrong("decisions.mask", format!("{name:?}: it is one of {names}")))
    };
    let mask = raw.mask.iter().map(field).collect::<Result<_, _>>()?;
    let log = raw.log.as_ref().map(|target| match &**target {
        STDOUT => LogTarget::Stdout,
        path => LogTarget::File(path.into()),
    });
    let (share, limit) = (
        share("decisions.record-share", raw.record_share)?,
        size("decisions.record-limit", raw.record_limit, 1 << 10, 1 << 40)? as u64,
    );
    if let (Some(LogTarget::File(log)), Some(record)) = (&log, &raw.record)
        && log == record
    {
        return Err(wrong("decisions.record", "it is the file of decisions.log too; the recording has secrets in it"));
    }
    let record = raw.record.clone().map(|file| recording::RecordingConfig { file, share, limit });
    Ok(audit::AuditConfig { log, mask, record })
}

/// The machine's name with an address, as a node's name.
pub fn default_node(listen: SocketAddr) -> String {
    let host =
        files::read_text(Path::new("/proc/sys/kernel/hostname"), 256).ok().or_else(|| std::env::var("HOSTNAME").ok());
    let host: String =
        host.unwrap_or_else(|| "node".into()).trim().chars().filter(|c| is_of_names(*c)).take(40).collect();
    format!("{host}:{listen}").chars().filter(|c| is_of_names(*c)).collect()
}

fn is_of_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._:[]".contains(c)
}

/// Checks a node's name, which is that of its files too.
pub fn node(name: String) -> Result<String, ConfigError> {
    if (1..=64).contains(&name.len()) && name.chars().all(is_of_names) {
        return Ok(name);
    }
    Err(wrong("fleet.node", format!("{name:?}: it has 1 to 64 letters, digits and -._:[]")))
}

fn share(key: &str, share: f64) -> Result<f64, ConfigError> {
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(wrong(key, format!("{share}: it is from 0 to 1"))) }
}
