//! The decision log: one line of JSON per decision.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use crate::audit::mask::{FieldMask, MaskedField};
use crate::audit::reopening_file::{ReopeningFile, open_for_append};
use crate::audit::summary::{DecisionSummary, strings_size};
use crate::audit::writer::{Line, LineCounters, LineWriter, Sink};
use crate::audit::{LogTarget, OpenError, rfc3339};
use crate::authz::observer::DecisionEvent;
use crate::policy::info::PolicyInfo;
use crate::util::clock::now_ms;

pub struct DecisionLog {
    lines: LineWriter<PendingLine>,
    mask: Arc<FieldMask>,
}

impl DecisionLog {
    /// Opens the log, so that a wrong target is an error at startup. Later errors only drop lines.
    pub fn open(target: &LogTarget, mask: Arc<FieldMask>, counters: Arc<LineCounters>) -> Result<Self, OpenError> {
        let open_error = |target: String| move |source| OpenError { key: "decisions.log", target, source };
        let lines = match target {
            LogTarget::Stdout => LineWriter::start("decision-log", io::stdout(), dropped_line, counters)
                .map_err(open_error("stdout".into()))?,
            LogTarget::File(path) => {
                let name = path.display().to_string();
                LogFile::open(path.clone())
                    .and_then(|file| LineWriter::start("decision-log", file, dropped_line, counters))
                    .map_err(open_error(name))?
            }
        };
        Ok(Self { lines, mask })
    }

    pub(super) fn push(&self, event: &DecisionEvent<'_>) {
        self.lines.push(PendingLine {
            time: event.time,
            request_id: event.request.id.clone(),
            by: event.decision.by.clone(),
            channels: event.channels.to_vec(),
            summary: DecisionSummary::new(event.decision),
            cached: event.decision.cached,
            duration_us: u64::try_from(event.decision.took.as_micros()).unwrap_or(u64::MAX),
            mask: Arc::clone(&self.mask),
        });
    }

    /// Waits until all queued lines are written, at most until the deadline.
    pub fn flush(&self, deadline: Instant) {
        self.lines.flush(deadline);
    }
}

/// A queued decision. The writer thread formats it.
struct PendingLine {
    time: u64,
    request_id: String,
    by: Option<Arc<PolicyInfo>>,
    channels: Vec<String>,
    summary: DecisionSummary,
    cached: bool,
    duration_us: u64,
    mask: Arc<FieldMask>,
}

/// One line of the log. It has no headers and no query, so neither cookies nor tokens.
#[derive(Serialize)]
struct DecisionLine<'a> {
    time: String,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    channels: Vec<String>,
    #[serde(flatten)]
    summary: DecisionSummary,
    cached: bool,
    duration_us: u64,
}

impl Line for PendingLine {
    fn size(&self) -> usize {
        size_of::<Self>() + self.request_id.len() + strings_size(&self.channels) + self.summary.size()
    }

    fn write(self, to: &mut Vec<u8>) {
        let line = DecisionLine {
            time: rfc3339(self.time),
            request_id: &self.request_id,
            policy: self.by.as_ref().map(|info| &*info.digest),
            generation: self.by.as_ref().map(|info| info.generation),
            channels: self.mask.mask_all(MaskedField::Channels, &self.channels),
            summary: self.summary.masked(&self.mask),
            cached: self.cached,
            duration_us: self.duration_us,
        };
        // Cannot fail: the writer is a vector, and every field is valid JSON.
        let _ = serde_json::to_writer(&mut *to, &line);
        to.push(b'\n');
    }
}

fn dropped_line(dropped: u64) -> String {
    json!({ "time": rfc3339(now_ms()), "dropped": dropped }).to_string()
}

/// Appends lines to a file.
struct LogFile {
    file: ReopeningFile,
    /// The last write failed, so the file may end within a line.
    torn: bool,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self { file: ReopeningFile::open(path, open_for_append)?, torn: false })
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.file.reopen_if_moved(self.torn)? {
            self.torn = false;
        }
        if self.torn {
            self.file.handle().write_all(b"\n")?;
        }
        self.file.handle().write_all(lines)
    }
}

impl Sink for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let result = self.append(lines);
        self.torn = result.is_err();
        result.map(|()| lines.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::policy::info::PolicyOrigin;
    use crate::policy::{Failure, Grant, Outcome, Rejection};
    use crate::util::golden::golden;

    fn entry(outcome: Outcome, reason: Option<&str>, mask: &Arc<FieldMask>) -> PendingLine {
        let origin = PolicyOrigin::default();
        let info = PolicyInfo { generation: 3, digest: "sha256:5d41…".into(), cases: None, since: 0, origin };
        let by = Some(Arc::new(info));
        let (cached, took) = (false, Duration::from_micros(52));
        let decision =
            crate::policy::Decision { outcome, reason: reason.map(str::to_owned), cached, revoked: false, took, by };
        PendingLine {
            time: 1_764_039_792_123,
            request_id: "5f0c".into(),
            by: decision.by.clone(),
            channels: vec!["news".into(), "bob-\"1\"\n".into()],
            summary: DecisionSummary::new(&decision),
            cached,
            duration_us: 52,
            mask: Arc::clone(mask),
        }
    }

    #[test]
    fn lines_match_the_golden_file() {
        let open = Arc::<FieldMask>::default();
        let headers: http::HeaderMap =
            [(http::header::SET_COOKIE, http::HeaderValue::from_static("session=secret"))].into_iter().collect();
        let grant = Grant {
            subject: Some("alice".into()),
            channels: Some(vec!["news".into()]),
            expires_at: Some(1_764_043_392_123),
            headers: headers.clone(),
            ..Grant::default()
        };
        let rejection = Rejection { status: http::StatusCode::FORBIDDEN, headers, body: "secret".into() };
        let mut text = Vec::new();
        for (outcome, reason) in [
            (Outcome::Allowed(grant), Some("member")),
            (Outcome::Allowed(Grant::default()), None),
            (Outcome::Rejected(rejection), Some("not a member")),
            (Outcome::Failed(Failure::Trap("secret".into())), None),
        ] {
            entry(outcome, reason, &open).write(&mut text);
        }
        let text = String::from_utf8(text).expect("text");
        assert!(!text.contains("secret"), "{text}");
        golden("decision-log.jsonl", &text);
    }

    #[test]
    fn masked_fields_do_not_appear_in_a_line() {
        let mask = Arc::new(FieldMask::new(&[MaskedField::Subject, MaskedField::Channels, MaskedField::Reason]));
        let grant = Grant { subject: Some("alice".into()), channels: Some(vec!["news".into()]), ..Grant::default() };
        let mut text = Vec::new();
        entry(Outcome::Allowed(grant), Some("because"), &mask).write(&mut text);
        let line: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(line["channels"][0], line["granted"][0]);
        assert_eq!(line["subject"], mask.mask(MaskedField::Subject, "alice"));
        let text = String::from_utf8(text).expect("text");
        assert!(!["alice", "news", "because", "bob"].iter().any(|word| text.contains(word)), "{text}");
    }

    #[test]
    fn rotated_file_is_reopened() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("decisions.jsonl");
        let mut file = LogFile::open(path.clone()).expect("it opens");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        file.write(b"one\n").expect("written");
        std::fs::rename(&path, folder.path().join("old")).expect("moved");
        file.file.make_check_due();
        file.write(b"two\n").expect("written");
        assert_eq!(std::fs::read(folder.path().join("old")).expect("it is there"), b"one\n");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"two\n");
    }

    #[test]
    fn write_fails_while_the_file_is_deleted_and_cannot_be_created() {
        let folder = tempfile::tempdir().expect("a folder");
        let within = folder.path().join("within");
        std::fs::create_dir(&within).expect("made");
        let mut file = LogFile::open(within.join("log")).expect("it opens");
        std::fs::remove_dir_all(&within).expect("removed");
        file.file.make_check_due();
        for _ in 0..3 {
            file.write(b"lost\n").expect_err("the line would be lost");
        }
        std::fs::create_dir(&within).expect("made");
        file.write(b"two\n").expect("written");
        assert_eq!(std::fs::read(within.join("log")).expect("it is there"), b"two\n");
    }

    #[test]
    fn opening_a_pipe_without_a_reader_does_not_block() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
        assert!(made.success());
        let (opened, is_open) = std::sync::mpsc::channel();
        let to = path.clone();
        std::thread::spawn(move || {
            let mut file = LogFile::open(to).expect("it opens");
            file.write(b"one\n").expect("the pipe buffers it");
            let _ = opened.send(file);
        });
        let _file = is_open.recv_timeout(Duration::from_secs(15)).expect("opening does not block");
        let mut line = [0; 4];
        let mut reader = std::fs::File::open(&path).expect("it opens");
        std::io::Read::read_exact(&mut reader, &mut line).expect("it is read");
        assert_eq!(&line, b"one\n");
    }
}
