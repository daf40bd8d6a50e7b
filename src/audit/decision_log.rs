//! The decision log: one line of JSON for each decision.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use crate::audit::mask::{FieldMask, MaskedField};
use crate::audit::reopening_file::{ReopeningFile, at_its_end};
use crate::audit::summary::{DecisionSummary, texts};
use crate::audit::writer::{Line, LineCounters, LineWriter, Sink};
use crate::audit::{LogTarget, OpenError, rfc3339};
use crate::authz::observer::DecisionEvent;
use crate::policy::info::PolicyInfo;
use crate::util::clock::now_ms;

/// The log.
pub struct DecisionLog {
    lines: LineWriter<PendingLine>,
    mask: Arc<FieldMask>,
}

impl DecisionLog {
    /// Opens it. What is wrong then is told at the start; what goes wrong later costs lines.
    pub fn open(target: &LogTarget, mask: Arc<FieldMask>, tally: Arc<LineCounters>) -> Result<Self, OpenError> {
        let cannot = |target: String| move |source| OpenError { key: "decisions.log", target, source };
        let lines = match target {
            LogTarget::Stdout => {
                LineWriter::start("decision-log", io::stdout(), gap, tally).map_err(cannot("stdout".into()))?
            }
            LogTarget::File(path) => {
                let named = path.display().to_string();
                let file = LogFile::open(path.clone());
                file.and_then(|file| LineWriter::start("decision-log", file, gap, tally)).map_err(cannot(named))?
            }
        };
        Ok(Self { lines, mask })
    }

    pub(super) fn push(&self, event: &DecisionEvent<'_>) {
        self.lines.push(PendingLine {
            time: event.time,
            request_id: event.request.id.clone(),
            by: event.decision.policy.clone(),
            channels: event.channels.to_vec(),
            said: DecisionSummary::new(event.decision),
            cached: event.decision.cached,
            us: u64::try_from(event.decision.duration.as_micros()).unwrap_or(u64::MAX),
            mask: Arc::clone(&self.mask),
        });
    }

    /// Waits until what was told by now is written, or until then.
    pub fn flush(&self, until: Instant) {
        self.lines.flush(until);
    }
}

/// A decision on its way to the log.
struct PendingLine {
    time: u64,
    request_id: String,
    by: Option<Arc<PolicyInfo>>,
    channels: Vec<String>,
    said: DecisionSummary,
    cached: bool,
    us: u64,
    mask: Arc<FieldMask>,
}

/// A line. There is no header in it and no query, so neither cookie nor token.
#[derive(Serialize)]
struct DecisionLine<'a> {
    time: String,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    channels: Vec<String>,
    #[serde(flatten)]
    said: DecisionSummary,
    cached: bool,
    us: u64,
}

impl Line for PendingLine {
    fn size(&self) -> usize {
        size_of::<Self>() + self.request_id.len() + texts(&self.channels) + self.said.size()
    }

    fn write(self, to: &mut Vec<u8>) {
        let line = DecisionLine {
            time: rfc3339(self.time),
            request_id: &self.request_id,
            policy: self.by.as_ref().map(|info| &*info.digest),
            version: self.by.as_ref().map(|info| info.number),
            channels: self.mask.all(MaskedField::Channels, &self.channels),
            said: self.said.masked(&self.mask),
            cached: self.cached,
            us: self.us,
        };
        // A vector takes all, and every text is one of JSON's.
        let _ = serde_json::to_writer(&mut *to, &line);
        to.push(b'\n');
    }
}

fn gap(dropped: u64) -> String {
    json!({ "time": rfc3339(now_ms()), "dropped": dropped }).to_string()
}

/// A file at the end of which lines stand.
struct LogFile {
    named: ReopeningFile,
    /// What was written last may be lost, and what is there may end in the middle of a line.
    torn: bool,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self { named: ReopeningFile::open(path, at_its_end)?, torn: false })
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.named.follow(self.torn)? {
            self.torn = false;
        }
        if self.torn {
            self.named.file().write_all(b"\n")?;
        }
        self.named.file().write_all(lines)
    }
}

impl Sink for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let result = self.append(lines);
        self.torn = result.is_err();
        result
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
        let info = PolicyInfo { number: 3, digest: "sha256:5d41…".into(), cases: None, since: 0, origin };
        let policy = Some(Arc::new(info));
        let (cached, duration) = (false, Duration::from_micros(52));
        let decision = crate::policy::Decision {
            outcome,
            reason: reason.map(str::to_owned),
            cached,
            revoked: false,
            duration,
            policy,
        };
        PendingLine {
            time: 1_764_039_792_123,
            request_id: "5f0c".into(),
            by: decision.policy.clone(),
            channels: vec!["news".into(), "bob-\"1\"\n".into()],
            said: DecisionSummary::new(&decision),
            cached,
            us: 52,
            mask: Arc::clone(mask),
        }
    }

    #[test]
    fn golden_lines() {
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
    fn a_masked_line() {
        let mask = Arc::new(FieldMask::new(&[MaskedField::Subject, MaskedField::Channels, MaskedField::Reason]));
        let grant = Grant { subject: Some("alice".into()), channels: Some(vec!["news".into()]), ..Grant::default() };
        let mut text = Vec::new();
        entry(Outcome::Allowed(grant), Some("because"), &mask).write(&mut text);
        let line: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(line["channels"][0], line["granted"][0]);
        assert_eq!(line["subject"], mask.show(MaskedField::Subject, "alice"));
        let text = String::from_utf8(text).expect("text");
        assert!(!["alice", "news", "because", "bob"].iter().any(|word| text.contains(word)), "{text}");
    }

    #[test]
    fn a_file_that_is_rotated_is_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("decisions.jsonl");
        let mut file = LogFile::open(path.clone()).expect("it opens");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        file.write(b"one\n").expect("written");
        std::fs::rename(&path, folder.path().join("old")).expect("moved");
        file.named.look_again();
        file.write(b"two\n").expect("written");
        assert_eq!(std::fs::read(folder.path().join("old")).expect("it is there"), b"one\n");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"two\n");
    }

    #[test]
    fn lines_of_a_file_that_is_gone_do_not_count_as_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let within = folder.path().join("within");
        std::fs::create_dir(&within).expect("made");
        let mut file = LogFile::open(within.join("log")).expect("it opens");
        std::fs::remove_dir_all(&within).expect("removed");
        file.named.look_again();
        for _ in 0..3 {
            file.write(b"lost\n").expect_err("nobody would see it");
        }
        std::fs::create_dir(&within).expect("made");
        file.write(b"two\n").expect("written");
        assert_eq!(std::fs::read(within.join("log")).expect("it is there"), b"two\n");
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
        assert!(made.success());
        let (opened, is_open) = std::sync::mpsc::channel();
        let to = path.clone();
        std::thread::spawn(move || {
            let mut file = LogFile::open(to).expect("it opens");
            file.write(b"one\n").expect("it waits in the pipe");
            let _ = opened.send(file);
        });
        let _file = is_open.recv_timeout(Duration::from_secs(15)).expect("nobody is waited for");
        let mut line = [0; 4];
        let mut reader = std::fs::File::open(&path).expect("it opens");
        std::io::Read::read_exact(&mut reader, &mut line).expect("it is read");
        assert_eq!(&line, b"one\n");
    }
}
