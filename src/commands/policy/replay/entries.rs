//! Reads a recording, which may be long, cut off, or something else altogether.

use std::io::{self, BufRead, Read};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::audit::recording::{FORMAT, RecordedDecision};
use crate::policy::Request;
use crate::policy::decision_view::DecisionView;
use crate::wasm::host_trace::HostTrace;

/// A longer line is none of a recording: a head, an answer and what was looked up are not so large by default.
const LONGEST: usize = 64 << 20;

/// What was asked, in which world, and what the answer was.
pub struct Question {
    pub time: String,
    pub policy: String,
    pub request: Request,
    pub channels: Vec<String>,
    pub trace: HostTrace,
    pub answer: DecisionView,
}

/// A line of a recording.
pub enum Line {
    Question(Box<Question>),
    /// So many decisions were to be recorded here and were not.
    Dropped(u64),
    /// It is something else; why.
    Foreign(String),
}

/// The lines of a recording, one after the other.
pub struct Entries<R> {
    from: R,
    line: Vec<u8>,
}

impl<R: BufRead> Entries<R> {
    pub fn new(from: R) -> Self {
        Self { from, line: Vec::new() }
    }

    fn read(&mut self) -> io::Result<Option<Line>> {
        self.line.clear();
        let most = LONGEST as u64 + 1;
        if self.from.by_ref().take(most).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        let is_whole = self.line.last() == Some(&b'\n');
        if !is_whole && self.line.len() > LONGEST {
            self.line = Vec::new();
            self.skip()?;
            return Ok(Some(Line::Foreign(format!("a line of more than {LONGEST} bytes"))));
        }
        Ok(Some(parse(&self.line).unwrap_or_else(|why| {
            Line::Foreign(if is_whole { why } else { "the recording is cut off within this line".into() })
        })))
    }

    /// Reads to the end of the line.
    fn skip(&mut self) -> io::Result<()> {
        loop {
            let read = self.from.fill_buf()?;
            let (length, found) = match read.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (read.len(), read.is_empty()),
            };
            self.from.consume(length);
            if found {
                return Ok(());
            }
        }
    }
}

impl<R: BufRead> Iterator for Entries<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// What tells lines apart, before they are read as what they are.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Head {
    recording: Option<u32>,
    dropped: Option<u64>,
}

fn parse(line: &[u8]) -> Result<Line, String> {
    if line.trim_ascii().is_empty() {
        return Err("an empty line".into());
    }
    let head: Head = serde_json::from_slice(line).map_err(|error| no_json(&error))?;
    match head {
        Head { recording: None, .. } => return Err("no line of a recording: it has no \"recording\"".into()),
        Head { recording: Some(format), .. } if format != FORMAT => {
            return Err(format!("a recording in the form {format}; this program reads {FORMAT}"));
        }
        Head { dropped: Some(lines), .. } => return Ok(Line::Dropped(lines)),
        Head { .. } => {}
    }
    let entry: RecordedDecision = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let answer = answer(&entry.answer)?;
    let mut trace = HostTrace::new(entry.now);
    trace.sent_requests = entry.network;
    trace.calls = entry.calls;
    Ok(Line::Question(Box::new(Question {
        time: entry.time,
        policy: entry.policy,
        request: entry.request.try_into()?,
        channels: entry.channels,
        trace,
        answer,
    })))
}

fn answer(fields: &Map<String, Value>) -> Result<DecisionView, String> {
    let answer = DecisionView::from_json(fields);
    match answer.kind() {
        Some("allow" | "status" | "error") => Ok(answer),
        _ => Err("its answer is none: there is neither allow nor status nor error".into()),
    }
}

fn no_json(error: &serde_json::Error) -> String {
    if error.is_data() { format!("no line of a recording: {error}") } else { format!("no JSON: {error}") }
}
