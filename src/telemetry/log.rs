//! The log: to stderr, so that stdout is a program's own answer.

use std::io::{BufWriter, IsTerminal};

use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Error;

use crate::config::ConfigError;
use crate::config::check::log_filter;
use crate::config::raw::LogFormat;

/// Bytes of lines that are written at once.
const TOGETHER: usize = 16 << 10;

/// A log that was started, for whoever wants to see something else of it.
pub struct Log(Box<dyn Fn(EnvFilter) -> Result<(), Error> + Send + Sync>);

/// Starts logging; dropping the guard writes what is left. A second call changes nothing.
pub fn init(filter: &str, format: LogFormat) -> Result<(Log, WorkerGuard), ConfigError> {
    // A reader of the log that stalls costs lines, never a stream. What waits is written in one go: the writer's thread flushes when
    // nothing waits any more.
    let (writer, guard) = NonBlocking::new(BufWriter::with_capacity(TOGETHER, std::io::stderr()));
    let ansi = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(log_filter(filter)?).with_ansi(ansi).with_writer(writer);
    // An error of `try_init` means that a log is there already, as in tests.
    let log = match format {
        LogFormat::Text => {
            let builder = builder.with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Log(Box::new(move |filter| handle.reload(filter)))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Log(Box::new(move |filter| handle.reload(filter)))
        }
    };
    Ok((log, guard))
}

impl Log {
    /// Logs what another filter lets in from now on.
    pub fn set(&self, filter: &str) {
        let set = log_filter(filter).map_err(|error| error.to_string());
        match set.and_then(|filter| (self.0)(filter).map_err(|error| error.to_string())) {
            Ok(()) => tracing::info!(filter, "what is logged is another now"),
            Err(error) => tracing::error!(error, "log.filter: what is logged stays as it was"),
        }
    }
}
