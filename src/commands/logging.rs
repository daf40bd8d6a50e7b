//! The log goes to standard error, so that standard output has the command's own output only.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::audit::writer::{LineCounters, LineWriter, QueuedLine};
use crate::config::schema::LogFormat;
use crate::config::validate::parse_log_filter;

/// Time to write the last lines at the end of the process, if the reader of standard error has stalled.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// What a line needs in the queue in addition to its text.
const LINE_OVERHEAD_BYTES: usize = 64;

/// Changes the filter of a log that was started.
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    /// The lines of the log.
    pub counters: Arc<LineCounters>,
}

/// Starts logging; dropping the guard writes the remaining lines. A second call changes nothing.
pub fn init(filter: &str, format: LogFormat) -> anyhow::Result<(LogHandle, LogGuard)> {
    // Logging never blocks: a reader that stalls loses lines, and delays no stream.
    let counters = Arc::<LineCounters>::default();
    let lines = LineWriter::start("log", Box::new(io::stderr()), Arc::clone(&counters));
    let writer = LogWriter(Arc::new(lines.context("cannot start the thread that writes the log")?));
    let guard = LogGuard(writer.clone());
    let (filter, handle) = reload::Layer::new(parse_log_filter(filter)?);
    let lines = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(writer);
    let lines = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // An error means that the process has a log already, as in tests.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Ok((LogHandle { filter: handle, counters }, guard))
}

/// Writes the remaining lines when it is dropped.
pub struct LogGuard(LogWriter);

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.0.flush(Instant::now() + FLUSH_TIMEOUT);
    }
}

#[derive(Clone)]
struct LogWriter(Arc<LineWriter<LogLine>>);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = EventWriter<'a>;

    fn make_writer(&'a self) -> EventWriter<'a> {
        EventWriter { lines: &self.0, text: Vec::new() }
    }
}

/// Queues the text of one event as one line.
struct EventWriter<'a> {
    lines: &'a LineWriter<LogLine>,
    text: Vec<u8>,
}

impl Write for EventWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for EventWriter<'_> {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.lines.push(LogLine(std::mem::take(&mut self.text)));
        }
    }
}

struct LogLine(Vec<u8>);

impl QueuedLine for LogLine {
    fn size(&self) -> usize {
        self.0.capacity() + LINE_OVERHEAD_BYTES
    }

    fn write(self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.0);
    }

    fn dropped(lines: u64) -> String {
        format!("tidegate: {lines} lines of the log were dropped: standard error is not read fast enough")
    }
}

impl LogHandle {
    pub fn set(&self, filter: &str) {
        let set = parse_log_filter(filter).map_err(|error| error.to_string());
        match set.and_then(|filter| self.filter.reload(filter).map_err(|error| error.to_string())) {
            Ok(()) => tracing::info!(filter, "log filter changed"),
            Err(error) => tracing::error!(error, "log.filter is invalid; the log filter is unchanged"),
        }
    }
}
