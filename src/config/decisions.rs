//! Validates `[decisions]`.

use crate::audit::recording::RecordingConfig;
use crate::audit::{AuditConfig, LogTarget};
use crate::config::validate::{check_range, check_size};
use crate::config::{ConfigError, invalid, schema};

/// The value of `decisions.log` for standard output instead of a file.
pub const STDOUT: &str = "stdout";

pub fn check_decisions(raw: &schema::Decisions) -> Result<AuditConfig, ConfigError> {
    let log = raw.log.as_ref().map(|target| match &**target {
        STDOUT => LogTarget::Stdout,
        path => LogTarget::File(path.into()),
    });
    let share = check_range("decisions.recording.share", raw.recording.share, 0.0, 1.0)?;
    let limit = check_size("decisions.recording.max-size", raw.recording.max_size, 1 << 10, 1 << 40)? as u64;
    if log.is_some() && log == raw.recording.file.clone().map(LogTarget::File) {
        return Err(invalid(
            "decisions.recording.file",
            "must not be the file of decisions.log: the recording contains credentials",
        ));
    }
    let recording = raw.recording.file.clone().map(|file| RecordingConfig { file, share, limit });
    Ok(AuditConfig { log, masked_fields: raw.masked_fields.clone(), recording })
}
