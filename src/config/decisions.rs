//! Validates `[decisions]`.

use crate::audit::mask::MaskedField;
use crate::audit::recording::RecordingConfig;
use crate::audit::{AuditConfig, LogTarget};
use crate::config::schema;
use crate::config::validate::{check_share, check_size};
use crate::config::{ConfigError, invalid};

/// Writes to standard output instead of a file.
pub const STDOUT: &str = "stdout";

/// Fields of the decision log that can be masked.
const MASKABLE: [(&str, MaskedField); 3] =
    [("subject", MaskedField::Subject), ("channels", MaskedField::Channels), ("reason", MaskedField::Reason)];

/// Validates `[decisions]`.
pub fn check_decisions(raw: &schema::Decisions) -> Result<AuditConfig, ConfigError> {
    let field = |name: &String| {
        let known = MASKABLE.iter().find(|(known, _)| known == name).map(|(_, field)| *field);
        let names = MASKABLE.map(|(known, _)| known).join(", ");
        known.ok_or_else(|| invalid("decisions.masked-fields", format!("{name:?}: must be one of {names}")))
    };
    let mask = raw.masked_fields.iter().map(field).collect::<Result<_, _>>()?;
    let log = raw.log.as_ref().map(|target| match &**target {
        STDOUT => LogTarget::Stdout,
        path => LogTarget::File(path.into()),
    });
    let (share, limit) = (
        check_share("decisions.recording.share", raw.recording.share)?,
        check_size("decisions.recording.max-size", raw.recording.max_size, 1 << 10, 1 << 40)? as u64,
    );
    if let (Some(LogTarget::File(log)), Some(record)) = (&log, &raw.recording.file)
        && log == record
    {
        return Err(invalid(
            "decisions.recording.file",
            "must not be the file of decisions.log: the recording contains credentials",
        ));
    }
    let record = raw.recording.file.clone().map(|file| RecordingConfig { file, share, limit });
    Ok(AuditConfig { log, masked_fields: mask, recording: record })
}
