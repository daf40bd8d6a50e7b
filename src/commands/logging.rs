//! The log goes to standard error, so that standard output has the command's own output only.

use std::io::{BufWriter, IsTerminal};

use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Error;

use crate::config::ConfigError;
use crate::config::schema::LogFormat;
use crate::config::validate::parse_log_filter;

/// Lines are collected up to this size and written together.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// Changes the filter of a log that was started.
pub struct LogHandle(Box<dyn Fn(EnvFilter) -> Result<(), Error> + Send + Sync>);

/// Starts logging; dropping the guard writes what is left. A second call changes nothing.
pub fn init(filter: &str, format: LogFormat) -> Result<(LogHandle, WorkerGuard), ConfigError> {
    // Logging never blocks: a reader that stalls loses lines and delays no stream. The writer thread flushes when its queue is empty, so
    // that queued lines are written together.
    let (writer, guard) = NonBlocking::new(BufWriter::with_capacity(WRITE_BUFFER_BYTES, std::io::stderr()));
    let ansi = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_env_filter(parse_log_filter(filter)?).with_ansi(ansi).with_writer(writer);
    // An error of `try_init` means that the process has a log already, as in tests.
    let log = match format {
        LogFormat::Text => {
            let builder = builder.with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            LogHandle(Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            LogHandle(Box::new(move |filter| handle.reload(filter)))
        }
    };
    Ok((log, guard))
}

impl LogHandle {
    /// Replaces the filter.
    pub fn set(&self, filter: &str) {
        let set = parse_log_filter(filter).map_err(|error| error.to_string());
        match set.and_then(|filter| (self.0)(filter).map_err(|error| error.to_string())) {
            Ok(()) => tracing::info!(filter, "log filter changed"),
            Err(error) => tracing::error!(error, "log.filter is invalid; the log filter is unchanged"),
        }
    }
}
