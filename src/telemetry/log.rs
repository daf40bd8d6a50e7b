//! The log: to stderr, so that stdout is a program's own answer.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::raw::LogFormat;

/// Starts logging; dropping the guard writes what is left. A second call changes nothing.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<WorkerGuard> {
    let filter =
        EnvFilter::try_new(filter).context("log.filter: expected something like info or warn,tidegate=debug")?;
    // A reader of the log that stalls costs lines, never a stream.
    let (writer, guard) = NonBlocking::new(std::io::stderr());
    let ansi = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(writer);
    // An error means that a log is there already, as in tests.
    let _ = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(guard)
}
