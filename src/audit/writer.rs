//! Writes lines on a thread of its own: of the decision log, the recording and the log. The queue is bounded; a line that does not fit is
//! dropped and counted, so that nothing waits for a disk or a terminal.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use crate::audit::reopening_file::ReopeningFile;

/// Bounds of the queue: enough for a disk that stalls for a second or two.
const MAX_QUEUED_LINES: usize = 16_384;
const MAX_QUEUED_BYTES: usize = 8 << 20;
/// Lines are written in batches of about this size.
const BATCH_BYTES: usize = 256 << 10;
/// How often `flush` tries to enter a full queue.
const FLUSH_POLL_INTERVAL: Duration = Duration::from_millis(5);

pub trait QueuedLine: Send + 'static {
    /// Approximate bytes in the queue.
    fn size(&self) -> usize;
    /// Appends the line with its newline.
    fn write(self, to: &mut Vec<u8>);
    /// The line that reports a number of dropped lines, without a newline.
    fn dropped(lines: u64) -> String;
}

/// Where lines are written.
pub trait Sink: Send + 'static {
    /// Writes whole lines, from the first on. Returns the bytes of the lines that it accepted.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize>;
}

impl Sink for io::Stdout {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut out = self.lock();
        out.write_all(lines)?;
        out.flush()?;
        Ok(lines.len())
    }
}

impl Sink for io::Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.lock().write_all(lines)?;
        Ok(lines.len())
    }
}

impl Sink for ReopeningFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.reopen_if_moved()?;
        self.append(lines)?;
        Ok(lines.len())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    pub written: u64,
    /// The queue was full, the write failed, or the sink accepts no more lines.
    pub dropped: u64,
}

/// Queues lines for a writer thread.
pub struct LineWriter<T> {
    queue: SyncSender<Message<T>>,
    counters: Arc<LineCounters>,
}

enum Message<T> {
    QueuedLine(T),
    /// Answered when all lines before it are written.
    Flush(SyncSender<()>),
}

/// Counts lines. Successive writers of one log share the counters.
#[derive(Default)]
pub struct LineCounters {
    queued_bytes: AtomicUsize,
    written: AtomicU64,
    dropped: AtomicU64,
    /// Dropped lines that no line reports yet.
    unreported: AtomicU64,
}

impl LineCounters {
    pub fn counts(&self) -> LineCounts {
        LineCounts { written: self.written.load(Ordering::Relaxed), dropped: self.dropped.load(Ordering::Relaxed) }
    }

    fn drop_lines(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        self.unreported.fetch_add(lines, Ordering::Relaxed);
    }
}

impl<T: QueuedLine> LineWriter<T> {
    /// Starts a thread with this name.
    pub fn start(name: &'static str, sink: Box<dyn Sink>, counters: Arc<LineCounters>) -> io::Result<Self> {
        let (queue, receiver) = sync_channel(MAX_QUEUED_LINES);
        let writer = Writer { receiver, counters: Arc::clone(&counters), sink, name, failing: false };
        std::thread::Builder::new().name(name.into()).spawn(move || writer.run())?;
        Ok(Self { queue, counters })
    }

    /// Queues a line, or drops it if the queue is full.
    pub fn push(&self, line: T) {
        let size = line.size();
        if self.counters.queued_bytes.fetch_add(size, Ordering::Relaxed) + size > MAX_QUEUED_BYTES
            || self.queue.try_send(Message::QueuedLine(line)).is_err()
        {
            self.counters.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            self.counters.drop_lines(1);
        }
    }

    /// Waits until all lines that are queued now are written, at most until the deadline.
    pub fn flush(&self, deadline: Instant) {
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        loop {
            match self.queue.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(again)) if Instant::now() < deadline => message = again,
                Err(_) => return,
            }
            std::thread::sleep(FLUSH_POLL_INTERVAL);
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

struct Writer<T> {
    receiver: Receiver<Message<T>>,
    counters: Arc<LineCounters>,
    sink: Box<dyn Sink>,
    name: &'static str,
    failing: bool,
}

impl<T: QueuedLine> Writer<T> {
    fn run(mut self) {
        let mut batch = Vec::new();
        while let Ok(first) = self.receiver.recv() {
            let (mut size, mut lines, mut flushed) = (0, 0, None);
            let unreported = self.counters.unreported.swap(0, Ordering::Relaxed);
            if unreported > 0 {
                batch.extend_from_slice(T::dropped(unreported).as_bytes());
                batch.push(b'\n');
            }
            for message in std::iter::once(first).chain(self.receiver.try_iter()) {
                match message {
                    Message::QueuedLine(line) => {
                        size += line.size();
                        lines += 1;
                        line.write(&mut batch);
                    }
                    Message::Flush(done) => flushed = Some(done),
                }
                if flushed.is_some() || batch.len() >= BATCH_BYTES {
                    break;
                }
            }
            self.write(&batch, lines, unreported);
            batch.clear();
            batch.shrink_to(BATCH_BYTES);
            self.counters.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            if let Some(done) = flushed {
                // Fails if `flush` has timed out.
                let _ = done.try_send(());
            }
        }
    }

    /// Writes a batch of `lines` lines, after one that reports `unreported` dropped lines, if there are any.
    fn write(&mut self, batch: &[u8], lines: u64, unreported: u64) {
        if batch.is_empty() {
            return;
        }
        match self.sink.write(batch) {
            Ok(accepted) => {
                let written = if accepted == batch.len() {
                    lines
                } else {
                    // A sink that accepts a part is a recording, whose lines have exactly one newline.
                    let accepted = batch[..accepted].iter().filter(|byte| **byte == b'\n').count() as u64;
                    accepted.saturating_sub(u64::from(unreported > 0))
                };
                self.counters.written.fetch_add(written, Ordering::Relaxed);
                // These are not reported in a line: a sink that refuses lines without an error accepts no more.
                self.counters.dropped.fetch_add(lines.saturating_sub(written), Ordering::Relaxed);
                if std::mem::take(&mut self.failing) {
                    tracing::info!(what = self.name, "lines are written again");
                }
            }
            Err(error) => {
                self.counters.drop_lines(lines);
                self.counters.unreported.fetch_add(unreported, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(what = self.name, %error, "cannot write lines: they are dropped until a write succeeds");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Number(usize);

    impl QueuedLine for Number {
        fn size(&self) -> usize {
            1024
        }

        fn write(self, to: &mut Vec<u8>) {
            to.extend_from_slice(format!("{}\n", self.0).as_bytes());
        }

        fn dropped(lines: u64) -> String {
            format!("dropped {lines}")
        }
    }

    /// Each write waits for permission; `false` makes it fail.
    struct Gated(Arc<Mutex<Vec<u8>>>, Receiver<bool>);

    impl Sink for Gated {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            if self.1.recv().unwrap_or(true) {
                self.0.lock().expect("no panic").extend_from_slice(lines);
                return Ok(lines.len());
            }
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
    }

    fn gated() -> (LineWriter<Number>, Arc<Mutex<Vec<u8>>>, SyncSender<bool>) {
        let (open, opened) = sync_channel(100);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let sink = Box::new(Gated(Arc::clone(&written), opened));
        let lines = LineWriter::start("test", sink, Arc::default());
        (lines.expect("a thread"), written, open)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn lines_beyond_a_full_queue_are_dropped_and_reported() {
        let (lines, written, open) = gated();
        let capacity = MAX_QUEUED_BYTES / 1024;
        for number in 0..capacity + 10 {
            lines.push(Number(number));
        }
        assert_eq!(lines.counters.counts(), LineCounts { written: 0, dropped: 10 });
        drop(open);
        lines.flush(soon());
        lines.push(Number(7));
        lines.flush(soon());
        let text = String::from_utf8(written.lock().expect("no panic").clone()).expect("text");
        assert!(text.contains("dropped 10\n"), "{}", &text[text.len() - 100..]);
        assert_eq!(text.lines().count(), capacity + 2);
        assert_eq!(lines.counters.counts(), LineCounts { written: capacity as u64 + 1, dropped: 10 });
    }

    #[test]
    fn lines_of_a_failed_write_are_dropped_and_reported_later() {
        let (lines, written, open) = gated();
        open.send(false).expect("it runs");
        lines.push(Number(1));
        lines.flush(soon());
        assert_eq!(lines.counters.counts(), LineCounts { written: 0, dropped: 1 });
        drop(open);
        lines.push(Number(2));
        lines.flush(soon());
        assert_eq!(*written.lock().expect("no panic"), b"dropped 1\n2\n");
    }
}
