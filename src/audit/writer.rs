//! Lines on their way to a file: a bounded queue that nobody waits for, and a thread that writes.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Lines that wait, and their bytes: what is told while a disk stalls for a second or two. The rest is dropped and counted.
const LINES: usize = 16_384;
const BYTES: usize = 8 << 20;
/// What is written at once.
const BATCH: usize = 256 << 10;
/// Between two looks at a queue that is full.
const PAUSE: Duration = Duration::from_millis(5);

/// What becomes a line.
pub trait Line: Send + 'static {
    /// The bytes that it takes while it waits, about.
    fn size(&self) -> usize;
    /// The line, with its end.
    fn write(self, to: &mut Vec<u8>);
}

/// Where lines go.
pub trait Sink: Send + 'static {
    /// Writes whole lines, from the first on. Returns the bytes of those that it accepted.
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

/// What became of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Written.
    pub written: u64,
    /// Dropped, since there was no room in the queue or none on the disk.
    pub dropped: u64,
}

/// The way to a file.
pub struct LineWriter<T> {
    queue: SyncSender<Message<T>>,
    tally: Arc<LineCounters>,
}

enum Message<T> {
    Line(T),
    Flush(SyncSender<()>),
}

/// What is counted of lines, over all files that they went to one after the other.
#[derive(Default)]
pub struct LineCounters {
    waiting: AtomicUsize,
    written: AtomicU64,
    dropped: AtomicU64,
    /// Of those that were dropped, what no line told of yet.
    unsaid: AtomicU64,
}

impl LineCounters {
    /// What became of lines by now.
    pub fn counts(&self) -> LineCounts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LineCounts { written: load(&self.written), dropped: load(&self.dropped) }
    }

    fn drop_lines(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        self.unsaid.fetch_add(lines, Ordering::Relaxed);
    }
}

impl<T: Line> LineWriter<T> {
    /// Starts a thread of this name that writes there. `gap` is the line that tells of so many that were dropped.
    pub fn start(name: &str, sink: impl Sink, gap: fn(u64) -> String, tally: Arc<LineCounters>) -> io::Result<Self> {
        let (queue, receiver) = sync_channel(LINES);
        let writer = Writer { receiver, tally: Arc::clone(&tally), sink, gap, name: name.to_owned(), failing: false };
        std::thread::Builder::new().name(name.into()).spawn(move || writer.run())?;
        Ok(Self { queue, tally })
    }

    /// Takes a line, or drops it where there is no room.
    pub fn push(&self, line: T) {
        let size = line.size();
        if self.tally.waiting.fetch_add(size, Ordering::Relaxed) + size > BYTES
            || self.queue.try_send(Message::Line(line)).is_err()
        {
            self.tally.waiting.fetch_sub(size, Ordering::Relaxed);
            self.tally.drop_lines(1);
        }
    }

    /// Waits until what was taken by now is written, or until then.
    pub fn flush(&self, until: Instant) {
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        loop {
            match self.queue.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(again)) if Instant::now() < until => message = again,
                Err(_) => return,
            }
            std::thread::sleep(PAUSE);
        }
        let _ = written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

struct Writer<T, S> {
    receiver: Receiver<Message<T>>,
    tally: Arc<LineCounters>,
    sink: S,
    gap: fn(u64) -> String,
    name: String,
    failing: bool,
}

impl<T: Line, S: Sink> Writer<T, S> {
    fn run(mut self) {
        let mut batch = Vec::new();
        while let Ok(first) = self.receiver.recv() {
            let (mut next, mut size, mut lines, mut flushed) = (Some(first), 0, 0, None);
            let gap = self.tally.unsaid.swap(0, Ordering::Relaxed);
            if gap > 0 {
                batch.extend_from_slice((self.gap)(gap).as_bytes());
                batch.push(b'\n');
            }
            while let Some(message) = next.take() {
                match message {
                    Message::Line(line) => {
                        size += line.size();
                        lines += 1;
                        line.write(&mut batch);
                    }
                    Message::Flush(done) => {
                        flushed = Some(done);
                        break;
                    }
                }
                if batch.len() < BATCH {
                    next = self.receiver.try_recv().ok();
                }
            }
            self.write(&batch, lines, gap);
            batch.clear();
            batch.shrink_to(BATCH);
            self.tally.waiting.fetch_sub(size, Ordering::Relaxed);
            if let Some(done) = flushed {
                // Who waited for it may have given up.
                let _ = done.try_send(());
            }
        }
    }

    fn write(&mut self, batch: &[u8], lines: u64, gap: u64) {
        if batch.is_empty() {
            return;
        }
        let result = self.sink.write(batch);
        match &result {
            Ok(accepted) => {
                // Each line has one newline, at its end. The first line may be the one about dropped lines.
                let accepted = batch[..*accepted].iter().filter(|byte| **byte == b'\n').count() as u64;
                let written = accepted.saturating_sub(u64::from(gap > 0));
                self.tally.written.fetch_add(written, Ordering::Relaxed);
                // No line about these follows: a sink that refuses lines without an error takes no more.
                self.tally.dropped.fetch_add(lines - written, Ordering::Relaxed);
            }
            Err(error) => {
                self.tally.drop_lines(lines);
                self.tally.unsaid.fetch_add(gap, Ordering::Relaxed);
                if !self.failing {
                    tracing::error!(what = self.name, %error, "cannot be written; decisions are made as before, their lines are lost");
                }
            }
        }
        if self.failing && result.is_ok() {
            tracing::info!(what = self.name, "is written again");
        }
        self.failing = result.is_err();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Number(usize);

    impl Line for Number {
        fn size(&self) -> usize {
            1024
        }

        fn write(self, to: &mut Vec<u8>) {
            to.extend_from_slice(format!("{}\n", self.0).as_bytes());
        }
    }

    /// Writes as long as it may; errors are said.
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
        let sink = Gated(Arc::clone(&written), opened);
        let lines = LineWriter::start("test", sink, |n| format!("dropped {n}"), Arc::default());
        (lines.expect("a thread"), written, open)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_sink_that_stalls_costs_lines_and_says_so() {
        let (lines, written, open) = gated();
        let most = BYTES / 1024;
        for number in 0..most + 10 {
            lines.push(Number(number));
        }
        assert_eq!(lines.tally.counts(), LineCounts { written: 0, dropped: 10 });
        drop(open);
        lines.flush(soon());
        lines.push(Number(7));
        lines.flush(soon());
        let text = String::from_utf8(written.lock().expect("no panic").clone()).expect("text");
        assert!(text.contains("dropped 10\n"), "{}", &text[text.len() - 100..]);
        assert_eq!(text.lines().count(), most + 2);
        assert_eq!(lines.tally.counts(), LineCounts { written: most as u64 + 1, dropped: 10 });
    }

    #[test]
    fn a_full_disk_costs_lines_until_there_is_room() {
        let (lines, written, open) = gated();
        open.send(false).expect("it runs");
        lines.push(Number(1));
        lines.flush(soon());
        assert_eq!(lines.tally.counts(), LineCounts { written: 0, dropped: 1 });
        drop(open);
        lines.push(Number(2));
        lines.flush(soon());
        assert_eq!(*written.lock().expect("no panic"), b"dropped 1\n2\n");
    }
}
