//! The options of a bench, after `--`.

use std::time::Duration;

const USAGE: &str = "[<part>…] [--quick] [--write] [--no-peers] [--max=<number>] [--wait=<seconds>]";

/// The command line. Cargo passes `--bench`, which has no effect.
pub struct Options {
    /// The parts to run; all if empty.
    parts: Vec<String>,
    /// Small sizes, few turns and short waits: the figures only show that the bench works.
    pub is_quick: bool,
    /// Whether the tables are written to the documentation.
    pub writes: bool,
    /// Whether peers take part.
    pub has_peers: bool,
    /// Maximum size: streams, or channels.
    max: usize,
    /// The wait before memory is measured, instead of a minute.
    wait: Option<Duration>,
}

impl Options {
    pub fn read(known_parts: &[&str]) -> Self {
        let mut options =
            Self { parts: Vec::new(), is_quick: false, writes: false, has_peers: true, max: usize::MAX, wait: None };
        for argument in std::env::args().skip(1) {
            match argument.split_once('=').unwrap_or((&argument, "")) {
                ("--bench", _) => {}
                ("--quick", _) => options.is_quick = true,
                ("--write", _) => options.writes = true,
                ("--no-peers", _) => options.has_peers = false,
                ("--max", number) => options.max = number.parse().expect("--max=<number>"),
                ("--wait", seconds) => {
                    options.wait = Some(Duration::from_secs(seconds.parse().expect("--wait=<seconds>")));
                }
                (part, _) if known_parts.contains(&part) => options.parts.push(argument),
                _ => panic!("{argument}: {USAGE}; the parts are {}", known_parts.join(", ")),
            }
        }
        options
    }

    pub fn is_selected(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|selected| selected == part)
    }

    /// The first value, or the second one in a quick run.
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }

    /// A size, or the maximum.
    pub fn limit(&self, size: usize) -> usize {
        size.min(self.max)
    }

    /// The wait from the last open to the measurement of memory.
    pub fn memory_wait(&self) -> Duration {
        self.wait.unwrap_or_else(|| self.pick(Duration::from_secs(60), Duration::from_secs(2)))
    }
}
