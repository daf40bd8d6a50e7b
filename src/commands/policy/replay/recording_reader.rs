//! Reads a recording, which may be large, truncated, or a file of another kind.

use std::io::{self, BufRead, Read};

use serde::Deserialize;

use crate::audit::recording::{FORMAT, RecordedDecision};
use crate::policy::Request;
use crate::policy::decision_view::DecisionView;
use crate::wasm::host_trace::HostTrace;

/// A longer line is not part of a recording: by default a request, a decision and its look-ups are smaller.
const MAX_LINE_BYTES: usize = 64 << 20;

/// A recorded decision with its request and the calls that it made.
pub struct RecordedCase {
    pub time: String,
    pub policy: String,
    pub request: Request,
    pub channels: Vec<String>,
    pub trace: HostTrace,
    pub answer: DecisionView,
}

/// A line of a recording.
pub enum Line {
    Case(Box<RecordedCase>),
    /// This number of decisions was not recorded here.
    Dropped(u64),
    /// Not part of a recording, with the reason.
    Unreadable(String),
}

/// The lines of a recording.
pub fn read_lines<R: BufRead>(mut from: R) -> impl Iterator<Item = io::Result<Line>> {
    std::iter::from_fn(move || read_line(&mut from).transpose())
}

fn read_line<R: BufRead>(from: &mut R) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    if from.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let is_complete = line.last() == Some(&b'\n');
    if !is_complete && line.len() > MAX_LINE_BYTES {
        from.skip_until(b'\n')?;
        return Ok(Some(Line::Unreadable(format!("the line has more than {MAX_LINE_BYTES} bytes"))));
    }
    Ok(Some(parse(&line).unwrap_or_else(|reason| {
        Line::Unreadable(if is_complete { reason } else { "the recording ends within this line".into() })
    })))
}

/// The fields that tell the kinds of lines apart.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct LineKind {
    recording: Option<u32>,
    dropped: Option<u64>,
}

fn parse(line: &[u8]) -> Result<Line, String> {
    if line.trim_ascii().is_empty() {
        return Err("the line is empty".into());
    }
    let kind: LineKind = serde_json::from_slice(line).map_err(|error| {
        let problem = if error.is_data() { "not a line of a recording" } else { "not JSON" };
        format!("{problem}: {error}")
    })?;
    let format = kind.recording.ok_or("not a line of a recording: the field \"recording\" is missing")?;
    if format != FORMAT {
        return Err(format!("the recording has format {format}; this program reads format {FORMAT}"));
    }
    if let Some(lines) = kind.dropped {
        return Ok(Line::Dropped(lines));
    }
    let entry: RecordedDecision = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let answer = DecisionView::from_json(&entry.answer);
    if !matches!(answer.kind(), Some("allow" | "status" | "error")) {
        return Err("the answer has neither allow nor status nor error".into());
    }
    let RecordedDecision { time, policy, request, channels, trace, .. } = entry;
    Ok(Line::Case(Box::new(RecordedCase { time, policy, request, channels, trace, answer })))
}
