//! The log goes to standard error, so that standard output has the command's own output only.

use std::io::{BufWriter, IsTerminal};

use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::ConfigError;
use crate::config::schema::LogFormat;
use crate::config::validate::parse_log_filter;

/// Lines are collected up to this size and written together.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// Changes the filter of a log that was started.
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

/// Starts logging; dropping the guard writes the remaining lines. A second call changes nothing.
pub fn init(filter: &str, format: LogFormat) -> Result<(LogHandle, WorkerGuard), ConfigError> {
    // Logging never blocks: a reader that stalls loses lines and delays no stream. The writer thread flushes when its queue is empty, so
    // that queued lines are written together.
    let (writer, guard) = NonBlocking::new(BufWriter::with_capacity(WRITE_BUFFER_BYTES, std::io::stderr()));
    let (filter, handle) = reload::Layer::new(parse_log_filter(filter)?);
    let lines = fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // An error means that the process has a log already, as in tests.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok((LogHandle(handle), guard))
}

impl LogHandle {
    pub fn set(&self, filter: &str) {
        let set = parse_log_filter(filter).map_err(|error| error.to_string());
        match set.and_then(|filter| self.0.reload(filter).map_err(|error| error.to_string())) {
            Ok(()) => tracing::info!(filter, "log filter changed"),
            Err(error) => tracing::error!(error, "log.filter is invalid; the log filter is unchanged"),
        }
    }
}
